"""Shards written whole are those that Zarr would have written."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from storage.shards import write_shard

WHOLE = (slice(0, 128), slice(0, 128))
SPECTRA = ((2, 3, 128, 128), (1, 3, 32, 32), "uint16")
MASK = ((2, 128, 128), (1, 32, 32), "uint8")


def make_array(layout: tuple[tuple[int, ...], tuple[int, ...], str], codec: BloscCodec | None = None) -> zarr.Array:
    shape, chunks, dtype = layout
    return zarr.create_array(
        MemoryStore(),
        shape=shape,
        chunks=chunks,
        shards=(1, *shape[1:]),
        dtype=dtype,
        fill_value=0,
        compressors=codec or BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=4096),
    )


def numbers(array: zarr.Array, window: tuple[slice, slice]) -> np.ndarray:
    size = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    return np.random.default_rng(1).integers(1, 200, (*array.shape[1:-2], *size)).astype(array.dtype)


@pytest.mark.parametrize("layout", [SPECTRA, MASK], ids=["spectra", "mask"])
@pytest.mark.parametrize(
    "window",
    [WHOLE, (slice(32, 96), slice(0, 32)), (slice(5, 70), slice(31, 128)), (slice(40, 41), slice(127, 128))],
    ids=["whole", "on chunk borders", "across chunks", "one pixel"],
)
def test_zarr_reads_what_was_written_and_zeros_around_it(layout, window: tuple[slice, slice]) -> None:
    array = make_array(layout)
    values = numbers(array, window)
    write_shard(array, 1, values, window)
    wanted = np.zeros(array.shape, array.dtype)
    wanted[(1, ..., *window)] = values
    np.testing.assert_array_equal(array[:], wanted)


@pytest.mark.parametrize(
    "codec",
    [
        BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=4096),
        BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"),
    ],
    ids=["bitshuffle", "shuffle", "lz4"],
)
@pytest.mark.parametrize("layout", [SPECTRA, MASK], ids=["spectra", "mask"])
def test_each_chunk_has_the_bytes_that_zarr_writes(layout, codec: BloscCodec) -> None:
    """The order of the chunks in a shard is free; what they hold is not."""
    window = (slice(32, 128), slice(0, 64))
    ours, theirs = make_array(layout, codec), make_array(layout, codec)
    values = numbers(ours, window)
    whole = np.zeros((1, *ours.shape[1:]), ours.dtype)
    whole[(0, ..., *window)] = values
    write_shard(ours, 0, values, window)
    theirs[0:1] = whole
    assert chunks_of(ours) == chunks_of(theirs)


def test_an_entry_of_zeros_takes_no_space_and_replaces_what_was_there() -> None:
    array = make_array(SPECTRA)
    write_shard(array, 0, numbers(array, WHOLE), WHOLE)
    write_shard(array, 0, np.zeros((3, 128, 128), np.uint16), WHOLE)
    assert not array[:].any()
    assert array.nchunks_initialized == 0


def test_zarr_may_go_on_writing_into_a_shard() -> None:
    array = make_array(SPECTRA)
    values = numbers(array, WHOLE)
    write_shard(array, 0, values, WHOLE)
    array[0:1, :, 32:64, 32:64] = 7
    values[:, 32:64, 32:64] = 7
    np.testing.assert_array_equal(array[0], values)


def chunks_of(array: zarr.Array) -> dict[int, bytes]:
    """Return the chunks of entry 0 by their place in the index."""
    (data,) = (value.to_bytes() for key, value in array.store._store_dict.items() if "c/0" in key)
    places = 16
    index = np.frombuffer(data[-(16 * places + 4) : -4], dtype="<u8").reshape(places, 2)
    found = {number: data[start : start + size] for number, (start, size) in enumerate(index) if start != 2**64 - 1}
    assert sum(len(chunk) for chunk in found.values()) == len(data) - 16 * places - 4
    return found
