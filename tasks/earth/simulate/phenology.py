"""Reflectance of each cover through the year, from a small table, moved about by the weather of each year.

`spectra.csv` holds the reflectance of states (``beech_leaf``, ``soil_dry``), `calendar.csv` the days of the year at
which each cover is in which state; between two days the reflectance is interpolated. Both tables were written by hand
from what Sentinel-2 shows of these covers in temperate Europe; nothing is computed with a radiative-transfer package.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib import resources

import numpy as np

from tasks.earth.simulate.noise import generator

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
GROUPS = ("none", "broadleaved", "conifer")
CROPS = ("wheat", "barley", "rape", "maize", "beet", "potato", "ley")
# young growth answers to the weather as the trees that it will be do
_KIN = {"thicket_birch": "birch", "thicket_conifer": "pine"}
_KIN |= dict.fromkeys(("thicket_thorn", "scrub", "orchard_tree"), "hedge")
_DAYS = 366
_VISIBLE = np.array([b in ("B02", "B03", "B04", "B05") for b in BANDS])


@dataclass(frozen=True)
class CoverTable:
    """Reflectance by cover and day of year.

    Parameters
    ----------
    covers : tuple of str
        Names of the covers.
    tree_class : ndarray, shape (cover,)
        0 no tree, 1 broadleaved, 2 conifer.
    managed : ndarray, shape (cover,), bool
        Crops: their calendar follows the farmer more than the weather.
    kin : ndarray, shape (cover,), int
        The cover whose weather anomalies each cover shares; mostly itself.
    reflectance : ndarray, shape (cover, 366, band), float32
        Reflectance 0 to 1 on each day of an ordinary year.
    """

    covers: tuple[str, ...]
    tree_class: np.ndarray
    managed: np.ndarray
    kin: np.ndarray
    reflectance: np.ndarray

    def index(self, cover: str) -> int:
        """Return the number of a cover."""
        return self.covers.index(cover)


@lru_cache(maxsize=1)
def cover_table() -> CoverTable:
    """Return the committed table of covers.

    Returns
    -------
    CoverTable
    """
    spectra = {row["state"]: [float(row[b]) for b in BANDS] for row in _rows("spectra.csv")}
    calendar: dict[str, list[tuple[int, list[float]]]] = {}
    groups: dict[str, str] = {}
    for row in _rows("calendar.csv"):
        calendar.setdefault(row["cover"], []).append((int(row["day"]), spectra[row["state"]]))
        groups[row["cover"]] = row["group"]
    covers = tuple(calendar)
    return CoverTable(
        covers=covers,
        tree_class=np.array([GROUPS.index(groups[c]) if groups[c] in GROUPS else 0 for c in covers]),
        managed=np.array([groups[c] == "crop" for c in covers]),
        kin=np.array([covers.index(_KIN.get(c, c)) for c in covers]),
        reflectance=np.stack([_year_of(calendar[c]) for c in covers]).astype(np.float32),
    )


def _rows(name: str) -> list[dict[str, str]]:
    """Read one of the tables beside this module."""
    with resources.files(__package__).joinpath(name).open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _year_of(nodes: list[tuple[int, list[float]]]) -> np.ndarray:
    """Interpolate the states of one cover over a year that closes on itself, eased so that it has no corners."""
    days = np.array([day for day, _ in nodes], dtype=float)
    values = np.array([spectrum for _, spectrum in nodes])
    days = np.concatenate([[days[-1] - 365], days, [days[0] + 365]])
    values = np.concatenate([values[-1:], values, values[:1]])
    wanted = np.arange(_DAYS, dtype=float)
    after = np.clip(np.searchsorted(days, wanted, side="right"), 1, len(days) - 1)
    part = (wanted - days[after - 1]) / (days[after] - days[after - 1])
    part = (0.5 - 0.5 * np.cos(np.pi * part))[:, None]
    return np.asarray(values[after - 1] * (1 - part) + values[after] * part)


@dataclass(frozen=True)
class Weather:
    """What makes one year differ from another.

    Parameters
    ----------
    seed : int
        Of the whole archive.
    """

    seed: int

    def season_shift(self, year: int) -> tuple[float, float]:
        """Return how many days late spring and autumn are in a year."""
        rng = generator(self.seed, 101, year)
        return float(rng.normal(0, 9.5)), float(rng.normal(0, 8))

    def drought(self, year: int) -> float:
        """Return how dry the summer of a year is, 0 to 1."""
        return float(generator(self.seed, 102, year).beta(1.2, 2.5))

    def cover_shift(self, year: int, count: int) -> np.ndarray:
        """Return how many days late each cover is on top of the season, shape (cover,)."""
        return generator(self.seed, 103, year).normal(0, 3.0, count)

    def vigour(self, day: date, count: int) -> np.ndarray:
        """Return a slowly wandering anomaly of greenness for each cover, shape (cover,), sd about 1."""
        position = day.toordinal() / 24.0
        before, part = int(np.floor(position)), position % 1.0
        first, second = (generator(self.seed, 104, k).standard_normal(count) for k in (before, before + 1))
        return np.asarray(first * (1 - part) + second * part)


@dataclass(frozen=True)
class Units:
    """The things that have one history: fields, stands, hedges.

    Parameters
    ----------
    cover : ndarray, shape (year, unit), int
        Number of the cover in the table, for each calendar year of the archive; crops rotate.
    delay : ndarray, shape (unit,), days
        How late the unit is within its cover: sowing date, aspect, genes.
    stretch : ndarray, shape (3, unit)
        Natural logarithm of its brightness in the visible, near infrared and shortwave infrared.
    change_day : ndarray, shape (unit,), int
        Ordinal of the day on which the unit becomes `cover_after`; 0 is never.
    cover_after : ndarray, shape (unit,), int
    """

    cover: np.ndarray
    delay: np.ndarray
    stretch: np.ndarray
    change_day: np.ndarray
    cover_after: np.ndarray

    def cover_on(self, day: date, first_year: int) -> np.ndarray:
        """Return the number of the cover of each unit on a day, shape (unit,)."""
        row = self.cover[np.clip(day.year - first_year, 0, len(self.cover) - 1)]
        changed = (self.change_day > 0) & (self.change_day <= day.toordinal())
        return np.where(changed, self.cover_after, row)


def unit_reflectance(units: Units, day: date, *, weather: Weather, first_year: int) -> np.ndarray:
    """Return the reflectance of every unit on a day, before light, air and sensor.

    Parameters
    ----------
    units : Units
    day : date
    weather : Weather
    first_year : int
        Calendar year of the first row of ``units.cover``.

    Returns
    -------
    ndarray, shape (band, unit), float32, reflectance 0 to 1
    """
    table = cover_table()
    cover = units.cover_on(day, first_year)
    ordinary = _ordinary_day(cover, units.delay, day, weather)
    low = np.floor(ordinary).astype(int)
    part = (ordinary - low)[:, None].astype(np.float32)
    base = table.reflectance[cover, low % 365] * (1 - part) + table.reflectance[cover, (low + 1) % 365] * part
    # weather acts on what is green: stubble cannot dry out
    green = np.clip((base[:, 6] - base[:, 2]) / (base[:, 6] + base[:, 2]) / 0.8, 0, 1)[:, None]
    base = base * np.exp(_fade(weather, day)[cover] * green)
    return np.ascontiguousarray((base * _brightness(units)).T.astype(np.float32))


def _ordinary_day(cover: np.ndarray, delay: np.ndarray, day: date, weather: Weather) -> np.ndarray:
    """Return the day of an ordinary year on which each unit would look as it does on this day."""
    table = cover_table()
    day_of_year = day.timetuple().tm_yday - 1
    spring, autumn = weather.season_shift(day.year)
    # spring's lateness rules until June, autumn's from mid-September; around New Year both have faded
    spring_weight = np.interp(day_of_year, [0, 60, 165, 225], [0, 1, 1, 0])
    autumn_weight = np.interp(day_of_year, [190, 250, 330, 365], [0, 1, 1, 0])
    late = spring * spring_weight + autumn * autumn_weight
    cover_late = weather.cover_shift(day.year, len(table.covers))[table.kin[cover]]
    factor = np.where(table.managed[cover], 0.5, 1.0)
    active = max(spring_weight, autumn_weight)
    shift = late * factor + (cover_late + delay) * active
    return np.asarray((day_of_year - shift) % 365.0)


def _fade(weather: Weather, day: date) -> np.ndarray:
    """Return the logarithm by which weather brightens or dims each band of each cover, shape (cover, band)."""
    table = cover_table()
    season = np.exp(-0.5 * ((day.timetuple().tm_yday - 215) / 32.0) ** 2)
    dry = weather.drought(day.year) * season * np.where(table.tree_class[table.kin] > 0, 0.35, 1.0)
    vigour = weather.vigour(day, len(table.covers))[table.kin] * 0.035 - 0.35 * dry
    infrared = np.where(_VISIBLE, -1.1, 0.55)
    infrared = np.where(np.isin(BANDS, ("B11", "B12")), -0.6, infrared)
    return np.asarray(vigour[:, None] * infrared[None, :], dtype=np.float32)


def _brightness(units: Units) -> np.ndarray:
    """Return the factor of each unit for each band, shape (unit, band)."""
    return np.asarray(np.exp(units.stretch[BAND_GROUP].T), dtype=np.float32)


BAND_GROUP = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
"""0 visible and first red edge, 1 near infrared, 2 shortwave infrared, for each band."""
