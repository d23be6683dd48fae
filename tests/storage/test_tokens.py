"""Token stores: what was written comes back bit for bit, and no reader gets half a shard, whoever was stopped when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storage.errors import NotFound, SchemaMismatch, TokensChanged
from storage.location import Location, resolve
from storage.tokens import (
    TokenAxis,
    TokenBlock,
    TokenChannel,
    TokenSchema,
    TokenStore,
    open_tokens,
    write_tokens,
)

SCHEMA = TokenSchema(
    steps=6,
    channels=(TokenChannel("B04", "1", 0.05, 0.05), TokenChannel("B08", "1", 0.05, 0.05)),
    axes=(TokenAxis("day", "days since 2000-01-01"), TokenAxis("target_day", "days since 2000-01-01")),
    place=("row", "column"),
    divisor=500.0,
    offset=-1.0,
    shard=8,
    least=2,
)
REQUEST = {"area": "here", "pixels": 20}


def samples(count: int, seed: int = 0, steps: int = 5) -> TokenBlock:
    """Return random samples of 0 to `steps` valid steps, some channels of them missing."""
    rng = np.random.default_rng(seed)
    valid = np.arange(steps) < rng.integers(0, steps + 1, (count, 1))
    stored = rng.integers(0, 65536, (count, steps, 2), dtype=np.uint16)
    stored[~valid] = 0
    position = np.sort(rng.integers(0, 10_000, (count, steps, 2)), axis=1).astype(np.float32)
    place = rng.integers(0, 1024, (count, 2), dtype=np.int32)
    return TokenBlock(SCHEMA.decode(stored), position, valid, place)


def assert_same(found: TokenBlock, expected: TokenBlock) -> None:
    """Compare bit for bit, up to padding that the store trims."""
    steps = max(int(expected.valid.sum(axis=1).max(initial=0)), 1)
    np.testing.assert_array_equal(found.values, expected.values[:, :steps])
    np.testing.assert_array_equal(found.position, expected.position[:, :steps])
    np.testing.assert_array_equal(found.valid, expected.valid[:, :steps])
    np.testing.assert_array_equal(found.place, expected.place)


def assert_holds(store: TokenStore, name: str, expected: TokenBlock) -> None:
    """Compare a group shard by shard."""
    shards = store.groups[name].shards
    assert sum(shard.samples for shard in shards) == len(expected)
    for number, shard in enumerate(shards):
        assert_same(store.read(shard), expected.rows(slice(8 * number, 8 * number + 8)))


@pytest.fixture
def place(tmp_path: Path) -> Location:
    return resolve(tmp_path) / "tokens" / "archive"


@given(arrays.arrays(np.uint16, st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 3))))
def test_stored_integers_and_values_are_each_others_inverse(stored: np.ndarray) -> None:
    values = SCHEMA.decode(stored)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(SCHEMA.encode(values), stored)


def test_every_integer_has_the_value_that_the_tokeniser_gives_it() -> None:
    stored = np.arange(65536, dtype=np.uint16)
    expected = stored.astype(np.float32) / np.float32(500) - np.float32(1)
    expected[0] = np.nan
    np.testing.assert_array_equal(SCHEMA.decode(stored), expected)


@pytest.mark.parametrize("value", [0.0005, 140.0, -1.5, np.inf])
def test_a_value_that_would_not_come_back_is_refused(value: float) -> None:
    with pytest.raises(SchemaMismatch, match="do not fit"):
        SCHEMA.encode(np.array([[[value]]], np.float32))


@pytest.mark.parametrize("count", [1, 8, 19])
def test_what_was_written_comes_back(place: Location, count: int) -> None:
    expected = samples(count)
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        group = writer.write("one", expected, {"snapshot": "a"})
    store = open_tokens(place)
    assert_holds(store, "one", expected)
    assert [shard.samples for shard in group.shards] == [min(8, count - start) for start in range(0, count, 8)]
    assert store.samples == count
    assert store.usable == int((expected.valid.sum(axis=1) >= 2).sum())
    assert (store.schema, store.request, store.groups["one"].state) == (SCHEMA, REQUEST, {"snapshot": "a"})


def test_float32_values_come_back_bit_for_bit(place: Location) -> None:
    schema = replace(SCHEMA, divisor=None, place=())
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1e3, (5, 6, 2)).astype(np.float32)
    values[0, 0] = np.nan, -0.0
    expected = TokenBlock(values, np.zeros((5, 6, 2), np.float32), np.ones((5, 6), bool), np.zeros((5, 0), np.int32))
    with write_tokens(place, schema, REQUEST) as writer:
        writer.write("one", expected, {})
    store = open_tokens(place)
    assert store.read(store.shards[0]).values.tobytes() == values.tobytes()


def test_any_zarr_reader_finds_physical_reflectance(place: Location) -> None:
    expected = samples(3)
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", expected, {})
    group = zarr.open_group(str(place), mode="r")
    stored, attributes = group["values"][:3], dict(group["values"].attrs)
    values = stored * attributes["scale_factor"] + attributes["add_offset"]
    channel = group.attrs["canopus:tokens"]["channels"][0]
    assert (channel["name"], channel["unit"]) == ("B04", "1")
    seen = expected.valid & ~np.isnan(expected.values[..., 0])
    np.testing.assert_allclose(
        (values[:, :5, 0] * channel["scale"] + channel["offset"])[seen], stored[:, :5, 0][seen] * 1e-4, rtol=1e-6
    )
    assert not group["valid"][3:].any()


def test_a_rewritten_group_takes_the_place_of_the_old_one(place: Location) -> None:
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(19), {"snapshot": "a"})
        writer.write("two", samples(9, seed=1), {})
        before = writer.store.version
        writer.write("one", samples(19, seed=2), {"snapshot": "b"})
    store = open_tokens(place)
    assert store.groups["one"].state == {"snapshot": "b"}
    assert_holds(store, "one", samples(19, seed=2))
    assert_holds(store, "two", samples(9, seed=1))
    assert store.version != before
    assert [shard.number for shard in store.shards] == [0, 1, 2, 3, 4]


def test_nothing_of_a_longer_predecessor_is_left_in_a_shard(place: Location) -> None:
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(8), {})
        writer.write("one", samples(3, seed=1), {})
    assert not zarr.open_group(str(place), mode="r")["valid"][3:].any()


def test_a_reader_of_the_old_group_is_told(place: Location) -> None:
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(8), {})
        writer.write("two", samples(8, seed=1), {})
        reader = open_tokens(place)
        writer.write("one", samples(8, seed=2), {})
    with pytest.raises(TokensChanged, match=r"shard 0 .* open the store again"):
        reader.read(reader.shards[0])
    assert_same(reader.read(reader.shards[1]), samples(8, seed=1))


def test_a_writer_stopped_within_a_group_leaves_the_others_and_the_next_one_completes_it(place: Location) -> None:
    bad = samples(19, seed=3)
    bad.values[12, 0, 0] = 0.0005  # in the second of three shards: it cannot be stored
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(9), {"snapshot": "a"})
        writer.write("two", samples(19, seed=1), {"snapshot": "a"})
        with pytest.raises(SchemaMismatch, match="do not fit"):
            writer.write("two", bad, {"snapshot": "b"})
    half = open_tokens(place)
    assert list(half.groups) == ["one"]
    assert_holds(half, "one", samples(9))
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("two", samples(19, seed=4), {"snapshot": "b"})
    whole = open_tokens(place)
    assert_holds(whole, "two", samples(19, seed=4))
    assert len(whole.shards) == 5
    assert max(shard.number for shard in whole.shards) == 4


def test_a_store_whose_making_was_stopped_is_made_again(place: Location) -> None:
    zarr.create_group(place.zarr_store())
    with pytest.raises(NotFound, match="yet"):
        open_tokens(place)
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(3), {})
    assert_holds(open_tokens(place), "one", samples(3))


@pytest.mark.parametrize("name", ["values", "valid"])
def test_a_damaged_shard_is_not_read_and_can_be_written_again(place: Location, name: str) -> None:
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(8), {})
    (path,) = [path for path in (Path(str(place)) / name / "c").rglob("*") if path.is_file()]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    store = open_tokens(place)
    with pytest.raises(TokensChanged, match="damaged"):
        store.read(store.shards[0])
    path.write_bytes(path.read_bytes()[:-9])
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(8, seed=1), {})
    assert_holds(open_tokens(place), "one", samples(8, seed=1))


def test_a_lost_shard_is_not_read_as_blank(place: Location) -> None:
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(8), {})
    for path in [path for path in (Path(str(place)) / "position" / "c").rglob("*") if path.is_file()]:
        path.unlink()
    store = open_tokens(place)
    with pytest.raises(TokensChanged):
        store.read(store.shards[0])


def test_equal_contents_have_one_version(tmp_path: Path) -> None:
    versions = []
    for name, state in (("a", "x"), ("b", "y")):
        with write_tokens(resolve(tmp_path) / name, SCHEMA, REQUEST) as writer:
            writer.write("one", samples(9), {"snapshot": state})
        versions.append(open_tokens(resolve(tmp_path) / name).version)
    assert versions[0] == versions[1]


def test_a_new_state_leaves_the_samples(place: Location) -> None:
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(9), {"snapshot": "a"})
        version = writer.store.version
        writer.note("one", {"snapshot": "b"})
    store = open_tokens(place)
    assert (store.groups["one"].state, store.version) == ({"snapshot": "b"}, version)


def test_another_structure_or_request_is_named(place: Location) -> None:
    with write_tokens(place, SCHEMA, REQUEST):
        pass
    with pytest.raises(SchemaMismatch, match=r"steps: stored 6, asked 7.*another name"):
        write_tokens(place, replace(SCHEMA, steps=7), REQUEST).__enter__()
    with pytest.raises(SchemaMismatch, match=r"area: stored 'here', asked 'there'; pixels: stored 20, asked 30"):
        write_tokens(place, SCHEMA, {"area": "there", "pixels": 30}).__enter__()


def test_samples_of_another_shape_are_refused(place: Location) -> None:
    block = samples(3)
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        with pytest.raises(SchemaMismatch, match="the store takes"):
            writer.write("one", replace(block, values=block.values[..., :1]), {})
        with pytest.raises(SchemaMismatch, match="the store takes"):
            writer.write("one", samples(3, steps=7), {})
    assert not open_tokens(place).groups


def test_what_is_no_token_store_is_said_to_be_none(place: Location, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no token store"):
        open_tokens(place)
    zarr.create_group(place.zarr_store(), attributes={"title": "something else"})
    with pytest.raises(SchemaMismatch, match="not a token store"):
        open_tokens(place)
    other = resolve(tmp_path) / "tokens" / "other"
    with write_tokens(other, SCHEMA, REQUEST):
        pass
    other.delete("position/zarr.json")
    with pytest.raises(SchemaMismatch, match="array position is missing"):
        open_tokens(other)


@pytest.mark.server
def test_an_object_store_keeps_tokens_alike(s3_warehouse: str) -> None:
    place = resolve(s3_warehouse) / "tokens" / "archive"
    with write_tokens(place, SCHEMA, REQUEST) as writer:
        writer.write("one", samples(19), {"snapshot": "a"})
        writer.write("one", samples(19, seed=1), {"snapshot": "b"})
    store = open_tokens(place)
    assert_holds(store, "one", samples(19, seed=1))
    assert store.groups["one"].state == {"snapshot": "b"}
