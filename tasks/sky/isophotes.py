"""Classical profiles: isophotes of the deepest band, annuli along them in every band."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.cutouts import TARGET, Cutout
from tasks.errors import SourceRejected
from tasks.sky.annuli import Annuli, annulus_edges, measure_annuli
from tasks.sky.ellipses import Ellipses, fit_ellipses, moment_shape, smooth_layers
from tasks.sky.neighbours import object_middle, patch_extent, search_radius, source_free
from tasks.sky.noise import Sky, combine_skies, measure_sky, robust_scatter
from tasks.sky.photometry import grow, isophotal_radius, magnitude, magnitude_error, position_angles
from tasks.sky.prepare import expected_place, has_object, jacobian_at, read_wcs, smoothing_width
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag
from tasks.sky.wings import level_beneath

_STEP = 1.1
_FIRST_PIXELS = 0.5
_FIT_FROM_PIXELS = 1.5
_FIT_TO = 1.1
_MEASURE_TO = 3.0
_FREE_OF_OBJECT = (2.0, 1.6, 1.3)
_ZONES = (1.0, 1.5, 2.25, 3.5)
"""Inner edges of rings of sky, in units of where it begins."""
_FEWEST_SKY_SHARE = 0.05
_FEWEST_SKY_PIXELS = 400
_WINGS_FROM = 0.35
_WINGS_PRIOR = 8.0
_WINGS_MOST = 6.0
_TRUSTED_GEOMETRY = 0.3
_LOST_CENTRE = 0.35


@dataclass(frozen=True)
class IsophoteMethod:
    """Measures profiles by isophotes.

    Parameters
    ----------
    fixed_geometry : bool
        One ellipse, the outer isophotes', at all radii.
    step : float
        Ratio of neighbouring radii.
    """

    fixed_geometry: bool = False
    step: float = _STEP
    name: str = "isophote"

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return one profile per band.

        Parameters
        ----------
        cutout : Cutout
            As `prepare_cutout` leaves it.
        time_limit_s : float
            After it no further fit is begun; annuli along the moments' ellipse are measured still.

        Raises
        ------
        SourceRejected
            With reason ``no-object`` where nothing stands out of the noise.
        """
        begun = time.monotonic()
        if not has_object(cutout):
            raise SourceRejected(
                f"{cutout.object_id}: nothing stands out of the noise at its place", reason="no-object"
            )
        planes = tuple(_plane(cutout, index) for index in range(len(cutout.bands)))
        deepest = max(range(len(planes)), key=lambda index: planes[index].signal)
        geometry = _fit_geometry(cutout, planes[deepest], deadline=begun + time_limit_s)
        if self.fixed_geometry:
            geometry = replace(geometry, ellipses=_outer_ellipse(geometry))
        edges = self._edges(cutout, geometry)
        profiles = tuple(
            _profile(cutout, index, planes[index], geometry, edges, method=self.name, fitted_here=index == deepest)
            for index in range(len(planes))
        )
        seconds = (time.monotonic() - begun) / len(planes)
        return tuple(replace(profile, seconds=seconds) for profile in profiles)

    def _edges(self, cutout: Cutout, geometry: _Geometry) -> NDArray[np.float64]:
        rows, columns = cutout.shape
        ellipses = geometry.ellipses
        corner = max(math.hypot(x - ellipses.x, y - ellipses.y) for x in (0, columns - 1) for y in (0, rows - 1))
        return annulus_edges(_FIRST_PIXELS, max(min(_MEASURE_TO * geometry.extent, corner), 3.0), self.step)


@dataclass(frozen=True)
class _Plane:
    """One band, ready for measuring."""

    image: NDArray[np.float64]  # (y, x), flux per pixel, sky taken off
    good: NDArray[np.bool_]  # (y, x)
    variance: NDArray[np.float64]  # (y, x)
    sky: Sky
    guessed: bool  # the object fills the image
    signal: float  # of the object, over its noise


@dataclass(frozen=True)
class _Geometry:
    ellipses: Ellipses
    extent: float  # semi-major axis of the object's patch, pixels
    flags: ObjectFlag


def _plane(cutout: Cutout, index: int) -> _Plane:
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
    return _Plane(flux - sky.level, good, variance, sky, guessed, signal)


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


def _fit_geometry(cutout: Cutout, plane: _Plane, *, deadline: float) -> _Geometry:
    """Return the ellipses of a band: from moments, from a circle where that fails, else one ellipse from moments."""
    labels = cutout.segmentation
    place = expected_place(cutout)
    x, y = object_middle(
        plane.image,
        plane.good & (labels == TARGET),
        x=place[0],
        y=place[1],
        radius=search_radius(labels.shape, cutout.pixel_scale_arcsec),
        width=smoothing_width(cutout),
    )
    shape = moment_shape(labels, x, y)
    extent = patch_extent(labels, x, y) / math.sqrt(1 - float(np.hypot(*shape)))
    last = max(_FIT_TO * extent, 2 * _FIT_FROM_PIXELS)
    radius = annulus_edges(_FIT_FROM_PIXELS, last, _STEP)[:-1] * math.sqrt(_STEP)
    flags = ObjectFlag(0)
    if math.hypot(x - place[0], y - place[1]) > search_radius(labels.shape, cutout.pixel_scale_arcsec):
        flags |= ObjectFlag.OFF_CENTRE
    moments = Ellipses(
        x, y, np.zeros((radius.size, 2)), radius, np.tile(shape, (radius.size, 1)), np.zeros(radius.size)
    )
    layers = smooth_layers(plane.image, plane.good, last)
    for start, flag in ((moments, ObjectFlag(0)), (replace(moments, shape=0 * moments.shape), ObjectFlag.RESTARTED)):
        if time.monotonic() > deadline:
            flags |= ObjectFlag.TIME_LIMIT
            break
        found = fit_ellipses(layers, start)
        if _holds(found):
            return _Geometry(found, extent, flags | flag)
    return _Geometry(moments, extent, flags | ObjectFlag.MOMENT_GEOMETRY)


def _holds(found: Ellipses) -> bool:
    """Return whether a fit is one: finite, about the same middle, and resting on the data somewhere."""
    moved = np.hypot(found.drift[:, 0], found.drift[:, 1])
    near = bool((moved < np.maximum(_LOST_CENTRE * found.radius, max(0.2 * float(found.radius[-1]), 2.0))).all())
    return bool(np.isfinite(found.shape).all() and near and found.trust.max() > 0.2)


def _outer_ellipse(geometry: _Geometry) -> Ellipses:
    """Return one ellipse at all radii: the outer isophotes', each by how far its own data hold it."""
    ellipses = geometry.ellipses
    outer = ellipses.radius > geometry.extent / 3
    weight = np.where(outer, ellipses.trust, 0.0) + 1e-9
    shape = np.average(ellipses.shape, axis=0, weights=weight)
    return replace(ellipses, shape=np.tile(shape, (ellipses.radius.size, 1)))


def _profile(
    cutout: Cutout,
    index: int,
    plane: _Plane,
    geometry: _Geometry,
    edges: NDArray[np.float64],
    *,
    method: str,
    fitted_here: bool,
) -> Profile:
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
    centre = (math.nan, math.nan) if wcs is None else wcs.pixel_to_world_values(ellipses.x, ellipses.y)
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
        flags=flags[kept],
        object_flags=int(_object_flags(cutout, index, plane, geometry, wcs is not None)),
        ra=cutout.ra,
        dec=cutout.dec,
        centre_ra=float(centre[0]),
        centre_dec=float(centre[1]),
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
    flux = np.array([growth.flux, growth.total])
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
        magnitude=float(magnitude(flux)[0]),
        magnitude_error=float(magnitude_error(flux, np.array([growth.error, 0.0]))[0]),
        total_magnitude=float(magnitude(flux)[1]),
    )


def _without_holes(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intensities with those that are not known taken from their neighbours."""
    known = np.isfinite(intensity)
    if known.all() or not known.any():
        return np.nan_to_num(intensity)
    at = np.arange(intensity.size)
    return np.interp(at, at[known], intensity[known])


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


def _object_flags(cutout: Cutout, index: int, plane: _Plane, geometry: _Geometry, has_wcs: bool) -> ObjectFlag:
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
