"""One band's profile: annuli along given ellipses, the sky beneath them, errors, flags."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import TARGET, Cutout
from tasks.sky.annuli import Annuli, measure_annuli
from tasks.sky.band_planes import BandPlane
from tasks.sky.ellipses import Ellipses
from tasks.sky.fits_images import position_of
from tasks.sky.geometry import Geometry
from tasks.sky.noise import Sky
from tasks.sky.photometry import magnitude, magnitude_error, position_angles, sky_offsets, with_photometry
from tasks.sky.prepare import jacobian_at, read_wcs
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag
from tasks.sky.wings import level_beneath

_WINGS_FROM = 0.35
_WINGS_PRIOR = 8.0
_WINGS_MOST = 6.0
_TRUSTED_GEOMETRY = 0.3


def measure_band(
    cutout: Cutout,
    index: int,
    plane: BandPlane,
    geometry: Geometry,
    edges: NDArray[np.float64],
    *,
    method: str,
    fitted_here: bool,
) -> Profile:
    """Return the profile of a band along an object's ellipses.

    Parameters
    ----------
    cutout : Cutout
        As `prepare_cutout` leaves it.
    index : int
        Of the band.
    plane : BandPlane
        The band.
    geometry : Geometry
        Of the object, whichever band it was fitted in.
    edges : ndarray, shape (radius + 1,)
        Semi-major axes of the annuli's edges, pixels.
    method : str
        What the profile says of itself.
    fitted_here : bool
        Whether the ellipses are this band's.
    """
    scale = cutout.pixel_scale_arcsec
    radius = np.sqrt(edges[:-1] * edges[1:])
    ellipses = geometry.ellipses.at(radius)
    measured = measure_annuli(plane.image, plane.good, plane.variance, ellipses, edges, inflation=plane.sky.inflation)
    sky = _sky_beneath(radius, measured, plane.sky, geometry.extent)
    unit = cutout.nanomaggies_per_unit(index) / scale**2
    noise = measured.error * unit
    found = Measurement(
        (measured.intensity - sky.level + plane.sky.level) * unit,
        np.hypot(noise, sky.error * unit),
        noise,
        measured.own,
        measured.inside,
        sky.level * unit,
        sky.error * unit,
    )
    flags = geometry.flags | _object_flags(cutout, plane, geometry)
    profile = to_profile(
        cutout, index, found, ellipses, within=radius < geometry.extent, method=method, object_flags=flags
    )
    if fitted_here:
        return profile
    return replace(profile, flags=profile.flags | np.int32(RadiusFlag.FIXED_GEOMETRY))


@dataclass(frozen=True)
class Measurement:
    """What a method found in one band along given ellipses, nanomaggies per arcsec^2, whichever method it was.

    Parameters
    ----------
    intensity, error, noise : ndarray, shape (radius,)
        Sky taken off; its error, and that without the sky's.
    own, inside : ndarray, shape (radius,)
        As in `tasks.sky.annuli.Annuli`.
    sky, sky_error : float
    """

    intensity: NDArray[np.float64]
    error: NDArray[np.float64]
    noise: NDArray[np.float64]
    own: NDArray[np.float64]
    inside: NDArray[np.float64]
    sky: float
    sky_error: float


def to_profile(
    cutout: Cutout,
    index: int,
    found: Measurement,
    ellipses: Ellipses,
    *,
    within: NDArray[np.bool_],
    method: str,
    object_flags: ObjectFlag,
) -> Profile:
    """Return the profile of a band, with flags, angles on the sky and photometry.

    Parameters
    ----------
    cutout : Cutout
    index : int
        Of the band.
    found : Measurement
    ellipses : Ellipses
        One per radius, pixels.
    within : ndarray, shape (radius,), bool
        Radii that are reported in any case.
    method : str
        What the profile says of itself.
    object_flags : ObjectFlag
        Those that the method knows of; what the image alone tells is added.
    """
    band, scale, radius = cutout.bands[index], cutout.pixel_scale_arcsec, ellipses.radius
    kept = _kept(found, within)
    jacobian, centre = _on_sky(cutout.wcs, ellipses.x, ellipses.y)
    east, north = sky_offsets(ellipses.drift[kept], jacobian, scale)
    object_flags |= _flags_of_image(cutout, index)
    intensity, error = found.intensity[kept], found.error[kept]
    profile = Profile(
        cutout.object_id,
        band.name,
        method=method,
        radius_arcsec=radius[kept] * scale,
        intensity=intensity,
        intensity_error=error,
        mu=magnitude(intensity),
        mu_error=magnitude_error(intensity, error),
        ellipticity=ellipses.ellipticity[kept],
        position_angle=position_angles(ellipses.angle, jacobian)[kept],
        offset_east_arcsec=east,
        offset_north_arcsec=north,
        flags=_radius_flags(radius * scale, found, ellipses, band.psf_fwhm_arcsec)[kept],
        object_flags=int(object_flags),
        ra=cutout.ra,
        dec=cutout.dec,
        centre_ra=centre[0],
        centre_dec=centre[1],
        centre_x=ellipses.x,
        centre_y=ellipses.y,
        sky=found.sky,
        sky_error=found.sky_error,
        psf_fwhm_arcsec=band.psf_fwhm_arcsec,
        release=band.release,
    )
    return with_photometry(profile, found.noise[kept])


@lru_cache(maxsize=16)
def _on_sky(header: str, x: float, y: float) -> tuple[NDArray[np.float64] | None, tuple[float, float]]:
    """Return a place's jacobian (`prepare.jacobian_at`) and position, which all bands share; None and NaN without a WCS."""
    wcs = read_wcs(header)
    return (None, (math.nan, math.nan)) if wcs is None else (jacobian_at(wcs, x, y), position_of(wcs, x, y))


def _sky_beneath(radius: NDArray[np.float64], measured: Annuli, sky: Sky, extent: float) -> Sky:
    """Return the sky without what the galaxy's own wings put into it: from the profile's run out into the sky."""
    outer = (radius > _WINGS_FROM * extent) & (measured.inside > 0.3)
    found = level_beneath(
        radius[outer],
        measured.intensity[outer],
        measured.error[outer],
        scatter=_WINGS_PRIOR * sky.error,
    )
    if found is None or abs(found.value) > _WINGS_MOST * sky.error:
        return sky
    return replace(sky, level=sky.level + found.value, error=max(found.error, sky.error / 2))


def _kept(found: Measurement, within: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which radii are reported: to where nothing is left of the object, or of the image."""
    signal = np.nan_to_num(found.intensity / np.where(found.error > 0, found.error, np.nan))
    faint = signal < 1.0
    gone = np.flatnonzero(faint[2:] & faint[1:-1] & faint[:-2] & ~within[2:])
    last = gone[0] + 3 if gone.size else signal.size
    seen = found.inside > 0.2
    return (np.arange(signal.size) < last) & seen & np.isfinite(found.intensity)


def _radius_flags(
    radius_arcsec: NDArray[np.float64], found: Measurement, ellipses: Ellipses, fwhm: float
) -> NDArray[np.int32]:
    conditions = {
        RadiusFlag.INSIDE_PSF: radius_arcsec < (fwhm if math.isfinite(fwhm) else 0.0),
        RadiusFlag.LOW_SIGNAL: found.intensity < 3 * found.error,
        RadiusFlag.MOSTLY_MASKED: found.own < 0.5 * np.maximum(found.inside, 1e-9),
        RadiusFlag.OFF_IMAGE: found.inside < 0.999,
        RadiusFlag.FIXED_GEOMETRY: ellipses.trust < _TRUSTED_GEOMETRY,
        RadiusFlag.NOT_POSITIVE: ~(found.intensity > 0),
    }
    return sum((int(flag) * where for flag, where in conditions.items()), np.zeros(radius_arcsec.size, dtype=np.int32))


def _object_flags(cutout: Cutout, plane: BandPlane, geometry: Geometry) -> ObjectFlag:
    rows, columns = np.indices(cutout.shape)
    near = np.hypot(rows - geometry.ellipses.y, columns - geometry.ellipses.x) < geometry.extent
    flags = ObjectFlag.NO_SKY if plane.guessed else ObjectFlag(0)
    return flags | (ObjectFlag.NEIGHBOURS if (near & (cutout.segmentation > TARGET)).any() else ObjectFlag(0))


def _flags_of_image(cutout: Cutout, index: int) -> ObjectFlag:
    band, flags = cutout.bands[index], ObjectFlag(0)
    for flag, holds in (
        (ObjectFlag.INSTRUMENTAL, not band.calibrated),
        (ObjectFlag.ESTIMATED_VARIANCE, band.ivar_source == "estimated"),
        (ObjectFlag.NO_WCS, not cutout.wcs.strip()),
    ):
        flags |= flag if holds else ObjectFlag(0)
    return flags
