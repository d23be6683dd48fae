"""What comes between ground and number: air, missed cloud and shadow, snow, orbits, registration, processing, noise."""

from __future__ import annotations

import numpy as np

from tasks.earth.prior.calendar import Calendar
from tasks.earth.simulate.phenology import BAND_GROUP

_WAVELENGTH = np.array([0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.833, 0.865, 1.61, 2.2])
_SNOW = np.array([0.85, 0.86, 0.85, 0.85, 0.84, 0.82, 0.8, 0.79, 0.1, 0.07])
_CLOUD = np.array([0.62, 0.62, 0.63, 0.64, 0.65, 0.65, 0.66, 0.66, 0.5, 0.38])


def observe(rng: np.random.Generator, ground: np.ndarray, calendar: Calendar) -> np.ndarray:
    """Return reflectance as an archive holds it, of looks that a mask calls clear.

    Parameters
    ----------
    rng : numpy.random.Generator
    ground : ndarray, shape (series, look, band), reflectance 0 to 1
    calendar : Calendar

    Returns
    -------
    ndarray, shape (series, look, band), float32, reflectance in steps of 0.0001, at least one step
    """
    seen = _register(rng, ground)
    seen = _snow(rng, seen, calendar)
    seen = _shadow(rng, seen)
    seen = seen * _geometry(rng, calendar)
    seen = _aerosol(rng, _cloud(rng, seen))
    seen = _processing(rng, seen, calendar)
    seen = seen + rng.normal(0, 0.0025, seen.shape) + rng.normal(0, 0.01, seen.shape) * seen
    return np.clip(np.round(seen * 1e4), 1, 20_000).astype(np.float32) * np.float32(1e-4)


def _some(rng: np.random.Generator, shape: tuple[int, ...], share: np.ndarray) -> np.ndarray:
    """Return which looks are hit, a share of each series', shape (series, look, 1)."""
    return (rng.random(shape) < share)[..., None]


def _register(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Mix in a neighbour, by another weight at each look."""
    neighbour = ground[rng.permutation(len(ground))].mean(axis=1, keepdims=True)
    contrast = rng.beta(0.6, 6.0, (len(ground), 1, 1))
    weight = contrast * (1 + rng.normal(0, 0.5, (*ground.shape[:2], 1)))
    return ground + (neighbour - ground) * np.clip(weight, 0, 0.6)


def _snow(rng: np.random.Generator, seen: np.ndarray, calendar: Calendar) -> np.ndarray:
    """Leave patches of snow under some looks of cold winters."""
    cold = rng.uniform(0, 0.5, (len(seen), 1)) * (rng.random((len(seen), 1)) < 0.4)
    winter = np.clip(np.cos(2 * np.pi * (calendar.phase - 0.04)) * 1.6, 0, 1)
    hit = _some(rng, calendar.day.shape, cold * winter)
    cover = rng.beta(1.0, 2.5, hit.shape) * hit
    return seen * (1 - cover) + _SNOW * cover


def _shadow(rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """Darken some looks, the long wavelengths more: sky light fills a shadow with blue."""
    hit = _some(rng, seen.shape[:2], rng.beta(1.0, 14.0, (len(seen), 1)))
    depth = rng.beta(1.5, 1.5, hit.shape) * 0.8 * hit
    return seen * (1 - depth * np.clip(0.75 + 0.35 * (_WAVELENGTH - 0.49), 0, 1))


def _geometry(rng: np.random.Generator, calendar: Calendar) -> np.ndarray:
    """Return the factor of view and sun: one orbit brighter than the other, and some of it at random."""
    count = len(calendar.day)
    orbit = rng.normal(0, 0.04, (count, 1)) * (calendar.orbit - 0.5)
    any_look = rng.normal(0, 1, calendar.day.shape) * rng.gamma(2.0, 0.018, (count, 1))
    tilt = rng.normal(0, 0.03, (*calendar.day.shape, 3))[..., BAND_GROUP]
    return np.exp((orbit + any_look)[..., None] + tilt)


def _cloud(rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """Lay thin cloud that the mask missed over some looks."""
    hit = _some(rng, seen.shape[:2], rng.beta(1.2, 7.0, (len(seen), 1)))
    depth = np.minimum(rng.exponential(1, hit.shape) * rng.uniform(0.03, 0.32, (len(seen), 1, 1)), 0.8) * hit
    return seen * (1 - depth) + _CLOUD * depth


def _aerosol(rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
    """Add what atmospheric correction left or took too much, mostly in the blue."""
    size = rng.gamma(2.0, 0.0035, (len(seen), 1, 1))
    steepness = rng.uniform(0.8, 3.0, (len(seen), 1, 1))
    return seen + size * rng.normal(0, 1, (*seen.shape[:2], 1)) * (0.49 / _WAVELENGTH) ** steepness


def _processing(rng: np.random.Generator, seen: np.ndarray, calendar: Calendar) -> np.ndarray:
    """Change gain and offset on one day for a third of the series: another processing baseline."""
    count = len(seen)
    changed = rng.random((count, 1)) < 0.3
    day = calendar.day[:, :1] + rng.uniform(100, 1500, (count, 1))
    before = ((calendar.day < day) & changed)[..., None]
    gain = np.exp(rng.normal(0, 0.12, (count, 1, 3))[..., BAND_GROUP])
    offset = rng.normal(0, 0.005, (count, 1, 3))[..., BAND_GROUP]
    return np.where(before, seen * gain + offset, seen)
