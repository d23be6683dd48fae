"""The protocol of scoring: who is told what, which targets count, and that the future cannot leak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from forecast_cases import LEVELS, Spy, drawn_series
from hypothesis import given, settings
from hypothesis import strategies as st

from models.floors import FLOORS, window_median
from tasks.earth.forecast_protocol import (
    MODEL,
    WINDOW_QUANTILES,
    Judged,
    Past,
    PixelSeries,
    ScoringRule,
    asking,
    at_pixels,
    haze_limit,
    judge,
    masked_quantiles,
    series_of,
    window_quantiles,
)
from tasks.errors import ConfigurationError

ORIGINS = (np.datetime64("2018-08-01"), np.datetime64("2018-11-15"))
RULE = ScoringRule(ORIGINS, 120)


def judged(series: PixelSeries, spy: Spy | None = None, rule: ScoringRule = RULE) -> list[Judged]:
    spy = spy or Spy()
    return list(judge(series, asking(spy), rule, quantiles=spy.quantiles))


@given(seed=st.integers(0, 10_000), number=st.sampled_from(range(len(ORIGINS))))
@settings(max_examples=15, deadline=None)
def test_nothing_from_the_origin_on_changes_any_forecast(seed: int, number: int) -> None:
    """Values, valid and haze after the origin are replaced by anything: no method says anything else."""
    series, rng = drawn_series(seed), np.random.default_rng(seed + 1)
    rule = replace(RULE, origins=(ORIGINS[number],))
    before = int(np.searchsorted(series.dates, ORIGINS[number]))
    assert series.reflectance is not None
    other = series.reflectance.copy()
    other[before:] = rng.choice([np.nan, -5.0, 0.3, 77.0], other[before:].shape)
    valid = series.valid.copy()
    valid[before:] = rng.random(valid[before:].shape) < 0.5
    changed = series_of(other, series.bands, valid=valid, clear=series.clear, dates=series.dates)
    first, second = Spy(), Spy()
    told, again = judged(series, first, rule), judged(changed, second, rule)
    np.testing.assert_array_equal(np.concatenate(first.said), np.concatenate(second.said))
    for mine, theirs in zip(told, again, strict=True):
        for method in (MODEL, *FLOORS):
            np.testing.assert_array_equal(mine.answers[method], theirs.answers[method], method)
        for source in (MODEL, WINDOW_QUANTILES):
            np.testing.assert_array_equal(mine.quantiles[source], theirs.quantiles[source], source)


def test_the_forecaster_is_shown_the_past_and_the_dates_of_targets_and_nothing_else() -> None:
    series, spy = drawn_series(), Spy()
    judged(series, spy)
    assert len(spy.shown) == len(ORIGINS)
    assert series.reflectance is not None
    for origin, (reflectance, valid, dates, targets) in zip(ORIGINS, spy.shown, strict=True):
        assert (dates < origin).all()
        assert (targets >= origin).all()
        assert (targets < origin + 120).all()
        assert np.isnan(reflectance[~np.broadcast_to(valid[:, None], reflectance.shape)]).all()
        past = series.reflectance[: len(dates)]
        assert np.isin(reflectance[~np.isnan(reflectance)], past).all()


def test_what_a_method_is_given_holds_no_view_of_the_future() -> None:
    def forgetful(past: Past, targets: np.ndarray) -> dict[str, np.ndarray]:
        assert past.reflectance is not None
        for array in (past.reflectance, past.valid, past.dates, *past.values.values(), targets):
            assert array.base is None or array.base.size <= array.size
            assert not np.shares_memory(array, series.dates)
            array[...] = array.dtype.type(0) if array.dtype.kind != "M" else np.datetime64("1990-01-01")
        return {name: np.zeros((len(targets), len(LEVELS), past.valid.shape[1]), np.float32) for name in series.values}

    series = drawn_series()
    kept = series.values["ndvi"].copy()
    list(judge(series, forgetful, RULE, quantiles=LEVELS))
    np.testing.assert_array_equal(series.values["ndvi"], kept)


def test_targets_are_clear_looks_from_the_origin_to_the_horizon_not_only_valid_ones() -> None:
    series = drawn_series()
    first = next(entry for entry in judged(series) if entry.index == "ndvi")
    ahead = (series.dates >= ORIGINS[0]) & (series.dates < ORIGINS[0] + 120)
    np.testing.assert_array_equal(first.targets, series.dates[ahead])
    expected = series.clear[ahead][:, first.pixels]
    np.testing.assert_array_equal(first.counted, expected)
    assert (expected & ~series.valid[ahead][:, first.pixels]).any()


def test_a_look_on_the_origin_is_a_target_and_one_on_the_horizon_is_not() -> None:
    series = drawn_series()
    day = series.dates[-5]
    rule = ScoringRule((day,), int((series.dates[-1] - day).astype(int)))
    found = judged(series, rule=rule)[0]
    np.testing.assert_array_equal(found.targets, series.dates[-5:-1])


def test_pixels_without_history_do_not_count() -> None:
    series = drawn_series()
    series.valid[:, 2] = False
    series.valid[:14, 2] = True  # 14 looks
    assert all(2 not in entry.pixels for entry in judged(series))


def test_the_context_may_be_the_clear_looks() -> None:
    series, spy = drawn_series(), Spy()
    judged(series, spy, replace(RULE, context="clear"))
    valid = spy.shown[0][1]
    np.testing.assert_array_equal(valid, series.clear[: len(valid)])


def test_a_target_without_an_answer_is_left_out_for_every_method_and_counted() -> None:
    def sometimes(past: Past, targets: np.ndarray) -> dict[str, np.ndarray]:
        answer = dict(asking(Spy())(past, targets))
        answer["ndvi"][0, 2, 1] = np.nan  # one quantile of one pixel
        return answer

    series = drawn_series()
    series.clear[...] = True
    whole = judged(series)[0]
    holed = next(judge(series, sometimes, RULE, quantiles=LEVELS))
    assert (whole.counted & ~holed.counted).sum() == 1
    assert not holed.counted[0, 1]
    assert holed.unanswered.sum() == 1
    assert whole.unanswered.sum() == 0


def test_two_looks_of_one_day_are_two_targets_and_one_question() -> None:
    series, spy = drawn_series(), Spy()
    ahead = int(np.searchsorted(series.dates, ORIGINS[0]))
    series.dates[ahead + 1] = series.dates[ahead]
    found = judged(series, spy)[0]
    assert len(found.targets) == len(spy.shown[0][3]) + 1
    np.testing.assert_array_equal(found.answers["harmonic"][0], found.answers["harmonic"][1])


def test_series_of_an_index_alone_are_scored_without_haze_rule() -> None:
    series = drawn_series()
    bare = PixelSeries({"ndvi": series.values["ndvi"]}, series.valid, series.clear, series.dates)
    found = list(judge(bare, None, RULE))
    assert [entry.index for entry in found] == ["ndvi", "ndvi"]
    assert all(entry.screened is None for entry in found)
    assert all(entry.past.reflectance is None for entry in found)


def test_a_valid_look_without_an_index_s_bands_is_no_look_of_that_index() -> None:
    """The floors then answer as if the look were not there."""
    series = drawn_series()
    holed = series.values["ndvi"].copy()
    holed[5:9] = np.nan
    bare = PixelSeries({"ndvi": holed}, series.valid, series.clear, series.dates)
    masked = series.valid.copy()
    masked[5:9] = False
    same = PixelSeries({"ndvi": series.values["ndvi"]}, masked, series.clear, series.dates)
    for mine, theirs in zip(judge(bare, None, RULE), judge(same, None, RULE), strict=True):
        for method in FLOORS:
            np.testing.assert_allclose(mine.answers[method], theirs.answers[method])


def test_an_index_that_the_model_leaves_out_is_named() -> None:
    with pytest.raises(ConfigurationError, match="gives no ndvi, only evi2"):
        list(judge(drawn_series(), lambda past, targets: {"evi2": np.zeros(1)}, RULE))
    with pytest.raises(ConfigurationError, match=r"ndvi of shape \(1,\)"):
        list(judge(drawn_series(), lambda past, targets: {"ndvi": np.zeros(1)}, RULE))


def test_bands_that_make_no_index_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="B02 make no index"):
        drawn_series(bands=("B02",))


def test_haze_limit_is_the_rule_by_hand() -> None:
    # looks 2, 3, 4, 5, 16 hundredths: median 4, distances 2, 1, 0, 1, 12, their median 1
    blue = np.array([[0.02], [0.16], [0.03], [np.nan], [0.04], [0.05]])
    assert haze_limit(blue)[0] == pytest.approx(0.04 + 2.5 * 1.4826 * 0.01 + 0.01)


def test_screened_targets_are_those_under_the_limit_of_their_own_pixel() -> None:
    series = drawn_series()
    found = judged(series)[0]
    assert series.blue is not None
    assert found.screened is not None
    before = len(found.past.dates)
    for column, pixel in enumerate(found.pixels):
        seen = series.blue[:before, pixel][series.valid[:before, pixel]].astype(float)
        limit = np.median(seen) + 2.5 * 1.4826 * np.median(np.abs(seen - np.median(seen))) + 0.01
        blue = series.blue[before : before + len(found.targets), pixel]
        np.testing.assert_array_equal(found.screened[:, column], found.counted[:, column] & (blue <= limit))


@given(seed=st.integers(0, 1000), looks=st.integers(1, 12))
def test_masked_quantiles_are_numpy_s(seed: int, looks: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(looks, 4))
    values[rng.random((looks, 4)) < 0.4] = np.nan
    values[0, :3] = 0.5
    values[:, 3] = np.nan
    found = masked_quantiles(values, (0.05, 0.5, 0.9))
    np.testing.assert_allclose(found[:, :3], np.nanquantile(values[:, :3], (0.05, 0.5, 0.9), axis=0))
    assert np.isnan(found[:, 3]).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_window_s_median_is_the_floor(seed: int) -> None:
    series = drawn_series(seed, looks=25)
    values = np.where(series.valid, series.values["ndvi"], np.nan)
    targets = series.dates[-1] + np.array([3, 40, 90, 170])
    past = Past({"ndvi": values}, series.valid, series.dates)
    found = window_quantiles(past, "ndvi", targets, levels=(0.5,))[:, 0]
    np.testing.assert_allclose(found, window_median(values, series.valid, series.dates, targets), atol=1e-6)


def test_pixels_are_judged_one_by_one() -> None:
    """What is said of a pixel does not depend on its neighbours in the array."""
    series = drawn_series()
    whole = judged(series)
    for pixel in range(6):
        for entry, alone in zip(whole, judged(at_pixels(series, np.array([pixel]))), strict=True):
            assert entry.pixels[pixel] == pixel
            for method in entry.answers:
                np.testing.assert_allclose(entry.answers[method][:, pixel], alone.answers[method][:, 0], atol=1e-12)
