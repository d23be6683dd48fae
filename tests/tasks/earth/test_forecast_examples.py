"""Pixels kept for the pictures: what was held out stays held out, and the choice does not depend on the cutting."""

from __future__ import annotations

import numpy as np
import pytest
from forecast_cases import LEVELS, Spy, drawn_series

from models.floors import harmonic
from tasks.earth.forecast_examples import KEPT, Example, ExampleKeeper
from tasks.earth.forecast_protocol import PixelSeries, ScoringRule, asking, at_pixels
from tasks.earth.forecast_scores import evaluate_arrays

RULE = ScoringRule(tuple(np.array(["2018-08-01", "2018-09-15", "2018-10-20"], "datetime64[D]")), 120)
PIXELS = 90
PLACES = np.stack([600_005.0 + 10 * np.arange(PIXELS), np.full(PIXELS, 5_000_005.0)], axis=1)


def keep(series: PixelSeries, places: np.ndarray) -> ExampleKeeper:
    keeper, predict = ExampleKeeper(), asking(Spy())
    watch = keeper.watching(RULE, predict, places, levels=LEVELS)
    evaluate_arrays(series, predict, RULE, quantiles=LEVELS, on_judged=watch)
    return keeper


@pytest.fixture(scope="module")
def series() -> PixelSeries:
    return drawn_series(pixels=PIXELS)


@pytest.fixture(scope="module")
def examples(series: PixelSeries) -> list[Example]:
    return keep(series, PLACES).chosen()


def test_four_pixels_from_easy_to_hard_are_drawn(examples: list[Example]) -> None:
    assert len(examples) == 4
    errors = [example.error for example in examples]
    assert errors == sorted(errors)
    assert all(1 <= example.rank <= example.among for example in examples)


def test_an_example_is_the_pixel_at_its_place(series: PixelSeries, examples: list[Example]) -> None:
    for example in examples:
        assert example.origin == RULE.origins[1]
        pixel = round((example.place[0] - 600_005) / 10)
        before = series.dates < example.origin
        held = (series.dates >= example.origin) & (series.dates < example.origin + 120) & series.clear[:, pixel]
        np.testing.assert_array_equal(example.dates, series.dates[before & series.valid[:, pixel]])
        np.testing.assert_array_equal(example.looks, series.values["ndvi"][before & series.valid[:, pixel], pixel])
        np.testing.assert_array_equal(example.held, series.values["ndvi"][held, pixel])
        assert (example.days >= example.origin).all()
        assert (np.diff(example.band, axis=0) > 0).all()
        known = series.values["ndvi"][before][:, [pixel]]
        again = harmonic(known, series.valid[before][:, [pixel]], series.dates[before], example.days)
        np.testing.assert_allclose(example.floors["harmonic"], again[:, 0], atol=1e-6)


def test_parts_give_the_same_pixels_in_any_order(series: PixelSeries) -> None:
    parts = [slice(0, 25), slice(25, 60), slice(60, PIXELS)]
    numbers = np.arange(PIXELS)
    keepers = [keep(at_pixels(series, numbers[part]), PLACES[part]) for part in parts]
    forward, backward = ExampleKeeper(), ExampleKeeper()
    for keeper in keepers:
        forward.merge(keeper)
    for keeper in keepers[::-1]:
        backward.merge(keeper)
    assert len(forward.kept) == KEPT
    assert [example.place for example in forward.chosen()] == [example.place for example in backward.chosen()]


def test_nothing_kept_is_nothing_drawn() -> None:
    assert ExampleKeeper().chosen() == []
