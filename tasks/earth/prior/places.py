"""Generated places: small squares of the generated archive's landscape, seen by Sentinel-2, with their truth.

Where the series of the prior (`draw_series`) are of single pixels, a place has neighbours: woods, hedges, fields. No file is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from storage.validity import derive_valid
from tasks.earth.simulate.acquisitions import overpasses
from tasks.earth.simulate.config import SimulateConfig
from tasks.earth.simulate.scene import World, simulate_date, to_digital_numbers
from tasks.earth.simulate.truth import canopy_truth

CLEAR = (4, 5, 6)
DILATION = 2
_FIRST, _LAST = date(2016, 1, 1), date(2023, 1, 1)


@dataclass(frozen=True)
class GeneratedPlace:
    """Looks at a place, and what is there on its last day.

    Parameters
    ----------
    reflectance : ndarray, shape (time, band, y, x), uint16
        Reflectance times 10,000, as cubes hold it.
    valid : ndarray, shape (time, y, x), bool
        By the same rule as in cubes.
    clear : ndarray, shape (time, y, x), bool
        Those next to what is masked too.
    dates : ndarray, shape (time,), datetime64[D]
    classes : ndarray, shape (y, x), uint8
        0 none, 1 broadleaved, 2 conifer: canopy where trees cover half of the pixel.
    tree_cover : ndarray, shape (y, x), uint8
        Percent.
    """

    reflectance: np.ndarray
    valid: np.ndarray
    clear: np.ndarray
    dates: np.ndarray
    classes: np.ndarray
    tree_cover: np.ndarray


def draw_place(seed: int, *, pixels: int = 160, years: tuple[float, float] = (1.0, 3.0)) -> GeneratedPlace:
    """Return a place of `pixels` on a side: its own landscape, weather, years, cadence and share of canopy.

    Parameters
    ----------
    seed : int
        The same seed gives the same place. Seeds of archives that scores are quoted for are not used here: places draw theirs
        from 10^6 on.
    pixels : int
        Even.
    years : tuple of float, float
        Shortest and longest time that it is seen.
    """
    rng = np.random.default_rng((seed, 7))
    config = SimulateConfig(
        seed=1_000_000 + seed,
        start=_FIRST + timedelta(days=int(rng.integers((_LAST - _FIRST).days))),
        years=float(rng.uniform(*years)),
        size_km=pixels / 100,
        canopy_share=float(rng.uniform(0.1, 0.35)),
        hard_cases=False,
    )
    world = World.make(config)
    truth = canopy_truth(world)
    passes = sorted(overpasses(config), key=lambda one: one.when)
    seen = [simulate_date(world, one) for one in passes]
    scl = np.stack([one.scl for one in seen])
    return GeneratedPlace(
        reflectance=np.stack([to_digital_numbers(one.reflectance, offset_dn=0) for one in seen]),
        valid=derive_valid(scl, CLEAR, dilation=DILATION),
        clear=derive_valid(scl, CLEAR, dilation=0),
        dates=np.array([one.when.date() for one in passes], dtype="datetime64[D]"),
        classes=truth.class_end,
        tree_cover=truth.tree_cover_end,
    )
