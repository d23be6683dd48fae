"""The six quantities of the Synthetic Galaxy Distance, as published and with true half-light radii.

Smith, Geach, Jackson et al. 2022, MNRAS 511, 1808, arXiv 2111.01713. Each band's flux within 6 pixels of 0.262 arcsec around the
image's middle, sky from the four corners taken off, as a magnitude; the radius at which the first band falls to half
of its central brightness; and colours of neighbouring bands. The distance is the plain sum of their Wasserstein-1 distances,
magnitudes and arcsec together.

The published images have 256 pixels of 0.262 arcsec. On others the aperture keeps its 1.57 arcsec, the corners their share of the
side (20 of 256 pixels), and no radius is below one pixel.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.sky.morphology import Values
from tasks.sky.photometry import magnitude

APERTURE_ARCSEC = 1.57
CORNER_SHARE = 1 / 12.8
_CORE_PIXELS = 2.0


def quantity_names(bands: tuple[str, ...], *, radius: str = "radius") -> tuple[str, ...]:
    """Return names of the quantities: magnitudes, a radius of the first band, colours.

    Examples
    --------
    >>> quantity_names(("g", "r", "z"))
    ('m_g', 'm_r', 'm_z', 'radius', 'g-r', 'r-z')
    """
    colours = (f"{blue}-{red}" for blue, red in pairwise(bands))
    return (*(f"m_{band}" for band in bands), radius, *colours)


def published_quantities(images: NDArray[np.floating], pixel_scale_arcsec: float) -> Values:
    """Return the quantities as published.

    Parameters
    ----------
    images : ndarray, shape (n, band, y, x)
        Nanomaggies per pixel; square, bands by wavelength.
    pixel_scale_arcsec : float
        Side of a pixel.

    Returns
    -------
    ndarray, shape (n, 2 band)
        In the order of `quantity_names`: AB mag, arcsec, mag; NaN where the flux is not positive or the brightness does not fall to half.
    """
    magnitudes = aperture_magnitudes(images, pixel_scale_arcsec)
    radius = half_brightness_radii(images[:, 0], pixel_scale_arcsec)
    return with_radius(magnitudes, radius)


def with_radius(magnitudes: Values, radius: Values) -> Values:
    """Return the quantities, shape (n, 2 band), from magnitudes (n, band) and a radius (n,) in arcsec."""
    colours = magnitudes[:, :-1] - magnitudes[:, 1:]
    return np.concatenate([magnitudes, radius[:, None], colours], axis=1)


def aperture_magnitudes(images: NDArray[np.floating], pixel_scale_arcsec: float) -> Values:
    """Return AB magnitudes within `APERTURE_ARCSEC` of the middle, shape (n, band): whole pixels, the corners' median taken off."""
    flux = images.astype(np.float64)
    aperture = _distance(images.shape[-1]) <= APERTURE_ARCSEC / pixel_scale_arcsec
    background = corner_medians(flux)
    return magnitude(flux[..., aperture].sum(axis=-1) - aperture.sum() * background)


def corner_medians(images: NDArray[np.floating]) -> Values:
    """Return the median of the pixels of the four corners, shape (n, band)."""
    side = max(2, round(images.shape[-1] * CORNER_SHARE))
    ends = (slice(0, side), slice(-side, None))
    boxes = [images[..., rows, columns] for rows in ends for columns in ends]
    flat = np.concatenate([box.reshape(*images.shape[:-2], -1) for box in boxes], axis=-1)
    return np.asarray(np.median(flat, axis=-1), dtype=np.float64)


def half_brightness_radii(images: NDArray[np.floating], pixel_scale_arcsec: float) -> Values:
    """Return the published radius of images of one band (n, y, x), arcsec; NaN where the brightness does not fall to half.

    The image is scaled to 0 to 1; the reference is the median of the disc of 2 pixels in the middle. The radius is that of the
    first ring, one pixel wide, whose median is no more than half of it, minus one pixel, and at least one pixel.
    """
    low = images.min(axis=(1, 2), keepdims=True)
    scaled = images.astype(np.float64) - low
    distance = _distance(images.shape[-1])
    reference = np.median(scaled[:, distance <= _CORE_PIXELS], axis=1)
    found = np.full(len(images), np.nan)
    # from the outermost ring inwards, so that the innermost one stays
    for ring in range(images.shape[-1] // 2 - 1, 0, -1):
        inside = (distance >= ring) & (distance < ring + 1)
        dark = np.median(scaled[:, inside], axis=1) <= reference / 2
        found[dark] = max(ring - 1, 1)
    return found * pixel_scale_arcsec


def _distance(side: int) -> Values:
    place = np.arange(side) - (side - 1) / 2
    return np.hypot(place[:, None], place)
