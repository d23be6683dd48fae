"""Cut a grid into chunk-aligned regions."""

from __future__ import annotations

from collections.abc import Iterator

from storage.errors import RegionMisaligned

Region = dict[str, slice]
"""Dimension name to slice in pixels, e.g. ``{"y": slice(0, 256), "x": slice(256, 512)}``."""


def cut_regions(shape: tuple[int, int], size: int = 256) -> Iterator[Region]:
    """Yield the regions that cover a (y, x) grid once, row by row.

    Examples
    --------
    >>> [region["x"] for region in cut_regions((256, 300))]
    [slice(0, 256, None), slice(256, 300, None)]
    """
    rows, columns = shape
    for y in range(0, rows, size):
        for x in range(0, columns, size):
            yield {"y": slice(y, min(y + size, rows)), "x": slice(x, min(x + size, columns))}


def require_aligned(region: Region, shape: tuple[int, int], size: int) -> None:
    """Check that a region starts and ends on chunk borders, or at the grid's end.

    Raises
    ------
    RegionMisaligned
        Naming the dimension and the border that cuts a chunk.
    """
    for dimension, length in zip(("y", "x"), shape, strict=True):
        axis = region[dimension]
        if axis.start % size or (axis.stop % size and axis.stop != length):
            raise RegionMisaligned(f"{dimension} {axis.start}:{axis.stop} cuts a chunk of {size} pixels")


def region_key(region: Region) -> str:
    """Return a name for a region, such as ``y0256x0512``."""
    return f"y{region['y'].start:05d}x{region['x'].start:05d}"
