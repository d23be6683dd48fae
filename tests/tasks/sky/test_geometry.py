"""The ellipses of an object, and what becomes of them where a fit does not hold."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from sky_cases import exponential_disc
from sky_real import plain_cutout

from storage.cutouts import TARGET, Cutout
from tasks.sky.band_planes import band_plane
from tasks.sky.geometry import Geometry, fit_geometry, outer_ellipse
from tasks.sky.prepare import prepare_cutout
from tasks.sky.profile import ObjectFlag

SHAPE = (128, 128)


def galaxy(*, x: float = 63.5, y: float = 63.5, ellipticity: float = 0.4, angle: float = 0.7, seed: int = 1) -> Cutout:
    disc = exponential_disc(SHAPE, x=x, y=y, length=7.0, ellipticity=ellipticity, angle=angle)
    noise = default_rng(seed).normal(scale=2e-3, size=SHAPE)
    return prepare_cutout(plain_cutout("disc", disc + noise, 0.4))


def geometry_of(cutout: Cutout, *, seconds: float = 60.0) -> Geometry:
    return fit_geometry(cutout, band_plane(cutout, 0), deadline=time.monotonic() + seconds)


def test_a_disc_is_fitted_without_any_flag() -> None:
    found = geometry_of(galaxy(x=62.0, y=65.0))
    assert found.flags == ObjectFlag(0)
    held = (found.ellipses.trust > 0.5) & (found.ellipses.radius > 4)
    assert held.sum() > 10
    assert np.abs(found.ellipses.ellipticity - 0.4)[held].max() < 0.02
    assert np.abs(found.ellipses.angle - 0.7)[held].max() < 0.04
    assert (found.ellipses.x, found.ellipses.y) == pytest.approx((62.0, 65.0), abs=0.15)


def test_the_extent_is_the_major_axis_of_the_patch() -> None:
    cutout = galaxy()
    area = (cutout.segmentation == TARGET).sum()
    assert geometry_of(cutout).extent == pytest.approx(math.sqrt(area / math.pi / 0.6), rel=0.1)


def test_after_the_deadline_there_is_one_ellipse_from_moments() -> None:
    found = geometry_of(galaxy(), seconds=-1.0)
    assert found.flags == ObjectFlag.TIME_LIMIT | ObjectFlag.MOMENT_GEOMETRY
    assert np.ptp(found.ellipses.ellipticity) == 0
    assert found.ellipses.ellipticity[0] == pytest.approx(0.4, abs=0.04)
    assert (found.ellipses.trust == 0).all()


def test_a_band_that_does_not_fall_outwards_has_one_ellipse_from_moments() -> None:
    """The patch is another band's: no start can help here."""
    cutout = galaxy()
    found = geometry_of(replace(cutout, flux=-cutout.flux))
    assert found.flags == ObjectFlag.MOMENT_GEOMETRY
    assert found.ellipses.ellipticity == pytest.approx(np.full(found.ellipses.radius.size, 0.4), abs=0.05)


def test_an_object_far_from_its_place_says_so() -> None:
    assert not geometry_of(galaxy(x=70.0)).flags & ObjectFlag.OFF_CENTRE
    assert geometry_of(galaxy(x=84.0)).flags & ObjectFlag.OFF_CENTRE


def test_the_outer_ellipse_is_the_mean_of_the_outer_shapes_by_their_trust() -> None:
    found = geometry_of(galaxy())
    one = outer_ellipse(found)
    assert np.ptp(one.shape, axis=0) == pytest.approx([0.0, 0.0])
    assert one.ellipticity[0] == pytest.approx(0.4, abs=0.01)
    # the inner ones do not count
    inner = found.ellipses.radius < found.extent / 3
    bent = np.where(inner[:, None], 0.0, found.ellipses.shape)
    other = outer_ellipse(replace(found, ellipses=replace(found.ellipses, shape=bent)))
    assert other.shape == pytest.approx(one.shape, abs=1e-6)
