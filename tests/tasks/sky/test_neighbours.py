"""Whose pixels are whose: the object, its neighbours, the sky."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray
from sky_cases import exponential_disc, point_source

from storage.cutouts import TARGET
from tasks.sky.neighbours import (
    Sources,
    find_sources,
    object_middle,
    patch_extent,
    search_radius,
    source_free,
)
from tasks.sky.noise import clipped_mean

SHAPE = (128, 128)
MIDDLE = 63.5
PSF = 2.0
"""Standard deviation of the point spread function, pixels."""


def noise(seed: int) -> NDArray[np.float64]:
    return default_rng(seed).normal(size=SHAPE)


def galaxy(*, peak: float = 60.0, length: float = 8.0, x: float = MIDDLE, y: float = MIDDLE) -> NDArray[np.float64]:
    return peak * exponential_disc(SHAPE, x=x, y=y, length=length, ellipticity=0.3, angle=0.5)


def star(x: float, y: float, peak: float) -> NDArray[np.float64]:
    return peak * point_source(SHAPE, x=x, y=y, sigma=PSF)


def found_in(image: NDArray[np.float64], *, valid: NDArray[np.bool_] | None = None) -> Sources | None:
    whole = np.ones(image.shape, dtype=bool) if valid is None else valid
    return find_sources(image, whole, x=MIDDLE, y=MIDDLE, pixel_scale_arcsec=0.262, width=PSF)


def sources_of(image: NDArray[np.float64]) -> Sources:
    sources = found_in(image)
    assert sources is not None
    return sources


def test_noise_holds_nothing() -> None:
    assert [found_in(noise(seed)) for seed in range(12)] == [None] * 12


def test_an_image_without_any_scatter_holds_nothing() -> None:
    assert found_in(np.ones(SHAPE)) is None


def test_masking_leaves_no_bias_of_the_sky() -> None:
    """The tops of noise must stay in the sky: cutting them out of it would lower its level."""
    levels = []
    for seed in range(30):
        image = noise(seed)
        labels = sources_of(image + galaxy(length=2.5)).labels
        free = source_free(labels, np.ones(SHAPE, dtype=bool), growth=3)
        assert free.mean() > 0.8
        levels.append(clipped_mean(image[free])[0])
    scatter = 1 / math.sqrt(30 * 0.85 * SHAPE[0] * SHAPE[1])
    assert scatter < 0.002
    assert abs(np.mean(levels)) < 0.01


def test_a_star_on_the_galaxy_is_masked_and_the_rest_of_it_is_not() -> None:
    x, y = MIDDLE + 12, MIDDLE + 5
    labels = sources_of(noise(1) + galaxy() + star(x, y, 120.0)).labels
    assert labels[round(y), round(x)] > TARGET
    assert labels[round(2 * MIDDLE - y), round(2 * MIDDLE - x)] == TARGET
    rows, columns = np.indices(SHAPE)
    near = np.hypot(rows - y, columns - x) < 1.5 * PSF
    assert (labels[near] > TARGET).mean() > 0.95
    assert (labels > TARGET).sum() < math.pi * (4.5 * PSF) ** 2


def test_two_arms_opposite_each_other_are_the_galaxys_own() -> None:
    arms = galaxy()
    for side in (-1, 1):
        arms = arms + star(MIDDLE + 12 * side, MIDDLE + 5 * side, 120.0)
    labels = sources_of(noise(2) + arms).labels
    rows, columns = np.indices(SHAPE)
    within = np.hypot(rows - MIDDLE, columns - MIDDLE) < 18
    assert (labels[within] == TARGET).all()


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_brighter_star_beside_the_middle_does_not_become_the_object(seed: int) -> None:
    angle = 2.1 * seed
    x, y = MIDDLE + 20 * math.cos(angle), MIDDLE + 20 * math.sin(angle)
    sources = sources_of(noise(seed) + galaxy() + star(x, y, 240.0))
    assert math.hypot(sources.x - MIDDLE, sources.y - MIDDLE) < 0.5
    assert sources.labels[round(y), round(x)] > TARGET
    assert sources.labels[round(MIDDLE), round(MIDDLE)] == TARGET


def test_a_neighbour_apart_is_labelled_apart() -> None:
    sources = sources_of(noise(6) + galaxy(length=4.0) + star(110, 20, 40.0) + star(15, 100, 40.0))
    first, second = sources.labels[20, 110], sources.labels[100, 15]
    assert min(first, second) > TARGET
    assert first != second


def test_a_diffuse_patch_at_the_rim_belongs_to_the_object_and_a_sharp_one_does_not() -> None:
    disc = np.where(galaxy() > 3.0, galaxy(), 0.0)
    x, y = MIDDLE + 30, MIDDLE
    patch = 8.0 * point_source(SHAPE, x=x, y=y, sigma=5.0)
    diffuse = sources_of(noise(7) + disc + patch).labels
    sharp = sources_of(noise(7) + disc + star(x, y, 60.0)).labels
    assert diffuse[round(y), round(x)] == TARGET
    assert sharp[round(y), round(x)] > TARGET


def test_holes_are_not_sources() -> None:
    image, valid = noise(8) + galaxy(), np.ones(SHAPE, dtype=bool)
    valid[10:40, 10:40] = False
    image[~valid] = 1e4
    sources = found_in(image, valid=valid)
    assert sources is not None
    # what is smoothed from the hole's own rim may stand out; nothing inside it is read
    assert math.hypot(sources.x - MIDDLE, sources.y - MIDDLE) < 0.5
    assert (sources.labels[12:38, 12:38] <= TARGET).all()


def test_the_objects_middle_is_its_brightest_place() -> None:
    image = galaxy(x=60.3, y=66.8)
    x, y = object_middle(image, image > 1.0, x=MIDDLE, y=MIDDLE, radius=12.0, width=1.0)
    assert (x, y) == pytest.approx((60.3, 66.8), abs=0.1)
    nothing = np.zeros(SHAPE, dtype=bool)
    assert object_middle(image, nothing, x=1.0, y=2.0, radius=12.0, width=1.0) == (1.0, 2.0)


def test_the_search_is_three_arcsec_or_a_tenth_of_the_image_where_that_is_less() -> None:
    assert search_radius((100, 50), 0.2) == pytest.approx(10.0)
    assert search_radius((1000, 500), 0.2) == pytest.approx(15.0)
    assert search_radius((20, 16), 1.0) == pytest.approx(3.0)


def test_a_brighter_neighbour_is_not_taken_for_the_object() -> None:
    image = galaxy(x=MIDDLE, y=MIDDLE) + 3.0 * galaxy(x=MIDDLE + 30.0, y=MIDDLE)
    sources = find_sources(
        image + np.random.default_rng(8).normal(scale=0.05, size=SHAPE),
        np.ones(SHAPE, dtype=bool),
        x=MIDDLE,
        y=MIDDLE,
        pixel_scale_arcsec=0.06,
        width=1.5,
    )
    assert sources is not None
    assert math.hypot(sources.x - MIDDLE, sources.y - MIDDLE) < 1.0


def test_free_pixels_are_farther_from_sources_than_the_growth() -> None:
    labels = np.zeros((41, 41), dtype=np.int32)
    labels[20, 20] = 2
    rows, columns = np.indices(labels.shape)
    free = source_free(labels, columns != 0, growth=5)
    assert (free == ((np.hypot(rows - 20, columns - 20) > 5) & (columns != 0))).all()
    assert source_free(np.zeros_like(labels), columns != 0, growth=5).sum() == 41 * 40


def test_the_extent_of_a_circle_is_its_radius_and_of_a_needle_two_thirds_of_its_reach() -> None:
    rows, columns = np.indices(SHAPE)
    circle = (np.hypot(rows - 63, columns - 63) < 20).astype(np.int32)
    assert patch_extent(circle, 63.0, 63.0) == pytest.approx(20.0, rel=0.01)
    needle = ((abs(columns - 63) <= 45) & (rows == 63)).astype(np.int32)
    assert patch_extent(needle, 63.0, 63.0) == pytest.approx(45 / 1.5, rel=0.03)
    assert patch_extent(np.zeros(SHAPE, dtype=np.int32), 63.0, 63.0) == 1.0
