"""Write a whole shard at once, as Zarr's `sharding_indexed` codec lays it out.

Zarr reads it like one that it wrote itself (a test holds them against each other). Its own writer takes twice the time
of the compression: every inner chunk goes through an event loop, and the parts of the tile that hold nothing are
filled, compared and left out again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

_MISSING = np.uint64(2**64 - 1)
_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def write_shard(array: zarr.Array, index: int, values: np.ndarray, window: tuple[slice, slice]) -> None:
    """Write entry `index` of an array whose shards are one entry of the first dimension.

    Parameters
    ----------
    array : zarr.Array, shape (time, ..., y, x)
        Fill value 0; shards (1, ..., y, x) of Blosc chunks that cut y and x only.
    index : int
        Position on the first dimension.
    values : ndarray, shape (..., rows, columns)
        Of the array's dtype.
    window : tuple of slice
        Rows and columns that the values cover; the rest of the entry is 0 and takes no space.
    """
    key = array.metadata.encode_chunk_key((index, *(0 for _ in array.shape[1:])))
    data = encode_shard(array, values.astype(array.dtype, copy=False), window)
    target = array.store_path / key
    if data is None:
        sync(target.delete())
    else:
        sync(target.set(default_buffer_prototype().buffer.from_bytes(data)))


def encode_shard(array: zarr.Array, values: np.ndarray, window: tuple[slice, slice]) -> bytes | None:
    """Return the bytes of a shard, chunks in row order and the index behind them; None where all is 0."""
    blosc, chunk = blosc_of(array), (array.chunks[-2], array.chunks[-1])

    def encode(place: tuple[int, int]) -> bytes | None:
        corner = (place[0] * chunk[0] - window[0].start, place[1] * chunk[1] - window[1].start)
        block = _block(values, corner, chunk)
        return bytes(blosc.encode(block)) if block.any() else None

    places = list(_chunks_under(window, chunk))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        encoded = {place: data for place, data in zip(places, pool.map(encode, places), strict=True) if data}
    assert array.shards is not None
    grid = tuple(whole // part for whole, part in zip(array.shards[-2:], chunk, strict=True))
    index = np.full((*grid, 2), _MISSING, dtype="<u8")
    position = 0
    for place, data in encoded.items():
        index[place] = position, len(data)
        position += len(data)
    listed = index.tobytes()
    checksum = np.array(google_crc32c.value(listed), dtype="<u4").tobytes()
    return b"".join([*encoded.values(), listed, checksum]) if encoded else None


def blosc_of(array: zarr.Array) -> Blosc:
    """Return the codec of an array that has Blosc and nothing else."""
    (codec,) = array.compressors
    assert isinstance(codec, BloscCodec)
    # the size of an element is stated, since Blosc shuffles by it
    return Blosc(codec.cname.value, codec.clevel, _SHUFFLES[codec.shuffle.value], codec.blocksize, codec.typesize)


def _chunks_under(window: tuple[slice, slice], chunk: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the rows and columns of the chunk grid that a window touches."""
    yield from product(
        *(range(axis.start // size, -(-axis.stop // size)) for axis, size in zip(window, chunk, strict=True))
    )


def _block(values: np.ndarray, corner: tuple[int, int], chunk: tuple[int, int]) -> np.ndarray:
    """Return one chunk, whose first pixel is `corner` of the values; 0 where it reaches beyond them."""
    source = tuple(slice(max(0, start), max(0, start + size)) for start, size in zip(corner, chunk, strict=True))
    part = values[..., source[0], source[1]]
    if part.shape[-2:] == chunk:
        return np.ascontiguousarray(part)
    block = np.zeros((*values.shape[:-2], *chunk), dtype=values.dtype)
    top, left = max(0, -corner[0]), max(0, -corner[1])
    block[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    return block
