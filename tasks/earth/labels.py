"""Labels on the pixel grid, from polygons or from a raster.

Rules: a pixel belongs to a polygon when its centre does. Where polygons of different classes overlap, nothing is
known, nor in polygons or patches below the mapping unit, nor in ignore areas. Within `margin` pixels of a boundary
between classes nothing is known either, because such pixels are mixed and polygons are rarely drawn to the pixel; the
edge of a raster, and its no-data, are no boundary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS, LandClass
from tasks.earth.label_polygons import PolygonLabels, inside, read_labelled, read_polygons
from tasks.earth.label_rasters import RasterLabels, read_raster
from tasks.earth.label_rules import Drawn, KnownClasses, LabelRules, Reason
from tasks.earth.label_splits import is_mixed
from tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

_VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".zip")


class LabelSource(Protocol):
    """Somewhere that knows the class of pixels."""

    def on(self, geobox: GeoBox) -> np.ndarray:
        """Return class values (y, x) uint8, `NO_CLASS` where nothing is known; any cut of a grid gives the same."""
        ...

    def require_overlap(self, geoboxes: Sequence[GeoBox]) -> None:
        """Raise `ConfigurationError` where none of the grids holds a label."""
        ...


@dataclass(frozen=True)
class Labels:
    """A file of labels, read by its rules.

    Parameters
    ----------
    source : PolygonLabels or RasterLabels
        What the file says.
    rules : LabelRules
        As given.
    ignored : GeoDataFrame, optional
        Polygons in which nothing is known.
    """

    source: PolygonLabels | RasterLabels
    rules: LabelRules
    ignored: GeoDataFrame | None = None

    def on(self, geobox: GeoBox) -> np.ndarray:
        """Return class values (y, x) uint8, `NO_CLASS` where nothing is known; any cut of a grid gives the same."""
        return self.explained(geobox).classes

    def explained(self, geobox: GeoBox) -> Drawn:
        """Return class values as `on` does, and why nothing is known of the other pixels."""
        margin = self.rules.margin
        drawn = self.source.drawn(geobox.pad(margin) if margin else geobox)
        mixed = is_mixed(drawn.classes, margin, blank=self.source.blank)
        rows, columns = drawn.classes.shape
        cut = slice(margin, rows - margin), slice(margin, columns - margin)
        reason = drawn.reason[cut].copy()
        reason[mixed[cut] & (reason == Reason.KNOWN)] = Reason.MARGIN
        if self.ignored is not None:
            reason[inside(self.ignored, geobox)] = Reason.IGNORE_AREA
        return Drawn(np.where(reason == Reason.KNOWN, drawn.classes[cut], np.uint8(NO_CLASS)), reason)

    def require_overlap(self, geoboxes: Sequence[GeoBox]) -> None:
        """Raise `ConfigurationError` where none of the grids holds a label."""
        self.source.require_overlap(geoboxes)


def open_labels(path: str | Path, classes: Sequence[LandClass], rules: LabelRules | None = None) -> Labels:
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
        Where the file, or that of the ignore areas, cannot be read, has no CRS or one that its coordinates cannot be
        of, lacks a field, or holds values that are no class.
    """
    rules = rules or LabelRules()
    known = KnownClasses.of(classes, rules, str(path))
    is_vector = Path(str(path)).suffix.lower() in _VECTOR_SUFFIXES
    source = read_labelled(str(path), known, rules) if is_vector else read_raster(str(path), known, rules)
    return Labels(source, rules, read_polygons(rules.ignore) if rules.ignore else None)


def require_two_classes(values: Iterable[int], classes: Sequence[LandClass]) -> None:
    """Raise `ConfigurationError` where the class values found in an area are fewer than two of the classes."""
    held = set(values)
    found = [one.name for one in classes if one.value in held]
    if len(found) < 2:
        raise ConfigurationError(
            f"the labels in the area hold {', '.join(found) or 'no class'}; two or more are needed"
        )
