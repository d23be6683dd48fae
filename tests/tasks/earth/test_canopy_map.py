"""From cubes and a model to a published map, and what the run and the cubes then say of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ingest_cases import BANDS, TILE, area_of, grid, ingest, make_archive, request_of

from flows.plan import describe_warehouse
from models.forest import ForestClassifier, ForestConfig, feature_names
from storage.classes import CANOPY_CLASSES
from storage.cube import open_cube
from storage.location import resolve
from storage.sweep import limit_of, sweep_cube
from tasks.earth.canopy_map import MapRequest, map_job, prepare_map
from tasks.earth.classifier_files import save_classifier
from tasks.earth.regional import Prepared, fill_regions, publish_prepared
from tasks.earth.verify import verify_product
from tasks.errors import ConfigurationError


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of three dates and a small model."""
    folder = tmp_path_factory.mktemp("mapped")
    archive = make_archive(folder / "archive", count=3)
    ingest(request_of(archive.catalog, folder / "warehouse"))
    rng = np.random.default_rng(5)
    features = rng.normal(0.2, 0.1, (300, len(feature_names(BANDS)))).astype(np.float32)
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=5)).fit(features, np.arange(300) % 3)
    save_classifier(resolve(folder / "warehouse"), "floor", forest, classes=CANOPY_CLASSES, metrics={}, training={})
    return folder / "warehouse"


def make_map(warehouse: Path) -> tuple[Prepared, str]:
    """Run the core of `canopus map`; return what was prepared and the item's URL."""
    prepared = prepare_map(MapRequest(str(warehouse), area_of(grid()), "floor"))
    if prepared.present is None:
        for name, regions in prepared.groups():
            fill_regions(prepared, name, regions)
    return prepared, publish_prepared(prepared).item_url


def test_the_run_says_what_became_of_each_region_and_a_second_one_writes_nothing(warehouse: Path) -> None:
    first, item = make_map(warehouse)
    again, same = make_map(warehouse)
    assert item == same
    assert verify_product(item).ok
    assert first.run.read_regions()["state"].tolist() == ["filled"]
    assert again.run.read_regions()["state"].tolist() == ["skipped"]
    runs = describe_warehouse(str(warehouse))["runs"]
    assert {run["run"]: run["counts"] for run in runs} == {first.run.id: {"filled": 1}, again.run.id: {"skipped": 1}}


def test_sweeping_keeps_what_a_map_was_made_from(warehouse: Path) -> None:
    prepared, item = make_map(warehouse)
    (part,) = prepared.job.plan.cubes
    before = open_cube(resolve(warehouse) / TILE, part.snapshot).load()
    swept = sweep_cube(resolve(warehouse), TILE, limit_of(days=-1), delete=True)
    assert swept.kept == (Path(item).stem,)
    assert open_cube(resolve(warehouse) / TILE, part.snapshot).load().equals(before)


def test_cubes_of_another_grid_are_named_where_none_of_the_asked_one_is_there(warehouse: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"in EPSG:3035 holds.*there are cubes of utm30n-10m: name their grid"):
        prepare_map(MapRequest(str(warehouse), area_of(grid()), "floor", crs="EPSG:3035"))


def test_the_same_looks_are_the_same_map_whatever_came_to_the_cube_afterwards(tmp_path: Path, warehouse: Path) -> None:
    """What was published month by month is there already when the whole time is mapped afterwards."""
    copy = Path(shutil.copytree(warehouse, tmp_path / "warehouse"))
    asked = MapRequest(str(copy), area_of(grid()), "floor", until="2021-05-06")
    before = map_job(asked)
    more = make_archive(tmp_path / "more", count=5)
    ingest(request_of(more.catalog, copy))
    after = map_job(asked)
    assert after.plan.cubes[0].snapshot != before.plan.cubes[0].snapshot
    assert after.product.key == before.product.key
    later = map_job(replace(asked, until="2021-05-16"))
    assert later.product.lineage.looks != before.product.lineage.looks
