"""Series drawn once by all CPUs and kept, where drawing anew for each batch would keep a GPU waiting.

Beside series of the prior a pool may hold pixels of generated places, whose crops rotate, whose weather is shared and whose
looks next to clouds are hazy. A piece is a pure function of the choice and its number, so that interrupted drawing goes on.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.indices import BANDS
from models.tokens import HALF_RANGE, Tokens, to_days
from storage.location import Location
from tasks.earth.prior.places import GeneratedPlace, draw_place
from tasks.earth.prior.series import PriorConfig, draw_series
from tasks.earth.series_batches import newest_looks
from tasks.errors import ConfigurationError
from tasks.pools import Progress, draw_missing, pool_folder
from tasks.side_by_side import side_by_side

PIECE = 4096
"""Series of one piece."""
PLACE_PIXELS = 64
"""On a side of the places whose pixels are taken: many small ones, for each has the weather of its own years."""
PLACE_YEARS = (1.5, 5.0)
PLACE_SERIES = 1024
"""Pixels of a place that are kept at most."""
FIRST_PLACE = 500_000
"""Seed of the first of them: canopy heads learn from places that count from 0."""
_FIRST_HELD_OUT = 1_500_000
_HELD_OUT_PIXELS = 24
_LEAST_LOOKS = 12
_PER_LOOK = 10_000
_VERSION = 1


@dataclass(frozen=True)
class PoolChoice:
    """Which series a pool holds.

    Parameters
    ----------
    series : int
        Of the prior, rounded up to whole pieces of 4,096.
    places : int
        Generated ones; each gives 1,024 pixels, or as many as have 12 looks.
    looks : int
        Most of one series, the newest.
    seed : int
        Of the prior's.
    """

    series: int
    places: int = 0
    looks: int = 128
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what decides about each series, JSON types."""
        return {"looks": self.looks, "seed": self.seed, "version": _VERSION}


@dataclass(frozen=True)
class SeriesPool:
    """Series, packed.

    Parameters
    ----------
    reflectance : Tensor, shape (N, look, 10), int16
        Reflectance times 10,000.
    day : Tensor, shape (N, look), int16
        Since 2000-01-01; padding repeats the last.
    looks : Tensor, shape (N,), int16
        How many of each are no padding; they stand first.
    """

    reflectance: Tensor
    day: Tensor
    looks: Tensor

    def __len__(self) -> int:
        return len(self.looks)

    def to(self, device: torch.device) -> SeriesPool:
        """Return the pool on a device."""
        return SeriesPool(self.reflectance.to(device), self.day.to(device), self.looks.to(device))


@dataclass(frozen=True)
class PoolBatches:
    """Endless batches of a pool's series, put together where the pool is; any position can be had by itself.

    Parameters
    ----------
    pool : SeriesPool
    series : int
        Of one batch.
    seed : int
        Same seed and position, same batch.
    """

    pool: SeriesPool
    series: int
    seed: int = 0

    def at(self, position: int) -> Tokens:
        """Return the batch at a position."""
        rows = np.random.default_rng([self.seed, position]).integers(0, len(self.pool), self.series)
        return self.of(torch.from_numpy(rows))

    def of(self, rows: Tensor) -> Tokens:
        """Return chosen series by their numbers."""
        device = self.pool.looks.device
        chosen = rows.to(device)
        scaled = self.pool.reflectance[chosen].float() * (1 / HALF_RANGE) - 1
        day = self.pool.day[chosen].float()
        valid = torch.arange(day.shape[1], device=device) < self.pool.looks[chosen, None]
        return Tokens(scaled, torch.stack([day, day], dim=-1), valid)

    def tokens(self, batch: Tokens) -> int:
        """Return how many looks a batch holds."""
        return int(batch.valid.sum())


def open_series_pool(
    warehouse: Location, choice: PoolChoice, *, processes: int | None = None, on_progress: Progress | None = None
) -> SeriesPool:
    """Return a pool in memory, 2.8 kB a series; pieces that are not there yet are drawn and kept.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    choice : PoolChoice
        Which series.
    processes : int, optional
        That draw; by default one for each CPU.
    on_progress : callable, optional
        Hears how many pieces are there.

    Raises
    ------
    ConfigurationError
        Where no series is asked for.
    """
    if choice.series < 1 and choice.places < 1:
        raise ConfigurationError("a pool of no series: ask for one of the prior, or for a place")
    folder = pool_folder(warehouse, "series", choice.to_json())
    # places first: they take longer
    names = [f"place-{number:06d}.npz" for number in range(choice.places)]
    names += [f"prior-{number:06d}.npz" for number in range(-(-choice.series // PIECE))]

    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress("series", done, len(names), f"{done:,} of {len(names):,} pieces drawn")

    draw_missing(folder, names, partial(_draw_piece, folder, choice), processes=processes, on_done=tell)
    return _pool_of([_Piece.from_bytes(folder.read_bytes(name)) for name in names])


@dataclass(frozen=True)
class _Piece:
    """Some series of a pool, as arrays; shapes as in `SeriesPool`."""

    values: np.ndarray
    day: np.ndarray
    looks: np.ndarray

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, values=self.values, day=self.day, looks=self.looks)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> _Piece:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return cls(found["values"], found["day"], found["looks"])

    @classmethod
    def joined(cls, pieces: Sequence[_Piece]) -> _Piece:
        parts = ([getattr(one, name) for one in pieces] for name in ("values", "day", "looks"))
        return cls(*(np.concatenate(part) for part in parts))


def _pool_of(pieces: Sequence[_Piece]) -> SeriesPool:
    whole = _Piece.joined(pieces)
    return SeriesPool(*(torch.from_numpy(part) for part in (whole.values, whole.day, whole.looks)))


def _draw_piece(folder: Location, choice: PoolChoice, name: str) -> None:
    kind, _, number = name.removesuffix(".npz").partition("-")
    piece = (_of_place if kind == "place" else _of_prior)(choice, int(number))
    folder.write_bytes(name, piece.to_bytes())


def _of_prior(choice: PoolChoice, number: int) -> _Piece:
    parts = []
    size = PIECE // 8  # what is drawn at once fits the cache better
    for position in range(8 * number, 8 * number + 8):
        drawn = draw_series(PriorConfig(looks=choice.looks, series=size, seed=choice.seed), position)
        parts.append(_packed(drawn.reflectance * _PER_LOOK, drawn.day, drawn.valid.sum(axis=1), choice.looks))
    return _Piece.joined(parts)


def _of_place(choice: PoolChoice, number: int) -> _Piece:
    """Return the pixels of a place, with all looks that are clear, those next to clouds too: forecasts are scored on them."""
    place = draw_place(FIRST_PLACE + number, pixels=PLACE_PIXELS, years=PLACE_YEARS)
    piece, _ = _pixels_of(place, place.clear, number, most=PLACE_SERIES, looks=choice.looks)
    return piece


def held_out_places(places: int, *, looks: int, processes: int | None = None) -> tuple[Tokens, Tensor]:
    """Return series of places that are in no pool, all their clear looks, and which of these a forecast may read.

    Parameters
    ----------
    places : int
        How many; each gives 24 pixels, or as many as have 12 looks that may be read.
    looks : int
        Most of one series.
    processes : int, optional
        That draw.

    Returns
    -------
    Tokens
        (N, look, 10).
    Tensor of bool, shape (N, look)
        Looks away from what is masked.
    """
    drawing = side_by_side(partial(_held_out_place, looks=looks), range(places), processes=processes)
    parts = [part for _, part in sorted(drawing, key=lambda found: found[0])]
    pieces, read = [piece for piece, _ in parts], np.concatenate([read for _, read in parts])
    pool = _pool_of(pieces)
    everything = PoolBatches(pool, len(pool)).of(torch.arange(len(pool)))
    return everything, torch.from_numpy(read)


def _held_out_place(number: int, *, looks: int) -> tuple[int, tuple[_Piece, np.ndarray]]:
    place = draw_place(_FIRST_HELD_OUT + number, pixels=PLACE_PIXELS, years=PLACE_YEARS)
    return number, _pixels_of(place, place.valid, number, most=_HELD_OUT_PIXELS, looks=looks)


def _pixels_of(
    place: GeneratedPlace, counted: np.ndarray, seed: int, *, most: int, looks: int
) -> tuple[_Piece, np.ndarray]:
    """Return drawn pixels with enough looks among those counted, all their clear looks, and which are away from clouds."""
    times = len(place.dates)
    clear, valid = (part.reshape(times, -1).T for part in (place.clear, place.valid))  # (pixel, time)
    enough = np.flatnonzero(counted.reshape(times, -1).sum(axis=0) >= _LEAST_LOOKS)
    enough = np.random.default_rng(seed).permutation(enough)[:most]
    chosen, there = newest_looks(clear[enough], looks)
    flat = place.reflectance.reshape(times, len(BANDS), -1).transpose(2, 0, 1)  # (pixel, time, band)
    piece = _packed(flat[enough[:, None], chosen], to_days(place.dates).numpy()[chosen], there.sum(axis=1), looks)
    read = np.take_along_axis(valid[enough], chosen, axis=1) & there
    return piece, np.pad(read, ((0, 0), (0, looks - read.shape[1])))


def _packed(values: np.ndarray, day: np.ndarray, looks: np.ndarray, steps: int) -> _Piece:
    """Return series as a piece, padded to as many steps with their last look."""
    short = steps - day.shape[1]
    padded = np.pad(np.clip(np.rint(values), 0, 32_767).astype(np.int16), ((0, 0), (0, short), (0, 0)), mode="edge")
    days = np.pad(day.astype(np.int16), ((0, 0), (0, short)), mode="edge")
    return _Piece(padded, days, looks.astype(np.int16))
