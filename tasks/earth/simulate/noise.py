"""Random fields: the raw material of woods, clouds and texture."""

from __future__ import annotations

import numpy as np
from scipy import fft


def generator(seed: int, *keys: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the keys alone, whatever thread asks in whatever order."""
    return np.random.default_rng(np.random.SeedSequence([seed, *keys]))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], *, scale: float) -> np.ndarray:
    """Return a Gaussian field of mean 0 and standard deviation 1 with one scale.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Rows and columns.
    scale : float
        Standard deviation of the blur that made it, pixels.

    Returns
    -------
    ndarray, shape (rows, columns), float32
    """
    frequency = _frequencies(_padded(shape, margin=3 * scale))
    return _filtered(rng, shape, np.exp(-2.0 * (np.pi * scale * frequency) ** 2))


def fractal_field(rng: np.random.Generator, shape: tuple[int, int], *, longest: float, slope: float) -> np.ndarray:
    """Return a Gaussian field of mean 0 and standard deviation 1 whose amplitude falls as frequency ** -slope.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Rows and columns.
    longest : float
        Wavelength in pixels beyond which there is no more power.
    slope : float
        1.0 is rough, 2.0 is smooth.

    Returns
    -------
    ndarray, shape (rows, columns), float32
    """
    frequency = _frequencies(_padded(shape, margin=longest / 2))
    return _filtered(rng, shape, (frequency**2 + (1.0 / longest) ** 2) ** (-slope / 2))


def _padded(shape: tuple[int, int], *, margin: float) -> tuple[int, int]:
    """Return a size that Fourier transforms like, columns even, wide enough that opposite edges do not meet."""
    extra = int(min(margin, max(shape)))
    rows, half_columns = shape[0] + extra, (shape[1] + extra + 1) // 2
    return fft.next_fast_len(rows, real=True), 2 * fft.next_fast_len(half_columns, real=True)


def _frequencies(shape: tuple[int, int]) -> np.ndarray:
    """Return the radial frequency of each Fourier coefficient, cycles per pixel."""
    return np.asarray(np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None, :]), dtype=np.float32)


def _filtered(rng: np.random.Generator, shape: tuple[int, int], gain: np.ndarray) -> np.ndarray:
    """Return filtered white noise, cut to shape; scaled by the filter's power, not by what this draw came to."""
    rows = gain.shape[0]
    columns = 2 * (gain.shape[1] - 1)
    white = rng.standard_normal((rows, columns), dtype=np.float32)
    gain = gain.astype(np.float32)
    gain[0, 0] = 0.0
    power = (gain[:, 1:-1] ** 2).sum() * 2 + (gain[:, 0] ** 2).sum() + (gain[:, -1] ** 2).sum()
    field = fft.irfft2(fft.rfft2(white) * gain, s=(rows, columns)) / np.sqrt(power / (rows * columns))
    return np.asarray(field[: shape[0], : shape[1]], dtype=np.float32)
