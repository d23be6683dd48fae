"""Scores against numbers worked out by hand, and sums that do not mind how they are cut."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from forecast_cases import LEVELS, Spy, drawn_series

from models.floors import FLOORS
from tasks.earth.forecast_protocol import (
    MODEL,
    WINDOW_QUANTILES,
    Past,
    PixelSeries,
    ScoringRule,
    asking,
    at_pixels,
    judge,
)
from tasks.earth.forecast_scores import CELL, ForecastScores, evaluate_arrays, season_of

ORIGIN = np.datetime64("2019-01-01")
RULE = ScoringRule((ORIGIN,), 90)
HALF_CELL = CELL / 2
RANDOM_RULE = ScoringRule((np.datetime64("2018-08-01"), np.datetime64("2018-11-15")), 120)


def known_series() -> PixelSeries:
    """One pixel of NDVI 0.5 for two years, then 0.5, 0.62, 0.9 and (hazy) 0.1 after 10, 40, 70 and 80 days."""
    past = np.datetime64("2017-01-01") + 20 * np.arange(36)
    dates = np.concatenate([past, ORIGIN + np.array([10, 40, 70, 80])])
    ndvi = np.concatenate([np.full(36, 0.5), [0.5, 0.62, 0.9, 0.1]])[:, None]
    blue = np.concatenate([np.full(39, 0.03), [0.0401]])[:, None]
    seen = np.ones((40, 1), dtype=bool)
    return PixelSeries({"ndvi": ndvi}, seen, seen.copy(), dates, blue)


def constant(past: Past, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Return 0.55, 0.6 and 0.7 for all."""
    answer = np.array([0.55, 0.6, 0.7])[None, :, None]
    return {name: np.broadcast_to(answer, (len(targets), 3, past.valid.shape[1])) for name in past.values}


@pytest.fixture(scope="module")
def report() -> dict:
    return evaluate_arrays(known_series(), constant, RULE, quantiles=LEVELS).report()


def test_errors_are_those_worked_out_by_hand(report: dict) -> None:
    found = report["indices"]["ndvi"]
    # |0.6 - y| is 0.1, 0.02, 0.3, 0.5; |0.5 - y| is 0, 0.12, 0.4, 0.4
    assert found[MODEL]["mae"] == pytest.approx(0.23)
    assert found[MODEL]["n"] == 4
    for floor in FLOORS:
        assert found[floor]["mae"] == pytest.approx(0.23, abs=1e-3 if floor == "harmonic" else 1e-6)
        assert found[floor]["n"] == 4
    screened = report["screened"]["ndvi"]
    assert screened[MODEL]["mae"] == pytest.approx(0.14)
    assert screened[MODEL]["median"] == pytest.approx(0.1, abs=CELL)
    assert screened["persistence"]["mae"] == pytest.approx(0.52 / 3, abs=1e-6)
    assert screened["persistence"]["median"] == pytest.approx(0.12, abs=CELL)


def test_errors_by_horizon_go_to_the_bin_of_their_day(report: dict) -> None:
    bins = report["indices"]["ndvi"][MODEL]["by_horizon"]
    assert [row["days"] for row in bins] == [[0, 30], [30, 60], [60, 90]]
    assert [row["n"] for row in bins] == [1, 1, 2]
    assert [row["mae"] for row in bins] == pytest.approx([0.1, 0.02, 0.4])


def test_a_screened_look_is_held_to_the_limit(report: dict) -> None:
    # all blue looks are 0.03 before: limit 0.04; the last look has 0.0401
    assert report["counts"]["screened_targets"] == 3


def test_intervals_pinball_and_reliability_by_hand(report: dict) -> None:
    coverage = report["interval_coverage"]
    assert coverage["level"] == 0.8
    assert coverage["overall"] == 0.25  # only 0.62 lies in 0.55 to 0.7
    assert [row["coverage"] for row in coverage["by_horizon"]] == [0.0, 1.0, 0.0]
    assert coverage["by_season"]["DJF"] == {"coverage": 0.5, "n": 2}
    assert coverage["by_season"]["MAM"] == {"coverage": 0.0, "n": 2}
    assert coverage["screened"]["ndvi"]["overall"] == pytest.approx(1 / 3, abs=1e-6)
    assert report["reliability"]["ndvi"][MODEL] == [0.5, 0.5, 0.75]
    low = (0.9 * 0.05 + 0.1 * 0.07 + 0.1 * 0.35 + 0.9 * 0.45) / 4
    middle = 0.23 / 2
    high = (0.1 * 0.2 + 0.1 * 0.08 + 0.9 * 0.2 + 0.1 * 0.6) / 4
    assert report["pinball"]["ndvi"][MODEL] == pytest.approx((low + middle + high) / 3, abs=1e-6)
    # the window holds 0.5 alone: at or below it lie 0.5 and 0.1
    assert report["reliability"]["ndvi"][WINDOW_QUANTILES] == [0.5, 0.5, 0.5]
    by_hand = [
        level * max(y - 0.5, 0) + (1 - level) * max(0.5 - y, 0) for level in LEVELS for y in (0.5, 0.62, 0.9, 0.1)
    ]
    assert report["pinball"]["ndvi"][WINDOW_QUANTILES] == pytest.approx(np.mean(by_hand), abs=1e-6)


def test_skill_is_one_less_the_ratio_of_errors(report: dict) -> None:
    assert report["screened_skill"]["ndvi"]["persistence"]["mae"] == pytest.approx(1 - 0.14 / (0.52 / 3), abs=1e-4)


def test_a_report_is_json_without_nan(report: dict) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    empty = ForecastScores(RULE, LEVELS).report()
    assert json.loads(json.dumps(empty, allow_nan=False))["counts"]["targets"] == 0


def test_a_perfect_forecast_scores_zero_and_full_skill() -> None:
    series = known_series()
    truth = dict(zip(series.dates.tolist(), series.values["ndvi"][:, 0], strict=True))

    def oracle(past: Past, targets: np.ndarray) -> dict[str, np.ndarray]:
        return {"ndvi": np.array([truth[day] for day in targets.tolist()])[:, None, None].repeat(3, axis=1)}

    found = evaluate_arrays(series, oracle, RULE, quantiles=LEVELS).report()
    assert found["indices"]["ndvi"][MODEL]["mae"] == 0
    assert found["indices"]["ndvi"][MODEL]["median"] <= HALF_CELL
    assert found["skill"]["ndvi"]["persistence"]["mae"] == 1
    assert found["pinball"]["ndvi"][MODEL] == 0
    assert found["interval_coverage"]["overall"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_slow_way(seed: int) -> None:
    series, spy = drawn_series(seed), Spy()
    found = evaluate_arrays(series, asking(spy), RANDOM_RULE, quantiles=LEVELS).report()
    entries = [entry for entry in judge(series, asking(spy), RANDOM_RULE, quantiles=LEVELS) if entry.index == "evi2"]
    for method in (MODEL, *FLOORS):
        errors = [np.abs(entry.answers[method] - entry.truth)[entry.counted] for entry in entries]
        hazeless = [np.abs(entry.answers[method] - entry.truth)[entry.screened] for entry in entries]
        for key, parts in (("indices", errors), ("screened", hazeless)):
            mine, theirs = found[key]["evi2"][method], np.concatenate(parts)
            assert mine["n"] == len(theirs)
            assert mine["mae"] == pytest.approx(theirs.mean(), abs=1e-6)
            low, high = np.sort(theirs)[[len(theirs) // 2 - 1, len(theirs) // 2]]
            assert low - CELL <= mine["median"] <= high + CELL


def test_pixels_scored_apart_add_up_to_pixels_scored_together() -> None:
    series, predict = drawn_series(5, pixels=9), asking(Spy())
    whole = evaluate_arrays(series, predict, RANDOM_RULE, quantiles=LEVELS)
    added = ForecastScores(RANDOM_RULE, LEVELS)
    for part in (slice(4, 9), slice(0, 1), slice(1, 4)):
        pixels = np.arange(9)[part]
        added.merge(evaluate_arrays(at_pixels(series, pixels), predict, RANDOM_RULE, quantiles=LEVELS))
    assert added.report() == whole.report()
    assert whole.pixels == 9


def test_without_a_model_the_floors_are_scored_alone() -> None:
    found = evaluate_arrays(drawn_series(), None, RANDOM_RULE).report()
    assert list(found["indices"]["ndvi"]) == list(FLOORS)
    assert found["skill"]["ndvi"] == {}
    assert found["interval_coverage"]["of"] == WINDOW_QUANTILES


def test_calibrated_quantiles_hold_what_they_promise() -> None:
    """Looks drawn from a known law, and its quantiles forecast: shares are the levels, within 4 standard errors."""
    rng = np.random.default_rng(1)
    dates = np.datetime64("2016-01-01") + 10 * np.arange(110)
    seen = np.ones((110, 400), dtype=bool)
    series = PixelSeries({"ndvi": rng.uniform(0, 1, (110, 400))}, seen, seen, dates)

    def law(past: Past, targets: np.ndarray) -> dict[str, np.ndarray]:
        return {"ndvi": np.broadcast_to(np.array(LEVELS)[None, :, None], (len(targets), 3, 400))}

    rule = replace(RULE, origins=(np.datetime64("2018-06-01"),))
    scores = evaluate_arrays(series, law, rule, quantiles=LEVELS)
    found, number = scores.report(), scores.all_looks["ndvi"].number
    assert found["reliability"]["ndvi"][MODEL] == pytest.approx(LEVELS, abs=4 * 0.5 / np.sqrt(number))
    assert found["interval_coverage"]["overall"] == pytest.approx(0.8, abs=4 * 0.4 / np.sqrt(number))
    # E of pinball of a uniform law at level q is q (1 - q) / 2
    expected = np.mean([level * (1 - level) / 2 for level in LEVELS])
    assert found["pinball"]["ndvi"][MODEL] == pytest.approx(expected, rel=0.05)
    assert found["pinball"]["ndvi"][MODEL] < found["pinball"]["ndvi"][WINDOW_QUANTILES]


def test_seasons_are_meteorological() -> None:
    months = np.arange("2019-01", "2020-01", dtype="datetime64[M]").astype("datetime64[D]")
    assert season_of(months).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0]
