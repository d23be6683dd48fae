"""Noise carried on into a hole: as strong, as correlated, and given its neighbours what kriging says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.sky.noise_texture import draw_texture, measure_texture

SIZE, WIDTH = 96, 1.1


def field(seed: int) -> NDArray[np.float64]:
    """Return noise of unit scatter whose neighbours go together: a Gaussian kernel's."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), WIDTH, mode="wrap")
    return noise * (2 * WIDTH * np.sqrt(np.pi))


def lag(values: NDArray[np.float64], hole: NDArray[np.bool_]) -> float:
    both = hole[:, 1:] & hole[:, :-1]
    return float(np.mean(values[:, 1:][both] * values[:, :-1][both]) / np.mean(values[hole] ** 2))


def test_variance_and_correlation_in_a_hole_are_those_around_it() -> None:
    image = 0.3 * field(1)
    hole = np.zeros((SIZE, SIZE), dtype=bool)
    hole[30:60, 20:70] = True
    texture = measure_texture(np.where(hole, 0.0, image), np.zeros_like(image), ~hole, reach=8)
    rng = np.random.default_rng(2)
    draws = [draw_texture(texture, np.where(hole, 0.0, image), ~hole, rng) for _ in range(8)]
    variance = np.mean([draw[hole].var() for draw in draws]) / image[~hole].var()
    assert 0.85 < variance < 1.15
    assert abs(np.mean([lag(draw, hole) for draw in draws]) - lag(image, ~hole)) < 0.06


def test_the_mean_of_draws_is_what_kriging_says() -> None:
    image = field(3)
    hole = np.zeros((SIZE, SIZE), dtype=bool)
    hole[40:43, :] = True
    known = ~hole
    texture = measure_texture(np.where(hole, 0.0, image), np.zeros_like(image), known, reach=8)
    rng = np.random.default_rng(4)
    draws = np.array([draw_texture(texture, np.where(hole, 0.0, image), known, rng) for _ in range(60)])
    # by the true covariance of the kernel, solved densely in a window about a stretch of the hole
    rows, columns = np.mgrid[33:50, 30:50]
    place = np.stack([rows.ravel(), columns.ravel()], axis=1)
    apart = ((place[:, None] - place[None]) ** 2).sum(axis=-1)
    covariance = np.exp(-apart / (4 * WIDTH**2))
    seen = known[rows, columns].ravel()
    weights = np.linalg.solve(
        covariance[np.ix_(seen, seen)] + 0.02 * np.eye(seen.sum()), image[rows, columns].ravel()[seen]
    )
    expected = covariance[np.ix_(~seen, seen)] @ weights
    middle = (place[~seen][:, 1] >= 36) & (place[~seen][:, 1] < 44)
    found = draws.mean(axis=0)[rows, columns].ravel()[~seen]
    assert np.abs(found - expected)[middle].mean() < 0.2
    assert np.corrcoef(found[middle], expected[middle])[0, 1] > 0.9


def test_scatter_follows_brightness() -> None:
    rng = np.random.default_rng(5)
    estimate = np.broadcast_to(np.linspace(0, 10, SIZE), (SIZE, SIZE)).copy()
    scatter = np.sqrt(0.1 + 0.2 * estimate)
    known = np.ones((SIZE, SIZE), dtype=bool)
    known[20:40, 20:80] = False
    texture = measure_texture(np.where(known, scatter * rng.normal(size=scatter.shape), 0.0), estimate, known, reach=6)
    ratio = texture.scatter / scatter
    assert 0.9 < np.median(ratio) < 1.1
    assert ratio[:, 40:].min() > 0.75
    assert ratio[:, 40:].max() < 1.3


def test_an_image_without_noise_has_none_in_its_hole() -> None:
    known = np.ones((SIZE, SIZE), dtype=bool)
    known[10:20, 10:20] = False
    nothing = np.zeros((SIZE, SIZE))
    texture = measure_texture(nothing, nothing, known, reach=6)
    assert (draw_texture(texture, nothing, known, np.random.default_rng(6)) == 0).all()
