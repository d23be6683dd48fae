"""Mean intensity in elliptical annuli, with an error that allows for noise that pixels share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.sky.ellipses import Ellipses, filled
from tasks.sky.noise import robust_scatter

_SPLINE_WITHIN = 12.0
_FEWEST_ANGLES = 48
_CLIP = 5.0
_HALF = 0.5


@dataclass(frozen=True)
class Annuli:
    """What was measured in annuli.

    Parameters
    ----------
    intensity, error : ndarray, shape (radius,)
        Mean flux per pixel and its error, without the sky's; NaN where nothing is left.
    own, inside : ndarray, shape (radius,)
        Share of the annulus that has data of the object's own, and that lies on the image.
    """

    intensity: NDArray[np.float64]
    error: NDArray[np.float64]
    own: NDArray[np.float64]
    inside: NDArray[np.float64]


def annulus_edges(first: float, last: float, step: float) -> NDArray[np.float64]:
    """Return edges of log-spaced annuli whose geometric means begin at `first` and end at `last` or just beyond."""
    count = max(math.ceil(math.log(last / first) / math.log(step) - 1e-9), 1) + 1
    centres = first * step ** np.arange(count)
    return np.concatenate([centres / math.sqrt(step), centres[-1:] * math.sqrt(step)])


def measure_annuli(
    image: NDArray[np.floating],
    good: NDArray[np.bool_],
    variance: NDArray[np.floating],
    ellipses: Ellipses,
    edges: NDArray[np.float64],
    *,
    inflation: float,
) -> Annuli:
    """Return the mean intensity between each pair of edges, along the ellipse of that radius.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        Flux per pixel, sky taken off.
    good : ndarray, shape (y, x), bool
        Valid, and no neighbour's.
    variance : ndarray, shape (y, x)
        Of single pixels.
    ellipses : Ellipses
        One per annulus, at its radius.
    edges : ndarray, shape (radius + 1,)
        Semi-major axes, pixels.
    inflation : float
        See `tasks.sky.noise.Sky`.

    Notes
    -----
    Samples lie evenly in area: about one per pixel, more where the annulus is small. Near the middle a cubic spline
    reads between pixels, since straight lines would cut the peak; farther out, straight lines do.
    """
    whole = filled(image, good)
    reach = min(_SPLINE_WITHIN, float(edges[-1]))
    window = _window(ellipses.x, ellipses.y, 2 * reach + 8, image.shape)
    spline = ndimage.spline_filter(whole[window], order=3)
    columns = [
        _measure(
            whole, good, variance, spline=spline, window=window, ellipses=ellipses, index=index, edges=edges,
        )
        for index in range(ellipses.radius.size)
    ]  # fmt: skip
    intensity, spread, count, own, inside = (np.array(column) for column in zip(*columns, strict=True))
    return Annuli(intensity, spread * inflation / np.sqrt(np.maximum(count, 1.0)), own, inside)


def _measure(
    whole: NDArray[np.float64],
    good: NDArray[np.bool_],
    variance: NDArray[np.floating],
    *,
    spline: NDArray[np.float64],
    window: tuple[slice, slice],
    ellipses: Ellipses,
    index: int,
    edges: NDArray[np.float64],
) -> tuple[float, float, float, float, float]:
    """Return mean, scatter of a pixel, number of pixels, share that is the object's own, share on the image."""
    inner, outer = float(edges[index]), float(edges[index + 1])
    if index == 0:
        inner = 0.0 if outer < 1.0 else inner
    flat, angle = float(ellipses.ellipticity[index]), float(ellipses.angle[index])
    x, y = _places(inner, outer, flat, angle)
    x, y = x + ellipses.x + ellipses.drift[index, 0], y + ellipses.y + ellipses.drift[index, 1]
    rows, columns = whole.shape
    inside = (x > -_HALF) & (x < columns - _HALF) & (y > -_HALF) & (y < rows - _HALF)
    nearest = np.clip(np.rint(y), 0, rows - 1).astype(int), np.clip(np.rint(x), 0, columns - 1).astype(int)
    own = inside & good[nearest]
    if not own.any():
        return math.nan, math.nan, 0.0, 0.0, float(inside.mean())
    if outer <= _SPLINE_WITHIN:
        places = np.stack([y[own] - window[0].start, x[own] - window[1].start])
        values = ndimage.map_coordinates(spline, places, order=3, prefilter=False, mode="nearest")
    else:
        values = ndimage.map_coordinates(whole, np.stack([y[own], x[own]]), order=1, mode="nearest")
    noise = variance[nearest][own]
    values, noise = _clipped(values, noise)
    area = np.pi * (1 - flat) * (outer**2 - inner**2)
    pixels = max(area * values.size / x.size, 1.0)
    # what differs along the annulus beyond the noise (arms, knots) is no less a doubt of the mean
    spread = math.sqrt(max(float(noise.mean()), float(values.var()) if values.size > 8 else 0.0))
    return float(values.mean()), spread, pixels, float(own.mean()), float(inside.mean())


def _places(inner: float, outer: float, flat: float, angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places (x, y) about the middle, even in area between two ellipses."""
    rings = max(math.ceil(outer - inner), 3)
    angles = max(math.ceil(2 * np.pi * outer), _FEWEST_ANGLES)
    parts = (np.arange(rings) + _HALF) / rings
    radius = np.sqrt(inner**2 + parts * (outer**2 - inner**2))[:, None]
    eccentric = 2 * np.pi * (np.arange(angles) + (np.arange(rings)[:, None] % 2) / 2) / angles
    along, across = radius * np.cos(eccentric), radius * (1 - flat) * np.sin(eccentric)
    cosine, sine = math.cos(angle), math.sin(angle)
    return (along * cosine - across * sine).ravel(), (along * sine + across * cosine).ravel()


def _clipped(
    values: NDArray[np.float64], noise: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Leave out the few samples that stand far above the rest: what no mask has caught."""
    if values.size < 32:
        return values, noise
    scatter = max(robust_scatter(values), math.sqrt(float(noise.mean())))
    kept = np.abs(values - np.median(values)) <= _CLIP * scatter
    return values[kept], noise[kept]


def _window(x: float, y: float, half: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    return (
        slice(max(int(y - half), 0), min(int(y + half) + 2, shape[0])),
        slice(max(int(x - half), 0), min(int(x + half) + 2, shape[1])),
    )
