"""CF and GeoZarr attributes from a GeoBox, and back.

A georeferenced group says where it lies twice: for CF readers through a scalar ``spatial_ref`` variable (``crs_wkt``,
``GeoTransform``) that each variable names as ``grid_mapping``, and for GeoZarr readers through the ``proj:``,
``spatial:`` and ``multiscales`` Zarr conventions. Rows go down: ``y`` falls with the row number.

References
----------
CF Conventions 1.11, section 5.6 and appendix F; Zarr conventions proj, spatial and multiscales, each at v0.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.errors import SchemaMismatch

GRID_MAPPING = "spatial_ref"
"""Name of the scalar variable that holds the CRS; every georeferenced variable has it as `grid_mapping`."""

CF_VERSION = "CF-1.11"


def _convention(name: str, uuid: str, description: str) -> dict[str, str]:
    """Return one entry of `zarr_conventions`; the uuid is the convention's identity, the URLs its revision."""
    return {
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }


PROJ = _convention(
    "proj",
    "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "Coordinate reference system information for geospatial data",
)
SPATIAL = _convention("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information")
MULTISCALES = _convention("multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets")


def spatial_ref_attributes(geobox: GeoBox) -> dict[str, Any]:
    """Return the attributes of the scalar `spatial_ref` variable.

    Parameters
    ----------
    geobox : GeoBox
        Grid with a CRS, axis-aligned.

    Returns
    -------
    dict
        CF grid mapping (``grid_mapping_name`` and its parameters, ``crs_wkt`` as WKT2), ``spatial_ref`` (the same
        WKT, where GDAL looks) and ``GeoTransform`` (six numbers in GDAL's order, upper-left corner of the grid).

    Raises
    ------
    SchemaMismatch
        Where the grid has no CRS or is rotated.
    """
    crs = _crs(geobox)
    a, b, c, d, e, f = _transform(geobox)
    attributes: dict[str, Any] = dict(crs.to_cf())
    return attributes | {
        "spatial_ref": attributes["crs_wkt"],
        "GeoTransform": " ".join(repr(number) for number in (c, a, b, f, d, e)),
    }


def coordinates(geobox: GeoBox) -> dict[str, xr.Variable]:
    """Return `y`, `x` and `spatial_ref` as xarray variables with CF attributes.

    Returns
    -------
    dict of str to xarray.Variable
        ``y`` (y,) and ``x`` (x,) float64, pixel centres in the unit of the CRS, and the scalar ``spatial_ref``; give
        it to `Dataset.assign_coords`.
    """
    a, _, c, _, e, f = _transform(geobox)
    rows, columns = (int(size) for size in geobox.shape)
    y, x = f + e * (np.arange(rows) + 0.5), c + a * (np.arange(columns) + 0.5)
    return {
        "y": xr.Variable("y", y, _axis_attributes(geobox, "y")),
        "x": xr.Variable("x", x, _axis_attributes(geobox, "x")),
        GRID_MAPPING: xr.Variable((), np.int32(0), spatial_ref_attributes(geobox)),
    }


def spatial_attributes(geobox: GeoBox) -> dict[str, Any]:
    """Return the GeoZarr `proj:` and `spatial:` attributes of a group or an array on `geobox`.

    Returns
    -------
    dict
        ``zarr_conventions``; ``proj:code`` where the CRS has one, ``proj:wkt2`` and ``proj:projjson``;
        ``spatial:dimensions``, ``spatial:transform`` (a, b, c, d, e, f as in `affine.Affine`), ``spatial:bbox``
        (xmin, ymin, xmax, ymax), ``spatial:shape`` (rows, columns).
    """
    return {"zarr_conventions": [PROJ, SPATIAL]} | _proj_attributes(geobox) | _placement(geobox)


def multiscale_attributes(geobox: GeoBox, levels: Mapping[str, int], *, resampling: str) -> dict[str, Any]:
    """Return the attributes of a group whose children are overviews in the CRS of the data.

    Parameters
    ----------
    geobox : GeoBox
        Grid of the full resolution.
    levels : mapping of str to int
        Path of each child group and by how much it is coarser, finest first: ``{"0": 1, "1": 2, "2": 4}``.
    resampling : str
        Default method, e.g. ``"average"``; what differs is an attribute of the variable.

    Returns
    -------
    dict
        What `spatial_attributes` gives plus ``multiscales``.
    """
    names, factors = list(levels), list(levels.values())
    layout = [_level(geobox, names, factors, index) for index in range(len(names))]
    attributes = spatial_attributes(geobox)
    attributes["zarr_conventions"] = [MULTISCALES, PROJ, SPATIAL]
    return attributes | {"multiscales": {"layout": layout, "resampling_method": resampling}}


def overview(geobox: GeoBox, factor: int) -> GeoBox:
    """Return the grid with pixels `factor` times as large; the last row and column may reach past the edge."""
    rows, columns = (-(-int(size) // factor) for size in geobox.shape)
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return GeoBox((rows, columns), Affine(a * factor, b * factor, c, d * factor, e * factor, f), geobox.crs)


def overview_factors(shape: Sequence[int], *, smallest: int = 256) -> list[int]:
    """Return 2, 4, 8, ... until the longer side of the coarsest overview is at most `smallest` pixels.

    Examples
    --------
    >>> overview_factors((1000, 600))
    [2, 4]
    """
    factors: list[int] = []
    while max(shape) > smallest * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    return factors


def georeference(dataset: xr.Dataset, geobox: GeoBox) -> xr.Dataset:
    """Return `dataset` with coordinates, `grid_mapping` and GeoZarr attributes of `geobox`.

    Parameters
    ----------
    dataset : xarray.Dataset
        Variables with the dimensions `y` and `x` of the grid's shape are georeferenced, others left as they are.
    """
    placed = dataset.assign_coords(coordinates(geobox))
    for variable in placed.data_vars.values():
        if {"y", "x"} <= set(variable.dims):
            variable.attrs.pop("grid_mapping", None)
            variable.encoding["grid_mapping"] = GRID_MAPPING
    placed.attrs |= {"Conventions": CF_VERSION} | spatial_attributes(geobox)
    return placed


def geobox_from_attributes(attributes: Mapping[str, Any]) -> GeoBox:
    """Return the grid that GeoZarr attributes describe.

    Raises
    ------
    SchemaMismatch
        Where one of ``spatial:transform``, ``spatial:shape`` and a ``proj:`` CRS is missing.
    """
    crs = next((attributes[key] for key in ("proj:code", "proj:wkt2", "proj:projjson") if attributes.get(key)), None)
    missing = [key for key in ("spatial:transform", "spatial:shape") if key not in attributes]
    if crs is None or missing:
        raise SchemaMismatch(f"no GeoZarr grid: {', '.join(missing + ['proj:code'] * (crs is None))} missing")
    return GeoBox(tuple(attributes["spatial:shape"]), Affine(*attributes["spatial:transform"]), crs)


def _crs(geobox: GeoBox) -> Any:
    """Return the pyproj CRS of a grid."""
    if geobox.crs is None:
        raise SchemaMismatch("the grid has no CRS: name one, for example EPSG:32633")
    return geobox.crs.proj


def _transform(geobox: GeoBox) -> tuple[float, ...]:
    """Return a, b, c, d, e, f of an axis-aligned grid."""
    numbers = tuple(float(number) for number in tuple(geobox.affine)[:6])
    if numbers[1] != 0 or numbers[3] != 0:
        raise SchemaMismatch(f"a rotated grid cannot have CF coordinates: transform {numbers}")
    return numbers


def _axis_attributes(geobox: GeoBox, axis: str) -> dict[str, str]:
    crs = _crs(geobox)
    if crs.is_geographic:
        name, unit = {"x": ("longitude", "degrees_east"), "y": ("latitude", "degrees_north")}[axis]
        return {"standard_name": name, "long_name": name, "units": unit, "axis": axis.upper()}
    return {
        "standard_name": f"projection_{axis}_coordinate",
        "long_name": f"{axis} coordinate of projection",
        "units": "m" if crs.axis_info[0].unit_name == "metre" else crs.axis_info[0].unit_name,
        "axis": axis.upper(),
    }


def _proj_attributes(geobox: GeoBox) -> dict[str, Any]:
    crs = _crs(geobox)
    authority = crs.to_authority(min_confidence=100)
    code = {"proj:code": ":".join(authority)} if authority else {}
    return code | {"proj:wkt2": crs.to_wkt(), "proj:projjson": crs.to_json_dict()}


def _placement(geobox: GeoBox) -> dict[str, Any]:
    return {
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:transform": list(_transform(geobox)),
        "spatial:bbox": [float(edge) for edge in geobox.boundingbox],
        "spatial:shape": [int(size) for size in geobox.shape],
        "spatial:registration": "pixel",
    }


def _level(geobox: GeoBox, names: list[str], factors: list[int], index: int) -> dict[str, Any]:
    """Return one entry of the layout; scale is relative to the level it is derived from."""
    before = factors[index - 1] if index else factors[0]
    scale = factors[index] / before
    grid = overview(geobox, factors[index]) if factors[index] > 1 else geobox
    entry: dict[str, Any] = {"asset": names[index]}
    if index:
        entry["derived_from"] = names[index - 1]
    return entry | {
        "transform": {"scale": [scale, scale], "translation": [0.0, 0.0]},
        "spatial:shape": [int(size) for size in grid.shape],
        "spatial:transform": list(_transform(grid)),
    }
