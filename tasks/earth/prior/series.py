"""Whole series from the prior: drawn from a seed, by the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.earth.prior.calendar import draw_calendar
from tasks.earth.prior.observation import observe
from tasks.earth.prior.surface import draw_reflectance


@dataclass(frozen=True)
class PriorConfig:
    """What is drawn.

    Parameters
    ----------
    looks : int
        Most looks of a series; the newest are kept.
    series : int
        Of one batch.
    seed : int
        Same seed and position, same batch.
    """

    looks: int = 128
    series: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Series:
    """Pixel series as an archive would hold them.

    Parameters
    ----------
    day : ndarray, shape (series, look), float
        Days since 2000-01-01, ascending.
    reflectance : ndarray, shape (series, look, band), float32, 0 to 1
        Of the looks that a mask calls clear.
    ground : ndarray, shape (series, look, band), float32
        The same without air, sensor and missed cloud.
    valid : ndarray, shape (series, look), bool
        False is padding.
    """

    day: np.ndarray
    reflectance: np.ndarray
    ground: np.ndarray
    valid: np.ndarray


def draw_series(config: PriorConfig, position: int) -> Series:
    """Return one batch; a pure function of the config and the position."""
    rng = np.random.default_rng([config.seed, position])
    calendar = draw_calendar(rng, config.series, config.looks)
    ground = draw_reflectance(rng, calendar)
    return Series(calendar.day, observe(rng, ground, calendar), ground.astype(np.float32), calendar.valid)
