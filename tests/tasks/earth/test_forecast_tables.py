"""The table for people holds the model beside every floor."""

from __future__ import annotations

import numpy as np
from forecast_cases import LEVELS, Spy, drawn_series

from models.floors import FLOORS
from tasks.earth.forecast_protocol import ScoringRule, asking
from tasks.earth.forecast_scores import ForecastScores, evaluate_arrays
from tasks.earth.forecast_tables import describe_report

RULE = ScoringRule((np.datetime64("2018-08-01"),), 120)


def test_it_shows_every_method_with_the_numbers_of_the_report() -> None:
    report = {"model": "spy", **evaluate_arrays(drawn_series(), asking(Spy()), RULE, quantiles=LEVELS).report()}
    text = describe_report(report)
    assert text.startswith("model spy: 1 origins 2018-08-01")
    for method in ("model", *FLOORS):
        row = next(line for line in text.splitlines()[4:] if method in line.split()[:2])
        assert f"{report['indices']['ndvi'][method]['mae']:.4f}" in row
        assert f"{report['screened']['ndvi'][method]['median']:.4f}" in row
    assert f"80 % interval, ndvi: {100 * report['interval_coverage']['overall']:.1f} %" in text
    assert "pinball loss, evi2" in text
    assert max(map(len, text.splitlines())) <= 110


def test_targets_that_the_model_left_out_are_said() -> None:
    report = {"model": "spy", **evaluate_arrays(drawn_series(), asking(Spy()), RULE, quantiles=LEVELS).report()}
    report["counts"]["unanswered"] = 12
    assert "12 targets left out" in describe_report(report)


def test_floors_alone_have_no_row_of_a_model() -> None:
    report = {"model": None, **evaluate_arrays(drawn_series(), None, RULE).report()}
    text = describe_report(report)
    assert text.startswith("floors alone")
    assert not any(line.split()[:1] == ["model"] for line in text.splitlines())


def test_an_empty_bin_is_a_dash() -> None:
    scores: ForecastScores = evaluate_arrays(drawn_series(looks=45), asking(Spy()), RULE, quantiles=LEVELS)
    late = {"model": "spy", **scores.report()}
    for found in late["indices"]["ndvi"].values():
        found["by_horizon"][0] |= {"mae": None, "median": None, "n": 0}
    assert "- / -" in describe_report(late)
