"""What EarthPT is trained on: series of the prior, real series of an area, or both; and the looks held out of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from shapely.geometry import shape
from torch.nn import functional as F

from models.data import Augmentation, Mixture, ShuffledTokens
from models.tokens import EPOCH, pad
from models.training import Batches
from storage.location import resolve
from storage.manifest import content_hash
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.held_out import HeldOut, hold_out
from tasks.earth.mapping import MapPlan, plan_map
from tasks.earth.prior import PoolBatches, PoolChoice, PriorBatches, PriorConfig, held_out_places, open_series_pool
from tasks.earth.processes import Team
from tasks.earth.series import SeriesRules
from tasks.earth.tokens import LEAST_LOOKS, StoredTokens, open_source, pack_area
from tasks.errors import ConfigurationError

PRIOR, AREA = "prior", "area"
_OTHER_SEED = 1_000_003
"""Between the seed of the series that are trained on and that of those held out."""
_LEAST_SERIES = 100
_HELD_OUT_PLACES = 24
_ALWAYS_READ = 6
"""First looks of a held-out series that may be read, next to clouds or not: the first question needs some."""
Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class AreaChoice:
    """Real series to train on.

    Parameters
    ----------
    area : dict
        GeoJSON geometry, EPSG:4326.
    crs, resolution : str or None, float
        Of the grid.
    until : str or None
        Last day whose looks are used at all; None for all.
    allow_unmasked : bool
        Whether looks without a mask count.
    bands : tuple of str or None
        Of the cubes; None for all.
    holdout : Holdout or None
        Blocks that are left out.
    pixels : int
        Series, drawn evenly over the area.
    held_out_days, held_out_pixels : int
        The last days before `until` whose looks choose the weights and are not trained on; series asked about them.
    augmentation : Augmentation
        How series change each time they are drawn.
    """

    area: dict[str, Any]
    crs: str | None = None
    resolution: float = 10.0
    until: str | None = None
    allow_unmasked: bool = False
    bands: tuple[str, ...] | None = None
    holdout: Holdout | None = None
    pixels: int = 20_000
    held_out_days: int = 180
    held_out_pixels: int = 1024
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class DataChoice:
    """What is trained on.

    Parameters
    ----------
    area : AreaChoice or None
        Real series; None for the prior alone.
    prior_share : float
        Of the batches.
    series, looks : int
        Of one batch, and most of one series.
    scored : int
        Held-out series, of each kind, that are scored beside the floors at the end.
    pool, places : int
        Series of the prior, and generated places, that are drawn once by all CPUs and kept; with neither, the prior's are
        drawn anew for each batch.
    seed : int
        Of every draw.
    """

    area: AreaChoice | None = None
    prior_share: float = 1.0
    series: int = 64
    looks: int = 128
    scored: int = 256
    pool: int = 0
    places: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TrainingData:
    """Batches, and what is known of them.

    Parameters
    ----------
    batches : Batches
        To train on.
    held_out : tuple of HeldOut
        The first one chooses weights.
    description : dict
        JSON types: what decides about every batch.
    facts : tuple of str
        The same for a reader, a line each.
    """

    batches: Batches
    held_out: tuple[HeldOut, ...]
    description: dict[str, Any]
    facts: tuple[str, ...]


def gather(
    root_url: str, choice: DataChoice, crew: Team, *, horizon_days: int, on_progress: Progress | None = None
) -> TrainingData:
    """Pack what is not packed yet, and return batches and held-out looks.

    Parameters
    ----------
    root_url : str
        Warehouse.
    choice : DataChoice
        What is wanted.
    crew : Team
        One of its processes packs, the others wait.
    horizon_days : int
        Longest time that is asked about.
    on_progress : callable, optional
        Hears how far packing has come.

    Raises
    ------
    ConfigurationError
        Where there is no cube, a band is unknown, or series are too few.
    """
    parts: list[TrainingData] = []
    if choice.area is not None:
        parts.append(
            _from_area(root_url, choice, choice.area, crew, horizon_days=horizon_days, on_progress=on_progress)
        )
    if choice.area is None or choice.prior_share > 0:
        parts.append(_from_prior(root_url, choice, crew, horizon_days=horizon_days, on_progress=on_progress))
    if len(parts) == 1:
        return parts[0]
    shares = (1 - choice.prior_share, choice.prior_share)
    mixture = Mixture([part.batches for part in parts], shares, seed=choice.seed)
    return TrainingData(
        mixture,
        parts[0].held_out + parts[1].held_out,
        {**parts[0].description, **parts[1].description, "prior_share": choice.prior_share},
        tuple(
            f"{share:.0%} of the batches: {fact}"
            for share, part in zip(shares, parts, strict=True)
            for fact in part.facts
        ),
    )


def _from_prior(
    root_url: str, choice: DataChoice, crew: Team, *, horizon_days: int, on_progress: Progress | None
) -> TrainingData:
    config = PriorConfig(looks=choice.looks, series=choice.series, seed=choice.seed)
    code = prior_version()
    description: dict[str, Any] = {**asdict(config), "code": code}
    batches: Batches = PriorBatches(config)
    what = "series"
    if choice.pool or choice.places:
        wanted = PoolChoice(choice.pool, choice.places, choice.looks, choice.seed)
        description |= {"pool": choice.pool, "places": choice.places}
        batches, what = _pooled(root_url, wanted, choice.series, crew, on_progress)
    held = crew.shared(_held_out_of_prior(choice, horizon_days) if crew.leads else None)
    assert held is not None
    return TrainingData(
        batches,
        (held,),
        {PRIOR: description},
        (
            f"{what} generated by `tasks.earth.prior` (version {code}, seed {config.seed}), {config.series} a batch, "
            f"up to {config.looks} looks each; no real look",
        ),
    )


def _held_out_of_prior(choice: DataChoice, horizon_days: int) -> HeldOut:
    """Return series that are not trained on: 512 of the prior, and where places are among the others, as many of theirs."""
    others = PriorBatches(PriorConfig(looks=choice.looks, series=64, seed=choice.seed + _OTHER_SEED))
    parts = [others.at(position) for position in range(8)]
    read = [part.valid for part in parts]
    if choice.places:
        seen, away = held_out_places(min(choice.places, _HELD_OUT_PLACES), looks=choice.looks)
        away[:, :_ALWAYS_READ] |= seen.valid[:, :_ALWAYS_READ]
        parts, read = [*parts, seen], [*read, away]
    tokens = pad(parts)
    held = hold_out(PRIOR, tokens, horizon_days=horizon_days, seed=choice.seed)
    longest = held.tokens.valid.shape[1]
    return replace(held, read=torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in read]))


def _pooled(
    root_url: str, wanted: PoolChoice, series: int, crew: Team, on_progress: Progress | None
) -> tuple[PoolBatches, str]:
    """Return batches of a pool on the device that trains, and what it holds in words; one process draws, the others wait."""
    root = resolve(root_url)
    pool = open_series_pool(root, wanted, on_progress=on_progress) if crew.leads else None
    crew.shared(None)
    pool = pool or open_series_pool(root, wanted)
    what = f"{len(pool):,} series, drawn once, of which {wanted.places:,} places gave some,"
    return PoolBatches(pool.to(crew.device), series, wanted.seed), what


def prior_version() -> str:
    """Return a hash of the code and tables that draw the prior, 12 hexadecimal digits."""
    folder = files("tasks.earth.prior")
    sources = sorted((entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file())
    digest = hashlib.sha256()
    for name, content in sources:
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:12]


def _from_area(
    root_url: str, choice: DataChoice, area: AreaChoice, crew: Team, *, horizon_days: int, on_progress: Progress | None
) -> TrainingData:
    plan = crew.shared(_plan(root_url, area) if crew.leads else None)
    assert plan is not None
    end = _last_day(plan) + np.timedelta64(1, "D")
    since = end - np.timedelta64(area.held_out_days, "D")
    packer = _Packer(plan, area, crew, on_progress)
    trained = packer.pack("train", before=since, pixels=area.pixels, seed=choice.seed, looks=choice.looks)
    facts = crew.shared(_facts(plan, area, trained, since) if crew.leads else None)
    assert facts is not None
    held: tuple[HeldOut, ...] = ()
    if area.held_out_days:
        # with as many looks as a forecast reads
        asked = packer.pack(
            "held-out",
            before=end,
            pixels=area.held_out_pixels,
            seed=choice.seed + _OTHER_SEED,
            looks=max(choice.looks, SeriesRules.steps),
        )
        tokens = pad([asked.read(shard) for shard, size in enumerate(asked.sizes) if size])
        day = float((since - np.datetime64(EPOCH, "D")).astype(int))
        found = hold_out(AREA, tokens, since=day, horizon_days=horizon_days, seed=choice.seed)
        if not found.number:
            raise ConfigurationError(
                f"no series of the area has a clear look from {since} to {end}, which are held out to choose the weights: "
                "ingest a longer time, or hold out more days, or none (held_out_days: 0)"
            )
        held = (found,)
    description = {
        AREA: {
            "tokens": trained.store.version,
            "held_out": asked.store.version if held else None,
            "since": str(since),
            "augmentation": asdict(area.augmentation),
            "series": choice.series,
            "seed": choice.seed,
        }
    }
    batches = ShuffledTokens(trained, choice.series, choice.seed, augmentation=area.augmentation)
    return TrainingData(batches, held, description, facts)


@dataclass(frozen=True)
class _Packer:
    """Packs series of one area; one process does, the others wait and open what it packed."""

    plan: MapPlan
    area: AreaChoice
    crew: Team
    on_progress: Progress | None

    def pack(self, part: str, *, before: np.datetime64, pixels: int, seed: int, looks: int) -> StoredTokens:
        """Return the series of the area before a day.

        Raises
        ------
        ConfigurationError
            Where too few pixels have looks enough.
        """
        asked: dict[str, Any] = {
            "steps": looks,
            "pixels": pixels,
            "before": before,
            "holdout": self.area.holdout,
            "bands": self.area.bands,
            "seed": seed,
        }
        unmasked = self.plan.allow_unmasked
        name = f"earthpt-{part}-{content_hash([self.plan.area, unmasked, _plain(asked)])[:12]}"
        if self.crew.leads:
            pack_area(self.plan, name, on_progress=self._report(part), **asked)
        self.crew.shared(None)
        source = open_source(self.plan.warehouse, name)
        number = sum(source.sizes)
        if number < _LEAST_SERIES:
            raise ConfigurationError(
                f"{number} series of the area have {LEAST_LOOKS} clear looks before {before}, and {_LEAST_SERIES} are "
                "needed to train on: take a larger area, or ingest a longer time"
            )
        return source

    def _report(self, part: str) -> Callable[[str, int, int], None] | None:
        if self.on_progress is None:
            return None
        report = self.on_progress
        return lambda tile, done, total: report(f"packing {part} {tile}", done, total, "")


def _plan(root_url: str, area: AreaChoice) -> MapPlan:
    plan = plan_map(
        root_url,
        area.area,
        crs=area.crs,
        resolution=area.resolution,
        until=np.datetime64(area.until, "D") if area.until else None,
        allow_unmasked=area.allow_unmasked,
    )
    if not any(_times(plan).values()):
        raise ConfigurationError(f"the cubes of the area hold no look up to {area.until}: ingest an earlier time")
    return plan


def _times(plan: MapPlan) -> dict[str, list[np.datetime64]]:
    """Return the days of each cube, as far as the plan reads."""
    return {
        path: [day for day in state.times.astype("datetime64[D]") if plan.until is None or day <= plan.until]
        for path, state in plan.states().items()
    }


def _last_day(plan: MapPlan) -> np.datetime64:
    """Return the last day that has a look."""
    return max(day for days in _times(plan).values() for day in days)


def _facts(plan: MapPlan, area: AreaChoice, trained: StoredTokens, since: np.datetime64) -> tuple[str, ...]:
    days = [day for found in _times(plan).values() for day in found if day < since]
    looks = sum(int(trained.read(shard).valid.sum()) for shard in range(len(trained.sizes)))
    west, south, east, north = shape(plan.area).bounds
    bands = ", ".join(area.bands or plan.bands)
    fact = (
        f"{sum(trained.sizes):,} real pixel series with {looks:,} clear looks from {min(days)} to {max(days)}, bands {bands}, "
        f"within {west:.4f},{south:.4f},{east:.4f},{north:.4f} (degrees)"
    )
    if area.holdout is not None:
        fact += f", without fold {area.holdout.fold} of {area.holdout.folds} of blocks of {area.holdout.block} pixels"
    if area.held_out_days:
        fact += f"; the {area.held_out_days} days from {since} on chose the weights and were not trained on"
    return (fact,)


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) if isinstance(value, Holdout) else str(value) for name, value in asked.items()}
