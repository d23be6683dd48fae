"""Forecasters by name: saved models, and the one that needs no training."""

from __future__ import annotations

import numpy as np

from models.indices import BANDS, available, compute
from storage.location import Location
from tasks.earth.forecast_protocol import QUANTILES, Past, window_quantiles
from tasks.earth.forecasting import Forecast, Forecaster

WINDOW = "window"
"""Name of the forecaster without training: quantiles of the pixel's own looks of the season."""


class WindowForecaster:
    """Quantiles of each pixel's looks within 30 days of the target's day of year, whatever the year.

    What every trained model has to beat; its median is the floor ``window_median``.
    """

    bands: tuple[str, ...] = BANDS
    quantiles: tuple[float, ...] = QUANTILES

    def forecast(
        self,
        reflectance: np.ndarray,
        valid: np.ndarray,
        dates: np.ndarray,
        targets: np.ndarray,
        *,
        bands: tuple[str, ...],
    ) -> Forecast:
        """Return quantiles per band and index; shapes as in `Forecaster`."""
        by_band = {band: np.where(valid, reflectance[:, number], np.nan) for number, band in enumerate(bands)}
        past = Past({**by_band, **{name: compute(name, by_band) for name in available(bands)}}, valid, dates)
        found = {
            name: window_quantiles(past, name, targets, levels=self.quantiles).astype(np.float32)
            for name in past.values
        }
        stacked = np.stack([found[band] for band in bands], axis=2)  # (target, quantile, band, pixel)
        return Forecast(stacked, {name: found[name] for name in available(bands)})


def open_forecaster(warehouse: Location, name: str) -> Forecaster:
    """Return a forecaster by name: ``window``, a saved network (``name`` or ``name/version``), or a shipped one.

    A network stands on a GPU where there is one.

    Raises
    ------
    NotFound
        Where there is no such model; the message lists those that are there.
    ConfigurationError
        Where the model is no network.
    SchemaMismatch
        Where its files are damaged.
    """
    if name == WINDOW:
        return WindowForecaster()
    # torch loads for seconds: not for those who ask for the window
    from tasks.earth.earthpt_forecasters import forecaster_of
    from tasks.earth.model_files import load_network
    from tasks.earth.processes import choose_device

    return forecaster_of(load_network(warehouse, name).to(choose_device()))
