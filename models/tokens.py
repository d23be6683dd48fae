"""What every autoregressive model reads: ``Tokens(values, position, valid)``, and how a series becomes tokens and back.

Position is kept apart from value because the dates to come are known and their reflectances are not.

================  ====================  =======================================================================
field             shape                 what
================  ====================  =======================================================================
``values``        (B, T, C) float       dimensionless; NaN where a channel was not observed
``position``      (B, T, P) float       series: (day, target day), days since 2000-01-01
``valid``         (B, T) bool           False is padding or a look that is not clear; values there are anything
================  ====================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.indices import BANDS

EPOCH = "2000-01-01"
"""Day zero of positions."""
HALF_RANGE = 500.0
"""Stored units (reflectance x 10,000) that make one of `Tokens.values`: x = v / 500 - 1."""
NO_DATA = 0
"""Stored reflectance that says that nothing was measured."""


@dataclass(frozen=True)
class Tokens:
    """Steps of several sequences.

    Parameters
    ----------
    values : Tensor, shape (B, T, C)
        Dimensionless; NaN where a channel was not observed.
    position : Tensor, shape (B, T, P)
        Where each step stands; series: (day, target day), days since 2000-01-01.
    valid : Tensor of bool, shape (B, T)
        False is padding or a look that is not clear.
    """

    values: Tensor
    position: Tensor
    valid: Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return int(self.valid.shape[0])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Tokens:
        """Return the same tokens on a device; from pinned memory the copy need not be waited for."""
        fields = (self.values, self.position, self.valid)
        return Tokens(*(field.to(device, non_blocking=non_blocking) for field in fields))

    @property
    def is_cuda(self) -> bool:
        """Return whether they are on a GPU already."""
        return self.values.is_cuda

    def pin_memory(self) -> Tokens:
        """Return the same tokens in memory that a GPU copies from by itself."""
        return Tokens(self.values.pin_memory(), self.position.pin_memory(), self.valid.pin_memory())

    def steps(self, start: int | None, stop: int | None) -> Tokens:
        """Return the steps from `start` up to, not including, `stop`; as in a slice."""
        cut = slice(start, stop)
        return Tokens(self.values[:, cut], self.position[:, cut], self.valid[:, cut])


@dataclass(frozen=True)
class ExtraChannel:
    """One channel beside the bands: Sentinel-1 VV or VH, elevation, weather.

    A value v becomes ``(v - offset) / scale``, which ought to lie within a few units of zero. The way there and back is
    exact where `offset` is 0 and `scale` a power of two, and good to 3 units in the last place of the largest of
    ``|v|``, ``|offset|`` and ``|v - offset|`` otherwise.

    Parameters
    ----------
    name : str
        As in the user's Zarr.
    offset, scale : float
        In `unit`; a scale is positive.
    unit : str
        Of the values before scaling.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    unit: str = "1"

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"channel {self.name}: scale {self.scale} is not positive")


@dataclass(frozen=True)
class PixelSeries:
    """Series as cubes hold them.

    Parameters
    ----------
    reflectance : Tensor, shape (B, T, band), integer
        Surface reflectance x 10,000; 0 is no data.
    days : Tensor, shape (B, T)
        Days since 2000-01-01, ascending.
    clear : Tensor of bool, shape (B, T)
        Looks that the mask lets through.
    extra : Tensor, shape (B, T, E), float32, optional
        Extra channels in their own units; NaN where there is no value.
    """

    reflectance: Tensor
    days: Tensor
    clear: Tensor
    extra: Tensor | None = None


@dataclass(frozen=True)
class SeriesTokeniser:
    """Pixel series to tokens and back, exactly.

    Reflectance v, stored x 10,000, becomes ``x = 2 (v / 1000) - 1`` (EarthPT, Smith et al. 2023, arXiv 2309.07207, as its
    published weights take it). Tokens always have the channels of all ten bands; those that a sensor or archive does not
    have are NaN.

    Parameters
    ----------
    bands : tuple of str
        Bands that the series hold, in their order; some of `models.indices.BANDS`.
    extra : tuple of ExtraChannel
        Further channels, after the bands.

    Raises
    ------
    ValueError
        Where a band is not one of the ten, or is named twice.
    """

    bands: tuple[str, ...] = BANDS
    extra: tuple[ExtraChannel, ...] = ()

    def __post_init__(self) -> None:
        unknown = [band for band in self.bands if band not in BANDS]
        if unknown or len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands {', '.join(self.bands)}: each one once, of {', '.join(BANDS)}")

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the names of the channels of the tokens."""
        return (*BANDS, *(channel.name for channel in self.extra))

    def tokenise(self, series: PixelSeries, *, after: Tensor | None = None) -> Tokens:
        """Return a series as tokens.

        Parameters
        ----------
        series : PixelSeries
            (B, T, band), and (B, T, E) where there are extra channels.
        after : Tensor, shape (B,), optional
            Day that follows the last clear look; by default that look's own day.

        Returns
        -------
        Tokens
            Values (B, T, 10 + E) float32; the target day of a step is that of the next clear look.

        Raises
        ------
        ValueError
            Where the channels are not those of this tokeniser.
        """
        self._require_channels(series)
        stored = series.reflectance.to(torch.float32)
        scaled = torch.where(stored == NO_DATA, torch.nan, stored / HALF_RANGE - 1)
        columns = [_unseen(stored) for _ in BANDS]
        for number, band in enumerate(self.bands):
            columns[BANDS.index(band)] = scaled[..., number]
        if series.extra is not None:
            columns += [(series.extra[..., n].float() - c.offset) / c.scale for n, c in enumerate(self.extra)]
        days = series.days.to(torch.float32)
        position = torch.stack([days, next_days(days, series.clear, after=after)], dim=-1)
        return Tokens(torch.stack(columns, dim=-1), position, series.clear)

    def detokenise(self, tokens: Tokens) -> PixelSeries:
        """Return the stored series: integers exactly, days, clear looks and extra channels.

        Raises
        ------
        ValueError
            Where the number of channels is not this tokeniser's.
        """
        values = tokens.values
        if values.shape[-1] != len(self.channels):
            raise ValueError(f"tokens have {values.shape[-1]} channels; expected {', '.join(self.channels)}")
        own = values[..., [BANDS.index(band) for band in self.bands]]
        extra = [values[..., len(BANDS) + n] * c.scale + c.offset for n, c in enumerate(self.extra)]
        return PixelSeries(
            to_stored(own), tokens.position[..., 0], tokens.valid, torch.stack(extra, dim=-1) if extra else None
        )

    def _require_channels(self, series: PixelSeries) -> None:
        found = series.reflectance.shape[-1], 0 if series.extra is None else series.extra.shape[-1]
        if found != (len(self.bands), len(self.extra)):
            raise ValueError(
                f"a series of {found[0]} bands and {found[1]} extra channels came; expected "
                f"{', '.join(self.bands)} and {len(self.extra)} extra"
            )


def to_stored(values: Tensor) -> Tensor:
    """Return scaled reflectance as the integers that cubes store; NaN becomes 0, no data.

    Parameters
    ----------
    values : Tensor
        As `SeriesTokeniser` scales it.

    Returns
    -------
    Tensor of uint16, reflectance x 10,000
    """
    rounded = ((values.double() + 1) * HALF_RANGE).round().clamp(0, 65535).nan_to_num(float(NO_DATA))
    return rounded.to(torch.int32).to(torch.uint16)


def to_reflectance(values: Tensor) -> Tensor:
    """Return scaled reflectance as reflectance 0 to 1; NaN stays NaN."""
    return (values + 1) * (HALF_RANGE / 10_000)


def to_days(dates: np.ndarray) -> Tensor:
    """Return dates as days since 2000-01-01.

    Parameters
    ----------
    dates : ndarray of datetime64

    Returns
    -------
    Tensor of float32, of the same shape
        Time of day included: to about a minute for this century.
    """
    since = dates.astype("datetime64[ns]") - np.datetime64(EPOCH, "ns")
    return torch.from_numpy((since / np.timedelta64(1, "D")).astype(np.float32))


def to_dates(days: Tensor) -> np.ndarray:
    """Return days since 2000-01-01 as datetime64[D], the time of day cut off."""
    whole = np.floor(days.detach().cpu().double().numpy()).astype("timedelta64[D]")
    return np.datetime64(EPOCH, "D") + whole


def next_days(days: Tensor, valid: Tensor, *, after: Tensor | None = None) -> Tensor:
    """Return for each step the day of the next valid one.

    Parameters
    ----------
    days : Tensor, shape (B, T), ascending
    valid : Tensor of bool, shape (B, T)
    after : Tensor, shape (B,), optional
        What follows the last valid step; by default a step after which there is none has its own day.

    Returns
    -------
    Tensor, shape (B, T)
    """
    last = torch.full_like(days[:, :1], torch.inf) if after is None else after.to(days)[:, None]
    coming = torch.cat([torch.where(valid, days, torch.inf)[:, 1:], last], dim=1)
    coming = coming.flip(1).cummin(dim=1).values.flip(1)
    return torch.where(coming.isinf(), days, coming)


def pad(parts: Sequence[Tokens]) -> Tokens:
    """Return sequences of different length as one batch.

    Parameters
    ----------
    parts : sequence of Tokens
        Of any number of sequences each, with the same channels.

    Returns
    -------
    Tokens
        As long as the longest; shorter ones end with steps that are not valid, of NaN at their last position.

    Raises
    ------
    ValueError
        Where there is nothing to pad, or channels differ.
    """
    found = {(part.values.shape[2], part.position.shape[2]) for part in parts}
    if len(found) != 1:
        raise ValueError(
            f"expected sequences with the same channels and positions; these have {sorted(found) or 'none'}"
        )
    steps = max(part.valid.shape[1] for part in parts)
    longer = [_lengthen(part, steps) for part in parts]
    return Tokens(
        torch.cat([part.values for part in longer]),
        torch.cat([part.position for part in longer]),
        torch.cat([part.valid for part in longer]),
    )


def compact(tokens: Tokens, *, steps: int | None = None) -> Tokens:
    """Return the valid steps of each sequence, first and in order, and no more padding than needed.

    Parameters
    ----------
    tokens : Tokens
    steps : int, optional
        Length T' of the result, at most T; by default the most valid steps of any sequence, and at least 1. With a given
        length no value decides about a shape, so that it compiles.

    Returns
    -------
    Tokens
        (B, T'); what follows a sequence's own steps is NaN at its last valid position.
    """
    count = tokens.valid.sum(dim=1, keepdim=True)
    if steps is None:
        steps = max(int(count.max()), 1)
    number = torch.arange(steps, device=count.device)[None]
    order = torch.argsort(tokens.valid, dim=1, descending=True, stable=True)
    kept = order.gather(1, torch.minimum(number, (count - 1).clamp(min=0)))[..., None]  # (B, T', 1)
    valid = number < count
    values = tokens.values.gather(1, kept.expand(-1, -1, tokens.values.shape[2]))
    position = tokens.position.gather(1, kept.expand(-1, -1, tokens.position.shape[2]))
    return Tokens(values.masked_fill(~valid[..., None], torch.nan), position, valid)


def _lengthen(tokens: Tokens, steps: int) -> Tokens:
    count, held, channels = tokens.values.shape
    if held == steps:
        return tokens
    more = steps - held
    last = tokens.position[:, -1:] if held else tokens.position.new_zeros((count, 1, tokens.position.shape[2]))
    return Tokens(
        torch.cat([tokens.values, tokens.values.new_full((count, more, channels), torch.nan)], dim=1),
        torch.cat([tokens.position, last.expand(-1, more, -1)], dim=1),
        torch.cat([tokens.valid, tokens.valid.new_zeros((count, more))], dim=1),
    )


def _unseen(like: Tensor) -> Tensor:
    """Return a channel that was not observed, for steps like these: (B, T, ...) -> (B, T)."""
    return like.new_full(like.shape[:2], torch.nan)
