"""Forecasters over saved networks: reflectance and dates in, quantiles of reflectance and of indices out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.earthpt import OUTPUTS, QUANTILES, EarthPT, from_channels, to_channels
from models.earthpt_published import PublishedEarthPT
from models.indices import BANDS, available, compute
from models.tokens import Tokens, to_days, to_reflectance
from tasks.earth.forecasting import HIGH, LOW, MEDIAN, Forecast, Forecaster, require_bands
from tasks.earth.model_files import LoadedNetwork
from tasks.earth.model_folders import ModelReference
from tasks.earth.series_batches import RegionSeries, batches_of, device_of, tokens_at_once
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class EarthPTForecaster:
    """The default EarthPT: all targets in one pass.

    Parameters
    ----------
    model : EarthPT
        In eval mode.
    reference : ModelReference
        Which one it is.
    looks : int
        Newest valid looks of each pixel that it reads.
    """

    model: EarthPT
    reference: ModelReference
    looks: int = 256
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
        require_bands(self, bands)
        ahead, names = to_days(targets), (*bands, *available(bands))
        device = device_of(self.model)
        kept = torch.tensor([OUTPUTS.index(name) for name in names], device=device)
        out = np.full((len(targets), len(QUANTILES), len(names), valid.shape[1]), np.nan, dtype=np.float32)
        series = RegionSeries(reflectance, valid, dates, bands)
        with torch.inference_mode():
            for batch in batches_of(series, looks=self.looks, tokens=tokens_at_once(device), asked=len(ahead)):
                answer = self._ask(batch.tokens.to(device), ahead.to(device))  # (K, Q, B, 15)
                out[..., batch.pixels] = answer.index_select(-1, kept).transpose(-1, -2).cpu().numpy()
        return _split(out, bands)

    def _ask(self, tokens: Tokens, ahead: Tensor) -> Tensor:
        """Return physical quantiles (K, quantile, B, 15) of a batch."""
        channels, day = to_channels(tokens.values), tokens.position[..., 0]
        answer = self.model.answer_ahead(channels, day, tokens.valid, ahead=ahead.expand(len(day), -1))  # (B, K, 15, Q)
        physical = from_channels(answer.permute(1, 3, 0, 2))
        physical[..., : len(BANDS)].clamp_(min=0.0)
        return physical


@dataclass(frozen=True)
class PublishedForecaster:
    """The published EarthPT: a roll-out in steps of five days from each pixel's last look, as in the paper.

    A target between two steps is interpolated. The model has no uncertainty, so all its quantiles are equal, and no
    missing bands, so that it takes cubes of all ten.

    Parameters
    ----------
    model : PublishedEarthPT
        In eval mode.
    reference : ModelReference
        Which one it is.
    step_days : float
        Of the roll-out.
    """

    model: PublishedEarthPT
    reference: ModelReference
    step_days: float = 5.0
    bands: tuple[str, ...] = BANDS
    quantiles: tuple[float, ...] = (LOW, MEDIAN, HIGH)

    def forecast(
        self,
        reflectance: np.ndarray,
        valid: np.ndarray,
        dates: np.ndarray,
        targets: np.ndarray,
        *,
        bands: tuple[str, ...],
    ) -> Forecast:
        """Return reflectance and the indices of it; shapes as in `Forecaster`.

        Raises
        ------
        ConfigurationError
            Where one of the ten bands is not there.
        """
        missing = [band for band in BANDS if band not in bands]
        if missing:
            raise ConfigurationError(
                f"the published EarthPT needs all ten bands, and {', '.join(missing)} are not there: ingest them, or take "
                "a model of kind earthpt, which does without"
            )
        require_bands(self, bands)
        out = np.full((len(targets), len(BANDS), valid.shape[1]), np.nan, dtype=np.float32)
        series, device = RegionSeries(reflectance, valid, dates, bands), device_of(self.model)
        with torch.inference_mode():
            for batch in batches_of(series, looks=self.model.config.block_size, tokens=tokens_at_once(device)):
                made = self._roll_out(batch.tokens.to(device), to_days(targets).to(device))
                out[..., batch.pixels] = made.cpu().numpy()
        by_band = {band: out[:, number] for number, band in enumerate(BANDS)}
        indices = {name: _repeat(compute(name, by_band), len(self.quantiles)) for name in available(BANDS)}
        return Forecast(_repeat(out[:, [BANDS.index(band) for band in bands]], len(self.quantiles)), indices)

    def _roll_out(self, tokens: Tokens, targets: Tensor) -> Tensor:
        """Return reflectance (target, 10, B) of a batch."""
        last = tokens.position[..., 0].gather(1, tokens.valid.sum(dim=1, keepdim=True) - 1)  # (B, 1)
        place = ((targets - last) / self.step_days - 1).clamp(min=0)  # (B, K), in steps after the first
        steps = int(place.max().ceil()) + 1
        days = last + self.step_days * torch.arange(1, steps + 1, device=last.device)
        made = to_reflectance(self.model.forecast(tokens, days)).clamp(min=0.0)  # (B, S, 10)
        before = place.floor().long()
        after = (before + 1).clamp(max=steps - 1)
        share = (place - before)[..., None]
        low, high = (made.gather(1, number[..., None].expand(-1, -1, len(BANDS))) for number in (before, after))
        return (low + share * (high - low)).permute(1, 2, 0)


def forecaster_of(network: LoadedNetwork) -> Forecaster:
    """Return the forecaster that a saved network is.

    Raises
    ------
    ConfigurationError
        Where its kind does not forecast series.
    """
    if isinstance(network.model, EarthPT):
        return EarthPTForecaster(network.model, network.reference)
    if isinstance(network.model, PublishedEarthPT):
        return PublishedForecaster(network.model, network.reference)
    raise ConfigurationError(f"model {network.reference.name} is of kind {network.kind}, which forecasts no series")


def _split(out: np.ndarray, bands: tuple[str, ...]) -> Forecast:
    """Return (target, quantile, name, pixel) as reflectance and indices."""
    found = {name: out[:, :, len(bands) + number] for number, name in enumerate(available(bands))}
    return Forecast(out[:, :, : len(bands)], found)


def _repeat(values: np.ndarray, levels: int) -> np.ndarray:
    """Return values (target, ...) for each of so many quantiles: (target, quantile, ...)."""
    return np.repeat(values[:, None], levels, axis=1).astype(np.float32)
