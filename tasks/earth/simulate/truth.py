"""What is really there: class, tree cover and change of every pixel, and labels as a forest inventory draws them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio.features
from affine import Affine
from scipy import ndimage
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from tasks.earth.simulate.cog import write_cog
from tasks.earth.simulate.landscape import (
    CANOPY_COVER_PERCENT,
    CHANGE_FELLED,
    CHANGE_NONE,
    CHANGE_PLANTED,
    FINE,
    FINE_M,
    Landscape,
)
from tasks.earth.simulate.phenology import cover_table
from tasks.earth.simulate.scene import World, tree_cover

MIN_WOOD_HECTARES = 0.5
MIN_WOOD_WIDTH_M = 20.0
LABELLED_CLASSES = {1: "broadleaved", 2: "conifer"}


@dataclass(frozen=True)
class Truth:
    """Truth on the 10 m grid.

    Parameters
    ----------
    class_start, class_end : ndarray, shape (y, x), uint8
        0 none, 1 broadleaved, 2 conifer, on the first and on the last day: canopy where trees cover at least half of
        the pixel, of the kind that covers more of it.
    tree_cover_start, tree_cover_end : ndarray, shape (y, x), uint8
        Percent.
    change_day : ndarray, shape (y, x), uint16
        Days since 1970-01-01 of a felling or planting that touches at least half of the pixel, 0 where there is none.
    change_kind : ndarray, shape (y, x), uint8
        0 none, 1 felled, 2 planted.
    """

    class_start: np.ndarray
    class_end: np.ndarray
    tree_cover_start: np.ndarray
    tree_cover_end: np.ndarray
    change_day: np.ndarray
    change_kind: np.ndarray


def canopy_truth(world: World) -> Truth:
    """Return the truth of a world.

    Parameters
    ----------
    world : World

    Returns
    -------
    Truth
    """
    config, land = world.config, world.landscape
    start, end = (_trees(land, day) for day in (config.start, config.end))
    change_day, change_kind = _change(land)
    return Truth(
        class_start=_classes(start),
        class_end=_classes(end),
        tree_cover_start=_percent(start),
        tree_cover_end=_percent(end),
        change_day=change_day,
        change_kind=change_kind,
    )


def _trees(land: Landscape, day: date) -> np.ndarray:
    """Return the share of each kind of tree on a day, shape (2, y, x)."""
    return tree_cover(land, land.units.cover_on(day, land.first_year))


def _percent(trees: np.ndarray) -> np.ndarray:
    """Return tree cover in percent."""
    return np.asarray(np.rint(trees.sum(axis=0) * 100), dtype=np.uint8)


def _classes(trees: np.ndarray) -> np.ndarray:
    """Return the class of each pixel."""
    kind = np.where(trees[1] > trees[0], 2, 1)
    return np.where(_percent(trees) >= CANOPY_COVER_PERCENT, kind, 0).astype(np.uint8)


def _change(land: Landscape) -> tuple[np.ndarray, np.ndarray]:
    """Return day and kind of change of each pixel."""
    epoch = date(1970, 1, 1).toordinal()
    changed = land.units.change_day > 0
    after = land.units.cover_after
    kind = np.where(after == cover_table().index("clearfell"), CHANGE_FELLED, CHANGE_PLANTED) * changed
    touched = (changed[land.unit] * land.share).sum(axis=0) >= 0.5
    largest = np.argmax(changed[land.unit] * land.share, axis=0)[None]
    unit = np.take_along_axis(land.unit, largest, axis=0)[0]
    day = np.where(touched, land.units.change_day[unit] - epoch, 0).astype(np.uint16)
    return day, np.where(touched, kind[unit], CHANGE_NONE).astype(np.uint8)


def inventory_labels(world: World) -> gpd.GeoDataFrame:
    """Return polygons of woods as a national forest inventory would label them at the end of the archive.

    Woods of at least 0.5 ha that are nowhere narrower than 20 m, divided into conifer and broadleaved; small gaps are
    part of them. Hedges, copses and trees in gardens are canopy in truth but not labelled.

    Parameters
    ----------
    world : World

    Returns
    -------
    geopandas.GeoDataFrame
        Columns ``class``, ``hectares`` and ``geometry``, in the projection of the archive.
    """
    config, land = world.config, world.landscape
    cover = land.units.cover_on(config.end, land.first_year)
    kind = np.where(land.stand, cover_table().tree_class[cover], 0)[land.fine_unit[::2, ::2]].astype(np.uint8)
    step = FINE_M * 2
    top = config.south + config.size_px * FINE * FINE_M
    affine = Affine(step, 0, config.west, 0, -step, top)
    found = [row for code in LABELLED_CLASSES for row in _polygons(kind, code, affine, step)]
    columns = {"class": [LABELLED_CLASSES[c] for c, _ in found], "hectares": [round(p.area / 1e4, 2) for _, p in found]}
    return gpd.GeoDataFrame(columns, geometry=[p for _, p in found], crs=f"EPSG:{config.epsg}")


def _polygons(kind: np.ndarray, code: int, affine: Affine, step: float) -> list[tuple[int, BaseGeometry]]:
    """Outline the woods of one class."""
    smooth = ndimage.uniform_filter((kind == code).astype(np.float32), round(25 / step)) > 0.5
    disc = round(MIN_WOOD_WIDTH_M / 2 / step)
    wide = ndimage.binary_opening(smooth, structure=np.ones((2 * disc + 1,) * 2))
    label, count = ndimage.label(wide)
    size = np.bincount(label.ravel(), minlength=count + 1) * step**2 / 1e4
    keep = np.flatnonzero(size >= MIN_WOOD_HECTARES)
    mask = np.isin(label, keep[keep > 0])
    shapes = rasterio.features.shapes(label.astype(np.int32), mask=mask, transform=affine)
    outlines = [shape(outline).simplify(step) for outline, _ in shapes]
    return [(code, outline) for outline in outlines]


def write_truth(folder: Path, world: World) -> tuple[Truth, int]:
    """Write the truth as COGs and its labels as a GeoPackage.

    Parameters
    ----------
    folder : Path
        Made where it does not exist. ``class.tif`` (classes at the end), ``class_start.tif``,
        ``tree_cover_percent.tif``, ``tree_cover_start_percent.tif``, ``change_date.tif`` (days since 1970-01-01),
        ``change_kind.tif``, ``classes.gpkg``.
    world : World

    Returns
    -------
    Truth, int
        And the number of label polygons.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth, geobox = canopy_truth(world), world.config.geobox
    write_cog(folder / "class.tif", truth.class_end, geobox, nodata=255, categorical=True)
    write_cog(folder / "class_start.tif", truth.class_start, geobox, nodata=255, categorical=True)
    write_cog(folder / "tree_cover_percent.tif", truth.tree_cover_end, geobox, nodata=255)
    write_cog(folder / "tree_cover_start_percent.tif", truth.tree_cover_start, geobox, nodata=255)
    write_cog(folder / "change_date.tif", truth.change_day, geobox, nodata=65535, categorical=True)
    write_cog(folder / "change_kind.tif", truth.change_kind, geobox, nodata=255, categorical=True)
    labels = inventory_labels(world)
    with _frozen_clock(world.config.end):
        labels.to_file(folder / "classes.gpkg", layer="classes", driver="GPKG")
    return truth, len(labels)


@contextmanager
def _frozen_clock(day: date) -> Iterator[None]:
    """Let GDAL stamp GeoPackages with a day of the archive, so that the same seed gives the same bytes."""
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{day:%Y-%m-%d}T00:00:00.000Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": os.environ.get("OGR_CURRENT_DATE")})
