"""The sky of a cutout: its level, how well that is known, the scatter of its pixels and how neighbouring ones go together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.4826
_FEWEST = 64
_BLOCKS = (2, 4, 8)
_CLIP = 3.0
_SECTORS = 12


@dataclass(frozen=True)
class Sky:
    """The sky of one band.

    Parameters
    ----------
    level, error : float
        Flux per pixel, and its 1-sigma error.
    sigma : float
        Scatter of single pixels, flux per pixel.
    inflation : float
        By what the error of a sum over many pixels exceeds that of as many independent ones; 1 = not correlated.
    pixels : int
        How many it rests on.
    """

    level: float
    error: float
    sigma: float
    inflation: float
    pixels: int


def robust_scatter(values: NDArray[np.floating]) -> float:
    """Return the median absolute deviation as a standard deviation; 0 where there are no values."""
    if values.size == 0:
        return 0.0
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def clipped_mean(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return mean and scatter of what lies within three sigma of the median, found anew until it stays the same.

    Faint sources that no mask holds pull a mean up; the clip is of both sides, and so keeps noise without a bias.
    """
    # sorted once: all that follows are pieces of it
    ordered = np.sort(values, axis=None)
    kept = ordered
    for _ in range(10):
        middle, scatter = _median(kept), _scatter(kept)
        if scatter <= 0:
            break
        first = int(np.searchsorted(ordered, middle - _CLIP * scatter))
        last = int(np.searchsorted(ordered, middle + _CLIP * scatter, side="right"))
        if last - first in (kept.size, 0):
            break
        kept = ordered[first:last]
    return float(kept.mean(dtype=np.float64)), _scatter(kept)


def _median(ordered: NDArray[np.floating]) -> float:
    return float((ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]) / 2)


def _scatter(ordered: NDArray[np.floating]) -> float:
    """Return `robust_scatter` of values in rising order: those nearest to the median follow each other."""
    middle, size = _median(ordered), ordered.size
    below, above = middle - ordered, ordered - middle
    nearest = [np.maximum(below[: size - count], above[count:]).min() for count in {(size - 1) // 2, size // 2}]
    return float(MAD_TO_SIGMA * sum(nearest) / len(nearest))


def measure_sky(image: NDArray[np.floating], free: NDArray[np.bool_]) -> Sky | None:
    """Return the sky of the pixels that are free of sources, or None where they are too few.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        Flux per pixel.
    free : ndarray, shape (y, x), bool
        Valid and away from every source.

    Notes
    -----
    The error is what sectors of the image around its middle differ by: noise that pixels share, faint sources and a
    gradient all count, which the scatter of pixels alone would leave out.
    """
    values = image[free]
    if values.size < _FEWEST:
        return None
    level, sigma = clipped_mean(values)
    inflation = noise_inflation(image - level, free, sigma)
    means = _sector_means(image, free)
    spread = robust_scatter(means) if means.size >= 4 else 0.0
    error = math.hypot(spread / math.sqrt(max(means.size, 1)), sigma * inflation / math.sqrt(values.size))
    return Sky(level, error, sigma, inflation, int(values.size))


def combine_skies(parts: Sequence[Sky]) -> Sky:
    """Return the sky of several zones together, none of which need agree with the others within its error.

    A survey's own subtraction leaves a dip or a halo about large galaxies: the zones then differ by more than their
    errors say, and that difference is what the level is not known to (random effects, DerSimonian and Laird 1986).
    """
    levels = np.array([part.level for part in parts])
    variances = np.maximum(np.array([part.error for part in parts]), 1e-30) ** 2
    weights = 1 / variances
    mean = np.average(levels, weights=weights)
    excess = float((weights * (levels - mean) ** 2).sum()) - (levels.size - 1)
    free = float(weights.sum() - (weights**2).sum() / weights.sum())
    between = max(excess / free, 0.0) if free > 0 else 0.0
    weights = 1 / (variances + between)
    pixels = np.array([part.pixels for part in parts])
    return Sky(
        float(np.average(levels, weights=weights)),
        float(1 / math.sqrt(weights.sum())),
        float(np.average([part.sigma for part in parts], weights=pixels)),
        float(np.average([part.inflation for part in parts], weights=pixels)),
        int(pixels.sum()),
    )


def sky_scatter(image: NDArray[np.floating], free: NDArray[np.bool_]) -> float | None:
    """Return the scatter of single pixels of the sky alone, as `measure_sky` gives it."""
    values = image[free]
    return clipped_mean(values)[1] if values.size >= _FEWEST else None


def noise_inflation(image: NDArray[np.floating], free: NDArray[np.bool_], sigma: float) -> float:
    """Return by what the scatter of block means exceeds the one of independent pixels, at least 1.

    Resampled and coadded images have noise that neighbours share: the mean of n pixels then errs by more than
    ``sigma / sqrt(n)``. Blocks of 2, 4 and 8 pixels a side that are free as a whole tell by how much.
    """
    if sigma <= 0:
        return 1.0
    found = [1.0]
    for side in _BLOCKS:
        blocks = _in_blocks(image, side)
        whole = _in_blocks(free, side).all(axis=1)
        if whole.sum() < 24:
            break
        means = blocks[whole].mean(axis=1)
        found.append(robust_scatter(means) * side / sigma)
    return float(max(found))


def _in_blocks(image: NDArray, side: int) -> NDArray:
    """Return blocks of side x side pixels as rows; what is left over at the rim is dropped."""
    rows, columns = (length // side for length in image.shape)
    cut = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.swapaxes(1, 2).reshape(rows * columns, side * side)


def _sector_means(image: NDArray[np.floating], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = image.shape
    y, x = np.nonzero(free)
    angle = np.arctan2(y - (rows - 1) / 2, x - (columns - 1) / 2)
    sector = np.minimum(((angle + np.pi) / (2 * np.pi) * _SECTORS).astype(int), _SECTORS - 1)
    values = image[free]
    parts = [values[sector == index] for index in range(_SECTORS)]
    return np.array([clipped_mean(part)[0] for part in parts if part.size >= _FEWEST // 2])
