"""Cutouts made ready for measuring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from sky_cases import sersic_cutout
from sky_real import PEERS, mirrored, plain_cutout, real_cutout, rebinned, turned

from storage.cutouts import TARGET, Cutout
from tasks.sky.prepare import (
    expected_place,
    has_object,
    jacobian_at,
    prepare_cutout,
    read_wcs,
    smoothing_width,
)


def blank(shape: tuple[int, int] = (64, 64), scale: float = 0.262) -> Cutout:
    noise = np.random.default_rng(3).normal(scale=0.1, size=shape)
    return plain_cutout("blank", noise, scale)


def with_fwhm(cutout: Cutout, fwhm: float) -> Cutout:
    return replace(cutout, bands=tuple(replace(band, psf_fwhm_arcsec=fwhm) for band in cutout.bands))


def test_a_galaxy_is_labelled_and_its_pixels_stay_bit_for_bit() -> None:
    raw = sersic_cutout(side=96)
    ready = prepare_cutout(raw)
    assert has_object(ready)
    assert not has_object(raw)
    assert ready.segmentation[48, 48] == TARGET
    assert ready.segmentation[2, 2] == 0
    assert ready.flux.tobytes() == raw.flux.tobytes()


def test_what_is_not_finite_becomes_a_hole() -> None:
    raw = sersic_cutout(side=64)
    flux = raw.flux.copy()
    flux[1, 10, 20], flux[2, 11, 21] = np.nan, np.inf
    ready = prepare_cutout(replace(raw, flux=flux))
    assert not ready.valid[1, 10, 20]
    assert not ready.valid[2, 11, 21]
    assert int((~ready.valid).sum()) == 2
    assert ready.flux[1, 10, 20] == ready.ivar[1, 10, 20] == ready.ivar[2, 11, 21] == 0
    assert np.isfinite(ready.flux).all()


def test_variance_is_estimated_from_the_sky_where_the_survey_gives_none() -> None:
    ready = prepare_cutout(sersic_cutout(side=128, magnitude=19.5, half_light=1.5, index=1.0, noise=0.004))
    sigma = 1 / np.sqrt(ready.ivar)
    assert sigma == pytest.approx(np.full(sigma.shape, 0.004), rel=0.05)


def test_variance_of_the_survey_stays_but_for_holes() -> None:
    raw = sersic_cutout(side=64, bands=("g", "r"))
    bands = (replace(raw.bands[0], ivar_source="survey"), raw.bands[1])
    valid = raw.valid.copy()
    valid[:, :5] = False
    ready = prepare_cutout(replace(raw, bands=bands, valid=valid, ivar=np.full_like(raw.ivar, 7.0)))
    assert (ready.ivar[0, 5:] == 7.0).all()
    assert (ready.ivar[:, :5] == 0).all()
    assert not (ready.ivar[1, 5:] == 7.0).any()


def test_noise_has_no_object_and_still_a_variance() -> None:
    ready = prepare_cutout(blank())
    assert not has_object(ready)
    assert 1 / np.sqrt(ready.ivar[0, 3, 3]) == pytest.approx(0.1, rel=0.1)


def test_an_image_without_scatter_has_neither() -> None:
    ready = prepare_cutout(plain_cutout("flat", np.ones((32, 32)), 0.3))
    assert not has_object(ready)
    assert (ready.ivar == 0).all()


def test_bands_too_faint_alone_are_found_together() -> None:
    faint = sersic_cutout(side=96, magnitude=22.0, half_light=2.0, noise=0.02, bands=("g", "r", "z"), seed=4)
    same = replace(faint, flux=np.stack([faint.flux[0] + plane - plane.mean() for plane in faint.flux[1:]] * 2)[:3])
    assert has_object(prepare_cutout(same))


def test_the_place_is_the_targets_or_else_the_middle() -> None:
    cutout = sersic_cutout(side=64)
    assert expected_place(cutout) == pytest.approx((31.5, 31.5), abs=1e-6)
    beside = replace(cutout, dec=cutout.dec + 5 * 0.262 / 3600)
    assert expected_place(beside) == pytest.approx((31.5, 36.5), abs=1e-3)
    away = replace(cutout, dec=cutout.dec + 1.0)
    assert expected_place(away) == (31.5, 31.5)
    assert expected_place(replace(cutout, wcs="")) == (31.5, 31.5)
    assert expected_place(replace(cutout, ra=float("nan"))) == (31.5, 31.5)


def test_a_target_on_a_map_in_galactic_coordinates_or_with_swapped_axes_is_where_it_is() -> None:
    cutout = sersic_cutout(side=64, ra=150.0, dec=2.0)
    galactic, swapped = WCS(naxis=2), WCS(naxis=2)
    place = SkyCoord(150.0, 2.0, unit="deg").galactic
    galactic.wcs.ctype, galactic.wcs.crval = ["GLON-TAN", "GLAT-TAN"], [place.l.deg, place.b.deg]
    swapped.wcs.ctype, swapped.wcs.crval = ["DEC--TAN", "RA---TAN"], [2.0, 150.0]
    for wcs in (galactic, swapped):
        wcs.wcs.crpix, wcs.wcs.cdelt = [11.0, 21.0], [-0.262 / 3600, 0.262 / 3600]
        x, y = expected_place(replace(cutout, wcs=str(wcs.to_header_string())))
        assert (x, y) == pytest.approx((10.0, 20.0), abs=1e-3)


def test_jacobians_are_pixel_scale_and_parity() -> None:
    cutout = sersic_cutout(side=64, dec=60.0)
    wcs = read_wcs(cutout.wcs)
    assert wcs is not None
    # a finite step over a curved sky: a hundred thousandth
    assert 3600 * jacobian_at(wcs, 10.0, 50.0) == pytest.approx(np.array([[-0.262, 0.0], [0.0, 0.262]]), abs=1e-4)
    other = read_wcs(mirrored(cutout).wcs)
    assert other is not None
    assert 3600 * jacobian_at(other, 10.0, 50.0) == pytest.approx(np.array([[0.262, 0.0], [0.0, 0.262]]), abs=1e-4)


def test_jacobians_hold_across_right_ascension_nought() -> None:
    wcs = read_wcs(sersic_cutout(side=64, ra=0.0).wcs)
    assert wcs is not None
    assert 3600 * jacobian_at(wcs, 31.5, 31.5)[0, 0] == pytest.approx(-0.262, abs=1e-5)


def test_without_a_header_there_is_no_wcs() -> None:
    assert read_wcs("") is None
    assert read_wcs("   ") is None


def test_images_are_smoothed_by_their_point_spread_function() -> None:
    cutout = blank()
    sigma = 1.0 / 2.3548
    assert smoothing_width(with_fwhm(cutout, 1.3)) == pytest.approx(1.3 * sigma / 0.262)
    assert smoothing_width(cutout) == pytest.approx(1.2 * sigma / 0.262)
    # on the sky the same, however fine the pixels of a resampled image are
    assert 0.1 * smoothing_width(blank(scale=0.1)) == pytest.approx(0.2 * smoothing_width(blank(scale=0.2)))
    assert smoothing_width(with_fwhm(cutout, 0.3)) == 1.0
    assert smoothing_width(with_fwhm(cutout, 4.0)) == pytest.approx(2.5)
    assert smoothing_width(with_fwhm(blank(scale=1.5), 5.0)) == pytest.approx(5.0 * sigma / 1.5)
    assert smoothing_width(blank(scale=0.03)) == pytest.approx(4.0 * sigma)


@pytest.mark.parametrize("name", PEERS)
def test_sources_of_real_galaxies_stay_when_images_are_turned_mirrored_and_rebinned(
    shared_data: Path, name: str
) -> None:
    raw = real_cutout(shared_data / "galaxies", name)
    whole = prepare_cutout(raw)
    for moved in (turned, mirrored):
        expected, found = moved(whole).segmentation, prepare_cutout(moved(raw)).segmentation
        assert (np.sign(found - TARGET) == np.sign(expected - TARGET)).mean() > 0.999
    coarse = prepare_cutout(rebinned(raw)).segmentation
    assert (coarse == TARGET).mean() == pytest.approx((whole.segmentation == TARGET).mean(), rel=0.05)
    assert (coarse > TARGET).mean() == pytest.approx((whole.segmentation > TARGET).mean(), rel=0.05)
