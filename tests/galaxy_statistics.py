"""What tells real from generated images beside `tasks.sky.morphology`. Images are (band, y, x), y upwards."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.sky.morphology import Skies, measure_skies, power_spectra

Image = NDArray[np.float64]


def corner_skies(images: Image, side: int) -> Skies:
    """Return the median over the four corners of each image (..., y, x) of what their sky is."""
    ends = (slice(0, side), slice(-side, None))
    found = measure_skies(np.stack([images[..., rows, columns] for rows in ends for columns in ends]))
    return Skies(*(np.median(getattr(found, each.name), axis=0) for each in fields(Skies)))


def sources_per_arcmin2(image: Image, pixel_scale_arcsec: float) -> float:
    """Return how many sources stand out by 5 sigma over the size of a star, per arcmin^2."""
    found = measure_skies(image)
    smooth = ndimage.gaussian_filter(image - found.median, 0.5 / pixel_scale_arcsec)
    labels, count = ndimage.label(smooth > 5 * found.scatter)
    sizes = ndimage.sum_labels(np.ones_like(smooth), labels, range(1, count + 1))
    area = image.size * (pixel_scale_arcsec / 60) ** 2
    return float((sizes > np.pi * (0.6 / pixel_scale_arcsec) ** 2).sum() / area)


def spectrum_slope(image: Image, pixel_scale_arcsec: float) -> float:
    """Return the slope of the power spectrum between waves of 12 and 2.5 arcsec."""
    edges = np.geomspace(1 / 12, 1 / 2.5, 7)
    means = power_spectra(image[None], pixel_scale_arcsec, edges)[0]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0])


def patches(image: Image, side: int) -> list[Image]:
    """Return the squares that an image (band, y, x) holds, row by row."""
    rows, columns = image.shape[1] // side, image.shape[2] // side
    return [image[:, side * j : side * (j + 1), side * i : side * (i + 1)] for j in range(rows) for i in range(columns)]


def patch_features(patch: Image) -> list[float]:
    """Return what a classifier is told of a patch, in units of its own noise: sky, tails, and how bands go together."""
    found: list[float] = []
    standard = []
    skies = measure_skies(patch)
    for band, median, scatter, correlation in zip(patch, skies.median, skies.scatter, skies.correlation, strict=True):
        scaled = (band - median) / scatter
        standard.append(np.arcsinh(scaled))
        tails = [float(np.arcsinh(value)) for value in np.percentile(scaled, [1, 90, 99, 99.9])]
        found += [median / scatter, correlation, *tails]
    found += [float(np.corrcoef(standard[i].ravel(), standard[j].ravel())[0, 1]) for i, j in ((0, 1), (1, 2))]
    smooth = ndimage.gaussian_filter(standard[1], 2)
    found += [float(np.std(smooth)), float(np.std(np.diff(standard[1], axis=0)))]
    return found
