"""Archives to measure on: one tile's scenes as Sentinel-2 COGs, with the entropy of real reflectance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from factories import EARTH_SEARCH, Archive
from ingest_cases import area_of, days, grid, properties
from odc.geo.geobox import GeoBox
from shapely.geometry import shape

from storage.schema import SENTINEL2_BANDS
from tasks.earth.ingest import TileJob
from tasks.earth.request import IngestRequest, prepare_ingest
from tasks.earth.simulate.acquisitions import overpasses
from tasks.earth.simulate.config import SimulateConfig
from tasks.earth.simulate.scene import World, simulate_date, to_digital_numbers

COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12", "SCL")
"""Stored at 20 m, as Sentinel-2 is."""
SIZE = 256
"""Side of a generated landscape in pixels; larger tiles are laid together from several."""


def tile_corner(size: int) -> GeoBox:
    """Return a square of `size` pixels in the upper left of the tile."""
    return grid(0, 0, size)


def simulate_tiles(size: int, dates: int) -> list[np.ndarray]:
    """Return dates of a square of `size` pixels at 10 m: (11, y, x) uint16, the bands and SCL.

    Each is laid together from turned scenes of different overpasses, so that no two blocks are alike and the
    landscape is made in seconds.
    """
    side = size // SIZE
    found = []
    blocks = _blocks(min(dates * side * side, 48))
    for _ in range(dates):
        rows = [np.concatenate([next(blocks) for _ in range(side)], axis=2) for _ in range(side)]
        found.append(np.concatenate(rows, axis=1))
    return found


def _blocks(count: int) -> Iterator[np.ndarray]:
    config = SimulateConfig(size_km=SIZE / 100)
    world, made = World.make(config), []
    for when in overpasses(config)[:count]:
        date = simulate_date(world, when)
        made.append(np.concatenate([to_digital_numbers(date.reflectance, offset_dn=0), date.scl[None]]))
    for turn in itertools.cycle(((1, 1), (-1, 1), (1, -1), (-1, -1))):
        yield from (block[:, :: turn[0], :: turn[1]] for block in made)


def write_archive(folder: Path, size: int, dates: int, *, distinct: int | None = None) -> Archive:
    """Write an archive of `dates` scenes over a corner of the tile, `distinct` of them with files of their own.

    Bands at 10 m and 20 m as in Sentinel-2, one file each; blocks of 512, deflate and zstd by turns, predictor 2.
    """
    archive = Archive(folder)
    tiles = simulate_tiles(size, min(dates, distinct or dates))
    for number, day in enumerate(days(dates, start="2017-01-01")):
        files = folder / "files" / str(number % len(tiles))
        if number < len(tiles):
            _write_files(files, tiles[number], "deflate" if number % 2 else "zstd")
        assets = {EARTH_SEARCH[band]: {"href": str(files / f"{band}.tif")} for band in EARTH_SEARCH}
        footprint = shape(area_of(tile_corner(size), margin=0.0))
        name = f"S2A_30UXC_{day.replace('-', '')}_0_L2A"
        archive.add_item(name, f"{day}T10:56:21Z", assets, footprint, properties=properties(day))
    return archive


def _write_files(folder: Path, tile: np.ndarray, codec: str) -> None:
    folder.mkdir(parents=True)
    for name, values in zip((*SENTINEL2_BANDS, "SCL"), tile, strict=True):
        step = 2 if name in COARSE else 1
        pixels = values[::step, ::step].astype("uint8" if name == "SCL" else "uint16")
        geobox = grid(0, 0, tile.shape[-1], pixel=10.0 * step)
        profile = {
            "driver": "COG", "count": 1, "height": pixels.shape[0], "width": pixels.shape[1], "dtype": pixels.dtype,
            "crs": str(geobox.crs), "transform": geobox.affine, "nodata": 0, "compress": codec, "predictor": "YES",
            "blocksize": 512,
        }  # fmt: skip
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(pixels[None])


def job_of(archive: Archive, size: int, warehouse: Path, *, scenes: int | None = None) -> TileJob:
    """Return the job that ingests the first `scenes` of an archive, or all."""
    area = area_of(tile_corner(size))
    request = IngestRequest(str(archive.catalog), archive.collection, area, "2015-01-01", "2030-01-01", str(warehouse))
    (job,) = prepare_ingest(request).jobs
    return replace(job, scenes=tuple(sorted(job.scenes, key=lambda scene: scene.sensing_start))[:scenes])


def native_bytes(archive: Archive, dates: int) -> int:
    """Return the decoded bytes of the files of so many scenes."""
    total = 0
    for path in sorted((archive.folder / "files").rglob("*.tif")):
        with rasterio.open(path) as file:
            total += file.width * file.height * np.dtype(file.dtypes[0]).itemsize
    return total * dates // len(list((archive.folder / "files").iterdir()))
