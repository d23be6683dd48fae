"""Splits of a grid that keep neighbours together: blocks of pixels share their part, with a gap between parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from storage.classes import NO_CLASS
from tasks.errors import ConfigurationError

NO_FOLD = -1
PARTS = ("train", "validation", "test")
"""Names of the parts of `blocked_split`, in the order of their values."""


def blocked_folds(shape: tuple[int, int], *, block_size: int, folds: int, seed: int, gap: int = 0) -> np.ndarray:
    """Return a split in which pixels of one block share their fold, so that neighbours do not leak.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the whole grid; cut the result for a region.
    block_size : int
        Pixels on a side of a block; blocks count from the upper left.
    folds : int
        Number of folds; each gets the same number of blocks, give or take one.
    seed : int
        Of the draw.
    gap : int
        Pixels next to a block of another fold that belong to none.

    Returns
    -------
    ndarray, shape (y, x), int8
        0 to folds - 1; -1 in gaps.

    Raises
    ------
    ConfigurationError
        Where there are fewer blocks than folds.
    """
    rows, columns = (-(-size // block_size) for size in shape)
    if rows * columns < folds:
        raise ConfigurationError(
            f"{rows} x {columns} blocks of {block_size} pixels do not make {folds} folds: take smaller blocks"
        )
    of_block = np.arange(rows * columns) % folds
    np.random.default_rng(seed).shuffle(of_block)
    return _spread(of_block.reshape(rows, columns), shape, block_size, gap)


def blocked_split(
    shape: tuple[int, int],
    *,
    block_size: int,
    shares: Sequence[float] = (0.7, 0.15, 0.15),
    gap: int = 0,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Return train, validation and test tiles: blocks drawn so that each part gets its share, and some of every class.

    Blocks are given out from the rarest class to the most common, in an order drawn with `seed`; each goes to the part
    that lacks most of the class, relative to its share. So a class that lies in three blocks or more lies in every part,
    unless blocks that hold it as well were given out for a rarer one.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the whole grid; cut the result for a region.
    block_size : int
        Pixels on a side of a block; blocks count from the upper left.
    shares : sequence of float
        Of train, validation and test, in this order; they need not add up to 1.
    gap : int
        Pixels next to a block of another part that belong to none.
    seed : int
        Of the draw.
    labels : ndarray, shape (y, x), uint8, optional
        Class values of the whole grid, `NO_CLASS` where nothing is known; without them blocks count alike.

    Returns
    -------
    ndarray, shape (y, x), int8
        0 train, 1 validation, 2 test; -1 in gaps.

    Raises
    ------
    ConfigurationError
        Where a share is not above 0, or there are fewer blocks, or fewer blocks with labels, than parts.
    """
    if not all(share > 0 for share in shares):
        raise ConfigurationError(f"shares {', '.join(f'{share:g}' for share in shares)}: each has to be above 0")
    rows, columns = (-(-size // block_size) for size in shape)
    counts = np.ones((rows * columns, 1)) if labels is None else _class_counts(labels, block_size)
    usable = int((counts.sum(axis=1) > 0).sum())
    if usable < len(shares):
        raise ConfigurationError(
            f"{usable} of {rows} x {columns} blocks of {block_size} pixels hold labels, too few for {len(shares)} parts: "
            "take smaller blocks"
        )
    parts = _given_out(counts, np.asarray(shares, float) / sum(shares), np.random.default_rng(seed))
    return _spread(parts.reshape(rows, columns), shape, block_size, gap)


def is_mixed(labels: np.ndarray, margin: int, *, blank: int | None = None) -> np.ndarray:
    """Return where another value than a pixel's own lies within `margin` pixels; `blank` counts as any value."""
    if margin == 0:
        return np.zeros(labels.shape, bool)
    size = 2 * margin + 1
    if blank is None:
        return np.asarray(minimum_filter(labels, size, mode="nearest") != maximum_filter(labels, size, mode="nearest"))
    signed = labels.astype(np.int16)
    smallest = minimum_filter(np.where(signed == blank, np.int16(1000), signed), size, mode="nearest")
    largest = maximum_filter(np.where(signed == blank, np.int16(-1000), signed), size, mode="nearest")
    return np.asarray((smallest < largest) & (signed != blank))


def _spread(of_block: np.ndarray, shape: tuple[int, int], block_size: int, gap: int) -> np.ndarray:
    blocks = of_block.astype(np.int8)
    split = blocks.repeat(block_size, axis=0).repeat(block_size, axis=1)[: shape[0], : shape[1]]
    return np.where(is_mixed(split, gap), np.int8(NO_FOLD), split)


def _class_counts(labels: np.ndarray, block_size: int) -> np.ndarray:
    """Return pixels of each class in each block, (block, class)."""
    rows, columns = (-(-size // block_size) for size in labels.shape)
    block = (np.arange(labels.shape[0]) // block_size)[:, None] * columns + np.arange(labels.shape[1]) // block_size
    values = [value for value in np.unique(labels) if value != NO_CLASS]
    counts = [np.bincount(block[labels == value], minlength=rows * columns) for value in values]
    return np.stack(counts, axis=1) if counts else np.zeros((rows * columns, 1))


def _given_out(counts: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the part of each block; blocks without labels are shared out last."""
    order = random.permutation(len(counts))
    part = np.full(len(counts), NO_FOLD)
    target = shares[:, None] * counts.sum(axis=0)
    held = np.zeros_like(target)
    for of_class in np.argsort(counts.sum(axis=0), kind="stable"):
        for block in order[(counts[order, of_class] > 0) & (part[order] == NO_FOLD)]:
            # the larger part first where two lack as much
            part[block] = max(
                range(len(shares)), key=lambda k: (1 - held[k, of_class] / target[k, of_class], shares[k])
            )
            held[part[block]] += counts[block]
    rest = order[part[order] == NO_FOLD]
    bounds = np.round(np.cumsum(shares) * rest.size).astype(int)[:-1]
    for k, blocks in enumerate(np.split(rest, bounds)):
        part[blocks] = k
    return part
