"""Flows under a real Prefect server: the whole chain, its artifacts, the recurring update, failures that do not stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows.backfill import backfill_canopy_map
from flows.config import BackfillConfig, ForecastConfig, PipelineConfig, UpdateConfig, make_config
from flows.forecast import forecast_area
from flows.infer import map_canopy
from flows.ingest import ingest_earth, redrive_ingest
from flows.pipeline import archive_to_map, update_canopy_map
from storage.cube import open_cube, read_scenes
from storage.location import resolve
from storage.manifest import find_run
from tasks.earth.simulate import SimulateConfig
from tasks.earth.simulate.whole import make_archive
from tasks.earth.verify import verify_product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated archive."""
    folder = tmp_path_factory.mktemp("generated") / "archive"
    make_archive(folder, SimulateConfig(seed=5, size_km=2.0, years=1.0))
    return folder


def settings(archive: Path, warehouse: Path, **ingest: Any) -> dict[str, Any]:
    area = str(archive / "area.geojson")
    return {
        "ingest": {
            "catalog": str(archive / "catalog.json"),
            "aoi": area,
            "start": "2021-01-01",
            "end": "2022-12-31",
            "warehouse": str(warehouse),
            **ingest,
        },
        "train": {
            "warehouse": str(warehouse),
            "aoi": area,
            "labels": {"path": str(archive / "truth" / "class.tif"), "outside": "none", "margin": 0},
            "trees": 20,
        },
        "map": {"warehouse": str(warehouse), "aoi": area},
    }


def artifact_types() -> dict[str, str]:
    with get_client(sync_client=True) as client:
        found: list[Artifact] = client.read_artifacts()
    return {str(artifact.key): str(artifact.type) for artifact in found if artifact.key}


@pytest.fixture(scope="module")
def published(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The main job, run once."""
    warehouse = tmp_path_factory.mktemp("warehouse")
    state = archive_to_map(make_config(PipelineConfig, settings(archive, warehouse)), return_state=True)
    return warehouse, state.result()


def test_the_main_job_ends_with_a_sound_product(published: tuple[Path, Any]) -> None:
    _, summary = published
    assert summary.exit_status == 0
    assert summary.counts["failed"] == 0
    assert verify_product(summary.products[0]).ok
    assert Path(summary.details["picture"]).stat().st_size > 10_000


def test_the_item_names_its_inputs_weights_and_snapshots(published: tuple[Path, Any]) -> None:
    warehouse, summary = published
    item = json.loads(Path(summary.products[0]).read_text())
    derived = [link for link in item["links"] if link["rel"] == "derived_from"]
    (cube,) = summary.cubes
    used = read_scenes(cube).query("state == 'used'")
    assert len(derived) == len(used)
    path = str(Path(cube).relative_to(warehouse))
    assert open_cube(cube, item["properties"]["canopus:snapshots"][path]).sizes["time"] > 5
    assert len(item["properties"]["canopus:weights_sha256"]) == 64


def test_running_the_map_again_is_no_work(published: tuple[Path, Any], archive: Path) -> None:
    warehouse, summary = published
    config = make_config(PipelineConfig, settings(archive, warehouse))
    again = map_canopy(config.map, return_state=True).result()
    assert again.products == summary.products
    assert again.details["state"] == "present"
    assert again.counts["mapped"] == 0


def test_runs_show_tables_pictures_and_progress(published: tuple[Path, Any]) -> None:
    types = artifact_types()
    assert types["scenes"] == "table"
    assert types["accuracy-floor"] == "table"
    assert types["product-canopy"] == "markdown"
    assert any(kind == "progress" for kind in types.values())


def test_a_forecast_of_the_same_cubes_is_published_and_shown(published: tuple[Path, Any], archive: Path) -> None:
    warehouse, _ = published
    asked = {"warehouse": str(warehouse), "aoi": str(archive / "area.geojson"), "model": "window"}
    config = make_config(ForecastConfig, asked | {"horizon": 60, "every": 30, "quantiles": [0.1, 0.5, 0.9]})
    summary = forecast_area(config, return_state=True).result()
    assert summary.counts["mapped"] > 0
    assert verify_product(summary.products[0]).ok
    assert Path(summary.details["map"]).name == "ndvi_q50.tif"
    assert artifact_types()["product-forecast"] == "markdown"
    again = forecast_area(config, return_state=True).result()
    assert again.details["state"] == "present"


def test_an_update_without_new_scenes_says_so_and_publishes_nothing(published: tuple[Path, Any], archive: Path) -> None:
    warehouse, _ = published
    chain = settings(archive, warehouse)
    config = make_config(UpdateConfig, {"ingest": chain["ingest"], "map": chain["map"]})
    state = update_canopy_map(config, return_state=True)
    assert state.name == "NoNewData"
    assert state.result().products == ()
    assert "newest item" in state.result().notes[-1]


def update(archive: Path, warehouse: Path, end: str, *, gates: dict[str, Any] | None = None, **mapped: Any) -> Any:
    """Run the recurring update as on a day; return its state."""
    chain = settings(archive, warehouse, end=end)
    asked = chain["map"] | {"gates": {"max_drift": None} | (gates or {})} | mapped
    config = make_config(UpdateConfig, {"ingest": chain["ingest"], "map": asked})
    return update_canopy_map(config, return_state=True)


def hashes(item: str) -> dict[str, str]:
    manifest = json.loads(Path(item).with_name("manifest.json").read_text())
    return {row["name"]: row["sha256"] for row in manifest["files"]}


@pytest.fixture(scope="module")
def updated(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The main job up to September, and an update in December; the warehouse as it was in between is kept."""
    warehouse = tmp_path_factory.mktemp("updated") / "warehouse"
    first = archive_to_map(
        make_config(PipelineConfig, settings(archive, warehouse, end="2021-09-30")), return_state=True
    ).result()
    shutil.copytree(warehouse, warehouse.with_name("before"))
    second = update(archive, warehouse, "2021-12-15", until="2021-12-15")
    return warehouse, first, second


def test_an_update_with_a_new_scene_publishes_a_new_version_and_keeps_the_old(updated: tuple[Path, Any, Any]) -> None:
    _, first, state = updated
    second = state.result()
    assert second.products != first.products
    assert second.counts["ingested"] > 0
    assert verify_product(first.products[0]).ok
    assert verify_product(second.products[0]).ok


def test_the_report_and_the_checks_of_an_update_are_shown(updated: tuple[Path, Any, Any]) -> None:
    _, first, state = updated
    report = Path(state.result().details["report"])
    text = report.read_text()
    assert Path(first.products[0]).stem in text
    assert "| Conifer |" in text
    assert report.with_name("change.png").stat().st_size > 10_000
    assert artifact_types()["checks-canopy"] == "table"
    item = json.loads(Path(state.result().products[0]).read_text())
    assert {check["name"]: check["passed"] for check in item["properties"]["canopus:checks"]} == {
        "structure": True,
        "valid": True,
        "seams": True,
        "freshness": True,
        "coverage": True,
    }
    assert item["properties"]["canopus:seam_score"]["tiles"]["pieces"] == 0


def test_a_backfill_is_what_the_update_published_on_its_day(
    updated: tuple[Path, Any, Any], archive: Path, tmp_path: Path
) -> None:
    """From cubes that hold later dates, in a warehouse where no update ever ran."""
    warehouse, _, state = updated
    other = Path(shutil.copytree(warehouse.with_name("before"), tmp_path / "other"))
    shutil.rmtree(other / "products")
    chain = settings(archive, other)
    assert ingest_earth(make_config(PipelineConfig, chain).ingest, return_state=True).result().counts["ingested"] > 0
    asked = {"map": chain["map"] | {"gates": {"max_drift": None}}, "start": "2020-12-15", "end": "2021-12-31"}
    config = make_config(BackfillConfig, asked | {"every": "12M"})
    filled = backfill_canopy_map(config, return_state=True).result()
    assert filled.counts == {"no look": 1, "mapped": 1}
    (item,) = filled.products
    assert Path(item).name == Path(state.result().products[0]).name
    assert hashes(item) == hashes(state.result().products[0])
    again = backfill_canopy_map(config, return_state=True).result()
    assert again.counts == {"no look": 1, "published": 1}
    assert again.products == filled.products


def test_a_failed_check_publishes_nothing_and_says_why(
    updated: tuple[Path, Any, Any], archive: Path, tmp_path: Path
) -> None:
    warehouse, first, _ = updated
    copy = Path(shutil.copytree(warehouse.with_name("before"), tmp_path / "warehouse"))
    state = update(archive, copy, "2022-12-31")
    assert state.is_failed()
    assert "was not published: freshness: the newest clear look, of 2021-1" in state.message
    items = [path.stem for path in (copy / "products" / "canopy").glob("*/canopy-*.json")]
    assert items == [Path(first.products[0]).stem]
    again = update(archive, copy, "2022-12-31")
    assert again.is_failed(), "what was held back is not forgotten when nothing new comes in"
    allowed = update(archive, copy, "2022-12-31", gates={"allow": ["freshness"]}).result()
    assert len(allowed.products) == 1
    assert "allowed by hand: freshness" in allowed.notes[-1]


def test_a_damaged_scene_is_reported_and_the_rest_is_mapped_and_published(
    updated: tuple[Path, Any, Any], archive: Path, tmp_path: Path
) -> None:
    warehouse, _, _ = updated
    damaged = Path(shutil.copytree(archive, tmp_path / "archive"))
    copy = Path(shutil.copytree(warehouse.with_name("before"), tmp_path / "warehouse"))
    victim = _newest_near_infrared(damaged)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 3])
    state = update(damaged, copy, "2022-01-15")
    assert state.name == "CompletedWithFailures"
    summary = state.result()
    assert summary.exit_status == 3
    assert len(summary.products) == 1
    assert summary.retry == f"canopus redrive {summary.details['runs'].split(', ')[0]}"
    victim.write_bytes(whole)
    run = find_run(resolve(copy), summary.retry.split()[-1], kind="ingest")
    assert redrive_ingest(str(copy), run, return_state=True).result().exit_status == 0


def test_labels_that_cannot_be_read_stop_the_training_before_a_model_is_written(
    published: tuple[Path, Any], archive: Path, tmp_path: Path
) -> None:
    warehouse, _ = published
    wrong = tmp_path / "woods.gpkg"
    wrong.write_text("no GeoPackage")
    chain = settings(archive, warehouse)
    chain["train"] |= {"labels": {"path": str(wrong)}, "name": "spoilt"}
    state = archive_to_map(make_config(PipelineConfig, chain), return_state=True)
    assert state.is_failed()
    assert str(wrong) in state.message
    assert not (warehouse / "models" / "spoilt").exists()


def _newest_near_infrared(archive: Path) -> Path:
    items = sorted((archive / "sentinel-2-l2a").rglob("S2*_L2A.json"), key=lambda path: path.name.split("_")[2])
    item = json.loads(items[-1].read_text())
    return items[-1].parent / item["assets"]["nir"]["href"]


def test_a_damaged_file_is_a_row_and_redrive_takes_it_up_again(archive: Path, tmp_path: Path) -> None:
    damaged, warehouse = tmp_path / "archive", tmp_path / "warehouse"
    shutil.copytree(archive, damaged)
    victim = _newest_near_infrared(damaged)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 3])
    config = make_config(PipelineConfig, settings(damaged, warehouse)).ingest
    state = ingest_earth(config, return_state=True)
    assert state.is_completed()
    assert state.name == "CompletedWithFailures"
    summary = state.result()
    assert summary.exit_status == 3
    assert summary.counts["failed"] == 1
    assert "unreadable" in summary.failures[0]
    victim.write_bytes(whole)
    run = find_run(resolve(warehouse), summary.run)
    redriven = redrive_ingest(str(warehouse), run, return_state=True).result()
    assert redriven.exit_status == 0
    assert redriven.counts["ingested"] == summary.counts["ingested"] + 1


def test_a_two_process_cluster_gives_the_same_cube(archive: Path, tmp_path: Path, published: tuple[Path, Any]) -> None:
    _, summary = published
    config = make_config(PipelineConfig, settings(archive, tmp_path / "warehouse", dask="local:2")).ingest
    cluster = ingest_earth(config, return_state=True).result()
    ours, theirs = open_cube(summary.cubes[0]), open_cube(cluster.cubes[0])
    assert ours.load().equals(theirs.load())
