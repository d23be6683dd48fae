"""A small area with a season that can be learnt, and requests that take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cube_cases import area_of_pixels, write_looks

from models.earthpt import EarthPTConfig
from models.training import TrainConfig
from tasks.earth.earthpt_training import EarthPTRequest
from tasks.earth.training_data import AreaChoice, DataChoice

BANDS = ("B02", "B03", "B04", "B08")
ROWS, COLUMNS = slice(100, 116), slice(300, 316)
AREA = area_of_pixels(ROWS, COLUMNS)
DAYS = np.datetime64("2016-01-04") + 20 * np.arange(55)
"""Three years."""
TINY = EarthPTConfig(layers=1, heads=2, width=16, pointers=2, queries=8)
TRAIN = TrainConfig(
    steps=12, learning_rate=2e-3, warmup_steps=2, ema_decay=0.5, checkpoint_every=4, log_every=2, seed=3
)
PRIOR = DataChoice(series=8, looks=40, scored=4, seed=3)


def write_season(warehouse: Path, *, change_from: np.datetime64 | None = None) -> None:
    """Write looks with a season, noise and clouds; from a day on, other ones."""
    rng = np.random.default_rng(11)
    size = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
    phase = 2 * np.pi * (DAYS - np.datetime64("2016-01-01")).astype(int) / 365.25
    green = 0.5 - 0.5 * np.cos(phase)[:, None, None] * rng.uniform(0.5, 1.0, size)
    plain = {"B02": 500 + 0 * green, "B03": 800 - 100 * green, "B04": 900 - 500 * green, "B08": 2000 + 2000 * green}
    looks = np.stack([plain[band] for band in BANDS], axis=1) * rng.normal(1.0, 0.03, (len(DAYS), len(BANDS), *size))
    if change_from is not None:
        later = change_from <= DAYS
        looks[later] = 9000
    # a cloud takes what is near it too, so whole dates are clouded
    scl = np.where(rng.random((len(DAYS), 1, 1)) < 0.15, 9, 4).astype(np.uint8) * np.ones((1, *size), np.uint8)
    write_looks(warehouse, ROWS, COLUMNS, looks=looks.round().astype(np.uint16), scl=scl, days=DAYS, bands=BANDS)


def area_choice(**more: Any) -> AreaChoice:
    """Return the whole area up to the end of its second year, the last months of it held out."""
    given: dict[str, Any] = {"until": "2018-06-30", "crs": "EPSG:32630", "held_out_days": 120, "held_out_pixels": 256}
    return AreaChoice(AREA, **{**given, **more})


def request_of(warehouse: Path, **more: Any) -> EarthPTRequest:
    """Return a tiny training on generated series."""
    given: dict[str, Any] = {"name": "tiny", "train": TRAIN, "data": PRIOR, "model": TINY, "device": "cpu"}
    return EarthPTRequest(str(warehouse), **{**given, **more})
