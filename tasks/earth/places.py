"""Which pixels of the cubes are meant: by area, and drawn by their place."""

from __future__ import annotations

import numpy as np
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from rasterio.features import rasterize
from shapely.geometry import box, mapping, shape

from storage.regions import Region, cut_regions
from storage.schema import CHUNK
from tasks.earth.mapping import CubePart, MapPlan

_ZONE_DEGREES = 6


def regions_of(cube: CubePart) -> list[Region]:
    """Return the regions of a tile that the area may touch, blocks of 256 pixels."""
    top, bottom, left, right = cube.tile.window
    return [
        {axis: slice(part[axis].start + start, part[axis].stop + start) for axis, start in (("y", top), ("x", left))}
        for part in cut_regions((bottom - top, right - left), CHUNK)
    ]


def in_area(plan: MapPlan, geobox: GeoBox) -> np.ndarray:
    """Return which pixels of a grid lie in the area, and where cubes of several zones hold it, in the grid's own zone.

    Parameters
    ----------
    plan : MapPlan
        Area and cubes.
    geobox : GeoBox
        Part of a tile.

    Returns
    -------
    ndarray, shape (y, x), bool
    """
    area = shape(plan.area)
    if len({str(cube.tile.geobox.crs) for cube in plan.cubes}) > 1:
        zone = (CRS(str(geobox.crs)).to_epsg() or 0) % 100
        west = -180 + _ZONE_DEGREES * (zone - 1)
        area = area.intersection(box(west, -90, west + _ZONE_DEGREES, 90))
    projected = Geometry(mapping(area), "EPSG:4326").to_crs(str(geobox.crs), resolution=0.01)
    rows, columns = geobox.shape
    if projected.is_empty:
        return np.zeros((rows, columns), dtype=bool)
    burned = rasterize([projected.geom], out_shape=(rows, columns), transform=geobox.affine, dtype="uint8")
    return np.asarray(burned, dtype=bool)


def drawn(region: Region, share: float, *, seed: int = 0) -> np.ndarray:
    """Return a share of a region's pixels by a hash of row and column in the tile, whatever the region.

    A smaller share of the same seed is part of a larger one.

    Parameters
    ----------
    region : dict of str to slice
        In pixels of the tile.
    share : float
        0 to 1, to about a millionth.
    seed : int
        Of the hash.

    Returns
    -------
    ndarray, shape (y, x), bool
    """
    row, column = np.ogrid[region["y"], region["x"]]
    salt = np.uint64(seed * 0xD6E8FEB86659FD93 % 2**64)
    mixed = row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ column.astype(np.uint64) * np.uint64(
        0xC2B2AE3D27D4EB4F
    )
    mixed = mixed ^ salt
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((mixed ^ (mixed >> np.uint64(32))) % np.uint64(1_000_003) < share * 1_000_003)
