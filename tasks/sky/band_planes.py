"""One band of a cutout, ready for measuring: which pixels count, their variance, and the sky around the object."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.cutouts import TARGET, Cutout
from tasks.sky.neighbours import patch_extent, source_free
from tasks.sky.noise import Sky, combine_skies, measure_sky, robust_scatter
from tasks.sky.prepare import smoothing_width

_FREE_OF_OBJECT = (2.0, 1.6, 1.3)
_ZONES = (1.0, 1.5, 2.25, 3.5)
"""Inner edges of rings of sky, in units of where it begins."""
_FEWEST_SKY_SHARE = 0.05
_FEWEST_SKY_PIXELS = 400


@dataclass(frozen=True)
class BandPlane:
    """One band, ready for measuring.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        Flux per pixel, sky taken off.
    good : ndarray, shape (y, x), bool
        Valid, and no neighbour's.
    variance : ndarray, shape (y, x)
        Of single pixels.
    sky : Sky
        What was taken off.
    guessed : bool
        Whether the object leaves too little of the image for a sky.
    signal : float
        Of the object, over its noise.
    """

    image: NDArray[np.float64]
    good: NDArray[np.bool_]
    variance: NDArray[np.float64]
    sky: Sky
    guessed: bool
    signal: float


def band_plane(cutout: Cutout, index: int) -> BandPlane:
    """Return a band of a cutout whose neighbours are labelled; its object is there (`prepare.has_object`)."""
    valid, flux, labels = cutout.valid[index], cutout.flux[index].astype(float), cutout.segmentation
    growth = math.ceil(1.5 * smoothing_width(cutout))
    neighbours = labels > TARGET
    if neighbours.any():
        grown = ndimage.distance_transform_edt(~neighbours) <= growth
        neighbours |= grown & (labels != TARGET)
    good = valid & ~neighbours
    sky, guessed = _sky(flux, labels, valid, growth)
    ivar = cutout.ivar[index].astype(float)
    variance = np.where(ivar > 0, 1 / np.maximum(ivar, 1e-30), sky.sigma**2)
    mine = good & (labels == TARGET)
    signal = (
        float((flux[mine] - sky.level).sum() / math.sqrt(max(float(variance[mine].sum()), 1e-30)))
        if mine.any()
        else 0.0
    )
    return BandPlane(flux - sky.level, good, variance, sky, guessed, signal)


def _sky(
    flux: NDArray[np.float64], labels: NDArray[np.int32], valid: NDArray[np.bool_], growth: int
) -> tuple[Sky, bool]:
    """Return the sky, and whether it is a guess: the object leaves too little of the image."""
    clear = source_free(labels, valid, growth=growth)
    rows, columns = np.nonzero(labels == TARGET)
    x, y = float(columns.mean()), float(rows.mean())
    extent = patch_extent(labels, x, y)
    far = np.hypot(*(np.indices(labels.shape) - np.array([y, x])[:, None, None]))
    for factor in _FREE_OF_OBJECT:
        beyond = clear & (far > factor * extent)
        if beyond.sum() > max(_FEWEST_SKY_SHARE * valid.sum(), _FEWEST_SKY_PIXELS):
            zone = np.digitize(far, factor * extent * np.array(_ZONES))
            rings = [measure_sky(flux, beyond & (zone == index)) for index in range(1, len(_ZONES) + 1)]
            parts = [ring for ring in rings if ring is not None and ring.pixels >= _FEWEST_SKY_PIXELS]
            if parts:
                return combine_skies(parts), factor < _FREE_OF_OBJECT[0]
    found = measure_sky(flux, clear)
    if found is not None and clear.sum() > _FEWEST_SKY_PIXELS:
        return found, True
    rim = valid & (np.minimum.reduce([*_from_rim(labels.shape)]) < max(3, min(labels.shape) // 20))
    values = np.sort(flux[rim if rim.any() else valid])
    lowest = values[: max(values.size // 4, 1)]
    spread = robust_scatter(values)
    return Sky(float(lowest.mean()), spread, robust_scatter(lowest) or spread or 1.0, 1.0, int(lowest.size)), True


def _from_rim(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    rows, columns = np.indices(shape)
    return rows, columns, shape[0] - 1 - rows, shape[1] - 1 - columns
