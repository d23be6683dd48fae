"""The rules by which a file of labels is read, and what came of each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Day
from enum import IntEnum
from typing import Any

import numpy as np

from storage.classes import CANOPY, CANOPY_CLASSES, NO_CANOPY, NO_CLASS, LandClass
from tasks.errors import ConfigurationError

IGNORE = "ignore"
DEGREES = (360.0, 90.0)
_SHOWN = 8
_SLACK_DEGREES = 6.0
"""What a file may reach beyond its CRS's area of use: one UTM zone."""


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
    ignore : str, optional
        A second file of polygons, in which nothing is known whatever the labels say.
    min_area_ha : float
        The mapping unit: in a polygon (each part as it is drawn) or a connected patch of one class of a raster that is
        smaller, nothing is known; it is not taken for the class around it.
    min_width_m : float
        Likewise where a polygon or patch is narrower: what an opening by this width takes away.
    date : str, optional
        Day that the labels are of, ``YYYY-MM-DD``: training reads looks up to it unless told otherwise.
    date_field : str, optional
        Polygons: the attribute that holds a year or a date. A polygon newer than `date` is not known yet, and unknown;
        one without an entry is of `date`.
    max_age_years : float, optional
        Polygons older than so many years on `date` are unknown: they may have been felled, or have grown, since.
    table : str, optional
        Name of the table that `values` came from, for the record.

    Raises
    ------
    ConfigurationError
        Where dates are asked for that nothing is compared with, or a size is negative.
    """

    class_field: str = "class"
    values: Mapping[str, str] = field(default_factory=dict)
    at_least: float | None = None
    outside: str = IGNORE
    margin: int = 1
    unmapped: str = "error"
    ignore: str | None = None
    min_area_ha: float = 0.0
    min_width_m: float = 0.0
    date: str | None = None
    date_field: str | None = None
    max_age_years: float | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        if self.date_field is not None and self.date is None:
            raise ConfigurationError(f"date_field {self.date_field}: say with date which day the labels are of")
        if self.max_age_years is not None and self.date_field is None:
            raise ConfigurationError(
                "max_age_years: say with date_field which attribute holds a polygon's year or date"
            )
        if min(self.min_area_ha, self.min_width_m, self.margin, self.max_age_years or 0) < 0:
            raise ConfigurationError("margin, min_area_ha, min_width_m and max_age_years cannot be negative")
        if self.date is not None:
            try:
                Day.fromisoformat(self.date)
            except ValueError as error:
                raise ConfigurationError(f"date {self.date}: wanted is YYYY-MM-DD") from error


class Reason(IntEnum):
    """Why nothing is known of a pixel."""

    KNOWN = 0
    OUTSIDE = 1
    """Outside every polygon where that is ``"ignore"``; no data in a raster."""
    IGNORED_VALUE = 2
    """The file's value is mapped to ``"ignore"``, or is empty."""
    DATE = 3
    BELOW_UNIT = 4
    OVERLAP = 5
    MARGIN = 6
    IGNORE_AREA = 7


@dataclass(frozen=True)
class Drawn:
    """What a file says of the pixels of a grid, before margins and ignore areas.

    Parameters
    ----------
    classes : ndarray, shape (y, x), uint8
        Class values as drawn, below the mapping unit too; `NO_CLASS` where the file says nothing.
    reason : ndarray, shape (y, x), uint8
        `Reason`, ``KNOWN`` where the class holds.
    """

    classes: np.ndarray
    reason: np.ndarray


@dataclass(frozen=True)
class KnownClasses:
    """Every way in which a file may name a class, and what lies outside."""

    value_of: Mapping[str, int]
    order: tuple[LandClass, ...]
    outside: int
    where: str

    @classmethod
    def of(cls, classes: Sequence[LandClass], rules: LabelRules, where: str) -> KnownClasses:
        """Return the classes of a map as the rules spell them.

        To classes that know canopy and not its kinds, each kind is canopy: an inventory's table serves both.

        Raises
        ------
        ConfigurationError
            Where a value is mapped to what is no class.
        """
        by_name = _kinds_as_canopy(classes) | {known.name: known.value for known in classes} | {IGNORE: NO_CLASS}
        wrong = sorted({name for name in (*rules.values.values(), rules.outside) if name not in by_name})
        if wrong:
            raise ConfigurationError(
                f"{where}: labels are mapped to {', '.join(wrong)}; the classes are {', '.join(by_name)}"
            )
        own = by_name | {str(known.value): known.value for known in classes}
        mapped = {str(value): by_name[name] for value, name in rules.values.items()}
        return cls(own | mapped, tuple(classes), by_name[rules.outside], where)

    def lookup(self, found: Sequence[Any], *, unmapped: str, what: str) -> dict[Any, int]:
        """Return the class value of each value found in the file.

        Raises
        ------
        ConfigurationError
            Where a value is no class, and `unmapped` is not ``"ignore"``.
        """
        unknown = [value for value in found if _text(value) not in self.value_of]
        if unknown and unmapped != IGNORE:
            shown = ", ".join(_text(value) for value in unknown[:_SHOWN]) + (" ..." if len(unknown) > _SHOWN else "")
            raise ConfigurationError(
                f"{self.where}: {what} holds {shown}; known are {', '.join(self.value_of)}. "
                "Map each value to a class or to 'ignore'"
            )
        return {value: self.value_of.get(_text(value), NO_CLASS) for value in found}


def _kinds_as_canopy(classes: Sequence[LandClass]) -> dict[str, int]:
    kinds = [kind.name for kind in CANOPY_CLASSES if kind.name != NO_CANOPY]
    return {kind: known.value for known in classes if known.name == CANOPY for kind in kinds}


def require_plausible(path: str, crs: Any, bounds: Sequence[float]) -> None:
    """Raise `ConfigurationError` where coordinates cannot be of the CRS that a file states.

    Parameters
    ----------
    path : str
        For the message.
    crs : pyproj.CRS or what makes one
        As stated.
    bounds : sequence of float
        Left, bottom, right, top of everything in the file.
    """
    import pyproj

    stated = pyproj.CRS.from_user_input(crs)
    left, bottom, right, top = (float(edge) for edge in bounds)
    said = f"{path}: coordinates {left:.6g}, {bottom:.6g} to {right:.6g}, {top:.6g} cannot be of its CRS, {stated.name}"
    small = max(abs(left), abs(right)) <= DEGREES[0] and max(abs(bottom), abs(top)) <= DEGREES[1]
    if stated.is_projected and small:
        raise ConfigurationError(f"{said}: they look like degrees; state the CRS that they are in, such as EPSG:4326")
    if stated.is_geographic and not small:
        raise ConfigurationError(f"{said}: they are no degrees; state the CRS that they are in")
    if stated.area_of_use is None:
        return
    to_degrees = pyproj.Transformer.from_crs(stated, "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(left, bottom, right, top)
    used = stated.area_of_use
    apart = (west > used.east + _SLACK_DEGREES or east < used.west - _SLACK_DEGREES) and used.west <= used.east
    apart = apart or south > used.north + _SLACK_DEGREES or north < used.south - _SLACK_DEGREES
    if apart or not np.isfinite([west, south, east, north]).all():
        raise ConfigurationError(f"{said}, which is used in {used.name}; state the CRS that they are in")


def _text(value: Any) -> str:
    """Return a value as a user writes it: 3, not 3.0, and without spaces around it."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
