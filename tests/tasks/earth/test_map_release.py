"""Updates run date by date are the backfill of the same time; a held-back map, a republished one, what a report says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import Archive
from ingest_cases import TILE, Look, add_look, area_of, days, grid, ingest, request_of
from map_cases import LOOSE, fill_map, with_model

from storage.classes import NO_CLASS
from storage.cube import read_state
from storage.location import resolve
from storage.publish import Receipt
from storage.sweep import STAGING
from tasks.earth.accuracy import NOT_ESTIMATED
from tasks.earth.assess import open_map
from tasks.earth.backfill import backfill_days, plan_backfill
from tasks.earth.canopy_map import MapRequest, prepare_map
from tasks.earth.gates import Checked, GateRules
from tasks.earth.map_release import check_prepared, classes_of, publish_checked
from tasks.earth.map_report import Report, write_report
from tasks.earth.regional import Prepared
from tasks.earth.verify import verify_product
from tasks.errors import ChecksFailed

SIZE = 64
PLACE = grid(size=SIZE)
AREA = area_of(PLACE, margin=40)
LOOKS = days(24, "2021-01-08", 15)
MONTHS = backfill_days("2021-01-31", "2021-12-31", "1M")
CLOUDY = (0, SIZE)


def look_name(day: str, version: int = 0) -> str:
    return f"S2A_30UXC_{day.replace('-', '')}_{version}_L2A"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Two looks a month for a year; those of November are all cloud."""
    archive = Archive(tmp_path_factory.mktemp("year") / "archive")
    for number, day in enumerate(LOOKS):
        cloudy = CLOUDY if day.startswith("2021-11") else (3 * (number % 7), 3 * (number % 7) + 20)
        add_look(archive, look_name(day), day, Look(number, geobox=PLACE, cloudy=cloudy))
    return archive


def bring_in(archive: Archive, warehouse: Path, start: str, end: str) -> dict[str, str]:
    return ingest(request_of(archive.catalog, warehouse, area=AREA, start=start, end=end)).states()


def asked(warehouse: Path, day: str) -> MapRequest:
    return MapRequest(str(warehouse), AREA, "floor", until=day)


def fill(warehouse: Path, day: str, rules: GateRules = LOOSE, **more: Any) -> tuple[Prepared, Checked]:
    """Map and check, as the flow does."""
    prepared, _ = fill_map(warehouse, AREA, day)
    return prepared, check_prepared(prepared, rules, **more)


def release(warehouse: Path, day: str, rules: GateRules = LOOSE) -> Receipt | None:
    """Map, check and publish, as the flow does; None where nothing was seen since the last map."""
    prepared, checked = fill(warehouse, day, rules)
    return None if checked.nothing_new else publish_checked(prepared, checked)


def files_of(receipt: Receipt | None) -> dict[str, str]:
    """Return the SHA-256 of every file of a product."""
    if receipt is None:
        return {}
    manifest = json.loads((Path(receipt.item_url).parent / "manifest.json").read_text())
    return {row["name"]: row["sha256"] for row in manifest["files"]}


@pytest.fixture(scope="module")
def updated(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Receipt | None]]:
    """A year of monthly updates: each brings in a month and maps what there is then."""
    warehouse = with_model(tmp_path_factory.mktemp("updated"))
    published = {}
    for month in MONTHS:
        bring_in(archive, warehouse, f"{month[:7]}-01", month)
        published[month] = release(warehouse, month)
    return warehouse, published


@pytest.mark.slow
def test_a_year_of_monthly_updates_equals_its_backfill_byte_for_byte(
    archive: Archive, updated: tuple[Path, dict[str, Receipt | None]], tmp_path: Path
) -> None:
    """Also where the cube holds the dates in another order, and later dates than a map may see."""
    _, by_update = updated
    warehouse = with_model(tmp_path / "backfilled")
    bring_in(archive, warehouse, "2021-07-01", "2021-12-31")
    bring_in(archive, warehouse, "2021-01-01", "2021-06-30")
    assert (np.diff(read_state(resolve(warehouse) / TILE).times.astype(int)) < 0).any()
    by_backfill = {month: release(warehouse, month) for month in MONTHS}
    for month in MONTHS:
        one, other = by_update[month], by_backfill[month]
        assert files_of(one) == files_of(other), month
        if one is not None and other is not None:
            assert one.key == other.key
            assert one.item["properties"]["canopus:checks"] == other.item["properties"]["canopus:checks"]
    assert [month for month, receipt in by_update.items() if receipt is None] == ["2021-11-30"]
    assert len({str(files_of(receipt)) for receipt in by_update.values()}) == 12


@pytest.mark.slow
def test_what_the_updates_published_is_passed_over_by_a_backfill(
    updated: tuple[Path, dict[str, Receipt | None]],
) -> None:
    warehouse, published = updated
    planned = plan_backfill(replace(asked(warehouse, MONTHS[0]), until=None), ("2020-12-31", *MONTHS))
    states = {day.day: day.state for day in planned}
    assert states.pop("2020-12-31") == "no look"
    assert states.pop("2021-11-30") == "missing"
    assert set(states.values()) == {"published"}
    assert planned[1].item == published[MONTHS[0]].item_url  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_month_of_cloud_is_nothing_new_and_publishes_only_by_hand(
    updated: tuple[Path, dict[str, Receipt | None]],
) -> None:
    warehouse, _ = updated
    prepared, checked = fill(warehouse, "2021-11-30")
    assert checked.nothing_new
    assert "0.0% of the area was seen clear since the map of 2021-10-31" in checked.failed[0].sentence
    with pytest.raises(ChecksFailed, match="--allow coverage"):
        publish_checked(prepared, checked)
    log = [json.loads(line) for line in prepared.run.location.read_bytes("log.jsonl").splitlines()]
    assert {line["name"]: line["passed"] for line in log}["coverage"] is False
    assert set(prepared.run.read_regions()["state"]) == {"held back"}


def test_what_was_held_back_is_published_later_without_mapping_again(archive: Archive, tmp_path: Path) -> None:
    warehouse = with_model(tmp_path / "warehouse")
    bring_in(archive, warehouse, "2021-01-01", "2021-03-31")
    strict = replace(LOOSE, max_age_days=1)
    prepared, checked = fill(warehouse, "2021-05-31", strict)
    with pytest.raises(
        ChecksFailed, match=r"not published: freshness: the newest clear look, of 2021-03-24, is 68 days"
    ):
        publish_checked(prepared, checked)
    assert not list((warehouse / "products").rglob("*.json"))
    again = prepare_map(asked(warehouse, "2021-05-31"))
    assert again.groups() == []
    receipt = publish_checked(again, check_prepared(again, replace(strict, allow=("freshness",))))
    assert verify_product(receipt.item_url).ok
    record = {check["name"]: check for check in receipt.item["properties"]["canopus:checks"]}
    assert record["freshness"]["allowed"]
    assert not (warehouse / STAGING).exists() or not list((warehouse / STAGING).rglob("zarr.json"))


def test_a_scene_of_a_newer_baseline_rewrites_its_date_and_publishes_another_version(tmp_path: Path) -> None:
    archive, warehouse = Archive(tmp_path / "archive"), with_model(tmp_path / "warehouse")
    for number, day in enumerate(LOOKS[:4]):
        add_look(archive, look_name(day), day, Look(number, geobox=PLACE, cloudy=(0, 9)))
    bring_in(archive, warehouse, "2021-01-01", "2021-12-31")
    first = release(warehouse, "2021-02-28")
    dates = len(read_state(resolve(warehouse) / TILE).times)
    add_look(
        archive, look_name(LOOKS[3], 1), LOOKS[3], Look(77, geobox=PLACE, cloudy=(0, 9), raised=1000), baseline="05.00",
        **{"earthsearch:boa_offset_applied": False},
    )  # fmt: skip
    states = bring_in(archive, warehouse, "2021-01-01", "2021-12-31")
    assert states[look_name(LOOKS[3], 1)] == "ingested"
    assert states[look_name(LOOKS[3])] == "superseded"
    assert len(read_state(resolve(warehouse) / TILE).times) == dates
    second = release(warehouse, "2021-02-28")
    assert first is not None
    assert second is not None
    assert second.key != first.key
    assert second.item["properties"]["end_datetime"] == first.item["properties"]["end_datetime"]
    assert look_name(LOOKS[3], 1) in [link.get("title") for link in second.item["links"]]
    for version in (first, second):
        assert verify_product(version.item_url).ok


def test_an_update_reads_and_writes_what_is_new(archive: Archive, tmp_path: Path) -> None:
    """One more month costs a month of the cube, whatever stands in it already."""
    warehouse = with_model(tmp_path / "warehouse")
    sizes, written = [], []
    for month in MONTHS[:6]:
        ingested = ingest(request_of(archive.catalog, warehouse, area=AREA, start="2021-01-01", end=month))
        written.append(sum(row.bytes for row in ingested.rows if row.state == "ingested"))
        files = (path for path in (warehouse / TILE / "chunks").rglob("*") if path.is_file())
        sizes.append(sum(path.stat().st_size for path in files))
    grown = np.diff([0, *sizes])
    assert len(set(written)) == 1
    assert grown.max() < 1.2 * grown.min()


def report_of(warehouse: Path, day: str, **more: Any) -> Report:
    prepared, checked = fill(warehouse, day, **more)
    receipt = publish_checked(prepared, checked)
    return write_report(prepared.run, receipt, checked, classes_of(prepared))


@pytest.mark.slow
def test_the_report_of_a_map_adds_up(updated: tuple[Path, dict[str, Receipt | None]]) -> None:
    warehouse, published = updated
    found = report_of(warehouse, "2021-06-30")
    june, may = published["2021-06-30"], published["2021-05-31"]
    assert june is not None
    assert may is not None
    assert found.data["last"]["item_id"] == may.key.item_id
    areas = june.item["properties"]["canopus:mapped_area_ha"]
    for row in found.data["classes"]:
        assert row["mapped_ha"] == pytest.approx(areas[row["name"]])
        assert row["last_ha"] + row["gained_ha"] - row["lost_ha"] == pytest.approx(row["mapped_ha"], abs=1e-6)
    assert sum(row["gained_ha"] - row["lost_ha"] for row in found.data["classes"]) == pytest.approx(0, abs=1e-6)
    assert "they are no estimate of change on the ground" in found.text
    assert NOT_ESTIMATED in found.text
    assert Path(found.change).stat().st_size > 10_000
    assert json.loads(Path(found.url).with_name("report.json").read_text()) == found.data
    first = report_of(warehouse, "2021-01-31")
    assert "No earlier map of this area" in first.text


@pytest.mark.slow
def test_the_report_estimates_areas_from_a_sample_and_names_it(
    updated: tuple[Path, dict[str, Receipt | None]], tmp_path: Path
) -> None:
    """A sample drawn from an earlier map: its strata stay, the classes are those of the map at hand."""
    import geopandas

    from tasks.earth.assess import sample_map

    warehouse, published = updated
    may = published["2021-05-31"]
    assert may is not None
    path = tmp_path / "sample.gpkg"
    sample_map(may.item_url, path, size=200, at_least=30, seed=3)
    points = geopandas.read_file(path)
    points["reference"] = points["map_class"]
    points.to_file(path)
    found = report_of(warehouse, "2021-05-31", sample=str(path))
    assert f"Estimated from the sample `{path}`: 200 labelled points" in found.text
    estimated = found.data["estimates"]["classes"]
    for name, hectares in may.item["properties"]["canopus:mapped_area_ha"].items():
        assert estimated[name]["area_hectares"]["value"] == pytest.approx(hectares, rel=1e-6)
    later = report_of(warehouse, "2021-06-30", sample=str(path)).data["estimates"]
    assert later["method"] == "stehman2014"
    assert later["overall_accuracy"]["value"] < 1


def test_a_part_of_the_area_without_cubes_is_no_data_and_counts_against_the_valid_share(
    archive: Archive, tmp_path: Path
) -> None:
    """The tile to the left was never ingested."""
    warehouse = with_model(tmp_path / "warehouse")
    edge = Archive(tmp_path / "edge")
    place = grid(column=0, size=SIZE)
    for number, day in enumerate(LOOKS[:4]):
        add_look(edge, look_name(day), day, Look(number, geobox=place, cloudy=(0, 0)))
    ingest(request_of(edge.catalog, warehouse, area=area_of(place)))
    wide = area_of(grid(column=-SIZE, size=2 * SIZE)[:SIZE])
    prepared, _ = fill_map(warehouse, wide)
    with pytest.raises(ChecksFailed, match=r"not published: valid: 50\.\d% of the area has a class"):
        publish_checked(prepared, check_prepared(prepared, replace(LOOSE, min_valid=0.6)))
    receipt = publish_checked(prepared, check_prepared(prepared, LOOSE))
    assert verify_product(receipt.item_url).ok
    with open_map(receipt.item_url) as found:
        columns = (found.values != NO_CLASS).any(axis=0)
        assert not columns[: SIZE - 6].any()
        assert columns[SIZE:].all()


@pytest.mark.slow
def test_an_area_that_misses_whole_regions_is_published(archive: Archive, tmp_path: Path) -> None:
    """A triangle leaves out regions of its own bounding box; they are nothing to wait for."""
    warehouse = with_model(tmp_path / "warehouse")
    place = grid(row=0, column=0, size=3 * 256)
    wide = Archive(tmp_path / "wide")
    add_look(wide, look_name("2021-05-01"), "2021-05-01", Look(1, geobox=place, cloudy=(0, 0)))
    ingest(request_of(wide.catalog, warehouse, area=area_of(place)))
    ring = area_of(place)["coordinates"][0]
    prepared, made = fill_map(warehouse, {"type": "Polygon", "coordinates": [[*ring[:3], ring[0]]]})
    assert made < 9
    checked = check_prepared(prepared, LOOSE)
    assert verify_product(publish_checked(prepared, checked).item_url).ok


@pytest.mark.slow
def test_regions_of_a_tile_without_a_new_look_are_taken_over_and_the_map_is_the_same(tmp_path: Path) -> None:
    """Three regions lie in the tile to the left, one in the tile to the right; only the right one is seen again."""
    archive, warehouse = Archive(tmp_path / "archive"), with_model(tmp_path / "warehouse")
    whole = grid(column=-768, size=1024)[:SIZE]
    for number, day in enumerate(LOOKS[:3]):
        add_look(archive, look_name(day), day, Look(number, geobox=whole, cloudy=(0, 0)))
    right = Look(9, geobox=grid(size=SIZE, column=0), cloudy=(0, 0))
    add_look(archive, look_name(LOOKS[5]), LOOKS[5], right)
    area = area_of(whole)

    def bring_in_up_to(day: str) -> None:
        ingest(request_of(archive.catalog, warehouse, area=area, end=day))

    bring_in_up_to(LOOKS[2])
    first, made = fill_map(warehouse, area, LOOKS[2])
    assert made == 4
    publish_checked(first, check_prepared(first, LOOSE))
    bring_in_up_to(LOOKS[5])
    second, made = fill_map(warehouse, area, LOOKS[5])
    assert made == 2
    quick = publish_checked(second, check_prepared(second, LOOSE))
    shutil.rmtree(Path(quick.item_url).parent)
    third, made = fill_map(warehouse, area, LOOKS[5], anew=True)
    assert made == 4
    slow = publish_checked(third, check_prepared(third, LOOSE))
    assert slow.key == quick.key
    checksums = [
        {name: asset.get("file:checksum") for name, asset in found.item["assets"].items()} for found in (quick, slow)
    ]
    assert checksums[0] == checksums[1]
