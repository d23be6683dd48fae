"""Fill a grid from the cubes of an area, region by region: what to read, what a model says of it, what is staged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.xr import xr_reproject
from rasterio.features import rasterize
from scipy.ndimage import maximum_filter

from storage.classes import NO_CANOPY, LandClass
from storage.cube import CubeState, SeriesBlock, read_block, read_state
from storage.errors import NotFound
from storage.export import Layer
from storage.location import Location, resolve
from storage.regions import Region, cut_regions, region_key
from storage.schema import CHUNK, REFLECTANCE_SCALE
from tasks.earth.grid import Tile, tiles_of
from tasks.earth.layers import CANOPY_PROBABILITY, CLEAR_COUNT, NO_COUNT, NO_DATE, PROBABILITY_SCALE, map_layers
from tasks.errors import ConfigurationError

_PIXELS_AT_ONCE = 16_384

Fill = Callable[[SeriesBlock], dict[str, np.ndarray]]
"""From the looks at a window of a cube to stored values of every layer: (..., y, x)."""


@dataclass(frozen=True)
class AmongNeighbours:
    """A fill in two steps, for what depends on neighbouring pixels: they may lie in another region, and in another cube.

    Parameters
    ----------
    halo : int
        Pixels around a region that are read too.
    layers : tuple of Layer
        What the first step gives; `CLEAR_COUNT` among them.
    each : callable
        The first step, pixel by pixel, from the looks at a window of one cube.
    finish : callable
        The second, from the first's layers over a region and its halo to the product's layers over the region.
    """

    halo: int
    layers: tuple[Layer, ...]
    each: Fill
    finish: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


Filling = Fill | AmongNeighbours
"""How a region comes about."""


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
    first : datetime64[D] or None
        Earlier looks are left out.
    """

    warehouse: str
    cubes: tuple[CubePart, ...]
    staging: GeoBox
    product: GeoBox
    area: dict[str, Any]
    bands: tuple[str, ...]
    until: np.datetime64 | None
    allow_unmasked: bool = False
    first: np.datetime64 | None = None

    @property
    def root(self) -> Location:
        """Return the warehouse."""
        return resolve(self.warehouse)

    @property
    def regions(self) -> list[Region]:
        """Return the regions of the staging grid that the area touches."""
        return [region for region in cut_regions(_shape(self.staging), CHUNK) if self.inside(region).any()]

    @property
    def blank_regions(self) -> list[Region]:
        """Return the regions of the staging grid that the area does not touch."""
        return [region for region in cut_regions(_shape(self.staging), CHUNK) if not self.inside(region).any()]

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
            first=self.first,
            until=self.until,
            allow_unmasked=self.allow_unmasked,
        )

    def reads(self, days: np.ndarray) -> np.ndarray:
        """Return which days the plan reads: bool, of the shape of `days` (datetime64[D])."""
        read = np.ones(days.shape, dtype=bool)
        if self.first is not None:
            read &= days >= self.first
        if self.until is not None:
            read &= days <= self.until
        return read

    def chosen_bands(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """Return the bands that are asked for, in the order of the cubes; all of them for None.

        Raises
        ------
        ConfigurationError
            Where the cubes lack one.
        """
        missing = [band for band in asked or () if band not in self.bands]
        if missing:
            raise ConfigurationError(
                f"--bands: the cubes hold {', '.join(self.bands)}; {', '.join(missing)} is not among them"
            )
        return tuple(band for band in self.bands if asked is None or band in asked)

    def states(self) -> dict[str, CubeState]:
        """Return what the cubes held when the map was planned."""
        return {cube.path: read_state(self.root / cube.path, cube.snapshot) for cube in self.cubes}


class AreaAsked(Protocol):
    """What every request says that reads the cubes of an area."""

    @property
    def warehouse(self) -> str:
        """Return the URL of the warehouse."""
        ...

    @property
    def area(self) -> dict[str, Any]:
        """Return a GeoJSON geometry, EPSG:4326."""
        ...

    @property
    def crs(self) -> str | None:
        """Return the CRS of the grid; None for the UTM zone."""
        ...

    @property
    def resolution(self) -> float:
        """Return metres."""
        ...

    @property
    def allow_unmasked(self) -> bool:
        """Return whether looks without a mask count."""
        ...


def plan_for(asked: AreaAsked, *, until: str | None = None) -> MapPlan:
    """Return what a request reads, as `plan_map` does; looks after a day (``YYYY-MM-DD``) are left out.

    Raises
    ------
    ConfigurationError
        As `plan_map`.
    """
    return plan_map(
        asked.warehouse,
        asked.area,
        crs=asked.crs,
        resolution=asked.resolution,
        until=np.datetime64(until, "D") if until else None,
        allow_unmasked=asked.allow_unmasked,
    )


def windowed(plan: MapPlan, days: int | None) -> MapPlan:
    """Return a plan that reads only looks of so many days up to its last, or up to the newest look; all for None.

    Raises
    ------
    ConfigurationError
        Where the cubes hold no look.
    """
    if days is None:
        return plan
    held = [state.times.astype("datetime64[D]") for state in plan.states().values() if len(state.times)]
    if not held:
        raise ConfigurationError(f"{plan.warehouse}: the area's cubes hold no look; run `canopus ingest` for it first")
    last = plan.until if plan.until is not None else np.concatenate(held).max()
    return replace(plan, first=last - np.timedelta64(days - 1, "D"))


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
    tiles = tiles_of(area, crs=crs, resolution=resolution)
    for tile in tiles:
        try:
            state = read_state(root / tile.path)
        except NotFound:
            continue
        found.append((CubePart(tile, state.snapshot), state))
    if not found:
        others = _other_grids(root, {tile.path.split("/")[1] for tile in tiles})
        raise ConfigurationError(f"{root}: no cube {_of_grid(crs)} holds any of the area; {others}")
    bands = {state.schema.bands for _, state in found}
    if len(bands) > 1:
        raise ConfigurationError(f"{root}: the area's cubes hold different bands {sorted(bands)}")
    main = _main_crs([cube for cube, _ in found])
    cubes = sorted((cube for cube, _ in found), key=lambda cube: (str(cube.tile.geobox.crs) != main, cube.path))
    staging, product = _grids(area, cubes[0].tile.geobox, main)
    return MapPlan(warehouse, tuple(cubes), staging, product, area, bands.pop(), until, allow_unmasked)


def plan_grid(area: dict[str, Any], *, crs: str | None = None, resolution: float = 10.0) -> MapPlan:
    """Return the grids of an area whether there are cubes of it or not; there is nothing to read in the plan.

    Raises
    ------
    ConfigurationError
        Where the CRS is unknown or not in metres.
    """
    parts = [CubePart(tile, "") for tile in tiles_of(area, crs=crs, resolution=resolution)]
    main = _main_crs(parts)
    anchor = next(part.tile.geobox for part in parts if str(part.tile.geobox.crs) == main)
    return MapPlan("", (), *_grids(area, anchor, main), area, (), None)


def _of_grid(crs: str | None) -> str:
    return "of a UTM zone" if crs is None else f"in {crs}"


def _other_grids(root: Location, asked: set[str]) -> str:
    grids = [name for name in (root / "earth").list_folders() if name not in asked]
    listed = f"there are cubes of {', '.join(grids)}: name their grid with --crs, or " if grids else ""
    return f"{listed}run `canopus ingest` for it first"


def fill_region(plan: MapPlan, region: Region, layers: tuple[Layer, ...], fill: Filling) -> dict[str, np.ndarray]:
    """Return the layers of one region as they are staged.

    Parameters
    ----------
    plan : MapPlan
        Cubes and grid.
    region : dict of str to slice
        Of the staging grid.
    layers : tuple of Layer
        ``clear_count`` among them: each pixel comes whole from the first cube that has a look at it.
    fill : callable or AmongNeighbours
        Given the looks at a window of one cube.

    Returns
    -------
    dict of str to ndarray
        Stored values (..., y, x) per layer; outside the area the fill value.
    """
    geobox = plan.staging[region["y"], region["x"]]
    inside = plan.inside(region)
    if isinstance(fill, AmongNeighbours):
        found = fill.finish(gather_region(plan, region, fill))
    else:
        found = _gathered(plan, geobox, layers, fill, inside)
    for layer in layers:
        found[layer.name][..., ~inside] = layer.nodata
    return found


def gather_region(plan: MapPlan, region: Region, fill: AmongNeighbours) -> dict[str, np.ndarray]:
    """Return what the first step of a fill gives over a region and its halo."""
    geobox = plan.staging[region["y"], region["x"]]
    wide = geobox.pad(fill.halo) if fill.halo else geobox
    # what a pixel of the area reads of its neighbours does not depend on where regions are cut
    wanted = maximum_filter(np.pad(plan.inside(region), fill.halo), size=2 * fill.halo + 1)
    return _gathered(plan, wide, fill.layers, fill.each, wanted)


def _gathered(
    plan: MapPlan, geobox: GeoBox, layers: tuple[Layer, ...], fill: Fill, wanted: np.ndarray
) -> dict[str, np.ndarray]:
    """Return layers on a grid, cube after cube until every wanted pixel has a look."""
    found = empty_layers(layers, _shape(geobox))
    for cube in plan.cubes:
        if (found[CLEAR_COUNT][wanted] > 0).all():
            break
        part = _fill_from_cube(plan, cube, geobox, layers, fill=fill)
        if part is not None:
            _lay_under(found, part)
    return found


def classify_block(block: SeriesBlock, classifier: Classifier, classes: tuple[LandClass, ...]) -> dict[str, np.ndarray]:
    """Return the layers of a block of series, pixels without a valid look as no data."""
    layers = empty_layers(map_layers(classes), block.valid.shape[1:])
    probability = layers["probability"].reshape(len(classes), -1)
    for looks in looks_at(block, at_once=_PIXELS_AT_ONCE):
        found = classifier.probabilities(looks.reflectance, looks.valid, looks.dates, jobs=os.cpu_count() or 1)
        probability[:, looks.pixels] = np.round(found.T / PROBABILITY_SCALE).astype(np.uint16)
    count_looks(block, layers)
    decide(layers, classes)
    return layers


def decide(layers: dict[str, np.ndarray], classes: tuple[LandClass, ...]) -> None:
    """Fill in the likeliest class, and the probability of all that are canopy together, from the stored probabilities."""
    seen = layers[CLEAR_COUNT] > 0
    probability = layers["probability"][:, seen]
    layers["class"][seen] = np.array([known.value for known in classes], np.uint8)[probability.argmax(axis=0)]
    names = [known.name for known in classes]
    if NO_CANOPY in names:
        whole = round(1 / PROBABILITY_SCALE)
        layers[CANOPY_PROBABILITY][seen] = np.maximum(whole - probability[names.index(NO_CANOPY)].astype(np.int32), 0)


@dataclass(frozen=True)
class Looks:
    """The looks at some pixels of a block, as models take them.

    Parameters
    ----------
    pixels : ndarray, shape (pixel,), int
        Numbers in the block, row by row.
    reflectance : ndarray, shape (time, band, pixel), float32
        0 to 1, NaN where there is no data.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
    """

    pixels: np.ndarray
    reflectance: np.ndarray
    valid: np.ndarray
    dates: np.ndarray


def looks_at(block: SeriesBlock, *, at_once: int, bands: Sequence[int] | None = None) -> Iterator[Looks]:
    """Yield the looks at every pixel of a block that has a valid one, some pixels at a time.

    Parameters
    ----------
    block : SeriesBlock
        Whole.
    at_once : int
        Pixels.
    bands : sequence of int, optional
        Which of the block's bands; by default all.
    """
    times, count = block.reflectance.shape[:2]
    if not times:
        return
    valid = block.valid.reshape(times, -1)
    reflectance = block.reflectance.reshape(times, count, -1)
    dates = block.times.astype("datetime64[D]")
    chosen = np.flatnonzero(valid.any(axis=0))
    kept = list(range(count) if bands is None else bands)
    for start in range(0, chosen.size, at_once):
        pixels = chosen[start : start + at_once]
        yield Looks(pixels, to_physical(reflectance[:, :, pixels][:, kept]), valid[:, pixels], dates)


def count_looks(block: SeriesBlock, layers: dict[str, np.ndarray]) -> None:
    """Fill in how many valid looks each pixel has, and the date of the last."""
    if not len(block.times):
        return
    layers[CLEAR_COUNT][...] = np.minimum(block.valid.sum(axis=0), NO_COUNT - 1)
    days = block.times.astype("datetime64[D]").astype("int64")[:, None, None]
    layers["last_clear_date"][...] = np.where(block.valid, days, NO_DATE).max(axis=0)


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


def empty_layers(layers: tuple[Layer, ...], size: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return layers of pixels (y, x) that lie in the area and have no look."""
    empty = {layer.name: np.full((*layer.leading, *size), layer.nodata, dtype=layer.dtype) for layer in layers}
    empty[CLEAR_COUNT][...] = 0
    return empty


def _lay_under(layers: dict[str, np.ndarray], part: dict[str, np.ndarray]) -> None:
    """Fill pixels that have no look yet; each comes whole from one cube."""
    take = (layers[CLEAR_COUNT] == 0) & (part[CLEAR_COUNT] > 0)
    for name, values in part.items():
        layers[name][..., take] = values[..., take]


def _fill_from_cube(
    plan: MapPlan, cube: CubePart, geobox: GeoBox, layers: tuple[Layer, ...], *, fill: Fill
) -> dict[str, np.ndarray] | None:
    same_crs = cube.tile.geobox.crs == geobox.crs
    source = geobox if same_crs else geobox.to_crs(str(cube.tile.geobox.crs)).pad(2)
    window = overlap(cube.tile.geobox, source)
    if window is None:
        return None
    found = fill(plan.read(cube, window))
    return _onto(found, cube.tile.geobox[window["y"], window["x"]], geobox, layers)


def overlap(tile: GeoBox, part: GeoBox) -> Region | None:
    """Return the rows and columns of a tile that another grid covers, None where it covers none."""
    box = tile.project(part.extent if part.crs == tile.crs else part.extent.to_crs(str(tile.crs))).boundingbox
    rows = slice(max(0, round(box.bottom)), min(tile.shape[0], round(box.top)))
    columns = slice(max(0, round(box.left)), min(tile.shape[1], round(box.right)))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return {"y": rows, "x": columns}


def _onto(
    found: dict[str, np.ndarray], source: GeoBox, target: GeoBox, layers: tuple[Layer, ...]
) -> dict[str, np.ndarray]:
    if source == target:
        return found
    if source.crs == target.crs:
        moved = empty_layers(layers, _shape(target))
        row = round((source.affine.f - target.affine.f) / target.affine.e)
        column = round((source.affine.c - target.affine.c) / target.affine.a)
        rows, columns = _shape(source)
        for name, values in found.items():
            moved[name][..., row : row + rows, column : column + columns] = values
        return moved
    fills = {layer.name: layer.nodata for layer in layers} | {CLEAR_COUNT: 0}
    return {name: _reproject(values, source, target, fill=fills[name]) for name, values in found.items()}


def _reproject(values: np.ndarray, source: GeoBox, target: GeoBox, *, fill: int | float) -> np.ndarray:
    from odc.geo.xr import wrap_xr

    planes = values.reshape(-1, *values.shape[-2:])
    warped = [
        np.asarray(xr_reproject(wrap_xr(plane, source, nodata=fill), target, resampling="nearest", dst_nodata=fill))
        for plane in planes
    ]
    return np.stack(warped).reshape(*values.shape[:-2], *_shape(target))
