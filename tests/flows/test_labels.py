"""Settings of labels: tables of classes, dates, and the command that reports on them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import yaml
from label_cases import GRID, pixels, write_polygons
from typer.testing import CliRunner

from flows.cli import app
from flows.config import LABEL_TABLES, LabelSettings, TrainFloorConfig, make_config
from flows.labels import to_rules
from flows.train import to_request
from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT, NO_CLASS
from tasks.earth.labels import open_labels
from tasks.errors import UsageError


def test_the_table_of_the_national_forest_inventory_gives_field_and_classes() -> None:
    settings = make_config(LabelSettings, {"path": "nfi.gpkg", "table": "nfi"})
    assert settings.class_field == "IFT_IOA"
    assert settings.values["Mixed mainly conifer"] == "conifer"
    assert settings.values["Coppice"] == "broadleaved"
    assert settings.values["Open water"] == "none"
    for unclear in ("Felled", "Ground prep", "Young trees", "Failed", "Low density", "Uncertain", "Cloud \\ shadow"):
        assert settings.values[unclear] == "ignore"


def test_every_class_of_a_table_has_a_reason() -> None:
    for path in LABEL_TABLES.glob("*.yaml"):
        for value, entry in yaml.safe_load(path.read_text())["values"].items():
            assert entry["class"] in {"none", "broadleaved", "conifer", "ignore"}, value
            assert len(entry["because"]) > 3, value


def test_what_is_given_lies_over_the_table() -> None:
    given = {"path": "a.gpkg", "table": "nfi", "class_field": "TYPE", "values": {"Urban": "none"}}
    settings = make_config(LabelSettings, given)
    assert settings.class_field == "TYPE"
    assert settings.values["Urban"] == "none"
    assert settings.values["Conifer"] == "conifer"
    assert make_config(LabelSettings, settings.model_dump()) == settings


def test_a_table_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("class_field: kind\nvalues: {Larch: conifer, 7: {class: broadleaved}}\n")
    settings = make_config(LabelSettings, {"path": "a.gpkg", "table": str(path)})
    assert (settings.class_field, settings.values) == ("kind", {"Larch": "conifer", "7": "broadleaved"})
    path.write_text("values: [Larch]\n")
    with pytest.raises(UsageError, match="wanted are values, each with a class"):
        make_config(LabelSettings, {"path": "a.gpkg", "table": str(path)})
    with pytest.raises(UsageError, match=r"neither a file nor a table that is shipped \(nfi\)"):
        make_config(LabelSettings, {"path": "a.gpkg", "table": "nfl"})


def test_labels_of_the_inventory_are_read_by_its_table(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["Conifer", "Felled"], [pixels(0, 0, 9, 9), pixels(12, 0, 20, 9)])
    rules = to_rules(
        make_config(LabelSettings, {"path": str(path), "table": "nfi", "class_field": "class", "margin": 0})
    )
    found = open_labels(path, CANOPY_CLASSES, rules).on(GRID)
    assert found[3, [3, 15, 25]].tolist() == [2, NO_CLASS, 0]
    together = open_labels(path, CANOPY_OR_NOT, rules).on(GRID)
    assert together[3, [3, 15, 25]].tolist() == [1, NO_CLASS, 0]


def test_training_reads_up_to_the_date_of_the_labels_unless_told_otherwise() -> None:
    labels = {"path": "a.gpkg", "date": date(2021, 6, 30)}
    config = make_config(TrainFloorConfig, {"aoi": "1,50,2,51", "labels": labels})
    assert to_request(config).until == "2021-06-30"
    assert to_request(config).rules.date == "2021-06-30"
    assert to_request(config.model_copy(update={"until": date(2022, 1, 1)})).until == "2022-01-01"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"date": "2021"}, "labels.date"),
        ({"date_field": "year"}, "which day are the labels of"),
        ({"date": "2021-01-01", "max_age_years": 2}, "max_age_years wants a date_field"),
        ({"min_area_ha": -1}, "min_area_ha"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(TrainFloorConfig, {"aoi": "1,50,2,51", "labels": {"path": "a.gpkg", **change}})


def test_the_command_writes_report_and_picture(tmp_path: Path) -> None:
    shapes = [pixels(1, 1, 9, 9), pixels(12, 4, 20, 12)]
    path = write_polygons(tmp_path / "a.gpkg", ["conifer", "broadleaved"], shapes)
    area = ",".join(str(edge) for edge in GRID[2:18, 2:28].geographic_extent.boundingbox.bbox)
    arguments = ["labels", "--aoi", area, "--labels", str(path), "--crs", "EPSG:32633", "--block", "4", "--gap", "0"]
    arguments += ["--warehouse", str(tmp_path / "none"), "--out", str(tmp_path / "report"), "--min-area-ha", "0.5"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["polygons"] == {"none": 0, "broadleaved": 1, "conifer": 1, "unknown": 0}
    assert report["rules"]["min_area_ha"] == 0.5
    assert (tmp_path / "report" / "labels.png").stat().st_size > 10_000
    assert not (tmp_path / "none").exists()
    words = CliRunner().invoke(app, arguments).output
    assert "conifer" in words
    assert "picture" in words
