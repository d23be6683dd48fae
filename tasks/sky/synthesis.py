"""New galaxies from a diffusion model into a sky store: batches of one commit each, every galaxy with its own seed.

Pixels have no place on the sky, so cutouts have no WCS and no position. A galaxy depends on its seed, the model and the
rule alone (with the sampler ``ancestral`` on its batch too, whose noise is drawn as one); the run ``runs/generate-.../``
freezes all three, and goes on with what the store lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.samplers import OnStep, sample
from storage.cutouts import BandFacts, Cutout
from storage.errors import NotFound
from storage.location import Location, resolve
from storage.manifest import Run, content_hash, list_runs, start_run
from storage.sky import SkyReader, append_cutouts
from tasks.errors import ConfigurationError, SourceRejected, UsageError
from tasks.sky.cutout_files import write_cutout
from tasks.sky.diffusion_jobs import GalaxyModel, ModelConfig, SamplingRule, Weights, seeded_noise
from tasks.sky.gallery import PER_PAGE, gallery_picture

KIND = "generate"
GALLERY = "gallery.png"
TERMS = "Synthetic galaxies: no real object. They carry no terms of their own; those of the model's training data may apply."
_ODD = 0x9E3779B97F4A7C15
_BELOW = 2**63
_FREE = ("warehouse", "store", "galaxies", "batch_size", "device", "fits")
"""Settings that say nothing of what a galaxy looks like."""
Progress = Callable[[str, int, int, str], None]
"""Called with what is worked on, parts done, parts in all, and a few words."""


@dataclass(frozen=True)
class GenerateRequest:
    """Which galaxies are to be made.

    Parameters
    ----------
    warehouse : str
        URL.
    store : str
        Name of the sky store.
    galaxies : int
        How many.
    weights : Weights
    rule : SamplingRule
    seed : int
        Of the galaxies' own seeds.
    asked : mapping of str to float
        What every galaxy is asked to be, by the model's conditions; a model with conditions of which none is asked for draws
        them as its training galaxies have them.
    batch_size : int
        Galaxies of one commit.
    fits : str
        Folder for a FITS file of each; empty = none.
    device : str, optional
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    """

    warehouse: str
    store: str
    galaxies: int
    weights: Weights
    rule: SamplingRule = field(default_factory=SamplingRule)
    seed: int = 0
    asked: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 64
    fits: str = ""
    device: str | None = None

    @property
    def location(self) -> Location:
        """Return where the store lies."""
        return resolve(self.warehouse) / "sky" / self.store

    @property
    def digest(self) -> str:
        """Return a digest of what decides which galaxies come out, but how many."""
        content = {name: value for name, value in asdict(self).items() if name not in _FREE}
        content["weights"] = {"model": self.weights.model, "sha256": self.weights.sha256}
        return content_hash({"asked": content, "canopus": version("canopus")})

    def object_id(self, index: int) -> str:
        """Return the id of the galaxy of a number."""
        return f"{self.weights.model.partition('/')[0]}-{self.digest[:8]}-{index:07d}"

    def seed_of(self, index: int) -> int:
        """Return the seed of the galaxy of a number, 0 to 2^63."""
        return int(content_hash([self.seed, index])[:16], 16) % _BELOW


@dataclass(frozen=True)
class GeneratePlan:
    """What a request would do.

    Parameters
    ----------
    batches : tuple of tuple of int
        Numbers of the galaxies that the store lacks, batch by batch.
    held : int
        Galaxies that it has.
    run : Run or None
        The run that goes on.
    bytes : int
        Of the flux that is to come, uncompressed.
    """

    batches: tuple[tuple[int, ...], ...]
    held: int
    run: Run | None
    bytes: int


def plan_generation(request: GenerateRequest, config: ModelConfig) -> GeneratePlan:
    """Return what is left to make; nothing is written.

    Raises
    ------
    UsageError
        Where galaxies are asked to be what the model knows nothing of.
    """
    if request.galaxies < 1 or request.batch_size < 1:
        raise UsageError(f"{request.galaxies} galaxies in batches of {request.batch_size}: 1 or more each")
    if unknown := set(request.asked) - set(config.conditions):
        known = ", ".join(config.conditions) or "nothing: it has no conditions"
        raise UsageError(f"--ask {', '.join(sorted(unknown))}: model {request.weights.model} can be asked for {known}")
    if request.asked and (missing := set(config.conditions) - set(request.asked)):
        raise UsageError(f"--ask: model {request.weights.model} wants {', '.join(sorted(missing))} too, or nothing")
    if not request.asked and request.rule.guidance != 1.0 and not config.conditions:
        raise UsageError(f"--guidance {request.rule.guidance:g}: model {request.weights.model} has no conditions")
    held = _held(request)
    left = [index for index in range(request.galaxies) if request.object_id(index) not in held]
    batches = tuple(
        tuple(left[start : start + request.batch_size]) for start in range(0, len(left), request.batch_size)
    )
    size = 4 * len(left) * len(config.bands) * config.pixels**2
    return GeneratePlan(batches, request.galaxies - len(left), _same_run(request), size)


def _held(request: GenerateRequest) -> set[str]:
    """Return the ids of this request's galaxies that the store has."""
    try:
        reader = SkyReader(request.location)
    except NotFound:
        return set()
    start = request.object_id(0).rpartition("-")[0]
    return {name for name in reader.ids if name.startswith(f"{start}-")}


def _same_run(request: GenerateRequest) -> Run | None:
    root = resolve(request.warehouse)
    for name in reversed(list_runs(root)):
        run = Run(root / "runs" / name, name)
        if name.startswith(f"{KIND}-") and run.location.exists("manifest.json"):
            manifest = run.read_manifest()
            if all(manifest.get(name) == value for name, value in _frozen(request).items()):
                return run
    return None


def _frozen(request: GenerateRequest) -> dict[str, str | int]:
    """Return what makes two runs one."""
    return {"config_hash": request.digest, "galaxies": request.galaxies, "store": request.store}


def find_or_start_run(request: GenerateRequest, config: ModelConfig) -> Run:
    """Return the run of a request: the one that was cut short, else a new one with everything frozen in its manifest."""
    run = _same_run(request)
    if run is not None:
        return run
    manifest = {
        "request": asdict(request),
        **_frozen(request),
        "software": {"canopus": version("canopus")},
        "bands": list(config.bands),
        "pixels": config.pixels,
        "pixel_scale_arcsec": config.pixel_scale_arcsec,
    }
    return start_run(resolve(request.warehouse), KIND, manifest)


def make_batch(
    model: GalaxyModel,
    request: GenerateRequest,
    indices: tuple[int, ...],
    *,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
) -> list[Cutout]:
    """Return the galaxies of some numbers.

    Parameters
    ----------
    model : GalaxyModel
        On `device`.
    request : GenerateRequest
    indices : tuple of int
        Their numbers.
    device : torch.device, optional
        By default the CPU.
    on_step : callable, optional
        Hears of steps done.

    Raises
    ------
    ConfigurationError
        Where the model makes numbers that are not finite.
    """
    config = model.config
    seeds = torch.tensor([request.seed_of(index) for index in indices])
    noise = seeded_noise(seeds, (len(config.bands), config.pixels, config.pixels), device=device)
    conditions = conditions_of(model, request, seeds)
    with torch.inference_mode():
        made = sample(
            model.denoise,
            noise,
            request.rule.levels(config),
            sampler=request.rule.sampler,
            condition=None if conditions is None else conditions.to(noise),
            guidance=request.rule.guidance,
            generator=torch.Generator(device or "cpu").manual_seed(int(seeds[0])),
            on_step=on_step,
        )
        flux = model.to_flux(made).cpu().numpy().astype(np.float32)
    if not np.isfinite(flux).all():
        raise ConfigurationError(
            f"model {request.weights.model} gives numbers that are not finite with {request.rule.sampler}, {request.rule.steps} steps"
        )
    rows = [None] * len(indices) if conditions is None else conditions.tolist()
    return [
        _to_cutout(request, config, index, plane, row) for index, plane, row in zip(indices, flux, rows, strict=True)
    ]


def conditions_of(model: GalaxyModel, request: GenerateRequest, seeds: Tensor) -> Tensor | None:
    """Return what each galaxy is asked to be, (galaxy, condition), on the CPU; None where the model has no conditions.

    What is not asked for is drawn as the model's training galaxies have it, by each galaxy's own seed.
    """
    names = model.config.conditions
    if not names:
        return None
    if request.asked:
        return torch.tensor([[request.asked[name] for name in names]]).expand(len(seeds), -1)
    drawn = [
        model.draw_conditions(1, generator=torch.Generator().manual_seed(int(seed) ^ (_ODD % _BELOW))) for seed in seeds
    ]
    return torch.cat([row for row in drawn if row is not None]).cpu()


def _to_cutout(
    request: GenerateRequest,
    config: ModelConfig,
    index: int,
    flux: np.ndarray,
    condition: list[float] | None,
) -> Cutout:
    nothing = np.zeros_like(flux)
    asked = (
        []
        if condition is None
        else [f"{name} {value:.6g}" for name, value in zip(config.conditions, condition, strict=True)]
    )
    rule = request.rule
    return Cutout(
        object_id=request.object_id(index),
        ra=math.nan,
        dec=math.nan,
        bands=tuple(BandFacts(band, release=request.weights.model) for band in config.bands),
        flux=np.ascontiguousarray(flux),
        valid=np.ones(flux.shape, dtype=bool),
        ivar=nothing,
        maskbits=nothing.astype(np.int32),
        segmentation=nothing[0].astype(np.int32),
        wcs="",
        pixel_scale_arcsec=config.pixel_scale_arcsec,
        source=f"generated:{request.weights.model}?seed={request.seed_of(index)}",
        notes=(
            f"seed {request.seed_of(index)}",
            f"model {request.weights.model}, weights {request.weights.sha256}",
            f"{rule.sampler}, {rule.steps} steps, guidance {rule.guidance:g}",
            *(["asked: " + ", ".join(asked)] if asked else []),
        ),
    )


def store_batch(request: GenerateRequest, cutouts: list[Cutout], *, run: Run, number: int) -> str:
    """Write galaxies into the store in one commit, and return the snapshot."""
    return append_cutouts(request.location, cutouts, batch=f"{run.id}-{number:05d}", terms=TERMS)


def export_fits(request: GenerateRequest, on_progress: Progress | None = None) -> int:
    """Write a FITS file of each galaxy that has none in the request's folder yet; return how many are there.

    The header has the galaxy's seed and the model's name and digest.
    """
    folder, reader = Path(request.fits).expanduser(), SkyReader(request.location)
    for index in range(request.galaxies):
        path = folder / f"{request.object_id(index)}.fits"
        if not path.exists():
            cards = {
                "SEED": str(request.seed_of(index)),
                "MODEL": request.weights.model,
                "WSHA256": request.weights.sha256,
            }
            write_cutout(path, reader.read(request.object_id(index)), cards=cards)
        if on_progress is not None:
            on_progress("FITS files", index + 1, request.galaxies, "")
    return request.galaxies


@dataclass(frozen=True)
class Generated:
    """What became of a request.

    Parameters
    ----------
    run : Run
    made, held : int
        Galaxies made now, and in the store before.
    snapshot : str
        Of the store.
    gallery : str
        URL of the picture of the first galaxies.
    location : str
        Of the store.
    """

    run: Run
    made: int
    held: int
    snapshot: str
    gallery: str
    location: str


def finish_generation(request: GenerateRequest, run: Run, *, made: int) -> Generated:
    """Write the table of the run's galaxies and the picture of its first ones, and say what there is."""
    reader = SkyReader(request.location)
    wanted = [request.object_id(index) for index in range(request.galaxies)]
    rows = reader.rows_of(wanted)
    if len(rows) < request.galaxies:
        raise SourceRejected(
            f"{request.location} has {len(rows)} of {request.galaxies} galaxies: run it again", reason="bug"
        )
    table = rows[["object_id", "batch", "source", "notes"]].assign(
        seed=rows["source"].str.rpartition("seed=")[2], state="made"
    )
    run.write_regions(table.to_dict("records"))
    shown = [reader.read(name) for name in wanted[:PER_PAGE]]
    titles = [_title(cutout) for cutout in shown]
    run.location.write_bytes(GALLERY, gallery_picture(shown, titles=titles))
    return Generated(
        run, made, request.galaxies - made, reader.snapshot, str(run.location / GALLERY), str(request.location)
    )


def _title(cutout: Cutout) -> str:
    index = cutout.object_id.rpartition("-")[2]
    asked = next((note.removeprefix("asked: ") for note in cutout.notes if note.startswith("asked: ")), "")
    name, _, value = asked.partition(", ")[0].partition(" ")
    return f"{int(index)}  {name} {float(value):.3g}" if value else str(int(index))
