"""Pixel series of a region as batches of tokens: only valid looks, sorted so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.indices import BANDS
from models.tokens import HALF_RANGE, Tokens, to_days

PIXELS_AT_ONCE = 4096
"""Pixels that are turned from date-major to series at once."""
TOKENS_AT_ONCE = 8192
"""Looks and questions that go through a network at once: more do not fit the cache of a core, fewer cost more calls."""
TOKENS_ON_GPU = 1 << 18
"""The same on a GPU, which smaller batches do not fill; a network takes about 4 kB of its memory for each."""


@dataclass(frozen=True)
class RegionSeries:
    """Series of the pixels of a region, as cubes give them.

    Parameters
    ----------
    reflectance : ndarray, shape (time, band, pixel), float32
        0 to 1, NaN = no data; looks that are not valid may hold anything.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64
        Ascending.
    bands : tuple of str
        What the second axis of `reflectance` holds.
    """

    reflectance: np.ndarray
    valid: np.ndarray
    dates: np.ndarray
    bands: tuple[str, ...]


@dataclass(frozen=True)
class SeriesBatch:
    """Some pixels of a region.

    Parameters
    ----------
    pixels : ndarray, shape (B,), int
        Their numbers on the last axis of the region.
    tokens : Tokens
        (B, T, 10): valid looks, first and in order; position is the look's own day, twice.
    """

    pixels: np.ndarray
    tokens: Tokens


def batches_of(series: RegionSeries, *, looks: int, tokens: int, asked: int = 0) -> Iterator[SeriesBatch]:
    """Yield every pixel that has a valid look, once; memory stays that of a block of pixels.

    Parameters
    ----------
    series : RegionSeries
        Looks without a number in any band do not count as valid.
    looks : int
        Newest valid looks of each pixel that are kept.
    tokens : int
        Looks and questions in one batch, padding counted; a longer series makes a batch of its own.
    asked : int
        Questions about each pixel.
    """
    days = to_days(series.dates)
    columns = [BANDS.index(band) for band in series.bands]
    for begin in range(0, series.valid.shape[1], PIXELS_AT_ONCE):
        part = slice(begin, begin + PIXELS_AT_ONCE)
        block = series.reflectance[:, :, part]
        usable = (series.valid[:, part] & np.isfinite(block).any(axis=1)).T  # (pixel, time)
        block = np.ascontiguousarray(block.transpose(2, 0, 1))  # (pixel, time, band)
        count = np.minimum(usable.sum(axis=1), looks)
        order = np.argsort(count, kind="stable")
        for pixels in _cut(order[count[order] > 0], count + asked, tokens):
            number, valid = newest_looks(usable[pixels], looks)
            values = _scaled(block[pixels[:, None], number], valid, columns)
            day = days[torch.from_numpy(number)]
            position = torch.stack([day, day], dim=-1)
            yield SeriesBatch(pixels + begin, Tokens(values, position, torch.from_numpy(valid)))


def tokens_at_once(device: torch.device) -> int:
    """Return how many looks and questions go through a network at once on a device.

    Examples
    --------
    >>> tokens_at_once(torch.device("cpu"))
    8192
    """
    return TOKENS_AT_ONCE if device.type == "cpu" else TOKENS_ON_GPU


def device_of(network: nn.Module) -> torch.device:
    """Return the device that a network stands on, where batches are to go."""
    return next(network.parameters()).device


def _cut(order: np.ndarray, length: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Yield pixels, sorted by their length, in parts of so many tokens at most."""
    while order.size:
        # the longest of the first n is the n-th: take as many as fit
        filled = length[order] * np.arange(1, order.size + 1)
        fit = max(int(np.searchsorted(filled, tokens, side="right")), 1)
        yield order[:fit]
        order = order[fit:]


def newest_looks(usable: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of each pixel's newest usable looks, in order, and which of them are no padding.

    Parameters
    ----------
    usable : ndarray, shape (pixel, time), bool
    steps : int
        Looks of one pixel at most.

    Returns
    -------
    number : ndarray, shape (pixel, look), int
        As long as the longest, and 1 at least; padding repeats the last look, and is the first where there is none.
    valid : ndarray, shape (pixel, look), bool
    """
    found = usable.sum(axis=1)
    steps = max(min(steps, int(found.max(initial=0))), 1)
    row, look = np.nonzero(usable)
    first = np.concatenate([[0], np.cumsum(found)[:-1]]).astype(int) + np.maximum(found - steps, 0)
    place = np.arange(row.size) - first[row]
    number = np.zeros((len(usable), steps), dtype=np.int64)
    kept = place >= 0
    number[row[kept], place[kept]] = look[kept]
    count = np.minimum(found, steps)[:, None]
    valid = np.arange(steps) < count
    last = np.take_along_axis(number, np.maximum(count - 1, 0), axis=1)
    return np.where(valid, number, last), valid


def _scaled(reflectance: np.ndarray, valid: np.ndarray, columns: list[int]) -> Tensor:
    """Return reflectance (B, T, band) as values of tokens (B, T, 10), NaN where there is nothing."""
    values = np.full((*valid.shape, len(BANDS)), np.nan, dtype=np.float32)
    values[..., columns] = reflectance * np.float32(10_000 / HALF_RANGE) - np.float32(1)
    values[~valid] = np.nan
    return torch.from_numpy(values)
