"""photutils as it comes: the same numbers as a direct call, in the schema of profiles."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from photutils.isophote import Ellipse, EllipseGeometry
from sky_cases import sersic_cutout, sersic_intensity
from sky_real import plain_cutout

from storage.cutouts import TARGET
from tasks.errors import SourceRejected
from tasks.sky.published_photutils import PhotutilsMethod


def test_numbers_are_those_of_a_direct_call() -> None:
    cutout = sersic_cutout(side=64, magnitude=16.0, half_light=3.0, bands=("r",))
    profile = PhotutilsMethod().measure(cutout, time_limit_s=60)[0]
    flux = cutout.flux[0].astype(float)
    rows, columns = np.indices(flux.shape)
    rim = np.minimum.reduce([rows, columns, 63 - rows, 63 - columns]) < 3
    start = EllipseGeometry(31.5, 31.5, 10.0, 0.2, math.pi / 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = [
            row for row in Ellipse(flux - np.median(flux[rim]), geometry=start).fit_image(maxsma=32) if row.sma > 0
        ]
    unit = 1 / cutout.pixel_scale_arcsec**2
    assert len(direct) > 15
    assert profile.state == "measured"
    assert profile.method == "photutils"
    assert profile.radius_arcsec == pytest.approx([row.sma * cutout.pixel_scale_arcsec for row in direct])
    assert profile.intensity == pytest.approx([row.intens * unit for row in direct])
    assert profile.intensity_error == pytest.approx(np.nan_to_num([row.int_err for row in direct]) * unit)
    assert profile.ellipticity == pytest.approx([row.eps for row in direct])
    assert profile.sky == pytest.approx(np.median(flux[rim]) * unit)
    # north is up, east to the left
    angles = [math.degrees(row.pa) - 90 for row in direct]
    assert np.abs((profile.position_angle - angles + 90) % 180 - 90).max() < 0.01
    assert (profile.centre_ra, profile.centre_dec) == pytest.approx((150.0, 2.0), abs=0.1 / 3600)


def test_a_fit_that_fails_is_a_failed_row_of_its_band() -> None:
    noise = np.random.default_rng(1).normal(size=(48, 48))
    profile = PhotutilsMethod().measure(plain_cutout("noise", noise, 0.3), time_limit_s=60)[0]
    assert (profile.object_id, profile.band, profile.state, profile.method) == ("noise", "r", "failed", "photutils")
    assert profile.message
    assert profile.radius_arcsec.size == 0
    assert profile.seconds > 0


def test_each_band_is_fitted_by_itself() -> None:
    cutout = sersic_cutout(side=64, magnitude=16.0, half_light=3.0, bands=("g", "r"))
    noise = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    first, second = PhotutilsMethod().measure(replace(cutout, flux=np.stack([noise, cutout.flux[1]])), time_limit_s=60)
    assert (first.state, second.state) == ("failed", "measured")


def test_neighbours_are_masked_where_that_is_asked_for() -> None:
    cutout = sersic_cutout(side=48, magnitude=16.0, half_light=2.0, ratio=0.9, bands=("r",))
    flux, labels = cutout.flux.copy(), np.zeros(cutout.shape, dtype=np.int32)
    flux[0, 32:37, 32:37] += 2.0
    labels[30:39, 30:39] = TARGET + 1
    starred = replace(cutout, flux=flux, segmentation=labels)
    masked = PhotutilsMethod(mask_neighbours=True).measure(starred, time_limit_s=60)[0]
    at = np.geomspace(3.0, 4.2, 10)
    truth = sersic_intensity(at, total=10 ** (0.4 * 6.5), half_light=2.0, index=1.5, ratio=0.9)
    # without the mask it is off by a third and more
    assert np.interp(at, masked.radius_arcsec, masked.intensity) == pytest.approx(truth, rel=0.15)


def test_an_image_without_a_valid_pixel_is_rejected() -> None:
    cutout = sersic_cutout(side=32)
    with pytest.raises(SourceRejected, match="no valid pixel"):
        PhotutilsMethod().measure(replace(cutout, valid=np.zeros_like(cutout.valid)), time_limit_s=60)
