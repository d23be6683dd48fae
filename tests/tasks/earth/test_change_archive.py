"""Felling and planting in the generated archive: what is found, how well it is dated, beside the floors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from ingest_cases import ingest, request_of

from models.forest import ForestClassifier, ForestConfig, temporal_statistics
from models.indices import BANDS
from storage.classes import CANOPY_CLASSES
from storage.location import resolve
from tasks.earth.canopy_map import MapRequest, prepare_map
from tasks.earth.change_evaluation import score_change
from tasks.earth.change_map import ChangeRequest, prepare_change
from tasks.earth.classifier_files import save_classifier
from tasks.earth.grid import read_area
from tasks.earth.mapping import overlap, plan_map, to_physical
from tasks.earth.regional import Prepared, fill_regions, publish_prepared
from tasks.earth.simulate import SimulateConfig
from tasks.earth.simulate.whole import make_archive

log = logging.getLogger(__name__)
SEED = 43
PIXELS = 3000
UNTIL = [f"{year}-{day}" for year in (2021, 2022, 2023) for day in ("03-31", "06-30", "09-30", "12-31")][2:]


def publish(prepared: Prepared) -> str:
    for name, regions in prepared.groups():
        fill_regions(prepared, name, regions)
    return publish_prepared(prepared).item_url


def train(warehouse: Path, archive: Path, area: dict[str, Any]) -> None:
    """Save a forest of the archive's own pixels: the class of the first day in the first year, of the last in the last."""
    plan = plan_map(str(warehouse), area)
    (cube,) = plan.cubes
    window = overlap(cube.tile.geobox, plan.product)
    assert window is not None
    block = plan.read(cube, window)
    times = block.times.astype("datetime64[D]")
    pixels = np.random.default_rng(0).choice(block.valid[0].size, PIXELS, replace=False)
    features, labels = [], []
    for name, until in (("class_start", "2021-12-31"), ("class", "2023-12-31")):
        with rasterio.open(archive / "truth" / f"{name}.tif") as source:
            labels.append(source.read(1).ravel()[pixels])
        chosen = (times <= np.datetime64(until)) & (times > np.datetime64(until) - np.timedelta64(365, "D"))
        looks = to_physical(block.reflectance[chosen].reshape(chosen.sum(), len(BANDS), -1)[:, :, pixels])
        valid = block.valid[chosen].reshape(chosen.sum(), -1)[:, pixels]
        features.append(temporal_statistics(looks, valid, times[chosen], BANDS))
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig()).fit(np.concatenate(features), np.concatenate(labels))
    told: dict[str, Any] = {"metrics": {"classes": {}, "evaluation": "none"}, "training": {}}
    save_classifier(resolve(warehouse), "forest", forest, classes=CANOPY_CLASSES, **told)


@pytest.mark.slow
def test_felling_is_found_and_dated_in_the_generated_archive(tmp_path: Path) -> None:
    archive, warehouse = tmp_path / "archive", tmp_path / "warehouse"
    make_archive(archive, SimulateConfig(seed=SEED, size_km=2.0, years=3.0))
    area = read_area(str(archive / "area.geojson"))
    ingest(request_of(archive / "catalog.json", warehouse, area=area, bands=BANDS))
    train(warehouse, archive, area)
    for until in UNTIL:
        publish(prepare_map(MapRequest(str(warehouse), area, "forest", until=until, window_days=365)))
    change = publish(prepare_change(ChangeRequest(str(warehouse), area)))
    truth = {name: str(archive / "truth" / f"{file}.tif") for name, file in _TRUTH.items()}
    report = score_change(change, **truth)
    log.info("%s", report.text)
    found, first_and_last, summers = report.scores["methods"].values()
    assert found["loss"]["pixels"]["recall"] >= 0.5
    assert found["loss"]["pixels"]["precision_next_to"] >= 0.85
    assert found["loss"]["date"]["median"] <= 45
    assert found["gain"]["pixels"]["precision_next_to"] >= 0.5
    for floor in (first_and_last, summers):
        assert found["loss"]["pixels"]["precision"] > floor["loss"]["pixels"]["precision"]
        assert found["loss"]["date"]["mean"] < floor["loss"]["date"]["mean"]


_TRUTH = {"dates": "change_date", "kinds": "change_kind", "woodland": "class_start"}
