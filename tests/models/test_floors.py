"""Floors against closed forms and against the slow way of writing them down."""

from __future__ import annotations

import numpy as np
import pytest

from models.floors import (
    FLOORS,
    harmonic,
    has_history,
    last_year,
    persistence,
    phase_folded,
    window_median,
)


def days(*text: str) -> np.ndarray:
    return np.array(text, "datetime64[D]")


@pytest.fixture
def series() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    start = np.datetime64("2017-01-03")
    dates = start + np.sort(rng.choice(900, size=70, replace=False))
    values = rng.normal(0.5, 0.2, (70, 12))
    valid = rng.random((70, 12)) < rng.uniform(0.05, 0.9, 12)
    valid[:, 3] = False
    values[~valid] = np.nan
    targets = dates[-1] + np.array([4, 31, 90, 149])
    return values, valid, dates, targets


def slow_window(series: tuple, windows: tuple[float, ...], summarise) -> np.ndarray:
    values, valid, dates, targets = series
    out = np.full((len(targets), values.shape[1]), np.nan)
    for k, target in enumerate(targets):
        for p in range(values.shape[1]):
            gap = np.array([abs((d - target).astype(int)) % 365.25 for d in dates])
            gap = np.minimum(gap, 365.25 - gap)
            for window in windows:
                inside = [v for v, g, ok in zip(values[:, p], gap, valid[:, p], strict=True) if ok and g <= window]
                if inside:
                    out[k, p] = summarise(inside)
                    break
    return out


def test_phase_folded_equals_the_slow_way(series: tuple) -> None:
    np.testing.assert_allclose(phase_folded(*series), slow_window(series, (15, 30, 60, np.inf), np.mean))


def test_window_median_equals_the_slow_way(series: tuple) -> None:
    np.testing.assert_allclose(window_median(*series), slow_window(series, (30, 60, np.inf), np.median))


def test_last_year_equals_interpolation_of_each_pixel(series: tuple) -> None:
    values, valid, dates, targets = series
    got = last_year(*series)
    for p in range(values.shape[1]):
        ok = valid[:, p]
        if not ok.any():
            assert np.isnan(got[:, p]).all()
            continue
        wanted = np.interp((targets - 365).astype(float), dates[ok].astype(float), values[ok, p])
        np.testing.assert_allclose(got[:, p], wanted)


def test_harmonic_without_ridge_finds_the_curve_that_made_the_looks() -> None:
    dates = np.datetime64("2018-01-01") + np.arange(0, 800, 11)
    targets = np.datetime64("2020-04-01") + np.arange(0, 150, 10)

    def curve(when: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * when.astype(float) / 365.25
        return (0.6 + 0.25 * np.cos(angle + 1.0) + 0.08 * np.sin(2 * angle))[:, None] * np.array([1.0, 0.5])

    values = curve(dates)
    got = harmonic(values, np.ones(values.shape, bool), dates, targets, ridge=0.0)
    np.testing.assert_allclose(got, curve(targets), atol=1e-9)


def test_harmonic_ridge_draws_a_lonely_look_towards_a_flat_line() -> None:
    values, dates = np.array([[0.7]]), days("2020-05-01")
    got = harmonic(values, np.ones((1, 1), bool), dates, days("2020-11-01", "2021-05-01"))
    np.testing.assert_allclose(got, 0.7, atol=1e-6)


def test_persistence_repeats_the_last_valid_look() -> None:
    values = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, np.nan]])
    valid = np.array([[True, True], [True, True], [True, False]])
    got = persistence(values, valid, days("2020-01-01", "2020-02-01", "2020-03-01"), days("2020-04-01", "2020-08-01"))
    np.testing.assert_array_equal(got, [[0.5, 0.4], [0.5, 0.4]])


def test_the_turn_of_the_year_does_not_part_looks() -> None:
    values = np.array([[0.2], [0.9]])
    got = phase_folded(values, np.ones((2, 1), bool), days("2019-12-28", "2020-07-01"), days("2021-01-04"))
    np.testing.assert_allclose(got, 0.2)


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_what_is_not_valid_is_never_read(name: str, series: tuple) -> None:
    values, valid, dates, targets = series
    poisoned = np.where(valid, values, 1e6)
    np.testing.assert_allclose(
        FLOORS[name](poisoned, valid, dates, targets), FLOORS[name](values, valid, dates, targets)
    )


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_a_pixel_without_looks_has_no_forecast(name: str, series: tuple) -> None:
    got = FLOORS[name](*series)
    assert got.shape == (4, 12)
    assert np.isnan(got[:, 3]).all()
    assert np.isfinite(np.delete(got, 3, axis=1)).all()


def test_a_pixel_counts_with_fifteen_looks_over_380_days() -> None:
    dates = np.datetime64("2020-01-01") + np.arange(16) * 27  # 405 days
    valid = np.ones((16, 4), bool)
    valid[:2, 1] = False  # 14 looks
    valid[-1, 2] = False  # 15 looks over 378 days
    valid[5, 3] = False  # 15 looks over 405 days
    np.testing.assert_array_equal(has_history(valid, dates), [True, False, False, True])
