"""The commands of a galaxy diffusion model's jobs; `flows.cli` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import Json, Warehouse, follow, print_plan, stated

_SILENT = "Files that do not say"
_HOW = "How it is done"

Model = Annotated[str | None, typer.Option(help="Of galaxies: name, or name/version; by default the shipped one.")]
Out = Annotated[str, typer.Option(help="Folder of the results.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; write nothing.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]
Device = Annotated[
    str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.", rich_help_panel=_HOW)
]
Sampler = Annotated[str, typer.Option(help="dpm, heun, ddim or ancestral.", rich_help_panel=_HOW)]
Steps = Annotated[int, typer.Option(help="Noise levels.", rich_help_panel=_HOW)]
PixelScale = Annotated[
    float | None, typer.Option(help="Arcsec per pixel, of FITS files without a WCS.", rich_help_panel=_SILENT)
]
ZeroPoint = Annotated[
    str | None,
    typer.Option(help="AB magnitude of one unit of flux: a number, or r=22.5,g=22.4 by band.", rich_help_panel=_SILENT),
]
Magnitude = Annotated[
    float, typer.Option(help="Of pictures: total AB magnitude in the middle band.", rich_help_panel=_SILENT)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(
        epilog="Example: canopus generate --galaxies 1000 --store synthetic --seed 7; "
        "canopus generate --galaxies 64 --ask magnitude=16,colour=0.8,size=0.9 --guidance 2 --fits ./galaxies"
    )(generate)
    app.command(
        epilog="Example: canopus inpaint image.fits --mask trails --out filled; "
        "canopus inpaint *.fits --mask survey,missing --mask-bits 5,6,7 --draws 32 --out filled"
    )(inpaint)
    app.command(
        epilog="Example: canopus transfer drawing.png --strength 0.35 --magnitude 16 --out galaxies; "
        "canopus transfer image.fits --strength 0.3 --out galaxies"
    )(transfer)
    app.command(epilog="Example: canopus interpolate one.fits other.fits --frames 9 --strength 0.4 --out between")(
        interpolate
    )


def generate(
    *,
    galaxies: Annotated[int, typer.Option(help="How many in all; the store's own of this request count.")] = 100,
    store: Annotated[str, typer.Option(help="Name of the sky store that they go into.")] = "synthetic",
    model: Model = None,
    warehouse: Warehouse = "./warehouse",
    seed: Seed = 0,
    ask: Annotated[
        str | None,
        typer.Option(
            help="What every galaxy is asked to be, e.g. magnitude=16,colour=0.8,size=0.9, by the model's conditions."
        ),
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="How far that is followed; 1 as the model has learned it.", rich_help_panel=_HOW)
    ] = 1.0,
    sampler: Sampler = "dpm",
    steps: Steps = 20,
    batch_size: Annotated[int, typer.Option(help="Galaxies of one commit.", rich_help_panel=_HOW)] = 64,
    fits: Annotated[
        str | None, typer.Option(help="Folder for a FITS file of each; by default none is written.")
    ] = None,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make galaxies with a diffusion model, into a sky store; interrupted, it goes on where it was."""
    from flows.config_synthesis import GenerateConfig

    given = {
        "galaxies": galaxies,
        "store": store,
        "model": model,
        "warehouse": warehouse,
        "seed": seed,
        "ask": ask,
        "guidance": guidance,
        "sampler": sampler,
        "steps": steps,
        "batch_size": batch_size,
        "fits": fits,
        "device": device,
    }
    _start("generate_galaxies", GenerateConfig, given, "describe_generation", dry_run=dry_run, as_json=as_json)


def inpaint(
    images: Annotated[list[Path], typer.Argument(help="FITS files.")],
    *,
    out: Out,
    mask: Annotated[
        str,
        typer.Option(
            help="trails (found in the image), survey (its mask's bits), missing (no data), or FITS files that are not 0 where "
            "pixels are to be filled; with commas between them."
        ),
    ] = "trails",
    mask_bits: Annotated[
        str | None, typer.Option(help="Bits of the survey's mask, e.g. 5,6,7; by default every one.")
    ] = None,
    model: Model = None,
    warehouse: Warehouse = "./warehouse",
    draws: Annotated[int, typer.Option(help="Fillings of each image: their mean and spread are written.")] = 16,
    keep_draws: Annotated[bool, typer.Option("--keep-draws", help="Write every draw.")] = False,
    seed: Seed = 0,
    steps: Steps = 25,
    resamplings: Annotated[
        int, typer.Option(help="How often each stretch of steps is gone through (RePaint).", rich_help_panel=_HOW)
    ] = 4,
    jump: Annotated[int, typer.Option(help="Steps of a stretch.", rich_help_panel=_HOW)] = 1,
    smoothing: Annotated[
        float,
        typer.Option(
            help="In units of the image's noise: how much of the model's own noise gives way to noise as the image has it; "
            "0 keeps the model's.",
            rich_help_panel=_HOW,
        ),
    ] = 2.0,
    pixel_scale: PixelScale = None,
    zero_point: ZeroPoint = None,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fill holes of images, such as satellite trails, given all around them; other pixels stay bit for bit."""
    from flows.config_synthesis import InpaintConfig

    given = {
        "images": [str(image) for image in images],
        "out": out,
        "mask": mask,
        "mask_bits": mask_bits,
        "model": model,
        "warehouse": warehouse,
        "draws": draws,
        "keep_draws": keep_draws,
        "seed": seed,
        "steps": steps,
        "resamplings": resamplings,
        "jump": jump,
        "smoothing": smoothing,
        "pixel_scale": pixel_scale,
        "zero_point": zero_point,
        "device": device,
    }
    _start("inpaint_images", InpaintConfig, given, "describe_inpainting", dry_run=dry_run, as_json=as_json)


def transfer(
    images: Annotated[list[Path], typer.Argument(help="FITS files, or pictures (PNG, JPEG).")],
    *,
    out: Out,
    strength: Annotated[float, typer.Option(help="0 leaves the image, 1 leaves nothing of it.")] = 0.35,
    model: Model = None,
    warehouse: Warehouse = "./warehouse",
    magnitude: Magnitude = 16.5,
    flux_tolerance: Annotated[
        float, typer.Option(help="By what share the total flux of a band may change.", rich_help_panel=_HOW)
    ] = 0.05,
    seed: Seed = 0,
    sampler: Sampler = "dpm",
    steps: Steps = 20,
    pixel_scale: PixelScale = None,
    zero_point: ZeroPoint = None,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Show pictures and images as the model's survey would: noised to a level and brought back (SDEdit), total flux kept."""
    from flows.config_synthesis import TransferConfig

    given = {
        "images": [str(image) for image in images],
        "out": out,
        "strength": strength,
        "model": model,
        "warehouse": warehouse,
        "magnitude": magnitude,
        "flux_tolerance": flux_tolerance,
        "seed": seed,
        "sampler": sampler,
        "steps": steps,
        "pixel_scale": pixel_scale,
        "zero_point": zero_point,
        "device": device,
    }
    _start("transfer_images", TransferConfig, given, "describe_transfer", dry_run=dry_run, as_json=as_json)


def interpolate(
    first: Annotated[Path, typer.Argument(help="FITS file, or picture.")],
    last: Annotated[Path, typer.Argument(help="FITS file, or picture.")],
    *,
    out: Out,
    frames: Annotated[int, typer.Option(help="How many, the ends among them.")] = 7,
    strength: Annotated[float, typer.Option(help="Above 0, at most 1: the higher, the more the model says.")] = 0.4,
    mixing: Annotated[
        str, typer.Option(help="Of the noise: spherical, or linear as published.", rich_help_panel=_HOW)
    ] = "spherical",
    model: Model = None,
    warehouse: Warehouse = "./warehouse",
    magnitude: Magnitude = 16.5,
    seed: Seed = 0,
    sampler: Sampler = "dpm",
    steps: Steps = 20,
    pixel_scale: PixelScale = None,
    zero_point: ZeroPoint = None,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make galaxies from one image to another: both noised to a level, mixed, and brought back."""
    from flows.config_synthesis import InterpolateConfig

    given = {
        "first": str(first),
        "last": str(last),
        "out": out,
        "frames": frames,
        "strength": strength,
        "mixing": mixing,
        "model": model,
        "warehouse": warehouse,
        "magnitude": magnitude,
        "seed": seed,
        "sampler": sampler,
        "steps": steps,
        "pixel_scale": pixel_scale,
        "zero_point": zero_point,
        "device": device,
    }
    _start("interpolate_images", InterpolateConfig, given, "describe_interpolation", dry_run=dry_run, as_json=as_json)


def _start(flow: str, kind: Any, given: dict[str, Any], describe: str, *, dry_run: bool, as_json: bool) -> None:
    """Print a job's plan, or run its flow."""
    from flows.config import make_config
    from flows.runtime import configure_prefect
    from tasks.sky.methods import require_sky_extra

    config = make_config(kind, stated(given))
    require_sky_extra()
    if dry_run:
        from flows import plan_synthesis

        print_plan(getattr(plan_synthesis, describe)(config), as_json=as_json)
        return
    configure_prefect(config.warehouse)
    from flows import synthesis

    follow(getattr(synthesis, flow), config, as_json=as_json)
