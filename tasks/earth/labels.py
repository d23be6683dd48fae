"""Labels on the pixel grid, from polygons or from a raster, and a split of them that keeps neighbours together.

Rules: a pixel belongs to a polygon when its centre does. Where polygons of different classes overlap, nothing is
known. Within `margin` pixels of a boundary between classes nothing is known either, because such pixels are mixed and
polygons are rarely drawn to the pixel; the edge of a raster, and its no-data, are no boundary.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from odc.geo.geobox import GeoBox
from scipy.ndimage import maximum_filter, minimum_filter

from storage.classes import NO_CLASS, LandClass
from tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

log = logging.getLogger(__name__)

IGNORE = "ignore"
NO_FOLD = -1
_VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".zip")
_SHOWN = 8


@dataclass(frozen=True)
class LabelRules:
    """How a file of labels is read.

    Parameters
    ----------
    class_field : str
        Polygons: the attribute that holds the class.
    values : mapping of str to str
        Value in the file to class name, or ``"ignore"``; a value that is a class name, or a class value, needs none.
    at_least : float, optional
        Raster: values from here on are the last class, smaller ones the first.
    outside : str
        Class of what lies outside every polygon, or ``"ignore"``.
    margin : int
        Pixels on either side of a class boundary where nothing is known.
    unmapped : str
        What a value that is no class does: ``"error"`` or ``"ignore"``.
    """

    class_field: str = "class"
    values: Mapping[str, str] = field(default_factory=dict)
    at_least: float | None = None
    outside: str = IGNORE
    margin: int = 1
    unmapped: str = "error"


class LabelSource(Protocol):
    """Somewhere that knows the class of pixels."""

    def on(self, geobox: GeoBox) -> np.ndarray:
        """Return class values (y, x) uint8, `NO_CLASS` where nothing is known; any cut of a grid gives the same."""
        ...

    def require_overlap(self, geoboxes: Sequence[GeoBox]) -> None:
        """Raise `ConfigurationError` where none of the grids holds a label."""
        ...


def open_labels(path: str | Path, classes: Sequence[LandClass], rules: LabelRules | None = None) -> LabelSource:
    """Return the labels in a GeoPackage, GeoJSON, Shapefile or raster.

    Parameters
    ----------
    path : str or path
        Suffixes .gpkg, .geojson, .json, .shp, .fgb and .zip are read as polygons, anything else as a raster.
    classes : sequence of LandClass
        Classes of the map to come.
    rules : LabelRules, optional
        How to read it.

    Raises
    ------
    ConfigurationError
        Where the file cannot be read, has no CRS, lacks the field, or holds values that are no class.
    """
    rules = rules or LabelRules()
    known = _Classes.of(classes, rules, str(path))
    if Path(str(path)).suffix.lower() in _VECTOR_SUFFIXES:
        return PolygonLabels(str(path), _read_polygons(str(path), known, rules), known.outside, rules.margin)
    return _raster_labels(str(path), known, rules)


@dataclass(frozen=True)
class PolygonLabels:
    """Labels from polygons.

    Parameters
    ----------
    path : str
        Where they come from.
    frame : GeoDataFrame
        Column ``value`` holds class values, `NO_CLASS` where the file says that nothing is known.
    outside : int
        Class value of what lies outside, or `NO_CLASS`.
    margin : int
        As in `LabelRules`.
    """

    path: str
    frame: GeoDataFrame
    outside: int
    margin: int

    def on(self, geobox: GeoBox) -> np.ndarray:
        """Return class values (y, x) uint8, `NO_CLASS` where nothing is known."""
        wide = geobox.pad(self.margin) if self.margin else geobox
        labels = _burned(self._near(wide), wide, self.outside)
        return _inner(np.where(_is_mixed(labels, self.margin), np.uint8(NO_CLASS), labels), self.margin)

    def require_overlap(self, geoboxes: Sequence[GeoBox]) -> None:
        """Raise `ConfigurationError` where no polygon touches any of the grids."""
        if all(self._near(geobox).empty for geobox in geoboxes):
            area = [round(x, 4) for x in geoboxes[0].extent.to_crs("EPSG:4326").boundingbox.bbox]
            held = [round(float(x), 4) for x in self.frame.to_crs("EPSG:4326").total_bounds]
            raise ConfigurationError(
                f"{self.path}: no polygon lies in the area: labels span {held}, the area {area} (longitude, latitude)"
            )

    def _near(self, geobox: GeoBox) -> GeoDataFrame:
        # a few pixels more: the grid's straight edges bend in the CRS of the polygons
        extent = geobox.pad(8).extent.to_crs(str(self.frame.crs)).geom
        near = self.frame.iloc[self.frame.sindex.query(extent, predicate="intersects")]
        return near.to_crs(str(geobox.crs))


@dataclass(frozen=True)
class RasterLabels:
    """Labels from the first band of a raster, laid onto a grid by nearest neighbour.

    Parameters
    ----------
    path : str
        Anything that GDAL opens.
    table : mapping of float to int
        Value in the file to class value or `NO_CLASS`; empty with a threshold.
    threshold : tuple of (float, int, int), optional
        Limit, class value below it, class value from it on.
    margin : int
        As in `LabelRules`.
    """

    path: str
    table: Mapping[float, int]
    threshold: tuple[float, int, int] | None
    margin: int

    def on(self, geobox: GeoBox) -> np.ndarray:
        """Return class values (y, x) uint8, `NO_CLASS` where nothing is known."""
        wide = geobox.pad(self.margin) if self.margin else geobox
        labels = self._classed(_warped(self.path, wide))
        mixed = _is_mixed(labels, self.margin, blank=NO_CLASS)
        return _inner(np.where(mixed, np.uint8(NO_CLASS), labels), self.margin)

    def require_overlap(self, geoboxes: Sequence[GeoBox]) -> None:
        """Raise `ConfigurationError` where the grids hold no label, or a threshold leaves one class only."""
        values = [_warped(self.path, geobox) for geobox in geoboxes]
        found = np.concatenate([part[np.isfinite(part)] for part in values])
        if found.size == 0:
            raise ConfigurationError(f"{self.path}: the raster has no value anywhere in the area")
        if self.threshold and len(np.unique(found >= self.threshold[0])) == 1:
            raise ConfigurationError(
                f"{self.path}: all values in the area, {found.min():g} to {found.max():g}, lie on one side of "
                f"{self.threshold[0]:g}; is the threshold in the raster's unit?"
            )

    def _classed(self, values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        labels = np.full(values.shape, NO_CLASS, np.uint8)
        if self.threshold:
            limit, below, above = self.threshold
            labels[known] = np.where(values[known] >= limit, above, below)
            return labels
        for value, label in self.table.items():
            labels[values == value] = label
        return labels


def blocked_folds(shape: tuple[int, int], *, block_size: int, folds: int, seed: int, gap: int = 0) -> np.ndarray:
    """Return a split in which pixels of one block share their fold, so that neighbours do not leak.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the whole grid; cut the result for a region.
    block_size : int
        Pixels on a side of a block; blocks count from the upper left.
    folds : int
        Number of folds; each gets the same number of blocks, give or take one.
    seed : int
        Of the draw.
    gap : int
        Pixels next to a block of another fold that belong to none.

    Returns
    -------
    ndarray, shape (y, x), int8
        0 to folds - 1; -1 in gaps.

    Raises
    ------
    ConfigurationError
        Where there are fewer blocks than folds.
    """
    rows, columns = (-(-size // block_size) for size in shape)
    if rows * columns < folds:
        raise ConfigurationError(
            f"{rows} x {columns} blocks of {block_size} pixels do not make {folds} folds: take smaller blocks"
        )
    of_block = np.arange(rows * columns) % folds
    np.random.default_rng(seed).shuffle(of_block)
    blocks = of_block.reshape(rows, columns).astype(np.int8)
    split = blocks.repeat(block_size, axis=0).repeat(block_size, axis=1)[: shape[0], : shape[1]]
    return np.where(_is_mixed(split, gap), np.int8(NO_FOLD), split)


# --- parts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Classes:
    """Every way in which a file may name a class, and what lies outside."""

    value_of: Mapping[str, int]
    order: tuple[LandClass, ...]
    outside: int
    where: str

    @classmethod
    def of(cls, classes: Sequence[LandClass], rules: LabelRules, where: str) -> _Classes:
        by_name = {known.name: known.value for known in classes} | {IGNORE: NO_CLASS}
        wrong = sorted({name for name in (*rules.values.values(), rules.outside) if name not in by_name})
        if wrong:
            raise ConfigurationError(
                f"{where}: labels are mapped to {', '.join(wrong)}; the classes are {', '.join(by_name)}"
            )
        own = by_name | {str(known.value): known.value for known in classes}
        mapped = {str(value): by_name[name] for value, name in rules.values.items()}
        return cls(own | mapped, tuple(classes), by_name[rules.outside], where)

    def lookup(self, found: Sequence[Any], *, unmapped: str, what: str) -> dict[Any, int]:
        """Return the class value of each value found in the file."""
        unknown = [value for value in found if _text(value) not in self.value_of]
        if unknown and unmapped != IGNORE:
            shown = ", ".join(_text(value) for value in unknown[:_SHOWN]) + (" ..." if len(unknown) > _SHOWN else "")
            raise ConfigurationError(
                f"{self.where}: {what} holds {shown}; known are {', '.join(self.value_of)}. "
                "Map each value to a class or to 'ignore'"
            )
        return {value: self.value_of.get(_text(value), NO_CLASS) for value in found}


def _text(value: Any) -> str:
    """Return a value as a user writes it: 3, not 3.0."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _read_polygons(path: str, known: _Classes, rules: LabelRules) -> GeoDataFrame:
    import geopandas

    try:
        frame = geopandas.read_file(path)
    except (OSError, RuntimeError, ValueError) as error:  # by driver; pyogrio's own are RuntimeErrors
        raise ConfigurationError(f"{path}: not readable as polygons ({error})") from error
    _check_polygons(path, frame, rules)
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    unlabelled = frame[rules.class_field].isna()
    found = sorted(frame.loc[~unlabelled, rules.class_field].unique(), key=str)
    table = known.lookup(found, unmapped=rules.unmapped, what=f"field {rules.class_field!r}")
    values = frame[rules.class_field].map(table).fillna(NO_CLASS).astype(np.uint8)
    return geopandas.GeoDataFrame({"value": values}, geometry=frame.geometry.make_valid(), crs=frame.crs)


def _check_polygons(path: str, frame: Any, rules: LabelRules) -> None:
    if "geometry" not in frame or not hasattr(frame, "crs"):
        raise ConfigurationError(f"{path}: holds no geometries")
    if frame.crs is None:
        raise ConfigurationError(f"{path}: has no CRS; save it with one (a Shapefile needs its .prj beside it)")
    if rules.class_field not in frame.columns:
        fields = ", ".join(column for column in frame.columns if column != "geometry")
        raise ConfigurationError(f"{path}: no field {rules.class_field!r}; it has {fields or 'none'}")
    kinds = set(frame.geometry.dropna().geom_type) - {"Polygon", "MultiPolygon"}
    if kinds:
        raise ConfigurationError(f"{path}: labels must be polygons, not {', '.join(sorted(kinds))}")


def _raster_labels(path: str, known: _Classes, rules: LabelRules) -> RasterLabels:
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path) as source:
            if source.crs is None:
                raise ConfigurationError(f"{path}: has no CRS; assign one, for example with gdal_edit.py -a_srs")
            if rules.at_least is not None:
                limit = (float(rules.at_least), known.order[0].value, known.order[-1].value)
                return RasterLabels(path, {}, limit, rules.margin)
            found = _raster_values(source)
    except RasterioIOError as error:
        raise ConfigurationError(f"{path}: neither a known polygon format nor a readable raster ({error})") from error
    return RasterLabels(path, known.lookup(found, unmapped=rules.unmapped, what="the raster"), None, rules.margin)


def _raster_values(source: Any) -> list[float]:
    """Return every value of the first band, block by block."""
    found: set[float] = set()
    for _, window in source.block_windows(1):
        block = source.read(1, window=window, masked=True)
        found.update(np.unique(block.compressed()).tolist())
        if len(found) > 2**10:
            raise ConfigurationError(
                f"{source.name}: holds more than {2**10} different values, so it is no raster of classes; "
                "give a threshold (at_least)"
            )
    return sorted(value for value in found if np.isfinite(value))


def _warped(path: str, geobox: GeoBox) -> np.ndarray:
    """Return the first band on a grid by nearest neighbour, float64, NaN where there is none."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    rows, columns = geobox.shape
    values = np.full((int(rows), int(columns)), np.nan)
    with rasterio.open(path) as source:
        reproject(
            rasterio.band(source, 1),
            values,
            src_nodata=source.nodata,
            dst_nodata=np.nan,
            dst_transform=geobox.affine,
            dst_crs=str(geobox.crs),
            resampling=Resampling.nearest,
        )
    return values


def _burned(frame: GeoDataFrame, geobox: GeoBox, outside: int) -> np.ndarray:
    from rasterio.features import rasterize

    rows, columns = (int(size) for size in geobox.shape)
    labels = np.full((rows, columns), outside, np.uint8)
    claims = np.zeros((rows, columns), np.uint8)
    for value, polygons in frame.groupby("value"):
        inside = rasterize(
            polygons.geometry, out_shape=(rows, columns), transform=geobox.affine, dtype="uint8", all_touched=False
        ).astype(bool)
        labels[inside] = value
        claims += inside
    if (claims > 1).any():
        log.info("%d pixels lie in polygons of different classes and are left out", int((claims > 1).sum()))
        labels[claims > 1] = NO_CLASS
    return labels


def _is_mixed(labels: np.ndarray, margin: int, *, blank: int | None = None) -> np.ndarray:
    """Return where another value than a pixel's own lies within `margin` pixels; `blank` counts as any value."""
    if margin == 0:
        return np.zeros(labels.shape, bool)
    size = 2 * margin + 1
    if blank is None:
        return np.asarray(minimum_filter(labels, size, mode="nearest") != maximum_filter(labels, size, mode="nearest"))
    signed = labels.astype(np.int16)
    smallest = minimum_filter(np.where(signed == blank, np.int16(1000), signed), size, mode="nearest")
    largest = maximum_filter(np.where(signed == blank, np.int16(-1000), signed), size, mode="nearest")
    return np.asarray((smallest < largest) & (signed != blank))


def _inner(labels: np.ndarray, margin: int) -> np.ndarray:
    rows, columns = labels.shape
    return np.ascontiguousarray(labels[margin : rows - margin, margin : columns - margin])
