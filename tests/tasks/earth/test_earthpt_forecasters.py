"""Forecasters over networks: the model's own answers in physical units, however pixels are cut and batched."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from forecast_cases import TEN_METRES, drawn_series
from series_cases import lively_model

from models.earthpt import OUTPUTS, QUANTILES, EarthPT, Questions, from_channels, to_channels
from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.indices import BANDS, available, compute
from models.tokens import PixelSeries, SeriesTokeniser, Tokens, compact, to_days, to_reflectance
from tasks.earth import series_batches
from tasks.earth.earthpt_forecasters import EarthPTForecaster, PublishedForecaster
from tasks.earth.forecast_protocol import PixelSeries as DrawnSeries
from tasks.earth.forecasting import Forecast, require_bands
from tasks.earth.model_folders import ModelReference
from tasks.errors import ConfigurationError

REFERENCE = ModelReference("small", "0" * 12, "", "0" * 64)
AHEAD = np.array([4, 40, 130])


@pytest.fixture(scope="module")
def forecaster() -> EarthPTForecaster:
    return EarthPTForecaster(lively_model(3).eval(), REFERENCE)


@pytest.fixture(scope="module")
def published() -> PublishedForecaster:
    model = PublishedEarthPT(PublishedEarthPTConfig(2, 2, 16, 24), generator=torch.Generator().manual_seed(2))
    return PublishedForecaster(model.eval(), REFERENCE)


def ask(
    forecaster: EarthPTForecaster | PublishedForecaster, series: DrawnSeries, targets: np.ndarray | None = None
) -> Forecast:
    assert series.reflectance is not None
    targets = series.dates[-1] + AHEAD if targets is None else targets
    return forecaster.forecast(series.reflectance, series.valid, series.dates, targets, bands=series.bands)


def tokens_of(series: DrawnSeries, pixel: int) -> Tokens:
    """Return one pixel's valid looks by the tokeniser, from stored integers."""
    assert series.reflectance is not None
    stored = np.round(series.reflectance[None, :, :, pixel].astype(float) * 10_000).astype(np.int32)
    one = PixelSeries(
        torch.from_numpy(stored), to_days(series.dates)[None], torch.from_numpy(series.valid[None, :, pixel])
    )
    return compact(SeriesTokeniser(series.bands).tokenise(one))


def stored(series: DrawnSeries) -> DrawnSeries:
    """Return a series with reflectances as cubes hold them, whole ten-thousandths."""
    assert series.reflectance is not None
    series.reflectance[:] = np.round(series.reflectance * 10_000) / np.float32(10_000)
    return series


def expected(model: EarthPT, series: DrawnSeries, pixel: int) -> torch.Tensor:
    """Return physical quantiles (K, 15, Q) by `EarthPT.answer` of one pixel alone."""
    one, ahead = tokens_of(series, pixel), to_days(series.dates[-1] + AHEAD)[None]
    origin = torch.full(ahead.shape, one.valid.shape[1] - 1)
    with torch.inference_mode():
        answer = model.answer(
            to_channels(one.values), one.position[..., 0], one.valid, Questions(origin, ahead, origin)
        )
    return from_channels(answer[0].transpose(-1, -2)).transpose(-1, -2)


def test_it_gives_the_answers_of_the_model_in_physical_units(forecaster: EarthPTForecaster) -> None:
    series = stored(drawn_series(pixels=9))
    found = ask(forecaster, series)
    assert found.reflectance.shape == (3, len(QUANTILES), 4, 9)
    assert found.reflectance.dtype == np.float32
    assert set(found.indices) == {"ndvi", "evi2", "ndwi"}
    for pixel in range(9):
        known = expected(forecaster.model, series, pixel)
        for name, index in found.indices.items():
            np.testing.assert_allclose(index[:, :, pixel], known[:, OUTPUTS.index(name)], atol=2e-6)
        bands = [OUTPUTS.index(band) for band in TEN_METRES]
        np.testing.assert_allclose(
            found.reflectance[:, :, :, pixel], known[:, bands].clamp(min=0).transpose(1, 2), atol=2e-6
        )


def test_all_ten_bands_allow_every_index_and_their_order_is_the_given_one(forecaster: EarthPTForecaster) -> None:
    series = drawn_series(bands=BANDS)
    assert series.reflectance is not None
    found = ask(forecaster, series)
    assert tuple(found.indices) == available(BANDS)
    backwards = forecaster.forecast(
        series.reflectance[:, ::-1], series.valid, series.dates, series.dates[-1] + AHEAD, bands=BANDS[::-1]
    )
    np.testing.assert_allclose(backwards.reflectance[:, :, ::-1], found.reflectance, atol=1e-6)


def test_quantiles_ascend_and_reflectance_is_not_negative(forecaster: EarthPTForecaster) -> None:
    found = ask(forecaster, drawn_series())
    assert (np.diff(found.reflectance, axis=1) >= 0).all()
    assert all((np.diff(index, axis=1) >= 0).all() for index in found.indices.values())
    assert found.reflectance.min() >= 0


@pytest.mark.parametrize("which", ["forecaster", "published"])
def test_a_pixel_without_a_valid_look_is_nan_and_its_neighbours_are_not(
    which: str, request: pytest.FixtureRequest
) -> None:
    series = drawn_series(bands=BANDS)
    series.valid[:, 2] = False
    found = ask(request.getfixturevalue(which), series)
    for values in (found.reflectance, *found.indices.values()):
        assert np.isnan(values[..., 2]).all()
        assert np.isfinite(np.delete(values, 2, axis=-1)).all()


@pytest.mark.parametrize("which", ["forecaster", "published"])
def test_looks_that_are_not_valid_change_nothing(which: str, request: pytest.FixtureRequest) -> None:
    forecaster, series = request.getfixturevalue(which), drawn_series(bands=BANDS)
    first = ask(forecaster, series)
    assert series.reflectance is not None
    series.reflectance[:] = np.where(series.valid[:, None], series.reflectance, np.float32(np.nan))
    np.testing.assert_array_equal(ask(forecaster, series).reflectance, first.reflectance)


@pytest.mark.parametrize("which", ["forecaster", "published"])
def test_batches_and_company_do_not_matter(
    which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster, series = request.getfixturevalue(which), drawn_series(pixels=20, bands=BANDS)
    together = ask(forecaster, series)
    monkeypatch.setattr(series_batches, "TOKENS_AT_ONCE", 50)
    apart = ask(forecaster, series)
    np.testing.assert_allclose(apart.reflectance, together.reflectance, atol=2e-6)
    one_target = ask(forecaster, series, series.dates[-1] + AHEAD[1:2])
    np.testing.assert_allclose(one_target.indices["ndvi"][0], together.indices["ndvi"][1], atol=2e-6)


def test_only_the_newest_looks_are_read(forecaster: EarthPTForecaster) -> None:
    series = drawn_series()
    few = EarthPTForecaster(forecaster.model, REFERENCE, looks=5)
    first = ask(few, series)
    oldest = np.cumsum(series.valid[::-1], axis=0)[::-1] > 5
    assert oldest.any()
    cut = series.valid & ~oldest
    assert series.reflectance is not None
    alone = forecaster.forecast(series.reflectance, cut, series.dates, series.dates[-1] + AHEAD, bands=series.bands)
    np.testing.assert_allclose(first.reflectance, alone.reflectance, atol=2e-6)
    assert np.abs(first.reflectance - ask(forecaster, series).reflectance).max() > 1e-4


def test_a_band_that_it_does_not_know_is_refused(forecaster: EarthPTForecaster) -> None:
    series = drawn_series()
    assert series.reflectance is not None
    with pytest.raises(ConfigurationError, match="B01"):
        forecaster.forecast(
            series.reflectance[:, :1], series.valid, series.dates, series.dates[-1] + AHEAD, bands=("B01",)
        )


def test_the_published_model_rolls_out_in_steps_of_five_days(published: PublishedForecaster) -> None:
    """A target on a step has that step's prediction, one between two steps lies between them on a line."""
    series = stored(drawn_series(pixels=3, looks=40, bands=BANDS))
    steps = 12
    for pixel in range(3):
        context = tokens_of(series, pixel)
        last = series.dates[series.valid[:, pixel]][-1]
        days = to_days(last + 5 * np.arange(1, steps + 1))
        assert context.valid.shape[1] + steps > published.model.config.block_size
        with torch.inference_mode():
            made = to_reflectance(published.model.forecast(context.steps(-24, None), days))[0].numpy()
        ahead = int((series.dates[-1] - last).astype(int))
        first = -(-ahead // 5)  # the first step that is not before the last date
        targets = last + 5 * np.array([first + 1, first + 3]) + np.array([0, 2])
        found = ask(published, series, targets)
        between = made[first + 2] + 0.4 * (made[first + 3] - made[first + 2])
        middle = found.reflectance[:, 1, :, pixel]
        np.testing.assert_allclose(middle, np.stack([made[first], between]).clip(0), atol=2e-5)


def test_the_published_model_has_no_spread_and_indices_of_its_answer(published: PublishedForecaster) -> None:
    found = ask(published, drawn_series(bands=BANDS))
    assert np.ptp(found.reflectance, axis=1).max() == 0
    by_band = {band: found.reflectance[:, 0, number] for number, band in enumerate(BANDS)}
    np.testing.assert_allclose(found.indices["nbr"][:, 2], compute("nbr", by_band))
    require_bands(published, BANDS)


def test_the_published_model_needs_all_ten_bands(published: PublishedForecaster) -> None:
    with pytest.raises(ConfigurationError, match=r"needs all ten bands, and B05, .*B12 are not there"):
        ask(published, drawn_series())


@pytest.mark.parametrize("which", ["forecaster", "published"])
def test_looks_are_read_on_the_device_of_the_model(which: str, request: pytest.FixtureRequest) -> None:
    forecaster = request.getfixturevalue(which)
    away = replace(forecaster, model=deepcopy(forecaster.model).to("meta"))
    # a tensor of the meta device holds nothing: all goes there, and only the way back cannot be gone
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        ask(away, drawn_series(pixels=3, bands=BANDS))
