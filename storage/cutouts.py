"""One object's images in native pixels: what a source gives, what the sky store keeps, what every profile is read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FluxUnit = Literal["nanomaggies", "counts"]
IvarSource = Literal["survey", "estimated"]

AB_ZERO_POINT = 22.5
"""AB magnitude of one nanomaggy."""
TARGET = 1
"""Label of the object itself in a segmentation; 0 is sky, 2 and up are neighbours."""


@dataclass(frozen=True)
class BandFacts:
    """What a source says of one band of a cutout.

    Parameters
    ----------
    name : str
        Such as ``r``.
    flux_scale : float
        What the source's numbers were multiplied by to give `flux_unit`; 1 where the pixels are the source's own, bit
        for bit.
    zero_point : float
        AB magnitude of one unit of flux. Counts of no known zero point have `AB_ZERO_POINT`, and `calibrated` is False:
        their magnitudes are instrumental.
    calibrated : bool
        Whether the zero point is known.
    ivar_source : str
        ``survey`` or ``estimated`` (from this image alone).
    psf_fwhm_arcsec : float
        Full width at half maximum of the point spread function; NaN = not known.
    psf : ndarray, shape (y, x), float32, or None
        Image of the point spread function on the cutout's pixels, sum 1.
    release : str
        Data release, as the source names it; empty = not said.
    """

    name: str
    flux_scale: float = 1.0
    zero_point: float = AB_ZERO_POINT
    calibrated: bool = True
    ivar_source: IvarSource = "estimated"
    psf_fwhm_arcsec: float = float("nan")
    psf: NDArray[np.float32] | None = None
    release: str = ""


@dataclass(frozen=True)
class Cutout:
    """One object's images in native pixels, never resampled. y goes up, as FITS has it: row 0 is the lowest.

    Parameters
    ----------
    object_id : str
        Unique in the store.
    ra, dec : float
        The target's position, ICRS degrees; NaN where an image has no WCS and none was given.
    bands : tuple of BandFacts
        In the order of the arrays.
    flux : ndarray, shape (band, y, x), float32
        In `flux_unit` per pixel. What is not valid may hold anything finite.
    valid : ndarray, shape (band, y, x), bool
        Where there is data.
    ivar : ndarray, shape (band, y, x), float32
        Inverse variance of `flux`; 0 = not known or bad.
    maskbits : ndarray, shape (band, y, x), int32
        The survey's own bits; 0 where it gives none.
    segmentation : ndarray, shape (y, x), int32
        0 sky, `TARGET` the object, 2 and up its neighbours.
    wcs : str
        FITS header text of the celestial WCS (``WCS.to_header_string``); empty = none.
    pixel_scale_arcsec : float
        Side of a pixel: square root of its area.
    flux_unit : str
        ``nanomaggies`` or ``counts``.
    source : str
        Which source gave it, and what of: a URL without its query, or a file.
    notes : tuple of str
        What was recognised and mended or should be known, one short sentence each.
    """

    object_id: str
    ra: float
    dec: float
    bands: tuple[BandFacts, ...]
    flux: NDArray[np.float32]
    valid: NDArray[np.bool_]
    ivar: NDArray[np.float32]
    maskbits: NDArray[np.int32]
    segmentation: NDArray[np.int32]
    wcs: str
    pixel_scale_arcsec: float
    flux_unit: FluxUnit = "nanomaggies"
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def band_names(self) -> tuple[str, ...]:
        """Return the names of the bands in order."""
        return tuple(band.name for band in self.bands)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (y, x) in pixels."""
        rows, columns = self.flux.shape[-2:]
        return int(rows), int(columns)

    def nanomaggies_per_unit(self, band: int) -> float:
        """Return what one unit of flux is in nanomaggies; for counts of no zero point, in instrumental ones."""
        return float(10.0 ** ((AB_ZERO_POINT - self.bands[band].zero_point) / 2.5))
