"""The forecaster that needs no training, against the floor that it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from forecast_cases import drawn_series

from models.floors import window_median
from storage.errors import NotFound
from storage.location import resolve
from tasks.earth.forecasters import WINDOW, WindowForecaster, open_forecaster
from tasks.earth.forecasting import require_bands


def test_its_median_is_the_floor_and_its_quantiles_ascend() -> None:
    series, forecaster = drawn_series(), WindowForecaster()
    assert series.reflectance is not None
    targets = series.dates[-1] + np.array([5, 60])
    found = forecaster.forecast(series.reflectance, series.valid, series.dates, targets, bands=series.bands)
    levels = len(forecaster.quantiles)
    assert found.reflectance.shape == (2, levels, 4, 6)
    assert set(found.indices) == {"ndvi", "evi2", "ndwi"}
    middle = forecaster.quantiles.index(0.5)
    expected = window_median(series.values["ndvi"], series.valid, series.dates, targets)
    np.testing.assert_allclose(found.indices["ndvi"][:, middle], expected, atol=1e-6)
    red = window_median(series.reflectance[:, 2], series.valid, series.dates, targets)
    np.testing.assert_allclose(found.reflectance[:, middle, 2], red, atol=1e-6)
    assert (np.diff(found.reflectance, axis=1) >= 0).all()


def test_looks_that_are_not_valid_change_nothing() -> None:
    series, forecaster = drawn_series(), WindowForecaster()
    assert series.reflectance is not None
    targets = series.dates[-1] + np.array([5])
    other = np.where(series.valid[:, None], series.reflectance, np.float32(9.0))
    first = forecaster.forecast(series.reflectance, series.valid, series.dates, targets, bands=series.bands)
    second = forecaster.forecast(other, series.valid, series.dates, targets, bands=series.bands)
    np.testing.assert_array_equal(first.reflectance, second.reflectance)


def test_it_is_there_by_name_and_others_are_not(tmp_path: object) -> None:
    require_bands(open_forecaster(resolve(str(tmp_path)), WINDOW), ("B02", "B12"))
    with pytest.raises(NotFound, match="'earthpt'"):
        open_forecaster(resolve(str(tmp_path)), "earthpt")
