"""What is measured alike on real and on generated images of galaxies, many at once: sky, shapes, power spectra.

Images are (..., y, x), flux per pixel, y upwards; the galaxy lies near the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tasks.sky.noise import MAD_TO_SIGMA

Values = NDArray[np.float64]

_CLIP, _ROUNDS = 3.0, 6
_PIECE = 250
"""Images that are worked on at once."""
_TURNS = 8
_FEWEST_PIXELS = 20


@dataclass(frozen=True)
class Skies:
    """What is left of images when sources are clipped.

    Parameters
    ----------
    median, scatter : ndarray, shape (...)
        Flux per pixel; the scatter as a standard deviation.
    correlation : ndarray, shape (...)
        Of pixels side by side.
    """

    median: Values
    scatter: Values
    correlation: Values


@dataclass(frozen=True)
class Shapes:
    """Shapes of galaxies, each shape (image,); NaN where there is no light.

    Parameters
    ----------
    half_light : ndarray
        Radius in pixels that holds half of the light, by the curve of growth from medians of rings.
    concentration : ndarray
        5 log10 of the radii of 80 and 20 % of the light (Conselice 2003).
    asymmetry : ndarray
        Of the image and itself turned by half a turn, noise included, within 1.5 times the radius of 80 %.
    gini, m20 : ndarray
        Within the same circle (Lotz, Primack and Madau 2004).
    ellipticity : ndarray
        (1 - q^2) / (1 + q^2) of axis ratio q, from second moments under a Gaussian weight of the half-light radius.
    """

    half_light: Values
    concentration: Values
    asymmetry: Values
    gini: Values
    m20: Values
    ellipticity: Values


def measure_skies(images: NDArray[np.floating]) -> Skies:
    """Return the sky of each image: pixels within three sigma of the median, found anew six times.

    Parameters
    ----------
    images : ndarray, shape (..., y, x)
        Flux per pixel.
    """
    lead = images.shape[:-2]
    found = [_skies_of(part) for part in _pieces(images.reshape(-1, *images.shape[-2:]))]
    return Skies(*(np.concatenate([getattr(one, each.name) for one in found]).reshape(lead) for each in fields(Skies)))


def corner_noise(images: NDArray[np.floating]) -> tuple[Values, Values]:
    """Return scatter of single pixels and correlation of those side by side, from differences in the four corners.

    What a galaxy leaves in a corner is smooth: it drops out of differences, and would not out of a scatter. Pixels two apart are taken
    as independent.

    Parameters
    ----------
    images : ndarray, shape (..., y, x)
        Flux per pixel.

    Returns
    -------
    scatter, correlation : ndarray, shape (...)
    """
    side = max(8, images.shape[-1] // 4)
    ends = (slice(0, side), slice(-side, None))
    boxes = [images[..., rows, columns].astype(np.float64) for rows in ends for columns in ends]
    near, far = (_difference_scatter(boxes, step) for step in (1, 2))
    ratio = np.divide(near, far, out=np.ones_like(near), where=far > 0)
    return far / np.sqrt(2), 1 - ratio**2


def measure_shapes(images: NDArray[np.floating]) -> Shapes:
    """Return the shapes of the galaxies in the middle of images of one size.

    The middle of a galaxy is a pixel: the one that the centroid under a Gaussian of 1/48 of the side lies in.

    Parameters
    ----------
    images : ndarray, shape (image, y, x)
        Flux per pixel of one band, 32 pixels a side or more.
    """
    found = [_shapes_of(part) for part in _pieces(images)]
    return Shapes(*(np.concatenate([getattr(one, each.name) for one in found]) for each in fields(Shapes)))


def power_spectra(images: NDArray[np.floating], pixel_scale_arcsec: float, edges: NDArray[np.floating]) -> Values:
    """Return the mean power of each image between wave numbers, sky taken off and edges tapered (Hann).

    Parameters
    ----------
    images : ndarray, shape (image, y, x)
        Flux per pixel.
    pixel_scale_arcsec : float
        Side of a pixel.
    edges : ndarray, shape (bin + 1,)
        Waves per arcsec, rising.

    Returns
    -------
    ndarray, shape (image, bin)
        Squared flux; NaN where no wave lies in a bin.
    """
    rows, columns = images.shape[-2:]
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    wave = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, d=pixel_scale_arcsec) for n in (rows, columns)), indexing="ij"))
    bins = np.digitize(wave.ravel(), edges) - 1
    inside = (bins >= 0) & (bins < len(edges) - 1)
    sums = np.zeros((rows * columns, len(edges) - 1))
    sums[np.flatnonzero(inside), bins[inside]] = 1.0
    counts = sums.sum(axis=0)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    found = []
    for part in _pieces(images):
        level = np.median(part, axis=(-2, -1), keepdims=True)
        power = np.abs(np.fft.fft2((part - level) * window)) ** 2
        found.append(power.reshape(len(part), -1) @ means)
    return np.concatenate(found)


def _difference_scatter(boxes: list[Values], step: int) -> Values:
    lead = boxes[0].shape[:-2]
    parts = [(box[..., step:, :] - box[..., :-step, :]).reshape(*lead, -1) for box in boxes]
    parts += [(box[..., step:] - box[..., :-step]).reshape(*lead, -1) for box in boxes]
    return MAD_TO_SIGMA * np.median(np.abs(np.concatenate(parts, axis=-1)), axis=-1)


def _pieces(images: NDArray[np.floating]) -> Iterator[Values]:
    for start in range(0, len(images), _PIECE):
        yield images[start : start + _PIECE].astype(np.float64)


def _skies_of(images: Values) -> Skies:
    """Return skies, shape (image,). What is kept lies between two values, so one sorting serves all rounds."""
    flat = np.sort(images.reshape(len(images), -1), axis=1)
    count = flat.shape[1]
    low, high = np.zeros(len(flat), dtype=int), np.full(len(flat), count)
    rows = np.arange(len(flat))

    def at(share: float) -> Values:
        return flat[rows, np.minimum(low + (share * (high - low)).astype(int), high - 1)]

    median, scatter = at(0.5), np.zeros(len(flat))
    for _ in range(_ROUNDS):
        median = at(0.5)
        # half of the quartiles' distance is the median absolute deviation where both sides are alike
        scatter = MAD_TO_SIGMA * 0.5 * (at(0.75) - at(0.25))
        low = (flat < (median - _CLIP * scatter)[:, None]).sum(axis=1)
        high = np.maximum((flat <= (median + _CLIP * scatter)[:, None]).sum(axis=1), low + 1)
    rest = images - median[:, None, None]
    kept = np.abs(rest) <= _CLIP * scatter[:, None, None]
    rest = np.where(kept, rest, 0.0)
    products = np.zeros(len(flat))
    pairs = np.zeros(len(flat))
    for one, other in ((np.s_[:, :, 1:], np.s_[:, :, :-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        products += (rest[one] * rest[other]).sum(axis=(1, 2))
        pairs += (kept[one] & kept[other]).sum(axis=(1, 2))
    counted = np.maximum(kept.sum(axis=(1, 2)), 1)
    mean = rest.sum(axis=(1, 2)) / counted
    variance = (rest**2).sum(axis=(1, 2)) / counted - mean**2
    correlation = np.divide(products / np.maximum(pairs, 1), variance, out=np.zeros(len(flat)), where=variance > 0)
    return Skies(median, scatter, correlation)


def _shapes_of(images: Values) -> Shapes:
    size = min(images.shape[-2:])
    images = images[:, :size, :size] - _skies_of(images).median[:, None, None]
    images = _centred(images)
    reach = images.shape[-1] // 2
    y, x = np.indices(images.shape[1:]) - reach
    distance = np.hypot(y, x)
    rings = np.arange(reach)
    means = np.stack([np.median(images[:, (distance >= r) & (distance < r + 1)], axis=1) for r in rings], axis=1)
    # the curve of growth is taken to its top: beyond it only sky is left
    light = np.maximum.accumulate(np.cumsum(means * (2 * rings + 1), axis=1), axis=1)
    total = light[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = np.where((total > 0)[:, None], light / total[:, None], np.nan)
        r20, r50, r80 = (_crossing(curve, share) for share in (0.2, 0.5, 0.8))
        concentration = 5 * np.log10(r80 / r20)
    half = np.minimum(np.floor(1.5 * np.nan_to_num(r80)), reach - 1)
    round_ = distance[None] <= half[:, None, None]
    shapes = Shapes(
        r50,
        concentration,
        _ratio(np.abs(images - images[:, ::-1, ::-1]), np.abs(images), round_),
        _gini(images, round_),
        _m20(images, round_, distance),
        _ellipticity(images, y, x, r50),
    )
    lit = np.isfinite(r80)
    return Shapes(*(np.where(lit, getattr(shapes, each.name), np.nan) for each in fields(Shapes)))


def _centred(images: Values) -> Values:
    """Return windows of odd side around the pixel in which each galaxy's centroid lies."""
    size = images.shape[-1]
    middle, most = (size - 1) // 2, size // 32
    y, x = np.indices(images.shape[1:]).astype(float)
    light = np.clip(images, 0, None)
    cy = cx = np.full(len(images), (size - 1) / 2)
    for _ in range(_TURNS):
        far = (y - cy[:, None, None]) ** 2 + (x - cx[:, None, None]) ** 2
        weight = light * np.exp(-0.5 * far / (size / 48) ** 2)
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-30)
        cy, cx = ((weight * place).sum(axis=(1, 2)) / total for place in (y, x))
    ys, xs = (np.clip(np.rint(c).astype(int) - middle, -most, most) for c in (cy, cx))
    reach = middle - most
    windows = np.empty((len(images), 2 * reach + 1, 2 * reach + 1))
    for index, (dy, dx) in enumerate(zip(ys, xs, strict=True)):
        row, column = middle + dy - reach, middle + dx - reach
        windows[index] = images[index, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
    return windows


def _crossing(curve: Values, share: float) -> Values:
    """Return the radius at which each curve of growth, one value for each whole radius from 1, reaches a share."""
    below = (curve < share).sum(axis=1)
    rows = np.arange(len(curve))
    after = curve[rows, np.minimum(below, curve.shape[1] - 1)]
    before = np.where(below > 0, curve[rows, np.maximum(below - 1, 0)], 0.0)
    # the share at which a step begins grows with its radius from nothing
    step = np.divide(share - before, after - before, out=np.zeros(len(curve)), where=after > before)
    return np.where(np.isfinite(curve[:, -1]), below + step, np.nan)


def _ratio(over: Values, under: Values, inside: NDArray[np.bool_]) -> Values:
    below = (under * inside).sum(axis=(1, 2))
    return np.divide((over * inside).sum(axis=(1, 2)), below, out=np.full(len(over), np.nan), where=below > 0)


def _gini(images: Values, inside: NDArray[np.bool_]) -> Values:
    """Return Gini coefficients of absolute values: pixels outside sort to the front as zeros, and count nothing."""
    values = np.sort((np.abs(images) * inside).reshape(len(images), -1), axis=1)
    count = inside.sum(axis=(1, 2))
    order = np.arange(1, values.shape[1] + 1) - (values.shape[1] - count[:, None])
    weighted = ((2 * order - count[:, None] - 1) * values).sum(axis=1)
    below = values.sum(axis=1) * (count - 1)
    return np.divide(weighted, below, out=np.full(len(images), np.nan), where=(below > 0) & (count > _FEWEST_PIXELS))


def _m20(images: Values, inside: NDArray[np.bool_], distance: Values) -> Values:
    """Return log10 of the second moment of the brightest pixels, of a fifth of the light, over that of all."""
    light = (np.clip(images, 0, None) * inside).reshape(len(images), -1)
    moments = light * (distance**2).ravel()
    order = np.argsort(-light, axis=1, kind="stable")
    ranked = np.take_along_axis(light, order, axis=1)
    summed = np.cumsum(ranked, axis=1)
    bright = summed - ranked < 0.2 * summed[:, -1:]
    brightest = (np.take_along_axis(moments, order, axis=1) * bright).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.log10(brightest / moments.sum(axis=1))
    return np.where(np.isfinite(found), found, np.nan)


def _ellipticity(images: Values, y: NDArray[np.int64], x: NDArray[np.int64], width: Values) -> Values:
    width = np.nan_to_num(width, nan=1.0)
    weight = images * np.exp(-0.5 * (y**2 + x**2) / np.maximum(width, 1.0)[:, None, None] ** 2)
    total = weight.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        cy, cx = ((weight * place).sum(axis=(1, 2)) / total for place in (y, x))
        yy, xx, yx = ((weight * place).sum(axis=(1, 2)) / total for place in (y**2, x**2, y * x))
        yy, xx, yx = yy - cy**2, xx - cx**2, yx - cx * cy
        found = np.hypot(xx - yy, 2 * yx) / (xx + yy)
    return np.where(np.isfinite(found) & (found <= 1), found, np.nan)
