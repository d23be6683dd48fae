"""A canopy model on cubes: neighbours reach across regions and cubes, whatever is cut where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from ingest_cases import BANDS, TILE, area_of, grid, ingest, make_archive, request_of

from models.canopy import CanopyConfig, CanopyNet
from storage.classes import CANOPY_CLASSES
from storage.location import Location, resolve
from storage.schema import CHUNK
from tasks.earth.canopy_map import MapRequest, map_job
from tasks.earth.classifiers import open_map_model
from tasks.earth.layers import map_layers
from tasks.earth.mapping import MapPlan, fill_region
from tasks.earth.model_files import save_network
from tasks.errors import ConfigurationError

CONFIG = CanopyConfig(layers=1, heads=2, width=8, pointers=2, months=2, hidden=8, reach=2)


def save_small(warehouse: Location, name: str = "canopy") -> None:
    """Save a small model with lively weights."""
    torch.manual_seed(0)
    model = CanopyNet(CONFIG)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    save_network(
        warehouse,
        name,
        model,
        kind="canopy",
        config=asdict(CONFIG),
        metrics={},
        training={},
        card="A small one.",
        legend=CANOPY_CLASSES,
    )


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of three dates and a small model."""
    folder = tmp_path_factory.mktemp("canopy")
    archive = make_archive(folder / "archive", count=3)
    ingest(request_of(archive.catalog, folder / "warehouse"))
    save_small(resolve(folder / "warehouse"))
    return folder / "warehouse"


def test_a_map_is_the_same_however_regions_are_cut(warehouse: Path) -> None:
    job = map_job(MapRequest(str(warehouse), area_of(grid()), "canopy"))
    fill = job.open()
    layers = map_layers(CANOPY_CLASSES)
    (region,) = job.plan.regions
    whole = fill_region(job.plan, region, layers, fill)
    assert len(np.unique(whole["class"])) > 2
    for rows in (slice(0, CHUNK // 2), slice(CHUNK // 2, CHUNK)):
        for columns in (slice(0, 100), slice(100, CHUNK)):
            part = fill_region(job.plan, {"y": rows, "x": columns}, layers, fill)
            assert np.array_equal(part["class"], whole["class"][rows, columns])
            apart = part["probability"].astype(int) - whole["probability"][:, rows, columns].astype(int)
            assert np.abs(apart).max() <= 1


def test_probabilities_add_up_and_canopy_is_all_but_none(warehouse: Path) -> None:
    job = map_job(MapRequest(str(warehouse), area_of(grid()), "canopy"))
    found = fill_region(job.plan, job.plan.regions[0], map_layers(CANOPY_CLASSES), job.open())
    seen = found["class"] != 255
    total = found["probability"].astype(int).sum(axis=0)
    assert np.abs(total[seen] - 10_000).max() <= 2
    assert np.array_equal(found["canopy_probability"][seen], 10_000 - found["probability"][0][seen])
    assert (found["canopy_probability"][~seen] == 65535).all()


def test_it_works_with_bands_that_it_knows_and_says_which_it_does_not(warehouse: Path) -> None:
    model = open_map_model(resolve(warehouse), "canopy")
    model.require_bands(("B04", "B08"))
    with pytest.raises(ConfigurationError, match="lack B08"):
        model.require_bands(("B02", "B04"))
    with pytest.raises(ConfigurationError, match="hold B01"):
        model.require_bands((*BANDS, "B01"))


def test_a_network_that_does_not_classify_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="earthpt-distilled is of kind earthpt, which makes no map: name one"):
        open_map_model(resolve(tmp_path), "earthpt-distilled")


def test_the_cube_is_where_the_test_believes(warehouse: Path) -> None:
    plan: MapPlan = map_job(MapRequest(str(warehouse), area_of(grid()), "canopy")).plan
    assert [cube.path for cube in plan.cubes] == [TILE]
