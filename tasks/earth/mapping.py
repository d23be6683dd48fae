"""Map an area from a classifier, region by region: what to read, what to predict, what goes into staging."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.xr import xr_reproject
from rasterio.features import rasterize

from storage.classes import NO_CLASS, LandClass
from storage.cube import CubeState, SeriesBlock, read_block, read_state
from storage.errors import NotFound
from storage.location import Location, resolve
from storage.regions import Region, cut_regions, region_key
from storage.schema import CHUNK, REFLECTANCE_SCALE
from tasks.earth.grid import Tile, tiles_of
from tasks.errors import ConfigurationError

PROBABILITY_SCALE = 10_000
NO_PROBABILITY = 65535
NO_COUNT = 65535
_PIXELS_AT_ONCE = 16_384


class Classifier(Protocol):
    """What mapping asks of a model."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Return the bands that it was trained on."""
        ...

    def probabilities(
        self, reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, *, jobs: int = 1
    ) -> np.ndarray:
        """Return class probabilities (pixel, class) from (time, band, pixel) reflectance with NaN, and valid looks."""
        ...


@dataclass(frozen=True)
class CubePart:
    """One cube that a map reads, frozen at a snapshot."""

    tile: Tile
    snapshot: str

    @property
    def path(self) -> str:
        """Return where the cube lies under the warehouse."""
        return self.tile.path


@dataclass(frozen=True)
class MapPlan:
    """Which cubes are read, and the grid that is filled.

    Parameters
    ----------
    warehouse : str
        URL.
    cubes : tuple of CubePart
        In the order in which they fill a pixel: the map's own CRS first.
    staging : GeoBox
        Whole 256-pixel blocks of the grid around the area.
    product : GeoBox
        The area's pixels.
    area : dict
        GeoJSON geometry, EPSG:4326; pixels outside are not mapped.
    bands : tuple of str
        Of the cubes.
    until : datetime64[D] or None
        Later looks are left out.
    allow_unmasked : bool
        Whether looks without a mask count.
    """

    warehouse: str
    cubes: tuple[CubePart, ...]
    staging: GeoBox
    product: GeoBox
    area: dict[str, Any]
    bands: tuple[str, ...]
    until: np.datetime64 | None
    allow_unmasked: bool = False

    @property
    def root(self) -> Location:
        """Return the warehouse."""
        return resolve(self.warehouse)

    @property
    def regions(self) -> list[Region]:
        """Return the regions of the staging grid that the area touches."""
        return [region for region in cut_regions(_shape(self.staging), CHUNK) if self.inside(region).any()]

    @cached_property
    def _projected(self) -> Any:
        return Geometry(self.area, "EPSG:4326").to_crs(str(self.staging.crs), resolution=0.01).geom

    def inside(self, region: Region) -> np.ndarray:
        """Return which pixels of a region have their centre in the area: (y, x) bool."""
        geobox = self.staging[region["y"], region["x"]]
        burned = rasterize([self._projected], out_shape=_shape(geobox), transform=geobox.affine, dtype="uint8")
        return np.asarray(burned, dtype=bool)

    def read(self, cube: CubePart, window: Region) -> SeriesBlock:
        """Return the looks at a part of one cube."""
        return read_block(
            self.root / cube.path,
            window,
            snapshot=cube.snapshot,
            until=self.until,
            allow_unmasked=self.allow_unmasked,
        )

    def states(self) -> dict[str, CubeState]:
        """Return what the cubes held when the map was planned."""
        return {cube.path: read_state(self.root / cube.path, cube.snapshot) for cube in self.cubes}


def plan_map(
    warehouse: str,
    area: dict[str, Any],
    *,
    crs: str | None = None,
    resolution: float = 10.0,
    until: np.datetime64 | None = None,
    allow_unmasked: bool = False,
) -> MapPlan:
    """Return what a map of an area reads and fills.

    An area that crosses UTM zones is mapped in the zone that holds most of it; cubes of the other zones are classified
    on their own grid and laid into it by nearest neighbour, where the main zone has no look.

    Raises
    ------
    ConfigurationError
        Where no cube holds any of the area, or their bands differ.
    """
    root = resolve(warehouse)
    found: list[tuple[CubePart, CubeState]] = []
    for tile in tiles_of(area, crs=crs, resolution=resolution):
        try:
            state = read_state(root / tile.path)
        except NotFound:
            continue
        found.append((CubePart(tile, state.snapshot), state))
    if not found:
        raise ConfigurationError(f"{root}: no cube holds any of the area; run `canopus ingest` for it first")
    bands = {state.schema.bands for _, state in found}
    if len(bands) > 1:
        raise ConfigurationError(f"{root}: the area's cubes hold different bands {sorted(bands)}")
    main = _main_crs([cube for cube, _ in found])
    cubes = sorted((cube for cube, _ in found), key=lambda cube: (str(cube.tile.geobox.crs) != main, cube.path))
    staging, product = _grids(area, cubes[0].tile.geobox, main)
    return MapPlan(warehouse, tuple(cubes), staging, product, area, bands.pop(), until, allow_unmasked)


def map_region(
    plan: MapPlan, classifier: Classifier, classes: Sequence[LandClass], region: Region
) -> dict[str, np.ndarray]:
    """Return the layers of one region as they are staged.

    Returns
    -------
    dict of str to ndarray
        ``class (y, x)`` uint8, ``probability (class, y, x)`` uint16, ``clear_count (y, x)`` uint16,
        ``last_clear_date (y, x)`` uint16, days since 1970-01-01.
    """
    geobox = plan.staging[region["y"], region["x"]]
    layers = _empty_layers(_shape(geobox), classes)
    for cube in plan.cubes:
        part = _map_from_cube(plan, cube, classifier, classes, geobox)
        if part is not None:
            _lay_under(layers, part)
    _blank(layers, ~plan.inside(region))
    return layers


def classify_block(block: SeriesBlock, classifier: Classifier, classes: Sequence[LandClass]) -> dict[str, np.ndarray]:
    """Return the layers of a block of series, pixels without a valid look as no data."""
    times, bands, rows, columns = block.reflectance.shape
    layers = _empty_layers((rows, columns), classes)
    if times == 0:
        return layers
    valid = block.valid.reshape(times, -1)
    counts = valid.sum(axis=0)
    chosen = np.flatnonzero(counts)
    probability = layers["probability"].reshape(len(classes), -1)
    reflectance = block.reflectance.reshape(times, bands, -1)
    dates = block.times.astype("datetime64[D]")
    for start in range(0, chosen.size, _PIXELS_AT_ONCE):
        pixels = chosen[start : start + _PIXELS_AT_ONCE]
        found = classifier.probabilities(
            to_physical(reflectance[:, :, pixels]), valid[:, pixels], dates, jobs=os.cpu_count() or 1
        )
        probability[:, pixels] = np.round(found.T * PROBABILITY_SCALE).astype(np.uint16)
    values = np.array([land_class.value for land_class in classes], dtype=np.uint8)
    layers["class"].reshape(-1)[chosen] = values[probability[:, chosen].argmax(axis=0)]
    layers["clear_count"][...] = np.minimum(counts, NO_COUNT - 1).reshape(rows, columns)
    days = dates.astype("int64")[:, None]
    layers["last_clear_date"][...] = np.where(valid, days, 0).max(axis=0).reshape(rows, columns)
    return layers


def to_physical(stored: np.ndarray) -> np.ndarray:
    """Return reflectance 0-1 as float32, NaN where there is no data."""
    values = stored.astype(np.float32) * np.float32(REFLECTANCE_SCALE)
    values[stored == 0] = np.nan
    return values


def regions_by_tile(plan: MapPlan, done: Iterable[str]) -> Iterator[tuple[str, list[Region]]]:
    """Yield what is left to do, grouped by cells of 1024 pixels: the unit of a task."""
    finished = set(done)
    groups: dict[str, list[Region]] = {}
    for region in plan.regions:
        if region_key(region) not in finished:
            name = f"y{region['y'].start // 1024:02d}x{region['x'].start // 1024:02d}"
            groups.setdefault(name, []).append(region)
    yield from groups.items()


def _shape(geobox: GeoBox) -> tuple[int, int]:
    rows, columns = geobox.shape
    return int(rows), int(columns)


def _main_crs(cubes: list[CubePart]) -> str:
    pixels: dict[str, int] = {}
    for cube in cubes:
        top, bottom, left, right = cube.tile.window
        name = str(cube.tile.geobox.crs)
        pixels[name] = pixels.get(name, 0) + (bottom - top) * (right - left)
    return max(sorted(pixels), key=lambda name: pixels[name])


def _grids(area: dict[str, Any], anchor: GeoBox, crs: str) -> tuple[GeoBox, GeoBox]:
    """Return the whole blocks around the area, and its pixels, on the grid of `anchor`."""
    bounds = Geometry(area, "EPSG:4326").to_crs(crs, resolution=0.01).boundingbox
    pixel = float(anchor.resolution.x)
    product = _snapped(bounds, pixel, anchor)
    return _snapped(bounds, pixel * CHUNK, anchor), product


def _snapped(bounds: Any, step: float, anchor: GeoBox) -> GeoBox:
    pixel = float(anchor.resolution.x)
    slack = pixel * 1e-3
    left = np.floor((bounds.left + slack - anchor.affine.c) / step) * step + anchor.affine.c
    right = np.ceil((bounds.right - slack - anchor.affine.c) / step) * step + anchor.affine.c
    top = np.ceil((bounds.top - slack - anchor.affine.f) / step) * step + anchor.affine.f
    bottom = np.floor((bounds.bottom + slack - anchor.affine.f) / step) * step + anchor.affine.f
    size = (max(1, round((top - bottom) / pixel)), max(1, round((right - left) / pixel)))
    return GeoBox(size, Affine(pixel, 0, left, 0, -pixel, top), anchor.crs)


def _empty_layers(size: tuple[int, int], classes: Sequence[LandClass]) -> dict[str, np.ndarray]:
    return {
        "class": np.full(size, NO_CLASS, dtype=np.uint8),
        "probability": np.full((len(classes), *size), NO_PROBABILITY, dtype=np.uint16),
        "clear_count": np.zeros(size, dtype=np.uint16),
        "last_clear_date": np.zeros(size, dtype=np.uint16),
    }


def _blank(layers: dict[str, np.ndarray], outside: np.ndarray) -> None:
    layers["class"][outside] = NO_CLASS
    layers["probability"][:, outside] = NO_PROBABILITY
    layers["clear_count"][outside] = NO_COUNT
    layers["last_clear_date"][outside] = 0


def _lay_under(layers: dict[str, np.ndarray], part: dict[str, np.ndarray]) -> None:
    """Fill pixels that have no look yet; each comes whole from one cube."""
    take = (layers["clear_count"] == 0) & (part["clear_count"] > 0)
    for name, values in part.items():
        layers[name][..., take] = values[..., take]


def _map_from_cube(
    plan: MapPlan, cube: CubePart, classifier: Classifier, classes: Sequence[LandClass], geobox: GeoBox
) -> dict[str, np.ndarray] | None:
    same_crs = cube.tile.geobox.crs == geobox.crs
    source = geobox if same_crs else geobox.to_crs(str(cube.tile.geobox.crs)).pad(2)
    window = overlap(cube.tile.geobox, source)
    if window is None:
        return None
    block = plan.read(cube, window)
    layers = classify_block(block, classifier, classes)
    return _onto(layers, cube.tile.geobox[window["y"], window["x"]], geobox, classes)


def overlap(tile: GeoBox, part: GeoBox) -> Region | None:
    """Return the rows and columns of a tile that another grid covers, None where it covers none."""
    box = tile.project(part.extent if part.crs == tile.crs else part.extent.to_crs(str(tile.crs))).boundingbox
    rows = slice(max(0, round(box.bottom)), min(tile.shape[0], round(box.top)))
    columns = slice(max(0, round(box.left)), min(tile.shape[1], round(box.right)))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return {"y": rows, "x": columns}


def _onto(
    layers: dict[str, np.ndarray], source: GeoBox, target: GeoBox, classes: Sequence[LandClass]
) -> dict[str, np.ndarray]:
    if source == target:
        return layers
    moved = _empty_layers(_shape(target), classes)
    if source.crs == target.crs:
        row = round((source.affine.f - target.affine.f) / target.affine.e)
        column = round((source.affine.c - target.affine.c) / target.affine.a)
        rows, columns = _shape(source)
        for name, values in layers.items():
            moved[name][..., row : row + rows, column : column + columns] = values
        return moved
    for name, values in layers.items():
        moved[name] = _reproject(values, source, target, fill=int(moved[name].flat[0]))
    return moved


def _reproject(values: np.ndarray, source: GeoBox, target: GeoBox, *, fill: int) -> np.ndarray:
    from odc.geo.xr import wrap_xr

    planes = values if values.ndim == 3 else values[None]
    warped = [
        np.asarray(xr_reproject(wrap_xr(plane, source, nodata=fill), target, resampling="nearest", dst_nodata=fill))
        for plane in planes
    ]
    return np.stack(warped) if values.ndim == 3 else warped[0]
