"""Generated galaxies as cutouts, so that all that reads a survey's images reads them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from storage.cutouts import BandFacts, Cutout
from tasks.sky.generator.render import Galaxies

_GOLDEN_ANGLE_DEG = 137.50776405003785


def object_id(seed: int) -> str:
    """Return the name of the galaxy of a seed: a decimal integer, too long for a float on purpose."""
    return str(seed)


def sky_position(seed: int) -> tuple[float, float]:
    """Return where on the sky the galaxy of a seed is said to lie, ICRS degrees, spread evenly over the sphere."""
    ra = (seed % 2_000_003) * _GOLDEN_ANGLE_DEG % 360
    sine = (seed // 2_000_003) % 1_000_003 / 1_000_003 * 1.9 - 0.95
    return ra, math.degrees(math.asin(sine))


def to_cutout(galaxies: Galaxies, index: int) -> Cutout:
    """Return a galaxy as a survey's cutout: with inverse variance, point spread function and a tangent-plane WCS.

    Its position is that of the reference ellipse's centre.
    """
    from astropy.wcs import WCS

    truth, scale = galaxies.truth, galaxies.pixel_scale_arcsec
    seed = int(truth.seed[index])
    ra, dec = sky_position(seed)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [float(truth.centre_x[index]) + 1, float(truth.centre_y[index]) + 1]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    flux = _array(galaxies.flux[index])
    return Cutout(
        object_id=object_id(seed),
        ra=ra,
        dec=dec,
        bands=tuple(_facts(galaxies, index, band) for band in range(len(galaxies.bands))),
        flux=flux,
        valid=_array(galaxies.valid[index]),
        ivar=_array(galaxies.ivar[index]),
        maskbits=_array(galaxies.maskbits[index]),
        segmentation=np.zeros(flux.shape[-2:], dtype=np.int32),
        wcs=wcs.to_header_string(),
        pixel_scale_arcsec=scale,
        source=f"generated:{galaxies.prior}",
    )


def _facts(galaxies: Galaxies, index: int, band: int) -> BandFacts:
    return BandFacts(
        galaxies.bands[band],
        ivar_source="survey",
        psf_fwhm_arcsec=float(galaxies.truth.psf_fwhm_arcsec[index, band]),
        psf=_array(galaxies.psf[index, band]),
        release=galaxies.prior,
    )


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().numpy())
