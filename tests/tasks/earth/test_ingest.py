"""Ingest from end to end on small archives whose every pixel is known."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import Archive, write_cog
from ingest_cases import (
    BANDS,
    BLOCK,
    TILE,
    WHOLE,
    Look,
    add_look,
    area_of,
    assert_same_cube,
    days,
    grid,
    ingest,
    make_archive,
    properties,
    read_all,
    request_of,
)
from odc.geo.geobox import GeoBox

from storage.cube import open_cube, read_block, read_state
from storage.errors import SchemaMismatch
from storage.location import resolve
from storage.manifest import Run
from storage.schema import MaskRule
from tasks.earth.ingest import SceneRow, ingest_tile, plan_job
from tasks.earth.request import jobs_of_run, open_ingest_run, prepare_ingest, summarise

FIRST = "S2A_30UXC_20210501_0_L2A"


def item_of(day: str) -> str:
    return f"S2A_30UXC_{day.replace('-', '')}_0_L2A"


def snapshot_of(warehouse: Path, tile: str = TILE) -> str:
    return read_state(resolve(warehouse) / tile).snapshot


def states_in(warehouse: Path) -> dict[str, str]:
    """Return the state of each scene as the cube's table has it."""
    table = read_all(warehouse).scenes
    return dict(zip(table["scene"], table["state"], strict=True))


def plain(content: Any) -> Any:
    """Return what is left of content after a trip through JSON."""
    return json.loads(json.dumps(content))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return an archive of four dates that tests do not change."""
    return make_archive(tmp_path_factory.mktemp("known") / "archive", 4)


@pytest.fixture
def own(archive: Archive, tmp_path: Path) -> Archive:
    """Return a copy of the archive that a test may change."""
    shutil.copytree(archive.folder, tmp_path / "archive")
    return Archive(tmp_path / "archive", items=list(archive.items))


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return tmp_path / "warehouse"


def test_every_value_of_every_date_is_in_the_cube(archive: Archive, warehouse: Path) -> None:
    done = ingest(request_of(archive.catalog, warehouse))
    assert done.states() == dict.fromkeys(archive.items, "ingested")
    cube = read_all(warehouse, window=WHOLE)
    assert cube.days == days(4)
    for index in range(4):
        np.testing.assert_array_equal(cube.stored[index][:, BLOCK[0], BLOCK[1]], Look(index).reflectance)
        np.testing.assert_array_equal(cube.scl[index][BLOCK], Look(index).scl)
    outside = np.ones((1024, 1024), dtype=bool)
    outside[BLOCK] = False
    assert not cube.stored[:, :, outside].any()
    assert not cube.valid[:, outside].any()
    # 40 columns of cloud and two pixels around it; where nothing is hides no cloud
    assert not cube.valid[:, 256:512, 256 : 256 + 42].any()
    assert cube.valid[:, 256:512, 256 + 42 : 512].all()


def test_every_decision_is_in_the_scene_table(archive: Archive, warehouse: Path) -> None:
    ingest(request_of(archive.catalog, warehouse))
    row = read_all(warehouse).scenes.iloc[0]
    assert (row["scene"], row["state"], row["solar_day"], row["entry"]) == (FIRST, "used", "2021-05-01", 0)
    assert (row["offset_dn"], row["offset_source"], row["offset_pixels"]) == (0, "s2:processing_baseline", "agree")
    assert (row["mask"], row["window"]) == ("scl", [256, 512, 256, 512])
    assert row["covered_share"] == 0.0625
    assert row["clear_share"] == pytest.approx(0.0625 * 216 / 256, abs=1e-6)
    assert row["resampling"] == "B02 B04 B08 mask: 10 m copied"


def test_a_rerun_is_a_no_op(archive: Archive, warehouse: Path) -> None:
    request = request_of(archive.catalog, warehouse)
    ingest(request)
    before = snapshot_of(warehouse)
    again = ingest(request)
    assert set(again.states().values()) == {"skipped"}
    assert snapshot_of(warehouse) == before == again.reports[0].snapshot
    assert {plan.action for plan in plan_job(again.prepared.jobs[0])} == {"skip"}


def test_new_dates_are_added_and_the_old_ones_left_alone(archive: Archive, warehouse: Path) -> None:
    ingest(request_of(archive.catalog, warehouse, end=days(4)[1]))
    assert read_all(warehouse).days == days(2)
    done = ingest(request_of(archive.catalog, warehouse))
    assert list(done.states().values()) == ["skipped", "skipped", "ingested", "ingested"]
    assert read_all(warehouse).days == days(4)


def test_a_late_item_rewrites_its_own_date_only(own: Archive, warehouse: Path) -> None:
    ingest(request_of(own.catalog, warehouse))
    before = read_all(warehouse)
    late = Look(40, cloudy=(200, 256), raised=1000)
    add_look(own, "S2A_30UYC_20210506_0_L2A", "2021-05-06", late, tile="30UYC", baseline="05.00")
    done = ingest(request_of(own.catalog, warehouse))
    assert done.states() == {item_of(day): "skipped" for day in days(4)} | {
        item_of("2021-05-06"): "ingested",
        "S2A_30UYC_20210506_0_L2A": "ingested",
    }
    after = read_all(warehouse)
    for index in (0, 2, 3):
        np.testing.assert_array_equal(after.stored[index], before.stored[index])
    # clear in the late scene up to column 200, which has the newer baseline; right of it the first scene is clear
    np.testing.assert_array_equal(after.stored[1][:, :, :200], late.reflectance[:, :, :200])
    np.testing.assert_array_equal(after.stored[1][:, :, 200:], Look(1).reflectance[:, :, 200:])
    assert (after.scl[1] == 4).all()


def test_a_replaced_scene_is_redone(own: Archive, warehouse: Path) -> None:
    ingest(request_of(own.catalog, warehouse))
    before = read_all(warehouse)
    add_look(own, FIRST, "2021-05-01", Look(77), **{"s2:generation_time": "2023-01-01T00:00:00Z"})
    done = ingest(request_of(own.catalog, warehouse))
    assert done.states()[FIRST] == "ingested"
    after = read_all(warehouse)
    np.testing.assert_array_equal(after.stored[0], Look(77).reflectance)
    np.testing.assert_array_equal(after.stored[1:], before.stored[1:])
    assert after.days == before.days
    assert set(ingest(request_of(own.catalog, warehouse)).states().values()) == {"skipped"}


def add_reprocessed(archive: Archive, seed: int = 50) -> str:
    """Add the first scene again, at a newer baseline and with its offset."""
    look = Look(seed, raised=1000)
    add_look(archive, "S2A_30UXC_20210501_1_L2A", "2021-05-01", look, baseline="05.00")
    return "S2A_30UXC_20210501_1_L2A"


def test_a_superseded_scene_is_recorded_and_its_pixels_redone(own: Archive, warehouse: Path) -> None:
    ingest(request_of(own.catalog, warehouse))
    newer = add_reprocessed(own)
    done = ingest(request_of(own.catalog, warehouse))
    assert (done.states()[FIRST], done.states()[newer]) == ("superseded", "ingested")
    cube = read_all(warehouse)
    np.testing.assert_array_equal(cube.stored[0], Look(50).reflectance)
    row = cube.scenes.set_index("scene").loc[FIRST]
    assert (row["state"], row["superseded_by"]) == ("superseded", newer)
    before = snapshot_of(warehouse)
    ingest(request_of(own.catalog, warehouse))
    assert snapshot_of(warehouse) == before


def test_a_scene_that_the_catalogue_dropped_for_a_newer_one_is_superseded_once(own: Archive, warehouse: Path) -> None:
    ingest(request_of(own.catalog, warehouse))
    own.items.remove(FIRST)
    newer = add_reprocessed(own)
    ingest(request_of(own.catalog, warehouse))
    assert states_in(warehouse)[FIRST] == "superseded"
    np.testing.assert_array_equal(read_all(warehouse).stored[0], Look(50).reflectance)
    again = ingest(request_of(own.catalog, warehouse))
    assert again.states()[newer] == "skipped"


def test_an_old_version_that_comes_late_is_recorded_and_changes_no_pixel(own: Archive, warehouse: Path) -> None:
    newer = add_reprocessed(own)
    everything = list(own.items)
    own.items.remove(FIRST)
    own._write_index()
    ingest(request_of(own.catalog, warehouse))
    before = read_all(warehouse)
    own.items[:] = everything
    own._write_index()
    done = ingest(request_of(own.catalog, warehouse))
    assert (done.states()[FIRST], done.states()[newer]) == ("superseded", "skipped")
    np.testing.assert_array_equal(read_all(warehouse).stored, before.stored)
    assert states_in(warehouse)[FIRST] == "superseded"
    settled = snapshot_of(warehouse)
    ingest(request_of(own.catalog, warehouse))
    assert snapshot_of(warehouse) == settled


def test_both_halves_of_a_split_datatake_count(warehouse: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    upper, lower = Look(1, grid(256, 256, 256)[:128]), Look(2, grid(256, 256, 256)[128:])
    add_look(archive, "upper", "2021-05-01", upper, strip="T105620")
    add_look(archive, "lower", "2021-05-01", lower, strip="T105902")
    done = ingest(request_of(archive.catalog, warehouse))
    assert done.states() == {"upper": "ingested", "lower": "ingested"}
    cube = read_all(warehouse)
    assert cube.stored.shape[0] == 1
    np.testing.assert_array_equal(cube.stored[0], np.concatenate([upper.reflectance, lower.reflectance], axis=1))


def test_an_area_over_two_tiles_makes_two_cubes_that_meet(warehouse: Path, tmp_path: Path) -> None:
    wide = GeoBox((256, 512), grid(256, 768).affine, "EPSG:32630")
    look = Look(5, wide)
    archive = Archive(tmp_path / "archive")
    add_look(archive, FIRST, "2021-05-01", look)
    done = ingest(request_of(archive.catalog, warehouse, area=area_of(wide)))
    assert [report.tile for report in done.reports] == [TILE, "earth/utm30n-10m/x0061_y0556"]
    left = read_all(warehouse, window=(slice(256, 512), slice(768, 1024)))
    right = read_all(warehouse, "earth/utm30n-10m/x0061_y0556", window=(slice(256, 512), slice(0, 256)))
    np.testing.assert_array_equal(np.concatenate([left.stored[0], right.stored[0]], axis=2), look.reflectance)


def test_a_larger_area_recomputes_what_was_cut_to_the_smaller_one(warehouse: Path, tmp_path: Path) -> None:
    tall = GeoBox((512, 256), grid().affine, "EPSG:32630")
    archive = Archive(tmp_path / "archive")
    for index, day in enumerate(days(2)):
        add_look(archive, item_of(day), day, Look(index, tall))
    ingest(request_of(archive.catalog, warehouse))
    first = read_all(warehouse, window=WHOLE)
    assert not first.stored[:, :, 512:].any()
    done = ingest(request_of(archive.catalog, warehouse, area=area_of(tall)))
    assert set(done.states().values()) == {"ingested"}
    larger = read_all(warehouse, window=(slice(256, 768), slice(256, 512)))
    np.testing.assert_array_equal(larger.stored, [Look(index, tall).reflectance for index in range(2)])
    again = ingest(request_of(archive.catalog, warehouse))
    assert set(again.states().values()) == {"skipped"}


def test_a_scene_without_mask_is_stored_and_valid_only_where_allowed(warehouse: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    add_look(archive, FIRST, "2021-05-01", Look(1, masked=False))
    ingest(request_of(archive.catalog, warehouse))
    cube = read_all(warehouse)
    np.testing.assert_array_equal(cube.stored[0], Look(1).reflectance)
    assert not cube.valid.any()
    assert cube.scenes["mask"].tolist() == [None]
    location = resolve(warehouse) / TILE
    allowed = open_cube(location, allow_unmasked=True)["valid"].values[0]
    assert allowed[BLOCK].all()
    assert allowed.sum() == 256 * 256
    assert read_block(location, {"y": BLOCK[0], "x": BLOCK[1]}, allow_unmasked=True).valid.all()


def test_a_scene_without_pixels_here_is_noted_and_not_read_again(own: Archive, warehouse: Path) -> None:
    look = Look(9)
    blank = {band: (np.zeros_like(values), geobox) for band, (values, geobox) in look.files().items()}
    own.add("blank", "2021-06-01T10:56:21Z", blank, properties=properties("2021-06-01"))
    done = ingest(request_of(own.catalog, warehouse))
    assert (done.row("blank").state, done.row("blank").reason) == ("skipped", "no-data")
    cube = read_all(warehouse)
    assert cube.days == days(4)
    assert states_in(warehouse)["blank"] == "empty"
    (own.folder / own.collection / "blank" / "B02.tif").unlink()
    again = ingest(request_of(own.catalog, warehouse))
    assert set(again.states().values()) == {"skipped"}
    assert again.row("blank").reason == ""


def test_a_date_whose_scene_was_replaced_by_an_empty_one_keeps_its_place(own: Archive, warehouse: Path) -> None:
    ingest(request_of(own.catalog, warehouse))
    look = Look(0)
    blank = {band: (np.zeros_like(values), geobox) for band, (values, geobox) in look.files().items()}
    newer = properties("2021-05-01", **{"s2:generation_time": "2023-01-01T00:00:00Z"})
    own.add(FIRST, "2021-05-01T10:56:21Z", blank, properties=newer)
    ingest(request_of(own.catalog, warehouse))
    cube = read_all(warehouse)
    assert cube.days == days(4)
    assert not cube.stored[0].any()
    add_look(own, FIRST, "2021-05-01", Look(78), **{"s2:generation_time": "2024-01-01T00:00:00Z"})
    ingest(request_of(own.catalog, warehouse))
    cube = read_all(warehouse)
    assert cube.days == days(4)
    np.testing.assert_array_equal(cube.stored[0], Look(78).reflectance)


def break_missing(folder: Path) -> None:
    (folder / "B04.tif").unlink()


def break_truncated(folder: Path) -> None:
    path = folder / "B04.tif"
    path.write_bytes(path.read_bytes()[:2000])


def break_cut_in_half(folder: Path) -> None:
    path = folder / "B04.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_html(folder: Path) -> None:
    (folder / "B04.tif").write_text("<html>Sign in</html>")


def break_empty(folder: Path) -> None:
    (folder / "B04.tif").write_bytes(b"")


def break_crs(folder: Path) -> None:
    degrees = GeoBox.from_bbox((-1.4, 51.3, -1.2, 51.5), "EPSG:4326", shape=(256, 256))
    write_cog(folder / "B04.tif", Look(1).reflectance[1], degrees)


FAULTS = {
    "missing": (break_missing, "missing-asset", "does not exist"),
    "truncated": (break_truncated, "unreadable", "truncated or corrupt"),
    "cut in half": (break_cut_in_half, "unreadable", "truncated or corrupt"),
    "html": (break_html, "unreadable", "neither a TIFF"),
    "empty": (break_empty, "unreadable", "is empty"),
    "wrong CRS": (break_crs, "invalid-input", "not projected"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_a_row_with_a_reason_and_stops_no_other(own: Archive, warehouse: Path, fault: str) -> None:
    damage, reason, words = FAULTS[fault]
    damage(own.folder / own.collection / item_of("2021-05-06"))
    done = ingest(request_of(own.catalog, warehouse))
    row = done.row(item_of("2021-05-06"))
    assert (row.state, row.reason, row.day) == ("failed", reason, "2021-05-06")
    assert words in row.message
    assert "B04.tif" in row.message
    assert summarise(done.rows) == {"ingested": 3, "skipped": 0, "superseded": 0, "failed": 1}
    cube = read_all(warehouse)
    assert cube.days == [days(4)[0], *days(4)[2:]]
    np.testing.assert_array_equal(cube.stored[1], Look(2).reflectance)


def test_an_item_that_is_not_what_was_asked_for_is_a_row_too(own: Archive, warehouse: Path) -> None:
    add_look(own, "L8", "2021-06-01", Look(9), platform="landsat-8")
    files = {band: part for band, part in Look(9).files().items() if band != "B08"}
    own.add("no_nir", "2021-06-02T10:56:21Z", files, properties=properties("2021-06-02"))
    done = ingest(request_of(own.catalog, warehouse))
    assert (done.row("L8").state, done.row("L8").reason, done.row("L8").tile) == ("failed", "invalid-input", "")
    assert "landsat-8 is not Sentinel-2" in done.row("L8").message
    assert (done.row("no_nir").reason, done.row("no_nir").day) == ("missing-asset", "2021-06-02")
    assert sum(row.state == "ingested" for row in done.rows) == 4


def test_a_bad_scene_does_not_have_its_date_written_again_at_every_run(own: Archive, warehouse: Path) -> None:
    add_look(own, "S2A_30UYC_20210506_0_L2A", "2021-05-06", Look(40), tile="30UYC")
    break_truncated(own.folder / own.collection / "S2A_30UYC_20210506_0_L2A")
    first = ingest(request_of(own.catalog, warehouse))
    assert first.states()[item_of("2021-05-06")] == "ingested"
    before = snapshot_of(warehouse)
    again = ingest(request_of(own.catalog, warehouse))
    assert again.row("S2A_30UYC_20210506_0_L2A").state == "failed"
    assert again.row(item_of("2021-05-06")).state == "skipped"
    assert snapshot_of(warehouse) == before


def test_a_date_is_not_taken_back_where_one_of_its_scenes_cannot_be_read_again(own: Archive, warehouse: Path) -> None:
    ingest(request_of(own.catalog, warehouse))
    before = read_all(warehouse)
    break_truncated(own.folder / own.collection / FIRST)
    add_look(own, "S2A_30UYC_20210501_0_L2A", "2021-05-01", Look(40), tile="30UYC")
    done = ingest(request_of(own.catalog, warehouse))
    assert done.row(FIRST).state == "failed"
    assert done.row("S2A_30UYC_20210501_0_L2A").state == "failed"
    assert f"kept as it stands: {FIRST} cannot be read" in done.row("S2A_30UYC_20210501_0_L2A").message
    assert_same_cube(read_all(warehouse), before)


def test_a_date_is_not_taken_back_where_the_newer_version_cannot_be_read(own: Archive, warehouse: Path) -> None:
    """The old version's pixels stay until the new one's are there, though another scene of the date is well."""
    add_look(own, "S2A_30UYC_20210501_0_L2A", "2021-05-01", Look(40, grid()[128:]), tile="30UYC")
    ingest(request_of(own.catalog, warehouse))
    before = read_all(warehouse)
    newer = add_reprocessed(own)
    good = own.folder / own.collection / newer / "B04.tif"
    whole = good.read_bytes()
    break_truncated(good.parent)
    done = ingest(request_of(own.catalog, warehouse))
    assert done.row(newer).state == "failed"
    assert_same_cube(read_all(warehouse), before)
    good.write_bytes(whole)
    ingest(request_of(own.catalog, warehouse))
    # the newer version is clear right of column 40, and has the newest baseline
    np.testing.assert_array_equal(read_all(warehouse).stored[0][:, :, 40:], Look(50).reflectance[:, :, 40:])


def test_what_the_time_limit_cut_off_is_named_and_comes_next_time(archive: Archive, warehouse: Path) -> None:
    done = ingest(request_of(archive.catalog, warehouse, time_limit_s=0.0))
    assert {(row.state, row.reason) for row in done.rows} == {("failed", "time-limit")}
    assert "0 s were over" in done.rows[0].message
    assert read_all(warehouse).days == []
    assert set(ingest(request_of(archive.catalog, warehouse)).states().values()) == {"ingested"}


def close(run: Run, rows: list[SceneRow]) -> None:
    run.write_regions(rows)


def test_a_redrive_takes_up_what_failed_and_nothing_else(own: Archive, warehouse: Path, tmp_path: Path) -> None:
    folder = own.folder / own.collection / item_of("2021-05-06")
    whole = (folder / "B04.tif").read_bytes()
    break_truncated(folder)
    request = request_of(own.catalog, warehouse)
    prepared = prepare_ingest(request)
    run = open_ingest_run(request, prepared)
    close(run, [row for job in prepared.jobs for row in ingest_tile(job).rows])
    jobs, done = jobs_of_run(run)
    assert [scene.id for job in jobs for scene in job.scenes] == [item_of("2021-05-06")]
    assert summarise(done) == {"ingested": 3, "skipped": 0, "superseded": 0, "failed": 0}
    assert [row.state for job in jobs for row in ingest_tile(job).rows] == ["failed"]
    (folder / "B04.tif").write_bytes(whole)
    rows = [row for job in jobs for row in ingest_tile(job).rows]
    assert [(row.scene, row.state) for row in rows] == [(item_of("2021-05-06"), "ingested")]
    ingest(request_of(own.catalog, tmp_path / "undisturbed"))
    assert_same_cube(read_all(warehouse), read_all(tmp_path / "undisturbed"), but=["entry"])


def test_a_redrive_takes_up_items_that_were_mended_in_the_catalogue(own: Archive, warehouse: Path) -> None:
    lacking, broken = (own.folder / own.collection / name / f"{name}.json" for name in map(item_of, days(2)))
    whole = {path: path.read_text() for path in (lacking, broken)}
    item = json.loads(whole[lacking])
    del item["assets"]["red"]
    lacking.write_text(json.dumps(item))
    broken.write_text("{")
    request = request_of(own.catalog, warehouse)
    done = ingest(request)
    run = open_ingest_run(request, done.prepared)
    close(run, done.rows)
    assert summarise(done.rows)["failed"] == 2
    lacking.write_text(whole[lacking])
    jobs, settled = jobs_of_run(run)
    assert [scene.id for job in jobs for scene in job.scenes] == [lacking.stem]
    assert [row.scene for row in settled if row.state == "failed"] == [str(broken)]
    broken.write_text(whole[broken])
    jobs, settled = jobs_of_run(run)
    rows = [row for job in jobs for row in ingest_tile(job).rows]
    assert {row.scene: row.state for row in rows} == {lacking.stem: "ingested", broken.stem: "ingested"}
    close(run, [*settled, *rows])
    assert jobs_of_run(run)[0] == ()


def test_an_item_without_a_place_is_a_row_and_not_passed_over(own: Archive, warehouse: Path) -> None:
    path = own.folder / own.collection / item_of("2021-05-06") / f"{item_of('2021-05-06')}.json"
    item = json.loads(path.read_text())
    path.write_text(json.dumps({**item, "geometry": None, "bbox": None}))
    row = ingest(request_of(own.catalog, warehouse)).row(item_of("2021-05-06"))
    assert (row.state, row.reason) == ("failed", "invalid-input")
    assert "neither geometry nor bbox" in row.message


def test_a_redrive_of_a_run_that_was_killed_takes_up_everything(archive: Archive, warehouse: Path) -> None:
    request = request_of(archive.catalog, warehouse)
    run = open_ingest_run(request, prepare_ingest(request))
    jobs, done = jobs_of_run(run)
    assert done == ()
    expected = prepare_ingest(request).jobs
    assert [job.tile for job in jobs] == [job.tile for job in expected]
    for job, other in zip(jobs, expected, strict=True):
        assert plain([scene.to_json() for scene in job.scenes]) == plain([scene.to_json() for scene in other.scenes])


def test_a_redrive_of_a_newer_version_settles_the_older_one_too(own: Archive, warehouse: Path, tmp_path: Path) -> None:
    newer = add_reprocessed(own)
    folder = own.folder / own.collection / newer
    whole = (folder / "B04.tif").read_bytes()
    break_truncated(folder)
    request = request_of(own.catalog, warehouse)
    prepared = prepare_ingest(request)
    run = open_ingest_run(request, prepared)
    close(run, [row for job in prepared.jobs for row in ingest_tile(job).rows])
    (folder / "B04.tif").write_bytes(whole)
    for job in jobs_of_run(run)[0]:
        ingest_tile(job)
    ingest(request)
    ingest(request_of(own.catalog, tmp_path / "undisturbed"))
    assert_same_cube(read_all(warehouse), read_all(tmp_path / "undisturbed"), but=["entry"])


def test_another_mask_is_taken_with_its_own_clear_values(warehouse: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    look = Look(1)
    cloud = np.zeros(look.shape, dtype=np.uint8)
    cloud[:100] = 1
    files = {**look.files(), "CLD": (cloud + np.uint8(1), look.geobox)}
    archive.add(FIRST, "2021-05-01T10:56:21Z", files, properties=properties())
    ingest(request_of(archive.catalog, warehouse, mask=MaskRule("CLD", (1,), 3)))
    cube = read_all(warehouse)
    np.testing.assert_array_equal(cube.scl[0], cloud + 1)
    assert cube.valid[0, 103:].all()
    assert not cube.valid[0, :103].any()
    assert cube.scenes["mask"].tolist() == ["CLD"]
    with pytest.raises(SchemaMismatch, match=r"mask: stored .*CLD.* asked .*scl"):
        ingest(request_of(archive.catalog, warehouse))


def test_a_cube_of_twenty_metres_has_a_place_of_its_own(archive: Archive, warehouse: Path) -> None:
    ingest(request_of(archive.catalog, warehouse))
    done = ingest(request_of(archive.catalog, warehouse, resolution=20.0))
    tile = done.reports[0].tile
    assert tile == "earth/utm30n-20m/x0030_y0278"
    coarse = read_all(warehouse, tile, window=WHOLE)
    # the tile's corner is the 10 m one's, an even number of tiles up and left
    row, column = (np.array([256, 256]) // 2 + np.array(tile_offset(tile))).tolist()
    block = coarse.stored[0][:, row : row + 128, column : column + 128].astype(float)
    mean = Look(0).reflectance.reshape(3, 128, 2, 128, 2).astype(float).mean(axis=(2, 4))
    assert np.abs(block - mean).max() <= 0.5
    assert read_all(warehouse).days == days(4)


def tile_offset(tile: str) -> tuple[int, int]:
    """Return the row and column, in 20 m pixels, of the 10 m tile's corner in a 20 m tile."""
    column, row = (int(part[1:]) for part in tile.rsplit("/", 1)[1].split("_"))
    return round((row + 1) * 512 * 2 - 557 * 512), round(60 * 512 - column * 1024)


def test_other_bands_are_refused_and_the_cube_stays(archive: Archive, warehouse: Path) -> None:
    ingest(request_of(archive.catalog, warehouse))
    before = snapshot_of(warehouse)
    with pytest.raises(SchemaMismatch, match="bands: stored"):
        ingest(request_of(archive.catalog, warehouse, bands=("B02",)))
    assert snapshot_of(warehouse) == before


def test_an_empty_catalogue_writes_nothing(warehouse: Path, tmp_path: Path) -> None:
    done = ingest(request_of(Archive(tmp_path / "archive").catalog, warehouse))
    assert (done.rows, done.prepared.newest) == ([], "")
    assert not (warehouse / "earth").exists()


def test_progress_is_told_date_by_date(archive: Archive, warehouse: Path) -> None:
    (job,) = prepare_ingest(request_of(archive.catalog, warehouse)).jobs
    seen: list[tuple[str, int, int]] = []
    ingest_tile(job, lambda *step: seen.append(step))
    assert seen == [(TILE, count, 4) for count in range(1, 5)]


@pytest.fixture(scope="module")
def tangled(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return an archive in which order could matter: overlaps, versions, halves, no mask, an empty scene."""
    archive = Archive(tmp_path_factory.mktemp("tangled") / "archive")
    add_look(archive, "a_old", "2021-05-01", Look(1))
    add_look(archive, "b_new", "2021-05-01", Look(2, raised=1000, cloudy=(100, 256)), baseline="05.00")
    add_look(archive, "c_next", "2021-05-01", Look(3, grid(300, 200), cloudy=(0, 150)), tile="30UYC")
    add_look(archive, "d_strip", "2021-05-01", Look(4, cloudy=(0, 256)), strip="T105902")
    add_look(archive, "e_other_day", "2021-05-06", Look(5, masked=False))
    add_look(archive, "f_newer", "2021-05-06", Look(6), **{"s2:generation_time": "2022-01-01T00:00:00Z"})
    add_look(archive, "g_far", "2021-05-06", Look(7, grid(512, 512)), tile="30UYD")
    add_look(archive, "h_earlier", "2021-04-06", Look(8))
    return archive


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_arrival_gives_the_same_cube(tangled: Archive, tmp_path: Path, seed: int) -> None:
    request = request_of(tangled.catalog, tmp_path / "at once", area=area_of(grid(256, 256, 300)))
    count = len(prepare_ingest(request).jobs[0].scenes)
    assert count == 8
    ingest(request)
    rng = random.Random(seed)
    order = rng.sample(range(count), count)
    cuts = sorted(rng.sample(range(1, count), 3))
    pieces = replace(request, warehouse=str(tmp_path / "in pieces"))
    for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
        ingest(pieces, scenes=order[start:stop])
    window = (slice(256, 768), slice(256, 768))
    one, other = read_all(tmp_path / "at once", window=window), read_all(tmp_path / "in pieces", window=window)
    # a date's place in the store is its place in order of arrival: the one thing that may differ
    assert_same_cube(one, other, but=["entry"])


def test_the_request_goes_through_the_manifest_unchanged(archive: Archive, warehouse: Path) -> None:
    request = request_of(archive.catalog, warehouse, mask=MaskRule("CLD", (1,), 3), allowed_hosts=("host",))
    content: dict[str, Any] = plain(request.to_json())
    assert plain(type(request).from_json(content).to_json()) == content
    assert replace(type(request).from_json(content), area=request.area) == request
    assert isinstance(pd.Timestamp(prepare_ingest(request_of(archive.catalog, warehouse)).newest), pd.Timestamp)
    assert request.bands == BANDS
