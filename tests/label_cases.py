"""Small files of labels on a small grid."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import box

CRS = "EPSG:32633"
LEFT, TOP = 500_000, 5_000_000
GRID = GeoBox((20, 30), Affine(10, 0, LEFT, 0, -10, TOP), CRS)


def pixels(column: float, row: float, to_column: float, to_row: float) -> object:
    """Return the rectangle between two pixel corners of `GRID`."""
    return box(LEFT + 10 * column, TOP - 10 * to_row, LEFT + 10 * to_column, TOP - 10 * row)


def write_polygons(path: Path, values: list[object], shapes: list[object], *, crs: str | None = CRS) -> Path:
    geopandas.GeoDataFrame({"class": values}, geometry=shapes, crs=crs).to_file(path)
    return path


def write_raster(
    path: Path, values: np.ndarray, *, pixel: float = 20, nodata: float | None = 255, crs: str | None = CRS
) -> Path:
    profile = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype,
    }
    transform = Affine(pixel, 0, LEFT, 0, -pixel, TOP)
    with rasterio.open(path, "w", **profile, transform=transform, crs=crs, nodata=nodata) as target:
        target.write(values, 1)
    return path
