"""Profiles by Pix2Prof as published: weights imported from its file, on the images that it was made for."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.pix2prof import SIDE, Pix2Prof, as_published, scale_images
from storage.cutouts import AB_ZERO_POINT, Cutout
from tasks.errors import SourceRejected
from tasks.sky.fits_images import position_of
from tasks.sky.photometry import isophotal_radius
from tasks.sky.prepare import read_wcs
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag, unmeasured
from tasks.sky.profile_models import load_reader

KIND = "pix2prof"
BANDS = ("g", "r", "i")
"""Of the images that the published weights were trained on."""
PIXEL_SCALE_ARCSEC = 0.396
"""Of SDSS frames. The network gives no radius: its sample k, counted from 1, is put at k of these pixels."""
_SCALE_TOLERANCE = 0.01


@dataclass(frozen=True)
class PublishedMethod:
    """Reads surface brightness off each band by itself; no geometry, sky, uncertainty or magnitude comes out.

    The image is cut to 256 x 256 pixels about its middle; pixels without data count as 0, neighbours stay.

    Parameters
    ----------
    warehouse : str
        URL.
    model : str
        Best as ``name/version``, of kind `KIND`: each process reads it by itself.
    training_mode : bool
        As its authors ran it: norms by the statistics of the one image, dropout on (seeded by object and band). Otherwise
        eval mode.
    """

    warehouse: str
    model: str
    training_mode: bool = False
    name: str = "published"

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return one profile per band; ``rejected`` where the weights know no such band. The time limit is not looked at.

        Raises
        ------
        SourceRejected
            Where the image is smaller than the weights' own, or of another pixel scale.
        """
        scale, shape = cutout.pixel_scale_arcsec, cutout.shape
        if abs(scale / PIXEL_SCALE_ARCSEC - 1) > _SCALE_TOLERANCE:
            raise SourceRejected(
                f"{scale:.4g} arcsec per pixel: the published network counts radii in pixels of "
                f"{PIXEL_SCALE_ARCSEC} arcsec and can read no others"
            )
        if min(shape) < SIDE:
            raise SourceRejected(f"{shape[1]} x {shape[0]} pixels: the published network needs {SIDE} x {SIDE}")
        model = load_pix2prof(self.warehouse, self.model)
        return tuple(self._measure_band(model, cutout, index) for index in range(len(cutout.bands)))

    def _measure_band(self, model: Pix2Prof, cutout: Cutout, index: int) -> Profile:
        begun, band = time.monotonic(), cutout.bands[index]
        if words := _unfit(cutout, index):
            return unmeasured(cutout.object_id, (band.name,), state="rejected", reason="invalid-input", message=words)[
                0
            ]
        rows, columns = middle_of(cutout.shape)
        flux = np.where(cutout.valid[index], cutout.flux[index], 0.0)[rows, columns]
        image = torch.from_numpy(flux * cutout.nanomaggies_per_unit(index)).float()
        generator = torch.Generator().manual_seed(_seed(cutout.object_id, band.name))
        mu = predict(model, image, training_mode=self.training_mode, generator=generator)
        return _profile(cutout, index, mu, self.name, begun)


def load_pix2prof(warehouse: str, name: str) -> Pix2Prof:
    """Return a model of the warehouse: see `load_reader`."""
    return load_reader(warehouse, name, Pix2Prof, method="published", kind=KIND)


def open_published(warehouse: str, name: str, *, training_mode: bool = False) -> PublishedMethod:
    """Return the method with a model of the warehouse, its kind looked at.

    Raises
    ------
    NotFound, ConfigurationError
        As `load_reader`.
    """
    load_pix2prof(warehouse, name)
    return PublishedMethod(warehouse, name, training_mode)


def predict(
    model: Pix2Prof, image: torch.Tensor, *, training_mode: bool, generator: torch.Generator
) -> NDArray[np.float64]:
    """Return what the network says of one image.

    Parameters
    ----------
    model : Pix2Prof
        In eval mode.
    image : Tensor, shape (Y, X)
        nanomaggies per pixel.
    training_mode : bool
        See `PublishedMethod`.
    generator : torch.Generator
        Draws dropout in training mode.

    Returns
    -------
    ndarray, shape (sample,), mag per arcsec^2
        NaN where the network's last ReLU gives 0: it has no answer there.
    """
    scaled = scale_images(image)[None, None]  # (Y, X) -> (1, 1, Y, X)
    with torch.inference_mode():
        if training_mode:
            with as_published(model):
                (made,) = model.roll_out(scaled, generator=generator)
        else:
            (made,) = model.roll_out(scaled)
    mu = made.double().numpy()
    return np.where(mu > 0, mu, np.nan)


def middle_of(shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return rows and columns of the 256 x 256 pixels about the middle of an image that is no smaller.

    Examples
    --------
    >>> middle_of((256, 300))
    (slice(0, 256, None), slice(22, 278, None))
    """
    low, left = ((side - SIDE) // 2 for side in shape)
    return slice(low, low + SIDE), slice(left, left + SIDE)


def _unfit(cutout: Cutout, index: int) -> str:
    """Return why a band is not for the published weights; nothing where it is."""
    band = cutout.bands[index]
    if band.name not in BANDS:
        return f"the published network was trained on {', '.join(BANDS)} alone"
    if not band.calibrated:
        return "no zero point is known, and the published network takes nanomaggies"
    if not cutout.valid[index].any():
        return "no valid pixel"
    return ""


def _profile(cutout: Cutout, index: int, mu: NDArray[np.float64], method: str, begun: float) -> Profile:
    band, wcs = cutout.bands[index], read_wcs(cutout.wcs)
    rows, columns = middle_of(cutout.shape)
    place = (columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2
    centre = (math.nan, math.nan) if wcs is None else position_of(wcs, *place)
    radius = PIXEL_SCALE_ARCSEC * np.arange(1.0, mu.size + 1)
    unknown = np.full(mu.size, np.nan)
    inside = radius < np.nan_to_num(band.psf_fwhm_arcsec)
    r24, r25, r26 = (isophotal_radius(radius, mu, level) for level in (24.0, 25.0, 26.0))
    return Profile(
        cutout.object_id,
        band.name,
        method=method,
        radius_arcsec=radius,
        intensity=10 ** (0.4 * (AB_ZERO_POINT - mu)),
        intensity_error=unknown,
        mu=mu,
        mu_error=unknown,
        ellipticity=unknown,
        position_angle=unknown,
        offset_east_arcsec=np.zeros(mu.size),
        offset_north_arcsec=np.zeros(mu.size),
        flags=np.where(inside, int(RadiusFlag.INSIDE_PSF), 0).astype(np.int32),
        object_flags=int(ObjectFlag.NO_WCS) if wcs is None else 0,
        ra=cutout.ra,
        dec=cutout.dec,
        centre_ra=centre[0],
        centre_dec=centre[1],
        centre_x=place[0],
        centre_y=place[1],
        psf_fwhm_arcsec=band.psf_fwhm_arcsec,
        r24_arcsec=r24,
        r25_arcsec=r25,
        r26_arcsec=r26,
        d25_arcsec=2 * r25,
        seconds=time.monotonic() - begun,
        release=band.release,
    )


def _seed(object_id: str, band: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{object_id} {band}".encode()).digest()[:7])
