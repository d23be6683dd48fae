"""When a pixel is seen: orbits, clouds, gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

YEAR_DAYS = 365.25
FIRST_DAY, LAST_DAY = 5600, 9000
"""Days since 2000-01-01 between which series begin: 2015-05 to 2024-08."""


@dataclass(frozen=True)
class Calendar:
    """The days on which clear looks were had.

    Parameters
    ----------
    day : ndarray, shape (series, look), float
        Days since 2000-01-01, ascending; padding repeats the last day.
    valid : ndarray, shape (series, look), bool
        False is padding, at the end.
    orbit : ndarray, shape (series, look), int
        0 or 1: which of two orbits the look is from.
    """

    day: np.ndarray
    valid: np.ndarray
    orbit: np.ndarray

    @property
    def phase(self) -> np.ndarray:
        """Return the part of the year of each look, 0 to 1, 0 on 1 January."""
        return (self.day % YEAR_DAYS) / YEAR_DAYS

    @property
    def year(self) -> np.ndarray:
        """Return the number of each look's calendar year, counted from that of the series' first look."""
        number = np.floor(self.day / YEAR_DAYS)
        return (number - number[:, :1]).astype(int)


def draw_calendar(rng: np.random.Generator, count: int, looks: int) -> Calendar:
    """Draw the looks of `count` series, `looks` at most each.

    Revisits of 2.5, 5 and 10 days, a share of clear looks between a tenth and nine tenths that is lower in one season
    and comes in spells, winters without a look, and years in which half of the passes are missing.
    """
    passes = 460
    revisit = rng.choice([2.5, 5.0, 5.0, 10.0], count)[:, None]
    start = rng.uniform(FIRST_DAY, LAST_DAY, (count, 1))
    day = np.floor(start + revisit * np.arange(passes))
    day += rng.random((count, passes)) < 0.05
    length = rng.uniform(1.3, 6.5, (count, 1)) * YEAR_DAYS
    clear = _clear_chance(rng, day) > rng.random((count, passes))
    clear &= (day - start < length) & ~_sparse_years(rng, day) & ~_dark_season(rng, day)
    clear[:, -12:] |= clear.sum(axis=1, keepdims=True) < 12
    return _pack(day, clear, (np.arange(passes) % 2 + rng.integers(0, 2, (count, 1))) % 2, looks)


def _clear_chance(rng: np.random.Generator, day: np.ndarray) -> np.ndarray:
    """Return how likely each pass is clear: by season, and in spells of some weeks."""
    count, passes = day.shape
    level = rng.normal(0.0, 1.1, (count, 1))
    swing = np.abs(rng.normal(0.0, 1.0, (count, 1)))
    worst = rng.normal(0.0, 0.12, (count, 1))
    season = swing * np.cos(2 * np.pi * (day / YEAR_DAYS - worst))
    spell = _knots(rng, count, passes, spacing=5) * rng.uniform(0.3, 1.2, (count, 1))
    return 1 / (1 + np.exp(season - level - spell))


def _knots(rng: np.random.Generator, count: int, length: int, *, spacing: int) -> np.ndarray:
    """Return noise of unit size that changes smoothly from knot to knot."""
    knots = rng.standard_normal((count, length // spacing + 2))
    place = np.arange(length) / spacing
    low = place.astype(int)
    part = place - low
    return knots[:, low] * (1 - part) + knots[:, low + 1] * part


def _sparse_years(rng: np.random.Generator, day: np.ndarray) -> np.ndarray:
    """Drop most passes of the beginning for a third of the series: one satellite, few archived scenes."""
    until = day[:, :1] + rng.uniform(200, 800, (len(day), 1)) * (rng.random((len(day), 1)) < 0.35)
    return (day < until) & (rng.random(day.shape) < 0.55)


def _dark_season(rng: np.random.Generator, day: np.ndarray) -> np.ndarray:
    """Take away a season for a third of the series: snow, low sun, or a rainy season."""
    width = rng.uniform(0.05, 0.2, (len(day), 1)) * (rng.random((len(day), 1)) < 0.35)
    centre = rng.normal(0.0, 0.06, (len(day), 1))
    apart = np.abs((day / YEAR_DAYS - centre + 0.5) % 1.0 - 0.5)
    return (apart < width) & (rng.random(day.shape) < 0.95)


def _pack(day: np.ndarray, clear: np.ndarray, orbit: np.ndarray, looks: int) -> Calendar:
    """Move the clear passes to the front, the newest `looks` of them."""
    surplus = np.maximum(clear.sum(axis=1, keepdims=True) - looks, 0)
    clear = clear & (np.cumsum(clear, axis=1) > surplus)
    order = np.argsort(~clear, axis=1, kind="stable")[:, :looks]
    valid = np.take_along_axis(clear, order, axis=1)
    packed = np.take_along_axis(day, order, axis=1)
    last = np.take_along_axis(packed, valid.sum(axis=1, keepdims=True) - 1, axis=1)
    return Calendar(np.where(valid, packed, last), valid, np.take_along_axis(orbit, order, axis=1))
