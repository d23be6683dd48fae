"""What a forecast of an area is asked for, and what it comes to once nothing is left open."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storage.export import Layer
from tasks.earth.layers import forecast_layers


@dataclass(frozen=True)
class ForecastRequest:
    """What is to be forecast, and with what.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    model : str
        Name, or name/version; ``window`` needs no training.
    origin : str or None
        Looks before this day are used, ``YYYY-MM-DD``; None for the day after the newest look.
    dates : tuple of str
        Days to forecast; where there are none, every `every` days up to `horizon` days after the origin.
    horizon, every : int
        Days.
    bands : tuple of str or None
        Of the cubes; None for all.
    quantiles : tuple of float or None
        Levels to keep, 0.1, 0.5 and 0.9 among them; None for all that the model gives.
    out_index : tuple of str
        Indices that get COGs of their median and of the ends of the 80 % interval.
    collection, title : str
        Of the product.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    allow_unmasked : bool
        Whether looks without a mask count.
    """

    warehouse: str
    area: dict[str, Any]
    model: str
    origin: str | None = None
    dates: tuple[str, ...] = ()
    horizon: int = 150
    every: int = 30
    bands: tuple[str, ...] | None = None
    quantiles: tuple[float, ...] | None = None
    out_index: tuple[str, ...] = ("ndvi",)
    collection: str = "forecast"
    title: str = "Forecast"
    crs: str | None = None
    resolution: float = 10.0
    allow_unmasked: bool = False


@dataclass(frozen=True)
class Forecasting:
    """A request with nothing left open.

    Parameters
    ----------
    model : str
        ``name/version``, or ``window``.
    weights_sha256 : str
        Of the model; of nothing where it has no weights.
    origin : datetime64[D]
        Looks before it are used.
    targets : tuple of datetime64[D]
        Ascending, from the origin on.
    bands, indices, out_index : tuple of str
        What is read, what is forecast, and which indices get COGs.
    quantiles : tuple of float
        Levels that are kept.
    """

    model: str
    weights_sha256: str
    origin: np.datetime64
    targets: tuple[np.datetime64, ...]
    bands: tuple[str, ...]
    indices: tuple[str, ...]
    out_index: tuple[str, ...]
    quantiles: tuple[float, ...]

    @property
    def days(self) -> np.ndarray:
        """Return the targets, (target,) datetime64[D]."""
        return np.array(self.targets, dtype="datetime64[D]")

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return what is staged."""
        return forecast_layers(self.bands, self.indices, targets=self.days, quantiles=self.quantiles)

    def in_words(self) -> dict[str, Any]:
        """Return it in JSON types."""
        words = {**asdict(self), "origin": str(self.origin), "targets": [str(day) for day in self.targets]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in words.items()}
