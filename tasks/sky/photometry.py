"""Magnitudes, isophotal and half-light radii, angles on the sky: pure functions of a profile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import AB_ZERO_POINT
from tasks.sky.profile import ObjectFlag, Profile

POGSON = 2.5 / math.log(10)
"""Magnitudes per natural logarithm of flux."""
_UPRIGHT = np.array([[-1.0, 0.0], [0.0, 1.0]])
"""East and north per pixel of x and of y where nothing says so: north is up, east is left."""
_TRUSTED = 3.0
_FEWEST_OUTER = 4
_OUTER = 8
_EXTRAPOLATED_SHARE = 0.5


def magnitude(flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return AB magnitudes of nanomaggies, or of nanomaggies per arcsec^2; NaN where there is no positive flux.

    Examples
    --------
    >>> magnitude(np.array([1.0, 100.0, -1.0]))
    array([22.5, 17.5,  nan])
    """
    positive = np.where(flux > 0, flux, np.nan)
    return AB_ZERO_POINT - 2.5 * np.log10(positive)


def magnitude_error(flux: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the error of a magnitude to first order; NaN where there is no positive flux."""
    positive = np.where(flux > 0, flux, np.nan)
    return POGSON * error / positive


def isophotal_radius(radius: NDArray[np.float64], mu: NDArray[np.float64], level: float) -> float:
    """Return the outermost radius at which the profile falls through a level; NaN where it never does.

    Parameters
    ----------
    radius : ndarray, shape (radius,)
        Rising.
    mu : ndarray, shape (radius,)
        mag per arcsec^2; what is not finite is left out.
    level : float
        mag per arcsec^2.

    Examples
    --------
    >>> isophotal_radius(np.array([1.0, 10.0]), np.array([20.0, 30.0]), 25.0)
    3.1622776601683795
    """
    good = np.isfinite(mu)
    radius, mu = radius[good], mu[good]
    falls = np.flatnonzero((mu[:-1] <= level) & (mu[1:] > level))
    if falls.size == 0:
        return math.nan
    at = falls[-1]
    share = (level - mu[at]) / (mu[at + 1] - mu[at])
    return float(np.exp(np.log(radius[at]) + share * np.log(radius[at + 1] / radius[at])))


@dataclass(frozen=True)
class Growth:
    """What a profile adds up to.

    Parameters
    ----------
    flux, error : float
        Within the last radius of S/N 3, nanomaggies.
    total : float
        With the exponential beyond it.
    half_light_radius : float
        Semi-major axis that holds half of the total, in the unit of the radii.
    """

    flux: float
    error: float
    total: float
    half_light_radius: float


def grow(
    edges: NDArray[np.float64],
    intensity: NDArray[np.float64],
    error: NDArray[np.float64],
    ellipticity: NDArray[np.float64],
    *,
    sky_error: float,
) -> Growth:
    """Return the curve of growth's outcome, from annulus means: what is masked counts as its annulus does.

    Parameters
    ----------
    edges : ndarray, shape (radius + 1,)
        Of the annuli, arcsec.
    intensity, error : ndarray, shape (radius,)
        nanomaggies per arcsec^2; the error without the sky's, which all annuli share.
    ellipticity : ndarray, shape (radius,)
        Of each annulus.
    sky_error : float
        nanomaggies per arcsec^2.
    """
    ratio = 1 - ellipticity
    # ellipses of changing shape: the area between two is the difference of what each encloses
    outer_ratio = np.append((ratio[:-1] + ratio[1:]) / 2, ratio[-1])
    enclosed = np.pi * outer_ratio * edges[1:] ** 2
    areas = np.diff(enclosed, prepend=np.pi * ratio[0] * edges[0] ** 2)
    core = np.pi * ratio[0] * edges[0] ** 2 * intensity[0]
    parts = np.clip(areas, 0, None) * intensity
    last = last_trusted(intensity, error)
    curve = core + np.cumsum(parts)
    flux = float(curve[last])
    noise = math.hypot(
        float(np.sqrt(np.sum((areas[: last + 1] * error[: last + 1]) ** 2))), sky_error * float(enclosed[last])
    )
    beyond = _beyond(edges, intensity, ratio, last)
    beyond = min(beyond, _EXTRAPOLATED_SHARE * max(flux, 0.0))
    total = flux + beyond
    radii, sums = (
        np.concatenate([[0.0, edges[0]], edges[1 : last + 2]]),
        np.concatenate([[0.0, core], curve[: last + 1]]),
    )
    half = _crossing(radii, sums, total / 2)
    return Growth(flux, noise, total, half)


def last_trusted(intensity: NDArray[np.float64], error: NDArray[np.float64]) -> int:
    """Return the index of the last radius up to which S/N is above 3, one dip forgiven; 0 where none is."""
    good = intensity > _TRUSTED * error
    for index in range(good.size - 1):
        if not good[index] and not good[index + 1]:
            return max(index - 1, 0)
    return good.size - 1 if good[-1] else max(good.size - 2, 0)


def _beyond(edges: NDArray[np.float64], intensity: NDArray[np.float64], ratio: NDArray[np.float64], last: int) -> float:
    """Return the flux outside the last trusted annulus, of the exponential disc through the outer trusted ones."""
    first = max(last + 1 - _OUTER, 0)
    radius = np.sqrt(edges[:-1] * edges[1:])[first : last + 1]
    bright = intensity[first : last + 1]
    good = bright > 0
    if good.sum() < _FEWEST_OUTER:
        return 0.0
    slope, level = _line(radius[good], np.log(bright[good]))
    if slope >= 0:
        return 0.0
    length, edge = -1.0 / slope, float(edges[last + 1])
    return float(2 * np.pi * ratio[last] * math.exp(level) * length * (length + edge) * math.exp(-edge / length))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and value at 0 of the line of least squares."""
    middle, apart = float(x.mean()), x - x.mean()
    slope = float(apart @ y) / float(apart @ apart)
    return slope, float(y.mean()) - slope * middle


def _crossing(radii: NDArray[np.float64], sums: NDArray[np.float64], level: float) -> float:
    """Return where a curve of growth first reaches a level; NaN where it does not."""
    above = np.flatnonzero(sums >= level)
    if not np.isfinite(level) or level <= 0 or above.size == 0 or above[0] == 0:
        return math.nan
    at = int(above[0])
    share = (level - sums[at - 1]) / (sums[at] - sums[at - 1])
    # flux within a radius grows about with its square
    return float(np.sqrt(radii[at - 1] ** 2 + share * (radii[at] ** 2 - radii[at - 1] ** 2)))


def with_photometry(profile: Profile, noise: NDArray[np.float64]) -> Profile:
    """Return the profile with the radii and magnitudes that follow from it.

    Parameters
    ----------
    profile : Profile
        With at least one radius.
    noise : ndarray, shape (radius,)
        Error of each intensity without the sky's.
    """
    radius = profile.radius_arcsec
    if radius.size < 3:
        return profile
    ratio = math.sqrt(radius[1] / radius[0])
    edges = np.append(radius / ratio, radius[-1] * ratio)
    filled = _without_holes(profile.intensity)
    growth = grow(edges, filled, np.nan_to_num(noise), profile.ellipticity, sky_error=profile.sky_error)
    trusted = np.where(profile.intensity > 2 * profile.intensity_error, profile.mu, np.nan)
    r24, r25, r26 = (isophotal_radius(radius, trusted, level) for level in (24.0, 25.0, 26.0))
    within, total = magnitude(np.array([growth.flux, growth.total])).tolist()
    error = math.nan if math.isnan(within) else POGSON * growth.error / growth.flux
    fwhm, half = profile.psf_fwhm_arcsec, growth.half_light_radius
    unresolved = math.isfinite(fwhm) and math.isfinite(half) and half < fwhm / 2
    return replace(
        profile,
        object_flags=profile.object_flags | (int(ObjectFlag.UNRESOLVED) if unresolved else 0),
        r24_arcsec=r24,
        r25_arcsec=r25,
        r26_arcsec=r26,
        d25_arcsec=2 * r25,
        half_light_radius_arcsec=half,
        magnitude=within,
        magnitude_error=error,
        total_magnitude=total,
    )


def _without_holes(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intensities with those that are not known taken from their neighbours."""
    known = np.isfinite(intensity)
    if known.all() or not known.any():
        return np.nan_to_num(intensity)
    at = np.arange(intensity.size)
    return np.interp(at, at[known], intensity[known])


def sky_offsets(
    drift: NDArray[np.float64], jacobian: NDArray[np.float64] | None, pixel_scale_arcsec: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return offsets east and north, arcsec, from offsets in pixels.

    Parameters
    ----------
    drift : ndarray, shape (radius, 2)
        Pixels in x and y.
    jacobian : ndarray, shape (2, 2), or None
        As `position_angles` takes it, degrees per pixel. None: up is taken for north, left for east.
    pixel_scale_arcsec : float
        Used where there is no jacobian.
    """
    arcsec = pixel_scale_arcsec * _UPRIGHT if jacobian is None else 3600.0 * jacobian
    east, north = arcsec @ drift.T
    return east, north


def position_angles(angle: NDArray[np.float64], jacobian: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return position angles, degrees east of north, 0 to 180, from angles on the image.

    Parameters
    ----------
    angle : ndarray
        Radians from the x axis, anticlockwise as (x, y) are drawn.
    jacobian : ndarray, shape (2, 2), or None
        Offsets (east, north) per pixel of x and of y, of either parity. None: up is taken for north, left for east.

    Examples
    --------
    >>> position_angles(np.array([np.pi / 2, 0.0]), None)
    array([ 0., 90.])
    """
    if jacobian is None:
        jacobian = _UPRIGHT
    east = jacobian[0, 0] * np.cos(angle) + jacobian[0, 1] * np.sin(angle)
    north = jacobian[1, 0] * np.cos(angle) + jacobian[1, 1] * np.sin(angle)
    return np.degrees(np.arctan2(east, north)) % 180.0


def image_angles(position_angle: NDArray[np.float64], jacobian: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return angles on the image, radians from the x axis, of position angles in degrees east of north: `position_angles` undone."""
    jacobian = _UPRIGHT if jacobian is None else jacobian
    turn = np.radians(position_angle)
    x, y = np.linalg.solve(jacobian, np.stack([np.sin(turn), np.cos(turn)]))
    return np.arctan2(y, x) % np.pi
