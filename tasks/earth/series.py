"""Series of pixels from cubes as tokens: only valid looks, first and in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from models.indices import BANDS
from models.tokens import NO_DATA, PixelSeries, SeriesTokeniser, Tokens, next_days, to_days
from storage.cube import SeriesBlock, read_block
from storage.regions import Region
from tasks.earth.extra_channels import ExtraReader, ExtraSource, require_distinct
from tasks.earth.mapping import CubePart, MapPlan
from tasks.earth.series_batches import newest_looks
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class SeriesRules:
    """How the looks at a pixel become a series.

    Parameters
    ----------
    steps : int
        Most looks of one series: the newest.
    bands : tuple of str, optional
        Of the cubes; by default all.
    before : datetime64[D], optional
        Nothing of this day or a later one is read.
    extra : tuple of ExtraSource
        Channels beside the bands.
    """

    steps: int = 256
    bands: tuple[str, ...] | None = None
    before: np.datetime64 | None = None
    extra: tuple[ExtraSource, ...] = ()


@dataclass(frozen=True)
class SeriesReader:
    """Reads the series of one tile.

    Parameters
    ----------
    plan : MapPlan
        Warehouse, bands and last day.
    cube : CubePart
        The tile at its snapshot.
    rules : SeriesRules
        How.
    """

    plan: MapPlan
    cube: CubePart
    rules: SeriesRules

    @property
    def until(self) -> np.datetime64 | None:
        """Return the last day that is read."""
        return last_day(self.plan, self.rules)

    @cached_property
    def tokeniser(self) -> SeriesTokeniser:
        """Return what makes tokens of series."""
        return tokeniser_of(self.plan, self.rules)

    @cached_property
    def extra(self) -> tuple[ExtraReader, ...]:
        """Return the readers of the extra channels over this tile."""
        return tuple(source.open(self.cube.tile) for source in self.rules.extra)

    def read(self, region: Region, pixels: np.ndarray, *, since: int = 0) -> Tokens:
        """Return the series of all of these pixels of a region, of dates from the `since`-th in order of arrival on."""
        block = self._block(region, since)
        return self._tokens(block, self._extra(region, block), pixels)

    def _block(self, region: Region, since: int) -> SeriesBlock:
        return read_block(
            self.plan.root / self.cube.path,
            region,
            snapshot=self.cube.snapshot,
            until=self.until,
            allow_unmasked=self.plan.allow_unmasked,
            since=since,
        )

    def _extra(self, region: Region, block: SeriesBlock) -> list[np.ndarray]:
        return [reader.read(region, block.times) for reader in self.extra]

    def _tokens(self, block: SeriesBlock, extra: Sequence[np.ndarray], pixels: np.ndarray) -> Tokens:
        """Return the newest valid looks of some pixels, first and in order: (pixel, look, channel)."""
        times, bands = block.reflectance.shape[:2]
        if not times:
            return _nothing(len(pixels), len(self.tokeniser.channels))
        order, kept = newest_looks(block.valid.reshape(times, -1)[:, pixels].T, self.rules.steps)
        chosen = [self.plan.bands.index(band) for band in self.tokeniser.bands]
        stored = _taken(block.reflectance.reshape(times, bands, -1)[:, :, pixels][:, chosen], order)
        stored[~kept] = NO_DATA
        clear = torch.from_numpy(kept)
        day = _held(to_days(block.times.astype("datetime64[D]"))[torch.from_numpy(order)], clear)
        others = None
        if extra:
            found = _taken(np.stack([values.reshape(times, -1)[:, pixels] for values in extra], axis=1), order)
            others = torch.from_numpy(found).masked_fill(~clear[..., None], torch.nan)
        return self.tokeniser.tokenise(PixelSeries(torch.from_numpy(stored), day, clear, others))


def tokeniser_of(plan: MapPlan, rules: SeriesRules) -> SeriesTokeniser:
    """Return what makes tokens of the series of a plan.

    Raises
    ------
    ConfigurationError
        Where the cubes lack a band, or hold one that no model takes.
    """
    unknown = [band for band in plan.bands if band not in BANDS and (rules.bands is None or band in rules.bands)]
    if unknown:
        raise ConfigurationError(f"the cubes hold {', '.join(unknown)}; EarthPT takes {', '.join(BANDS)}")
    require_distinct(rules.extra)
    return SeriesTokeniser(plan.chosen_bands(rules.bands), tuple(source.channel for source in rules.extra))


def last_day(plan: MapPlan, rules: SeriesRules) -> np.datetime64 | None:
    """Return the last day that may be read: of the plan, and before the rules' cut."""
    days = [plan.until, None if rules.before is None else rules.before.astype("datetime64[D]") - np.timedelta64(1, "D")]
    return min((day for day in days if day is not None), default=None)


def merged(held: Tokens, came: Tokens, steps: int) -> Tokens:
    """Return the newest looks of two sets of series of the same pixels, in order of their days.

    Parameters
    ----------
    held, came : Tokens
        (pixel, look); of the same day the held one comes first.
    steps : int
        Most looks of one series.
    """
    pairs = ((held.values, came.values), (held.position, came.position), (held.valid, came.valid))
    both = Tokens(*(torch.cat(pair, dim=1) for pair in pairs))
    day = torch.where(both.valid, both.position[..., 0], torch.inf)
    order = day.argsort(dim=1, stable=True)
    count = both.valid.sum(dim=1, keepdim=True)
    longest = max(min(int(count.max()), steps), 1)
    first = (count - steps).clamp(min=0)
    chosen = order.gather(1, (first + torch.arange(longest)).clamp(max=order.shape[1] - 1))
    valid = torch.arange(longest) < (count - first)
    days = _held(both.position[..., 0].gather(1, chosen), valid)
    values = both.values.gather(1, chosen[..., None].expand(-1, -1, both.values.shape[2]))
    return Tokens(
        values.masked_fill(~valid[..., None], torch.nan), torch.stack([days, next_days(days, valid)], dim=-1), valid
    )


def _taken(looks: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return looks (time, channel, pixel) in an order of each pixel's own: (pixel, look, channel)."""
    series = np.ascontiguousarray(np.moveaxis(looks, 2, 0))  # (pixel, time, channel)
    return np.take_along_axis(series, order[:, :, None], axis=1)


def _held(day: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return days that stay at the last valid one from there on, 0 where there is none."""
    count = valid.sum(dim=1, keepdim=True)
    last = day.gather(1, (count - 1).clamp(min=0))
    return torch.where(valid, day, torch.where(count > 0, last, 0.0))


def _nothing(count: int, channels: int) -> Tokens:
    """Return series of a cube without a date: one step that is not valid."""
    return Tokens(
        torch.full((count, 1, channels), torch.nan), torch.zeros(count, 1, 2), torch.zeros(count, 1, dtype=torch.bool)
    )
