"""The `canopus` command. Heavy imports wait until a command needs them, so that ``--help`` answers at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flows import cli_diffusion, cli_generation, cli_sky, cli_synthesis
from flows.console import (
    FAILED,
    USAGE,
    Dask,
    Json,
    Warehouse,
    bars,
    follow,
    print_plan,
    run_flow,
    say,
    stated,
    stop,
)

if TYPE_CHECKING:
    from flows.config import PipelineConfig

app = typer.Typer(
    name="canopus",
    help="One pipeline for large observation models of the Earth and the sky.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train = typer.Typer(help="Train a model.", no_args_is_help=True)
app.add_typer(train, name="train")


class _MapByDefault(TyperGroup):
    """A group in which ``canopus evaluate PRODUCT ...`` is ``canopus evaluate map PRODUCT ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``map`` before what does not begin with a command or a call for help."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["map", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(
    cls=_MapByDefault,
    help="Score a map, or forecasts. `canopus evaluate PRODUCT ...` scores a map.",
    epilog="Example: canopus evaluate warehouse/products/canopy/ID --sample sample.gpkg",
    no_args_is_help=True,
)
app.add_typer(evaluate, name="evaluate")

Area = Annotated[str, typer.Option(help="minx,miny,maxx,maxy in degrees, or a vector file.")]
Crs = Annotated[str | None, typer.Option(help="Projected CRS of the grid, e.g. EPSG:27700; by default the UTM zone.")]
Until = Annotated[str | None, typer.Option(help="Use looks up to this day, YYYY-MM-DD; by default all.")]
Unmasked = Annotated[bool, typer.Option("--allow-unmasked", help="Count looks of items that have no mask.")]
OtherWarehouse = Annotated[str | None, typer.Option("--warehouse", help="Instead of the one in the settings.")]
ClassField = Annotated[
    str | None, typer.Option(help="Polygons: attribute that holds the class; by default class, or that of the table.")
]
Values = Annotated[
    list[str] | None, typer.Option(help="Value in the file = class, e.g. --value Conifer=conifer; may be repeated.")
]
LowestValue = Annotated[float | None, typer.Option(help="Raster: values from here on are the last class.")]
Outside = Annotated[str, typer.Option(help="What lies outside every polygon: none or ignore.")]
Margin = Annotated[int, typer.Option(help="Pixels left out on either side of a boundary.")]
Table = Annotated[str | None, typer.Option(help="Table of an inventory's classes: nfi, or a YAML file.")]
IgnoreAreas = Annotated[str | None, typer.Option("--ignore", help="File of polygons in which nothing is known.")]
LeastArea = Annotated[
    float | None, typer.Option("--min-area-ha", help="Smaller polygons, or patches of a raster, are unknown.")
]
LeastWidth = Annotated[float | None, typer.Option("--min-width-m", help="Narrower ones too.")]
LabelDate = Annotated[
    str | None, typer.Option("--label-date", help="Day the labels are of, YYYY-MM-DD: no later look is trained on.")
]
DateField = Annotated[
    str | None, typer.Option(help="Polygons: attribute with a year or date; newer ones than the labels are unknown.")
]
LargestAge = Annotated[
    float | None, typer.Option("--max-age-years", help="Polygons older than that on the labels' day are unknown.")
]
_LABEL_OPTIONS = {
    "class_field": "class_field",
    "table": "table",
    "at_least": "at_least",
    "outside": "outside",
    "margin": "margin",
    "ignore": "ignore",
    "min_area_ha": "min_area_ha",
    "min_width_m": "min_width_m",
    "label_date": "date",
    "date_field": "date_field",
    "max_age_years": "max_age_years",
}
"""Options of a file of labels, and what its settings call them."""
Scheme = Annotated[str, typer.Option(help="canopy (none, broadleaved, conifer) or canopy-or-not.")]
WindowDays = Annotated[int | None, typer.Option(help="Use looks of so many days up to the last day only, e.g. 365.")]
Gate = Annotated[
    list[str] | None,
    typer.Option(help="Limit of a check, e.g. --gate max_age_days=30; none switches it off; may be repeated."),
]
Allow = Annotated[
    list[str] | None, typer.Option(help="Publish although this check fails; the item says so; may be repeated.")
]
MapSample = Annotated[str | None, typer.Option(help="Labelled probability sample: the report estimates areas from it.")]


def main() -> None:
    """Run the command line; an expected error is one line that says what to do."""
    try:
        app()
    except Exception as error:
        if not _is_expected(error):
            raise
        stop(f"canopus: {error}", USAGE if _is_usage(error) else FAILED)


@app.command(epilog="Example: canopus simulate ./archive --seed 3 --size-km 5 --years 2")
def simulate(
    folder: Annotated[Path, typer.Argument(help="Where the archive goes.")] = Path("archive"),
    *,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
    size_km: Annotated[float, typer.Option(help="Side of the area.")] = 5.0,
    years: Annotated[float, typer.Option(help="Length of the series.")] = 2.0,
    layout: Annotated[
        str, typer.Option(help="Asset names: earth-search, planetary-computer or mixed.")
    ] = "earth-search",
    reflectance: Annotated[bool, typer.Option(help="Also write the gap-free reflectance.")] = False,
    west: Annotated[float | None, typer.Option(help="Left edge, metres in EPSG:32630; a multiple of 20.")] = None,
    south: Annotated[float | None, typer.Option(help="Lower edge, metres in EPSG:32630; a multiple of 20.")] = None,
) -> None:
    """Make a Sentinel-2 L2A archive with known truth: COGs, STAC items, labels."""
    from tasks.earth.simulate import SimulateConfig
    from tasks.earth.simulate.whole import make_archive

    place: dict[str, Any] = {name: value for name, value in (("west", west), ("south", south)) if value is not None}
    config = SimulateConfig(
        seed=seed,
        size_km=size_km,
        years=years,
        layout=layout,  # type: ignore[arg-type]
        gap_free=reflectance,
        **place,
    )
    with bars() as bar:
        lines = make_archive(folder, config, on_progress=partial(bar, "simulate", ""))
    say("\n".join(lines))


@app.command(
    epilog="Example: canopus ingest --catalog https://earth-search.aws.element84.com/v1 --collection sentinel-2-l2a "
    "--aoi -4.9,50.3,-4.8,50.4 --start 2023-01-01 --end 2023-12-31 --max-cloud 80 --warehouse ./warehouse"
)
def ingest(
    *,
    catalog: Annotated[str, typer.Option(help="URL of a STAC API; or URL, folder or file of a static catalogue.")],
    collection: Annotated[str, typer.Option(help="Collection of Sentinel-2 L2A.")] = "sentinel-2-l2a",
    aoi: Area,
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")],
    end: Annotated[str | None, typer.Option(help="Last day; by default today.")] = None,
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    resolution: Annotated[float, typer.Option(help="Metres per pixel.")] = 10.0,
    bands: Annotated[str | None, typer.Option(help="Comma-separated, e.g. B02,B03,B04,B08; by default ten.")] = None,
    max_cloud: Annotated[float | None, typer.Option(help="Leave out items with more cloud, per cent.")] = None,
    mask: Annotated[str, typer.Option(help="Asset that holds the mask of clear looks.")] = "scl",
    mask_clear: Annotated[str, typer.Option(help="Values of the mask that count as clear.")] = "4,5,6",
    resampling: Annotated[str, typer.Option(help="For other grids: nearest, bilinear or cubic.")] = "nearest",
    allow_host: Annotated[list[str] | None, typer.Option(help="Read only from this host; may be repeated.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for one tile.")] = 3600.0,
    dask: Dask = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print new / skip / recompute with bytes; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the cubes of an area up to date from a STAC catalogue."""
    from flows.config import IngestConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "catalog": catalog,
        "collection": collection,
        "aoi": aoi,
        "start": start,
        "end": end,
        "warehouse": warehouse,
        "crs": crs,
        "resolution": resolution,
        "bands": bands.split(",") if bands else None,
        "max_cloud": max_cloud,
        "mask": {"asset": mask, "clear": mask_clear.split(",")},
        "resampling": resampling,
        "http": {"allowed_hosts": allow_host or []},
        "time_limit_s": time_limit,
        "dask": dask,
    }
    config = make_config(IngestConfig, stated(given))
    if dry_run:
        from flows.plan import describe_plan

        print_plan(describe_plan(config), as_json=as_json)
        return
    configure_prefect(warehouse)
    from flows.ingest import ingest_earth

    follow(ingest_earth, config, as_json=as_json)


@app.command(epilog="Example: canopus redrive latest --warehouse ./warehouse")
def redrive(
    run: Annotated[str, typer.Argument(help="Run id, its start, or 'latest'.")],
    *,
    warehouse: Warehouse = "./warehouse",
    dask: Dask = None,
    as_json: Json = False,
) -> None:
    """Take up again what failed in a run of ingest or of profiles, or what it never came to."""
    from flows.runtime import configure_prefect
    from storage.location import resolve
    from storage.manifest import find_run

    found = find_run(resolve(warehouse), run, kind=("ingest", "profiles"))
    configure_prefect(warehouse)
    if found.id.startswith("profiles-"):
        from flows.profiles import redrive_profiles

        follow(redrive_profiles, warehouse, found, dask, as_json=as_json)
    from flows.ingest import redrive_ingest

    follow(redrive_ingest, warehouse, found, dask, as_json=as_json)


@train.command(
    "floor",
    epilog="Example: canopus train floor --aoi area.geojson --labels woods.gpkg --class-field class --name floor",
)
def train_floor(
    *,
    aoi: Area,
    labels: Annotated[str, typer.Option(help="GeoPackage, GeoJSON, Shapefile or raster.")],
    class_field: ClassField = None,
    classes: Scheme = "canopy",
    value: Values = None,
    table: Table = None,
    at_least: LowestValue = None,
    outside: Outside = "none",
    margin: Margin = 1,
    ignore: IgnoreAreas = None,
    min_area_ha: LeastArea = None,
    min_width_m: LeastWidth = None,
    label_date: LabelDate = None,
    date_field: DateField = None,
    max_age_years: LargestAge = None,
    until: Until = None,
    allow_unmasked: Unmasked = False,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "floor",
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    folds: Annotated[int, typer.Option(help="Spatially blocked folds of the accuracy.")] = 5,
    block: Annotated[int, typer.Option(help="Pixels on a side of a block.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the forest and the folds.")] = 0,
    as_json: Json = False,
) -> None:
    """Train the floor: temporal statistics of the masked series into a forest."""
    from flows.config import TrainFloorConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "aoi": aoi,
        "labels": _labels(labels, locals()),
        "classes": _classes(classes),
        "until": until,
        "allow_unmasked": allow_unmasked,
        "name": name,
        "warehouse": warehouse,
        "crs": crs,
        "folds": folds,
        "block": block,
        "seed": seed,
    }
    config = make_config(TrainFloorConfig, stated(given))
    configure_prefect(warehouse)
    from flows.train import train_floor_model

    follow(train_floor_model, config, as_json=as_json)


@train.command(
    "canopy",
    epilog="Example: canopus train canopy --aoi area.geojson --labels woods.gpkg --class-field class "
    "--backbone earthpt-small --until 2023-12-31 --name county",
)
def train_canopy(
    *,
    aoi: Annotated[str | None, typer.Option(help="Area of the labels: minx,miny,maxx,maxy or a vector file.")] = None,
    labels: Annotated[str | None, typer.Option(help="GeoPackage, GeoJSON, Shapefile or raster.")] = None,
    class_field: ClassField = None,
    classes: Scheme = "canopy",
    value: Values = None,
    table: Table = None,
    at_least: LowestValue = None,
    outside: Outside = "none",
    margin: Margin = 1,
    ignore: IgnoreAreas = None,
    min_area_ha: LeastArea = None,
    min_width_m: LeastWidth = None,
    label_date: LabelDate = None,
    date_field: DateField = None,
    max_age_years: LargestAge = None,
    backbone: Annotated[
        str,
        typer.Option(
            help="EarthPT, or a canopy model to go on from. An EarthPT that a trained head is shipped for begins with it."
        ),
    ] = "earthpt-distilled",
    until: Until = None,
    window_days: WindowDays = None,
    allow_unmasked: Unmasked = False,
    tuning: Annotated[str, typer.Option(help="frozen: the head alone; lora or full: EarthPT too (slow).")] = "frozen",
    published: Annotated[
        bool, typer.Option("--published", help="As Dargana: an MLP on the pooled embedding of each pixel.")
    ] = False,
    fresh_head: Annotated[bool, typer.Option("--fresh-head", help="Begin with a new head.")] = False,
    head: Annotated[
        str | None, typer.Option(help="Canopy model whose head to begin with, whatever EarthPT it was trained on.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Width of a new head.")] = 64,
    reach: Annotated[int, typer.Option(help="Pixels to each side that a new head sees.")] = 5,
    dropout: Annotated[float, typer.Option(help="Of a new head; 0.1 where labels are many.")] = 0.4,
    members: Annotated[
        int | None,
        typer.Option(help="Networks that a new head averages, by default one; of a trained head the first so many."),
    ] = None,
    turns: Annotated[
        int, typer.Option(help="1, 2, 4 or 8 ways of turning and mirroring the ground that a new head averages.")
    ] = 1,
    places: Annotated[int, typer.Option(help="Generated places to learn from too; alone without labels.")] = 0,
    pixels: Annotated[int, typer.Option(help="Labelled pixels that are read, about.")] = 250_000,
    steps: Annotated[int, typer.Option(help="Updates at most.")] = 600,
    batch: Annotated[int, typer.Option(help="Patches of 32 x 32 pixels in an update.")] = 8,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="At its highest; by default 2e-3, 3e-4 where a head is followed outside of polygons."),
    ] = None,
    focus: Annotated[float, typer.Option(help="Exponent of the focal loss; 0 is cross-entropy.")] = 0.0,
    balanced: Annotated[bool, typer.Option("--balanced", help="Classes weigh alike, whatever their share.")] = False,
    doubt: Annotated[
        float,
        typer.Option(help="Outside of polygons, probability from which the starting head sees canopy; 1: all is none."),
    ] = 0.5,
    block: Annotated[int, typer.Option(help="Pixels on a side of train, validation and test tiles.")] = 32,
    gap: Annotated[int, typer.Option(help="Pixels between tiles of different parts.")] = 4,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that draw places; by default one for each core.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "canopy",
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a canopy head on an EarthPT: from labels, from generated places, or both."""
    from flows.config import TrainCanopyConfig, make_config
    from flows.runtime import configure_prefect

    read = _labels(labels, locals())
    given = {
        "aoi": aoi,
        "labels": read if labels else None,
        "classes": _classes(classes),
        "backbone": backbone,
        "until": until,
        "window_days": window_days,
        "allow_unmasked": allow_unmasked,
        "tuning": tuning,
        "published": published,
        "fresh_head": fresh_head,
        "head": head,
        "hidden": hidden,
        "reach": reach,
        "dropout": dropout,
        "members": members,
        "turns": turns,
        "places": places,
        "pixels": pixels,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "focus": focus,
        "balanced": balanced,
        "doubt": doubt,
        "block": block,
        "gap": gap,
        "device": device,
        "workers": workers,
        "name": name,
        "warehouse": warehouse,
        "crs": crs,
        "seed": seed,
    }
    config = make_config(TrainCanopyConfig, stated(given))
    configure_prefect(warehouse)
    from flows.train import train_canopy_model

    follow(train_canopy_model, config, as_json=as_json)


@train.command(
    "earthpt",
    epilog="Example: canopus train earthpt --aoi area.geojson --until 2018-12-31 --name mine --minutes 20; "
    "on several GPUs: torchrun --nproc-per-node 8 -m flows.cli train earthpt --config pretrain.yaml --parallel ddp",
)
def train_earthpt(
    *,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options lie over them.")] = None,
    warehouse: Annotated[
        str | None, typer.Option(help="Folder, s3://bucket/prefix, gs:// or az://; by default ./warehouse.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; by default earthpt.")] = None,
    aoi: Annotated[
        str | None,
        typer.Option(help="Real series: minx,miny,maxx,maxy or a vector file; without, generated ones alone."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="No look after this day is used, YYYY-MM-DD; by default all.")
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Comma-separated, of the cubes' bands; by default all.")] = None,
    holdout_blocks: Annotated[
        str | None, typer.Option(help="FOLDS:FOLD[:BLOCK]: leave the blocks of one fold out, e.g. 5:0:20.")
    ] = None,
    pixels: Annotated[int | None, typer.Option(help="Real series; by default 20,000.")] = None,
    allow_unmasked: Unmasked = False,
    crs: Crs = None,
    prior_share: Annotated[
        float | None, typer.Option(help="Share of generated series; by default half, without an area all.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Model to begin with, or none; by default earthpt-small where there is an area.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Model to learn from, beside the looks.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall clock of the training loop.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates; by default 20,000, or 600 from a model, or as minutes allow.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")] = None,
    parallel: Annotated[str | None, typer.Option(help="Under torchrun: ddp or fsdp.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where the same was done or begun before.")] = False,
    as_json: Json = False,
) -> None:
    """Train EarthPT on generated series, on those of an area, or from a teacher; interrupted, it goes on."""
    from flows.config import TrainEarthPTConfig, load_config, make_config
    from flows.runtime import configure_prefect

    given = {
        "warehouse": warehouse,
        "name": name,
        "aoi": aoi,
        "until": until,
        "bands": bands.split(",") if bands else None,
        "holdout_blocks": holdout_blocks,
        "pixels": pixels,
        "allow_unmasked": allow_unmasked or None,
        "crs": crs,
        "prior_share": prior_share,
        "start_from": start_from,
        "teacher": teacher,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
        "parallel": parallel,
        "fresh": fresh or None,
    }
    options = stated(given)
    settings = (
        load_config(config, TrainEarthPTConfig, **options) if config else make_config(TrainEarthPTConfig, options)
    )
    configure_prefect(settings.warehouse)
    from flows.train import follow_earthpt, follows, train_earthpt_model

    if follows():
        follow_earthpt(settings)
        return
    follow(train_earthpt_model, settings, as_json=as_json)


@app.command("map", epilog="Example: canopus map --aoi area.geojson --model canopy-distilled --until 2023-12-31")
def map_command(
    *,
    aoi: Area,
    model: Annotated[str, typer.Option(help="Name, or name/version.")] = "canopy-distilled",
    until: Until = None,
    window_days: WindowDays = None,
    allow_unmasked: Unmasked = False,
    collection: Annotated[str, typer.Option(help="STAC collection of the product.")] = "canopy",
    title: Annotated[str, typer.Option(help="On the picture and the item.")] = "Tree canopy",
    gate: Gate = None,
    allow: Allow = None,
    sample: MapSample = None,
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    dask: Dask = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be read and mapped; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Classify the cubes of an area and publish the map: COGs, GeoZarr, picture, STAC item."""
    from flows.config import MapConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "aoi": aoi,
        "model": model,
        "until": until,
        "window_days": window_days,
        "allow_unmasked": allow_unmasked,
        "collection": collection,
        "title": title,
        "gates": _gates(gate, allow),
        "sample": sample,
        "warehouse": warehouse,
        "crs": crs,
        "dask": dask,
    }
    config = make_config(MapConfig, stated(given))
    if dry_run:
        from flows.plan import describe_map

        print_plan(describe_map(config), as_json=as_json)
        return
    configure_prefect(warehouse)
    from flows.infer import map_canopy

    follow(map_canopy, config, as_json=as_json)


@app.command(
    epilog="Example: canopus backfill --aoi area.geojson --model canopy-distilled --start 2021-12-31 --end 2023-12-31 --every 1Y"
)
def backfill(
    *,
    aoi: Area,
    model: Annotated[str, typer.Option(help="Name, or name/version.")] = "canopy-distilled",
    start: Annotated[str, typer.Option(help="Day of the first map, YYYY-MM-DD.")],
    end: Annotated[str | None, typer.Option(help="No map after this day; by default today.")] = None,
    every: Annotated[str, typer.Option(help="Time between maps: 1M, 3M, 1Y, 2W, 10D.")] = "1M",
    window_days: WindowDays = None,
    allow_unmasked: Unmasked = False,
    collection: Annotated[str, typer.Option(help="STAC collection of the products.")] = "canopy",
    title: Annotated[str, typer.Option(help="On the pictures and the items.")] = "Tree canopy",
    gate: Gate = None,
    allow: Allow = None,
    sample: MapSample = None,
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    dask: Dask = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which maps are there and which are missing; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish the maps of a period from the cubes as they are; those that are there are passed over."""
    from flows.config import BackfillConfig, make_config
    from flows.runtime import configure_prefect

    mapped = {
        "aoi": aoi,
        "model": model,
        "window_days": window_days,
        "allow_unmasked": allow_unmasked,
        "collection": collection,
        "title": title,
        "gates": _gates(gate, allow),
        "sample": sample,
        "warehouse": warehouse,
        "crs": crs,
        "dask": dask,
    }
    given = {"map": stated(mapped), "start": start, "end": end, "every": every}
    config = make_config(BackfillConfig, stated(given))
    if dry_run:
        from flows.plan import describe_backfill

        print_plan(describe_backfill(config), as_json=as_json)
        return
    configure_prefect(warehouse)
    from flows.backfill import backfill_canopy_map

    follow(backfill_canopy_map, config, as_json=as_json)


@app.command(epilog="Example: canopus change --aoi area.geojson --collection canopy --min-area-ha 0.1")
def change(
    *,
    aoi: Area,
    collection: Annotated[str, typer.Option(help="Collection of the maps.")] = "canopy",
    start: Annotated[str | None, typer.Option(help="Use maps from this date on, YYYY-MM-DD; by default all.")] = None,
    end: Annotated[str | None, typer.Option(help="Use maps up to this date; by default all.")] = None,
    min_area_ha: Annotated[float, typer.Option(help="Smaller patches of change are left out.")] = 0.05,
    out_collection: Annotated[str, typer.Option(help="STAC collection of the product.")] = "canopy-change",
    title: Annotated[str, typer.Option(help="On the picture and the item.")] = "Change of woodland",
    allow_unmasked: Unmasked = False,
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    dask: Dask = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which maps and cubes would be read; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find woodland lost and gained in published maps and the looks behind them: kind, date, confidence, STAC item."""
    from flows.config import ChangeConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "aoi": aoi,
        "collection": collection,
        "start": start,
        "end": end,
        "min_area_ha": min_area_ha,
        "out_collection": out_collection,
        "title": title,
        "allow_unmasked": allow_unmasked,
        "warehouse": warehouse,
        "crs": crs,
        "dask": dask,
    }
    config = make_config(ChangeConfig, stated(given))
    if dry_run:
        from flows.plan import describe_change

        print_plan(describe_change(config), as_json=as_json)
        return
    configure_prefect(warehouse)
    from flows.change import change_canopy

    follow(change_canopy, config, as_json=as_json)


@app.command(
    epilog="Example: canopus forecast --aoi area.geojson --model earthpt-small --horizon 150 --every 30 --out-index ndvi,nbr"
)
def forecast(
    *,
    aoi: Area,
    model: Annotated[str, typer.Option(help="Name, or name/version; 'window' needs no training.")],
    origin: Annotated[str | None, typer.Option(help="Use looks before this day, YYYY-MM-DD; by default all.")] = None,
    dates: Annotated[str | None, typer.Option(help="Comma-separated days to forecast, instead of --horizon.")] = None,
    horizon: Annotated[int, typer.Option(help="Days from the origin to the last one forecast.")] = 150,
    every: Annotated[int, typer.Option(help="Days between those forecast.")] = 30,
    bands: Annotated[str | None, typer.Option(help="Comma-separated, of the cubes' bands; by default all.")] = None,
    quantiles: Annotated[
        str | None, typer.Option(help="Comma-separated levels to keep; by default all that the model gives.")
    ] = None,
    out_index: Annotated[str, typer.Option(help="Comma-separated indices that get COGs and pictures.")] = "ndvi",
    allow_unmasked: Unmasked = False,
    collection: Annotated[str, typer.Option(help="STAC collection of the product.")] = "forecast",
    title: Annotated[str, typer.Option(help="On the pictures and the item.")] = "Forecast",
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    dask: Dask = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be read and forecast; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forecast an area: quantiles of reflectance and indices per pixel and day, index maps, pictures, STAC item."""
    from flows.config import ForecastConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "aoi": aoi,
        "model": model,
        "origin": origin,
        "dates": dates.split(",") if dates else None,
        "horizon": horizon,
        "every": every,
        "bands": bands.split(",") if bands else None,
        "quantiles": quantiles.split(",") if quantiles else None,
        "out_index": out_index.split(","),
        "allow_unmasked": allow_unmasked,
        "collection": collection,
        "title": title,
        "warehouse": warehouse,
        "crs": crs,
        "dask": dask,
    }
    config = make_config(ForecastConfig, stated(given))
    if dry_run:
        from flows.plan import describe_forecast

        print_plan(describe_forecast(config), as_json=as_json)
        return
    configure_prefect(warehouse)
    from flows.forecast import forecast_area

    follow(forecast_area, config, as_json=as_json)


@app.command(epilog="Example: canopus embed --aoi area.geojson --model earthpt-small --until 2023-12-31")
def embed(
    *,
    aoi: Area,
    model: Annotated[str, typer.Option(help="Name, or name/version.")],
    until: Until = None,
    bands: Annotated[str | None, typer.Option(help="Comma-separated, of the cubes' bands; by default all.")] = None,
    dtype: Annotated[str, typer.Option(help="As which the embedding is stored: float16 or float32.")] = "float16",
    seed: Annotated[int, typer.Option(help="Of the pixels that the principal components are fitted on.")] = 0,
    allow_unmasked: Unmasked = False,
    collection: Annotated[str, typer.Option(help="STAC collection of the product.")] = "embedding",
    title: Annotated[str, typer.Option(help="On the picture and the item.")] = "Embedding",
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    dask: Dask = None,
    as_json: Json = False,
) -> None:
    """Embed an area: a vector for each pixel's series, its principal components, picture, STAC item."""
    from flows.config import EmbedConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "aoi": aoi,
        "model": model,
        "until": until,
        "bands": bands.split(",") if bands else None,
        "dtype": dtype,
        "seed": seed,
        "allow_unmasked": allow_unmasked,
        "collection": collection,
        "title": title,
        "warehouse": warehouse,
        "crs": crs,
        "dask": dask,
    }
    config = make_config(EmbedConfig, stated(given))
    configure_prefect(warehouse)
    from flows.embed import embed_area

    follow(embed_area, config, as_json=as_json)


@app.command(epilog="Example: canopus run (the embedded default), or canopus run my-county.yaml")
def run(
    config: Annotated[Path | None, typer.Argument(help="Settings in YAML; by default the generated archive.")] = None,
    *,
    warehouse: OtherWarehouse = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="As `canopus plan`: print the plan, write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the main job: archive to published canopy map."""
    from flows.runtime import configure_prefect

    settings = _main_job(config, warehouse)
    if dry_run:
        plan(config, warehouse=warehouse, as_json=as_json)
        return
    configure_prefect(settings.map.warehouse)
    from flows.pipeline import archive_to_map

    follow(archive_to_map, settings, as_json=as_json)


@app.command(epilog="Example: canopus plan my-county.yaml")
def plan(
    config: Annotated[Path | None, typer.Argument(help="Settings in YAML; by default the generated archive.")] = None,
    *,
    warehouse: OtherWarehouse = None,
    as_json: Json = False,
) -> None:
    """Show what `canopus run` would do; write nothing."""
    from flows.plan import describe_pipeline

    print_plan(describe_pipeline(_main_job(config, warehouse)), as_json=as_json)


@app.command(epilog="Example: canopus verify warehouse/products/canopy/canopy-20231231-0123456789ab")
def verify(
    product: Annotated[str, typer.Argument(help="Folder, URL or item file of a product.")],
    *,
    as_json: Json = False,
) -> None:
    """Check a product against its item and manifest."""
    from tasks.earth.verify import verify_product

    report = verify_product(product)
    if as_json:
        say(json.dumps({"ok": report.ok, **asdict(report)}, default=str))
    else:
        verdict = "sound" if report.ok else f"{len(report.findings)} finding(s)"
        say("\n".join([f"{report.item_url}: {verdict}, {report.files} files", *map(str, report.findings)]))
    raise typer.Exit(0 if report.ok else FAILED)


@app.command(epilog="Example: canopus labels --aoi area.geojson --labels nfi.gpkg --table nfi --label-date 2022-03-31")
def labels(
    *,
    aoi: Area,
    labels: Annotated[str, typer.Option(help="GeoPackage, GeoJSON, Shapefile or raster.")],
    class_field: ClassField = None,
    classes: Scheme = "canopy",
    value: Values = None,
    table: Table = None,
    at_least: LowestValue = None,
    outside: Outside = "none",
    margin: Margin = 1,
    ignore: IgnoreAreas = None,
    min_area_ha: LeastArea = None,
    min_width_m: LeastWidth = None,
    label_date: LabelDate = None,
    date_field: DateField = None,
    max_age_years: LargestAge = None,
    block: Annotated[int, typer.Option(help="Pixels on a side of a block of train, validation or test.")] = 32,
    gap: Annotated[int, typer.Option(help="Pixels beside a block of another part that belong to none.")] = 2,
    shares: Annotated[str, typer.Option(help="Of train, validation and test.")] = "0.7,0.15,0.15",
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    warehouse: Warehouse = "./warehouse",
    crs: Crs = None,
    out: Annotated[str, typer.Option(help="Folder of labels.json and labels.png.")] = "labels-report",
    as_json: Json = False,
) -> None:
    """Show what labels hold on the grid of an area: counts, areas, what is unknown and why, a split, a picture."""
    from flows.config import LabelReportConfig, make_config
    from flows.labels import report_labels
    from tasks.earth.label_report import describe_labels

    given = {
        "aoi": aoi,
        "labels": _labels(labels, locals()),
        "classes": _classes(classes),
        "block": block,
        "gap": gap,
        "shares": shares.split(","),
        "seed": seed,
        "warehouse": warehouse,
        "crs": crs,
        "out": out,
    }
    report = report_labels(make_config(LabelReportConfig, stated(given)))
    say(json.dumps(report) if as_json else describe_labels(report))


@app.command(epilog="Example: canopus sample warehouse/products/canopy/ID --size 300 --out sample.gpkg")
def sample(
    product: Annotated[str, typer.Argument(help="Folder, URL or item file of a map.")],
    *,
    out: Annotated[Path, typer.Option(help="GeoPackage, GeoJSON or CSV to write.")] = Path("sample.gpkg"),
    size: Annotated[int, typer.Option(help="Number of points.")] = 300,
    at_least: Annotated[int, typer.Option(help="Points in the smallest stratum.")] = 30,
    seed: Annotated[int, typer.Option(help="Same seed, same points.")] = 0,
) -> None:
    """Draw a stratified random sample of a map, to be labelled by an interpreter."""
    from tasks.earth.assess import sample_map

    say("\n".join(sample_map(product, out, size=size, at_least=at_least, seed=seed)))


@evaluate.command("map", epilog="Example: canopus evaluate map warehouse/products/canopy/ID --sample sample.gpkg")
def evaluate_map(
    product: Annotated[str, typer.Argument(help="Folder, URL or item file of a map.")],
    *,
    labels: Annotated[
        str | None, typer.Option(help="Held-out polygons or raster: confusion and ranking scores.")
    ] = None,
    class_field: ClassField = None,
    value: Values = None,
    table: Table = None,
    at_least: LowestValue = None,
    outside: Outside = "none",
    margin: Margin = 0,
    ignore: IgnoreAreas = None,
    sample: Annotated[
        Path | None, typer.Option(help="Labelled probability sample: accuracy and areas with intervals.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a map against held-out labels, or against a probability sample."""
    from flows.config import LabelSettings, make_config
    from flows.labels import to_rules
    from tasks.earth.assess import score_map

    given = _labels(labels or "", locals())
    rules = to_rules(make_config(LabelSettings, given))
    report = score_map(product, labels=labels, rules=rules, sample=sample)
    say(json.dumps(report.scores, default=str) if as_json else report.text)


@evaluate.command(
    "forecast",
    epilog="Example: canopus evaluate forecast --model earthpt-small --warehouse ./warehouse --aoi area.geojson "
    "--origins 2019-01-01:2019-07-01:MS --horizon 150",
)
def evaluate_forecast(
    *,
    model: Annotated[
        str | None, typer.Option(help="Name, or name/version; 'window' needs no training; by default the floors alone.")
    ] = None,
    warehouse: Warehouse = "./warehouse",
    aoi: Area,
    origins: Annotated[str, typer.Option(help="START:END:FREQ, both ends included, FREQ as pandas spells it.")],
    horizon: Annotated[int, typer.Option(help="Days ahead that are scored.")] = 150,
    context: Annotated[
        str, typer.Option(help="Looks before the origin that may be used: valid (away from clouds) or clear.")
    ] = "valid",
    bands: Annotated[str | None, typer.Option(help="Comma-separated, of the cubes' bands; by default all.")] = None,
    holdout_blocks: Annotated[
        str | None, typer.Option(help="FOLDS:FOLD[:BLOCK]: score only blocks that training left out, e.g. 5:0:20.")
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the pixels that are scored, drawn by their place.")] = 1.0,
    allow_unmasked: Unmasked = False,
    crs: Crs = None,
    out: Annotated[str | None, typer.Option(help="Folder of report and pictures; by default the run's.")] = None,
    dask: Dask = None,
    as_json: Json = False,
) -> None:
    """Score forecasts beside every floor, with intervals and pictures, on looks held out in time."""
    from flows.config import EvaluateForecastConfig, make_config
    from flows.runtime import configure_prefect

    given = {
        "model": model,
        "warehouse": warehouse,
        "aoi": aoi,
        "origins": origins,
        "horizon": horizon,
        "context": context,
        "bands": bands.split(",") if bands else None,
        "holdout_blocks": holdout_blocks,
        "share": share,
        "allow_unmasked": allow_unmasked,
        "crs": crs,
        "out": out,
        "dask": dask,
    }
    config = make_config(EvaluateForecastConfig, stated(given))
    configure_prefect(warehouse)
    from flows.evaluate import evaluate_forecast as flow
    from tasks.earth.forecast_tables import describe_report

    with bars():
        report = run_flow(flow, config)
    say(json.dumps(report) if as_json else describe_report(report))


@evaluate.command(
    "canopy",
    epilog="Example: canopus evaluate canopy --model canopy --warehouse ./warehouse --aoi area.geojson "
    "--labels held_out.gpkg --date 2022-12-31",
)
def evaluate_canopy(
    *,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options lie over them.")] = None,
    model: Annotated[str | None, typer.Option(help="Name, or name/version.")] = None,
    warehouse: Annotated[
        str | None, typer.Option(help="Folder, s3://bucket/prefix, gs:// or az://; by default ./warehouse.")
    ] = None,
    aoi: Annotated[str | None, typer.Option(help="minx,miny,maxx,maxy in degrees, or a vector file.")] = None,
    labels: Annotated[str | None, typer.Option(help="Polygons or raster that is scored against.")] = None,
    class_field: ClassField = None,
    value: Values = None,
    table: Table = None,
    at_least: LowestValue = None,
    outside: Outside = "none",
    margin: Margin = 0,
    ignore: IgnoreAreas = None,
    min_area_ha: LeastArea = None,
    min_width_m: LeastWidth = None,
    label_date: LabelDate = None,
    date_field: DateField = None,
    max_age_years: LargestAge = None,
    date: Annotated[
        str | None,
        typer.Option(help="Day of the map, YYYY-MM-DD: the last whose looks are read; by default the labels'."),
    ] = None,
    window_days: WindowDays = None,
    floor_labels: Annotated[
        str | None,
        typer.Option(help="What the forest is trained on; by default the labels, cross-validated or not held out."),
    ] = None,
    floor_class_field: Annotated[str | None, typer.Option(help="As --class-field, of --floor-labels.")] = None,
    floor_value: Annotated[list[str] | None, typer.Option(help="As --value, of --floor-labels.")] = None,
    floor_margin: Annotated[int, typer.Option(help="As --margin, of --floor-labels.")] = 1,
    floor_aoi: Annotated[str | None, typer.Option(help="Where --floor-labels lie; by default the same area.")] = None,
    floor_warehouse: Annotated[str | None, typer.Option(help="Cubes of --floor-aoi; by default the same.")] = None,
    holdout_blocks: Annotated[
        str | None, typer.Option(help="FOLDS:FOLD[:BLOCK]: score only blocks that training left out, e.g. 5:0:20.")
    ] = None,
    test_tiles: Annotated[
        bool, typer.Option("--test-tiles", help="Score only the test tiles of the split of the floor's labels.")
    ] = False,
    cell: Annotated[int | None, typer.Option(help="Pixels on a side of a label's cell, scored once.")] = None,
    canopy_only: Annotated[
        bool, typer.Option("--canopy-only", help="The labels know canopy and not its kind; so with --at-least.")
    ] = False,
    sample: Annotated[
        str | None, typer.Option(help="Labelled probability sample: accuracy and areas with intervals.")
    ] = None,
    allow_unmasked: Unmasked = False,
    crs: Crs = None,
    out: Annotated[str | None, typer.Option(help="Folder of report and pictures; by default the run's.")] = None,
    as_json: Json = False,
) -> None:
    """Score a canopy model beside a forest that has not seen the answers and mean NDVI, with pictures."""
    from flows.config import EvaluateCanopyConfig, load_config, make_config
    from flows.runtime import configure_prefect

    scored = _labels(labels, locals())
    floor = stated(
        {
            "path": floor_labels,
            "class_field": floor_class_field,
            "values": _pairs(floor_value),
            "margin": floor_margin,
            "aoi": floor_aoi,
            "warehouse": floor_warehouse,
        }
    )
    given = {
        "model": model,
        "warehouse": warehouse,
        "aoi": aoi,
        "labels": scored if labels else None,
        "date": date,
        "window_days": window_days,
        "floor": floor if floor_labels else None,
        "holdout_blocks": holdout_blocks,
        "test_tiles": test_tiles or None,
        "cell": cell,
        "canopy_only": canopy_only or None,
        "sample": sample,
        "allow_unmasked": allow_unmasked or None,
        "crs": crs,
        "out": out,
    }
    options = stated(given)
    settings = (
        load_config(config, EvaluateCanopyConfig, **options) if config else make_config(EvaluateCanopyConfig, options)
    )
    configure_prefect(settings.warehouse)
    from flows.evaluate import evaluate_canopy as flow
    from tasks.earth.canopy_tables import describe_canopy

    with bars():
        report = run_flow(flow, settings)
    say(json.dumps(report) if as_json else describe_canopy(report))


@evaluate.command(
    "change",
    epilog="Example: canopus evaluate change warehouse/products/canopy-change/ID --dates truth/change_date.tif "
    "--kinds truth/change_kind.tif --woodland truth/class_start.tif",
)
def evaluate_change(
    product: Annotated[str, typer.Argument(help="Folder, URL or item file of a change product.")],
    *,
    dates: Annotated[str, typer.Option(help="Raster of true dates on its grid: days since 1970-01-01.")],
    kinds: Annotated[str, typer.Option(help="Raster of true changes: 1 felled, 2 planted, 0 neither.")],
    woodland: Annotated[
        str | None, typer.Option(help="Raster of the class at first: felling where it is 0 is not scored.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the picture; by default none is drawn.")] = None,
    as_json: Json = False,
) -> None:
    """Score woodland lost and gained, and its dates, beside two simple floors."""
    from tasks.earth.change_evaluation import score_change

    report = score_change(product, dates=dates, kinds=kinds, woodland=woodland, out=out)
    say(json.dumps(report.scores) if as_json else report.text)


@app.command(
    "import-weights",
    epilog="Example: canopus import-weights ckpt.pt --name earthpt-700m --warehouse ./warehouse",
)
def import_weights(
    file: Annotated[Path, typer.Argument(help="Checkpoint as its authors distribute it.")],
    *,
    layout: Annotated[
        str | None, typer.Option(help="Whose: earthpt, pix2prof or ddpm; by default what the file's keys tell.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the model.")],
    warehouse: Warehouse = "./warehouse",
    bands: Annotated[
        str | None,
        typer.Option(help="Of earthpt: the ten bands in the order of the weights, comma-separated; by wavelength."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Save published weights as a model of the warehouse; no code of the file runs."""
    from storage.location import resolve
    from tasks.earth.published_weights import import_weights as read_weights

    order = tuple(bands.split(",")) if bands else None
    reference = read_weights(file, layout, warehouse=resolve(warehouse), name=name, bands=order)
    say(json.dumps(asdict(reference)) if as_json else f"{reference.name}/{reference.version}: {reference.url}")


@app.command(
    epilog="Example: canopus export earthpt-700m --layout earthpt --out ckpt.pt; "
    "canopus export mine --layout canopus --out ./mine"
)
def export(
    name: Annotated[str, typer.Argument(help="Model: name, or name/version.")],
    *,
    layout: Annotated[
        str, typer.Option(help="canopus (a folder), or a published one: earthpt, pix2prof, ddpm (a file).")
    ] = "canopus",
    out: Annotated[Path, typer.Option(help="File or folder to write.")],
    warehouse: Warehouse = "./warehouse",
    as_json: Json = False,
) -> None:
    """Write a model out of the warehouse, in a published layout or as a folder of its own."""
    from storage.location import resolve
    from tasks.earth.published_weights import export_weights

    reference = export_weights(resolve(warehouse), name, layout=layout, out=out)
    text = f"{reference.name}/{reference.version}: {out}"
    say(json.dumps({**asdict(reference), "out": str(out)}) if as_json else text)


@app.command(epilog="Example: canopus status --warehouse ./warehouse")
def status(*, warehouse: Warehouse = "./warehouse", as_json: Json = False) -> None:
    """Show the cubes, sky stores, models, products and last runs of a warehouse."""
    from flows.plan import describe_warehouse

    print_plan(describe_warehouse(warehouse), as_json=as_json)


@app.command(epilog="Example: canopus gc --warehouse ./warehouse --older-than 30 --delete")
def gc(
    *,
    warehouse: Warehouse = "./warehouse",
    older_than: Annotated[float, typer.Option(help="Days; what is younger stays.")] = 7.0,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Also the surveys' raw answers in this folder that were not asked for, e.g. ~/.cache/canopus/sky."
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete/--dry-run", help="Delete it, or only show it (the default).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Clear old states of cubes that no product was made from, and what killed runs left behind."""
    from flows.plan import sweep

    print_plan(sweep(warehouse, days=older_than, delete=delete, cache=cache), as_json=as_json)


@app.command(epilog="Example: canopus up --warehouse ./warehouse --port 4200")
def up(
    *,
    warehouse: Warehouse = "./warehouse",
    port: Annotated[int, typer.Option(help="Of the dashboard, on loopback.")] = 4200,
) -> None:
    """Start the Prefect server, a work pool, a worker and the deployments, all on loopback."""
    from flows.up import serve

    serve(warehouse, port, say=say)


def _labels(path: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file of labels from all that a command was given; what it has no option for is left out."""
    read = {setting: options.get(option) for option, setting in _LABEL_OPTIONS.items()}
    return stated({"path": path, "values": _pairs(options["value"]), **read})


def _classes(scheme: str) -> list[dict[str, Any]]:
    from flows.config import CANOPY, CANOPY_OR_NOT

    schemes = {"canopy": CANOPY, "canopy-or-not": CANOPY_OR_NOT}
    if scheme not in schemes:
        stop(f"canopus: --classes {scheme}: one of {', '.join(schemes)}; other classes go into a configuration", USAGE)
    return [settings.model_dump() for settings in schemes[scheme]]


def _gates(limits: list[str] | None, allow: list[str] | None) -> dict[str, Any]:
    """Return the settings of the checks from ``name=value`` and names."""
    wrong = [text for text in limits or [] if "=" not in text]
    if wrong:
        stop(f"canopus: --gate {wrong[0]}: give name=value, e.g. --gate max_age_days=30", USAGE)
    pairs = (text.split("=", 1) for text in limits or [])
    return {name: None if value == "none" else value for name, value in pairs} | {"allow": allow or []}


def _pairs(values: list[str] | None) -> dict[str, str]:
    wrong = [text for text in values or [] if "=" not in text]
    if wrong:
        stop(f"canopus: --value {wrong[0]}: give value=class, e.g. --value Conifer=conifer", USAGE)
    return dict(text.split("=", 1) for text in values or [])


def _main_job(config: Path | None, warehouse: str | None) -> PipelineConfig:
    from flows.config import DEFAULT_RUN, PipelineConfig, load_config, with_warehouse

    settings = load_config(config or DEFAULT_RUN, PipelineConfig)
    return settings if warehouse is None else with_warehouse(settings, warehouse)


def _is_expected(error: Exception) -> bool:
    from storage.errors import StorageError
    from tasks.errors import ConfigurationError, SourceError

    return isinstance(error, (ConfigurationError, SourceError, StorageError, OSError))


def _is_usage(error: Exception) -> bool:
    from tasks.errors import UsageError

    return isinstance(error, UsageError)


cli_sky.register(app, evaluate, train)
cli_diffusion.register(train)
cli_synthesis.register(app)
cli_generation.register(evaluate, train)

if __name__ == "__main__":
    main()
