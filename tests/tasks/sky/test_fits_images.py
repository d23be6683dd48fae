"""What FITS files are refused, and what headers say."""

from __future__ import annotations

import bz2
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from sky_files import fits_bytes, image_unit, noise, tan_header

from tasks.errors import SourceRejected
from tasks.sky.fits_images import (
    band_names,
    check_fits,
    is_mirrored,
    pixel_of,
    pixel_scale_arcsec,
    position_of,
    read_images,
    to_float32,
    wcs_of,
)


def header(**keys: object) -> fits.Header:
    made = fits.Header()
    made.update(keys)
    return made


WHOLE = fits_bytes(noise((3, 20, 20)), {"BANDS": "grz"}, [image_unit(noise((30, 30)), {"BAND": "g"})])


def test_a_whole_file_is_whole_packed_or_not() -> None:
    for body in (WHOLE, gzip.compress(WHOLE), bz2.compress(WHOLE)):
        assert check_fits(body) == ""


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.42, 0.6, 0.8])
def test_a_file_cut_anywhere_is_known_as_cut(share: float) -> None:
    assert check_fits(WHOLE[: int(share * len(WHOLE))])
    for packed in (gzip.compress(WHOLE), bz2.compress(WHOLE)):
        assert check_fits(packed[: int(share * len(packed))])


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "empty"), (b"  <html>", "web page"), (b"GIF89a", "no FITS"), (b"SIMPLE  =   ", "ends in a header")],
)
def test_what_is_no_fits_says_what_it_is(body: bytes, words: str) -> None:
    assert words in check_fits(body)


def test_a_file_whose_last_block_is_not_filled_up_is_whole() -> None:
    body = fits_bytes(noise((20, 20)))
    assert check_fits(body[: 2880 + 20 * 20 * 4]) == ""
    assert len(read_images(body[: 2880 + 20 * 20 * 4], "x")) == 1


def test_a_download_whose_last_block_is_not_filled_up_is_cut() -> None:
    body = fits_bytes(noise((20, 20)))
    assert check_fits(body, downloaded=True) == ""
    assert "no whole blocks" in check_fits(body[: 2880 + 20 * 20 * 4 + 100], downloaded=True)


def test_every_recorded_file_is_whole_and_the_interrupted_download_is_not(shared_data: Path) -> None:
    files = [path for path in (shared_data / "galaxies").rglob("*.fit*") if path.is_file()]
    assert len(files) > 60
    damaged = [path.name for path in files if check_fits(path.read_bytes())]
    assert damaged == ["decals_dr3_truncated.fits"]


def test_bands_come_from_the_header_in_its_own_order() -> None:
    pixels = noise((3, 8, 8))
    images = read_images(fits_bytes(pixels, {"BANDS": "zgr", "BAND0": "z", "BAND1": "g", "BAND2": "r"}), "x")
    assert [image.band for image in images] == ["z", "g", "r"]
    np.testing.assert_array_equal(images[2].pixels, pixels[2])


@pytest.mark.parametrize(
    ("keys", "planes", "bands"),
    [
        ({"BANDS": "grz"}, 3, ("g", "r", "z")),
        ({"BAND0": "F814W", "BAND1": "F606W"}, 2, ("F814W", "F606W")),
        ({"BAND": "r"}, 1, ("r",)),
        ({"FILTER": "r DECam SDSS c0002 6415.0 1480.0"}, 1, ("r",)),
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, 1, ("F814W",)),
        ({"BANDS": "grz"}, 2, ()),
        ({}, 1, ()),
    ],
)
def test_names_of_bands(keys: dict[str, object], planes: int, bands: tuple[str, ...]) -> None:
    assert band_names(header(**keys), planes=planes) == bands


def test_planes_without_names_are_refused() -> None:
    with pytest.raises(SourceRejected, match="2 planes, and the header does not name"):
        read_images(fits_bytes(noise((2, 8, 8))), "x")


def test_scale_comes_from_cd_cdelt_or_pc_and_is_the_same() -> None:
    shape, step = (10, 12), 0.4 / 3600
    cd = tan_header(ra=10.0, dec=20.0, shape=shape, scale_arcsec=0.4)
    plain = {key: value for key, value in cd.items() if not key.startswith("CD")}
    forms = [
        cd,
        plain | {"CDELT1": -step, "CDELT2": step},
        plain | {"CDELT1": 1.0, "CDELT2": 1.0, "PC1_1": -step, "PC2_2": step, "PC1_2": 0.0, "PC2_1": 0.0},
        plain | {"CDELT1": -step, "CDELT2": step, "CROTA2": 30.0},
    ]
    for keys in forms:
        wcs = wcs_of(header(**keys))
        assert wcs is not None
        assert pixel_scale_arcsec(wcs) == pytest.approx(0.4, rel=1e-9)
        assert not is_mirrored(wcs)
    assert wcs_of(header(**plain)) is None
    assert wcs_of(header(CRVAL1=1.0)) is None


def test_a_mirrored_image_is_known_and_positions_go_both_ways() -> None:
    for mirrored in (False, True):
        wcs = wcs_of(header(**tan_header(ra=359.9999, dec=-60.0, shape=(100, 80), mirrored=mirrored)))
        assert wcs is not None
        assert is_mirrored(wcs) == mirrored
        x, y = pixel_of(wcs, *position_of(wcs, 12.0, 34.0))
        assert (x, y) == pytest.approx((12.0, 34.0), abs=1e-6)


@pytest.mark.parametrize(
    "matrix", [(-1, 0, 0, 1), (1, 0, 0, 1), (0, 1, 1, 0), (0, 1, -1, 0), (-0.6, 0.8, 0.8, 0.6), (-0.6, 0.8, -0.8, -0.6)]
)
@pytest.mark.parametrize("axes", [("RA---TAN", "DEC--TAN"), ("DEC--TAN", "RA---TAN")])
def test_parity_is_that_of_steps_on_the_sky(matrix: tuple[float, ...], axes: tuple[str, str]) -> None:
    keys = {"CTYPE1": axes[0], "CTYPE2": axes[1], "CRVAL1": 20.0, "CRVAL2": 20.0, "CRPIX1": 1.0, "CRPIX2": 1.0}
    keys |= {name: value * 1e-4 for name, value in zip(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), matrix, strict=True)}
    wcs = wcs_of(header(**keys))
    assert wcs is not None
    (ra, dec), (ra_x, dec_x), (ra_y, dec_y) = (position_of(wcs, x, y) for x, y in ((0, 0), (1, 0), (0, 1)))
    turn = (ra_x - ra) * (dec_y - dec) - (ra_y - ra) * (dec_x - dec)
    assert is_mirrored(wcs) == (turn > 0)


def test_the_distorted_projection_of_a_camera_goes_both_ways(shared_data: Path) -> None:
    (file,) = (shared_data / "galaxies/decam_bass_mzls_exposures/testcase6").rglob(
        "c4d_171113_061941_ooi_r_ls9.S4.fits"
    )
    image = read_images(file.read_bytes(), "x")[0]
    wcs = wcs_of(image.header)
    assert wcs is not None
    assert image.header["CTYPE1"].strip() == "RA---TPV"
    assert pixel_scale_arcsec(wcs) == pytest.approx(0.2624, abs=1e-4)
    assert pixel_of(wcs, *position_of(wcs, 20.0, 30.0)) == pytest.approx((20.0, 30.0), abs=1e-6)


def test_a_cube_and_old_keys_have_a_wcs_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    keys = tan_header(ra=1.0, dec=2.0, shape=(8, 8)) | {"RADECSYS": "FK5", "EQUINOX": 2000.0, "CTYPE3": "FREQ"}
    assert wcs_of(header(NAXIS=3, **keys)) is not None
    assert not recwarn.list


def test_float32_of_either_byte_order_comes_bit_for_bit() -> None:
    pixels = noise((50, 50))
    pixels[0, :4] = [np.nan, np.inf, -0.0, 1e-42]
    swapped = to_float32(pixels.astype(">f4"))
    assert swapped.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(swapped.view(np.uint32), pixels.view(np.uint32))


def test_scaled_and_unsigned_integers_come_as_physical_values() -> None:
    unit = fits.PrimaryHDU(np.arange(64, dtype=np.float32).reshape(8, 8) * 0.5 + 3.0)
    unit.scale("int16", bscale=0.5, bzero=3.0)
    unit.header["BAND"] = "r"
    file = io.BytesIO()
    unit.writeto(file)
    (image,) = read_images(file.getvalue(), "x")
    np.testing.assert_allclose(to_float32(image.pixels), np.arange(64).reshape(8, 8) * 0.5 + 3.0)
    assert image.scale == 0.5
    (unsigned,) = read_images(fits_bytes(np.full((8, 8), 60000, np.uint16), {"BAND": "r"}), "x")
    assert to_float32(unsigned.pixels).max() == 60000


def test_blank_integers_are_no_numbers() -> None:
    pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
    (image,) = read_images(fits_bytes(pixels, {"BAND": "r", "BLANK": 5}), "x")
    assert np.isnan(to_float32(image.pixels)).sum() == 1


def test_kinds_of_planes_are_read_from_extension_names_and_image_types() -> None:
    units = [
        image_unit(noise((8, 8)), {}, name="SCI"),
        image_unit(noise((8, 8)), {}, name="ERR"),
        image_unit(np.zeros((8, 8), np.int32), {}, name="DQ"),
        image_unit(noise((5, 5)), {}, name="PSF"),
        image_unit(noise((8, 8)), {}, name="IVAR_G"),
        image_unit(noise((8, 8)), {"IMAGETYP": "invvar", "BAND": "z"}),
    ]
    images = read_images(fits_bytes(None, {"FILTER": "r"}, units), "x")
    assert [image.kind for image in images] == ["image", "rms", "mask", "psf", "ivar", "ivar"]
    assert images[0].band == "r"
    assert images[-1].band == "z"
