"""The commands of the sky; `flows.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import USAGE, Dask, Json, Warehouse, bars, follow, print_plan, say, stated, stop

NO_LIMIT = float("inf")
_SETTINGS = {"time_limit": "time_limit_s", "merge_radius": "merge_radius_arcsec"}
"""Settings that are named otherwise than their options."""
_OF_THE_COMMAND = ("dry_run", "as_json")
_SILENT = "Files and lists that do not say"
_ASKED = "Images and services"
_RUN = "The run and its product"


def register(app: typer.Typer, evaluate: typer.Typer, train: typer.Typer) -> None:
    """Add the commands of the sky to the command line."""
    app.command(
        epilog="Example: canopus profiles --targets galaxies.csv --source legacy --bands g,r,z --size-pixels 256; "
        "canopus profiles --source folder:./fits --zero-point 22.5; canopus profiles --source store:synthetic"
    )(profiles)
    evaluate.command(
        "profiles",
        epilog="Example: canopus evaluate profiles warehouse/products/profiles/ID --truth published/ --from 1.5",
    )(evaluate_profiles)
    train.command(
        "profiles", epilog="Example: canopus train profiles --name mine --minutes 10; the same again goes on from there"
    )(train_profiles)


def profiles(
    *,
    targets: Annotated[
        str | None,
        typer.Option(
            help="CSV, Parquet, FITS or VOTable with ra and dec; or sdss:SELECT ..., vizier:CATALOGUE, ned:NAME. "
            "A folder: or store: is measured whole without."
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="legacy, legacy:LAYER, sdss, bricks:PATH_OR_URL, folder:PATH of FITS files, or store:NAME, a sky store "
            "of the warehouse, also one that `canopus generate` made."
        ),
    ] = "legacy",
    bands: Annotated[str | None, typer.Option(help="Comma-separated, e.g. g,r,z; by default the source's.")] = None,
    warehouse: Warehouse = "./warehouse",
    method: Annotated[
        str, typer.Option(help="auto (network, isophotes where it is unsure), network, isophote or published.")
    ] = "auto",
    geometry: Annotated[
        str,
        typer.Option(help="free: an ellipse for each radius; or fixed: the outer ones' at all radii."),
    ] = "free",
    model: Annotated[
        str | None,
        typer.Option(help="Weights of network (shipped ones by default) or published: name, or name/version."),
    ] = None,
    members: Annotated[
        int,
        typer.Option(
            help="Of the network: passes that are put together, as many times the work.", rich_help_panel=_ASKED
        ),
    ] = 1,
    training_mode: Annotated[
        bool,
        typer.Option(
            "--training-mode",
            help="Of published: run as its authors did, norms by the one image and dropout on; seeded.",
            rich_help_panel=_ASKED,
        ),
    ] = False,
    size_pixels: Annotated[int | None, typer.Option(help="Side of a cutout; by default the target's own.")] = None,
    size_arcsec: Annotated[float | None, typer.Option(help="The same in arcsec.")] = None,
    pixel_scale: Annotated[
        float | None,
        typer.Option(
            help="Arcsec per pixel, of files that do not say; of legacy, to resample to.", rich_help_panel=_SILENT
        ),
    ] = None,
    zero_point: Annotated[
        str | None,
        typer.Option(
            help="AB magnitude of one unit of flux: a number, or r=22.5,g=22.4 by band.", rich_help_panel=_SILENT
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="ra=RAJ2000,dec=DEJ2000; also id, redshift, ebv, size, file. By default known names.",
            rich_help_panel=_SILENT,
        ),
    ] = None,
    ebv_map: Annotated[
        str | None,
        typer.Option(
            help="Dust map for E(B-V): a folder with the two SFD maps, or a HEALPix map in FITS.",
            rich_help_panel=_SILENT,
        ),
    ] = None,
    merge_radius: Annotated[
        float, typer.Option(help="Arcsec: targets nearer to each other are one.", rich_help_panel=_SILENT)
    ] = 1.0,
    max_empty_share: Annotated[
        float | None,
        typer.Option(
            help="0 to 1: an image with more of its pixels empty is rejected; by default 0.4.", rich_help_panel=_ASKED
        ),
    ] = None,
    psf: Annotated[
        bool,
        typer.Option(
            "--psf/--no-psf",
            help="Ask for point spread functions where they are requests of their own (legacy, sdss).",
            rich_help_panel=_ASKED,
        ),
    ] = True,
    viewer_url: Annotated[
        str | None,
        typer.Option(help="Of the Legacy Survey's viewer; by default its own.", rich_help_panel=_ASKED),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Folder for the services' raw answers; by default ~/.cache/canopus/sky.", rich_help_panel=_ASKED
        ),
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Begin a new run, and fetch anew what the store holds.", rich_help_panel=_ASKED),
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Objects of one commit and one page.", rich_help_panel=_RUN)] = 100,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for one object; then it is given up.", rich_help_panel=_RUN)
    ] = 60.0,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that measure; by default one per core.", rich_help_panel=_RUN),
    ] = None,
    pages: Annotated[
        bool,
        typer.Option("--pages/--no-pages", help="Draw each object, and pages to leaf through.", rich_help_panel=_RUN),
    ] = True,
    collection: Annotated[str, typer.Option(help="Of the product.", rich_help_panel=_RUN)] = "profiles",
    title: Annotated[str | None, typer.Option(help="Of product and pages.", rich_help_panel=_RUN)] = None,
    dask: Dask = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Measure the surface-brightness profile of every galaxy of a list, and publish them."""
    given = {
        _SETTINGS.get(option, option): value for option, value in locals().items() if option not in _OF_THE_COMMAND
    }
    _extract(given, dry_run=dry_run, as_json=as_json)


def _extract(given: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    """Run the flow with the settings that were given, or say what it would do."""
    from flows.config import make_config
    from flows.config_sky import ProfilesConfig
    from flows.runtime import configure_prefect
    from tasks.sky.methods import Weights, open_method, require_sky_extra

    config = make_config(ProfilesConfig, stated(given))
    require_sky_extra()
    weights = Weights(config.warehouse, config.model or "", config.training_mode, config.members)
    open_method(config.method, geometry=config.geometry, weights=weights)
    if dry_run:
        from flows.plan_sky import describe_extraction

        print_plan(describe_extraction(config), as_json=as_json)
        return
    configure_prefect(config.warehouse)
    from flows.profiles import extract_profiles

    follow(extract_profiles, config, as_json=as_json)


def evaluate_profiles(
    product: Annotated[str, typer.Argument(help="Product of profiles, or a Parquet file or folder of them.")],
    *,
    truth: Annotated[
        Path,
        typer.Option(
            help="True profiles (Parquet, CSV: object_id, band, radius_arcsec, mu or intensity), or published ones "
            "(AutoProf .prof or .csv), a file or a folder."
        ),
    ],
    first: Annotated[float, typer.Option("--from", help="Arcsec: nothing inside is compared.")] = 0.0,
    last: Annotated[float, typer.Option("--to", help="Arcsec: nothing beyond is compared.")] = NO_LIMIT,
    signal: Annotated[float, typer.Option(help="Signal to noise from which radii are compared.")] = 3.0,
    photutils: Annotated[
        bool, typer.Option("--photutils/--no-photutils", help="Also measure the same cutouts by photutils as it comes.")
    ] = True,
    warehouse: Annotated[str | None, typer.Option(help="Warehouse of the cutouts; by default the product's.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for one object by photutils.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="Folder for report and picture; by default none is written.")] = None,
    as_json: Json = False,
) -> None:
    """Score profiles against true or published ones, with photutils as it comes beside them."""
    if first >= last:
        stop(f"canopus: --from {first:g} is not below --to {last:g}", USAGE)
    from tasks.sky.methods import require_sky_extra

    require_sky_extra()
    from tasks.sky.profile_comparison import ComparisonRule
    from tasks.sky.profile_evaluation import describe_scores, evaluate_product

    with bars():
        report = evaluate_product(
            product,
            truth,
            rule=ComparisonRule(first, last, signal),
            photutils=photutils,
            warehouse=warehouse,
            time_limit_s=time_limit,
            out=out,
        )
    say(json.dumps(report) if as_json else describe_scores(report))


def train_profiles(
    *,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "profiles",
    warehouse: Warehouse = "./warehouse",
    real: Annotated[
        str | None,
        typer.Option(help="Products of profiles by isophotes, comma-separated: their galaxies are learned from too."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates; by default 2400.")] = None,
    shards: Annotated[int | None, typer.Option(help="Of 256 generated galaxies each; by default 90.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings in YAML (width, layers, batch, learning_rate, ...); options lie over them."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Of this piece; the same command again goes on from there.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of galaxies and weights; by default 1.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where the same was begun or done before.")] = False,
    as_json: Json = False,
) -> None:
    """Train the network that reads profiles off images, on generated galaxies; resumable, best on a GPU."""
    from flows.config import load_config, make_config
    from flows.config_sky import TrainProfilesConfig
    from flows.runtime import configure_prefect

    given = {
        "name": name,
        "warehouse": warehouse,
        "real": real,
        "steps": steps,
        "shards": shards,
        "minutes": minutes,
        "device": device,
        "seed": seed,
        "fresh": fresh,
    }
    kind, options = TrainProfilesConfig, stated(given)
    made = load_config(config, kind, **options) if config else make_config(kind, options)
    configure_prefect(warehouse)
    from flows.train_profiles import train_profile_network

    follow(train_profile_network, made, as_json=as_json)
