"""What the ground looks like: covers, seasons, weather years, growth and loss."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from tasks.earth.prior.calendar import YEAR_DAYS, Calendar
from tasks.earth.simulate.phenology import BAND_GROUP, cover_table

_YEARS = 9


@lru_cache(maxsize=1)
def state_spectra() -> tuple[np.ndarray, np.ndarray]:
    """Return spectra of what is green and of what is not, shapes (state, band): the rows of ``spectra.csv``."""
    with resources.files("tasks.earth.simulate").joinpath("spectra.csv").open(encoding="utf-8") as lines:
        rows = [[float(value) for name, value in row.items() if name != "state"] for row in csv.DictReader(lines)]
    spectra = np.array(rows, dtype=np.float32)
    ndvi = (spectra[:, 6] - spectra[:, 2]) / (spectra[:, 6] + spectra[:, 2])
    return spectra[ndvi > 0.68], spectra[ndvi < 0.68]


@dataclass(frozen=True)
class Season:
    """How a series' years differ, shape (series, year) each.

    Parameters
    ----------
    spring, autumn : ndarray
        Part of a year by which greening and fading are late.
    vigour : ndarray
        Natural logarithm of the amplitude.
    """

    spring: np.ndarray
    autumn: np.ndarray
    vigour: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> Season:
        """Draw the weather years."""
        shape = (count, _YEARS)
        wild = rng.gamma(2.0, 0.5, (count, 1))
        days = rng.normal(0, 1, (2, *shape)) * wild * 8 / YEAR_DAYS
        return cls(days[0], days[1], rng.normal(0, 0.06, shape) * wild)

    def of(self, calendar: Calendar) -> Season:
        """Return the values that hold at each look, shape (series, look)."""
        year = np.minimum(calendar.year, _YEARS - 1)
        return Season(*(np.take_along_axis(part, year, axis=1) for part in (self.spring, self.autumn, self.vigour)))


def draw_reflectance(rng: np.random.Generator, calendar: Calendar) -> np.ndarray:
    """Return the reflectance of the ground at each look, shape (series, look, band), 0 to 1, without air or sensor."""
    count = len(calendar.day)
    season = Season.draw(rng, count).of(calendar)
    table, logistic = _from_table(rng, calendar, season), _from_logistic(rng, calendar, season)
    # a pixel is one of the two, and some are partly the other
    share = rng.beta(0.5, 1.5, (count, 1, 1)) * (rng.random((count, 1, 1)) < 0.4)
    share = np.where(rng.random((count, 1, 1)) < 0.5, share, 1 - share)
    ground = table * (1 - share) + logistic * share
    return _brighten(rng, ground, calendar)


def _from_table(rng: np.random.Generator, calendar: Calendar, season: Season) -> np.ndarray:
    """Return series of the covers of the generated archive, moved in time and stretched far beyond it."""
    table = cover_table().reflectance
    count = len(calendar.day)
    cover = rng.integers(0, len(table), count)
    rotating = rng.random((count, 1)) < 0.2
    yearly = rng.integers(0, len(table), (count, _YEARS))
    year = np.minimum(calendar.year, _YEARS - 1)
    chosen = np.where(rotating, np.take_along_axis(yearly, year, axis=1), cover[:, None])
    phase = _warped(rng, calendar, season)
    place = phase * 365.0
    low = np.floor(place).astype(int) % 365
    part = (place - np.floor(place))[..., None].astype(np.float32)
    values = table[chosen, low] * (1 - part) + table[chosen, (low + 1) % 365] * part
    mean = table[cover].mean(axis=1)[:, None]
    amplitude = np.exp(rng.normal(0, 0.35, (count, 1, 1)) + season.vigour[..., None])
    return np.maximum(mean + (values - mean) * np.minimum(amplitude, 1.6), 0.002)


def _warped(rng: np.random.Generator, calendar: Calendar, season: Season) -> np.ndarray:
    """Return the part of an ordinary year at which each look falls once season and climate are taken out."""
    count = len(calendar.day)
    anywhere = rng.random((count, 1)) < 0.15
    climate = np.where(anywhere, rng.random((count, 1)), rng.normal(0, 0.05, (count, 1)))
    phase = calendar.phase - climate
    spring = np.clip(1 - np.abs((phase - 0.33 + 0.5) % 1 - 0.5) / 0.25, 0, 1)
    autumn = np.clip(1 - np.abs((phase - 0.78 + 0.5) % 1 - 0.5) / 0.22, 0, 1)
    longer = rng.normal(0, 0.03, (count, 1))
    return (phase - spring * (season.spring + longer) - autumn * (season.autumn - longer)) % 1.0


def _from_logistic(rng: np.random.Generator, calendar: Calendar, season: Season) -> np.ndarray:
    """Return series that go between two spectra with a double logistic each year, two of them for some."""
    green, bare = state_spectra()
    count = len(calendar.day)
    top = green[rng.integers(0, len(green), count)][:, None]
    bottom = bare[rng.integers(0, len(bare), count)][:, None]
    evergreen = rng.random((count, 1)) < 0.25
    floor = np.where(evergreen, rng.uniform(0.4, 0.95, (count, 1)), rng.beta(0.7, 3.0, (count, 1)))
    share = floor + (rng.uniform(0.5, 1.05, (count, 1)) - floor) * _double_logistic(rng, calendar, season)
    share = share * np.exp(season.vigour) * _history(rng, calendar)
    share = np.clip(share, 0, 1.1)[..., None]
    # fading leaves are yellow before they are gone
    return np.maximum(bottom + (top - bottom) * share, 0.002).astype(np.float32)


def _double_logistic(rng: np.random.Generator, calendar: Calendar, season: Season) -> np.ndarray:
    """Return how green each look is between 0 and 1.

    References
    ----------
    Double logistic of phenology: Beck et al. 2006, eq. 3.
    """
    count = len(calendar.day)
    anywhere = rng.random((count, 1)) < 0.2
    start = np.where(anywhere, rng.random((count, 1)), rng.normal(0.32, 0.06, (count, 1)))
    length = rng.uniform(0.15, 0.6, (count, 1))
    own = rng.normal(0, 0.03, (2, count, _YEARS)) * (rng.random((count, 1)) < 0.25)
    year = np.minimum(calendar.year, _YEARS - 1)
    rise = start + season.spring + np.take_along_axis(own[0], year, axis=1)
    fall = start + length + season.autumn + np.take_along_axis(own[1], year, axis=1)
    speed_up, speed_down = np.exp(rng.uniform(np.log(20), np.log(220), (2, count, 1)))
    value = np.zeros(calendar.day.shape)
    for turn in (-1, 0, 1):
        phase = calendar.phase + turn
        up = 1 / (1 + np.exp(-np.clip(speed_up * (phase - rise), -40, 40)))
        down = 1 / (1 + np.exp(-np.clip(speed_down * (phase - fall), -40, 40)))
        value = np.maximum(value, up - down)
    sag = rng.uniform(0, 0.25, (count, 1)) * np.clip(calendar.phase - start, 0, 1)
    twice = (rng.random((count, 1)) < 0.12) * np.exp(-0.5 * ((calendar.phase - start - length - 0.18) / 0.04) ** 2)
    return np.clip(value * (1 - sag) + 0.7 * twice, 0, 1)


def _history(rng: np.random.Generator, calendar: Calendar) -> np.ndarray:
    """Return the factor by which growth, thinning, felling and recovery change the green share."""
    count = len(calendar.day)
    age = (calendar.day - calendar.day[:, :1]) / YEAR_DAYS
    trend = 1 + rng.normal(0, 0.015, (count, 1)) * age
    when = rng.uniform(0, 6, (count, 1))
    loss = rng.beta(1.2, 1.2, (count, 1)) * (rng.random((count, 1)) < 0.1)
    years = rng.uniform(0.5, 8.0, (count, 1))
    after = np.clip(age - when, 0, None)
    return trend * (1 - loss * (age > when) * np.exp(-after / years))


def _brighten(rng: np.random.Generator, ground: np.ndarray, calendar: Calendar) -> np.ndarray:
    """Give each pixel a spectrum of its own, slow wandering, and slopes that see the sun by season."""
    count = len(ground)
    own = (rng.normal(0, 1, (count, 1, 3)) * np.array([0.28, 0.18, 0.2]))[..., BAND_GROUP] + rng.normal(
        0, 0.06, (count, 1, 10)
    )
    slope = rng.normal(0.05, 0.1, (count, 1)) * np.cos(2 * np.pi * (calendar.phase - 0.47))
    wander = _wander(rng, calendar) * np.abs(rng.normal(0, 0.04, (count, 1)))
    moved = wander[..., None] * np.where(BAND_GROUP == 1, 0.6, -1.0)
    return ground * np.exp(own + slope[..., None] + moved).astype(np.float32)


def _wander(rng: np.random.Generator, calendar: Calendar) -> np.ndarray:
    """Return a slow anomaly of unit size: waves of one to twelve months with random phases."""
    count = len(calendar.day)
    waves = 6
    period = np.exp(rng.uniform(np.log(30), np.log(500), (count, 1, waves)))
    phase = rng.random((count, 1, waves))
    return np.sin(2 * np.pi * (calendar.day[..., None] / period + phase)).sum(axis=2) * np.sqrt(2 / waves)
