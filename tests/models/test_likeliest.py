"""One number out of quantiles: what it is for known forecasts, and what it loses least of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from models.earthpt import QUANTILES
from models.likeliest import likeliest


def test_of_a_forecast_with_equal_sides_it_is_the_median() -> None:
    spread = norm.ppf(QUANTILES)[None, :, None] * np.array([0.02, 0.3])
    found = likeliest(0.6 + spread, QUANTILES)
    assert np.allclose(found, 0.6, atol=1e-12)


def test_of_a_forecast_of_one_value_it_is_that_value() -> None:
    assert np.array_equal(likeliest(np.full((2, 3, 4), 0.25, np.float32), (0.1, 0.5, 0.9)), np.full((2, 4), 0.25, "f4"))


def test_it_leaves_a_tail_on_its_way_to_the_bulk() -> None:
    tail = np.array([[0.1, 0.4, 0.6, 0.65, 0.7]])
    assert likeliest(tail, (0.1, 0.3, 0.5, 0.7, 0.9)) == pytest.approx(0.55)  # from 0.4 to 0.7; the other side has 0.55
    assert likeliest(1 - tail[:, ::-1], (0.1, 0.3, 0.5, 0.7, 0.9)) == pytest.approx(0.45)


def test_levels_that_do_not_reach_so_far_give_the_median() -> None:
    assert likeliest(np.array([[0.1, 0.2, 0.9]]), (0.4, 0.5, 0.6)) == pytest.approx(0.2)


def test_a_missing_quantile_makes_it_missing_and_no_other() -> None:
    known = np.tile(np.linspace(0.2, 0.8, len(QUANTILES))[None, :, None], (1, 1, 3))
    known[0, :, 1] = np.nan
    assert np.isnan(likeliest(known, QUANTILES)).tolist() == [[False, True, False]]


def test_of_skewed_looks_its_median_error_is_lower_than_that_of_the_median() -> None:
    rng = np.random.default_rng(3)
    haze = np.where(rng.random(200_000) < 0.35, rng.exponential(0.2, 200_000), 0.0)
    looks = 0.8 - haze + rng.normal(0, 0.02, 200_000)
    quantiles = np.quantile(looks, QUANTILES)[None, :]
    likely, median = likeliest(quantiles, QUANTILES)[0], quantiles[0, 3]
    assert np.median(np.abs(looks - likely)) < 0.95 * np.median(np.abs(looks - median))
    assert np.abs(looks - likely).mean() < 1.05 * np.abs(looks - median).mean()
