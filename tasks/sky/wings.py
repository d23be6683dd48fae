"""The sky beneath a galaxy's own faint wings: what a ring of sky, however far out, has too much of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

_FLOOR = 0.05
"""Share of the intensity by which a real profile strays from any law."""
_LEAST_INDEX, _MOST_INDEX = 0.5, 6.0
_USUAL_INDEX, _INDEX_SPREAD = 1.5, 0.5
"""Sersic index of outer profiles and its spread, dex: where the data cannot tell."""
_FEWEST = 8


@dataclass(frozen=True)
class Level:
    """A constant under a profile, and its error."""

    value: float
    error: float


def level_beneath(
    radius: NDArray[np.float64], intensity: NDArray[np.float64], error: NDArray[np.float64], *, scatter: float
) -> Level | None:
    """Return the constant that a Sersic law with it follows the outer profile, or None where nothing holds it.

    Parameters
    ----------
    radius : ndarray, shape (radius,)
        Of the outer annuli, out into the sky.
    intensity, error : ndarray, shape (radius,)
        Mean and its statistical error; NaN is left out.
    scatter : float
        What the level is known to already: the prior's width, about zero.
    """
    good = np.isfinite(intensity) & np.isfinite(error) & (error > 0)
    if good.sum() < _FEWEST or scatter <= 0:
        return None
    r, seen, noise = radius[good], intensity[good], error[good]
    weight = 1 / np.hypot(noise, _FLOOR * np.clip(seen, 0, None))
    start = _start(r, seen)
    if start is None:
        return None

    def residual(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        brightness, scale, index, level = parameters
        law = np.exp(brightness - (r / math.exp(scale)) ** (1 / index))
        data = (law + level * scatter - seen) * weight
        prior = [(math.log10(index / _USUAL_INDEX)) / _INDEX_SPREAD, level]
        return np.concatenate([data, prior])

    bounds = ([-60.0, -20.0, _LEAST_INDEX, -30.0], [60.0, 12.0, _MOST_INDEX, 30.0])
    found = least_squares(residual, np.clip(start, *bounds), bounds=bounds, loss="soft_l1", max_nfev=200)
    normal = found.jac.T @ found.jac
    try:
        variance = float(np.linalg.inv(normal + 1e-12 * np.eye(4))[3, 3])
    except np.linalg.LinAlgError:
        return None
    return Level(float(found.x[3] * scatter), float(math.sqrt(max(variance, 0.0)) * scatter))


def _start(radius: NDArray[np.float64], intensity: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return an exponential through the brighter annuli: logarithm of brightness, of the length, index and level."""
    bright = intensity > 0.1 * np.max(intensity)
    if bright.sum() < 3:
        bright = np.arange(radius.size) < 4
    if (intensity[bright] <= 0).any():
        return None
    slope, level = np.polyfit(radius[bright], np.log(intensity[bright]), 1)
    if slope >= 0:
        return None
    return np.array([level, math.log(-1 / slope), 1.0, 0.0])
