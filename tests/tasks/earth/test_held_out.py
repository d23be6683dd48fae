"""Questions are about held-out looks alone; quantiles come to hold their share; scores are those of the evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forecast_cases import TEN_METRES, drawn_series
from series_cases import SMALL, lively_model, series

from models.earthpt import QUANTILES, EarthPT
from models.indices import BANDS
from models.tokens import PixelSeries, SeriesTokeniser, to_days
from tasks.earth.earthpt_forecasters import EarthPTForecaster
from tasks.earth.forecast_protocol import ScoringRule, asking, series_of
from tasks.earth.forecast_scores import evaluate_arrays
from tasks.earth.held_out import HeldOut, hold_out, score
from tasks.earth.model_folders import ModelReference


def days_of(held: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """Return the days of origin and target of the questions that count."""
    day = held.tokens.position[..., 0]
    origin, target = (day.gather(1, getattr(held.questions, name)) for name in ("origin", "target"))
    assert torch.equal(target, held.questions.day)
    return origin[held.counts].numpy(), target[held.counts].numpy()


def test_targets_are_held_out_and_origins_lie_before_them_within_the_horizon() -> None:
    tokens = series(count=200, looks=30)
    since = 7200.0
    origin, target = days_of(hold_out("area", tokens, since=since, horizon_days=90, questions=8))
    assert len(target) > 500
    assert (target >= since).all()
    assert (origin < target).all()
    nearest = np.diff(np.sort(tokens.position[..., 0].numpy(), axis=1), axis=1).max()
    assert (target - origin <= 90 + nearest).all()
    assert (origin < since).any()
    assert (origin >= since).any()


def test_series_without_a_held_out_look_ask_nothing() -> None:
    held = hold_out("area", series(count=20), since=1e6)
    assert held.number == 0


def test_the_same_seed_asks_the_same() -> None:
    tokens = series(count=5)
    first, second, third = (hold_out("prior", tokens, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.questions.target, second.questions.target)
    assert not torch.equal(first.questions.target, third.questions.target)


def test_answers_do_not_depend_on_how_many_series_go_at_once() -> None:
    held = hold_out("prior", series(count=70, looks=16))
    model = lively_model(2)
    one = hold_out("prior", series(count=70, looks=16))
    torch.testing.assert_close(held.answers(model), one.answers(model))
    some = replace(one, tokens=held.tokens)
    assert some.loss(model) == pytest.approx(held.loss(model))
    assert held.answers(model).shape == (70, 16, 15, len(QUANTILES))


def test_calibrated_quantiles_come_to_hold_their_share() -> None:
    held = hold_out("prior", series(count=150, looks=20), questions=4)
    model = EarthPT(SMALL)
    model.get_buffer("spread").mul_(0.2)
    narrow = held.coverage(model)
    assert narrow < 0.5
    # a factor is limited to three
    held.calibrate(model)
    held.calibrate(model)
    assert abs(held.coverage(model) - 0.8) < 0.08
    median = QUANTILES.index(0.5)
    assert (model.get_buffer("spread")[:, median] == 0.2).all()


def packed(pixels: int) -> tuple[object, HeldOut]:
    """Return series of several pixels of the same dates as arrays, and packed, held out from a day on."""
    arrays = drawn_series(3, pixels, looks=70)
    assert arrays.reflectance is not None
    stored = np.round(np.nan_to_num(arrays.reflectance.transpose(2, 0, 1)) * 10_000).astype(np.int32)
    days = np.repeat(to_days(arrays.dates)[None].numpy(), pixels, axis=0)
    clear = torch.from_numpy(np.ascontiguousarray(arrays.valid.T))
    tokens = SeriesTokeniser(TEN_METRES).tokenise(PixelSeries(torch.from_numpy(stored), torch.from_numpy(days), clear))
    since = float(days[0, 45])
    exact = stored.transpose(1, 2, 0).astype(np.float32) / 10_000
    gridded = series_of(exact, TEN_METRES, valid=arrays.valid, clear=arrays.valid, dates=arrays.dates)
    return gridded, hold_out("area", tokens, since=since)


def test_scores_are_those_that_the_evaluation_gives() -> None:
    gridded, held = packed(12)
    forecaster = EarthPTForecaster(lively_model(1).eval(), ModelReference("", "", "", ""))
    found = score(held, asking(forecaster), QUANTILES)
    assert found is not None
    start = np.datetime64("2000-01-01") + np.timedelta64(int(held.since), "D")
    last = gridded.dates[gridded.valid.any(axis=1)].max()
    origins = tuple(np.arange(start, last - np.timedelta64(30, "D"), np.timedelta64(30, "D")))
    report = evaluate_arrays(gridded, asking(forecaster), ScoringRule(origins, 150), quantiles=QUANTILES).report()
    for method, errors in found["indices"]["ndvi"].items():
        assert errors["n"] == report["indices"]["ndvi"][method]["n"] > 50
        assert errors["mae"] == pytest.approx(report["indices"]["ndvi"][method]["mae"], abs=2e-6)
    assert found["pinball"]["ndvi"]["model"] == pytest.approx(report["pinball"]["ndvi"]["model"], abs=2e-6)


def test_series_of_their_own_dates_are_scored_one_by_one() -> None:
    held = hold_out("prior", series(count=6, looks=120))
    forecaster = EarthPTForecaster(EarthPT(SMALL).eval(), ModelReference("", "", "", ""))
    found = score(held, asking(forecaster), QUANTILES, pixels=4)
    assert found is not None
    assert found["pixels"] <= 4
    assert set(found["indices"]["ndvi"]) >= {"model", "window_median", "last_year"}
    assert set(BANDS).isdisjoint(found["indices"])


def test_series_too_short_for_the_floors_have_no_score() -> None:
    held = hold_out("prior", series(count=3, looks=9))
    forecaster = EarthPTForecaster(EarthPT(SMALL).eval(), ModelReference("", "", "", ""))
    assert score(held, asking(forecaster), QUANTILES) is None
