"""Small series with gaps for tests of forecasts, and a forecaster that writes down what it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.indices import BANDS, available, compute
from tasks.earth.forecast_protocol import PixelSeries, series_of
from tasks.earth.forecasting import Forecast

START = np.datetime64("2017-01-03")
LEVELS = (0.1, 0.5, 0.9)
TEN_METRES = ("B02", "B03", "B04", "B08")


def drawn_series(
    seed: int = 0, pixels: int = 6, looks: int = 60, *, bands: tuple[str, ...] = TEN_METRES
) -> PixelSeries:
    """Return random reflectance every 14 days or so, clear in 7 of 10 looks, valid in most of those."""
    rng = np.random.default_rng(seed)
    dates = START + np.cumsum(rng.integers(8, 20, looks))
    reflectance = rng.uniform(0.01, 0.6, (looks, len(bands), pixels)).astype(np.float32)
    clear = rng.random((looks, pixels)) < 0.7
    valid = clear & (rng.random((looks, pixels)) < 0.9)
    return series_of(reflectance, bands, valid=valid, clear=clear, dates=dates)


@dataclass
class Spy:
    """Answers from what it is given with a constant spread, and keeps all of it."""

    bands: tuple[str, ...] = BANDS
    quantiles: tuple[float, ...] = LEVELS
    spread: float = 0.1
    shown: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    said: list[np.ndarray] = field(default_factory=list)

    def forecast(
        self,
        reflectance: np.ndarray,
        valid: np.ndarray,
        dates: np.ndarray,
        targets: np.ndarray,
        *,
        bands: tuple[str, ...],
    ) -> Forecast:
        """Return each pixel's mean valid look, less, plain and plus the spread."""
        self.shown.append((reflectance.copy(), valid.copy(), dates.copy(), targets.copy()))
        mean = np.nanmean(np.where(valid[:, None], reflectance, np.nan), axis=0)  # (band, pixel)
        steps = np.array([-self.spread, 0.0, self.spread])[None, :, None, None]
        answer = np.repeat(mean[None, None] + steps, len(targets), axis=0).astype(np.float32)
        indices = {}
        for name in available(bands):
            centre = compute(name, dict(zip(bands, mean, strict=True)))
            indices[name] = np.repeat((centre[None, None] + steps[:, :, 0]), len(targets), axis=0).astype(np.float32)
        self.said.append(np.concatenate([answer.ravel(), *(found.ravel() for found in indices.values())]))
        return Forecast(answer, indices)
