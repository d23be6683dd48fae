"""Pixel series of real cubes as training batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.indices import BANDS
from models.tokens import Tokens
from storage.cube import SeriesBlock
from tasks.earth.mapping import MapPlan, overlap, to_physical
from tasks.errors import ConfigurationError

EPOCH = np.datetime64("2000-01-01", "D")
_LEAST_LOOKS = 8


@dataclass(frozen=True)
class PackedSeries:
    """Clear looks of some pixels, packed: valid looks stand first, in order of their dates.

    Parameters
    ----------
    day : ndarray, shape (pixel, look), float32
        Days since 2000-01-01; padding repeats the last.
    reflectance : ndarray, shape (pixel, look, 10), float32, 0 to 1
        In the order of `models.indices.BANDS`; NaN for bands that the cube does not hold.
    valid : ndarray, shape (pixel, look), bool
        False is padding.
    """

    day: np.ndarray
    reflectance: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.day)

    def before(self, day: np.datetime64) -> PackedSeries:
        """Return the looks before a day; pixels with too few of them are left out."""
        number = float((day - EPOCH).astype(int))
        earlier = self.valid & (self.day < number)
        kept = earlier.sum(axis=1) >= _LEAST_LOOKS
        day_of = np.where(earlier, self.day, _last(self.day, earlier))[kept]
        longest = int(earlier[kept].sum(axis=1).max(initial=1))
        return PackedSeries(day_of[:, :longest], self.reflectance[kept][:, :longest], earlier[kept][:, :longest])


def _last(day: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.take_along_axis(day, np.maximum(valid.sum(axis=1, keepdims=True) - 1, 0), axis=1)


def pack(block: SeriesBlock, bands: tuple[str, ...], pixels: np.ndarray, *, looks: int) -> PackedSeries:
    """Return the clear looks of some pixels of a block, the newest `looks` of each.

    Parameters
    ----------
    block : SeriesBlock
        ``reflectance (time, band, y, x)`` as stored, sorted by time.
    bands : tuple of str
        Of the block.
    pixels : ndarray of int
        Which, counted along rows.
    looks : int
        Most of one pixel.
    """
    times = len(block.times)
    valid = block.valid.reshape(times, -1)[:, pixels].T
    surplus = np.maximum(valid.sum(axis=1, keepdims=True) - looks, 0)
    valid = valid & (np.cumsum(valid, axis=1) > surplus)
    order = np.argsort(~valid, axis=1, kind="stable")[:, :looks]
    packed = np.take_along_axis(valid, order, axis=1)
    day = (block.times.astype("datetime64[D]") - EPOCH).astype(np.float32)[order]
    stored = np.moveaxis(block.reflectance.reshape(times, len(bands), -1)[:, :, pixels], 2, 0)
    seen = to_physical(np.take_along_axis(stored, order[:, :, None], axis=1))
    values = np.full((*order.shape, len(BANDS)), np.nan, np.float32)
    values[..., [BANDS.index(band) for band in bands]] = seen
    return PackedSeries(np.where(packed, day, _last(day, packed)), values, packed)


def sample_series(
    plan: MapPlan, *, pixels: int, looks: int, seed: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> PackedSeries:
    """Draw pixels evenly over an area and return their series.

    Raises
    ------
    ConfigurationError
        Where the cubes hold a band that no model takes, or no pixel has enough clear looks.
    """
    unknown = [band for band in plan.bands if band not in BANDS]
    if unknown:
        raise ConfigurationError(f"the cubes hold {', '.join(unknown)}; EarthPT takes {', '.join(BANDS)}")
    rng, found = np.random.default_rng(seed), []
    share = pixels / max(1, sum(int(plan.inside(region).sum()) for region in plan.regions))
    for number, region in enumerate(plan.regions, start=1):
        geobox = plan.staging[region["y"], region["x"]]
        for cube in plan.cubes:
            window = overlap(cube.tile.geobox, geobox) if cube.tile.geobox.crs == geobox.crs else None
            if window is not None:
                found.append(_draw(plan.read(cube, window), plan.bands, rng, share=share, looks=looks))
        if on_progress is not None:
            on_progress(number, len(plan.regions))
    series = _joined([part for part in found if len(part)], looks)
    if series is None:
        raise ConfigurationError(f"no pixel of the area has {_LEAST_LOOKS} clear looks; ingest a longer time")
    return series


def _draw(
    block: SeriesBlock, bands: tuple[str, ...], rng: np.random.Generator, *, share: float, looks: int
) -> PackedSeries:
    usable = np.flatnonzero(block.valid.sum(axis=0).reshape(-1) >= _LEAST_LOOKS)
    chosen = np.sort(usable[rng.random(usable.size) < share])
    return pack(block, bands, chosen, looks=looks)


def _joined(parts: list[PackedSeries], looks: int) -> PackedSeries | None:
    if not parts:
        return None
    length = min(looks, max(part.day.shape[1] for part in parts))

    def padded(part: PackedSeries) -> PackedSeries:
        more = length - part.day.shape[1]
        return PackedSeries(
            np.pad(part.day, ((0, 0), (0, more)), mode="edge"),
            np.pad(part.reflectance, ((0, 0), (0, more), (0, 0)), constant_values=np.nan),
            np.pad(part.valid, ((0, 0), (0, more))),
        )

    whole = [padded(part) for part in parts]
    return PackedSeries(
        *(np.concatenate([getattr(part, name) for part in whole]) for name in PackedSeries.__annotations__)
    )


@dataclass(frozen=True)
class SeriesBatches:
    """Endless batches drawn from packed series, shifted and brightened a little each time.

    All pixels of a place share the dates and the haze of a few looks. Without the shifts a network learns those by
    heart.

    Parameters
    ----------
    series : PackedSeries
        To draw from.
    count : int
        Series of one batch.
    seed : int
        Same seed and position, same batch.
    shift_days : int
        Largest shift of a series in time.
    gain : float
        Spread of the logarithm of each band's gain.
    """

    series: PackedSeries
    count: int = 24
    seed: int = 0
    shift_days: int = 8
    gain: float = 0.08

    def at(self, position: int) -> Tokens:
        """Return the batch at a position."""
        rng = np.random.default_rng([self.seed, position])
        chosen = rng.integers(0, len(self.series), self.count)
        valid = self.series.valid[chosen]
        longest = max(2, int(valid.sum(axis=1).max()))
        shift = rng.integers(-self.shift_days, self.shift_days + 1, (self.count, 1))
        gain = np.exp(rng.normal(0, self.gain, (self.count, 1, len(BANDS)))).astype(np.float32)
        day = torch.from_numpy((self.series.day[chosen] + shift)[:, :longest].astype(np.float32))
        values = torch.from_numpy((self.series.reflectance[chosen] * gain * 20 - 1)[:, :longest])
        return Tokens(values, torch.stack([day, day], dim=-1), torch.from_numpy(valid[:, :longest].copy()))

    def tokens(self, batch: Tokens) -> int:
        """Return how many looks a batch holds."""
        return int(batch.valid.sum())
