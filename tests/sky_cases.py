"""Cutouts for the tests of the sky."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from storage.cutouts import BandFacts, Cutout


def random_cutout(
    object_id: str,
    *,
    shape: tuple[int, int] = (20, 24),
    bands: tuple[str, ...] = ("g", "r", "z"),
    seed: int = 0,
    psf: tuple[int, int] | None = (7, 5),
    unit: str = "nanomaggies",
) -> Cutout:
    """Return noise with everything that a cutout can have; for stores, not for profiles."""
    rng = np.random.default_rng(seed)
    size = (len(bands), *shape)
    facts = tuple(
        BandFacts(
            name,
            flux_scale=float(rng.uniform(0.5, 2.0)),
            zero_point=22.5 + index / 7,
            calibrated=index % 2 == 0,
            ivar_source="survey" if index % 2 else "estimated",
            psf_fwhm_arcsec=float("nan") if index == 1 else 1.0 + index / 3,
            psf=None if psf is None or index == 2 else rng.random(psf, dtype=np.float32),
            release=f"dr{index}",
        )
        for index, name in enumerate(bands)
    )
    return Cutout(
        object_id=object_id,
        ra=float(rng.uniform(0, 360)),
        dec=float(rng.uniform(-90, 90)),
        bands=facts,
        flux=rng.normal(size=size).astype(np.float32),
        valid=rng.random(size) > 0.1,
        ivar=rng.random(size, dtype=np.float32),
        maskbits=rng.integers(0, 2**20, size, dtype=np.int32),
        segmentation=rng.integers(0, 3, shape, dtype=np.int32),
        wcs="WCSAXES =                    2",
        pixel_scale_arcsec=0.262,
        flux_unit="counts" if unit == "counts" else "nanomaggies",
        source="https://example.org/cutout",
        notes=("some rows are empty",),
    )


def assert_same_cutout(found: Cutout, expected: Cutout) -> None:
    """Compare two cutouts bit for bit; NaN equals NaN."""
    for name in ("flux", "valid", "ivar", "maskbits", "segmentation"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
    for name in ("object_id", "ra", "dec", "wcs", "pixel_scale_arcsec", "flux_unit", "source", "notes"):
        assert repr(getattr(found, name)) == repr(getattr(expected, name)), name
    for band, other in zip(found.bands, expected.bands, strict=True):
        names = [name for name in vars(other) if name != "psf"]
        assert [repr(getattr(band, name)) for name in names] == [repr(getattr(other, name)) for name in names]
        assert (band.psf is None) == (other.psf is None)
        if band.psf is not None and other.psf is not None:
            assert (band.psf.shape, band.psf.tobytes()) == (other.psf.shape, other.psf.tobytes())


def sersic_intensity(radius: np.ndarray, *, total: float, half_light: float, index: float, ratio: float) -> np.ndarray:
    """Return the Sersic law, flux per arcsec^2, at semi-major axes in arcsec (b_n: Ciotti and Bertin 1999)."""
    b = 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2)
    norm = 2 * math.pi * half_light**2 * ratio * index * math.exp(b) * b ** (-2 * index) * math.gamma(2 * index)
    return total / norm * np.exp(-b * ((radius / half_light) ** (1 / index) - 1))


def sersic_cutout(
    object_id: str = "galaxy",
    *,
    side: int = 96,
    bands: tuple[str, ...] = ("g", "r", "z"),
    magnitude: float = 16.5,
    half_light: float = 4.0,
    index: float = 1.5,
    ratio: float = 0.6,
    angle: float = 30.0,
    noise: float = 0.004,
    fwhm: float = 1.2,
    scale: float = 0.262,
    ra: float = 150.0,
    dec: float = 2.0,
    seed: int = 0,
) -> Cutout:
    """Return one Sersic galaxy in the middle, Gaussian PSF, white noise, north up, east left; no segmentation, no variance.

    Parameters
    ----------
    magnitude : float
        Total AB magnitude in the first band; each further one is 0.5 mag brighter.
    angle : float
        Degrees east of north.
    noise : float
        nanomaggies per pixel.
    """
    rng = np.random.default_rng(seed)
    fine = 3
    y, x = (np.indices((side * fine, side * fine)) - (side * fine - 1) / 2) * (scale / fine)
    turn = math.radians(angle)
    along, across = -x * math.sin(turn) + y * math.cos(turn), -x * math.cos(turn) - y * math.sin(turn)
    radius = np.hypot(along, across / ratio)
    light = sersic_intensity(radius, total=1.0, half_light=half_light, index=index, ratio=ratio)
    light = ndimage.gaussian_filter(light, fwhm / 2.3548 / (scale / fine))
    light = light.reshape(side, fine, side, fine).mean(axis=(1, 3)) * scale**2
    totals = [10 ** (0.4 * (22.5 - magnitude + 0.5 * number)) for number in range(len(bands))]
    flux = np.stack([total * light + rng.normal(scale=noise, size=light.shape) for total in totals])
    middle = (side - 1) / 2 + 1
    wcs = (
        f"WCSAXES = 2;CTYPE1 = 'RA---TAN';CTYPE2 = 'DEC--TAN';CRVAL1 = {ra!r};CRVAL2 = {dec!r};CRPIX1 = {middle};"
        f"CRPIX2 = {middle};CDELT1 = {-scale / 3600:.15f};CDELT2 = {scale / 3600:.15f};CUNIT1 = 'deg';CUNIT2 = 'deg'"
    )
    return Cutout(
        object_id,
        ra,
        dec,
        tuple(BandFacts(name, psf_fwhm_arcsec=fwhm, release="test") for name in bands),
        flux.astype(np.float32),
        np.ones(flux.shape, dtype=bool),
        np.zeros(flux.shape, dtype=np.float32),
        np.zeros(flux.shape, dtype=np.int32),
        np.zeros((side, side), dtype=np.int32),
        "".join(f"{card.partition(' = ')[0]:<8}= {card.partition(' = ')[2]:<70}" for card in wcs.split(";")),
        scale,
        source="generated",
    )


def exponential_disc(
    shape: tuple[int, int], *, x: float, y: float, length: float, ellipticity: float = 0.0, angle: float = 0.0
) -> np.ndarray:
    """Return an exponential disc of central intensity 1 at the middles of pixels, without noise or PSF.

    Parameters
    ----------
    x, y, length : float
        Pixels.
    angle : float
        Radians from the x axis, anticlockwise.
    """
    rows, columns = np.indices(shape)
    along = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
    across = -(columns - x) * math.sin(angle) + (rows - y) * math.cos(angle)
    return np.exp(-np.hypot(along, across / (1 - ellipticity)) / length)


def point_source(shape: tuple[int, int], *, x: float, y: float, sigma: float) -> np.ndarray:
    """Return a Gaussian of peak 1."""
    rows, columns = np.indices(shape)
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
