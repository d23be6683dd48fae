"""Cutouts out of planes: cut without resampling, empty ones refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from sky_files import noise, tan_header

from storage.cutouts import BandFacts, Cutout
from tasks.errors import SourceRejected
from tasks.sky.assembly import Frame, Plane, assemble, counts_whole, has_data, inverse_variance, psf_facts, width_of_psf
from tasks.sky.fits_images import pixel_of
from tasks.sky.targets import Target

TARGET = Target("x", 150.0, 2.0)
SHAPE = (40, 60)


def wcs(**changes: object) -> WCS:
    header = fits.Header()
    header.update(tan_header(ra=150.0, dec=2.0, shape=SHAPE) | changes)
    return WCS(header)


def plane(name: str = "r", *, seed: int = 0, **fields: object) -> Plane:
    pixels = noise(SHAPE, seed=seed)
    return dataclasses.replace(Plane(BandFacts(name), "nanomaggies", pixels, np.ones(SHAPE, bool)), **fields)  # type: ignore[arg-type]


def assembled(
    *planes: Plane,
    bands: tuple[str, ...] = (),
    size: int | None = None,
    centre: tuple[float, float] = (29.5, 19.5),
    most: float = 0.4,
    with_wcs: WCS | None = None,
) -> Cutout:
    frame = Frame(with_wcs or wcs(), 0.262, centre)
    return assemble(TARGET, planes, frame, size=size, bands=bands, max_empty_share=most, source="here")


def test_whole_planes_come_bit_for_bit() -> None:
    ivar = np.abs(noise(SHAPE, seed=3))
    cutout = assembled(plane(ivar=ivar))
    np.testing.assert_array_equal(cutout.flux[0].view(np.uint32), noise(SHAPE).view(np.uint32))
    np.testing.assert_array_equal(cutout.ivar[0], ivar)
    assert cutout.bands[0].ivar_source == "survey"
    assert cutout.valid.all()
    assert not cutout.segmentation.any()
    assert (cutout.flux.dtype, cutout.maskbits.dtype, cutout.segmentation.dtype) == (np.float32, np.int32, np.int32)


def test_bands_come_in_the_order_asked_for_and_a_missing_one_is_not_valid() -> None:
    cutout = assembled(plane("z", seed=1), plane("g", seed=2), bands=("g", "r", "z"))
    assert cutout.band_names == ("g", "r", "z")
    np.testing.assert_array_equal(cutout.flux[2], noise(SHAPE, seed=1))
    assert not cutout.valid[1].any()
    assert cutout.bands[1].ivar_source == "estimated"
    assert "no image in r" in cutout.notes
    assert "the planes come as z, g: taken by their names" in cutout.notes


def test_none_of_the_bands_is_refused_and_says_what_there_is() -> None:
    with pytest.raises(SourceRejected, match="no image in i; there is g, z"):
        assembled(plane("g"), plane("z"), bands=("i",))


def test_bands_of_different_shapes_are_refused() -> None:
    other = plane("g", pixels=noise((8, 8)), valid=np.ones((8, 8), bool))
    with pytest.raises(SourceRejected, match="different shapes"):
        assembled(plane("r"), other)


@settings(max_examples=40)
@given(st.integers(16, 70), st.floats(-5, 65), st.floats(-5, 45))
def test_a_cut_holds_the_target_within_half_a_pixel_of_its_middle_and_keeps_the_sky(
    size: int, x: float, y: float
) -> None:
    full = wcs()
    frame = Frame(full, 0.262, (x, y))
    whole = plane()
    cutout = None
    try:
        cutout = assemble(TARGET, [whole], frame, size=size, bands=(), max_empty_share=1.0, source="here")
    except SourceRejected:
        return  # nothing of the image lies in it, or one pixel alone
    text = fits.Header.fromstring(cutout.wcs)
    moved = WCS(text)
    sky = full.pixel_to_world(x, y)
    column, row = moved.world_to_pixel(sky)
    assert abs(float(column) - (size - 1) / 2) <= 0.5 + 1e-6
    assert abs(float(row) - (size - 1) / 2) <= 0.5 + 1e-6
    shift = (round(x - float(column)), round(y - float(row)))
    for j, i in zip(*np.nonzero(cutout.valid[0]), strict=True):
        assert cutout.flux[0, j, i] == whole.pixels[j + shift[1], i + shift[0]]
    inside = sum(0 <= i + shift[0] < SHAPE[1] for i in range(size)) * sum(
        0 <= j + shift[1] < SHAPE[0] for j in range(size)
    )
    assert int(cutout.valid.sum()) == inside


def test_an_image_too_empty_is_refused_and_one_less_so_is_masked_and_noted() -> None:
    valid = np.ones(SHAPE, bool)
    valid[:18] = False
    with pytest.raises(SourceRejected, match=r"45% of the pixels are empty or masked, 40% are allowed") as refused:
        assembled(plane(valid=valid))
    assert refused.value.reason == "invalid-input"
    cutout = assembled(plane(valid=valid), most=0.5)
    assert not cutout.valid[0, :18].any()
    assert "45.00% of the pixels are empty or masked" in cutout.notes


def test_a_band_without_any_data_is_noted_and_does_not_count_against_the_others() -> None:
    cutout = assembled(plane("g", valid=np.zeros(SHAPE, bool)), plane("r"))
    assert "no data in g" in cutout.notes
    with pytest.raises(SourceRejected, match="every pixel is zero"):
        assembled(plane("g", valid=np.zeros(SHAPE, bool)))


def test_an_image_of_less_than_16_pixels_a_side_is_refused() -> None:
    small = plane(pixels=noise((40, 15)), valid=np.ones((40, 15), bool))
    for refused in (lambda: assembled(small), lambda: assembled(plane(), size=15)):
        with pytest.raises(SourceRejected, match=r"an image of 15 x (40|15) pixels, 16 a side are needed") as found:
            refused()
        assert found.value.reason == "invalid-input"
    assert assembled(plane(), size=16).shape == (16, 16)


def test_a_constant_image_is_refused() -> None:
    with pytest.raises(SourceRejected, match="has one value"):
        assembled(plane(pixels=np.full(SHAPE, 3.0, np.float32)))


def test_pixels_without_the_surveys_variance_are_not_valid() -> None:
    ivar = np.ones(SHAPE, np.float32)
    ivar[3, 4] = 0.0
    cutout = assembled(plane(ivar=ivar))
    assert not cutout.valid[0, 3, 4]
    assert int((~cutout.valid).sum()) == 1


def test_flux_is_finite_whatever_came() -> None:
    pixels = noise(SHAPE)
    pixels[0, :3] = [np.nan, np.inf, -np.inf]
    cutout = assembled(plane(pixels=pixels, valid=has_data(pixels)))
    assert np.isfinite(cutout.flux).all()
    assert not cutout.valid[0, 0, :3].any()


def test_a_mirrored_image_is_kept_and_noted() -> None:
    assert "mirrored: east is to the right of north" in assembled(plane(), with_wcs=wcs(CD1_1=0.262 / 3600)).notes
    assert not assembled(plane()).notes


def test_mixed_units_are_counts_of_their_zero_points() -> None:
    counts = plane("r", unit="counts", facts=BandFacts("r", zero_point=25.0))
    assert assembled(plane("g"), counts).flux_unit == "counts"
    assert assembled(plane("g")).flux_unit == "nanomaggies"


def test_zero_is_no_data_but_in_whole_numbers() -> None:
    pixels = np.array([[0.0, 1.5], [np.nan, np.inf]])
    np.testing.assert_array_equal(has_data(pixels), [[False, True], [False, False]])
    np.testing.assert_array_equal(has_data(np.array([[0, 3]]), zero_is_data=True), [[True, True]])
    assert counts_whole(np.array([[0.0, 3.0, np.nan]]))
    assert not counts_whole(np.array([[0.0, 3.5]]))
    assert not counts_whole(np.zeros((3, 3), np.int16))


def test_inverse_variance_from_each_kind_is_the_same_and_never_infinite() -> None:
    sigma = np.array([[0.5, 2.0, 0.0, np.nan, -1.0]], dtype=np.float32)
    expected = [[4.0, 0.25, 0.0, 0.0, 1.0]]
    np.testing.assert_allclose(inverse_variance(sigma, "rms"), expected)
    np.testing.assert_allclose(inverse_variance(sigma**2, "variance"), expected)
    np.testing.assert_allclose(inverse_variance(np.array([[4.0, -1.0, np.nan, np.inf]]), "ivar"), [[4.0, 0, 0, 0]])


@pytest.mark.parametrize("sigma", [1.0, 1.7, 3.0])
def test_the_width_of_a_gaussian_psf_is_that_of_the_formula(sigma: float) -> None:
    y, x = np.mgrid[-20:21, -20:21]
    psf = np.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / (2 * sigma**2))
    assert width_of_psf(psf) == pytest.approx(2 * math.sqrt(2 * math.log(2)) * sigma, rel=0.03)


def test_a_psf_is_scaled_to_sum_1_and_a_bad_one_is_left_out() -> None:
    y, x = np.mgrid[-10:11, -10:11]
    psf = 7.0 * np.exp(-(x**2 + y**2) / 8.0)
    facts = psf_facts(BandFacts("r"), psf, pixel_scale_arcsec=0.5)
    assert facts.psf is not None
    assert float(facts.psf.sum()) == pytest.approx(1.0, rel=1e-5)
    assert facts.psf_fwhm_arcsec == pytest.approx(0.5 * 4.71, rel=0.02)
    assert psf_facts(BandFacts("r"), psf * np.nan, pixel_scale_arcsec=0.5).psf is None
    assert psf_facts(BandFacts("r"), psf * 0, pixel_scale_arcsec=0.5).psf is None


def test_the_position_of_a_cut_is_the_targets() -> None:
    cutout = assembled(plane(), size=20, centre=pixel_of(wcs(), 150.001, 2.001))
    header = WCS(fits.Header.fromstring(cutout.wcs))
    assert pixel_of(header, 150.001, 2.001) == pytest.approx((9.5, 9.5), abs=0.51)
