"""Ellipses through the isophotes of a galaxy: the harmonic method of Jedrzejewski (1987), all radii at once.

photutils walks along each ellipse point by point and fits one radius after the other; one that fails stops or bends
the rest. Here the samples of all radii are one array, and each radius' shape is held to its neighbours' as far as its
own data are weak, so that arms, stars and noise cannot carry an isophote away. A tie gives where the data of both radii
insist on a step, as at the end of a bar or of an arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from storage.cutouts import TARGET

_ANGLES = 96
_ROUNDS = 40
_STEP = 0.1
_DAMPING, _DAMPING_ROUNDS = 0.8, 12
"""Share of each correction at first, and after how many rounds it is half of that: noise makes full steps go round in circles."""
_STIFFNESS = 0.05
"""By how much the shape may change from one radius to the next, 10 % farther out, where the data say nothing."""
_GIVES_FROM = 0.55
"""Change between neighbours, in units of what their tie allows, from which on the tie gives."""
_FLATTEST = 0.95
_LARGEST_DOUBT = 0.3
"""Error of a shape from which on it counts for nothing: the flat middle of a galaxy has no isophotes to fit."""
_FEWEST_SHARE = 0.4
_SMOOTHING_SHARE = 0.025
_FIRST_SMOOTHING = 0.4
_FINER, _REACH = 3, 1.5
"""Points of a pixel between which the middle of an image is straight, and how far it goes, in ellipses read from it."""
_SMOOTHED_GOOD = 0.8
_ALL_GOOD = 0.999
_CENTRE_STIFFNESS = 0.05
_CENTRE_FLOOR = 0.03
_CENTRE_ANCHOR = 0.1


@dataclass(frozen=True)
class Ellipses:
    """Ellipses one inside the other.

    Parameters
    ----------
    x, y : float
        The object's middle, pixels from the centre of the lower-left one.
    drift : ndarray, shape (radius, 2)
        By how much the middle of each lies off that, pixels in x and y.
    radius : ndarray, shape (radius,)
        Semi-major axes, pixels, rising.
    shape : ndarray, shape (radius, 2)
        Ellipticity times cosine and sine of twice the angle from the x axis, anticlockwise: no angle where round.
    trust : ndarray, shape (radius,)
        Share of each shape that comes from its own radius, 0 to 1; the rest is its neighbours', as if no tie had given.
    """

    x: float
    y: float
    drift: NDArray[np.float64]
    radius: NDArray[np.float64]
    shape: NDArray[np.float64]
    trust: NDArray[np.float64]

    @property
    def ellipticity(self) -> NDArray[np.float64]:
        """Return 1 - b/a at each radius."""
        return np.hypot(self.shape[:, 0], self.shape[:, 1])

    @property
    def angle(self) -> NDArray[np.float64]:
        """Return the angle of the major axis from the x axis, radians, anticlockwise, 0 to pi."""
        return (np.arctan2(self.shape[:, 1], self.shape[:, 0]) / 2) % np.pi

    def at(self, radius: NDArray[np.float64]) -> Ellipses:
        """Return the ellipses at other radii, shapes interpolated in the logarithm and held beyond the ends."""
        place = np.log(radius), np.log(self.radius)
        shape = np.column_stack([np.interp(*place, self.shape[:, axis]) for axis in (0, 1)])
        drift = np.column_stack([np.interp(*place, self.drift[:, axis]) for axis in (0, 1)])
        trust = np.interp(*place, self.trust)
        outside = (radius < self.radius[0] * 0.999) | (radius > self.radius[-1] * 1.001)
        return replace(self, radius=radius, shape=shape, drift=drift, trust=np.where(outside, 0.0, trust))


@dataclass(frozen=True)
class Layers:
    """An image smoothed more and more, and where it holds: far out a wide look costs no detail and less noise.

    Parameters
    ----------
    images : tuple of ndarray, shape (y, x)
        Sky taken off; holes filled by smoothing.
    good : tuple of ndarray, shape (y, x), bool
        Valid and the object's own; in smoothed ones, what most of the smoothing's weight is on.
    widths : tuple of float
        Standard deviations of the smoothing, pixels; the first is 0.
    middle : Middle
        Of the first of them.
    """

    images: tuple[NDArray[np.float64], ...]
    good: tuple[NDArray[np.bool_], ...]
    widths: tuple[float, ...]
    middle: Middle

    def layer_for(self, radius: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return which image serves each radius."""
        return np.searchsorted(np.array(self.widths), _SMOOTHING_SHARE * radius, side="right") - 1


@dataclass(frozen=True)
class Middle:
    """The middle of an image between its pixels: straight lines from one to the next would flatten small ellipses too little.

    Parameters
    ----------
    values : ndarray, shape (y, x)
        A cubic spline on a grid `_FINER` times as fine; holes have their nearest good pixel's value.
    x, y : int
        Pixel of the first one.
    """

    values: NDArray[np.float64]
    x: int
    y: int

    @classmethod
    def of(cls, image: NDArray[np.floating], good: NDArray[np.bool_], *, x: float, y: float) -> Middle:
        """Return the middle about a place, as wide as ellipses that are read from the image as it is may reach."""
        half = math.ceil(_REACH * _FIRST_SMOOTHING / _SMOOTHING_SHARE)
        low = max(int(y) - half, 0), max(int(x) - half, 0)
        window = slice(low[0], int(y) + half + 1), slice(low[1], int(x) + half + 1)
        spline = ndimage.spline_filter(filled(image[window], good[window]), order=3)
        rows, columns = (np.arange((side - 1) * _FINER + 1) / _FINER for side in spline.shape)
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"))
        return cls(ndimage.map_coordinates(spline, places, order=3, prefilter=False, mode="nearest"), low[1], low[0])

    def read(self, places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return values at places (y, x) of the image, and which of them lie within."""
        inner = (places - np.array([self.y, self.x])[:, None, None]) * _FINER
        last = np.array(self.values.shape)[:, None, None] - 1
        inside = ((inner >= 0) & (inner <= last)).all(axis=0)
        return ndimage.map_coordinates(self.values, inner, order=1, mode="nearest"), inside


def smooth_layers(
    image: NDArray[np.floating], good: NDArray[np.bool_], largest_radius: float, *, x: float, y: float
) -> Layers:
    """Return an image and its smoothings, wide enough for ellipses of up to the largest radius about a place."""
    images, masks, widths = [np.where(good, image, 0.0).astype(float)], [good], [0.0]
    width = _FIRST_SMOOTHING
    while width <= _SMOOTHING_SHARE * largest_radius:
        weight = ndimage.gaussian_filter(good.astype(np.float32), width)
        total = ndimage.gaussian_filter(images[0].astype(np.float32), width)
        images.append(np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3).astype(float))
        masks.append(weight > _SMOOTHED_GOOD)
        widths.append(width)
        width *= 2
    return Layers(tuple(images), tuple(masks), tuple(widths), Middle.of(images[0], good, x=x, y=y))


def filled(image: NDArray[np.floating], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the image with each hole given its nearest good pixel, so that no interpolation reads what is masked."""
    if good.all() or not good.any():
        return np.where(np.isfinite(image), image, 0.0).astype(float)
    near = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(near)], dtype=float)


def moment_shape(labels: NDArray[np.int32], x: float, y: float) -> NDArray[np.float64]:
    """Return the shape (as in `Ellipses`) of the object's patch from its second moments about a place."""
    rows, columns = np.nonzero(labels == TARGET)
    if rows.size < 5:
        return np.zeros(2)
    dx, dy = columns - x, rows - y
    xx, yy, xy = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
    spread = math.hypot(xx - yy, 2 * xy)
    ratio = math.sqrt(max(xx + yy - spread, 1e-6) / max(xx + yy + spread, 1e-6))
    angle = math.atan2(2 * xy, xx - yy)
    flat = min(1 - ratio, _FLATTEST)
    return np.array([flat * math.cos(angle), flat * math.sin(angle)])


def fit_ellipses(layers: Layers, start: Ellipses, *, fit_centre: bool = True) -> Ellipses:
    """Return the ellipses that follow the isophotes.

    Parameters
    ----------
    layers : Layers
        The image.
    start : Ellipses
        Radii, middle and a first shape.
    fit_centre : bool
        Whether the common middle may move.

    References
    ----------
    Jedrzejewski 1987, MNRAS 226, 747: along an ellipse that is no isophote the intensity varies with the first and
    second harmonics of the angle; each, divided by the gradient, tells what to correct (his equations 3 to 6).
    """
    found, shape = start, start.shape
    weight = np.zeros(start.radius.size)
    for turn in range(_ROUNDS):
        share = _DAMPING / (1 + turn / _DAMPING_ROUNDS)
        harmonics = _sample(layers, found)
        wanted, weight = _corrected(found, harmonics)
        shape = _smoothed(wanted, weight, _giving(_springs(found.radius), found.shape))
        shape = found.shape + share * (shape - found.shape)
        drift = found.drift
        if fit_centre:
            drift = drift + share * (_drifted(found, harmonics, weight > 0) - drift)
        change = float(np.abs(shape - found.shape).max() + np.abs(drift - found.drift).max())
        found = replace(found, shape=shape, drift=drift)
        if change < 1e-3:
            break
    stiff = _springs(found.radius)
    held = np.concatenate([stiff, [0.0]]) + np.concatenate([[0.0], stiff])
    return replace(found, trust=weight / (weight + held))


@dataclass(frozen=True)
class _Harmonics:
    """Fits along each ellipse: mean, sine and cosine of the angle and of twice it, gradient and noise."""

    coefficients: NDArray[np.float64]  # (radius, 5)
    gradient: NDArray[np.float64]  # (radius,), flux per pixel of semi-major axis, negative outwards
    error: NDArray[np.float64]  # (radius,), of one coefficient
    held: NDArray[np.bool_]  # (radius,), enough of the ellipse is good


def _sample(layers: Layers, ellipses: Ellipses) -> _Harmonics:
    eccentric = np.linspace(0.0, 2 * np.pi, _ANGLES, endpoint=False)
    layer = layers.layer_for(ellipses.radius)
    inner, inside = _along(layers, ellipses, layer, 1 - _STEP, eccentric)
    here, good = _along(layers, ellipses, layer, 1.0, eccentric)
    outer, outside = _along(layers, ellipses, layer, 1 + _STEP, eccentric)
    basis = np.stack([np.ones(_ANGLES), *(f(k * eccentric) for k in (1, 2) for f in (np.sin, np.cos))], axis=1)
    coefficients, residual = _least_squares(basis, here, good)
    share = good.mean(axis=1)
    error = np.sqrt(residual / np.maximum(share * _ANGLES, 1.0)) * math.sqrt(2)
    both = inside & outside & good
    count = np.maximum(both.sum(axis=1), 1)
    drop = ((outer - inner) * both).sum(axis=1) / count / (2 * _STEP * ellipses.radius)
    return _Harmonics(coefficients, drop, error, (share > _FEWEST_SHARE) & (both.mean(axis=1) > 0.3))


def _along(
    layers: Layers, ellipses: Ellipses, layer: NDArray[np.int64], factor: float, eccentric: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return image values (radius, angle) along ellipses scaled by `factor`, and which of them hold."""
    angle, radius = ellipses.angle[:, None], ellipses.radius[:, None] * factor
    ratio = 1 - ellipses.ellipticity[:, None]
    across, along = radius * ratio * np.sin(eccentric), radius * np.cos(eccentric)
    x = ellipses.x + ellipses.drift[:, :1] + along * np.cos(angle) - across * np.sin(angle)
    y = ellipses.y + ellipses.drift[:, 1:] + along * np.sin(angle) + across * np.cos(angle)
    values, good = np.zeros(x.shape), np.zeros(x.shape, dtype=bool)
    for index in np.unique(layer):
        rows = layer == index
        places = np.stack([y[rows], x[rows]])
        # all that a value is interpolated from must be good: straight lines from a hole's zeros bend the ellipse
        held = layers.good[index].view(np.uint8)
        good[rows] = ndimage.map_coordinates(held, places, np.float32, order=1, mode="constant") > _ALL_GOOD
        if index == 0:
            values[rows], inside = layers.middle.read(places)
            good[rows] &= inside
        else:
            values[rows] = ndimage.map_coordinates(layers.images[index], places, order=1, mode="nearest")
    return values, good


def _least_squares(
    basis: NDArray[np.float64], values: NDArray[np.float64], good: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return least-squares coefficients per row, and the mean square that is left."""
    weight = good.astype(float)
    normal = np.einsum("ra,ai,aj->rij", weight, basis, basis) + 1e-9 * np.eye(basis.shape[1])
    right = np.einsum("ra,ra,ai->ri", weight, values, basis)
    coefficients = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    left = values - coefficients @ basis.T
    return coefficients, (weight * left**2).sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0)


def _corrected(ellipses: Ellipses, harmonics: _Harmonics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shapes that the second harmonics ask for, and the weight (1 / variance) of each."""
    flat = ellipses.ellipticity
    slope = np.minimum(harmonics.gradient, -1e-30) * ellipses.radius
    ratio = 1 - flat
    # along E the ellipse's own frame: what flattens it, and what turns it
    towards = -2 * ratio * harmonics.coefficients[:, 4] / slope
    aside = -2 * np.sqrt(ratio) * harmonics.coefficients[:, 3] / slope
    limit = 0.3
    towards, aside = np.clip(towards, -limit, limit), np.clip(aside, -limit, limit)
    twice = 2 * ellipses.angle
    shape = ellipses.shape + np.stack(
        [towards * np.cos(twice) - aside * np.sin(twice), towards * np.sin(twice) + aside * np.cos(twice)], axis=1
    )
    length = np.hypot(shape[:, 0], shape[:, 1])
    shape *= (np.minimum(length, _FLATTEST) / np.maximum(length, 1e-12))[:, None]
    spread = 2 * ratio * harmonics.error / np.abs(slope)
    weight = np.where(harmonics.held & (harmonics.gradient < 0), 1 / np.maximum(spread, 1e-3) ** 2, 0.0)
    return shape, np.where(spread < _LARGEST_DOUBT, weight, 0.0)


def _springs(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how stiffly neighbouring radii are tied: 1 / variance of a change of shape between them."""
    steps = np.diff(np.log(radius)) / math.log(1.1)
    return 1.0 / (_STIFFNESS**2 * np.maximum(steps, 1e-3))


def _giving(stiff: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return springs between neighbouring values (radius, 2) that give as they are stretched.

    A change costs its square while it is small and its length beyond (Charbonnier et al. 1994), which has one minimum, as a square
    does; from round to round this is iteratively reweighted least squares.
    """
    change = (np.diff(values, axis=0) ** 2).sum(axis=1)
    return stiff / np.sqrt(1 + stiff * change / _GIVES_FROM**2)


def _smoothed(
    wanted: NDArray[np.float64], weight: NDArray[np.float64], stiff: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what is nearest to the wanted values and to each other: a tridiagonal system."""
    if stiff.size == 0:
        return wanted
    diagonal = weight + np.concatenate([stiff, [0.0]]) + np.concatenate([[0.0], stiff]) + 1e-9
    bands = np.zeros((2, weight.size))
    bands[0, 1:], bands[1] = -stiff, diagonal
    return linalg.solveh_banded(bands, weight[:, None] * wanted + 1e-9 * wanted)


def _drifted(ellipses: Ellipses, harmonics: _Harmonics, held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return where the first harmonics put the middle of each ellipse, held to its neighbours' and to the object's."""
    slope = np.minimum(harmonics.gradient, -1e-30)
    limit = 0.15 * ellipses.radius
    along = np.clip(-harmonics.coefficients[:, 2] / slope, -limit, limit)
    across = np.clip(-harmonics.coefficients[:, 1] * (1 - ellipses.ellipticity) / slope, -limit, limit)
    angle = ellipses.angle
    step = np.stack(
        [along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)], axis=1
    )
    spread = np.maximum(harmonics.error / np.abs(slope), _CENTRE_FLOOR * ellipses.radius)
    weight = np.where(held & (spread < ellipses.radius / 2), 1 / spread**2, 0.0)
    between = np.sqrt(ellipses.radius[1:] * ellipses.radius[:-1])
    stiff = 1 / (_CENTRE_STIFFNESS * between * np.diff(np.log(ellipses.radius)) / math.log(1.1)) ** 2
    wanted = ellipses.drift + step
    anchor = 1 / (_CENTRE_ANCHOR * ellipses.radius) ** 2
    share = weight / (weight + anchor)
    return _smoothed(share[:, None] * wanted, weight + anchor, _giving(stiff, ellipses.drift))
