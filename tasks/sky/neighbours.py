"""Which pixels are the object's, which are its neighbours', which are sky."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.cutouts import TARGET
from tasks.sky.noise import clipped_mean

_DETECTION_SIGMA = 2.0
_CERTAIN_SIGMA = 4.0
_SMALLEST_PIXELS = 9
_LEVELS = 32
_FEWEST_ON_TOP = 6
_PROMINENCE = 1.5
_CERTAIN_PROMINENCE = 3.0
_TOP_SIGMA = 6.0
_LONE_SHARE = 0.5
_HALO = 1.2
_GROWTH_SIGMA = 2.5
_GROWTH_SHARE = 0.5
_SHARPNESS_ON_TOP = 1.9
_WIDE = 3.0
_ARM_REACH = 8.0
_SHARPNESS = 2.2
"""By how much a star's peak drops when it is smoothed three times as widely, at the least; one of a point source drops by 4."""
_SEARCH_SHARE = 0.1
_SEARCH_ARCSEC = 3.0
_LEAST_SEARCH = 3.0


@dataclass(frozen=True)
class Sources:
    """What was found in an image.

    Parameters
    ----------
    labels : ndarray, shape (y, x), int32
        0 sky, `TARGET` the object, 2 and up neighbours.
    x, y : float
        The object's middle, pixels from the centre of the lower-left one.
    """

    labels: NDArray[np.int32]
    x: float
    y: float


def find_sources(
    image: NDArray[np.floating],
    valid: NDArray[np.bool_],
    *,
    x: float,
    y: float,
    pixel_scale_arcsec: float,
    width: float,
) -> Sources | None:
    """Return the object at a place and its neighbours, or None where nothing stands out of the noise.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        One band, or several added up.
    valid : ndarray, shape (y, x), bool
        Where there is data.
    x, y : float
        Where the object should be, pixels.
    pixel_scale_arcsec : float
        Of the image.
    width : float
        Standard deviation of the point spread function, pixels: the image is smoothed by it to find faint things.

    Notes
    -----
    A neighbour apart from the object is a patch of its own above two sigma of the smoothed image that somewhere passes
    four: patches of noise would take its heights out of the sky and leave that too low. One on top of it has
    a peak of its own beyond a saddle (multi-threshold deblending, Bertin and Arnouts 1996) and no counterpart when the
    object is turned by 180 degrees (the idea of the SDSS deblender, Lupton 2001): two arms survive that, a star does not.
    """
    smooth = _smoothed(image, valid, width)
    level, scatter = clipped_mean(smooth[valid])
    if scatter <= 0:
        return None
    patches = _patches(smooth - level > _DETECTION_SIGMA * scatter, certain=smooth - level > _CERTAIN_SIGMA * scatter)
    found = _object_at(patches, smooth - level, x, y, search_radius(image.shape, pixel_scale_arcsec))
    if found is None:
        return None
    own, middle = found
    mine = patches == own
    labels = np.where(patches > 0, patches + TARGET, 0)
    labels[mine] = TARGET
    smooth, wide = smooth - level, _smoothed(image, valid, _WIDE * width) - level
    labels = _with_arms(labels, smooth, wide, reach=_ARM_REACH * width)
    tops = _patches(_on_top(smooth, wide, mine, middle, scatter=scatter), fewest=_FEWEST_ON_TOP)
    labels = np.where(tops > 0, tops + labels.max(), labels)
    return Sources(labels.astype(np.int32), *middle)


def _smoothed(image: NDArray[np.floating], valid: NDArray[np.bool_], width: float) -> NDArray[np.float64]:
    """Return the image smoothed over what is valid."""
    if valid.all():
        return np.asarray(ndimage.gaussian_filter(image.astype(float), width))
    weight = ndimage.gaussian_filter(valid.astype(float), width)
    total = ndimage.gaussian_filter(np.where(valid, image, 0.0).astype(float), width)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.05)


def _patches(
    above: NDArray[np.bool_], *, fewest: int = _SMALLEST_PIXELS, certain: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """Return connected patches, numbered from 1, without the smallest and those that hold nothing certain."""
    labels, count = ndimage.label(above)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= fewest
    if certain is not None:
        keep &= np.bincount(labels[certain], minlength=count + 1) > 0
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0)
    return numbers[labels].astype(np.int32)


def object_middle(
    image: NDArray[np.floating], mine: NDArray[np.bool_], *, x: float, y: float, radius: float, width: float
) -> tuple[float, float]:
    """Return the middle (x, y) of the object whose pixels are known: its brightest place near where it should be."""
    smooth = _smoothed(image, mine, width)
    found = _object_at(mine.astype(np.int32), np.where(mine, smooth, 0.0), x, y, radius)
    return found[1] if found is not None else (x, y)


def search_radius(shape: tuple[int, ...], pixel_scale_arcsec: float) -> float:
    """Return how far from the target, pixels, its light is looked for first."""
    return max(min(_SEARCH_ARCSEC / pixel_scale_arcsec, _SEARCH_SHARE * max(shape)), _LEAST_SEARCH)


def _object_at(
    patches: NDArray[np.int32], smooth: NDArray[np.float64], x: float, y: float, radius: float
) -> tuple[int, tuple[float, float]] | None:
    """Return the number of the object's patch, and its brightest place: bright counts, and near the target counts."""
    rows, columns = np.indices(smooth.shape)
    apart = np.hypot(rows - y, columns - x) / radius
    peaks = (smooth == ndimage.maximum_filter(smooth, size=5)) & (patches > 0) & (apart < 3.0) & (smooth > 0)
    if not peaks.any():
        return None
    at = np.flatnonzero(peaks.ravel())
    score = np.log(smooth.ravel()[at]) - 2.0 * apart.ravel()[at] ** 2
    best = int(at[np.argmax(score)])
    row, column = divmod(best, smooth.shape[1])
    return int(patches[row, column]), _centroid(smooth, row, column)


def _centroid(image: NDArray[np.float64], row: int, column: int) -> tuple[float, float]:
    """Return the light-weighted middle (x, y) of the brightest pixel and those around it."""
    half = 2
    top, left = max(row - half, 0), max(column - half, 0)
    box = image[top : row + half + 1, left : column + half + 1]
    weight = np.clip(box - np.median(box), 0, None)
    if weight.sum() <= 0:
        return float(column), float(row)
    rows, columns = np.indices(box.shape)
    return float(left + (columns * weight).sum() / weight.sum()), float(top + (rows * weight).sum() / weight.sum())


def _on_top(
    smooth: NDArray[np.float64],
    wide: NDArray[np.float64],
    mine: NDArray[np.bool_],
    middle: tuple[float, float],
    *,
    scatter: float,
) -> NDArray[np.bool_]:
    """Return what stands on the object's patch and is not its own.

    A neighbour is cut off from the object's middle by a saddle far below its own peak, has no counterpart on the other
    side, and is as sharp as a star or nearly so: pieces of arms are not.
    """
    box = ndimage.find_objects(mine.astype(np.uint8))[0]
    x, y = middle[0] - box[1].start, middle[1] - box[0].start
    stamp = _Stamp.of(np.where(mine, smooth, 0.0)[box], np.where(mine, wide, 0.0)[box], x, y)
    inside, excess = stamp.smooth, stamp.excess
    taken = np.zeros(inside.shape, dtype=bool)
    for level in np.geomspace(_DETECTION_SIGMA * scatter, max(inside.max(), 3 * scatter), _LEVELS)[1:]:
        for window, part in _parts_above(inside, level, x, y):
            if part.sum() < _FEWEST_ON_TOP or taken[window][part].any():
                continue
            if stamp.stands_alone(window, part, level=level, scatter=scatter):
                taken[window] |= part
    whole = np.zeros(mine.shape, dtype=bool)
    whole[box] = _grown(taken, inside, excess, scatter) if taken.any() else taken
    return whole


def _parts_above(
    image: NDArray[np.float64], level: float, x: float, y: float
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
    """Yield windows and parts of them that a level cuts off, but the one of the middle."""
    above = image > level
    # a high level leaves little: only there are parts looked for
    rows, columns = (_span(np.asarray(above.any(axis=axis))) for axis in (1, 0))
    if rows.start == rows.stop:
        return
    labels, _ = ndimage.label(above[rows, columns])
    top, left = round(y) - rows.start, round(x) - columns.start
    middle = labels[max(top - 2, 0) : max(top + 3, 0), max(left - 2, 0) : max(left + 3, 0)]
    own = set(middle.ravel().tolist())
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        if number not in own:
            down, across = found
            window = (
                slice(down.start + rows.start, down.stop + rows.start),
                slice(across.start + columns.start, across.stop + columns.start),
            )
            yield window, labels[found] == number


def _span(there: NDArray[np.bool_]) -> slice:
    """Return the run of places from the first that is there to the last."""
    at = np.flatnonzero(there)
    return slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0)


@dataclass(frozen=True)
class _Stamp:
    """The object's patch, smoothed, smoothed widely, and each less itself turned by 180 degrees."""

    smooth: NDArray[np.float64]
    wide: NDArray[np.float64]
    excess: NDArray[np.float64]
    wide_excess: NDArray[np.float64]

    @classmethod
    def of(cls, smooth: NDArray[np.float64], wide: NDArray[np.float64], x: float, y: float) -> _Stamp:
        return cls(smooth, wide, smooth - _turned(smooth, x, y), wide - _turned(wide, x, y))

    def stands_alone(
        self, window: tuple[slice, slice], part: NDArray[np.bool_], *, level: float, scatter: float
    ) -> bool:
        """Return whether a part that a level cuts off is a neighbour: high above the saddle, lone, sharp unless very high."""
        peak = float(self.smooth[window][part].max())
        lone = float(self.excess[window][part].sum() / self.smooth[window][part].sum())
        if peak - level <= _TOP_SIGMA * scatter or lone <= _LONE_SHARE:
            return False
        if peak > _CERTAIN_PROMINENCE * level:
            return True
        return peak > _PROMINENCE * level and self._is_sharp(window, part)

    def _is_sharp(self, window: tuple[slice, slice], part: NDArray[np.bool_]) -> bool:
        at = np.argmax(np.where(part, self.excess[window], -np.inf))
        top = np.argmax(np.where(part, self.smooth[window], -np.inf))
        return bool(
            self.excess[window].ravel()[at] > _SHARPNESS * self.wide_excess[window].ravel()[at]
            and self.smooth[window].ravel()[top] > _SHARPNESS_ON_TOP * self.wide[window].ravel()[top]
        )


def _grown(
    taken: NDArray[np.bool_], inside: NDArray[np.float64], excess: NDArray[np.float64], scatter: float
) -> NDArray[np.bool_]:
    """Return neighbours with their haloes: pixels about them of which most has no counterpart on the other side."""
    labels, count = ndimage.label(taken)
    distance, (rows, columns) = ndimage.distance_transform_edt(~taken, return_indices=True)
    sizes = np.sqrt(np.bincount(labels.ravel(), minlength=count + 1) / math.pi)
    within = distance <= _HALO * sizes[labels[rows, columns]] + 2
    lone = (excess > _GROWTH_SIGMA * scatter) & (excess > _GROWTH_SHARE * inside)
    return ndimage.binary_propagation(taken, mask=taken | (within & lone))


def _with_arms(
    labels: NDArray[np.int32], smooth: NDArray[np.float64], wide: NDArray[np.float64], *, reach: float
) -> NDArray[np.int32]:
    """Return the labels with diffuse patches at the object's rim given to it: pieces of arms, which no star is as flat as."""
    near = ndimage.distance_transform_edt(labels != TARGET) <= reach
    labels = labels.copy()
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None or number == TARGET or not near[window].any():
            continue
        part = labels[window] == number
        if not (near[window] & part).any():
            continue
        peak = np.argmax(np.where(part, smooth[window], -np.inf))
        if smooth[window].ravel()[peak] < _SHARPNESS * wide[window].ravel()[peak]:
            labels[window][part] = TARGET
    return labels


def _turned(image: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """Return the image turned by 180 degrees about a place; 0 where that lies off it."""
    rows, columns = np.indices(image.shape)
    turned = ndimage.map_coordinates(image, (2 * y - rows, 2 * x - columns), order=1, mode="constant")
    return np.asarray(turned, dtype=np.float64)


def source_free(labels: NDArray[np.int32], valid: NDArray[np.bool_], *, growth: int) -> NDArray[np.bool_]:
    """Return valid pixels that are farther than `growth` pixels from every source."""
    return valid & (ndimage.distance_transform_edt(labels == 0) > growth) if (labels > 0).any() else valid


def patch_extent(labels: NDArray[np.int32], x: float, y: float) -> float:
    """Return the radius of a circle of the object's area, pixels, or how far it reaches where that is more by half."""
    rows, columns = np.nonzero(labels == TARGET)
    if rows.size == 0:
        return 1.0
    reach = float(np.quantile(np.hypot(rows - y, columns - x), 0.98))
    return max(math.sqrt(rows.size / math.pi), reach / 1.5)
