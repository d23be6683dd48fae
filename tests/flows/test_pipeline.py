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

from flows.config import ForecastConfig, PipelineConfig, UpdateConfig, make_config
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


def test_an_update_with_a_new_scene_publishes_a_new_version_and_keeps_the_old(
    published: tuple[Path, Any], archive: Path, tmp_path: Path
) -> None:
    warehouse = tmp_path / "warehouse"
    chain = settings(archive, warehouse, end="2021-09-30")
    first = archive_to_map(make_config(PipelineConfig, chain), return_state=True).result()
    later = settings(archive, warehouse)
    config = make_config(UpdateConfig, {"ingest": later["ingest"], "map": later["map"]})
    second = update_canopy_map(config, return_state=True).result()
    assert second.products != first.products
    assert second.counts["ingested"] > 0
    assert verify_product(first.products[0]).ok
    assert verify_product(second.products[0]).ok


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
