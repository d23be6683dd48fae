"""Labels from a raster: checked once, laid onto any grid by nearest neighbour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_opening, label

from storage.classes import NO_CLASS
from tasks.earth.label_rules import Drawn, KnownClasses, LabelRules, Reason, require_plausible
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class RasterLabels:
    """Labels from the first band of a raster.

    Parameters
    ----------
    path : str
        Anything that GDAL opens.
    table : mapping of float to int
        Value in the file to class value or `NO_CLASS`; empty with a threshold.
    threshold : tuple of (float, int, int), optional
        Limit, class value below it, class value from it on.
    min_area_ha, min_width_m : float
        The mapping unit.
    """

    path: str
    table: Mapping[float, int]
    threshold: tuple[float, int, int] | None
    min_area_ha: float = 0.0
    min_width_m: float = 0.0

    blank = NO_CLASS
    """The edge of a raster, and its no-data, are no boundary."""

    def drawn(self, geobox: GeoBox) -> Drawn:
        """Return what the raster says of a grid.

        A patch below the mapping unit cannot reach further than it has pixels, so looking that far around the grid
        makes every cut of it agree.
        """
        pixel = abs(float(geobox.affine.a))
        pixels = math.ceil(self.min_area_ha * 1e4 / pixel**2)
        width = math.ceil(self.min_width_m / pixel)
        reach = max(pixels, width)
        wide = geobox.pad(reach) if reach else geobox
        values = _warped(self.path, wide)
        classes = self._classed(values)
        small = _below_unit(classes, pixels, width)
        reason = np.where(np.isnan(values), Reason.OUTSIDE, Reason.IGNORED_VALUE).astype(np.uint8)
        reason[classes != NO_CLASS] = Reason.KNOWN
        reason[small] = Reason.BELOW_UNIT
        rows, columns = classes.shape
        cut = slice(reach, rows - reach), slice(reach, columns - reach)
        return Drawn(classes[cut], reason[cut])

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

    def counts(self, geobox: GeoBox) -> dict[int, int]:
        """Return nothing: a raster has no polygons."""
        return {}

    def _classed(self, values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        labels = np.full(values.shape, NO_CLASS, np.uint8)
        if self.threshold:
            limit, below, above = self.threshold
            labels[known] = np.where(values[known] >= limit, above, below)
            return labels
        for value, of_class in self.table.items():
            labels[values == value] = of_class
        return labels


def read_raster(path: str, known: KnownClasses, rules: LabelRules) -> RasterLabels:
    """Return the labels of a raster.

    Raises
    ------
    ConfigurationError
        Where it cannot be read, has no CRS or one that cannot be, or holds values that are no class.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    if rules.date_field is not None:
        raise ConfigurationError(
            f"{path}: date_field {rules.date_field} is an attribute of polygons, and this is a raster"
        )
    if rules.at_least is not None and len(known.order) > 2:
        names = ", ".join(land.name for land in known.order)
        raise ConfigurationError(
            f"{path}: at_least cuts a raster in two, and the classes are {names}: take two classes, canopy-or-not"
        )
    unit = rules.min_area_ha, rules.min_width_m
    try:
        with rasterio.open(path) as source:
            if source.crs is None:
                raise ConfigurationError(f"{path}: has no CRS; assign one, for example with gdal_edit.py -a_srs")
            require_plausible(path, source.crs.to_wkt(), source.bounds)
            if rules.at_least is not None:
                limit = (float(rules.at_least), known.order[0].value, known.order[-1].value)
                return RasterLabels(path, {}, limit, *unit)
            found = _raster_values(source)
    except RasterioIOError as error:
        raise ConfigurationError(f"{path}: neither a known polygon format nor a readable raster ({error})") from error
    table = known.lookup(found, unmapped=rules.unmapped, what="the raster")
    return RasterLabels(path, table, None, *unit)


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


def _below_unit(classes: np.ndarray, pixels: int, width: int) -> np.ndarray:
    """Return where the connected patch of a class (by edges) has too few pixels, or an opening takes it away."""
    small = np.zeros(classes.shape, bool)
    for value in np.unique(classes[classes != NO_CLASS]) if pixels > 1 or width > 1 else ():
        own = classes == value
        if pixels > 1:
            patch, count = label(own)
            size = np.bincount(patch.ravel(), minlength=count + 1)
            small |= own & (size[patch] < pixels)
        if width > 1:
            # what is cut off by the edge of the raster is not narrow
            small |= own & ~binary_opening(own | (classes == NO_CLASS), np.ones((width, width), bool))
    return small


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
