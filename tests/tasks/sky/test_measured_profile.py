"""A band's profile along given ellipses: where it ends, its flags, its errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from sky_cases import exponential_disc
from sky_real import plain_cutout

from storage.cutouts import TARGET, Cutout
from tasks.sky.annuli import annulus_edges
from tasks.sky.band_planes import band_plane
from tasks.sky.ellipses import Ellipses
from tasks.sky.geometry import Geometry
from tasks.sky.measured_profile import measure_band
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag

SHAPE, SCALE, LENGTH, NOISE = (128, 128), 0.5, 6.0, 2e-3
EDGES = annulus_edges(0.5, 80.0, 1.1)


def galaxy(*, x: float = 63.0, sky: float = 0.0) -> Cutout:
    disc = exponential_disc(SHAPE, x=x, y=64.0, length=LENGTH)
    noise = default_rng(2).normal(scale=NOISE, size=SHAPE)
    rows, columns = np.indices(SHAPE)
    patch = np.where(np.hypot(rows - 64, columns - x) < 30, TARGET, 0).astype(np.int32)
    return replace(plain_cutout("disc", disc + noise + sky, SCALE), segmentation=patch)


def circles(x: float = 63.0, *, trust: float = 1.0) -> Geometry:
    radius = np.geomspace(1.0, 30.0, 20)
    none = np.zeros((20, 2))
    return Geometry(Ellipses(x, 64.0, none, radius, none, np.full(20, trust)), 30.0, ObjectFlag.RESTARTED)


def profile_of(cutout: Cutout, geometry: Geometry | None = None, *, fitted_here: bool = True) -> Profile:
    plane = band_plane(cutout, 0)
    return measure_band(cutout, 0, plane, geometry or circles(), EDGES, method="isophote", fitted_here=fitted_here)


def flagged(profile: Profile, flag: RadiusFlag) -> np.ndarray:
    return (profile.flags & int(flag)) > 0


def test_intensities_are_per_square_arcsec_and_the_sky_is_off() -> None:
    for sky in (0.0, 0.5):
        profile = profile_of(galaxy(sky=sky))
        good = (profile.radius_arcsec > 1.5) & (profile.radius_arcsec < 10)
        truth = np.exp(-profile.radius_arcsec / SCALE / LENGTH) / SCALE**2
        assert profile.intensity[good] == pytest.approx(truth[good], rel=0.03)
        assert profile.sky == pytest.approx(sky / SCALE**2, abs=4 * profile.sky_error)


def test_errors_hold_the_skys() -> None:
    profile = profile_of(galaxy())
    assert (profile.intensity_error >= profile.sky_error).all()
    assert profile.intensity_error[0] > 2 * profile.sky_error


def test_a_profile_ends_where_three_radii_hold_nothing_of_the_object() -> None:
    profile = profile_of(galaxy())
    signal = profile.intensity / profile.intensity_error
    assert profile.radius_arcsec[-1] > 30 * SCALE
    assert profile.radius_arcsec[-1] < 80 * SCALE
    assert (signal[-3:] < 1.0).all()
    assert flagged(profile, RadiusFlag.LOW_SIGNAL)[-3:].all()
    assert not flagged(profile, RadiusFlag.LOW_SIGNAL)[profile.radius_arcsec < 20 * SCALE].any()


def test_what_is_not_positive_has_a_flag_and_no_magnitude() -> None:
    cutout = galaxy()
    rows, columns = np.indices(SHAPE)
    far = np.hypot(rows - 64, columns - 63)
    dip = np.where((far > 22) & (far < 26), -0.1, 0.0)
    profile = profile_of(replace(cutout, flux=(cutout.flux + dip).astype(np.float32)))
    negative = profile.intensity <= 0
    assert negative.any()
    assert (flagged(profile, RadiusFlag.NOT_POSITIVE) == negative).all()
    assert (np.isnan(profile.mu) == negative).all()


def test_a_band_of_another_ones_ellipses_and_weak_ones_say_so() -> None:
    cutout = galaxy()
    own, other = profile_of(cutout), profile_of(cutout, fitted_here=False)
    weak = profile_of(cutout, circles(trust=0.1))
    within = own.radius_arcsec < 29 * SCALE
    beyond = own.radius_arcsec > 31 * SCALE
    # the ellipses begin at one pixel and end at thirty
    inner = own.radius_arcsec < 0.99 * SCALE
    assert not flagged(own, RadiusFlag.FIXED_GEOMETRY)[within & ~inner].any()
    assert flagged(own, RadiusFlag.FIXED_GEOMETRY)[beyond].all()
    assert flagged(other, RadiusFlag.FIXED_GEOMETRY).all()
    assert flagged(weak, RadiusFlag.FIXED_GEOMETRY).all()


def test_annuli_off_the_image_and_under_masks_say_so() -> None:
    cut = profile_of(galaxy(x=20.0), circles(20.0))
    off = flagged(cut, RadiusFlag.OFF_IMAGE)
    assert not off[cut.radius_arcsec < 19 * SCALE].any()
    assert off[cut.radius_arcsec > 22 * SCALE].all()
    masked = galaxy()
    labels = masked.segmentation.copy()
    labels[:, 70:] = TARGET + 1
    labels[:60] = TARGET + 1
    hidden = flagged(profile_of(replace(masked, segmentation=labels)), RadiusFlag.MOSTLY_MASKED)
    assert not hidden[0]
    assert hidden[-20:].all()


def test_radii_within_a_stars_width_say_so_where_that_is_known() -> None:
    cutout = galaxy()
    known = replace(cutout, bands=(replace(cutout.bands[0], psf_fwhm_arcsec=2.0),))
    profile = profile_of(known)
    assert (flagged(profile, RadiusFlag.INSIDE_PSF) == (profile.radius_arcsec < 2.0)).all()
    assert not flagged(profile_of(cutout), RadiusFlag.INSIDE_PSF).any()


def test_flags_of_the_fit_and_of_the_image_are_carried() -> None:
    profile = profile_of(galaxy())
    assert profile.object_flags == ObjectFlag.RESTARTED | ObjectFlag.ESTIMATED_VARIANCE | ObjectFlag.NO_WCS
    assert math.isnan(profile.centre_ra)
    assert (profile.centre_x, profile.centre_y) == (63.0, 64.0)
