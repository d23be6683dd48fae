"""A small cube whose classes are known, a model trained on it, and the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from cube_cases import CORNER, CRS, area_of_pixels, write_looks

from storage.classes import CANOPY_CLASSES
from storage.location import resolve
from tasks.earth.label_rules import LabelRules
from tasks.earth.training import FloorRequest, Split, train_floor

BANDS = ("B04", "B08", "B11")
ROWS, COLUMNS = slice(16, 64), slice(16, 80)
AREA = area_of_pixels(ROWS, COLUMNS)
SHAPE = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
LEVELS = np.array([[900, 2000, 2200], [400, 3800, 1500], [300, 2600, 900]])
"""Reflectance x 10,000 of none, broadleaved and conifer in each band."""


def landscape() -> np.ndarray:
    """Return classes (y, x): two woods of each kind, and a hedge of one pixel."""
    classes = np.zeros(SHAPE, np.uint8)
    classes[4:16, 4:16] = 1
    classes[28:42, 40:56] = 1
    classes[4:16, 36:52] = 2
    classes[28:42, 6:22] = 2
    classes[22, 4:60] = 1
    return classes


def write_raster(path: Path, values: np.ndarray, *, pixel: float = 10.0) -> str:
    """Write a raster whose corner is that of the area."""
    left, top = CORNER[0] + 10 * COLUMNS.start, CORNER[1] - 10 * ROWS.start
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "nodata": 255, "crs": CRS}
    rows, columns = values.shape
    place = {"height": rows, "width": columns, "transform": Affine(pixel, 0, left, 0, -pixel, top)}
    with rasterio.open(path, "w", **profile, **place) as raster:
        raster.write(values, 1)
    return str(path)


@dataclass(frozen=True)
class Place:
    """A warehouse with one cube and the model ``floor``, and the raster that it was trained on."""

    warehouse: str
    labels: str


def make_place(folder: Path, classes: np.ndarray, *, spread: float, seed: int = 0, trees: int = 20) -> Place:
    """Write a cube of twelve looks at these classes, with noise of each pixel's own, and train the model on all of it."""
    rng = np.random.default_rng(seed)
    days = np.datetime64("2021-01-10") + 30 * np.arange(12)
    own = rng.normal(0, spread, (1, len(BANDS), *SHAPE))
    looks = LEVELS[classes].transpose(2, 0, 1)[None] + own + rng.normal(0, 20, (12, len(BANDS), *SHAPE))
    scl = np.full((12, *SHAPE), 4, np.uint8)
    warehouse = folder / "warehouse"
    stored = np.clip(looks, 1, 10_000).astype(np.uint16)
    write_looks(warehouse, ROWS, COLUMNS, looks=stored, scl=scl, days=days, bands=BANDS)
    labels = write_raster(folder / "truth.tif", classes)
    request = FloorRequest(
        warehouse=resolve(warehouse).url,
        area=AREA,
        labels=labels,
        rules=LabelRules(margin=0),
        classes=CANOPY_CLASSES,
        name="floor",
        crs=None,
        resolution=10.0,
        until=None,
        allow_unmasked=False,
        trees=trees,
        seed=0,
        split=Split(8, 4, 0),
    )
    train_floor(request)
    return Place(resolve(warehouse).url, labels)
