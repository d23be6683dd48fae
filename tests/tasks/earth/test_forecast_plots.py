"""Pictures of an evaluation are drawn with and without a model, haze rule or examples, and say what they show."""

from __future__ import annotations

import io

import numpy as np
import pytest
from forecast_cases import LEVELS, Spy, drawn_series
from PIL import Image

from tasks.earth.forecast_examples import ExampleKeeper
from tasks.earth.forecast_plots import COLOURS, DASHES, draw_pictures
from tasks.earth.forecast_protocol import QUANTILES, PixelSeries, ScoringRule, asking
from tasks.earth.forecast_scores import evaluate_arrays

RULE = ScoringRule(tuple(np.array(["2018-08-01", "2018-09-15"], "datetime64[D]")), 120)


def pictures_of(series: PixelSeries, spy: Spy | None) -> dict[str, bytes]:
    predict = None if spy is None else asking(spy)
    levels = QUANTILES if spy is None else LEVELS
    keeper = ExampleKeeper()
    watch = keeper.watching(RULE, predict, np.zeros((series.valid.shape[1], 2)), levels=levels)
    scores = evaluate_arrays(series, predict, RULE, quantiles=levels, on_judged=watch)
    return draw_pictures({"model": spy and "spy", **scores.report()}, keeper.chosen())


@pytest.fixture(scope="module")
def with_model() -> dict[str, bytes]:
    return pictures_of(drawn_series(pixels=12), Spy())


@pytest.fixture(scope="module")
def without_model() -> dict[str, bytes]:
    """Floors alone, of NDVI alone."""
    series = drawn_series(pixels=12)
    return pictures_of(PixelSeries({"ndvi": series.values["ndvi"]}, series.valid, series.clear, series.dates), None)


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_three_pictures_are_drawn(with_model: dict[str, bytes], without_model: dict[str, bytes]) -> None:
    for found in (with_model, without_model):
        assert list(found) == ["error_by_horizon.png", "reliability.png", "example_pixels.png"]
        for content in found.values():
            assert pixels_of(content).shape[0] > 500
            assert (pixels_of(content).max(axis=2) < 120).mean() > 0.003  # ink


def test_the_model_s_colour_is_there_only_with_a_model(
    with_model: dict[str, bytes], without_model: dict[str, bytes]
) -> None:
    green = np.array([int(COLOURS["model"][place : place + 2], 16) for place in (1, 3, 5)])
    counts = [
        int((pixels_of(found["error_by_horizon.png"]) == green).all(axis=2).sum())
        for found in (with_model, without_model)
    ]
    assert counts[0] > 500
    assert counts[1] == 0


def test_series_without_blue_have_one_column_and_no_haze(
    with_model: dict[str, bytes], without_model: dict[str, bytes]
) -> None:
    one, two = (pixels_of(found["error_by_horizon.png"]).shape[1] for found in (without_model, with_model))
    assert one < 0.7 * two


def test_every_floor_has_its_own_dashes_and_colour() -> None:
    from models.floors import FLOORS

    assert set(DASHES) == set(FLOORS)
    assert len({COLOURS[name] for name in (*FLOORS, "model")}) == 6
