"""The seam of forecasters: levels and bands are checked before anything is asked."""

from __future__ import annotations

import pytest
from forecast_cases import Spy

from tasks.earth.forecasting import quantile_index, require_bands
from tasks.errors import ConfigurationError


def test_a_level_is_found_whatever_its_last_digit() -> None:
    assert quantile_index((0.05, 0.1 + 1e-9, 0.5), 0.1) == 1


def test_a_band_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"holds B8A, which .* takes B04, B08.*--bands"):
        require_bands(Spy(bands=("B04", "B08")), ("B04", "B8A"))
    require_bands(Spy(bands=("B04", "B08")), ("B08",))


def test_a_model_without_the_ends_of_the_interval_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"without 0\.9"):
        require_bands(Spy(quantiles=(0.1, 0.5)), ("B04",))
