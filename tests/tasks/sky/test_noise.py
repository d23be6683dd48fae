"""Level, scatter and correlation of a sky."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.random import default_rng
from numpy.typing import NDArray
from scipy import ndimage

from tasks.sky.noise import (
    Sky,
    clipped_mean,
    combine_skies,
    measure_sky,
    noise_inflation,
    robust_scatter,
    sky_scatter,
)


def white(shape: tuple[int, ...], seed: int, *, sigma: float = 1.0) -> NDArray[np.float64]:
    return default_rng(seed).normal(scale=sigma, size=shape)


def everywhere(image: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.ones(image.shape, dtype=bool)


def part(level: float, error: float, *, pixels: int = 1000) -> Sky:
    return Sky(level, error, 1.0, 1.0, pixels)


def test_level_and_scatter_of_white_noise() -> None:
    image = 5.0 + white((128, 128), 0, sigma=2.0)
    sky = measure_sky(image, everywhere(image))
    assert sky is not None
    assert sky.level == pytest.approx(5.0, abs=4 * 2.0 / 128)
    assert sky.sigma == pytest.approx(2.0, rel=0.03)
    assert sky.inflation == pytest.approx(1.0, abs=0.1)
    assert sky.pixels == 128**2


def test_the_error_of_the_level_is_its_scatter_over_many_skies() -> None:
    skies = [measure_sky(image, everywhere(image)) for image in (white((64, 64), seed) for seed in range(80))]
    levels, errors = np.array([(sky.level, sky.error) for sky in skies if sky is not None]).T
    assert levels.size == 80
    # the sectors' differences and the pixels' scatter both count: up to the square root of two too large, never too small
    assert 0.95 * levels.std() < np.median(errors) < 1.7 * levels.std()
    assert abs(levels.mean()) < 4 * levels.std() / 80**0.5


def test_a_gradient_counts_as_a_doubt_of_the_level() -> None:
    flat = white((96, 96), 1)
    tilted = flat + np.linspace(-1, 1, 96)
    errors = [sky.error for image in (flat, tilted) if (sky := measure_sky(image, everywhere(image))) is not None]
    assert errors[1] > 5 * errors[0]


def test_too_few_pixels_are_no_sky() -> None:
    image = white((8, 8), 2)
    free = everywhere(image)
    found = measure_sky(image, free)
    assert found is not None
    assert sky_scatter(image, free) == found.sigma
    free[0, 0] = False
    assert measure_sky(image, free) is None
    assert sky_scatter(image, free) is None


def test_a_clip_of_noise_has_no_bias_and_takes_out_what_stands_far_above() -> None:
    means = np.array([clipped_mean(white((4000,), seed))[0] for seed in range(200)])
    assert abs(means.mean()) < 4 / np.sqrt(200 * 4000)
    assert means.std() == pytest.approx(1 / np.sqrt(4000), rel=0.2)
    noise = white((4000,), 7)
    bright = np.concatenate([noise, np.full(200, 50.0)])
    assert clipped_mean(bright)[0] == pytest.approx(clipped_mean(noise)[0], abs=0.01)


@given(hnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e3, 1e3)))
def test_a_clip_is_the_one_of_medians_and_deviations_found_anew(values: np.ndarray) -> None:
    kept = values
    for _ in range(10):
        scatter = robust_scatter(kept)
        inside = values[np.abs(values - np.median(kept)) <= 3 * scatter] if scatter > 0 else kept
        if inside.size in (kept.size, 0):
            break
        kept = inside
    mean, scatter = clipped_mean(values)
    assert mean == pytest.approx(kept.mean(), rel=1e-9, abs=1e-9)
    assert scatter == pytest.approx(robust_scatter(kept), rel=1e-9, abs=1e-9)


def test_scatter_of_constants_and_of_nothing_is_nought() -> None:
    assert robust_scatter(np.full(9, 3.0)) == 0.0
    assert robust_scatter(np.empty(0)) == 0.0
    assert clipped_mean(np.full(9, 3.0)) == (3.0, 0.0)


@pytest.mark.parametrize("width", [0.6, 1.0, 1.6])
def test_inflation_of_smoothed_noise_is_the_one_of_its_kernel(width: float) -> None:
    """Block means of smoothed noise are white noise under the kernel spread over the block: var = sum of squares."""
    image = ndimage.gaussian_filter(white((512, 512), 3), width, mode="wrap")
    impulse = np.zeros(65)
    impulse[32] = 1.0
    kernel = ndimage.gaussian_filter1d(impulse, width)
    sides = (2, 4, 8)
    in_blocks = [(np.convolve(kernel, np.ones(side) / side) ** 2).sum() for side in sides]
    expected = max(side * share / (kernel**2).sum() for side, share in zip(sides, in_blocks, strict=True))
    found = noise_inflation(image, everywhere(image), robust_scatter(image))
    assert expected > 1.4
    assert found == pytest.approx(expected, rel=0.05)


def test_inflation_is_one_without_noise_and_without_whole_blocks() -> None:
    image = white((64, 64), 4)
    checkers = (np.indices(image.shape).sum(axis=0) % 2).astype(bool)
    assert noise_inflation(image, everywhere(image), 0.0) == 1.0
    assert noise_inflation(ndimage.gaussian_filter(image, 2.0), checkers, 0.1) == 1.0


def test_zones_that_agree_weigh_by_their_inverse_variance() -> None:
    both = combine_skies([part(1.0, 0.1, pixels=300), part(1.0 + 1e-3, 0.2, pixels=100)])
    assert both.level == pytest.approx(1.0 + 1e-3 * 25 / 125)
    assert both.error == pytest.approx(125**-0.5)
    assert both.pixels == 400


def test_one_zone_stays_as_it_is() -> None:
    one = combine_skies([part(2.0, 0.1)])
    assert (one.level, one.error, one.pixels) == pytest.approx((2.0, 0.1, 1000))


def test_zones_that_differ_are_as_far_from_known_as_they_differ() -> None:
    """DerSimonian and Laird: of k equal errors s, the variance between is the levels' sample variance less s squared."""
    levels, error = np.array([0.0, 3.0, 9.0]), 0.1
    both = combine_skies([part(level, error) for level in levels])
    assert both.level == pytest.approx(levels.mean())
    assert both.error == pytest.approx(np.sqrt(levels.var(ddof=1) / 3))


def test_zones_of_unequal_errors_follow_dersimonian_and_laird() -> None:
    levels, errors = np.array([0.0, 1.0, 4.0]), np.array([0.1, 0.3, 0.2])
    w = errors**-2
    q = (w * (levels - (w * levels).sum() / w.sum()) ** 2).sum()
    between = (q - 2) / (w.sum() - (w**2).sum() / w.sum())
    weights = 1 / (errors**2 + between)
    both = combine_skies([part(level, error) for level, error in zip(levels, errors, strict=True)])
    assert both.level == pytest.approx((weights * levels).sum() / weights.sum())
    assert both.error == pytest.approx(weights.sum() ** -0.5)
