"""The feed of a token store, beside the same arrays as raw memory maps and beside a naive reader of single samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.sidebyside import by_turns, ratio
from models.data import ShuffledTokens
from models.tokens import Tokens, compact
from storage.location import resolve
from storage.tokens import TokenBlock, TokenStore, write_tokens
from tasks.earth.series import SeriesRules
from tasks.earth.tokens import LEAST_LOOKS, StoredTokens, schema_of

ROOT = Path(__file__).parent.parent
ARRAYS = ("values", "position", "valid")
WINDOW = 2
SINGLE = 8


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small gathers on several threads measure how long threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def real_series(steps: int) -> TokenBlock:
    """Return the real Romanian series, the bands it lacks filled with turned pixels of those it has."""
    import xarray as xr

    folder = Path(os.environ.get("CANOPUS_SHARED", ROOT.parent / "shared" / "data")) / "eo/s2_romania_forest"
    if not folder.is_dir():
        pytest.skip("the real series is not here; set CANOPUS_SHARED")
    cube = xr.open_dataset(folder / "s2_10m.nc", mask_and_scale=False)
    clear = np.isin(cube["SCL"].values, (4, 5, 6)).reshape(cube.sizes["time"], -1).T
    held = [cube[band].values.reshape(clear.shape[1], -1).T.astype(np.uint16) for band in ("B02", "B03", "B04", "B08")]
    stored = np.stack([np.roll(held[number % 4], 37 * number, axis=0) for number in range(10)], axis=-1)
    order = np.argsort(~clear, axis=1, kind="stable")[:, :steps]
    valid = np.take_along_axis(clear, order, axis=1)
    chosen = np.where(valid[..., None], np.take_along_axis(stored, order[..., None], axis=1), np.uint16(0))
    day = (cube["time"].values.astype("datetime64[D]") - np.datetime64("2000-01-01")).astype(np.float32)[order]
    values = np.where(chosen == 0, np.float32(np.nan), chosen.astype(np.float32) / np.float32(500) - 1)
    place = np.stack(np.divmod(np.arange(len(valid)), 70), axis=1).astype(np.int32)
    whole = TokenBlock(values, np.stack([day, day], axis=-1), valid, place)
    return whole.rows(valid.sum(axis=1) >= LEAST_LOOKS)


def pack(folder: Path, shards: int, size: int, steps: int) -> TokenStore:
    """Return a store of so many shards of real series, each with pixels in an order of its own."""
    series, rng = real_series(steps), np.random.default_rng(0)
    schema = schema_of(SeriesRules(steps), shard=size)
    with write_tokens(resolve(folder) / "tokens" / "bench", schema, {}) as writer:
        for number in range(shards):
            writer.write(str(number), series.rows(rng.permutation(len(series))[:size]), {})
        return writer.store


@dataclass
class Mapped:
    """The same rows from raw arrays on disk: what no reader of a file beats."""

    store: TokenStore
    folder: Path
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        group = zarr.open_group(str(self.store.location), mode="r")
        for name in ARRAYS:
            np.save(self.folder / f"{name}.npy", group[name][:])
            self.arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def batch(self, rows: np.ndarray) -> Tokens:
        """Return the batch that these shards and numbers make."""
        place = rows[:, 0] * self.store.schema.shard + rows[:, 1]
        values = torch.from_numpy(self.store.schema.decode(self.arrays["values"][place]))
        return compact(Tokens(values, *(torch.from_numpy(self.arrays[name][place]) for name in ("position", "valid"))))


def one_by_one(store: TokenStore, rows: np.ndarray) -> Tokens:
    """Return a batch as someone without shards in mind reads it: sample by sample, with Zarr's own pipeline."""
    group = zarr.open_group(str(store.location), mode="r")
    arrays = [group[name] for name in ARRAYS]
    place = (rows[:, 0] * store.schema.shard + rows[:, 1]).tolist()
    found = [np.stack([array[number] for number in place]) for array in arrays]
    return compact(Tokens(*(torch.from_numpy(part) for part in (store.schema.decode(found[0]), *found[1:]))))


def test_feed(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    shards, size, count, rounds = (6, 4096, 256, 3) if full_size else (2, 64, 32, 1)
    store = pack(tmp_path, shards, size, 106 if full_size else 40)
    mapped = Mapped(store, tmp_path)
    source = StoredTokens(store)
    sizes = np.array(source.sizes)
    assert (sizes == size).all(), "rows of the raw arrays are those of the source only where every sample is usable"
    batches = ShuffledTokens(source, count, window=WINDOW)
    positions = range(sizes.sum() // count)
    rows = [batches.rows(position) for position in positions]
    rows = [found[np.argsort(_first_seen(found[:, 0]), kind="stable")] for found in rows]
    _assert_same(batches.at(0), mapped.batch(rows[0]))
    few = rows[0][:SINGLE]
    _assert_same(mapped.batch(few), one_by_one(store, few))

    def feed() -> None:
        fresh = ShuffledTokens(source, count, window=WINDOW)
        for position in positions:
            fresh.at(position)

    rivals: dict[str, Callable[[], object]] = {
        "feed": feed,
        "memory maps": lambda: [mapped.batch(found) for found in rows],
        "one by one": lambda: one_by_one(store, few),
    }
    found = by_turns(rivals, rounds)
    benchmark.pedantic(batches.at, args=(1,), rounds=1)
    samples = {"feed": len(rows) * count, "memory maps": len(rows) * count, "one by one": SINGLE}
    each = sum(array[0].nbytes for array in mapped.arrays.values())
    held = sum(path.stat().st_size for path in Path(str(store.location)).rglob("*") if path.is_file())
    print(
        f"\n{len(rows) * count} samples of {store.schema.steps} steps, {each / 1e3:.1f} kB raw each; stored {held / 1e6:.0f} MB"
    )
    print("| reader | samples/s | MB/s |\n| --- | --- | --- |")
    for name, seconds in found.items():
        pace = samples[name] / np.median(seconds)
        print(f"| {name} | {pace:,.0f} | {pace * each / 1e6:,.0f} |")
    print(f"the feed gives {ratio(found['memory maps'], found['feed']):.0%} of what memory maps give")


def _first_seen(shards: np.ndarray) -> np.ndarray:
    """Return for each sample when its shard was first named: the order in which a batch holds its samples."""
    names, first = np.unique(shards, return_index=True)
    return first[np.searchsorted(names, shards)]


def _assert_same(one: Tokens, other: Tokens) -> None:
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(one.valid, other.valid)
    assert torch.equal(one.position[one.valid], other.position[other.valid])
