"""The level beneath a profile's outer part."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.typing import NDArray

from tasks.sky.wings import level_beneath

RADIUS = 8.0 * 1.1 ** np.arange(26)


def sersic(index: float, length: float) -> NDArray[np.float64]:
    return np.exp(-((RADIUS / length) ** (1 / index)))


@settings(max_examples=25)
@given(index=st.floats(0.6, 1.0), length=st.floats(4.0, 8.0), level=st.floats(-3.0, 3.0))
def test_a_constant_under_a_sersic_law_is_recovered(index: float, length: float, level: float) -> None:
    scale = 1e-3 * float(sersic(index, length).max())
    seen = sersic(index, length) + level * scale
    found = level_beneath(RADIUS, seen, np.full(RADIUS.size, 0.02 * scale), scatter=4 * scale)
    assert found is not None
    assert found.value == pytest.approx(level * scale, abs=0.15 * scale)


def test_the_error_is_the_scatter_over_many_profiles() -> None:
    noise, law = 2e-4, sersic(1.0, 8.0)
    pairs = []
    for seed in range(60):
        seen = law + 1e-3 + default_rng(seed).normal(scale=noise, size=RADIUS.size)
        found = level_beneath(RADIUS, seen, np.full(RADIUS.size, noise), scatter=4e-3)
        assert found is not None
        pairs.append((found.value, found.error))
    values, errors = np.array(pairs).T
    assert np.mean(values) == pytest.approx(1e-3, abs=1e-4)
    assert 0.6 < np.std(values) / np.median(errors) < 1.4


def test_what_the_level_is_known_to_holds_it_where_the_profile_does_not() -> None:
    short = RADIUS < 8.0 * 1.1**8.5
    seen = sersic(1.0, 40.0)[short]
    found = level_beneath(RADIUS[short], seen, np.full(seen.size, 0.05), scatter=1e-4)
    assert found is not None
    assert abs(found.value) < 1e-4
    assert found.error == pytest.approx(1e-4, rel=0.05)


def test_nothing_holds_a_level_under_too_few_radii_or_a_rising_profile_or_without_a_prior() -> None:
    law, error = sersic(1.0, 8.0), np.full(RADIUS.size, 1e-4)
    assert level_beneath(RADIUS[:7], law[:7], error[:7], scatter=1e-3) is None
    assert level_beneath(RADIUS, law[::-1], error, scatter=1e-3) is None
    assert level_beneath(RADIUS, law, error, scatter=0.0) is None
    assert level_beneath(RADIUS, np.full(RADIUS.size, -1.0), error, scatter=1e-3) is None


def test_radii_that_are_not_known_are_left_out() -> None:
    law, error = sersic(1.0, 8.0) + 2e-3, np.full(RADIUS.size, 1e-4)
    holes = np.where(np.arange(RADIUS.size) % 5 == 2, math.nan, law)
    whole, holed = (level_beneath(RADIUS, seen, error, scatter=4e-3) for seen in (law, holes))
    assert whole is not None
    assert holed is not None
    assert holed.value == pytest.approx(whole.value, abs=1e-4)


@pytest.mark.parametrize("unit", [1e-6, 7.0, 1e5])
def test_a_level_is_the_same_in_any_unit(unit: float) -> None:
    seen = sersic(1.0, 8.0) + 1e-3 + default_rng(5).normal(scale=2e-4, size=RADIUS.size)
    error = np.full(RADIUS.size, 2e-4)
    one = level_beneath(RADIUS, seen, error, scatter=2e-3)
    other = level_beneath(RADIUS, unit * seen, unit * error, scatter=unit * 2e-3)
    assert one is not None
    assert other is not None
    assert (other.value / unit, other.error / unit) == pytest.approx((one.value, one.error), rel=1e-4)
