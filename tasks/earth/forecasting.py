"""The seam between a forecasting model and what uses it: evaluation, products, experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tasks.errors import ConfigurationError

MEDIAN, LOW, HIGH = 0.5, 0.1, 0.9
"""Levels that every forecaster gives: the answer, and the ends of the 80 % interval."""


@dataclass(frozen=True)
class Forecast:
    """Quantiles of reflectance and of indices on later dates.

    Parameters
    ----------
    reflectance : ndarray, shape (target, quantile, band, pixel), float32
        0 to 1, bands in the order of the array that was given; NaN where nothing can be said (no valid look).
    indices : mapping of str to ndarray, shape (target, quantile, pixel), float32
        ``ndvi``, ``evi2``, ``ndwi``, ``nbr``, ``bsi``, as far as the bands allow. Quantiles of the index itself, not the
        index of quantiles.
    """

    reflectance: np.ndarray
    indices: Mapping[str, np.ndarray] = field(default_factory=dict)


class Forecaster(Protocol):
    """What evaluation and products ask of a model."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Return the bands that it can take; a cube may hold a subset."""
        ...

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Return the levels of its quantiles: ascending, 0.1, 0.5 and 0.9 among them."""
        ...

    def forecast(
        self,
        reflectance: np.ndarray,
        valid: np.ndarray,
        dates: np.ndarray,
        targets: np.ndarray,
        *,
        bands: tuple[str, ...],
    ) -> Forecast:
        """Return what pixels will look like.

        Parameters
        ----------
        reflectance : ndarray, shape (time, band, pixel), float32
            0 to 1, NaN = no data; looks that are not valid may hold anything.
        valid : ndarray, shape (time, pixel), bool
            Looks that may be used.
        dates : ndarray, shape (time,), datetime64[D]
            Ascending.
        targets : ndarray, shape (target,), datetime64[D]
            All after the last date.
        bands : tuple of str
            What the second axis of `reflectance` holds.
        """
        ...


def quantile_index(quantiles: tuple[float, ...], level: float) -> int:
    """Return where a level stands among a forecaster's quantiles.

    Raises
    ------
    ConfigurationError
        Where it is not there.

    Examples
    --------
    >>> quantile_index((0.1, 0.5, 0.9), 0.9)
    2
    """
    for number, known in enumerate(quantiles):
        if abs(known - level) < 1e-6:
            return number
    raise ConfigurationError(f"the model gives quantiles {quantiles}, without {level}; it has to give 0.1, 0.5 and 0.9")


def require_bands(forecaster: Forecaster, bands: tuple[str, ...]) -> None:
    """Check that a model takes what a cube holds, and gives the quantiles that are needed.

    Raises
    ------
    ConfigurationError
        Naming the bands that it does not know, or the level that it lacks.
    """
    unknown = [band for band in bands if band not in forecaster.bands]
    if unknown:
        raise ConfigurationError(
            f"the cube holds {', '.join(unknown)}, which the model does not take (it takes "
            f"{', '.join(forecaster.bands)}); leave them out with --bands, or take a model trained with them"
        )
    for level in (LOW, MEDIAN, HIGH):
        quantile_index(forecaster.quantiles, level)
