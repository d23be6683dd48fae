"""What is measured alike on real and on generated images of galaxies. Images are (band, y, x), y upwards."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Sky:
    """Median, scatter and correlation of neighbouring pixels of what is left when sources are clipped."""

    median: float
    scatter: float
    correlation: float


def sky(image: Image) -> Sky:
    """Return the sky of one band."""
    median, scatter = float(np.median(image)), float("inf")
    kept = np.ones(image.shape, dtype=bool)
    for _ in range(6):
        median = float(np.median(image[kept]))
        scatter = 1.4826 * float(np.median(abs(image[kept] - median)))
        kept = abs(image - median) < 3 * scatter
    rest = np.where(kept, image - median, np.nan)
    pairs = [rest[:, 1:] * rest[:, :-1], (rest[1:] * rest[:-1])]
    return Sky(median, scatter, float(np.mean([np.nanmean(pair) for pair in pairs]) / np.nanvar(rest)))


def sources_per_arcmin2(image: Image, pixel_scale_arcsec: float) -> float:
    """Return how many sources stand out by 5 sigma over the size of a star, per arcmin^2."""
    found = sky(image)
    smooth = ndimage.gaussian_filter(image - found.median, 0.5 / pixel_scale_arcsec)
    labels, count = ndimage.label(smooth > 5 * found.scatter)
    sizes = ndimage.sum_labels(np.ones_like(smooth), labels, range(1, count + 1))
    area = image.size * (pixel_scale_arcsec / 60) ** 2
    return float((sizes > np.pi * (0.6 / pixel_scale_arcsec) ** 2).sum() / area)


def corners(image: Image, side: int) -> Sky:
    """Return the median over the four corners of one band of what their sky is."""
    ends = (slice(0, side), slice(-side, None))
    found = [sky(image[rows, columns]) for rows in ends for columns in ends]
    return Sky(*(float(np.median([getattr(one, each.name) for one in found])) for each in fields(Sky)))


@dataclass(frozen=True)
class Shape:
    """Half-light radius in pixels, concentration, asymmetry and Gini coefficient within 1.5 times the radius of 80 % of the light."""

    half_light: float
    concentration: float
    asymmetry: float
    gini: float


def shape(image: Image) -> Shape:
    """Return the shape of the galaxy in the middle of a band (Conselice 2003; Lotz et al. 2004), others' light cut out."""
    image = image - sky(image).median
    size = image.shape[0] // 2 * 2 - 1
    image = image[:size, :size]
    middle = size // 2
    y, x = np.indices(image.shape)
    near = np.hypot(y - middle, x - middle) < 12
    cy, cx = ndimage.center_of_mass(np.where(near, np.clip(image, 0, None), 0))
    distance = np.hypot(y - cy, x - cx)
    edge = min(cy, cx, size - 1 - cy, size - 1 - cx)
    rings = np.arange(int(edge))
    means = np.array([np.median(image[(distance >= r) & (distance < r + 1)]) for r in rings])
    light = np.cumsum(means * (2 * rings + 1))
    # the curve of growth is taken to its top: beyond it only sky is left
    light = light[: int(light.argmax()) + 1] / light.max()
    r20, r50, r80 = (float(np.interp(share, light, rings[: len(light)] + 1)) for share in (0.2, 0.5, 0.8))
    half = min(int(1.5 * r80), int(edge) - 1)
    iy, ix = round(cy), round(cx)
    cut = image[iy - half : iy + half + 1, ix - half : ix + half + 1]
    round_ = np.hypot(*np.indices(cut.shape) - half) <= half
    asymmetry = abs(cut - cut[::-1, ::-1])[round_].sum() / abs(cut)[round_].sum()
    values = np.sort(abs(cut[round_]))
    order = 2 * np.arange(1, len(values) + 1) - len(values) - 1
    gini = (order * values).sum() / (values.mean() * len(values) * (len(values) - 1))
    return Shape(r50, 5 * np.log10(r80 / r20), float(asymmetry), float(gini))


def spectrum_slope(image: Image, pixel_scale_arcsec: float) -> float:
    """Return the slope of the power spectrum between waves of 12 and 2.5 arcsec."""
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    power = abs(np.fft.fft2((image - np.median(image)) * window)) ** 2
    wave = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, d=pixel_scale_arcsec) for n in image.shape), indexing="ij"))
    edges = np.geomspace(1 / 12, 1 / 2.5, 7)
    means = [power[(wave >= low) & (wave < high)].mean() for low, high in pairwise(edges)]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0])


def patches(image: Image, side: int) -> list[Image]:
    """Return the squares that an image (band, y, x) holds, row by row."""
    rows, columns = image.shape[1] // side, image.shape[2] // side
    return [image[:, side * j : side * (j + 1), side * i : side * (i + 1)] for j in range(rows) for i in range(columns)]


def patch_features(patch: Image) -> list[float]:
    """Return what a classifier is told of a patch, in units of its own noise: sky, tails, and how bands go together."""
    found: list[float] = []
    standard = []
    for band in patch:
        level = sky(band)
        scaled = (band - level.median) / level.scatter
        standard.append(np.arcsinh(scaled))
        tails = [float(np.arcsinh(value)) for value in np.percentile(scaled, [1, 90, 99, 99.9])]
        found += [level.median / level.scatter, level.correlation, *tails]
    found += [float(np.corrcoef(standard[i].ravel(), standard[j].ravel())[0, 1]) for i, j in ((0, 1), (1, 2))]
    smooth = ndimage.gaussian_filter(standard[1], 2)
    found += [float(np.std(smooth)), float(np.std(np.diff(standard[1], axis=0)))]
    return found
