"""From COGs to a cube: Canopus beside raw decoding and beside odc-stac's default `to_zarr`, in one run."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import xarray as xr
from factories import EARTH_SEARCH, Archive
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.archives import job_of, native_bytes, tile_corner, write_archive
from benchmarks.sidebyside import by_turns, ratio
from storage.cube import open_cube
from storage.location import resolve
from storage.schema import SENTINEL2_BANDS
from tasks.earth.ingest import TileJob, ingest_tile


@dataclass(frozen=True)
class Rivals:
    """Three ways through the same files."""

    archive: Archive
    size: int
    folder: Path

    @cached_property
    def items(self) -> list[pystac.Item]:
        paths = self.archive.folder.rglob("S2A*.json")
        return [pystac.Item.from_file(str(path)) for path in sorted(paths)]

    @cached_property
    def job(self) -> TileJob:
        return job_of(self.archive, self.size, self.folder / "warehouse")

    def decode(self) -> int:
        """Read every file whole, two at once, and keep nothing."""

        def read(path: Path) -> int:
            with rasterio.open(path) as file:
                return int(file.read(1).nbytes)

        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(read, sorted((self.archive.folder / "files").rglob("*.tif"))))

    def odc_stac(self) -> None:
        """Load and write as odc-stac's manual does, default codecs; warm."""
        shutil.rmtree(self.folder / "odc", ignore_errors=True)
        names = list(EARTH_SEARCH.values())
        geobox = tile_corner(self.size)
        loaded = odc.stac.load(self.items, bands=names, chunks={}, geobox=geobox, groupby="time")
        loaded.to_zarr(self.folder / "odc", consolidated=False)

    def canopus(self) -> None:
        """Ingest into a fresh cube: duplicates, offset test, scene table and a commit for each date included."""
        shutil.rmtree(self.folder / "warehouse", ignore_errors=True)
        assert {row.state for row in ingest_tile(self.job).rows} == {"ingested"}

    def assert_same_values(self) -> None:
        """Compare the cube with odc-stac's Zarr."""
        peer = xr.open_zarr(self.folder / "odc", consolidated=False)
        cube = open_cube(resolve(self.folder / "warehouse") / self.job.tile.path).isel(
            y=slice(0, self.size), x=slice(0, self.size)
        )
        assert cube.sizes["time"] == len(self.items)
        for index in range(len(self.items)):
            stored = np.round(cube["reflectance"][index].values * 1e4)
            wanted = np.stack([peer[EARTH_SEARCH[band]][index].values for band in SENTINEL2_BANDS]).astype(np.float32)
            wanted[wanted == 0] = np.nan
            np.testing.assert_array_equal(stored, wanted)
            np.testing.assert_array_equal(cube["scl"][index].values, peer["scl"][index].values)


@pytest.mark.filterwarnings("ignore")
def test_ingest(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    size, dates, rounds = (1024, 24, 7) if full_size else (256, 2, 1)
    rivals = Rivals(write_archive(tmp_path / "archive", size, dates), size, tmp_path / "out")
    contenders = {"decode": rivals.decode, "odc-stac": rivals.odc_stac, "canopus": rivals.canopus}
    seconds = by_turns(contenders, rounds)
    rivals.assert_same_values()
    benchmark.pedantic(rivals.canopus, rounds=1)
    megabytes = native_bytes(rivals.archive, dates) / 1e6
    print(f"\n{dates} dates of {size} x {size} x 10 bands + SCL, {megabytes:.0f} MB native")
    for name, found in seconds.items():
        print(f"{name:10s}{np.median(found):8.2f} s{megabytes / np.median(found):8.0f} MB/s")
    print(f"canopus is {ratio(seconds['odc-stac'], seconds['canopus']):.2f} times odc-stac")
    print(f"canopus is {ratio(seconds['decode'], seconds['canopus']):.2f} times raw decoding")
