"""Chunks written and read past Zarr's own machinery are what Zarr writes and reads."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from storage.chunks import read_chunks, write_chunks


def array_of(dtype: str, *, rows: int = 5) -> zarr.Array:
    codec = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=4096)
    group = zarr.create_group(zarr.storage.MemoryStore())
    return group.create_array(
        "values", shape=(rows, 2, 30, 30), chunks=(1, 2, 30, 30), dtype=dtype, compressors=codec, fill_value=0
    )


def values_of(dtype: str) -> np.ndarray:
    drawn = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 1000, (1, 2, 30, 30))
    return drawn.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "bool", "int32", "uint16"])
def test_each_side_reads_what_the_other_wrote(dtype: str) -> None:
    array, values = array_of(dtype), values_of(dtype)
    write_chunks(array, [((3, 0, 0, 0), values)])
    np.testing.assert_array_equal(array[3:4], values)
    array[1:2] = values
    found = read_chunks([(array, (row, 0, 0, 0)) for row in (1, 3)])
    assert [one.dtype for one in found] == [array.dtype] * 2
    for one in found:
        np.testing.assert_array_equal(one, values)


def test_what_is_zero_is_not_stored_and_reads_as_zero() -> None:
    array = array_of("float32")
    write_chunks(array, [((0, 0, 0, 0), np.zeros((1, 2, 30, 30), dtype=np.float32))])
    assert array.nchunks_initialized == 0
    (found,) = read_chunks([(array, (0, 0, 0, 0))])
    assert not found.any()
    assert found.shape == array.chunks


def test_minus_zero_stays_what_it_is() -> None:
    array = array_of("float32")
    write_chunks(array, [((0, 0, 0, 0), np.full((1, 2, 30, 30), -0.0, dtype=np.float32))])
    (found,) = read_chunks([(array, (0, 0, 0, 0))])
    assert np.signbit(found).all()


def test_chunks_of_several_arrays_come_in_order() -> None:
    one, other = array_of("float32"), array_of("int32")
    write_chunks(other, [((row, 0, 0, 0), np.full((1, 2, 30, 30), row, dtype=np.int32)) for row in range(5)])
    found = read_chunks([(other, (4, 0, 0, 0)), (one, (2, 0, 0, 0)), (other, (1, 0, 0, 0))])
    assert [float(values.mean()) for values in found] == [4.0, 0.0, 1.0]
