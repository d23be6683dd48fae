"""Mean intensities in elliptical annuli and their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.typing import NDArray
from scipy import ndimage
from sky_cases import exponential_disc

from tasks.sky.annuli import Annuli, annulus_edges, measure_annuli
from tasks.sky.ellipses import Ellipses
from tasks.sky.noise import noise_inflation, robust_scatter

SHAPE = (96, 96)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
EDGES = annulus_edges(0.5, 40.0, 1.1)
RADIUS = np.sqrt(EDGES[:-1] * EDGES[1:])


def ellipses(*, ellipticity: float = 0.4, angle: float = 0.6, x: float = 47.3, y: float = 48.6) -> Ellipses:
    shape = ellipticity * np.array([math.cos(2 * angle), math.sin(2 * angle)])
    none = np.zeros((RADIUS.size, 2))
    return Ellipses(x, y, none, RADIUS, np.tile(shape, (RADIUS.size, 1)), np.ones(RADIUS.size))


def measured(
    image: NDArray[np.float64], good: NDArray[np.bool_] = EVERYWHERE, *, sigma: float = 1e-6, inflation: float = 1.0
) -> Annuli:
    return measure_annuli(image, good, np.full(image.shape, sigma**2), ellipses(), EDGES, inflation=inflation)


def disc(length: float = 8.0) -> NDArray[np.float64]:
    return exponential_disc(SHAPE, x=47.3, y=48.6, length=length, ellipticity=0.4, angle=0.6)


@settings(max_examples=20)
@given(first=st.floats(0.1, 5.0), ratio=st.floats(1.2, 200.0), step=st.floats(1.02, 1.5))
def test_edges_have_means_from_the_first_to_the_last_in_even_steps(first: float, ratio: float, step: float) -> None:
    edges = annulus_edges(first, first * ratio, step)
    means = np.sqrt(edges[:-1] * edges[1:])
    assert means[0] == pytest.approx(first)
    assert means[1:] / means[:-1] == pytest.approx(step)
    assert first * ratio * (1 - 1e-6) <= means[-1] < first * ratio * step * (1 + 1e-6)


def test_the_mean_of_a_gradient_is_the_value_in_the_middle() -> None:
    rows, columns = np.indices(SHAPE)
    whole = RADIUS < 38
    found = measured(5.0 + 0.3 * (columns - 47.3) - 0.2 * (rows - 48.6)).intensity
    assert found[whole] == pytest.approx(5.0, abs=1e-3)


def test_the_mean_of_an_exponential_is_its_value_at_the_geometric_mean_radius() -> None:
    found = measured(disc()).intensity
    outside = RADIUS > 3.0
    assert found[outside] == pytest.approx(np.exp(-RADIUS / 8.0)[outside], rel=0.005)


def test_masks_leave_the_mean_unbiased() -> None:
    rows, columns = np.indices(SHAPE)
    wedge = np.abs(np.arctan2(rows - 48.6, columns - 47.3) - 2.0) < 0.6
    clean = measured(disc())
    masked = measured(np.where(wedge, 1e3, disc()), ~wedge)
    outside = RADIUS > 3.0
    assert masked.intensity[outside] == pytest.approx(clean.intensity[outside], rel=0.005)
    assert (masked.own < clean.own)[outside].all()
    assert clean.own[RADIUS < 38] == pytest.approx(1.0)


def test_what_no_mask_caught_is_clipped() -> None:
    spotted = disc()
    spotted[48, 70:73] = 30.0
    outside = RADIUS > 3.0
    assert measured(spotted).intensity[outside] == pytest.approx(measured(disc()).intensity[outside], rel=0.02)


def test_shares_say_what_is_missing() -> None:
    good = EVERYWHERE.copy()
    good[:, :48] = False
    found = measured(disc(), good)
    assert found.own[20:] == pytest.approx(0.5, abs=0.06)
    far = measure_annuli(
        disc(), EVERYWHERE, np.ones(SHAPE), ellipses(x=-0.5, y=48.0), EDGES, inflation=1.0,
    )  # fmt: skip
    assert far.inside[20:] == pytest.approx(0.5, abs=0.05)


def test_an_annulus_without_data_is_nan() -> None:
    nothing = measured(disc(), ~EVERYWHERE)
    assert np.isnan(nothing.intensity).all()
    assert (nothing.own == 0).all()


@pytest.mark.parametrize("width", [0.0, 1.0])
def test_errors_are_the_scatter_over_many_images(width: float) -> None:
    """Width 0 is white noise, 1 noise that pixels share.

    Annuli that are thin beside a pixel share pixels with the next one: each by itself scatters less than it says, and all
    of them together as their errors in quadrature say.
    """
    means, errors = [], []
    areas = np.pi * 0.6 * np.diff(EDGES**2)
    for seed in range(80):
        image = default_rng(seed).normal(size=SHAPE)
        if width > 0:
            image = ndimage.gaussian_filter(image, width)
        sigma = robust_scatter(image)
        found = measured(image, sigma=sigma, inflation=noise_inflation(image, EVERYWHERE, sigma))
        means.append(found.intensity)
        errors.append(found.error)
    single = np.std(means, axis=0) / np.median(errors, axis=0)
    assert single[RADIUS < 38].max() < 1.25
    for first, last in ((4.0, 8.0), (8.0, 16.0), (16.0, 32.0)):
        ring = (first < RADIUS) & (last > RADIUS)
        sums = np.array(means)[:, ring] @ areas[ring]
        error = np.sqrt((np.median(errors, axis=0)[ring] ** 2 * areas[ring] ** 2).sum())
        assert sums.std() == pytest.approx(error, rel=0.25), (first, last)


def test_without_the_inflation_errors_of_shared_noise_would_be_far_too_small() -> None:
    image = ndimage.gaussian_filter(default_rng(1).normal(size=SHAPE), 1.0)
    sigma = robust_scatter(image)
    inflation = noise_inflation(image, EVERYWHERE, sigma)
    assert inflation > 2.0
    bare, full = measured(image, sigma=sigma), measured(image, sigma=sigma, inflation=inflation)
    assert full.error == pytest.approx(bare.error * inflation)


def test_structure_along_an_annulus_is_a_doubt_of_its_mean() -> None:
    rows, columns = np.indices(SHAPE)
    arms = disc() * (1 + 0.5 * np.cos(2 * np.arctan2(rows - 48.6, columns - 47.3)))
    at = np.searchsorted(RADIUS, 12.0)
    assert measured(arms).error[at] > 3 * measured(disc()).error[at]
