"""photutils' isophote fit as it comes: the floor that every profile is scored beside."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from photutils.isophote import Ellipse, EllipseGeometry

from storage.cutouts import TARGET, Cutout
from tasks.errors import SourceRejected
from tasks.sky.fits_images import position_of
from tasks.sky.photometry import magnitude, magnitude_error, position_angles, sky_offsets
from tasks.sky.prepare import jacobian_at, read_wcs
from tasks.sky.profile import ObjectFlag, Profile, unmeasured

_START_PIXELS = 10.0
_START_ELLIPTICITY = 0.2
_START_ANGLE = math.pi / 4


@dataclass(frozen=True)
class PhotutilsMethod:
    """Fits each band by itself, as a script with photutils does.

    The middle of the image is where it starts, the median of the border is the sky, the last ellipse is half as wide as
    the image, since by itself photutils stops where the gradient sinks into the noise, and nothing is tried again.

    Parameters
    ----------
    mask_neighbours : bool
        Whether pixels of the cutout's neighbours are masked.

    References
    ----------
    Jedrzejewski 1987, MNRAS 226, 747, as in `photutils.isophote.Ellipse.fit_image`.
    """

    mask_neighbours: bool = False
    name: str = "photutils"

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return one profile per band; ``failed`` where photutils finds no isophotes. The time limit is not looked at.

        Raises
        ------
        SourceRejected
            With reason ``no-object`` where there is no valid pixel.
        """
        if not cutout.valid.any():
            raise SourceRejected(f"{cutout.object_id}: no valid pixel", reason="no-object")
        return tuple(self._measure_band(cutout, index) for index in range(len(cutout.bands)))

    def _measure_band(self, cutout: Cutout, index: int) -> Profile:
        begun = time.monotonic()
        valid = cutout.valid[index]
        if self.mask_neighbours:
            valid = valid & (cutout.segmentation <= TARGET)
        flux = cutout.flux[index].astype(float)
        sky = _border_median(flux, cutout.valid[index])
        fitted = _isophotes(np.ma.masked_array(flux - sky, ~valid) if not valid.all() else flux - sky)
        seconds = time.monotonic() - begun
        if fitted is None:
            words = "photutils found no meaningful fit"
            row = unmeasured(
                cutout.object_id, (cutout.bands[index].name,), state="failed", reason="no-object", message=words
            )[0]
            return replace(row, method=self.name, seconds=seconds)
        return _profile(cutout, index, fitted, sky, self.name, seconds)


def _isophotes(image: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return rows of semi-major axis, intensity, its error, ellipticity, angle, x and y; None where there are none."""
    rows, columns = image.shape
    start = EllipseGeometry((columns - 1) / 2, (rows - 1) / 2, _START_PIXELS, _START_ELLIPTICITY, _START_ANGLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no meaningful fit", and numpy about what is masked
        try:
            found = Ellipse(image, geometry=start).fit_image(maxsma=max(image.shape) / 2)
        except (ValueError, IndexError, ZeroDivisionError):
            return None
    kept = [row for row in found if row.sma > 0]
    if not kept:
        return None
    return np.array([[row.sma, row.intens, row.int_err, row.eps, row.pa, row.x0, row.y0] for row in kept], dtype=float)


def _profile(
    cutout: Cutout, index: int, fitted: NDArray[np.float64], sky: float, method: str, seconds: float
) -> Profile:
    sma, intensity, error, flat, angle, x, y = fitted.T
    scale, band = cutout.pixel_scale_arcsec, cutout.bands[index]
    unit = cutout.nanomaggies_per_unit(index) / scale**2
    wcs = read_wcs(cutout.wcs)
    place = float(np.median(x)), float(np.median(y))
    jacobian = None if wcs is None else jacobian_at(wcs, *place)
    centre = (math.nan, math.nan) if wcs is None else position_of(wcs, *place)
    east, north = sky_offsets(np.column_stack([x, y]) - place, jacobian, scale)
    intensity, error = intensity * unit, np.nan_to_num(error) * unit
    return Profile(
        cutout.object_id,
        band.name,
        method=method,
        radius_arcsec=sma * scale,
        intensity=intensity,
        intensity_error=error,
        mu=magnitude(intensity),
        mu_error=magnitude_error(intensity, error),
        ellipticity=flat,
        position_angle=position_angles(angle, jacobian),
        offset_east_arcsec=east,
        offset_north_arcsec=north,
        flags=np.zeros(sma.size, dtype=np.int32),
        object_flags=int(ObjectFlag.ESTIMATED_VARIANCE),
        ra=cutout.ra,
        dec=cutout.dec,
        centre_ra=centre[0],
        centre_dec=centre[1],
        centre_x=place[0],
        centre_y=place[1],
        sky=sky * unit,
        psf_fwhm_arcsec=band.psf_fwhm_arcsec,
        seconds=seconds,
        release=band.release,
    )


def _border_median(flux: NDArray[np.float64], valid: NDArray[np.bool_]) -> float:
    rows, columns = np.indices(flux.shape)
    width = max(2, min(flux.shape) // 20)
    rim = np.minimum.reduce([rows, columns, flux.shape[0] - 1 - rows, flux.shape[1] - 1 - columns]) < width
    kept = flux[rim & valid]
    return float(np.median(kept)) if kept.size else 0.0
