"""Georeferenced arrays out of the store: COG and multiscale GeoZarr, block by block, in bounded memory.

Both writers read windows of a chunked source, never the whole of it, and write the same bytes for the same input, so
that an interrupted export can be repeated over its own leavings.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import rasterio
import rasterio.shutil
import zarr
import zarr.errors
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec

from storage import geozarr
from storage.errors import SchemaMismatch

Resampling: TypeAlias = Literal["nearest", "mode", "average"]

COG_BLOCK = 512
ZARR_CHUNK = 256
ZARR_SHARD = 1024
SHARD_BYTES = 2**26


class ArrayLike(Protocol):
    """Anything with a shape and a type that gives a part when indexed: numpy, Zarr, xarray."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the lengths of the dimensions."""
        ...

    @property
    def dtype(self) -> Any:
        """Return the type of the values."""
        ...

    def __getitem__(self, key: Any) -> Any:
        """Return the values of a window."""
        ...


@dataclass(frozen=True)
class Axis:
    """A dimension of a layer before (y, x).

    Parameters
    ----------
    name : str
        Of the dimension and its coordinate.
    values : tuple of str, int or float
        Of the coordinate, all of one type.
    labels : tuple of str
        What the bands of a COG are called; by default the values.
    attributes : mapping
        Of the coordinate, e.g. CF ``units``.
    """

    name: str
    values: tuple[str, ...] | tuple[int, ...] | tuple[float, ...]
    labels: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def date_axis(name: str, days: np.ndarray) -> Axis:
    """Return an axis of days, (day,) datetime64[D], that CF readers decode.

    Examples
    --------
    >>> date_axis("time", np.array(["1970-01-03"], "M8[D]")).values
    (2,)
    """
    numbers = tuple(int(day) for day in days.astype("datetime64[D]").astype(int))
    units = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"}
    return Axis(name, numbers, tuple(str(day) for day in days.astype("datetime64[D]")), units)


@dataclass(frozen=True)
class Layer:
    """One raster of a product: what it means and how it is written.

    Parameters
    ----------
    name : str
        File and variable name.
    title : str
        What a person reads, e.g. ``"Clear looks"``.
    dtype : str
        Stored type, e.g. ``"uint16"``.
    nodata : int or float
        Stored value where there is nothing; NaN for floats.
    overviews : {"nearest", "mode", "average"}
        How coarser versions are made; nodata never counts. Floats take the nearest.
    axes : tuple of Axis
        Dimensions before (y, x); none for a plain (y, x) layer, at most one for a COG.
    scale : float
        Physical value = stored value x scale.
    unit : str
        Unit of the physical value, ``"1"`` for none.
    colours : mapping of int to (red, green, blue)
        Colour table of an 8-bit layer.
    attributes : mapping
        Further attributes of the Zarr variable, e.g. CF ``flag_values``.
    """

    name: str
    title: str
    dtype: str
    nodata: int | float
    overviews: Resampling = "nearest"
    axes: tuple[Axis, ...] = ()
    scale: float = 1.0
    unit: str = "1"
    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Return the names of the dimensions in order."""
        return (*(axis.name for axis in self.axes), "y", "x")

    @property
    def bands(self) -> tuple[str, ...]:
        """Return what the planes (y, x) are called, in order; empty for a plain layer."""
        named = [axis.labels or tuple(str(value) for value in axis.values) for axis in self.axes]
        return tuple(" ".join(labels) for labels in product(*named)) if named else ()

    def shape(self, geobox: GeoBox) -> tuple[int, ...]:
        """Return the shape of the layer on a grid."""
        rows, columns = (int(size) for size in geobox.shape)
        return (*self.leading, rows, columns)

    @property
    def name_and_kind(self) -> list[Any]:
        """Return what tells this layer from another one, in JSON types: name, type, fill value, scale and axes."""
        axes = [[axis.name, list(axis.values)] for axis in self.axes]
        return [self.name, self.dtype, str(self.nodata), self.scale, axes]

    @property
    def leading(self) -> tuple[int, ...]:
        """Return the lengths of the dimensions before (y, x)."""
        return tuple(len(axis.values) for axis in self.axes)


@dataclass(frozen=True)
class Cropped:
    """A window of a larger (..., y, x) array, read when asked.

    Parameters
    ----------
    source : ArrayLike
        Array whose last two dimensions are y and x.
    y, x : slice
        Rows and columns, with start and stop.
    """

    source: ArrayLike
    y: slice
    x: slice

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the window."""
        return (*self.source.shape[:-2], self.y.stop - self.y.start, self.x.stop - self.x.start)

    @property
    def dtype(self) -> Any:
        """Return the type of the values."""
        return self.source.dtype

    def __getitem__(self, key: Any) -> Any:
        """Return the values of slices (y, x), after slices of the leading dimensions or none."""
        *leading, y, x = key
        rows = slice(self.y.start + y.start, min(self.y.start + y.stop, self.y.stop))
        columns = slice(self.x.start + x.start, min(self.x.start + x.stop, self.x.stop))
        return self.source[(*(leading or (...,)), rows, columns)]


@dataclass(frozen=True)
class Plane:
    """One entry of the dimension before (y, x) of a larger array, read when asked.

    Parameters
    ----------
    source : ArrayLike, shape (..., n, y, x)
    number : int
        Which of the n.
    """

    source: ArrayLike
    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape without the dimension."""
        return (*self.source.shape[:-3], *self.source.shape[-2:])

    @property
    def dtype(self) -> Any:
        """Return the type of the values."""
        return self.source.dtype

    def __getitem__(self, key: Any) -> Any:
        """Return the values of slices (y, x), after slices of the leading dimensions or none."""
        *leading, y, x = key
        whole = [slice(None)] * (len(self.source.shape) - 3)
        before = whole if not leading or leading == [...] else leading
        return np.asarray(self.source[(*before, slice(self.number, self.number + 1), y, x)])[..., 0, :, :]


def write_cog(
    path: Path, source: ArrayLike, geobox: GeoBox, *, layer: Layer, tags: Mapping[str, str] | None = None
) -> None:
    """Write a layer as a cloud-optimised GeoTIFF with overviews.

    Parameters
    ----------
    path : Path
        Local file; a `.tif` that is moved into the warehouse afterwards.
    source : ArrayLike, shape (y, x) or (band, y, x)
        Stored values, of the layer's dtype.
    geobox : GeoBox
        Grid of the source.
    layer : Layer
        Nodata, scale, band names, colours, kind of overviews.
    tags : mapping of str to str, optional
        Metadata of the file.

    Raises
    ------
    SchemaMismatch
        Where shape or dtype of the source are not those of the layer on this grid.
    """
    require_layer(source, geobox, layer)
    with (
        tempfile.TemporaryDirectory(prefix="canopus-cog-", dir=path.parent) as scratch,
        rasterio.Env(GDAL_CACHEMAX=128),
    ):
        plain = Path(scratch) / "plain.tif"
        _write_plain(plain, source, geobox, layer=layer, tags=tags or {})
        # GDAL writes header, overviews and tiles of a COG in one pass over a finished raster
        rasterio.shutil.copy(str(plain), str(path), driver="COG", **_cog_options(layer))


def write_geozarr(
    store: Store,
    sources: Mapping[str, ArrayLike],
    geobox: GeoBox,
    *,
    layers: tuple[Layer, ...],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write layers as a Zarr v3 group with overviews in the CRS of the data.

    Parameters
    ----------
    store : zarr Store
        Where the group's root is to lie; empty.
    sources : mapping of str to ArrayLike
        Stored values per layer name.
    geobox : GeoBox
        Grid of the sources.
    layers : tuple of Layer
        One variable each.
    attributes : mapping, optional
        Further attributes of the root group: title, source, licence.

    Notes
    -----
    Group ``0`` holds full resolution, ``1`` half, and so on; the root has the `multiscales` layout. Chunks are 256
    pixels in shards of up to 1024 and of some 64 MiB, compressed with Zstandard (Blosc's threads may order the same
    blocks differently). A shard holds all of a layer's last dimension before (y, x), and one entry of those before it.
    """
    levels = {str(index): 2**index for index in range(1 + len(geozarr.overview_factors(geobox.shape)))}
    root = zarr.create_group(store, zarr_format=3)
    root.attrs.update(
        {"Conventions": geozarr.CF_VERSION}
        | dict(attributes or {})
        | geozarr.multiscale_attributes(geobox, levels, resampling="nearest")
    )
    finer: Mapping[str, ArrayLike] = sources
    for name, factor in levels.items():
        grid = geozarr.overview(geobox, factor)
        finer = _write_level(root.create_group(name), finer, grid, layers=layers, reduce=factor > 1)
    with warnings.catch_warnings():
        # one document for all levels, as the multiscales convention asks; zarr warns that v3 leaves it open
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(store, zarr_format=3)


def require_layer(source: ArrayLike, geobox: GeoBox, layer: Layer) -> None:
    """Check shape and type of an array against its layer.

    Raises
    ------
    SchemaMismatch
        Naming what was expected and what came.
    """
    expected = (layer.shape(geobox), np.dtype(layer.dtype))
    came = (tuple(source.shape), np.dtype(source.dtype))
    if came != expected:
        raise SchemaMismatch(
            f"{layer.name}: expected {expected[1]} {expected[0]} {layer.dimensions}, got {came[1]} {came[0]}"
        )


def blocks(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, slice]]:
    """Yield (y, x) slices that cover the last two dimensions of `shape` once, row by row."""
    rows, columns = shape[-2:]
    for y in range(0, rows, size):
        for x in range(0, columns, size):
            yield slice(y, min(y + size, rows)), slice(x, min(x + size, columns))


def halve(values: np.ndarray, method: Resampling, *, nodata: int | float) -> np.ndarray:
    """Return values at half the resolution; an odd last row or column counts as if followed by nodata.

    Parameters
    ----------
    values : ndarray, shape (..., y, x), integer
        Stored values; for nearest, floats too.
    method : {"nearest", "mode", "average"}
        The upper-left of each 2 x 2 pixels, the most frequent value (the smallest among equals), or the mean
        rounded half up. Pixels of `nodata` do not vote and do not count in the mean.
    nodata : int or float
        Returned where all four are `nodata` (for nearest: where the upper-left one is).

    Examples
    --------
    >>> halve(np.array([[1, 2], [2, 9]]), "mode", nodata=9)
    array([[2]])
    """
    if method == "nearest":
        return np.ascontiguousarray(values[..., ::2, ::2])
    quads = _quads(values, int(nodata))  # (..., y, x) -> (4, ..., y/2, x/2)
    reduced = _mode(quads, int(nodata)) if method == "mode" else _average(quads, int(nodata))
    return reduced.astype(values.dtype)


def _quads(values: np.ndarray, nodata: int) -> np.ndarray:
    """Return the four pixels of each 2 x 2 block along a new first dimension."""
    odd = [(0, 0)] * (values.ndim - 2) + [(0, values.shape[-2] % 2), (0, values.shape[-1] % 2)]
    padded = np.pad(values, odd, constant_values=nodata)
    return np.stack([padded[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])


def _mode(quads: np.ndarray, nodata: int) -> np.ndarray:
    votes = (quads[:, None] == quads[None, :]).sum(axis=1, dtype=np.int32)  # how many of the four equal each of them
    votes[quads == nodata] = 0
    # ties go to the smallest value: order by votes first, then by value downwards (values have at most 16 bits)
    order = votes * 2**17 - quads
    chosen: np.ndarray = np.take_along_axis(quads, order.argmax(axis=0)[None], axis=0)[0]
    return chosen


def _average(quads: np.ndarray, nodata: int) -> np.ndarray:
    valid = quads != nodata
    count = valid.sum(axis=0)
    total = np.where(valid, quads, 0).sum(axis=0, dtype=np.int64)
    return np.where(count > 0, (2 * total + count) // np.maximum(2 * count, 1), nodata)


def _write_plain(path: Path, source: ArrayLike, geobox: GeoBox, *, layer: Layer, tags: Mapping[str, str]) -> None:
    """Write a tiled GeoTIFF, one block of the source at a time."""
    with rasterio.open(path, "w", **_plain_profile(geobox, layer)) as raster:
        for y, x in blocks(source.shape, COG_BLOCK * 2):
            values = np.asarray(source[(..., y, x)] if len(source.shape) == 2 else source[:, y, x])
            window = Window.from_slices(y, x)
            raster.write(values if layer.bands else values[None], window=window)
        raster.update_tags(**dict(sorted(tags.items())))
        _describe_bands(raster, layer)


def _plain_profile(geobox: GeoBox, layer: Layer) -> dict[str, Any]:
    rows, columns = (int(size) for size in geobox.shape)
    return {
        "driver": "GTiff",
        "dtype": layer.dtype,
        "count": max(1, len(layer.bands)),
        "height": rows,
        "width": columns,
        "crs": rasterio.crs.CRS.from_wkt(geozarr.spatial_ref_attributes(geobox)["crs_wkt"]),
        "transform": geobox.affine,
        "nodata": layer.nodata,
        "tiled": True,
        "blockxsize": COG_BLOCK,
        "blockysize": COG_BLOCK,
        "compress": "zstd",
        "zstd_level": 1,
        "photometric": "palette" if layer.colours else "minisblack",
        "bigtiff": "if_safer",
    }


def _describe_bands(raster: Any, layer: Layer) -> None:
    for index in range(1, raster.count + 1):
        name = layer.bands[index - 1] if layer.bands else layer.name
        raster.set_band_description(index, name)
        if layer.unit != "1":
            raster.set_band_unit(index, layer.unit)
    raster.scales = (layer.scale,) * raster.count
    if layer.colours:
        raster.write_colormap(1, {value: (*rgb, 255) for value, rgb in layer.colours.items()})
    else:
        raster.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (raster.count - 1)


def _cog_options(layer: Layer) -> dict[str, str]:
    """Return options of GDAL's COG driver: Deflate, which every reader of TIFF has."""
    return {
        "BLOCKSIZE": str(COG_BLOCK),
        "COMPRESS": "DEFLATE",
        # differences between neighbours compress smooth fields, and spoil palettes
        "PREDICTOR": "NO" if layer.colours else "YES",
        "LEVEL": "6",
        "BIGTIFF": "IF_SAFER",
        "OVERVIEWS": "IGNORE_EXISTING",
        "OVERVIEW_RESAMPLING": layer.overviews.upper(),
        "NUM_THREADS": "2",
    }


def _write_level(
    group: zarr.Group, finer: Mapping[str, ArrayLike], grid: GeoBox, *, layers: tuple[Layer, ...], reduce: bool
) -> dict[str, ArrayLike]:
    """Write one resolution of all layers and return its arrays."""
    group.attrs.update({"Conventions": geozarr.CF_VERSION} | geozarr.spatial_attributes(grid))
    _write_coordinates(group, grid, layers)
    written: dict[str, ArrayLike] = {}
    for layer in layers:
        array = _create_variable(group, grid, layer)
        read = _reader(finer[layer.name], layer, reduce=reduce)
        for y, x in blocks(array.shape, _shard_side(layer)):
            for outer in _outer(layer):
                array[(*outer, y, x)] = read(outer, y, x)
        written[layer.name] = array
    return written


def _outer(layer: Layer) -> Iterator[tuple[slice, ...]]:
    """Yield slices of the leading dimensions: one entry of each but the last, and all of the last."""
    if not layer.axes:
        yield ()
        return
    for numbers in product(*(range(length) for length in layer.leading[:-1])):
        yield (*(slice(number, number + 1) for number in numbers), slice(None))


def _reader(
    source: ArrayLike, layer: Layer, *, reduce: bool
) -> Callable[[tuple[slice, ...], slice, slice], np.ndarray]:
    """Return what reads a window of this level, from the source or from the level twice as fine."""

    def read(outer: tuple[slice, ...], y: slice, x: slice) -> np.ndarray:
        if not reduce:
            return np.asarray(source[(*outer, y, x)])
        rows, columns = source.shape[-2:]
        fine = (slice(2 * y.start, min(2 * y.stop, rows)), slice(2 * x.start, min(2 * x.stop, columns)))
        return halve(np.asarray(source[(*outer, *fine)]), layer.overviews, nodata=layer.nodata)

    return read


def _write_coordinates(group: zarr.Group, grid: GeoBox, layers: tuple[Layer, ...]) -> None:
    for name, variable in geozarr.coordinates(grid).items():
        # a NaN fill keeps CF readers from masking a coordinate that happens to be 0
        fill = np.nan if variable.dtype.kind == "f" else None
        array = group.create_array(
            name,
            shape=variable.shape,
            dtype=variable.dtype,
            dimension_names=[str(name) for name in variable.dims],
            fill_value=fill,
        )
        array[...] = variable.values
        array.attrs.update(variable.attrs)
    for layer in layers:
        for axis in layer.axes:
            if axis.name not in group:
                _write_axis(group, axis, layer)


def _write_axis(group: zarr.Group, axis: Axis, layer: Layer) -> None:
    """Write the coordinate of a dimension before (y, x)."""
    words = isinstance(axis.values[0], str)
    values = np.array(axis.values, dtype=object if words else None)
    array = group.create_array(
        axis.name,
        shape=values.shape,
        dtype=str if words else values.dtype,
        dimension_names=[axis.name],
        fill_value=np.nan if values.dtype.kind == "f" else None,
    )
    array[...] = values
    array.attrs.update({"long_name": f"{axis.name} of {layer.title.lower()}"} | dict(axis.attributes))


def _create_variable(group: zarr.Group, grid: GeoBox, layer: Layer) -> zarr.Array:
    shape = layer.shape(grid)
    leading = shape[:-2]
    chunks = (*(1 for _ in leading), ZARR_CHUNK, ZARR_CHUNK)
    side = _shard_side(layer)
    together = (*(1 for _ in leading[:-1]), *leading[-1:])
    shards = (*together, *(min(side, -(-length // ZARR_CHUNK) * ZARR_CHUNK) for length in shape[-2:]))
    array = group.create_array(
        layer.name,
        shape=shape,
        dtype=layer.dtype,
        chunks=chunks,
        shards=shards,
        fill_value=layer.nodata,
        compressors=[ZstdCodec(level=5)],
        dimension_names=layer.dimensions,
    )
    array.attrs.update(_variable_attributes(grid, layer))
    return array


def _shard_side(layer: Layer) -> int:
    """Return how many pixels wide and high a shard is, so that it can be held in memory."""
    per_pixel = np.dtype(layer.dtype).itemsize * (layer.leading[-1] if layer.axes else 1)
    side = ZARR_SHARD
    while side > ZARR_CHUNK and per_pixel * side**2 > SHARD_BYTES:
        side //= 2
    return side


def _variable_attributes(grid: GeoBox, layer: Layer) -> dict[str, Any]:
    """Return CF attributes plus the GeoZarr ones, which some readers look for on the array itself."""
    placed = geozarr.spatial_attributes(grid)
    compact = {key: value for key, value in placed.items() if key != "proj:projjson"}
    scaled = {"scale_factor": layer.scale, "add_offset": 0.0} if layer.scale != 1.0 else {}
    # JSON has no NaN; the array's own fill value says it for floats
    filled = {} if np.isnan(layer.nodata) else {"_FillValue": layer.nodata}
    return {
        "long_name": layer.title,
        "units": layer.unit,
        "grid_mapping": geozarr.GRID_MAPPING,
        **filled,
        **scaled,
        "resampling_method": layer.overviews,
        **dict(layer.attributes),
        **compact,
    }
