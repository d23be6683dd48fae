"""FITS files of the sky for tests: small, written here, with the headers that the real ones have."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits


def tan_header(
    *, ra: float, dec: float, shape: tuple[int, int], scale_arcsec: float = 0.262, mirrored: bool = False
) -> dict[str, object]:
    """Return the keys of a TAN projection about the middle of an image, north up."""
    step = scale_arcsec / 3600.0
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": (shape[1] + 1) / 2.0,
        "CRPIX2": (shape[0] + 1) / 2.0,
        "CD1_1": step if mirrored else -step,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": step,
    }


def image_unit(pixels: np.ndarray, keys: Mapping[str, object], *, name: str = "") -> fits.ImageHDU:
    """Return an image extension."""
    unit = fits.ImageHDU(pixels, name=name or None)
    unit.header.update(keys)
    return unit


def fits_bytes(
    pixels: np.ndarray | None, keys: Mapping[str, object] = {}, units: Sequence[fits.ImageHDU] = ()
) -> bytes:
    """Return a FITS file: its first unit, and others."""
    first = fits.PrimaryHDU(pixels)
    first.header.update(keys)
    file = io.BytesIO()
    fits.HDUList([first, *units]).writeto(file)
    return file.getvalue()


def noise(shape: Sequence[int], *, seed: int = 0, level: float = 0.0) -> np.ndarray:
    """Return float32 noise of scatter 1 with no pixel at zero."""
    pixels = np.random.default_rng(seed).normal(level, 1.0, tuple(shape)).astype(np.float32)
    return np.where(pixels == 0, np.float32(0.5), pixels)


def viewer_answer(*, ra: float, dec: float, size: int, bands: str = "grz", scale_arcsec: float = 0.262) -> bytes:
    """Return what the viewer answers for a resampled cutout with inverse variance and mask bits."""
    keys = tan_header(ra=ra, dec=dec, shape=(size, size), scale_arcsec=scale_arcsec)
    keys |= {"SURVEY": "DECaLS", "VERSION": "DR10-south", "BANDS": bands, "IMAGEW": size, "IMAGEH": size}
    keys |= {f"BAND{number}": band for number, band in enumerate(bands)}
    pixels = noise((len(bands), size, size), seed=1)
    ivar = np.full(pixels.shape, 4.0, np.float32)
    ivar[:, 0, 0] = 0.0
    bits = np.zeros((size, size), np.int16)
    bits[1, 2] = 4096
    extensions = [image_unit(ivar, keys | {"IMAGETYP": "INVVAR"}), image_unit(bits, keys | {"IMAGETYP": "MASKBITS"})]
    return fits_bytes(pixels, keys | {"IMAGETYP": "IMAGE"}, extensions)


def write_brick(folder: Path, brick: str, *, ra: float, dec: float, bands: str = "grz", side: int = 400) -> None:
    """Write the files of one brick of a release, compressed as the survey's are."""
    place = folder / "coadd" / brick[:3] / brick
    place.mkdir(parents=True)
    keys = tan_header(ra=ra, dec=dec, shape=(side, side))
    for number, band in enumerate(bands):
        facts = keys | {"BAND": band, "BRICK": brick, "SURVEY": "DECaLS", "VERSION": "DR9"}
        pixels = noise((side, side), seed=number)
        ivar = np.full((side, side), 10.0 + number, np.float32)
        ivar[:, :3] = 0.0
        for what, plane in (
            ("image", pixels),
            ("invvar", ivar),
            ("psfsize", np.full((side, side), 1.2 + number / 10, np.float32)),
        ):
            unit = fits.CompImageHDU(plane, compression_type="GZIP_2", quantize_level=0.0)
            unit.header.update(facts)
            fits.HDUList([fits.PrimaryHDU(), unit]).writeto(place / f"legacysurvey-{brick}-{what}-{band}.fits.fz")
    bits = np.zeros((side, side), np.int32)
    bits[side // 2, side // 2] = 2
    unit = fits.CompImageHDU(bits, compression_type="GZIP_1")
    unit.header.update(keys)
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(place / f"legacysurvey-{brick}-maskbits.fits.fz")


def write_bricks_table(path: Path, boxes: Mapping[str, tuple[float, float, float, float]]) -> None:
    """Write a survey's table of bricks: name to (ra1, ra2, dec1, dec2)."""
    edges = np.array(list(boxes.values()))
    columns = [fits.Column("BRICKNAME", "8A", array=np.array(list(boxes)))]
    columns += [
        fits.Column(name, "D", array=edges[:, place]) for place, name in enumerate(("RA1", "RA2", "DEC1", "DEC2"))
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
