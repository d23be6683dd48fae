"""Forecasters by name; the one that needs no training, against the floor that it is made of."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from forecast_cases import drawn_series
from series_cases import SMALL, lively_model

from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.floors import window_median
from storage.errors import NotFound
from storage.location import Location, resolve
from tasks.earth import model_folders
from tasks.earth.earthpt_forecasters import EarthPTForecaster, PublishedForecaster
from tasks.earth.forecasters import WINDOW, WindowForecaster, open_forecaster
from tasks.earth.forecasting import require_bands
from tasks.earth.model_files import save_network
from tasks.earth.model_folders import ModelParts, copy_model, save_parts
from tasks.errors import ConfigurationError


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


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path / "warehouse")


def save(warehouse: Location, name: str) -> None:
    save_network(
        warehouse, name, lively_model(3), kind="earthpt", config=asdict(SMALL), metrics={}, training={}, card="Small."
    )


def test_the_window_is_there_by_name_and_others_are_not(warehouse: Location) -> None:
    require_bands(open_forecaster(warehouse, WINDOW), ("B02", "B12"))
    with pytest.raises(NotFound, match="'unheard-of'"):
        open_forecaster(warehouse, "unheard-of")


def test_the_window_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from storage.location import resolve; from tasks.earth.forecasters import open_forecaster; "
        f"open_forecaster(resolve({str(tmp_path)!r}), 'window'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_saved_network_forecasts(warehouse: Location) -> None:
    save(warehouse, "small")
    forecaster = open_forecaster(warehouse, "small")
    assert isinstance(forecaster, EarthPTForecaster)
    assert open_forecaster(warehouse, f"small/{forecaster.reference.version}") is not forecaster
    series = drawn_series()
    assert series.reflectance is not None
    targets = series.dates[-1] + np.array([5, 60])
    found = forecaster.forecast(series.reflectance, series.valid, series.dates, targets, bands=series.bands)
    own = EarthPTForecaster(lively_model(3).eval(), forecaster.reference)
    known = own.forecast(series.reflectance, series.valid, series.dates, targets, bands=series.bands)
    np.testing.assert_array_equal(found.reflectance, known.reflectance)


def test_a_shipped_network_forecasts(warehouse: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(resolve(tmp_path / "elsewhere"), "small")
    monkeypatch.setattr(model_folders, "SHIPPED", tmp_path / "shipped")
    copy_model(resolve(tmp_path / "elsewhere"), "small", resolve(tmp_path / "shipped" / "small"))
    forecaster = open_forecaster(warehouse, "small")
    assert isinstance(forecaster, EarthPTForecaster)
    assert forecaster.reference.url == str(tmp_path / "shipped" / "small")


def test_a_published_network_forecasts(warehouse: Location) -> None:
    model = PublishedEarthPT(PublishedEarthPTConfig(1, 2, 16, 8))
    config = model.to_config()
    save_network(warehouse, "old", model, kind="earthpt-published", config=config, metrics={}, training={}, card="Old.")
    assert isinstance(open_forecaster(warehouse, "old"), PublishedForecaster)


def test_a_classifier_forecasts_nothing(warehouse: Location) -> None:
    save_parts(warehouse, "floor", ModelParts(b"", {"kind": "forest"}, {}, {}, ""))
    with pytest.raises(ConfigurationError, match="model floor is a forest"):
        open_forecaster(warehouse, "floor")
