"""What a smooth estimate of an image leaves, carried on where nothing is known: noise as its surroundings have it.

The rest of an image beside its estimate is taken for a Gaussian field whose correlation is measured where it is known and
whose scatter follows brightness. In a hole it is drawn given the pixels around (kriging by conditional simulation: Journel
1974, Economic Geology 69, 673; Hoffman and Ribak 1991, ApJ 380, L5): noise that neighbours share goes on across the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from tasks.sky.noise import robust_scatter

_BINS = 12
_FEWEST = 40
_CLIP = 4.0
_NUGGET = 0.02
_ROUNDS = 60
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Texture:
    """The field of one band.

    Parameters
    ----------
    scatter : ndarray, shape (y, x)
        Standard deviation of each pixel.
    spectrum : ndarray, shape (2 (y + reach), x + reach + 1)
        Power of the field of unit scatter, on the image with a margin of `reach`, as a real Fourier transform has it.
    size : tuple of int
        (y, x) of image and margin.
    reach : int
        Pixels farther apart are independent.
    """

    scatter: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    size: tuple[int, int]
    reach: int

    def correlate(self, field: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the covariance of unit scatter applied to a field, (y, x)."""
        return self._through(field, self.spectrum)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a field of unit scatter, (y, x)."""
        rows, columns = self.scatter.shape
        white = rng.standard_normal(self.size)
        return np.asarray(
            fft.irfft2(fft.rfft2(white) * np.sqrt(self.spectrum), s=self.size)[:rows, :columns], dtype=np.float64
        )

    def _through(self, field: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, columns = field.shape
        found = fft.irfft2(fft.rfft2(field, s=self.size) * power, s=self.size)
        return np.asarray(found[:rows, :columns], dtype=np.float64)


def measure_texture(
    rest: NDArray[np.float64], estimate: NDArray[np.float64], known: NDArray[np.bool_], *, reach: int
) -> Texture:
    """Return the field of a band from its known pixels.

    Parameters
    ----------
    rest, estimate : ndarray, shape (y, x)
        Image less estimate where the image is known, and the estimate, everywhere.
    known : ndarray, shape (y, x), bool
    reach : int
        Pixels farther apart are taken for independent.
    """
    scatter = _scatter_by_brightness(rest, estimate, known)
    unit = np.where(known & (scatter > 0), rest / np.maximum(scatter, 1e-30), 0.0).clip(-_CLIP, _CLIP)
    size = tuple(fft.next_fast_len(side + 2 * reach, real=True) for side in rest.shape)
    products = fft.irfft2(np.abs(fft.rfft2(unit, s=size)) ** 2, s=size)
    pairs = fft.irfft2(np.abs(fft.rfft2(known.astype(np.float64), s=size)) ** 2, s=size)
    covariance = np.where(pairs > 0.5, products / np.maximum(pairs, 0.5), 0.0)
    covariance *= _taper(size[0], reach)[:, None] * _taper(size[1], reach)[None, :]
    spectrum = fft.rfft2(covariance).real.clip(min=0.0)
    variance = float(fft.irfft2(spectrum, s=size)[0, 0])
    return Texture(scatter, spectrum / variance if variance > 0 else spectrum, (size[0], size[1]), reach)


def draw_texture(
    texture: Texture, rest: NDArray[np.float64], known: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a draw of the rest, shape (y, x), given what it is on known pixels near those that are not.

    Parameters
    ----------
    texture : Texture
    rest : ndarray, shape (y, x)
        As it is where it is known.
    known : ndarray, shape (y, x), bool
    rng : numpy.random.Generator
    """
    drawn = texture.draw(rng)
    near = known & (ndimage.distance_transform_edt(known) <= texture.reach)
    if not near.any():
        return drawn * texture.scatter
    unit = (rest / np.maximum(texture.scatter, 1e-30)).clip(-_CLIP, _CLIP)
    lacking = np.where(near, unit - drawn, 0.0)

    def covariance(field: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(near, texture.correlate(field) + _NUGGET * field, 0.0)

    weights = _solve(covariance, lacking)
    return (drawn + texture.correlate(weights)) * texture.scatter


def _scatter_by_brightness(
    rest: NDArray[np.float64], estimate: NDArray[np.float64], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the scatter of each pixel: that of known pixels of equal brightness, so many at once."""
    count = int(known.sum())
    bins = min(_BINS, count // _FEWEST)
    if bins < 1:
        return np.full(rest.shape, robust_scatter(rest[known]))
    order = np.argsort(estimate[known], kind="stable")
    # half of the pixels are sky: bins grow finer towards the bright end
    edges = np.unique(np.round(count * (1 - 0.5 ** np.arange(bins + 1))).astype(int))
    edges = np.append(edges[edges <= count - _FEWEST], count)
    parts = [order[first:last] for first, last in pairwise(edges)]
    levels = np.array([np.median(estimate[known][part]) for part in parts])
    scatters = np.array([_clipped_rms(rest[known][part]) for part in parts])
    return np.interp(estimate, levels, scatters)


def _clipped_rms(values: NDArray[np.float64]) -> float:
    limit = _CLIP * robust_scatter(values)
    kept = values[np.abs(values) <= limit] if limit > 0 else values
    return float(np.sqrt(np.mean(kept**2))) if kept.size else 0.0


def _taper(length: int, reach: int) -> NDArray[np.float64]:
    """Return 1 at no lag and near, falling to 0 at `reach`, for the lags of a Fourier transform."""
    lag = np.minimum(np.arange(length), length - np.arange(length))
    return np.where(lag < reach, np.cos(0.5 * np.pi * lag / reach) ** 2, 0.0)


def _solve(
    apply: Callable[[NDArray[np.float64]], NDArray[np.float64]], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the solution of a symmetric positive system by conjugate gradients (Hestenes and Stiefel 1952)."""
    found, rest = np.zeros_like(wanted), wanted.copy()
    towards, squared = rest.copy(), float((rest**2).sum())
    end = _TOLERANCE**2 * squared
    for _ in range(_ROUNDS):
        if squared <= end:
            break
        through = apply(towards)
        step = squared / float((towards * through).sum())
        found += step * towards
        rest -= step * through
        now = float((rest**2).sum())
        towards, squared = rest + (now / squared) * towards, now
    return found
