"""Cubes with known looks over a small area that may cross tiles, and what a STAC document has to be."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
from odc.geo.geom import box
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from storage.cube import DateEntry, create_cube, open_cube, write_cube
from storage.location import resolve
from storage.schema import CubeSchema
from tasks.earth.grid import tiles_of

CRS = "EPSG:32630"
CORNER = (614_400.0, 5_703_680.0)
"""Upper left of a tile; rows and columns are counted from there, into the next tiles too."""
TILE = 1024


def area_of_pixels(rows: slice, columns: slice) -> dict:
    """Return the outline of some pixels in longitude and latitude."""
    left, top = CORNER
    edges = (left + 10 * columns.start, top - 10 * rows.stop, left + 10 * columns.stop, top - 10 * rows.start)
    return dict(box(*edges, CRS).to_crs("EPSG:4326", resolution=20).json)


def write_looks(
    warehouse: Path,
    rows: slice,
    columns: slice,
    *,
    looks: np.ndarray,
    scl: np.ndarray,
    days: np.ndarray,
    bands: tuple[str, ...],
) -> None:
    """Write looks (time, band, y, x) and masks (time, y, x) of a window into the cubes of the tiles that hold it."""
    for tile in tiles_of(area_of_pixels(rows, columns), crs=CRS):
        affine = tile.geobox.affine
        row, column = round((CORNER[1] - affine.f) / 10), round((affine.c - CORNER[0]) / 10)
        y = slice(max(rows.start - row, 0), min(rows.stop - row, TILE))
        x = slice(max(columns.start - column, 0), min(columns.stop - column, TILE))
        if y.start >= y.stop or x.start >= x.stop:
            continue
        part = (
            slice(y.start + row - rows.start, y.stop + row - rows.start),
            slice(x.start + column - columns.start, x.stop + column - columns.start),
        )
        location = resolve(warehouse) / tile.path
        create_cube(location, CubeSchema(tile.geobox, bands))
        with write_cube(location) as writer:
            for number, day in enumerate(days):
                name = f"s{str(day).replace('-', '')}"
                source = {"href": f"https://example.org/items/{name}", "assets": {}}
                record = {"scene": name, "state": "used", "solar_day": str(day), "source": source}
                time = day.astype("datetime64[us]")
                here = looks[(number, slice(None), *part)]
                writer.write(DateEntry(None, time, (y, x), here, scl[(number, *part)], (record,)))


def read_looks(
    warehouse: Path, rows: slice, columns: slice, *, before: np.datetime64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `write_looks` wrote before a day, both tiles at once: reflectance (time, band, pixel), valid, dates."""
    parts = []
    for tile in tiles_of(area_of_pixels(rows, columns), crs=CRS):
        cube = open_cube(resolve(warehouse) / tile.path)
        left = round((tile.geobox.affine.c - CORNER[0]) / 10)
        here = slice(max(columns.start - left, 0), min(columns.stop - left, TILE))
        part = cube.isel(y=rows, x=here)
        parts.append(part.isel(time=part["time"].values < before).load())
    parts.sort(key=lambda part: float(part["x"][0]))
    reflectance = np.concatenate([part["reflectance"].values for part in parts], axis=-1)
    valid = np.concatenate([part["valid"].values for part in parts], axis=-1)
    times, bands = reflectance.shape[:2]
    dates = parts[0]["time"].values.astype("datetime64[D]")
    return reflectance.reshape(times, bands, -1), valid.reshape(times, -1), dates


def core_errors(document: dict) -> list[str]:
    """Return what is wrong with a STAC item or collection by the schemas of STAC 1.1.0."""
    schemas = get_local_schema_cache()
    kind = {"Feature": "item", "Collection": "collection"}[document["type"]]
    schema = schemas[f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"]
    registry = Registry().with_resources([(url, Resource.from_contents(body)) for url, body in schemas.items()])
    return [error.message for error in jsonschema.Draft7Validator(schema, registry=registry).iter_errors(document)]
