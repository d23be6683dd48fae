"""Random numbers that belong to one galaxy each: the same whatever batch it is drawn in, and on whatever device."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

# Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators": SplitMix64, as signed numbers
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
_UNIT = 2.0**-24


def draw_seeds(count: int, generator: torch.Generator) -> Tensor:
    """Return seeds of the next galaxies of a generator on the CPU, shape (count,), int64.

    They are taken one after another, so ten and then six are the same as sixteen.
    """
    drawn = [torch.randint(2**62, (1,), generator=generator) for _ in range(count)]
    return torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Draws:
    """Numbers of each galaxy by name, shape (galaxy, ...); one name gives the same numbers each time."""

    seeds: Tensor

    def __getitem__(self, rows: Tensor) -> Draws:
        """Return the draws of some galaxies."""
        return Draws(self.seeds[rows])

    def uniform(self, name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers between `low` and `high`, shape (galaxy, *shape), float32."""
        return low + (high - low) * _unit(self._bits(name, math.prod(shape)) >> 40).reshape(-1, *shape)

    def log_uniform(self, name: str, *shape: int, low: float, high: float) -> Tensor:
        """Return numbers whose logarithm is uniform."""
        return self.uniform(name, *shape, low=math.log(low), high=math.log(high)).exp()

    def normal(self, name: str, *shape: int) -> Tensor:
        """Return standard normal numbers (Box and Muller), shape (galaxy, *shape), float32."""
        count = math.prod(shape)
        bits = self._bits(name, (count + 1) // 2)
        radius = (-2 * _unit(bits >> 40).log()).sqrt()
        angle = 2 * math.pi * _unit(bits >> 16)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count].reshape(-1, *shape)

    def chance(self, name: str, *shape: int, share: float) -> Tensor:
        """Return what is true in a share of cases, shape (galaxy, *shape), bool."""
        return self.uniform(name, *shape) < share

    def among(self, name: str, values: Tensor) -> Tensor:
        """Return one of the values for each galaxy, all as likely."""
        return values[(self.uniform(name) * len(values)).long().clamp(max=len(values) - 1)]

    def quantile(self, name: str, quantiles: Tensor) -> Tensor:
        """Return numbers of a distribution that equally spaced quantiles describe, the first of them its least."""
        place = self.uniform(name) * (len(quantiles) - 1)
        below = place.long().clamp(max=len(quantiles) - 2)
        return torch.lerp(quantiles[below], quantiles[below + 1], place - below)

    def _bits(self, name: str, count: int) -> Tensor:
        stream = zlib.crc32(name.encode()) << 24
        index = torch.arange(1, count + 1, device=self.seeds.device) + stream
        return _mixed(_mixed(self.seeds)[:, None] + index * _STEP)


def _mixed(bits: Tensor) -> Tensor:
    # shifts of signed numbers drag the sign along: it is masked off
    bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * _FIRST
    bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * _SECOND
    return bits ^ ((bits >> 31) & 0x1FFFFFFFF)


def _unit(bits: Tensor) -> Tensor:
    """Return the lower 24 bits as numbers within (0, 1)."""
    return ((bits & 0xFFFFFF).float() + 0.5) * _UNIT
