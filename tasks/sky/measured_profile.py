"""One band's profile: annuli along given ellipses, the sky beneath them, errors, flags."""

from __future__ import annotations

import math
from dataclasses import replace

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
    band, scale = cutout.bands[index], cutout.pixel_scale_arcsec
    radius = np.sqrt(edges[:-1] * edges[1:])
    ellipses = geometry.ellipses.at(radius)
    measured = measure_annuli(plane.image, plane.good, plane.variance, ellipses, edges, inflation=plane.sky.inflation)
    sky = _sky_beneath(radius, measured, plane.sky, geometry.extent)
    unit = cutout.nanomaggies_per_unit(index) / scale**2
    sky_error = sky.error * unit
    intensity, noise = (measured.intensity - sky.level + plane.sky.level) * unit, measured.error * unit
    error = np.hypot(noise, sky_error)
    kept = _kept(intensity, error, measured, radius < geometry.extent)
    flags = _radius_flags(radius * scale, intensity, error, measured, ellipses, band.psf_fwhm_arcsec)
    if not fitted_here:
        flags |= int(RadiusFlag.FIXED_GEOMETRY)
    wcs = read_wcs(cutout.wcs)
    jacobian = None if wcs is None else jacobian_at(wcs, ellipses.x, ellipses.y)
    centre = (math.nan, math.nan) if wcs is None else position_of(wcs, ellipses.x, ellipses.y)
    east, north = sky_offsets(ellipses.drift[kept], jacobian, scale)
    profile = Profile(
        cutout.object_id,
        band.name,
        method=method,
        radius_arcsec=radius[kept] * scale,
        intensity=intensity[kept],
        intensity_error=error[kept],
        mu=magnitude(intensity[kept]),
        mu_error=magnitude_error(intensity[kept], error[kept]),
        ellipticity=ellipses.ellipticity[kept],
        position_angle=position_angles(ellipses.angle, jacobian)[kept],
        offset_east_arcsec=east,
        offset_north_arcsec=north,
        flags=flags[kept],
        object_flags=int(_object_flags(cutout, index, plane, geometry, wcs is not None)),
        ra=cutout.ra,
        dec=cutout.dec,
        centre_ra=centre[0],
        centre_dec=centre[1],
        centre_x=ellipses.x,
        centre_y=ellipses.y,
        sky=sky.level * unit,
        sky_error=sky_error,
        psf_fwhm_arcsec=band.psf_fwhm_arcsec,
        release=band.release,
    )
    return with_photometry(profile, noise[kept])


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


def _kept(
    intensity: NDArray[np.float64], error: NDArray[np.float64], measured: Annuli, within: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which radii are reported: to where nothing is left of the object, or of the image."""
    signal = np.nan_to_num(intensity / np.where(error > 0, error, np.nan))
    last = intensity.size
    for index in range(2, intensity.size):
        if not within[index] and (signal[index - 2 : index + 1] < 1.0).all():
            last = index + 1
            break
    seen = measured.inside > 0.2
    return (np.arange(intensity.size) < last) & seen & np.isfinite(intensity)


def _radius_flags(
    radius_arcsec: NDArray[np.float64],
    intensity: NDArray[np.float64],
    error: NDArray[np.float64],
    measured: Annuli,
    ellipses: Ellipses,
    fwhm: float,
) -> NDArray[np.int32]:
    conditions = {
        RadiusFlag.INSIDE_PSF: radius_arcsec < (fwhm if math.isfinite(fwhm) else 0.0),
        RadiusFlag.LOW_SIGNAL: intensity < 3 * error,
        RadiusFlag.MOSTLY_MASKED: measured.own < 0.5 * np.maximum(measured.inside, 1e-9),
        RadiusFlag.OFF_IMAGE: measured.inside < 0.999,
        RadiusFlag.FIXED_GEOMETRY: ellipses.trust < _TRUSTED_GEOMETRY,
        RadiusFlag.NOT_POSITIVE: ~(intensity > 0),
    }
    return sum((int(flag) * where for flag, where in conditions.items()), np.zeros(radius_arcsec.size, dtype=np.int32))


def _object_flags(cutout: Cutout, index: int, plane: BandPlane, geometry: Geometry, has_wcs: bool) -> ObjectFlag:
    band, flags = cutout.bands[index], geometry.flags
    rows, columns = np.indices(cutout.shape)
    near = np.hypot(rows - geometry.ellipses.y, columns - geometry.ellipses.x) < geometry.extent
    for flag, holds in (
        (ObjectFlag.INSTRUMENTAL, not band.calibrated),
        (ObjectFlag.ESTIMATED_VARIANCE, band.ivar_source == "estimated"),
        (ObjectFlag.NO_WCS, not has_wcs),
        (ObjectFlag.NO_SKY, plane.guessed),
        (ObjectFlag.NEIGHBOURS, bool((near & (cutout.segmentation > TARGET)).any())),
    ):
        flags |= flag if holds else ObjectFlag(0)
    return flags
