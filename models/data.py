"""Batches from anything that has shards: shuffled by seed, resumable at any position without replay."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from models.indices import BANDS
from models.tokens import Tokens, compact, next_days, pad
from models.training import Batches

_BLOCK = 64
_FEWEST = 8
_UNIT = 2**32


class TokenSource(Protocol):
    """Samples in shards."""

    @property
    def sizes(self) -> Sequence[int]:
        """Return how many samples each shard has."""
        ...

    def read(self, shard: int) -> Tokens:
        """Return the samples of a shard; the same ones whenever it is asked for."""
        ...


@dataclass(frozen=True)
class HeldTokens:
    """A source that is held in memory.

    Parameters
    ----------
    parts : tuple of Tokens
        Its shards.
    """

    parts: tuple[Tokens, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return how many samples each shard has."""
        return tuple(len(part) for part in self.parts)

    def read(self, shard: int) -> Tokens:
        """Return a shard."""
        return self.parts[shard]


@dataclass(frozen=True)
class Augmentation:
    """How much series are changed each time they are drawn.

    All pixels of a place share the dates and the haze of a few looks. Without such changes a network learns those by
    heart.

    Parameters
    ----------
    shift_days : int
        Largest shift of a series in time.
    gain : float
        Spread of the logarithm of each band's gain.
    left_out : float
        Share of the looks that are taken away; series that would keep fewer than eight stay whole.
    """

    shift_days: int = 20
    gain: float = 0.08
    left_out: float = 0.25


def augment(tokens: Tokens, augmentation: Augmentation, rng: np.random.Generator) -> Tokens:
    """Return series shifted in time by whole days, brightened or darkened band by band, without some of their looks.

    Parameters
    ----------
    tokens : Tokens
        Series as `models.tokens.SeriesTokeniser` makes them; extra channels stay as they are.
    augmentation : Augmentation
        How much.
    rng : Generator
        Of the draw.
    """
    count, bands = len(tokens), len(BANDS)
    most = augmentation.shift_days
    shift = torch.from_numpy(rng.integers(-most, most + 1, (count, 1, 1)).astype(np.float32))
    gain = torch.from_numpy(np.exp(rng.normal(0, augmentation.gain, (count, 1, bands))).astype(np.float32))
    values = tokens.values.clone()
    # x = 20 r - 1 of reflectance r
    values[..., :bands] = (values[..., :bands] + 1) * gain - 1
    changed = Tokens(values, tokens.position + shift, tokens.valid)
    return _leave_out(changed, augmentation.left_out, rng) if augmentation.left_out else changed


def _leave_out(tokens: Tokens, share: float, rng: np.random.Generator) -> Tokens:
    """Return series without a share of their valid looks; the others stand first, and know the next one's day."""
    kept = tokens.valid & torch.from_numpy(rng.random(tokens.valid.shape) >= share)
    kept = torch.where(kept.sum(dim=1, keepdim=True) >= _FEWEST, kept, tokens.valid)
    day = tokens.position[..., 0]
    return compact(Tokens(tokens.values, torch.stack([day, next_days(day, kept)], dim=-1), kept))


class ShuffledTokens:
    """Endless batches of a source, every sample once an epoch.

    An epoch is a random order of the shards; samples are shuffled inside windows of a few shards of that order. The batch
    at a position follows from seed and position alone, so training resumes anywhere; processes that ask for every n-th
    position share an epoch. The shards of a window, and those of the next that are read ahead, stay in memory.

    Parameters
    ----------
    source : TokenSource
        Where samples come from.
    count : int
        Samples of one batch.
    seed : int
        Of every order.
    window : int
        Shards among which samples are shuffled.
    augmentation : Augmentation, optional
        How samples change each time they are drawn.

    Raises
    ------
    ValueError
        Where the source has no sample.
    """

    def __init__(
        self,
        source: TokenSource,
        count: int,
        seed: int = 0,
        *,
        window: int = 4,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.source, self.count, self.seed, self.window = source, count, seed, window
        self.augmentation = augmentation
        self.sizes = np.array(source.sizes, dtype=np.int64)
        if not self.sizes.sum():
            raise ValueError("the source of tokens holds no sample")
        self._held = _HeldShards(source)
        self._epoch = lru_cache(maxsize=4)(self._epoch_of)
        self._order = lru_cache(maxsize=4)(self._order_of)

    def at(self, position: int) -> Tokens:
        """Return the batch at a position."""
        rows = self.rows(position)
        needed = list(dict.fromkeys(rows[:, 0].tolist()))
        self._held.keep([*needed, *self._coming(position + 1)])
        parts = []
        for shard in needed:
            held = self._held.get(shard)
            chosen = torch.from_numpy(rows[rows[:, 0] == shard, 1])
            parts.append(Tokens(held.values[chosen], held.position[chosen], held.valid[chosen]))
        batch = compact(pad(parts))
        if self.augmentation is None:
            return batch
        return augment(batch, self.augmentation, np.random.default_rng([self.seed, 3, position]))

    def tokens(self, batch: Tokens) -> int:
        """Return how many valid steps a batch holds."""
        return int(batch.valid.sum())

    def rows(self, position: int) -> np.ndarray:
        """Return what the batch at a position is made of: (sample, 2), shard and number in the shard."""
        total = int(self.sizes.sum())
        place, last = position * self.count, (position + 1) * self.count
        found = []
        while place < last:
            epoch, start = divmod(place, total)
            window, inside = self._window_of(epoch, start)
            order = self._order(epoch, window)
            taken = order[inside : inside + last - place]
            found.append(taken)
            place += len(taken)
        return np.concatenate(found)

    def _window_of(self, epoch: int, start: int) -> tuple[int, int]:
        """Return the window that holds a sample of an epoch, and its number there."""
        _, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, start, side="right"))
        return window, start - (int(ends[window - 1]) if window else 0)

    def _epoch_of(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the shards of each window of an epoch, and where the windows end."""
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(np.flatnonzero(self.sizes))
        windows = [order[start : start + self.window] for start in range(0, len(order), self.window)]
        return windows, np.cumsum([self.sizes[window].sum() for window in windows])

    def _order_of(self, epoch: int, window: int) -> np.ndarray:
        """Return the samples of a window in the order in which they are drawn: (sample, 2)."""
        shards = self._epoch(epoch)[0][window]
        sizes = self.sizes[shards]
        rows = np.stack([np.repeat(shards, sizes), np.concatenate([np.arange(size) for size in sizes])], axis=1)
        return np.random.default_rng([self.seed, 2, epoch, window]).permutation(rows)

    def _coming(self, position: int) -> list[int]:
        """Return the shards of a position's window, and those of the next one by one as this one is used up."""
        epoch, start = divmod(position * self.count, int(self.sizes.sum()))
        window, inside = self._window_of(epoch, start)
        windows, _ = self._epoch(epoch)
        own = windows[window]
        following = windows[window + 1] if window + 1 < len(windows) else self._epoch(epoch + 1)[0][0]
        ahead = following[: 1 + len(following) * inside // int(self.sizes[own].sum())]
        return [*own.tolist(), *ahead.tolist()]


class _HeldShards:
    """The shards that are in use, and those that one thread reads ahead."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._found: dict[int, Future[Tokens]] = {}
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tokens")

    def keep(self, shards: Sequence[int]) -> None:
        """Read these that are not there, in this order, and let go of all others."""
        with self._lock:
            self._found = {shard: self._asked(shard) for shard in dict.fromkeys(shards)}

    def get(self, shard: int) -> Tokens:
        """Return a shard, when it is read."""
        with self._lock:
            found = self._found.setdefault(shard, self._asked(shard))
        return found.result()

    def _asked(self, shard: int) -> Future[Tokens]:
        found = self._found.get(shard)
        if found is None or (found.done() and found.exception() is not None):
            return self._reader.submit(self._source.read, shard)
        return found


class Mixture:
    """Batches of several parts by turns.

    Any 64 positions in a row, from a multiple of 64 on, hold each part as often as its share says, rounded, in random
    order; each part is drawn from at its positions 0, 1, 2, ... without a gap. Which part a position draws from, and at
    which of its positions, follows from seed and position alone.

    Parameters
    ----------
    parts : sequence of Batches
        What to draw from.
    shares : sequence of float
        Of the batches; they need not add up to 1.
    seed : int
        Of the order.

    Raises
    ------
    ValueError
        Where parts and shares do not pair up, or no share is above 0.
    """

    def __init__(self, parts: Sequence[Batches], shares: Sequence[float], seed: int = 0) -> None:
        if len(parts) != len(shares) or not parts or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"{len(parts)} parts with shares {list(shares)}: wanted is a share of 0 or more for each")
        self.parts, self.seed = tuple(parts), seed
        left = [sum(shares[number:]) for number in range(len(shares))]
        # of what the parts before leave, in integers so that counts are exact at any position
        self._splits = [round(share / rest * _UNIT) if rest else 0 for share, rest in zip(shares, left, strict=True)]

    def at(self, position: int) -> Any:
        """Return the batch at a position."""
        part, inner = self.source_of(position)
        return self.parts[part].at(inner)

    def tokens(self, batch: Any) -> int:
        """Return how many tokens a batch holds."""
        return self.parts[0].tokens(batch)

    def source_of(self, position: int) -> tuple[int, int]:
        """Return which part a position draws from, and at which position of that part."""
        block, inside = divmod(position, _BLOCK)
        before, after = self._drawn(block), self._drawn(block + 1)
        counts = [end - start for start, end in zip(before, after, strict=True)]
        turns = np.random.default_rng([self.seed, 4, block]).permutation(np.repeat(np.arange(len(counts)), counts))
        part = int(turns[inside])
        return part, before[part] + int((turns[:inside] == part).sum())

    def _drawn(self, block: int) -> list[int]:
        """Return how many positions of each part come before a block."""
        left, drawn = block * _BLOCK, []
        for split in self._splits:
            # floor of a share of what is left: never falls from one block to the next
            drawn.append(left * split // _UNIT)
            left -= drawn[-1]
        return drawn
