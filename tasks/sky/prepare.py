"""From the planes of a source to a cutout that can be measured: holes, variance, neighbours."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import lru_cache

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from storage.cutouts import TARGET, Cutout
from tasks.sky.fits_images import pixel_of, positions_of
from tasks.sky.neighbours import find_sources, source_free
from tasks.sky.noise import robust_scatter, sky_scatter

_FWHM_TO_SIGMA = 2.3548
_USUAL_FWHM_ARCSEC = 1.2
_GROUND_PIXEL_ARCSEC = 0.09
"""Finer pixels are a space telescope's, whose usual width is another."""
_USUAL_FWHM_FINE_PIXELS = 4.0
_WIDEST_SMOOTHING, _WIDEST_SMOOTHING_ARCSEC = 2.5, 0.655
"""Wider ones melt neighbours into the object; the larger of the two counts."""


def prepare_cutout(cutout: Cutout) -> Cutout:
    """Return the cutout with its holes marked, its neighbours labelled and its variance estimated where there is none.

    Pixels are left as they are, but for those that are not finite: they become 0 and are not valid.
    """
    valid = cutout.valid & np.isfinite(cutout.flux)
    flux = np.where(np.isfinite(cutout.flux), cutout.flux, np.float32(0))
    cutout = replace(cutout, flux=flux, valid=valid, ivar=np.where(valid, cutout.ivar, np.float32(0)))
    x, y = expected_place(cutout)
    sources = find_sources(
        _all_bands(flux, valid),
        np.asarray(valid.any(axis=0)),
        x=x,
        y=y,
        pixel_scale_arcsec=cutout.pixel_scale_arcsec,
        width=smoothing_width(cutout),
    )
    labels = cutout.segmentation if sources is None else sources.labels
    return replace(cutout, segmentation=labels.astype(np.int32), ivar=_variance(cutout, labels))


def smoothing_width(cutout: Cutout) -> float:
    """Return the standard deviation, pixels, by which the image is smoothed to find sources: the PSF's.

    As wide on the sky whatever the pixels are, so that a resampled image has the same sources.
    """
    widest = max(_WIDEST_SMOOTHING, _WIDEST_SMOOTHING_ARCSEC / cutout.pixel_scale_arcsec)
    return min(max(width_of_points(cutout) / _FWHM_TO_SIGMA, 1.0), widest)


def width_of_points(cutout: Cutout) -> float:
    """Return the full width at half maximum of a star, pixels: the sharpest band's, a usual one where none is known."""
    scale = cutout.pixel_scale_arcsec
    usual = _USUAL_FWHM_ARCSEC if scale > _GROUND_PIXEL_ARCSEC else _USUAL_FWHM_FINE_PIXELS * scale
    fwhm = min((band.psf_fwhm_arcsec for band in cutout.bands if math.isfinite(band.psf_fwhm_arcsec)), default=usual)
    return fwhm / scale


def expected_place(cutout: Cutout) -> tuple[float, float]:
    """Return where the target lies, pixels (x, y) from the lower-left one's centre; the middle where it is not on the image."""
    rows, columns = cutout.shape
    middle = (columns - 1) / 2, (rows - 1) / 2
    wcs = read_wcs(cutout.wcs)
    if wcs is None or not (math.isfinite(cutout.ra) and math.isfinite(cutout.dec)):
        return middle
    x, y = pixel_of(wcs, cutout.ra, cutout.dec)
    on_image = math.isfinite(x) and math.isfinite(y) and -0.5 <= x < columns - 0.5 and -0.5 <= y < rows - 0.5
    return (x, y) if on_image else middle


@lru_cache(maxsize=256)
def read_wcs(header: str) -> WCS | None:
    """Return the celestial WCS of a header's text, or None where it is empty."""
    if not header.strip():
        return None
    with warnings.catch_warnings():
        # astropy mends old dates and names of units, and says so each time
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(fits.Header.fromstring(header)).celestial


def jacobian_at(wcs: WCS, x: float, y: float) -> NDArray[np.float64]:
    """Return ICRS offsets (east, north), degrees, per pixel of x and of y at a place: shape (2, 2)."""
    ra, dec = positions_of(wcs, x + np.array([0, 0.5, 0, -0.5, 0]), y + np.array([0, 0, 0.5, 0, -0.5]))
    turn = (ra - ra[0] + 180.0) % 360.0 - 180.0
    east = turn * np.cos(np.deg2rad(dec[0]))
    return np.array([[east[1] - east[3], east[2] - east[4]], [dec[1] - dec[3], dec[2] - dec[4]]])


def _all_bands(flux: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the bands added up, each in units of its own noise."""
    total = np.zeros(flux.shape[1:])
    for plane, good in zip(flux, valid, strict=True):
        noise = _pixel_noise(plane, good)
        if noise > 0:
            total += np.where(good, plane - np.median(plane[good]), 0.0) / noise
    return total


def _pixel_noise(plane: NDArray[np.float32], good: NDArray[np.bool_]) -> float:
    """Return the scatter of differences of pixels two apart: what the objects on an image hardly change."""
    both = good[:, 2:] & good[:, :-2]
    apart = (plane[:, 2:] - plane[:, :-2])[both].astype(float)
    return robust_scatter(apart) / math.sqrt(2) if apart.size else 0.0


def _variance(cutout: Cutout, labels: NDArray[np.int32]) -> NDArray[np.float32]:
    ivar = cutout.ivar.astype(np.float32).copy()
    estimated = [index for index, band in enumerate(cutout.bands) if band.ivar_source != "survey"]
    far = source_free(labels, np.ones(cutout.shape, dtype=bool), growth=2) if estimated else None
    for index in estimated:
        valid = cutout.valid[index]
        found = sky_scatter(cutout.flux[index], valid & far)
        sigma = _pixel_noise(cutout.flux[index], valid) if found is None else found
        ivar[index] = np.where(valid & (sigma > 0), 1.0 / max(sigma, 1e-30) ** 2, 0.0).astype(np.float32)
    return ivar


def ensure_prepared(cutout: Cutout) -> Cutout:
    """Return the cutout as `prepare_cutout` leaves it; one whose object is labelled is so already."""
    return cutout if has_object(cutout) else prepare_cutout(cutout)


def has_object(cutout: Cutout) -> bool:
    """Return whether the target was found on the image."""
    return bool((cutout.segmentation == TARGET).any())
