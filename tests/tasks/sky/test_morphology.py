"""Sky, shapes and spectra of images whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tasks.sky.morphology import corner_noise, measure_shapes, measure_skies, power_spectra

SIDE = 65


def disc(
    scale: float, *, x: float = 32.0, y: float = 32.0, ratio: float = 1.0, noise: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Return an exponential disc, averaged over each pixel, whose major axis lies along x."""
    fine = (np.arange(SIDE * 5) - 2) / 5
    radius = np.hypot((fine[:, None] - y) / ratio, fine - x)
    light = np.exp(-radius / scale).reshape(SIDE, 5, SIDE, 5).mean(axis=(1, 3))
    return light + noise * np.random.default_rng(seed).normal(size=light.shape)


def test_the_half_light_radius_and_concentration_of_an_exponential_disc() -> None:
    """Half of the light lies within 1.678 scale lengths; 20 and 80 % within 0.824 and 2.994."""
    found = measure_shapes(np.stack([disc(2.0), disc(3.0), disc(4.0)]))
    np.testing.assert_allclose(found.half_light, 1.678 * np.array([2, 3, 4]), rtol=0.06)
    np.testing.assert_allclose(found.concentration, 5 * np.log10(2.994 / 0.824), atol=0.25)


@pytest.mark.parametrize(("x", "y"), [(34.0, 32.0), (31.0, 33.4), (30.0, 30.0)])
def test_a_galaxy_off_the_middle_is_measured_around_itself(x: float, y: float) -> None:
    there, here = measure_shapes(disc(3.0, x=x, y=y)[None]), measure_shapes(disc(3.0)[None])
    assert there.half_light[0] == pytest.approx(here.half_light[0], rel=0.03)
    assert there.asymmetry[0] < 0.2


@pytest.mark.parametrize("ratio", [0.4, 0.7, 1.0])
def test_ellipticity_falls_with_roundness_and_has_no_direction(ratio: float) -> None:
    image = disc(3.0, ratio=ratio)
    along, across = (measure_shapes(one[None]).ellipticity[0] for one in (image, image.T))
    assert along == pytest.approx(across, abs=0.01)
    # a round weight makes shapes rounder, and keeps their order
    assert 0.3 * (1 - ratio**2) / (1 + ratio**2) <= along + 0.01 <= (1 - ratio**2) / (1 + ratio**2) + 0.02


def test_asymmetry_gini_and_m20_tell_a_lopsided_galaxy_from_a_smooth_one() -> None:
    smooth = disc(3.0)
    lopsided = smooth + 0.6 * disc(0.8, x=38.0, y=35.0)
    found = measure_shapes(np.stack([smooth, lopsided]))
    assert found.asymmetry[0] < 0.02 < 0.06 < found.asymmetry[1]
    assert found.m20[1] > found.m20[0]
    assert 0 < found.gini[0] < 1


def test_gini_of_equal_pixels_is_nothing() -> None:
    y, x = np.indices((SIDE, SIDE)) - 32
    flat = np.where(np.hypot(y, x) < 20, 1.0, 0.0)
    # 1.5 times the radius of 80 % of a flat disc of 20 pixels reaches beyond it: a known share of pixels is dark
    inside = (np.hypot(y, x) <= 26).sum()
    lit = (flat > 0).sum()
    assert measure_shapes(flat[None]).gini[0] == pytest.approx(1 - lit / inside, abs=0.02)


def test_an_empty_image_has_no_shape() -> None:
    found = measure_shapes(np.zeros((1, SIDE, SIDE)))
    assert np.isnan(found.half_light[0])
    assert np.isnan(found.ellipticity[0])


def test_the_sky_is_found_beside_sources() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(0.3, 0.1, (SIDE, SIDE)) + disc(3.0, noise=0.0) * 20
    found = measure_skies(image)
    assert found.median == pytest.approx(0.3, abs=0.03)
    assert found.scatter == pytest.approx(0.1, rel=0.15)


def test_noise_in_the_corners_is_that_which_was_put_there_whatever_the_gradient() -> None:
    rng = np.random.default_rng(3)
    white = rng.normal(size=(40, SIDE, SIDE))
    kernel = np.array([[0.0, 0.15, 0.0], [0.15, 1.0, 0.15], [0.0, 0.15, 0.0]])
    smooth = np.stack([ndimage.convolve(one, kernel) for one in white])
    slope = 0.02 * np.arange(SIDE)
    scatter, correlation = (values.mean() for values in corner_noise(smooth + slope))
    # lag 1: 2 x 0.15 of a sum of squares of 1 + 4 x 0.15^2; lag 2: 0.15^2
    power = 1 + 4 * 0.15**2
    assert scatter == pytest.approx(np.sqrt(power - 0.15**2), rel=0.02)
    assert correlation == pytest.approx(1 - (power - 0.3) / (power - 0.15**2), abs=0.02)


def test_the_power_of_a_wave_lies_in_its_bin() -> None:
    wave = np.cos(2 * np.pi * 0.1 / 0.5 * 0.5 * np.arange(64))[None, None] * np.ones((1, 64, 1))
    power = power_spectra(wave, 0.5, np.array([0.05, 0.15, 0.25, 0.5]))
    assert power[0].argmax() == 1
    white = np.random.default_rng(5).normal(size=(30, 64, 64))
    flat = power_spectra(white, 0.5, np.geomspace(0.1, 0.9, 5)).mean(axis=0)
    assert flat.max() / flat.min() < 1.15
