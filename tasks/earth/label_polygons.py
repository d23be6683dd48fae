"""Labels from polygons: read and checked once, drawn onto any grid."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS
from tasks.earth.label_rules import Drawn, KnownClasses, LabelRules, Reason, require_plausible
from tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from pandas import Series

log = logging.getLogger(__name__)

_DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class PolygonLabels:
    """Labels from polygons.

    Parameters
    ----------
    path : str
        Where they come from.
    frame : GeoDataFrame
        Column ``value`` holds class values, `NO_CLASS` where nothing is known; ``reason`` says why.
    outside : int
        Class value of what lies outside, or `NO_CLASS`.
    min_area_ha, min_width_m : float
        The mapping unit.
    """

    path: str
    frame: GeoDataFrame
    outside: int
    min_area_ha: float = 0.0
    min_width_m: float = 0.0

    blank = None
    """The edge of what is unknown is a boundary as any other."""

    def drawn(self, geobox: GeoBox) -> Drawn:
        """Return what the polygons say of a grid."""
        near = self._near(geobox)
        small = self._below_unit(near[near["reason"] == Reason.KNOWN])
        return _burned(near, small, geobox, self.outside)

    def require_overlap(self, geoboxes: Sequence[GeoBox]) -> None:
        """Raise `ConfigurationError` where no polygon touches any of the grids."""
        if all(self._near(geobox).empty for geobox in geoboxes):
            area = [round(x, 4) for x in geoboxes[0].extent.to_crs("EPSG:4326").boundingbox.bbox]
            held = [round(float(x), 4) for x in self.frame.to_crs("EPSG:4326").total_bounds]
            raise ConfigurationError(
                f"{self.path}: no polygon lies in the area: labels span {held}, the area {area} (longitude, latitude)"
            )

    def counts(self, geobox: GeoBox) -> dict[int, int]:
        """Return how many polygons of each class value touch a grid, `NO_CLASS` for those of which nothing is known."""
        return {int(value): int(count) for value, count in self._near(geobox, more=0)["value"].value_counts().items()}

    def _near(self, geobox: GeoBox, more: int = 8) -> GeoDataFrame:
        # a few pixels more: the grid's straight edges bend in the CRS of the polygons
        extent = geobox.pad(more).extent.to_crs(str(self.frame.crs)).geom
        near = self.frame.iloc[self.frame.sindex.query(extent, predicate="intersects")]
        return near.to_crs(str(geobox.crs))

    def _below_unit(self, known: GeoDataFrame) -> list[Any]:
        """Return shapes that are smaller or narrower than the mapping unit."""
        parts = known.geometry.explode(ignore_index=True)
        small = parts[parts.area < self.min_area_ha * 1e4]
        shapes = list(small)
        if self.min_width_m > 0:
            half = self.min_width_m / 2
            # an opening with mitred corners gives a rectangle back as it was
            opened = parts.buffer(-half, join_style="mitre").buffer(half, join_style="mitre")
            narrow = parts.difference(opened)
            shapes += [shape for shape in narrow if not shape.is_empty]
        return shapes


def read_labelled(path: str, known: KnownClasses, rules: LabelRules) -> PolygonLabels:
    """Return the labels of a file of polygons.

    Raises
    ------
    ConfigurationError
        Where it cannot be read, has no CRS or one that cannot be, lacks a field, or holds values that are no class.
    """
    import geopandas

    frame = read_polygons(path)
    _require_field(path, frame, rules.class_field)
    unlabelled = frame[rules.class_field].isna()
    found = sorted(frame.loc[~unlabelled, rules.class_field].unique(), key=str)
    table = known.lookup(found, unmapped=rules.unmapped, what=f"field {rules.class_field!r}")
    values = frame[rules.class_field].map(table).fillna(NO_CLASS).astype(np.uint8)
    reason = np.where(values == NO_CLASS, Reason.IGNORED_VALUE, Reason.KNOWN)
    if rules.date_field is not None:
        of_date = _holds_on_date(path, frame, rules)
        reason = np.where((values != NO_CLASS) & ~of_date, Reason.DATE, reason)
        values = values.where(of_date, NO_CLASS)
    kept = geopandas.GeoDataFrame({"value": values, "reason": reason}, geometry=frame.geometry, crs=frame.crs)
    return PolygonLabels(path, kept, known.outside, rules.min_area_ha, rules.min_width_m)


def read_polygons(path: str) -> GeoDataFrame:
    """Return the valid, non-empty polygons of a file.

    Raises
    ------
    ConfigurationError
        Where it cannot be read, has no CRS or one that cannot be, or holds anything but polygons.
    """
    import geopandas

    try:
        frame = geopandas.read_file(path)
    except (OSError, RuntimeError, ValueError) as error:  # by driver; pyogrio's own are RuntimeErrors
        raise ConfigurationError(f"{path}: not readable as polygons ({error})") from error
    if "geometry" not in frame or not hasattr(frame, "crs"):
        raise ConfigurationError(f"{path}: holds no geometries")
    if frame.crs is None:
        raise ConfigurationError(f"{path}: has no CRS; save it with one (a Shapefile needs its .prj beside it)")
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    kinds = set(frame.geometry.geom_type) - {"Polygon", "MultiPolygon"}
    if kinds:
        raise ConfigurationError(f"{path}: labels must be polygons, not {', '.join(sorted(kinds))}")
    if frame.empty:
        raise ConfigurationError(f"{path}: holds no polygon")
    require_plausible(path, frame.crs, frame.total_bounds)
    return frame.set_geometry(frame.geometry.make_valid())


def inside(frame: GeoDataFrame, geobox: GeoBox) -> np.ndarray:
    """Return which pixels of a grid have their centre in a polygon, (y, x) bool."""
    extent = geobox.pad(8).extent.to_crs(str(frame.crs)).geom
    near = frame.iloc[frame.sindex.query(extent, predicate="intersects")]
    return _inside(list(near.geometry.to_crs(str(geobox.crs))), geobox)


def _require_field(path: str, frame: GeoDataFrame, name: str) -> None:
    if name not in frame.columns:
        fields = ", ".join(column for column in frame.columns if column != "geometry")
        raise ConfigurationError(f"{path}: no field {name!r}; it has {fields or 'none'}")


def _holds_on_date(path: str, frame: GeoDataFrame, rules: LabelRules) -> Series:
    """Return which polygons are neither newer than the label date nor too old for it."""
    assert rules.date_field is not None
    assert rules.date is not None
    _require_field(path, frame, rules.date_field)
    day = np.datetime64(rules.date, "D")
    first, last = _span(path, frame[rules.date_field], rules.date_field)
    holds = first.isna() | (first <= day)
    if rules.max_age_years is not None:
        oldest = day - np.timedelta64(round(rules.max_age_years * _DAYS_PER_YEAR), "D")
        holds &= last.isna() | (last >= oldest)
    return holds


def _span(path: str, given: Series, name: str) -> tuple[Series, Series]:
    """Return the first and last day that each entry may mean: a year is all its days."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(given):
        days = given.dt.tz_localize(None).dt.normalize()
        return days, days
    text = given.astype("string").str.strip().str.replace(r"\.0$", "", regex=True).replace("", pd.NA)
    is_year = text.str.fullmatch(r"(19|20)\d\d").fillna(False)
    first = pd.to_datetime(text.where(~is_year, text + "-01-01"), errors="coerce", format="ISO8601")
    last = pd.to_datetime(text.where(~is_year, text + "-12-31"), errors="coerce", format="ISO8601")
    wrong = text[first.isna() & text.notna()]
    if len(wrong):
        shown = ", ".join(sorted(set(wrong))[:3])
        raise ConfigurationError(f"{path}: field {name!r} holds {shown}; wanted are years or dates, YYYY-MM-DD")
    return first.dt.tz_localize(None), last.dt.tz_localize(None)


def _burned(near: GeoDataFrame, small: Sequence[Any], geobox: GeoBox, outside: int) -> Drawn:
    rows, columns = (int(size) for size in geobox.shape)
    classes = np.full((rows, columns), outside, np.uint8)
    reason = np.full((rows, columns), Reason.OUTSIDE if outside == NO_CLASS else Reason.KNOWN, np.uint8)
    claims = np.zeros((rows, columns), np.uint8)
    unknown = near["reason"] != Reason.KNOWN
    for value, polygons in near[~unknown].groupby("value"):
        within = _inside(list(polygons.geometry), geobox)
        classes[within], reason[within] = value, Reason.KNOWN
        claims += within
    if small:
        reason[_inside(small, geobox) & (claims > 0)] = Reason.BELOW_UNIT
    if (claims > 1).any():
        log.info("%d pixels lie in polygons of different classes and are left out", int((claims > 1).sum()))
        reason[claims > 1] = Reason.OVERLAP
    for why, polygons in near[unknown].groupby("reason"):
        reason[_inside(list(polygons.geometry), geobox)] = why
    says_nothing = (reason != Reason.KNOWN) & (reason != Reason.BELOW_UNIT)
    return Drawn(np.where(says_nothing, np.uint8(NO_CLASS), classes), reason)


def _inside(shapes: Sequence[Any], geobox: GeoBox) -> np.ndarray:
    from rasterio.features import rasterize

    rows, columns = (int(size) for size in geobox.shape)
    if not shapes:
        return np.zeros((rows, columns), bool)
    burned = rasterize(shapes, out_shape=(rows, columns), transform=geobox.affine, dtype="uint8", all_touched=False)
    return np.asarray(burned, bool)
