"""The published quantities: known fluxes, known radii, known shifts."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.sky.generation_metrics import sum_of_wassersteins, wasserstein
from tasks.sky.synthetic_distance import (
    aperture_magnitudes,
    corner_medians,
    half_brightness_radii,
    published_quantities,
    quantity_names,
)

BANDS = ("g", "r", "z")


def galaxies(
    count: int, *, seed: int, side: int = 64, brighter: float = 0.0, redder: float = 0.0, larger: float = 1.0
) -> np.ndarray:
    """Return smooth galaxies in g, r, z with a known law: discs of scale 2 to 4 pixels, r about 17."""
    rng = np.random.default_rng(seed)
    scale = larger * rng.uniform(2.0, 4.0, count)
    magnitude = rng.normal(17.0, 0.5, count) - brighter
    colours = rng.normal([0.7, 0.0, -0.6], 0.05, (count, 3)) + np.array([redder, 0.0, 0.0])
    place = np.arange(side) - (side - 1) / 2
    light = np.exp(-np.hypot(place[:, None], place)[None] / scale[:, None, None])
    light /= light.sum(axis=(1, 2), keepdims=True)
    flux = 10 ** (0.4 * (22.5 - magnitude[:, None] - colours))
    noise = rng.normal(0, 0.005, (count, 3, side, side))
    return flux[:, :, None, None] * light[:, None] + noise + 0.01


def test_names() -> None:
    assert quantity_names(BANDS) == ("m_g", "m_r", "m_z", "radius", "g-r", "r-z")


def test_aperture_magnitudes_take_the_corners_off() -> None:
    """Six pixels of 0.262 arcsec hold 112 pixel middles; 3 of 0.524 hold 32 at an even side."""
    for side, scale, pixels in ((256, 0.262, 112), (64, 0.524, 32)):
        image = np.full((1, 1, side, side), 0.5)
        place = np.arange(side) - (side - 1) / 2
        image[0, 0, np.hypot(place[:, None], place) < 10] += 2.0
        assert aperture_magnitudes(image, scale)[0, 0] == pytest.approx(22.5 - 2.5 * np.log10(2.0 * pixels))


def test_corners_are_twenty_pixels_of_256_and_five_of_64() -> None:
    image = np.zeros((1, 1, 256, 256))
    image[..., :20, :20] = image[..., :20, -20:] = image[..., -20:, :20] = 1.0
    assert corner_medians(image)[0, 0] == 1.0
    small = np.zeros((1, 1, 64, 64))
    small[..., 5:, :] = small[..., :, 5:] = 7.0
    small[..., -5:, -5:] = small[..., :5, -5:] = small[..., -5:, :5] = 0.0
    assert corner_medians(small)[0, 0] == 0.0


@pytest.mark.parametrize(("edge", "expected"), [(10, 9), (5, 4), (2.5, 1), (1.7, 1)])
def test_the_radius_is_that_of_the_first_dark_ring_less_one_pixel_and_no_less_than_one(
    edge: float, expected: int
) -> None:
    place = np.arange(64) - 31.5
    image = np.where(np.hypot(place[:, None], place) < edge, 3.0, 1.0)[None]
    image[0, 0, 0] = 0.9
    assert half_brightness_radii(image, 0.524)[0] == pytest.approx(expected * 0.524)


def test_a_galaxy_that_never_falls_to_half_and_a_flux_below_nothing_are_not_measured() -> None:
    flat = np.ones((1, 3, 64, 64))
    flat[:, :, 0, 0] = 0.0
    assert np.isnan(published_quantities(flat, 0.524)[0, 3])
    dark = np.zeros((1, 3, 64, 64))
    dark[..., 20:44, 20:44] = -1.0
    assert np.isnan(published_quantities(dark, 0.524)[0, :3]).all()


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ({"brighter": 0.3}, {"m_g": 0.3, "m_r": 0.3, "m_z": 0.3, "radius": 0.0, "g-r": 0.0, "r-z": 0.0}),
        ({"redder": 0.15}, {"m_g": 0.15, "m_r": 0.0, "m_z": 0.0, "radius": 0.0, "g-r": 0.15, "r-z": 0.0}),
    ],
)
def test_a_known_shift_of_magnitude_and_colour_comes_back(shift: dict[str, float], expected: dict[str, float]) -> None:
    """The same galaxies, changed: every term is the shift itself, and the distance their sum."""
    real, changed = (published_quantities(galaxies(200, seed=1, **how), 0.524) for how in ({}, shift))
    found = {name: wasserstein(real[:, k], changed[:, k]) for k, name in enumerate(quantity_names(BANDS))}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.01), name
    assert sum_of_wassersteins(real, changed) == pytest.approx(sum(expected.values()), abs=0.03)


def test_a_known_shift_of_size_comes_back() -> None:
    """Discs half as large again fall to half of their brightness at 0.69 scale lengths, so 3 of them 1.04 pixels farther out."""
    real, larger = (published_quantities(galaxies(300, seed=2, larger=how), 0.524) for how in (1.0, 1.5))
    expected = 0.5 * 3.0 * np.log(2) * 0.524
    assert wasserstein(real[:, 3], larger[:, 3]) == pytest.approx(expected, rel=0.35)
