"""Real galaxies as cutouts, and the same ones turned, mirrored and rebinned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from storage.cutouts import BandFacts, Cutout
from tasks.sky.prepare import read_wcs

PEERS = {
    "a": "decals_dr3_a",
    "b": "decals_dr3_b",
    "d": "decals_dr3_d",
    "59": "decals_59.1067_-30.4848_img_ivar",
}
"""Galaxies of `peer_profiles` on images that are not large, and the names of their files."""


def real_cutout(folder: Path, name: str) -> Cutout:
    """Return the r band of a galaxy of `PEERS`, as a source would give it; 59 has no WCS."""
    with fits.open(folder / "legacy_grz_cutouts" / f"{PEERS[name]}.fits") as units:
        if name == "59":
            return plain_cutout(name, units[3].data, 0.262)
        wcs = WCS(units[0].header, naxis=2, fix=False)
        cutout = plain_cutout(name, units[0].data[1], abs(float(units[0].header["CD1_1"])) * 3600)
    return replace(cutout, wcs=str(wcs.to_header_string()), ra=float(wcs.wcs.crval[0]), dec=float(wcs.wcs.crval[1]))


def sdss_cutout(folder: Path, name: str) -> Cutout:
    """Return one of the SDSS galaxies in nanomaggies."""
    with fits.open(folder / "sdss_r_spirals" / f"{name}_r.fits") as units:
        wcs = WCS(units[0].header, naxis=2, fix=False)
        cutout = plain_cutout(name, units[0].data, 0.396)
    return replace(cutout, wcs=str(wcs.to_header_string()), ra=float(wcs.wcs.crval[0]), dec=float(wcs.wcs.crval[1]))


def plain_cutout(name: str, image: NDArray[np.floating], scale: float, *, calibrated: bool = True) -> Cutout:
    """Return an image in one band, without WCS, variance or PSF; in counts where it is not calibrated."""
    flux = image.astype(np.float32)[None]
    nothing = np.zeros_like(flux)
    return Cutout(
        name,
        np.nan,
        np.nan,
        (BandFacts("r", calibrated=calibrated),),
        flux,
        np.isfinite(flux),
        nothing,
        nothing.astype(np.int32),
        nothing[0].astype(np.int32),
        "",
        scale,
        flux_unit="nanomaggies" if calibrated else "counts",
    )


def turned(cutout: Cutout) -> Cutout:
    """Return the cutout turned by 90 degrees, its WCS with it."""
    columns = cutout.shape[1]
    planes = {name: np.rot90(getattr(cutout, name), axes=(-2, -1)) for name in ("flux", "valid", "ivar", "maskbits")}
    wcs = _moved(cutout.wcs, np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([columns - 1.0, 0.0]))
    return replace(cutout, **planes, segmentation=np.rot90(cutout.segmentation), wcs=wcs)


def mirrored(cutout: Cutout) -> Cutout:
    """Return the cutout with left and right swapped, its WCS with it."""
    columns = cutout.shape[1]
    planes = {name: getattr(cutout, name)[..., ::-1] for name in ("flux", "valid", "ivar", "maskbits", "segmentation")}
    wcs = _moved(cutout.wcs, np.array([[-1.0, 0.0], [0.0, 1.0]]), np.array([columns - 1.0, 0.0]))
    return replace(cutout, **planes, wcs=wcs)


def rebinned(cutout: Cutout) -> Cutout:
    """Return the cutout with 2 x 2 pixels summed into one, a source's variance with them; an odd last row is cut off."""
    rows, columns = (length // 2 for length in cutout.shape)

    def blocks(planes: NDArray) -> NDArray:
        cut = planes[:, : 2 * rows, : 2 * columns]
        return cut.reshape(-1, rows, 2, columns, 2)

    variance = np.divide(1.0, cutout.ivar, out=np.zeros_like(cutout.ivar), where=cutout.ivar > 0)
    total = blocks(variance).sum(axis=(2, 4))
    return replace(
        cutout,
        flux=blocks(cutout.flux).sum(axis=(2, 4)),
        valid=blocks(cutout.valid).all(axis=(2, 4)),
        ivar=np.divide(1.0, total, out=np.zeros_like(total), where=total > 0),
        maskbits=np.bitwise_or.reduce(blocks(cutout.maskbits), axis=(2, 4)),
        segmentation=blocks(cutout.segmentation[None]).max(axis=(2, 4))[0],
        wcs=_moved(cutout.wcs, 2 * np.eye(2), np.full(2, 0.5)),
        pixel_scale_arcsec=2 * cutout.pixel_scale_arcsec,
    )


def _moved(header: str, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> str:
    """Return a WCS on pixels of which ``matrix @ new + offset`` are the old ones, counted from 0."""
    wcs = read_wcs(header)
    if wcs is None:
        return ""
    moved = WCS(naxis=2)
    moved.wcs.ctype, moved.wcs.crval, moved.wcs.radesys = wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.radesys
    moved.wcs.crpix = np.linalg.solve(matrix, wcs.wcs.crpix - 1 - offset) + 1
    moved.wcs.cd = wcs.pixel_scale_matrix @ matrix
    return str(moved.to_header_string())
