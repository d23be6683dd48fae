"""Units and zero points of headers: what is understood, what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from astropy.io import fits
from sky_files import noise

from tasks.errors import SourceRejected
from tasks.sky.fits_images import read_images
from tasks.sky.flux_units import calibration_of, soft_bias_of


def header(**keys: object) -> fits.Header:
    made = fits.Header()
    made.update(keys)
    return made


def calibrated(**keys: object) -> tuple[str, float, bool]:
    found = calibration_of(header(**keys), band="r", pixel_scale_arcsec=0.1, zero_points={})
    return found.unit, found.zero_point, found.calibrated


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"BUNIT": "nanomaggy"}, ("nanomaggies", 22.5, True)),
        ({"BUNIT": "nanomaggies"}, ("nanomaggies", 22.5, True)),
        ({"IMAGEW": 8, "BAND0": "r"}, ("nanomaggies", 22.5, True)),
        ({"NMGY": 0.005, "CAMCOL": 1, "SOFTBIAS": 1000}, ("nanomaggies", 22.5, True)),
        ({"BUNIT": "ADU (soft bias 1000 included)"}, ("counts", 22.5, False)),
        ({"MAGZERO": 30.0}, ("counts", 30.0, True)),
        ({"BUNIT": "ELECTRONS/S", "ZP": 26.27}, ("counts", 26.27, True)),
        ({"BUNIT": "maggies"}, ("counts", 0.0, True)),
        ({"BUNIT": "nmgy / pixel"}, ("nanomaggies", 22.5, True)),
        ({"BUNIT": "nmgy.arcsec**-2"}, ("counts", 27.5, True)),
        ({"BUNIT": "JY"}, ("counts", 8.9, True)),
        ({"BUNIT": "mJy/pix"}, ("counts", 16.4, True)),
        ({"BUNIT": "uJy"}, ("counts", 23.9, True)),
        ({"BUNIT": "UNKNOWN"}, ("counts", 22.5, False)),
        ({"BUNIT": "electron / s"}, ("counts", 22.5, False)),
        ({"BUNIT": "DNs"}, ("counts", 22.5, False)),
        ({"BUNIT": "Counts s^-1"}, ("counts", 22.5, False)),
        ({"BUNIT": "e-/sec/pixel"}, ("counts", 22.5, False)),
        ({"BUNIT": "erg/s/cm2/Angstrom", "MAGZERO": 21.1}, ("counts", 21.1, True)),
        ({"BUNIT": "nJy"}, ("counts", 8.9 + 22.5, True)),
        ({"MAGZERO": "none"}, ("counts", 22.5, False)),
        ({}, ("counts", 22.5, False)),
    ],
)
def test_units_and_zero_points_of_headers(keys: dict[str, object], expected: tuple[str, float, bool]) -> None:
    assert calibrated(**keys) == pytest.approx(expected)


def test_surface_brightness_units_become_a_zero_point_by_the_pixels_area() -> None:
    area = math.radians(0.1 / 3600) ** 2
    for unit in ("MJy/sr", "MJY/SR", "MJy sr-1", "MJy.sr**-1"):
        assert calibrated(BUNIT=unit)[1] == pytest.approx(-2.5 * math.log10(1e6 * area / 3631), abs=1e-3)


def test_a_header_goes_before_the_option_and_the_bands_own_before_every_bands() -> None:
    def zero_point(options: dict[str, float], **keys: object) -> float:
        return calibration_of(header(**keys), band="r", pixel_scale_arcsec=1.0, zero_points=options).zero_point

    assert zero_point({"*": 25.0}) == 25.0
    assert zero_point({"*": 25.0, "r": 26.0}) == 26.0
    assert zero_point({"*": 25.0}, MAGZERO=30.0) == 30.0


@pytest.mark.parametrize("unit", ["mag", "mag/arcsec2", "luptitudes", "asinh(nmgy)"])
def test_units_that_are_not_linear_are_refused(unit: str) -> None:
    with pytest.raises(SourceRejected, match="not linear"):
        calibrated(BUNIT=unit)


@pytest.mark.parametrize("unit", ["K", "JY/BEAM", "Jy/beam", "km/s", "m", "MJY", "counts/arcsec2", "nothing known"])
def test_units_that_are_no_flux_of_a_pixel_are_refused_by_name(unit: str) -> None:
    with pytest.raises(SourceRejected, match=rf"{unit} \(BUNIT\), which is no flux of one pixel") as refused:
        calibrated(BUNIT=unit, MAGZERO=25.0)
    assert refused.value.reason == "invalid-input"


def test_a_flux_by_wavelength_needs_a_zero_point() -> None:
    with pytest.raises(SourceRejected, match=r"erg/s/cm2/A \(BUNIT\), a flux by wavelength: give its AB zero point"):
        calibrated(BUNIT="erg/s/cm2/A")


def test_hubbles_zero_point_comes_from_its_photometric_keys(shared_data: Path) -> None:
    file = shared_data / "galaxies" / "hst_a2744_f105w" / "a2744_dwarf_galaxy_f105w.fits.gz"
    (image,) = read_images(file.read_bytes(), "x")
    found = calibration_of(image.header, band="F105W", pixel_scale_arcsec=0.06, zero_points={})
    assert found.zero_point == pytest.approx(26.27, abs=0.005)
    assert image.band == "F105W"


def test_a_soft_bias_counts_where_the_pixels_show_it() -> None:
    raw, clean = noise((9, 9), level=1100.0), noise((9, 9), level=7.0)
    assert soft_bias_of(header(SOFTBIAS=1000), raw) == 1000.0
    assert soft_bias_of(header(SOFTBIAS=1000), clean) == 0.0
    assert soft_bias_of(header(BUNIT="ADU (soft bias 1000 included)"), raw) == 1000.0
    assert soft_bias_of(header(), raw) == 0.0
