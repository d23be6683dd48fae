"""A denoiser of one size made one of any: overlapping tiles, whose estimates are joined at every step.

Tiles share all pixels that they both hold, known and unknown ones: at each step every tile estimates the clean image, and
where tiles overlap the estimates are averaged, the middle of a tile counting most (MultiDiffusion, Bar-Tal et al. 2023,
arXiv 2302.08113). There is therefore one image at every step, and no seam.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.samplers import Denoiser

AT_ONCE = 64
"""Tiles of one call of the denoiser."""
_LEAST_WEIGHT = 1e-3


def tile_starts(length: int, side: int) -> tuple[int, ...]:
    """Return where tiles begin along one axis: one in the middle, others half a tile apart, all inside.

    Raises
    ------
    ValueError
        Where the axis is shorter than a tile.

    Examples
    --------
    >>> tile_starts(64, 64), tile_starts(100, 64), tile_starts(200, 64)
    ((0,), (0, 18, 36), (0, 4, 36, 68, 100, 132, 136))
    """
    if length < side:
        raise ValueError(f"{length} pixels hold no tile of {side}")
    middle, last, half = (length - side) // 2, length - side, max(side // 2, 1)
    reach = -(-(last - middle) // half)
    return tuple(sorted({min(max(middle + half * step, 0), last) for step in range(-reach, reach + 1)}))


def tiled(denoiser: Denoiser, *, side: int, wanted: NDArray[np.bool_]) -> Denoiser:
    """Return a denoiser of images of any size, from one of `side` x `side` pixels.

    Parameters
    ----------
    denoiser : callable
        Of images of `side` pixels a side.
    side : int
        Of a tile.
    wanted : ndarray, shape (y, x)
        Where an estimate is wanted: only tiles that hold some of these pixels are worked on, and what none of them covers
        comes out as it went in.
    """
    rows, columns = wanted.shape
    places = [
        (top, left)
        for top in tile_starts(rows, side)
        for left in tile_starts(columns, side)
        if wanted[top : top + side, left : left + side].any()
    ]
    ramp = torch.sin(torch.pi * (torch.arange(side) + 0.5) / side) ** 2
    window = (ramp[:, None] * ramp[None, :]).clamp(min=_LEAST_WEIGHT)

    def denoise(noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        tiles = [noisy[..., top : top + side, left : left + side] for top, left in places]
        if not tiles:
            return noisy
        found = _in_parts(denoiser, torch.cat(tiles), sigma.repeat(len(tiles)), _repeated(condition, len(tiles)))
        shares = window.to(noisy)
        total, weight = torch.zeros_like(noisy), noisy.new_zeros(noisy.shape[-2:])
        for (top, left), tile in zip(places, found.chunk(len(tiles)), strict=True):
            total[..., top : top + side, left : left + side] += shares * tile
            weight[top : top + side, left : left + side] += shares
        return torch.where(weight > 0, total / weight.clamp(min=_LEAST_WEIGHT), noisy)

    return denoise


def _in_parts(denoiser: Denoiser, tiles: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
    """Return estimates of many tiles, so many at once."""
    found = [
        denoiser(
            tiles[start : start + AT_ONCE],
            sigma[start : start + AT_ONCE],
            None if condition is None else condition[start : start + AT_ONCE],
        )
        for start in range(0, len(tiles), AT_ONCE)
    ]
    return torch.cat(found)


def _repeated(condition: Tensor | None, times: int) -> Tensor | None:
    return None if condition is None else condition.repeat(times, 1)
