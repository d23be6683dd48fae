"""What the columns of a target list are, and what their cells say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.errors import ConfigurationError

_POSITIONS = (
    ("ra", "dec"),
    ("ra", "de"),
    ("raj2000", "dej2000"),
    ("raj2000", "decj2000"),
    ("raicrs", "deicrs"),
    ("raicrs", "decicrs"),
    ("radeg", "decdeg"),
    ("radeg", "dedeg"),
    ("radeg", "dec"),
    ("radegrees", "decdegrees"),
    ("alphaj2000", "deltaj2000"),
    ("rightascension", "declination"),
    ("targetra", "targetdec"),
    ("objra", "objdec"),
    ("ramean", "decmean"),
)
_GALACTIC = (("glon", "glat"), ("l", "b"))
_ROLES = {
    "identifier": (
        *("objectid", "objid", "sourceid", "targetid", "specobjid", "sdssid", "nsaid", "ident", "id"),
        *("objectname", "objname", "name", "galaxy", "mainid", "designation", "iauname", "pgc", "ugc", "ngc", "seq"),
    ),
    "redshift": ("redshift", "zspec", "zsp", "zhelio", "zsys", "z"),
    "ebv": ("ebv", "ebmv", "ebminusv", "ebvsfd", "sfdebv"),
    "size": ("sizepixels", "sizepix", "size", "npix"),
    "file": ("file", "filename", "fitsfile", "path"),
}
_UCDS = {"ra": "pos.eq.ra", "dec": "pos.eq.dec", "identifier": "meta.id"}
_EXACT_FLOAT = 2.0**53
_SEXAGESIMAL = re.compile(
    r"([+-]?)\s*(\d{1,3})\s*(?:[:hd°]|\s)\s*(\d{1,2})(?:\s*(?:[:m'′]|\s)\s*(?:(\d{1,2}(?:\.\d*)?)\s*(?:s|\"|″|'')?)?)?"
)
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,18})")


@dataclass(frozen=True)
class Column:
    """One column of a list.

    Parameters
    ----------
    name : str
    values : ndarray
        int64, float64 or object (str); what is missing may hold anything.
    missing : ndarray of bool
    unit, ucd : str
        As the file gives them; empty = not.
    """

    name: str
    values: np.ndarray
    missing: np.ndarray
    unit: str = ""
    ucd: str = ""


@dataclass(frozen=True)
class ColumnNames:
    """Names of columns as the user gives them; None = recognised."""

    ra: str | None = None
    dec: str | None = None
    identifier: str | None = None
    redshift: str | None = None
    ebv: str | None = None
    size: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Roles:
    """Which column is what; `galactic` says that the position is longitude and latitude of the Galaxy."""

    ra: Column
    dec: Column
    galactic: bool = False
    identifier: Column | None = None
    redshift: Column | None = None
    ebv: Column | None = None
    size: Column | None = None
    file: Column | None = None


@dataclass(frozen=True)
class Row:
    """A row that can be used; `number` counts from 1."""

    number: int
    identifier: str
    ra: float
    dec: float
    integer_id: bool = False
    redshift: float = math.nan
    ebv: float = math.nan
    size_pixels: int | None = None
    file: str = field(default="")


def recognise(table: Sequence[Column], names: ColumnNames, *, where: str) -> Roles:
    """Return which column is what: named ones, then known names in their order, then UCDs.

    Raises
    ------
    ConfigurationError
        No column of positions, or a named one that is not there; the message lists those that are.
    """
    if not table:
        raise ConfigurationError(f"{where} holds no columns")
    if (names.ra is None) != (names.dec is None):
        raise ConfigurationError("columns of RA and Dec are named together or not at all")
    ra, dec, galactic = _position(table, names, where)
    found = {
        role: _named(table, name, where) if (name := getattr(names, role)) is not None else _known(table, role)
        for role in _ROLES
    }
    return Roles(ra=ra, dec=dec, galactic=galactic, **found)


def rows_of(table: Sequence[Column], roles: Roles, *, where: str) -> tuple[list[Row], list[tuple[int, str]], list[str]]:
    """Return the usable rows, the others as (number, reason), and notes.

    Raises
    ------
    ConfigurationError
        Ids are floats that cannot hold them.
    """
    notes = [f"positions from {roles.ra.name} and {roles.dec.name}"]
    identifiers = _identifiers(roles.identifier, len(roles.ra.missing), where)
    if roles.identifier is None:
        notes.append("no column of ids: objects are named after their positions")
    elif (without := sum(not name for name in identifiers)) > 0:
        notes.append(f"{without} rows without an id are named after their positions")
    redshift = _redshifts(roles.redshift, notes)
    ebv, size = _numbers(roles.ebv, len(identifiers)), _numbers(roles.size, len(identifiers))
    files = _texts(roles.file, len(identifiers))
    good, bad = [], []
    for index, (first, second) in enumerate(zip(_cells(roles.ra), _cells(roles.dec), strict=True)):
        try:
            ra, dec = _position_of(first, second, roles)
        except ValueError as error:
            bad.append((index + 1, str(error)))
            continue
        pixels = int(size[index]) if np.isfinite(size[index]) and size[index] >= 1 else None
        z = float(redshift[index]) if len(redshift) else math.nan
        name = identifiers[index]
        good.append(Row(index + 1, name, ra, dec, _is_whole(name), z, float(ebv[index]), pixels, files[index]))
    return good, bad, notes


def degrees_of(cell: object, *, hours: bool, unit: str = "") -> float:
    """Return an angle in degrees: a number in its unit (degrees where there is none), or sexagesimal text.

    Parameters
    ----------
    hours : bool
        Whether sexagesimal text counts hours (right ascension).

    Raises
    ------
    ValueError
        What came instead of an angle.

    Examples
    --------
    >>> degrees_of("10:01:52.9", hours=True), degrees_of("-00 07 30", hours=False)
    (150.4704166..., -0.125)
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ValueError("is missing")
    if isinstance(cell, str) and (match := _SEXAGESIMAL.fullmatch(cell.strip())):
        return _from_sexagesimal(match, cell, hours=hours and "d" not in cell and "°" not in cell)
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{str(cell)[:40]!r} is no angle") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    if unit in ("h", "hr", "hour", "hours", "hourangle"):
        return number * 15.0
    return math.degrees(number) if unit in ("rad", "radian", "radians") else number


def _from_sexagesimal(match: re.Match[str], text: str, *, hours: bool) -> float:
    sign, whole, minutes, seconds = match.groups()
    if float(minutes) >= 60 or float(seconds or 0.0) >= 60:
        raise ValueError(f"{text!r} has 60 minutes or seconds or more")
    value = int(whole) + int(minutes) / 60.0 + float(seconds or 0.0) / 3600.0
    return (-value if sign == "-" else value) * (15.0 if hours else 1.0)


def _position_of(first: object, second: object, roles: Roles) -> tuple[float, float]:
    names = ("longitude", "latitude") if roles.galactic else ("RA", "Dec")
    angles = []
    for cell, name, column in zip((first, second), names, (roles.ra, roles.dec), strict=True):
        try:
            hours = name == "RA"
            angles.append(degrees_of(cell, hours=hours, unit=column.unit.lower()))
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    ra, dec = angles
    if not 0.0 <= ra <= 360.0:
        raise ValueError(f"{names[0]} {ra:g} is not within 0 to 360 degrees")
    if not -90.0 <= dec <= 90.0:
        raise ValueError(f"{names[1]} {dec:g} is not within -90 to 90 degrees")
    return _from_galactic(ra, dec) if roles.galactic else (ra % 360.0, dec)


def _from_galactic(longitude: float, latitude: float) -> tuple[float, float]:
    from astropy.coordinates import SkyCoord

    found = SkyCoord(longitude, latitude, unit="deg", frame="galactic").icrs
    return float(found.ra.deg), float(found.dec.deg)


def _position(table: Sequence[Column], names: ColumnNames, where: str) -> tuple[Column, Column, bool]:
    if names.ra is not None and names.dec is not None:
        return _named(table, names.ra, where), _named(table, names.dec, where), False
    known = _by_plain_name(table)
    for pairs, galactic in ((_POSITIONS, False), ((), False), (_GALACTIC, True)):
        for first, second in pairs:
            if first in known and second in known:
                return known[first], known[second], galactic
        if not pairs and (by_ucd := (_by_ucd(table, "ra"), _by_ucd(table, "dec"))) and all(by_ucd):
            return by_ucd[0], by_ucd[1], False  # type: ignore[return-value]
    found = ", ".join(column.name for column in table)
    raise ConfigurationError(f"{where}: no columns of right ascension and declination among {found}; name them")


def _known(table: Sequence[Column], role: str) -> Column | None:
    known = _by_plain_name(table)
    by_name = next((known[name] for name in _ROLES[role] if name in known), None)
    return by_name or (_by_ucd(table, role) if role in _UCDS else None)


def _named(table: Sequence[Column], name: str, where: str) -> Column:
    exact = [column for column in table if column.name == name]
    loose = exact or [column for column in table if column.name.lower() == name.lower()]
    if not loose:
        raise ConfigurationError(f"{where} has no column {name}; it has {', '.join(column.name for column in table)}")
    return loose[0]


def _by_plain_name(table: Sequence[Column]) -> dict[str, Column]:
    """Return columns by their names' letters and digits alone; of two, one with a leading underscore (VizieR's own)."""
    known: dict[str, Column] = {}
    for column in table:
        plain = re.sub(r"[^a-z0-9]", "", column.name.lower())
        if plain not in known or column.name.startswith("_"):
            known[plain] = column
    return known


def _by_ucd(table: Sequence[Column], role: str) -> Column | None:
    words = _UCDS[role]
    found = [column for column in table if column.ucd.lower().startswith(words)]
    return next((column for column in found if "meta.main" in column.ucd.lower()), found[0] if found else None)


def _cells(column: Column) -> list[object]:
    return [None if missing else value for value, missing in zip(column.values, column.missing, strict=True)]


def _identifiers(column: Column | None, rows: int, where: str) -> list[str]:
    """Return ids as text, empty where missing."""
    if column is None:
        return [""] * rows
    if column.values.dtype.kind == "f":
        good = column.values[~column.missing & np.isfinite(column.values)]
        if np.any(good != np.floor(good)) or np.any(np.abs(good) >= _EXACT_FLOAT):
            raise ConfigurationError(
                f"{where}: ids in column {column.name} are floating point, which cannot hold them exactly; "
                "write them as whole numbers or as text"
            )
    return [_identifier(value) if not missing else "" for value, missing in zip(*_pair(column), strict=True)]


def _is_whole(name: str) -> bool:
    """Return whether an id is a whole number of 64 bits, written as such a number is."""
    return _WHOLE.fullmatch(name) is not None and -(2**63) <= int(name) < 2**63


def _pair(column: Column) -> tuple[np.ndarray, np.ndarray]:
    return column.values, column.missing


def _identifier(value: object) -> str:
    if isinstance(value, float | np.floating):
        return str(int(value)) if math.isfinite(value) else ""
    return str(value).strip()


def _texts(column: Column | None, rows: int) -> list[str]:
    if column is None:
        return [""] * rows
    return ["" if missing else str(value).strip() for value, missing in zip(*_pair(column), strict=True)]


def _numbers(column: Column | None, rows: int) -> np.ndarray:
    """Return a column as floats, NaN where there is no number."""
    numbers = np.full(rows, np.nan)
    if column is None:
        return numbers
    for index, value in enumerate(_cells(column)):
        try:
            numbers[index] = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _redshifts(column: Column | None, notes: list[str]) -> np.ndarray:
    """Return redshifts; a column ``z`` of magnitudes is none."""
    if column is None:
        return np.empty(0)
    values = _numbers(column, len(column.missing))
    if np.any(values > 12.0) and column.name.lower() == "z":
        notes.append("column z holds values above 12: taken for magnitudes, not for redshifts")
        return np.empty(0)
    return values
