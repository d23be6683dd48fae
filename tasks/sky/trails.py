"""Satellite trails: straight light across one band of an image, found along every chord of it.

A trail crosses a whole image, and galaxies and stars do not: along a chord the light of a trail stands in nearly every
part, theirs in some. The image is brought to pixels of about half an arcsec, freed of what the other bands show too, cut off at a few
sigma, and averaged along chords of all angles and offsets (the Radon transform), part by part; the scatter of that
average from chord to chord, which correlated noise and sources raise, says what stands out. A line that other bands show
too is no trail, but the spike of a star or a galaxy from edge to edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.cutouts import Cutout
from tasks.sky.noise import robust_scatter

DETECTION_SIGMA = 7.0
"""By how many sigma of all chords of an image a trail stands out, at the least."""
MOST_LINES = 8
"""Lines of an image that are looked at."""
_WORKING_SCALE_ARCSEC = 0.5
_LARGEST = 160
"""Pixels a side at which a trail is looked for; a longer one shows on coarser pixels as well."""
_SMOOTH_ARCSEC = 12.0
_ABOUT_ARCSEC = 2.5
_BESIDE_ARCSEC = 4.0
_SHRUNK = 1.0
_CUT = (-3.0, 6.0)
_ABSENT = 1e9
_PART = 5
"""Length of a part of a chord, pixels of the search."""
_SIDE = (5, 6, 7, 8)
"""How far from a chord its sides lie, pixels of the search."""
_LEAST_CHORD_SHARE = 0.35
_LEAST_CHORD = 16
_TRIM = 0.25
_FILLED_PARTS = 0.75
_FAINTEST = 0.8
"""Brightness of a trail over its sides, in units of the noise of a pixel of the search, at the least."""
_EVEN = 0.65
"""Brightness that two thirds of a trail's parts have, over what one third has, at the least."""
_FEWEST_PARTS = 4
_SHOWN = 2.5
"""Brightness of a line in another band, in units of noise, over what is left of it in its own, from which it is no trail."""
_REACH_ARCSEC = 8.0
_FAINT = 0.2
"""Light of a trail, in units of the noise of a pixel of the search, that may be left beside its mask."""
_PROFILE_STEP = 0.5
_FWHM_TO_SIGMA = 2.3548
_LEAST_HALF_WIDTH_ARCSEC = 1.0
_MARGIN_ARCSEC = 0.5


@dataclass(frozen=True)
class Trail:
    """One trail in one band.

    Parameters
    ----------
    band : int
        Which.
    angle_deg : float
        Of its direction from the x axis, anticlockwise as (x, y) are drawn, 0 to 180.
    offset_pixels : float
        Of the middle of the image from it, along the normal (-sin, cos) of that direction.
    half_width_pixels : float
        What lies nearer to its middle line is masked.
    significance : float
        In sigma of the chords of its image.
    """

    band: int
    angle_deg: float
    offset_pixels: float
    half_width_pixels: float
    significance: float

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the pixels of a band that it covers, shape (y, x)."""
        return np.abs(across(shape, math.radians(self.angle_deg)) - self.offset_pixels) <= self.half_width_pixels


def find_trails(cutout: Cutout, *, sigma: float = DETECTION_SIGMA) -> tuple[Trail, ...]:
    """Return the trails of every band, the most certain of a band first.

    Parameters
    ----------
    cutout : Cutout
        Any bands; of one alone, a galaxy or spike from edge to edge cannot be told from a trail.
    sigma : float
        By how much one stands out, at the least.
    """
    step = max(1, round(_WORKING_SCALE_ARCSEC / cutout.pixel_scale_arcsec), math.ceil(max(cutout.shape) / _LARGEST))
    bands, found = _search_planes(cutout, step), []
    for _ in range(MOST_LINES):
        lines = [line for band, working in enumerate(bands) if (line := _brightest(band, working, sigma)) is not None]
        if not lines:
            break
        line = max(lines, key=lambda line: line.significance)
        own = bands[line.band]
        others = [other for number, other in enumerate(bands) if number != line.band]
        if _is_even(own, line) and not any(_shows(other, own, line) for other in others):
            found.append(line)
            # beside it the other bands, which are measured against this one, may show its counterpart
            bands = [other.without(line, beside_arcsec=_BESIDE_ARCSEC) for other in bands]
        bands[line.band] = own.without(line)
    return tuple(sorted(found, key=lambda trail: (trail.band, -trail.significance)))


def trail_mask(cutout: Cutout, *, sigma: float = DETECTION_SIGMA) -> NDArray[np.bool_]:
    """Return the pixels that trails cover, shape (band, y, x)."""
    mask = np.zeros(cutout.flux.shape, dtype=bool)
    for trail in find_trails(cutout, sigma=sigma):
        mask[trail.band] |= trail.mask(cutout.shape)
    return mask


def across(shape: tuple[int, int], angle: float) -> NDArray[np.float64]:
    """Return how far each pixel lies from the line through the middle of an image, along the line's normal, pixels.

    Parameters
    ----------
    angle : float
        Of the line's direction, radians from the x axis.
    """
    rows, columns = shape
    y = np.arange(rows)[:, None] - (rows - 1) / 2
    x = np.arange(columns)[None, :] - (columns - 1) / 2
    return -x * math.sin(angle) + y * math.cos(angle)


@dataclass(frozen=True)
class _Working:
    """A band at the scale of the search, in units of its noise: what other bands do not show, cut off and whole; and all of it.

    NaN where there is no data.
    """

    values: NDArray[np.float64]
    whole: NDArray[np.float64]
    alone: NDArray[np.float64]
    step: int
    shape: tuple[int, int]
    scale_arcsec: float

    def without(self, trail: Trail, *, beside_arcsec: float = 0.0) -> _Working:
        """Return the band in which nothing is looked for where a line lies, and beside it."""
        apart = np.abs(across(self.values.shape, math.radians(trail.angle_deg)) - self.to_working(trail))
        hidden = apart <= trail.half_width_pixels / self.step + 1 + beside_arcsec / self.scale_arcsec
        return replace(self, values=np.where(hidden, np.nan, self.values))

    def to_working(self, trail: Trail) -> float:
        """Return where a trail lies at the scale of the search."""
        return trail.offset_pixels / self.step + self._shift(math.radians(trail.angle_deg))

    def _shift(self, angle: float) -> float:
        """Return where the middle of the whole image lies in the coarse one, whose last blocks may reach beyond it."""
        rows, columns = (
            (length - 1) / 2 / self.step + (1 / self.step - 1) / 2 - (coarse - 1) / 2
            for length, coarse in zip(self.shape, self.values.shape, strict=True)
        )
        return -columns * math.sin(angle) + rows * math.cos(angle)

    def to_image(self, offset: float, angle: float) -> float:
        """Return an offset in pixels of the image."""
        return (offset - self._shift(angle)) * self.step


def _search_planes(cutout: Cutout, step: int) -> list[_Working]:
    """Return each band at the scale of the search, without what the other bands show too: galaxies and stars."""
    scale = step * cutout.pixel_scale_arcsec
    planes = [_binned(flux, valid, step) for flux, valid in zip(cutout.flux, cutout.valid, strict=True)]
    noises = [_noise_of(plane) for plane in planes]
    found = []
    for plane, noise in zip(planes, noises, strict=True):
        if not noise > 0:
            nothing = np.full_like(plane, np.nan)
            found.append(_Working(nothing, nothing, nothing, step, cutout.shape, scale))
            continue
        others = [other / its for other, its in zip(planes, noises, strict=True) if other is not plane and its > 0]
        rest = _without_others(plane / noise, others, scale) if others else _without_smooth(plane / noise, scale)
        found.append(_Working(np.clip(rest, *_CUT), rest, plane / noise, step, cutout.shape, scale))
    return found


def _without_others(plane: NDArray[np.float64], others: list[NDArray[np.float64]], scale: float) -> NDArray[np.float64]:
    """Return what is left of a band by a linear regression on the mean of others, anew about each pixel; all in units of noise."""
    reference = np.mean(others, axis=0) * math.sqrt(len(others))
    both = np.isfinite(plane) & np.isfinite(reference)
    weight = ndimage.gaussian_filter(both.astype(float), _ABOUT_ARCSEC / scale)

    def about(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = ndimage.gaussian_filter(np.where(both, values, 0.0), _ABOUT_ARCSEC / scale)
        return np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3)

    mean, its_mean = about(plane), about(reference)
    shared = about(plane * reference) - mean * its_mean
    spread = (about(reference**2) - its_mean**2).clip(min=0.0)
    # where the others show noise alone there is nothing to be taken off
    slope = shared / (spread + _SHRUNK)
    return np.where(both, plane - mean - slope * (reference - its_mean), np.nan)


def _without_smooth(plane: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Return what is left of a band without its smooth part."""
    known = np.isfinite(plane)
    side = max(5, round(_SMOOTH_ARCSEC / scale)) | 1
    filled = np.where(known, plane, np.median(plane[known]))
    return np.where(known, plane - ndimage.median_filter(filled, size=side, mode="reflect"), np.nan)


def _binned(flux: NDArray[np.float32], valid: NDArray[np.bool_], step: int) -> NDArray[np.float64]:
    """Return means of blocks, NaN where less than half of one has data."""
    rows, columns = (-(-length // step) * step for length in flux.shape)
    room = ((0, rows - flux.shape[0]), (0, columns - flux.shape[1]))
    good = valid & np.isfinite(flux)
    total = np.pad(np.where(good, flux, 0.0).astype(float), room)
    count = np.pad(good.astype(float), room)
    total, count = (
        plane.reshape(rows // step, step, columns // step, step).sum(axis=(1, 3)) for plane in (total, count)
    )
    enough = count >= 0.5 * step**2
    return np.divide(total, count, out=np.full_like(total, np.nan), where=enough)


def _noise_of(image: NDArray[np.float64]) -> float:
    """Return the noise of a pixel by differences of pixels two apart, which a galaxy hardly changes."""
    apart = image[:, 2:] - image[:, :-2]
    return robust_scatter(apart[np.isfinite(apart)]) / math.sqrt(2)


def _brightest(band: int, working: _Working, sigma: float) -> Trail | None:
    """Return the line that stands out most, or None where none does."""
    if np.isfinite(working.values).mean() < 0.2 or min(working.values.shape) < _LEAST_CHORD:
        return None
    angles = np.linspace(0, math.pi, round(1.5 * max(working.values.shape)), endpoint=False)
    scores = np.array([_chords(working.values, angle) for angle in angles])
    known = np.isfinite(scores)
    if known.sum() < 100:
        return None
    level, scatter = float(np.median(scores[known])), robust_scatter(scores[known])
    place = np.unravel_index(int(np.argmax(np.where(known, scores, -np.inf))), scores.shape)
    significance = (float(scores[place]) - level) / scatter if scatter > 0 else 0.0
    if significance < sigma:
        return None
    angle, offset = _refined(working.values, float(angles[place[0]]), float(place[1]) - scores.shape[1] // 2)
    half_width = _half_width(working, angle, offset)
    return Trail(
        band,
        math.degrees(angle) % 180.0,
        working.to_image(offset, angle) * (1 if 0 <= angle < math.pi else -1),
        half_width,
        significance,
    )


def _chords(values: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Return the score of the chords of one angle, by offset in pixels from the middle; NaN where a chord is too short."""
    reach = math.ceil(math.hypot(*values.shape) / 2)
    along = np.arange(-reach, reach + 1, dtype=float)
    sampled = _sample(values, angle, along[:, None], along[None, :])
    return _score(sampled, least=max(_LEAST_CHORD, _LEAST_CHORD_SHARE * min(values.shape)))


def _score(sampled: NDArray[np.float64], *, least: float) -> NDArray[np.float64]:
    """Return the scores of chords, shape (chord,), from samples of chords side by side, shape (chord, place); NaN marks no data.

    In each part of a chord it is asked by how much the chord is brighter than the brighter of both its sides: on the slope of a
    galaxy it is not. The score is the mean of parts without the highest and lowest quarter of them, but at most twice what
    three quarters of them have, times the square root of their number: sources on a few of them do not count.
    """
    ridge, whole = _ridges(sampled)
    parts = whole.sum(axis=1)
    order = np.sort(np.where(whole, ridge, np.nan), axis=1)  # NaN last
    trim = np.floor(_TRIM * parts).astype(int)
    index = np.arange(order.shape[1])[None, :]
    middle = (index >= trim[:, None]) & (index < (parts - trim)[:, None])
    mean = np.where(middle, np.nan_to_num(order), 0.0).sum(axis=1) / np.maximum(middle.sum(axis=1), 1)
    at = np.floor((1 - _FILLED_PARTS) * parts).astype(int).clip(max=order.shape[1] - 1)
    lowest = np.nan_to_num(np.take_along_axis(order, at[:, None], axis=1)[:, 0])
    score = np.where(mean > 0, np.minimum(mean, 2.0 * lowest), mean) * np.sqrt(parts)
    return np.where(parts * _PART >= least, score, np.nan)


def _ridges(sampled: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return by how much each part of each chord is brighter than both its sides, shape (chord, part), and where that is known."""
    parts = sampled.shape[1] // _PART
    cut = sampled[:, : parts * _PART].reshape(len(sampled), parts, _PART)
    known = np.isfinite(cut)
    sums, counts = np.where(known, cut, 0.0).sum(axis=2), known.sum(axis=2).astype(float)

    def mean_of(*offsets: int) -> NDArray[np.float64]:
        total = sum(_moved(sums, offset) for offset in offsets)
        count = sum(_moved(counts, offset) for offset in offsets)
        return np.divide(total, count, out=np.full(sums.shape, np.nan), where=count >= 0.5 * len(offsets) * _PART)

    core = mean_of(-1, 0, 1)
    sides = np.fmax(mean_of(*_SIDE), mean_of(*(-offset for offset in _SIDE)))
    ridge = core - sides
    return ridge, np.isfinite(ridge)


def _moved(rows: NDArray[np.float64], offset: int) -> NDArray[np.float64]:
    """Return rows such that each stands where the one `offset` before it was; beyond the first and last is nothing."""
    moved = np.zeros_like(rows)
    if offset >= 0:
        moved[: len(rows) - offset] = rows[offset:]
    else:
        moved[-offset:] = rows[:offset]
    return moved


def _sample(
    values: NDArray[np.float64], angle: float, offset: NDArray[np.floating], along: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return an image at places along lines, linearly between pixels; NaN off it and where there is no data."""
    rows, columns = values.shape
    x = along * math.cos(angle) - offset * math.sin(angle) + (columns - 1) / 2
    y = along * math.sin(angle) + offset * math.cos(angle) + (rows - 1) / 2
    # what has no data is far above all that has: a sample that touches any of it is too
    filled = np.where(np.isfinite(values), values, _ABSENT)
    sampled = ndimage.map_coordinates(filled, np.broadcast_arrays(y, x), order=1, mode="constant", cval=_ABSENT)
    return np.where(sampled > _ABSENT / 1e3, np.nan, sampled)


def _refined(values: NDArray[np.float64], angle: float, offset: float) -> tuple[float, float]:
    """Return angle and offset of the line about a chord that has the most light, to a tenth of a pixel."""
    reach = math.ceil(math.hypot(*values.shape) / 2)
    along = np.arange(-reach, reach + 1, dtype=float)[None, :]
    best, best_score = (angle, offset), -np.inf
    for tenths in (5, 1):
        centre_angle, centre_offset = best
        turns = centre_angle + np.arange(-6, 7) * 0.1 * tenths / reach
        shifts = centre_offset + np.arange(-6, 7) * 0.1 * tenths
        for turn in turns:
            # a window about the line: the middle of a wide trail is where the light of its whole width is
            inner = np.stack([_sample(values, turn, shifts[:, None] + near, along) for near in (-1.0, 0.0, 1.0)])
            light = np.where(np.isfinite(inner), inner, 0.0).mean(axis=(0, 2))
            if light.max() > best_score:
                best_score, best = float(light.max()), (float(turn), float(shifts[int(light.argmax())]))
    return best


def _half_width(working: _Working, angle: float, offset: float) -> float:
    """Return how far from its middle line a trail still shows, pixels of the image."""
    reach = math.ceil(math.hypot(*working.values.shape) / 2)
    along = np.arange(-reach, reach + 1, dtype=float)[None, :]
    far = max(3, round(_REACH_ARCSEC / working.scale_arcsec))
    distance = np.arange(-far, far + _PROFILE_STEP / 2, _PROFILE_STEP)
    sampled = _sample(working.whole, angle, offset + distance[:, None], along)
    known = np.isfinite(sampled).any(axis=1)
    profile = np.full(distance.size, np.nan)
    profile[known] = np.nanmedian(sampled[known], axis=1)
    outside = np.abs(distance) > 0.6 * far
    level = float(np.nanmedian(profile[outside])) if np.isfinite(profile[outside]).any() else 0.0
    light = np.nan_to_num(profile - level)
    peak, middle = float(light.max()), int(light.argmax())
    wide = np.flatnonzero(light[: middle + 1] < peak / 2), np.flatnonzero(light[middle:] < peak / 2)
    left = middle - wide[0][-1] if wide[0].size else far
    right = wide[1][0] if wide[1].size else far
    width = _PROFILE_STEP * float(left + right)
    # a Gaussian of that full width at half maximum, out to where it is lost in the noise
    tail = width / _FWHM_TO_SIGMA * math.sqrt(2 * math.log(max(peak / _FAINT, 2.0)))
    half = (abs(float(distance[middle])) + min(tail, far)) * working.scale_arcsec
    arcsec = max(half, _LEAST_HALF_WIDTH_ARCSEC) + _MARGIN_ARCSEC
    return arcsec / (working.scale_arcsec / working.step)


def _is_even(working: _Working, trail: Trail) -> bool:
    """Return whether a line is seen in single parts of it and as bright from end to end, as a trail is and a galaxy is not."""
    parts = _parts_along(working.whole, working, trail)
    if parts.size < _FEWEST_PARTS:
        return False
    # the bright middle of a galaxy may spoil up to a third of the parts
    low, middle, high = np.quantile(parts, [1 / 3, 1 / 2, 2 / 3])
    return bool(middle > _FAINTEST and low > _EVEN * high)


def _shows(other: _Working, working: _Working, trail: Trail) -> bool:
    """Return whether another band has so much light along a line that what this one has beyond it may be left over."""
    there, here = _parts_along(other.alone, other, trail), _parts_along(working.whole, working, trail)
    return bool(there.size >= _FEWEST_PARTS and np.median(there) > _SHOWN * np.median(here))


def _parts_along(plane: NDArray[np.float64], working: _Working, trail: Trail) -> NDArray[np.float64]:
    """Return by how much each part of a line is brighter than its sides, in units of noise, where that is known."""
    angle = math.radians(trail.angle_deg)
    reach = math.ceil(math.hypot(*plane.shape) / 2)
    along = np.arange(-reach, reach + 1, dtype=float)[None, :]
    offsets = working.to_working(trail) + np.arange(-_SIDE[-1] - 1, _SIDE[-1] + 2, dtype=float)[:, None]
    ridges, known = _ridges(_sample(plane, angle, offsets, along))
    middle = len(offsets) // 2
    return ridges[middle][known[middle]]
