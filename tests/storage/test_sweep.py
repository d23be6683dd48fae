"""Sweeping: the newest state and what products were made from stay, everything else that is old goes."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from sky_cases import assert_same_cutout, random_cutout

from storage.cube import DateEntry, create_cube, open_cube, read_state, write_cube
from storage.errors import NotFound
from storage.location import Location, resolve
from storage.repository import tag_snapshot
from storage.schema import CubeSchema
from storage.sky import SkyReader, append_cutouts
from storage.sweep import abandoned, cubes_of, limit_of, stores_of, sweep_cube

PATH = "earth/utm30n-10m/x0001_y0001"
GRID = GeoBox((256, 256), Affine(10, 0, 600_000, 0, -10, 5_700_000), "EPSG:32630")
DAYS = ("2021-05-01", "2021-05-06", "2021-05-11")
SOON = timedelta(minutes=1)


def entry(day: str, seed: int, *, index: int | None = None) -> DateEntry:
    values = np.random.default_rng(seed).integers(1, 6000, (1, 256, 256), dtype=np.uint16)
    records = ({"scene": f"S2A_{day}", "state": "used", "solar_day": day},)
    window = (slice(0, 256), slice(0, 256))
    return DateEntry(
        index, np.datetime64(f"{day}T10:30", "us"), window, values, np.full((256, 256), 4, "uint8"), records
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    """A cube of three dates, the second of which was rewritten."""
    root = resolve(tmp_path)
    create_cube(root / PATH, CubeSchema(GRID, ("B04",)))
    with write_cube(root / PATH) as writer:
        for seed, day in enumerate(DAYS):
            writer.write(entry(day, seed))
        writer.write(entry(DAYS[1], 9, index=1))
    return root


def snapshots(location: Location) -> set[str]:
    return {name.split("/")[-1] for name in location.list_names("snapshots")}


def test_a_product_keeps_the_state_that_it_read(warehouse: Location) -> None:
    location = warehouse / PATH
    with write_cube(location) as writer:
        read = writer.state.snapshot
        tag_snapshot(location, read, "canopy-20210511-0123456789ab")
        before = open_cube(location, read).load()
        writer.write(entry(DAYS[0], 7, index=0))
    newest = open_cube(location).load()
    swept = sweep_cube(warehouse, PATH, datetime.now(UTC) + SOON, delete=True)
    assert swept.kept == ("canopy-20210511-0123456789ab",)
    assert swept.states > 0
    assert swept.bytes > 0
    assert open_cube(location, read).load().equals(before)
    assert open_cube(location).load().equals(newest)


def test_a_swept_cube_takes_new_dates(warehouse: Location) -> None:
    sweep_cube(warehouse, PATH, datetime.now(UTC) + SOON, delete=True)
    with write_cube(warehouse / PATH) as writer:
        writer.write(entry("2021-05-16", 4))
    assert len(read_state(warehouse / PATH).times) == 4


def test_a_sky_store_is_swept_like_a_cube_and_keeps_every_object_in_force(warehouse: Location) -> None:
    store = warehouse / "sky/legacy"
    first = append_cutouts(store, [random_cutout("1", seed=1), random_cutout("2", seed=2)], batch="a")
    append_cutouts(store, [random_cutout("1", seed=3)], batch="b")
    tag_snapshot(store, SkyReader(store).snapshot, "profiles-20250101-0123456789ab")
    append_cutouts(store, [random_cutout("3", seed=4)], batch="c")
    assert list(stores_of(warehouse)) == [PATH, "sky/legacy"]
    swept = sweep_cube(warehouse, "sky/legacy", datetime.now(UTC) + SOON, delete=True)
    assert swept.kept == ("profiles-20250101-0123456789ab",)
    with pytest.raises(NotFound):
        SkyReader(store, first)
    for seed, object_id in ((3, "1"), (2, "2"), (4, "3")):
        assert_same_cutout(SkyReader(store).read(object_id), random_cutout(object_id, seed=seed))


def test_counting_deletes_nothing_and_counts_what_deleting_deletes(warehouse: Location) -> None:
    before = snapshots(warehouse / PATH)
    counted = sweep_cube(warehouse, PATH, datetime.now(UTC) + SOON, delete=False)
    assert snapshots(warehouse / PATH) == before
    deleted = sweep_cube(warehouse, PATH, datetime.now(UTC) + SOON, delete=True)
    assert deleted.states == counted.states == len(before) - len(snapshots(warehouse / PATH)) == 4


def test_what_is_younger_than_the_limit_stays(warehouse: Location) -> None:
    before = snapshots(warehouse / PATH)
    assert sweep_cube(warehouse, PATH, limit_of(days=1), delete=True).states == 0
    assert snapshots(warehouse / PATH) == before


def test_sweeping_where_there_is_no_cube_says_so(warehouse: Location) -> None:
    with pytest.raises(NotFound):
        sweep_cube(warehouse, "earth/utm30n-10m/x0002_y0001", datetime.now(UTC), delete=True)


def test_every_cube_is_found_and_locks_are_not_taken_for_one(warehouse: Location) -> None:
    assert list(cubes_of(warehouse)) == [PATH]


def test_old_staging_and_products_without_an_item_are_left_behind(tmp_path: Path) -> None:
    old = (datetime.now(UTC) - timedelta(days=9)).timestamp()
    names = ("staging/a/zarr.json", "staging/b/zarr.json", "products/canopy/c/class.tif", "products/canopy/d/class.tif")
    for name in (*names, "products/canopy/d/d.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        if name != "staging/b/zarr.json":
            os.utime(path, (old, old))
    assert set(abandoned(resolve(tmp_path), limit_of(days=7))) == {"staging/a", "products/canopy/c"}


def test_nothing_is_left_behind_in_an_empty_warehouse(tmp_path: Path) -> None:
    assert list(abandoned(resolve(tmp_path), limit_of(days=0))) == []
    assert list(cubes_of(resolve(tmp_path))) == []
