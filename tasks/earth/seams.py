"""Seams of a map: whether it jumps more over the borders of the pieces it was made in than beside them.

A map is made region by region (256 pixels) from cubes that end at tile borders (1024 pixels). Where a model, a halo or a
mosaic treats two sides of a border differently, the map has a step there. Landscape has steps too, so a border is held
against lines beside it that mean nothing: over each line, jumps from pixel to pixel are averaged with their sign along
stretches of `STRETCH` pixels, which leaves a step and takes noise away, and the line's jump is the mean size of these.

The score is the ratio of the jump over borders to the jump over the lines beside them: 1 without a seam, ``1 + s / g``
for a step s on a slope of g per pixel. It is judged together with how far the difference stands out, in standard errors
of the lines nearby, so that one hedge that happens to run along a border does not hold a map back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from odc.geo.geobox import GeoBox

STRETCH = 16
NEARBY = (*range(-9, -1), *range(2, 10))
"""Lines that a border is compared with, in pixels from it: none of them is a border, nor the border's own neighbour."""

FLOOR = 1e-3
"""Jumps of probability far below this are rounding: it is added to both sides of the ratio."""

_PIECE = 256

Window = Callable[[slice, slice], np.ndarray]
"""Gives the values of some rows and columns, float, NaN where there is none."""


@dataclass(frozen=True)
class SeamScore:
    """How much more a map jumps over borders than beside them.

    Parameters
    ----------
    ratio : float
        Jump over borders to jump over lines nearby; 1 where there is no border with values on both sides.
    errors : float
        Difference of the two in standard errors; infinite where the lines nearby are all alike.
    pieces : int
        Pieces of border that were looked at, of up to 256 pixels.
    border_jump, nearby_jump : float
        Mean jump over either.
    """

    ratio: float
    errors: float
    pieces: int
    border_jump: float
    nearby_jump: float


def border_lines(grid: GeoBox, anchor: GeoBox, every: int, *, but: int = 0) -> tuple[list[int], list[int]]:
    """Return the rows and columns of a grid that begin a new piece.

    Parameters
    ----------
    grid : GeoBox
        Of the map.
    anchor : GeoBox
        A grid with the same pixels whose upper-left corner begins a piece.
    every : int
        Pixels of a piece.
    but : int
        Leave out lines that begin a piece of so many pixels too.

    Returns
    -------
    tuple of list of int
        Rows, columns: the border lies between the line and the one before it.
    """
    row = round((grid.affine.f - anchor.affine.f) / grid.affine.e)
    column = round((grid.affine.c - anchor.affine.c) / grid.affine.a)
    found = []
    for start, size in zip((row, column), grid.shape, strict=True):
        lines = (line for line in range(1, int(size)) if (start + line) % every == 0)
        found.append([line for line in lines if not but or (start + line) % but])
    return found[0], found[1]


def seam_score(window: Window, shape: tuple[int, int], rows: list[int], columns: list[int]) -> SeamScore:
    """Return the seam score of a map over some borders.

    Parameters
    ----------
    window : callable
        The map.
    shape : tuple of int
        Of the map, (y, x).
    rows, columns : list of int
        Borders, as `border_lines` returns them.
    """
    jumps = [found for piece in _pieces(window, shape, rows, columns) if (found := _jumps_across(piece)) is not None]
    if not jumps:
        return SeamScore(1.0, 0.0, 0, 0.0, 0.0)
    borders = np.array([border for border, _ in jumps])
    means = np.array([nearby.mean() for _, nearby in jumps])
    # a border is one more line among its neighbours: its own spread, and that of their mean
    variances = np.array([nearby.var(ddof=1) * (1 + 1 / nearby.size) for _, nearby in jumps])
    border, beside = float(borders.mean()), float(means.mean())
    error = math.sqrt(float(variances.sum())) / len(jumps)
    difference = border - beside
    errors = difference / error if error > 0 else math.copysign(math.inf, difference) if abs(difference) > 1e-9 else 0.0
    return SeamScore((border + FLOOR) / (beside + FLOOR), errors, len(jumps), border, beside)


def _pieces(window: Window, shape: tuple[int, int], rows: list[int], columns: list[int]) -> Iterator[np.ndarray]:
    """Yield values around each piece of border, turned so that the border lies between two columns, in the middle."""
    reach = max(NEARBY) + 1
    for column in columns:
        for start in range(0, shape[0], _PIECE):
            yield _framed(window, slice(start, min(start + _PIECE, shape[0])), column, shape[1], reach)
    for row in rows:
        for start in range(0, shape[1], _PIECE):
            along = slice(start, min(start + _PIECE, shape[1]))
            yield _framed(lambda a, b: window(b, a).T, along, row, shape[0], reach)


def _framed(window: Window, along: slice, line: int, size: int, reach: int) -> np.ndarray:
    """Return (along, 2 reach) values around a line, NaN beyond the map."""
    low, high = max(0, line - reach), min(size, line + reach)
    framed = np.full((along.stop - along.start, 2 * reach), np.nan, dtype=np.float32)
    framed[:, low - line + reach : high - line + reach] = window(along, slice(low, high))
    return framed


def _jumps_across(piece: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Return the jump over the middle of a piece, and those over the lines nearby; None where too little is known."""
    middle = piece.shape[1] // 2
    steps = np.diff(piece, axis=1)  # column i: from pixel i to i + 1; the border's is middle - 1
    length = len(steps) // STRETCH * STRETCH
    if not length:
        return None
    stretches = steps[:length].reshape(-1, STRETCH, steps.shape[1])
    known = np.isfinite(stretches).sum(axis=1) >= STRETCH // 2
    sums = np.nansum(stretches, axis=1)
    counts = np.maximum(np.isfinite(stretches).sum(axis=1), 1)
    size = np.where(known, np.abs(sums / counts), np.nan)
    lines = [middle - 1 + offset for offset in NEARBY]
    # only stretches that are known on every line are compared
    whole = known[:, [middle - 1, *lines]].all(axis=1)
    if not whole.any():
        return None
    means = size[whole].mean(axis=0)
    return float(means[middle - 1]), means[lines]
