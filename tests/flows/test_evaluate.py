"""From what the user wrote to what an evaluation of canopy is asked; and the whole command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from canopy_cases import AREA, SHAPE, landscape, make_place
from prefect.testing.utilities import prefect_test_harness
from typer.testing import CliRunner

from flows.cli import app
from flows.config import EvaluateCanopyConfig, make_config
from flows.evaluate import to_canopy_request
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.label_report import TileSplit
from tasks.errors import UsageError


def config_of(**change: Any) -> EvaluateCanopyConfig:
    given = {"model": "canopy", "aoi": "1,50,2,51", "labels": {"path": "a.gpkg", "margin": 0}, **change}
    return make_config(EvaluateCanopyConfig, given)


def test_the_day_of_the_map_is_the_labels_unless_named() -> None:
    labels = {"path": "a.gpkg", "date": "2021-06-30"}
    assert to_canopy_request(config_of(labels=labels)).until == "2021-06-30"
    assert to_canopy_request(config_of(labels=labels, date="2022-01-31")).until == "2022-01-31"
    assert to_canopy_request(config_of()).until is None


def test_what_is_scored_is_a_fold_or_the_test_tiles_or_everything() -> None:
    assert to_canopy_request(config_of()).holdout is None
    assert to_canopy_request(config_of(holdout_blocks="5:1:30")).holdout == Holdout(5, 1, block=30)
    tiles = to_canopy_request(config_of(test_tiles=True, split_block=16)).holdout
    assert tiles == TileSplit(16, 2, (0.7, 0.15, 0.15), 0)
    with pytest.raises(UsageError, match="choose one"):
        config_of(test_tiles=True, holdout_blocks="5:1")


def test_the_floor_has_labels_and_a_place_of_its_own(tmp_path: Path) -> None:
    floor = {"path": "b.gpkg", "table": "nfi", "date": "2020-12-31", "aoi": "3,50,4,51", "warehouse": str(tmp_path)}
    source = to_canopy_request(config_of(floor=floor)).floor
    assert source is not None
    assert source.rules.class_field == "IFT_IOA"
    assert source.until == "2020-12-31"
    assert source.warehouse == f"file://{tmp_path}"
    assert source.is_elsewhere
    assert not to_canopy_request(config_of(floor={"path": "b.gpkg"})).floor.is_elsewhere  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_command_prints_one_json_with_the_floors_beside(tmp_path: Path) -> None:
    place = make_place(tmp_path, landscape(), spread=250)
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps(AREA))
    arguments = ["evaluate", "canopy", "--model", "floor", "--warehouse", place.warehouse, "--aoi", str(area)]
    arguments += ["--labels", place.labels, "--date", "2021-12-31", "--out", str(tmp_path / "out"), "--json"]
    with prefect_test_harness(server_startup_timeout=180):
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["pixels"] == SHAPE[0] * SHAPE[1]
    for scores in (report, report["floors"]["forest"], report["floors"]["mean_ndvi"]):
        for found in (scores["canopy"], *scores["classes"].values()):
            assert {"roc_auc", "pr_auc", "prevalence", "f1"} <= found.keys()
    assert (tmp_path / "out" / "precision_recall.png").exists()
