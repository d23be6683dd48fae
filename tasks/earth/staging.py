"""Where a product grows, region by region, before it is published.

A staging place holds one Zarr array per layer and one marker per finished region. The marker is written after the
region's data in all layers, so a worker killed in between leaves a region that counts as not done and is written again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
import zarr.errors
from odc.geo.geobox import GeoBox
from zarr.codecs import ZstdCodec

from storage.errors import NotFound, SchemaMismatch
from storage.export import Layer
from storage.geozarr import geobox_from_attributes, spatial_attributes
from storage.location import Location
from storage.regions import Region, region_key, require_aligned

_MARKER = re.compile(r"done/(y(\d+)x(\d+))-(\d+)x(\d+)")


def create_staging(
    location: Location,
    geobox: GeoBox,
    layers: tuple[Layer, ...],
    *,
    chunk: int = 256,
) -> None:
    """Make an empty staging place, or leave one of the same structure as it is.

    Parameters
    ----------
    location : Location
        Folder for this run alone.
    geobox : GeoBox
        Grid of the product; regions are cut from its upper-left corner.
    layers : tuple of Layer
        What is gathered.
    chunk : int
        Pixels a side of the smallest region.

    Raises
    ------
    SchemaMismatch
        Where something else is staged there.
    """
    attributes = spatial_attributes(geobox) | {
        "canopus:chunk": chunk,
        "canopus:layers": [layer.name_and_kind for layer in layers],
    }
    store = _arrays_at(location).zarr_store()
    try:
        group = zarr.open_group(store, mode="r+", zarr_format=3)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    if dict(group.attrs) != attributes:
        raise SchemaMismatch(f"{location}: a product of another grid, or with other layers, is staged there; remove it")
    for layer in layers:
        # a run killed while it made the arrays left some of them
        if layer.name not in group:
            _create_array(group, geobox, layer, chunk=chunk)


def write_staged_region(location: Location, region: Region, arrays: Mapping[str, np.ndarray]) -> None:
    """Write all layers of one region, then mark it done.

    Parameters
    ----------
    location : Location
        As given to `create_staging`.
    region : dict of str to slice
        ``y`` and ``x`` in pixels of the staging grid, on chunk borders.
    arrays : mapping of str to ndarray
        Stored values per layer name, shape (..., y, x).

    Raises
    ------
    RegionMisaligned
        Where the region cuts a chunk.
    SchemaMismatch
        Where a layer is missing, unknown, or of another shape or type.
    """
    group = _open(location)
    attributes: dict[str, Any] = dict(group.attrs)
    geobox, chunk = geobox_from_attributes(attributes), int(attributes["canopus:chunk"])
    rows, columns = (int(size) for size in geobox.shape)
    require_aligned(region, (rows, columns), chunk)
    stored = dict(group.arrays())
    if set(stored) != set(arrays):
        raise SchemaMismatch(f"a staged region has the layers {sorted(stored)}, got {sorted(arrays)}")
    window = (region["y"], region["x"])
    for name, values in arrays.items():
        _require_window(stored[name], values, window)
    for name, values in arrays.items():
        stored[name][(..., *window)] = values
    _mark(location, region)


def mark_blank_region(location: Location, region: Region) -> None:
    """Mark a region done that the area does not touch: it stays no data in all layers."""
    _mark(location, region)


def staged_regions_done(location: Location) -> set[str]:
    """Return the `region_key` of each region that is wholly in."""
    markers = (_MARKER.fullmatch(name) for name in location.list_names("done"))
    return {marker[1] for marker in markers if marker}


def open_staging(location: Location) -> tuple[GeoBox, dict[str, zarr.Array]]:
    """Return the grid and the arrays of a staging place, for reading.

    Raises
    ------
    NotFound
        Where nothing is staged.
    """
    group = _open(location)
    return geobox_from_attributes(group.attrs), dict(group.arrays())


def missing_pixels(location: Location, window: Region) -> int:
    """Return how many pixels of a window lie in no finished region."""
    height, width = (window[axis].stop - window[axis].start for axis in ("y", "x"))
    open_pixels = np.ones((height, width), dtype=bool)
    for name in location.list_names("done"):
        marker = _MARKER.fullmatch(name)
        if marker:
            y, x, rows, columns = (int(number) for number in marker.groups()[1:])
            y, x = y - window["y"].start, x - window["x"].start
            open_pixels[max(y, 0) : max(y + rows, 0), max(x, 0) : max(x + columns, 0)] = False
    return int(open_pixels.sum())


def _mark(location: Location, region: Region) -> None:
    height, width = (region[axis].stop - region[axis].start for axis in ("y", "x"))
    location.write_bytes(f"done/{region_key(region)}-{height}x{width}", b"done\n")


def _arrays_at(location: Location) -> Location:
    return location / "layers.zarr"


def _open(location: Location) -> zarr.Group:
    try:
        return zarr.open_group(_arrays_at(location).zarr_store(), mode="r+", zarr_format=3)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError) as error:
        raise NotFound(f"{location}: nothing is staged there") from error


def _create_array(group: zarr.Group, geobox: GeoBox, layer: Layer, *, chunk: int) -> None:
    group.create_array(
        layer.name,
        shape=layer.shape(geobox),
        dtype=layer.dtype,
        # read again one entry at a time of all dimensions but the last before (y, x)
        chunks=(*(1 for _ in layer.leading[:-1]), *layer.leading[-1:], chunk, chunk),
        fill_value=layer.nodata,
        compressors=[ZstdCodec(level=1)],
        dimension_names=layer.dimensions,
    )


def _require_window(array: zarr.Array, values: np.ndarray, window: tuple[slice, slice]) -> None:
    expected = (*array.shape[:-2], *(axis.stop - axis.start for axis in window))
    if values.shape != expected or values.dtype != array.dtype:
        raise SchemaMismatch(f"{array.basename}: expected {array.dtype} {expected}, got {values.dtype} {values.shape}")
