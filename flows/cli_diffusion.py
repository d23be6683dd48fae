"""The command that trains the galaxy diffusion model; `flows.cli` registers it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import Json, follow, stated


def register(train: typer.Typer) -> None:
    """Add the command to those that train."""
    train.command(
        "diffusion",
        epilog="Example: canopus train diffusion --name galaxies --minutes 10, again and again; on a GPU, real cutouts: "
        "canopus train diffusion --source warehouse/sky/legacy --pixels 128 --binned 2 --samples 10000000 --batch 256",
    )(train_diffusion)


def train_diffusion(
    *,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options lie over them.")] = None,
    warehouse: Annotated[
        str | None, typer.Option(help="Folder, s3://bucket/prefix, gs:// or az://; by default ./warehouse.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; by default galaxy-diffusion.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Sky store of real cutouts, e.g. warehouse/sky/legacy; by default generated ones."),
    ] = None,
    galaxies: Annotated[int | None, typer.Option(help="Different ones; by default 50,000.")] = None,
    pixels: Annotated[int | None, typer.Option(help="Side of an image; by default 64.")] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="Arcsec, of generated galaxies; by default 0.524.")] = None,
    binned: Annotated[
        int | None, typer.Option(help="Pixels of a store, to a side, that are summed into one; by default 1.")
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Comma-separated, of a store; by default g,r,z.")] = None,
    conditions: Annotated[
        str | None,
        typer.Option(help="Of a store: CSV or Parquet with object_id and a column for each quantity to be asked for."),
    ] = None,
    unconditional: Annotated[
        bool, typer.Option("--unconditional", help="Tell the model nothing of its galaxies.")
    ] = False,
    scaling: Annotated[str | None, typer.Option(help="Of flux: asinh, or clip as published.")] = None,
    samples: Annotated[int | None, typer.Option(help="Galaxies seen in all; by default a million.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Of the training loop this time; the same command goes on.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Galaxies of an update; by default 32.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The same to the end; by default 8e-4.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where the same was done or begun before.")] = False,
    as_json: Json = False,
) -> None:
    """Train the galaxy diffusion model on generated galaxies or a sky store; stopped, or after its minutes, it goes on."""
    from flows.config import load_config, make_config
    from flows.config_sky import TrainDiffusionConfig
    from flows.runtime import configure_prefect

    given = {
        "warehouse": warehouse,
        "name": name,
        "source": source,
        "galaxies": galaxies,
        "pixels": pixels,
        "pixel_scale": pixel_scale,
        "binned": binned,
        "bands": bands,
        "conditions": conditions,
        "conditional": False if unconditional else None,
        "scaling": scaling,
        "samples": samples,
        "minutes": minutes,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "fresh": fresh or None,
    }
    options = stated(given)
    settings = (
        load_config(config, TrainDiffusionConfig, **options) if config else make_config(TrainDiffusionConfig, options)
    )
    configure_prefect(settings.warehouse)
    from flows.train_diffusion import train_diffusion_model

    follow(train_diffusion_model, settings, as_json=as_json)
