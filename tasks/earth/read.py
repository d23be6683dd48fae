"""Read one scene onto a part of a tile, and lay the scenes of one date over each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import dask
import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tasks.earth.radiometry import OffsetDecision, decide_offset, is_any_of, to_stored
from tasks.earth.scenes import BandAsset, OffsetClaim, Scene
from tasks.earth.transport import Access, open_asset
from tasks.errors import SourceRejected

VISIBLE = ("B02", "B03", "B04")

ResamplingName = Literal["nearest", "bilinear", "cubic"]


@dataclass(frozen=True)
class ReadOptions:
    """How scenes are read.

    Parameters
    ----------
    resampling : {"nearest", "bilinear", "cubic"}
        For reflectance. In the scene's own CRS the default, nearest, copies the archive's numbers: a 20 m value fills
        its 2 x 2 pixels of 10 m. Masks are always nearest.
    threads : int
        Files of one date read at once.
    access : Access
        Retries, time-outs and rate per host; allowed hosts; signing.
    """

    resampling: ResamplingName = "nearest"
    threads: int = 4
    access: Access = field(default_factory=Access)


@dataclass(frozen=True)
class SceneRaster:
    """One scene on one part of a tile.

    Parameters
    ----------
    scene : Scene
        What was read.
    reflectance : ndarray, shape (band, y, x), uint16
        Reflectance x 10,000, offset applied, 0 = no data.
    scl : ndarray, shape (y, x), uint8
        Mask values, 0 = none.
    offset : OffsetDecision
        Which offset was applied, and why.
    has_mask : bool
        Whether the item has a mask at all.
    resampling : str
        Such as ``B02 10 m copied; B05 20 m nearest``.
    """

    scene: Scene
    reflectance: np.ndarray
    scl: np.ndarray
    offset: OffsetDecision
    has_mask: bool
    resampling: str

    @cached_property
    def data(self) -> np.ndarray:
        """Return where every band has data: (y, x) bool."""
        every = self.reflectance[0] != 0
        for band in self.reflectance[1:]:
            every &= band != 0
        return every

    @property
    def has_data(self) -> bool:
        """Return whether any pixel falls into the area."""
        return bool(self.reflectance.any())

    @property
    def covered_pixels(self) -> int:
        """Return the number of pixels with data."""
        return int(self.data.sum())

    def clear_pixels(self, clear: Sequence[int]) -> int:
        """Return the number of pixels with data and a clear mask value, before dilation."""
        return int((self.data & is_any_of(self.scl, clear)).sum())


def read_scene(
    scene: Scene, geobox: GeoBox, *, bands: Sequence[str], options: ReadOptions, deadline: float | None = None
) -> SceneRaster:
    """Return a scene's bands and mask on `geobox`, as stored reflectance.

    Files are read side by side by Dask's threaded scheduler; none is begun after `deadline` (`time.monotonic()`).

    Raises
    ------
    SourceUnavailable
        Where a file cannot be read just now.
    SourceRejected
        Where a file is missing, truncated, corrupt or without a CRS; the message names it.
    """
    shape = (int(geobox.shape[0]), int(geobox.shape[1]))
    digital, scl = np.zeros((len(bands), *shape), dtype=np.uint16), np.zeros(shape, dtype=np.uint8)
    layers = [_Layer(band, scene.assets[band], digital[index]) for index, band in enumerate(bands)]
    has_mask = "mask" in scene.assets
    if has_mask:
        layers.append(_Layer("mask", scene.assets["mask"], scl))
    how = _read_layers(layers, geobox, options, deadline)
    offset = _decide(scene.offset, digital, scl if has_mask else None, bands)
    return SceneRaster(scene, to_stored(digital, offset.value), scl, offset, has_mask, _describe(how))


def mosaic(rasters: Sequence[SceneRaster], clear: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return one date from the scenes that overlap in it.

    Each pixel comes whole from one scene: from the first with a clear look at it, else from the first with data. The
    scenes come best first (newest baseline, then smaller id).

    Returns
    -------
    reflectance : ndarray, shape (band, y, x), uint16
    scl : ndarray, shape (y, x), uint8
    """
    if len(rasters) == 1:
        return rasters[0].reflectance, rasters[0].scl
    reflectance = np.zeros_like(rasters[0].reflectance)
    scl = np.zeros_like(rasters[0].scl)
    filled = np.zeros(scl.shape, dtype=bool)
    for must_be_clear in (True, False):
        for raster in rasters:
            take = raster.data & ~filled
            if must_be_clear:
                take &= is_any_of(raster.scl, clear)
            for target, source in zip(reflectance, raster.reflectance, strict=True):
                np.copyto(target, source, where=take)
            np.copyto(scl, raster.scl, where=take)
            filled |= take
    return reflectance, scl


def _decide(claim: OffsetClaim, digital: np.ndarray, scl: np.ndarray | None, bands: Sequence[str]) -> OffsetDecision:
    visible = [index for index, band in enumerate(bands) if band in VISIBLE]
    return decide_offset(claim, digital[visible], scl)


def _describe(how: dict[str, str]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, text in how.items():
        groups[text].append(name)
    return "; ".join(f"{' '.join(sorted(names))}: {text}" for text, names in sorted(groups.items()))


@dataclass(frozen=True)
class _Layer:
    """One band or mask of a scene, and the array (y, x) that it is read into."""

    name: str
    asset: BandAsset
    target: np.ndarray


def _read_layers(
    layers: Sequence[_Layer], geobox: GeoBox, options: ReadOptions, deadline: float | None
) -> dict[str, str]:
    """Fill the layers' arrays, file by file, and return how each was laid on the grid."""
    files: dict[str, list[_Layer]] = defaultdict(list)
    for layer in layers:
        files[layer.asset.href].append(layer)
    # as one object: Dask would walk through every argument in search of tasks
    reads = [partial(_read_file, href, parts, geobox, options, deadline) for href, parts in files.items()]
    jobs = [dask.delayed(read, traverse=False)() for read in reads]
    how: dict[str, str] = {}
    for found in dask.compute(*jobs, scheduler="threads", num_workers=options.threads):
        how |= found
    return how


def _read_file(
    href: str, parts: list[_Layer], geobox: GeoBox, options: ReadOptions, deadline: float | None
) -> dict[str, str]:
    with open_asset(href, options.access, deadline=deadline) as source:
        _require_georeference(source, href)
        return {layer.name: _read_band(source, layer, geobox, options) for layer in parts}


def _require_georeference(source: rasterio.DatasetReader, href: str) -> None:
    if source.crs is None or not source.crs.is_projected:
        raise SourceRejected(f"{_file_name(href)}: CRS {source.crs} is not projected; not a Sentinel-2 tile")
    if source.transform.b or source.transform.d:
        raise SourceRejected(f"{_file_name(href)}: its grid is rotated")


def _read_band(source: rasterio.DatasetReader, layer: _Layer, geobox: GeoBox, options: ReadOptions) -> str:
    name, asset = layer.name, layer.asset
    if asset.index > source.count:
        raise SourceRejected(
            f"{_file_name(asset.href)}: band {asset.index} of {source.count} for {name}", reason="missing-asset"
        )
    method: str = "nearest" if name == "mask" else options.resampling
    pixel = abs(source.transform.a)
    same_crs = geobox.crs is not None and source.crs == rasterio.crs.CRS.from_user_input(str(geobox.crs))
    aligned = same_crs and (_is_copy(source, geobox) or (method == "nearest" and geobox.resolution.x <= pixel))
    nodata = source.nodata if asset.nodata is None else asset.nodata
    same_type = np.dtype(source.dtypes[asset.index - 1]) == layer.target.dtype
    values = layer.target if same_type else np.zeros(layer.target.shape, source.dtypes[asset.index - 1])
    if aligned:
        _read_aligned(source, asset.index, geobox, values)
        how = f"{pixel:g} m {'copied' if _is_copy(source, geobox) else 'nearest'}"
    else:
        method = "average" if _is_coarser(source, geobox, name) else method
        _read_warped(source, asset.index, geobox, method, nodata=nodata or 0, values=values)
        how = f"{pixel:g} m warped from {source.crs.to_string()}, {method}"
    if nodata not in (None, 0):
        values[values == nodata] = 0
    if not same_type:
        np.copyto(layer.target, values, casting="unsafe")
    return how


def _is_copy(source: rasterio.DatasetReader, geobox: GeoBox) -> bool:
    """Return whether the pixels of the file are pixels of the tile."""
    pixel = source.transform.a
    shift = ((source.transform.c - geobox.affine.c) / pixel, (source.transform.f - geobox.affine.f) / pixel)
    return pixel == geobox.resolution.x and all(abs(part - round(part)) < 1e-6 for part in shift)


def _is_coarser(source: rasterio.DatasetReader, geobox: GeoBox, name: str) -> bool:
    return name != "mask" and source.crs.is_projected and geobox.resolution.x > 1.5 * abs(source.transform.a)


def _read_aligned(source: rasterio.DatasetReader, index: int, geobox: GeoBox, values: np.ndarray) -> None:
    """Put the file's own values under the centre of each pixel of `geobox`; what lies outside the file is left."""
    rows = _file_indices(geobox.affine.f, geobox.affine.e, geobox.shape[0], source.transform.f, source.transform.e)
    columns = _file_indices(geobox.affine.c, geobox.affine.a, geobox.shape[1], source.transform.c, source.transform.a)
    inside_rows = np.flatnonzero((rows >= 0) & (rows < source.height))
    inside_columns = np.flatnonzero((columns >= 0) & (columns < source.width))
    if inside_rows.size == 0 or inside_columns.size == 0:
        return
    top, left = rows[inside_rows[0]], columns[inside_columns[0]]
    bottom, right = rows[inside_rows[-1]] + 1, columns[inside_columns[-1]] + 1
    target = values[inside_rows[0] : inside_rows[-1] + 1, inside_columns[0] : inside_columns[-1] + 1]
    window = ((top, bottom), (left, right))
    # rasterio itself: opening through rioxarray takes 6 ms of interpreter time a file, as long as decoding it
    if target.shape == (bottom - top, right - left):
        source.read(index, window=window, out=target)
        return
    # columns first, while there are few rows: whole rows are then copied at memory speed
    part = np.take(source.read(index, window=window), columns[inside_columns] - left, axis=1)
    target[...] = np.take(part, rows[inside_rows] - top, axis=0)


def _file_indices(origin: float, step: float, count: int, file_origin: float, file_step: float) -> np.ndarray:
    centres = origin + step * (np.arange(count) + 0.5)
    return np.floor((centres - file_origin) / file_step + 1e-9).astype(np.int64)


def _read_warped(
    source: rasterio.DatasetReader, index: int, geobox: GeoBox, method: str, *, nodata: float, values: np.ndarray
) -> None:
    options: dict[str, Any] = {
        "crs": str(geobox.crs),
        "transform": geobox.affine,
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "resampling": Resampling[method],
        "src_nodata": nodata,
        "nodata": nodata,
    }
    with WarpedVRT(source, **options) as warped:
        warped.read(index, out=values)


def _file_name(href: str) -> str:
    return href.split("?", 1)[0].rsplit("/", 1)[-1]
