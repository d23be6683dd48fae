"""Magnitudes, radii and angles of profiles whose answers are known in closed form."""

from __future__ import annotations

import math

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sky_cases import sersic_intensity

from tasks.sky.fits_images import positions_of
from tasks.sky.photometry import (
    POGSON,
    Growth,
    grow,
    image_angles,
    isophotal_radius,
    last_trusted,
    magnitude,
    magnitude_error,
    position_angles,
    with_photometry,
)
from tasks.sky.prepare import jacobian_at
from tasks.sky.profile import ObjectFlag, Profile

EDGES = 0.1 * 1.1 ** np.arange(70)
RADIUS = np.sqrt(EDGES[:-1] * EDGES[1:])
LENGTH, RATIO = 5.0, 0.6


def annulus_means(index: float, half_light: float) -> NDArray[np.float64]:
    """Return a Sersic law of total 1, its mean in each annulus of axis ratio `RATIO`."""
    fine = np.geomspace(EDGES[0], EDGES[-1], 100 * (EDGES.size - 1) + 1)
    middle = np.sqrt(fine[1:] * fine[:-1])
    light = sersic_intensity(middle, total=1.0, half_light=half_light, index=index, ratio=RATIO)
    parts = (light * np.diff(fine**2)).reshape(EDGES.size - 1, 100).sum(axis=1)
    return np.asarray(parts / np.diff(EDGES**2))


def grown(intensity: NDArray[np.float64], *, noise: float, sky_error: float = 0.0) -> Growth:
    flat = np.full(RADIUS.size, 1 - RATIO)
    return grow(EDGES, intensity, np.full(RADIUS.size, noise), flat, sky_error=sky_error)


def profile_of(intensity: NDArray[np.float64], **facts: float) -> Profile:
    error = np.full(RADIUS.size, 1e-6)
    return Profile(
        "galaxy",
        "r",
        radius_arcsec=RADIUS,
        intensity=intensity,
        intensity_error=error,
        mu=magnitude(intensity),
        mu_error=magnitude_error(intensity, error),
        ellipticity=np.full(RADIUS.size, 1 - RATIO),
        position_angle=np.zeros(RADIUS.size),
        flags=np.zeros(RADIUS.size, dtype=np.int32),
        **{"sky_error": 0.0, **facts},  # type: ignore[arg-type]
    )


def test_a_hundredfold_flux_is_five_magnitudes_and_none_is_nan() -> None:
    assert magnitude(np.array([1.0, 100.0, 0.0, -1.0])) == pytest.approx([22.5, 17.5, math.nan, math.nan], nan_ok=True)


def test_an_error_of_one_percent_is_about_a_hundredth_of_a_magnitude() -> None:
    found = magnitude_error(np.array([2.0, -2.0]), np.array([0.02, 0.02]))
    assert found == pytest.approx([0.01 * POGSON, math.nan], nan_ok=True)
    both = magnitude(np.array([2.0, 2.02]))
    assert both[0] - both[1] == pytest.approx(found[0], rel=0.01)


@settings(max_examples=25)
@given(length=st.floats(1.0, 8.0), central=st.floats(19.0, 23.5))
def test_isophotal_radii_of_an_exponential(length: float, central: float) -> None:
    """With mu = central + 1.0857 r / h, so that r25 = h (25 - central) / 1.0857."""
    found = isophotal_radius(RADIUS, central + POGSON * RADIUS / length, 25.0)
    assert found == pytest.approx(length * (25 - central) / POGSON, rel=2e-3)


def test_the_outermost_crossing_counts_and_a_profile_that_does_not_reach_the_level_has_none() -> None:
    radius, mu = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([24.0, 26.0, 24.0, math.nan, 26.0])
    assert 3.0 < isophotal_radius(radius, mu, 25.0) < 5.0
    assert math.isnan(isophotal_radius(radius, mu, 27.0))
    assert math.isnan(isophotal_radius(radius, mu, 23.0))
    assert math.isnan(isophotal_radius(np.empty(0), np.empty(0), 25.0))


def test_total_and_half_light_radius_of_an_exponential() -> None:
    """Half of an exponential's light lies within 1.678 lengths."""
    light = annulus_means(1.0, 1.678347 * LENGTH)
    found = grown(light, noise=float(light[0]) * 1e-3)
    assert found.flux < 0.99
    assert -2.5 * math.log10(found.total) == pytest.approx(0.0, abs=0.005)
    assert found.half_light_radius == pytest.approx(1.678 * LENGTH, rel=0.005)


def test_total_and_half_light_radius_of_de_vaucouleurs() -> None:
    """An exponential beyond the last radius falls short of an n = 4 law: by less than 0.06 mag, 10 % of the radius."""
    found = grown(annulus_means(4.0, 6.0), noise=2e-6)
    missing = -2.5 * math.log10(found.total)
    assert 0.0 < missing < 0.06
    assert 0.9 < found.half_light_radius / 6.0 < 1.0
    assert found.flux < found.total


def test_errors_of_pixels_add_in_quadrature_and_those_of_the_sky_straight() -> None:
    light = annulus_means(1.0, 6.0)
    noise = float(light[0]) * 1e-3
    area = np.pi * RATIO * np.diff(EDGES**2)
    last = last_trusted(light, np.full(light.size, noise))
    assert grown(light, noise=noise).error == pytest.approx(noise * np.sqrt((area[: last + 1] ** 2).sum()), rel=1e-6)
    sky = grown(light, noise=noise, sky_error=noise).error
    enclosed = np.pi * RATIO * EDGES[last + 1] ** 2
    assert sky == pytest.approx(noise * math.hypot(np.sqrt((area[: last + 1] ** 2).sum()), enclosed), rel=1e-6)


def test_areas_of_ellipses_whose_shape_changes_still_add_up() -> None:
    """A flat intensity times what the ellipses enclose, however they flatten on the way out."""
    flat = np.linspace(0.0, 0.5, RADIUS.size)
    found = grow(EDGES, np.ones(RADIUS.size), np.full(RADIUS.size, 1e-3), flat, sky_error=0.0)
    assert found.flux == pytest.approx(np.pi * 0.5 * EDGES[-1] ** 2, rel=1e-6)


def test_one_dip_is_forgiven_and_two_end_the_profile() -> None:
    error = np.ones(7)
    assert last_trusted(np.array([9.0, 9, 1, 9, 9, 1, 1]), error) == 4
    assert last_trusted(np.array([9.0, 9, 9, 9, 9, 9, 9]), error) == 6
    assert last_trusted(np.array([9.0, 9, 9, 9, 9, 9, 1]), error) == 5
    assert last_trusted(np.zeros(7), error) == 0


def test_a_profile_gets_radii_and_magnitudes() -> None:
    flux = 10 ** (0.4 * (22.5 - 16.0))
    profile = with_photometry(profile_of(flux * annulus_means(1.0, 1.678347 * LENGTH)), np.full(RADIUS.size, 1e-7))
    central = 16.0 + 2.5 * math.log10(2 * math.pi * RATIO * LENGTH**2)
    assert profile.total_magnitude == pytest.approx(16.0, abs=0.005)
    assert profile.magnitude == pytest.approx(16.0, abs=0.005)
    assert profile.half_light_radius_arcsec == pytest.approx(1.678 * LENGTH, rel=0.005)
    for level, found in ((24, profile.r24_arcsec), (25, profile.r25_arcsec), (26, profile.r26_arcsec)):
        assert found == pytest.approx(LENGTH * (level - central) / POGSON, rel=5e-3)
    assert profile.d25_arcsec == 2 * profile.r25_arcsec
    assert profile.magnitude_error > 0


def test_holes_of_a_profile_are_bridged() -> None:
    whole = 1e3 * annulus_means(1.0, 8.0)
    holed = np.where(np.arange(RADIUS.size) == 40, math.nan, whole)
    noise = np.full(RADIUS.size, 1e-7)
    bridged, straight = (with_photometry(profile_of(one), noise) for one in (holed, whole))
    assert bridged.total_magnitude == pytest.approx(straight.total_magnitude, abs=0.005)


def test_what_is_smaller_than_the_point_spread_function_says_so() -> None:
    light, noise = 1e3 * annulus_means(1.0, 1.0), np.full(RADIUS.size, 1e-7)
    wide, sharp = (with_photometry(profile_of(light, psf_fwhm_arcsec=fwhm), noise) for fwhm in (2.5, 1.5))
    assert wide.object_flags & ObjectFlag.UNRESOLVED
    assert not sharp.object_flags & ObjectFlag.UNRESOLVED


def test_two_radii_are_no_profile() -> None:
    short = Profile("a", "r", radius_arcsec=np.array([1.0, 1.1]), intensity=np.ones(2))
    assert with_photometry(short, np.zeros(2)) is short


@settings(max_examples=40)
@given(
    angle=st.floats(0.0, math.pi),
    turn=st.floats(0.0, 360.0),
    mirrored=st.booleans(),
    dec=st.floats(-80.0, 80.0),
    swapped=st.booleans(),
)
def test_position_angles_are_those_between_positions(
    angle: float, turn: float, mirrored: bool, dec: float, swapped: bool
) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, dec], [51.0, 51.0]
    if swapped:
        wcs.wcs.ctype, wcs.wcs.crval = ["DEC--TAN", "RA---TAN"], [dec, 150.0]
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    parity = 1.0 if mirrored else -1.0
    wcs.wcs.cd = np.array([[parity * cosine, -sine], [parity * sine, cosine]]) * 0.3 / 3600
    assert apart(angle, wcs) < 0.05


def test_position_angles_on_a_map_in_galactic_coordinates_are_from_equatorial_north() -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["GLON-TAN", "GLAT-TAN"], [120.0, 40.0], [51.0, 51.0]
    wcs.wcs.cdelt = [-0.3 / 3600, 0.3 / 3600]
    assert max(apart(angle, wcs) for angle in (0.1, 0.9, 2.0)) < 0.05


def apart(angle: float, wcs: WCS) -> float:
    """Return by how many degrees an angle's position angle misses the one between two positions along it."""
    x, y = 50.0 + 10 * np.cos([angle]), 50.0 + 10 * np.sin([angle])
    middle, end = (SkyCoord(*positions_of(wcs, *place), unit="deg") for place in (np.full((2, 1), 50.0), (x, y)))
    expected = middle.position_angle(end).to_value(u.deg)[0]
    found = position_angles(np.array([angle]), jacobian_at(wcs, 50.0, 50.0))[0]
    return float(abs((found - expected + 90) % 180 - 90))


def test_without_a_wcs_angles_count_from_up_to_the_left() -> None:
    assert position_angles(np.array([0.6 * np.pi, np.pi, 3 * np.pi / 4]), None) == pytest.approx([18.0, 90.0, 45.0])


@pytest.mark.parametrize("jacobian", [None, np.array([[-0.2, 0.1], [0.15, 0.25]]), np.array([[0.3, 0.0], [0.0, 0.3]])])
def test_angles_on_the_image_undo_position_angles(jacobian: np.ndarray | None) -> None:
    angles = np.linspace(0.01, np.pi - 0.01, 17)
    assert image_angles(position_angles(angles, jacobian), jacobian) == pytest.approx(angles)
