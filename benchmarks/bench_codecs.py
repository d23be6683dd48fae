"""Codecs on chunks of reflectance (10 bands x 256 x 256): size, and compression and decompression on one core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numcodecs import Blosc, Zstd
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.archives import COARSE, simulate_tiles
from storage.cube import BLOSC_BLOCK_BYTES
from storage.schema import SENTINEL2_BANDS

ROOT = Path(__file__).parent.parent
SHUFFLE, BITS = Blosc.SHUFFLE, Blosc.BITSHUFFLE
CODECS = {
    "zstd 1, bit shuffle, 128 KiB (chosen)": Blosc("zstd", 1, BITS, BLOSC_BLOCK_BYTES),
    "zstd 1, bit shuffle": Blosc("zstd", 1, BITS),
    "zstd 1, byte shuffle": Blosc("zstd", 1, SHUFFLE),
    "zstd 3, bit shuffle": Blosc("zstd", 3, BITS),
    "zstd 3, byte shuffle": Blosc("zstd", 3, SHUFFLE),
    "lz4 5, byte shuffle": Blosc("lz4", 5, SHUFFLE),
    "lz4 5, bit shuffle": Blosc("lz4", 5, BITS),
    "blosclz 5, byte shuffle": Blosc("blosclz", 5, SHUFFLE),
    "zstd 3, no shuffle (Zarr's default)": Zstd(3),
}


def generated_chunks(count: int) -> list[np.ndarray]:
    """Return chunks of the generated archive, the 20 m bands repeated onto 10 m."""
    chunks = [tile[: len(SENTINEL2_BANDS)].astype("uint16") for tile in simulate_tiles(256, count)]
    for chunk in chunks:
        for index, band in enumerate(SENTINEL2_BANDS):
            if band in COARSE:
                chunk[index] = chunk[index, ::2, ::2].repeat(2, 0).repeat(2, 1)
    return chunks


def real_chunks(count: int) -> list[np.ndarray]:
    """Return chunks laid together from dates of the real Romanian series; the bands it lacks are turns of its B8A, B11.

    A date has 100 x 70 pixels: 3 x 4 dates fill a chunk.
    """
    folder = Path(os.environ.get("CANOPUS_SHARED", ROOT.parent / "shared" / "data")) / "eo/s2_romania_forest"
    if not folder.is_dir():
        pytest.skip("the real series is not here; set CANOPUS_SHARED")
    fine, coarse = (xr.open_dataset(folder / name, mask_and_scale=False) for name in ("s2_10m.nc", "s2_20m.nc"))
    tens = [fine[band].values for band in ("B02", "B03", "B04", "B08")]
    narrow, infrared = (coarse[band].values.repeat(2, 1).repeat(2, 2) for band in ("B8A", "B11"))
    red = coarse["B04"].values.repeat(2, 1).repeat(2, 2)
    bands = [*tens[:3], red, narrow[::-1], narrow[:, ::-1], tens[3], narrow, infrared, infrared[::-1]]
    series = np.stack(bands, axis=1).astype("uint16")
    found = []
    for first in range(count):
        looks = [series[(12 * first + step) % len(series)] for step in range(12)]
        rows = [np.concatenate(looks[row : row + 4], axis=2) for row in (0, 4, 8)]
        found.append(np.ascontiguousarray(np.concatenate(rows, axis=1)[:, :256, :256]))
    return found


@pytest.mark.parametrize("chunks_of", [real_chunks, generated_chunks], ids=["real", "generated"])
def test_codecs(benchmark: BenchmarkFixture, full_size: bool, chunks_of: Callable[[int], list[np.ndarray]]) -> None:
    count, rounds = (8, 9) if full_size else (1, 1)
    chunks = chunks_of(count)
    megabytes = sum(chunk.nbytes for chunk in chunks) / 1e6
    best: dict[str, np.ndarray] = {name: np.full(2, np.inf) for name in CODECS}
    size = {}
    for _ in range(rounds):
        for name, codec in CODECS.items():
            begun = time.process_time()
            packed = [codec.encode(chunk) for chunk in chunks]
            between = time.process_time()
            unpacked = [codec.decode(data) for data in packed]
            best[name] = np.minimum(best[name], (between - begun, time.process_time() - between))
            size[name] = sum(map(len, packed)) / megabytes / 1e6
            for chunk, data in zip(chunks, unpacked, strict=True):
                assert bytes(data) == chunk.tobytes()
    benchmark.pedantic(next(iter(CODECS.values())).encode, args=(chunks[0],), rounds=3)
    print("\n| codec | size | write MB/s | read MB/s |\n| --- | --- | --- | --- |")
    for name, (write, read) in best.items():
        print(f"| {name} | {size[name]:.3f} | {megabytes / write:.0f} | {megabytes / read:.0f} |")
