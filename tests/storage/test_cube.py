"""One way in and out of a cube: dates appear whole, old states open, one writer at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  the accessor
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.cube import (
    DateEntry,
    create_cube,
    open_cube,
    read_block,
    read_scenes,
    read_state,
    write_cube,
)
from storage.errors import NotFound, SchemaMismatch, TileBusy
from storage.location import Location, resolve
from storage.repository import tag_snapshot
from storage.schema import CubeSchema, MaskRule

BANDS = ("B02", "B04", "B08")
GRID = GeoBox((512, 512), Affine(10, 0, 600_000, 0, -10, 5_700_000), "EPSG:32630")
SCHEMA = CubeSchema(GRID, BANDS)
WHOLE = (slice(0, 512), slice(0, 512))


def entry(
    day: str, seed: int, *, index: int | None = None, window: tuple[slice, slice] = WHOLE, scene: str = ""
) -> DateEntry:
    """Return a date of random reflectance under a sky that is cloudy on the left."""
    rng = np.random.default_rng(seed)
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    scl = np.full(shape, 4, dtype=np.uint8)
    scl[:, :10] = 9
    records = ({"scene": scene or f"S2A_{day}", "state": "used", "solar_day": day},)
    return DateEntry(
        index,
        np.datetime64(f"{day}T10:30:00", "us"),
        window,
        rng.integers(1, 6000, (len(BANDS), *shape), dtype=np.uint16),
        scl,
        records,
    )


@pytest.fixture
def cube(tmp_path: Path) -> Location:
    location = resolve(tmp_path) / "earth/utm30n-10m/x0001_y0001"
    create_cube(location, SCHEMA)
    return location


def test_what_is_written_opens_as_physical_reflectance(cube: Location) -> None:
    date = entry("2021-05-01", 1)
    with write_cube(cube) as writer:
        writer.write(date)
    opened = open_cube(cube)
    assert opened["reflectance"].dims == ("time", "band", "y", "x")
    assert opened["reflectance"].dtype == np.float32
    np.testing.assert_array_equal(np.round(opened["reflectance"].values[0] * 1e4).astype(np.uint16), date.reflectance)
    assert opened["band"].values.tolist() == list(BANDS)
    assert opened["time"].values[0] == np.datetime64("2021-05-01T10:30:00")


def test_valid_is_clear_and_away_from_cloud(cube: Location) -> None:
    with write_cube(cube) as writer:
        writer.write(entry("2021-05-01", 1))
    valid = open_cube(cube)["valid"].values[0]
    assert not valid[:, :12].any()
    assert valid[:, 12:].all()


def test_no_data_is_nan_and_not_valid(cube: Location) -> None:
    with write_cube(cube) as writer:
        writer.write(entry("2021-05-01", 1, window=(slice(256, 512), slice(0, 256))))
    opened = open_cube(cube).isel(time=0)
    assert np.isnan(opened["reflectance"].values[:, :256]).all()
    assert not opened["valid"].values[:256].any()
    assert np.isfinite(opened["reflectance"].values[:, 256:, :256]).all()


def test_dates_come_sorted_whatever_the_order_of_arrival(cube: Location) -> None:
    days = ["2021-06-01", "2021-05-01", "2021-07-01"]
    with write_cube(cube) as writer:
        for seed, day in enumerate(days):
            writer.write(entry(day, seed))
    opened = open_cube(cube)
    assert [str(time)[:10] for time in opened["time"].values] == sorted(days)
    np.testing.assert_array_equal(
        np.round(opened["reflectance"].values[0] * 1e4).astype(np.uint16), entry("2021-05-01", 1).reflectance
    )


def test_a_block_is_the_same_as_the_opened_cube(cube: Location) -> None:
    with write_cube(cube) as writer:
        for seed, day in enumerate(["2021-06-01", "2021-05-01"]):
            writer.write(entry(day, seed))
    region = {"y": slice(256, 512), "x": slice(0, 256)}
    block = read_block(cube, region)
    opened = open_cube(cube).isel(region)
    np.testing.assert_array_equal(block.valid, opened["valid"].values)
    np.testing.assert_array_equal(block.reflectance * np.float32(1e-4), opened["reflectance"].values)
    assert read_block(cube, region, until=np.datetime64("2021-05-31")).times.shape == (1,)


def test_the_mask_grows_across_the_borders_of_a_block(cube: Location) -> None:
    date = entry("2021-05-01", 1)
    date.scl[:] = 4
    date.scl[300, 255] = 9
    with write_cube(cube) as writer:
        writer.write(date)
    valid = read_block(cube, {"y": slice(256, 512), "x": slice(256, 512)}).valid[0]
    assert not valid[42:47, :2].any()
    assert valid.sum() == 256 * 256 - 5 * 2


def test_a_rewritten_date_keeps_its_place_and_the_old_state_opens(cube: Location) -> None:
    with write_cube(cube) as writer:
        before = writer.write(entry("2021-05-01", 1))
        writer.write(entry("2021-06-01", 2))
        writer.write(entry("2021-05-01", 9, index=0))
    assert open_cube(cube).sizes["time"] == 2
    new = np.round(open_cube(cube)["reflectance"].values[0] * 1e4).astype(np.uint16)
    old = np.round(open_cube(cube, before)["reflectance"].values[0] * 1e4).astype(np.uint16)
    np.testing.assert_array_equal(new, entry("2021-05-01", 9).reflectance)
    np.testing.assert_array_equal(old, entry("2021-05-01", 1).reflectance)


def test_the_last_row_of_a_scene_is_in_force(cube: Location) -> None:
    with write_cube(cube) as writer:
        writer.write(entry("2021-05-01", 1, scene="a"))
        writer.write(entry("2021-05-01", 2, scene="a", index=0))
        writer.write(entry("2021-06-01", 3, scene="b"))
    table = read_scenes(cube)
    assert table["scene"].tolist() == ["a", "b"]
    assert table["entry"].tolist() == [0, 1]
    assert len(read_state(cube).records) == 3


def test_a_note_adds_rows_and_no_date(cube: Location) -> None:
    with write_cube(cube) as writer:
        writer.note([{"scene": "far", "state": "empty"}])
    assert open_cube(cube).sizes["time"] == 0
    assert read_scenes(cube)["scene"].tolist() == ["far"]


def test_attributes_are_cf_and_geozarr_and_rioxarray_reads_the_grid(cube: Location) -> None:
    with write_cube(cube) as writer:
        writer.write(entry("2021-05-01", 1))
    opened = open_cube(cube)
    assert opened.rio.crs.to_epsg() == 32630
    assert opened.rio.transform() == GRID.affine
    assert opened["reflectance"].attrs["standard_name"] == "surface_bidirectional_reflectance"
    assert opened["x"].attrs["standard_name"] == "projection_x_coordinate"
    assert opened.attrs["proj:code"] == "EPSG:32630"
    assert list(opened.attrs["spatial:transform"])[:3] == [10.0, 0.0, 600_000.0]


def test_a_shard_is_one_date_of_the_tile_and_appending_rewrites_none(cube: Location, tmp_path: Path) -> None:
    def chunk_files() -> dict[str, int]:
        folder = tmp_path / "earth/utm30n-10m/x0001_y0001/chunks"
        return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    with write_cube(cube) as writer:
        writer.write(entry("2021-05-01", 1))
        first = chunk_files()
        writer.write(entry("2021-06-01", 2))
    assert first.items() <= chunk_files().items()
    state_array = open_cube(cube, chunks={})["reflectance"]
    assert state_array.sizes["time"] == 2


def test_another_structure_is_refused_with_every_difference(cube: Location) -> None:
    other = CubeSchema(GRID, ("B02", "B03"), MaskRule("scl", (4, 5)))
    with pytest.raises(SchemaMismatch, match=r"bands: stored .*B08.*mask: stored"):
        create_cube(cube, other)


def test_nothing_there_is_said_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="x0001_y0009"):
        open_cube(tmp_path / "earth/utm30n-10m/x0001_y0009")


def test_an_unknown_snapshot_is_said(cube: Location) -> None:
    with pytest.raises(NotFound, match="no cube with snapshot"):
        open_cube(cube, "VVVVVVVVVVVVVVVVVVV0")


def test_a_tagged_snapshot_is_tagged_once(cube: Location) -> None:
    state = read_state(cube)
    tag_snapshot(cube, state.snapshot, "canopy-2021")
    tag_snapshot(cube, state.snapshot, "canopy-2021")
    assert read_state(cube).snapshot == state.snapshot


def _hold(path: str, ready: multiprocessing.synchronize.Event, go: multiprocessing.synchronize.Event) -> None:
    with write_cube(resolve(path)):
        ready.set()
        go.wait(60)


@pytest.fixture
def held(cube: Location) -> Iterator[tuple[Location, multiprocessing.synchronize.Event]]:
    context = multiprocessing.get_context("spawn")
    ready, go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(cube), ready, go))
    process.start()
    assert ready.wait(60)
    yield cube, go
    go.set()
    process.join(30)


def test_a_second_writer_of_a_folder_is_refused_while_the_first_holds_it(
    held: tuple[Location, multiprocessing.synchronize.Event],
) -> None:
    cube, go = held
    with pytest.raises(TileBusy, match="another process"), write_cube(cube, wait_s=0.2):
        pass
    go.set()
    with write_cube(cube, wait_s=30) as writer:
        writer.write(entry("2021-05-01", 1))
    assert open_cube(cube).sizes["time"] == 1


@pytest.mark.server
def test_on_s3_the_writer_that_comes_second_is_told(s3_warehouse: str) -> None:
    cube = resolve(s3_warehouse) / "earth/utm30n-10m/x0001_y0001"
    create_cube(cube, SCHEMA)
    with write_cube(cube) as first, write_cube(cube) as second:
        first.write(entry("2021-05-01", 1))
        with pytest.raises(TileBusy, match="not in"):
            second.write(entry("2021-06-01", 2))
    assert [str(time)[:10] for time in open_cube(cube)["time"].values] == ["2021-05-01"]


def test_a_cube_is_plain_zarr_to_others(cube: Location, tmp_path: Path) -> None:
    import icechunk

    with write_cube(cube) as writer:
        writer.write(entry("2021-05-01", 1))
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(cube)))
    group = zarr.open_group(repository.readonly_session("main").store, mode="r")
    assert group["reflectance"].shards == (1, 3, 512, 512)
    assert group["reflectance"].chunks == (1, 3, 256, 256)
