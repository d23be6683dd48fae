"""A canopy model scored over a small area: the map is the published one, the floors have not seen the answers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from canopy_cases import AREA, COLUMNS, ROWS, SHAPE, Place, landscape, make_place, write_raster
from cube_cases import CORNER, CRS
from matplotlib.image import imread
from shapely.geometry import box

from tasks.earth.assess import sample_map, score_map
from tasks.earth.canopy_evaluation import CanopyEvaluationRequest, evaluate_canopy, score_area
from tasks.earth.canopy_floors import FloorSource, source_of_model
from tasks.earth.canopy_map import MapRequest, map_job, prepare_map
from tasks.earth.canopy_tables import describe_canopy, score_rows
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.label_report import TileSplit
from tasks.earth.label_rules import LabelRules
from tasks.earth.regional import fill_regions, publish_prepared
from tasks.errors import ConfigurationError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Classes that lie apart, with some noise."""
    return make_place(tmp_path_factory.mktemp("canopy"), landscape(), spread=250)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the report of `scored` lies."""
    return tmp_path_factory.mktemp("scored")


@pytest.fixture(scope="module")
def scored(place: Place, out: Path) -> dict[str, Any]:
    """The model scored everywhere, the forest cross-validated."""
    return evaluate_canopy(request_of(place, out))


def request_of(place: Place, out: Path, **change: object) -> CanopyEvaluationRequest:
    request = CanopyEvaluationRequest(
        place.warehouse, AREA, "floor", place.labels, LabelRules(margin=0), block=8, folds=4, trees=20, out=str(out)
    )
    return replace(request, **change)  # type: ignore[arg-type]


def score(request: CanopyEvaluationRequest) -> dict[str, Any]:
    """Return the scores alone, without pictures."""
    given = MapRequest(request.warehouse, request.area, request.model, until=request.until)
    return score_area(request, map_job(given))


def test_model_and_floors_are_scored_in_one_run_by_the_same_keys(scored: dict[str, Any], out: Path) -> None:
    report = scored
    assert report["pixels"] == SHAPE[0] * SHAPE[1]
    keys = {"roc_auc", "pr_auc", "prevalence", "f1"}
    for scores in (report, *report["floors"].values()):
        assert keys <= scores["canopy"].keys()
        for name in ("none", "broadleaved", "conifer"):
            assert keys <= scores["classes"][name].keys()
    share = float((landscape() > 0).mean())
    assert report["canopy"]["prevalence"] == pytest.approx(share)
    # the model has seen the answers, the forest has not: noise of each pixel's own keeps it from 1
    assert report["canopy"]["pr_auc"] > 0.99
    assert 0.8 < report["floors"]["forest"]["canopy"]["pr_auc"] < report["canopy"]["pr_auc"]
    # conifers are darker in the near infrared than broadleaved woods, so NDVI ranks canopy, but not kinds
    assert report["floors"]["mean_ndvi"]["canopy"]["roc_auc"] > 0.8
    assert report["floors"]["mean_ndvi"]["classes"]["none"]["roc_auc"] > 0.8
    ratio = (1 - report["canopy"]["pr_auc"]) / (1 - report["floors"]["forest"]["canopy"]["pr_auc"])
    assert report["error_against_floor"]["forest"]["canopy"] == pytest.approx(ratio)
    assert json.loads((out / "canopy_scores.json").read_text()) == json.loads(json.dumps(report, allow_nan=False))


def test_the_forest_learns_nothing_from_labels_that_mean_nothing(place: Place, tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    labels = write_raster(tmp_path / "drawn.tif", drawn)
    report = score(request_of(place, tmp_path / "out", labels=labels))
    assert report["floors"]["forest"]["canopy"]["roc_auc"] == pytest.approx(0.5, abs=0.04)


def test_the_map_in_memory_is_the_one_that_is_published(place: Place, scored: dict[str, Any]) -> None:
    prepared = prepare_map(MapRequest(place.warehouse, AREA, "floor"))
    for name, regions in prepared.groups():
        fill_regions(prepared, name, regions)
    item = publish_prepared(prepared).item_url
    report = scored
    scores = score_map(item, labels=place.labels, rules=LabelRules(margin=0)).scores
    assert report["confusion"]["matrix"] == scores["confusion"]["counts"]
    for name, found in scores["classes"].items():
        assert report["classes"][name] == pytest.approx(found, abs=1e-4)


def test_held_out_blocks_are_scored_and_the_forest_keeps_off_them(place: Place, tmp_path: Path) -> None:
    holdout = Holdout(3, 1, block=8, gap=1)
    report = score(request_of(place, tmp_path, holdout=holdout))
    held = holdout.held_out((1024, 1024))[ROWS, COLUMNS]
    assert report["pixels"] == held.sum()
    trained = sum(report["floor_trained_on"]["pixels"].values())
    assert trained == holdout.trainable((1024, 1024))[ROWS, COLUMNS].sum()


def test_the_test_tiles_of_a_split_are_scored(place: Place, tmp_path: Path) -> None:
    report = score(request_of(place, tmp_path, holdout=TileSplit(block=8, gap=1)))
    assert 0.05 < report["pixels"] / (SHAPE[0] * SHAPE[1]) < 0.2
    assert report["holdout"]["kind"] == "TileSplit"
    assert all(found["prevalence"] > 0 for found in report["classes"].values())


def test_the_forest_may_be_trained_on_other_labels(place: Place, scored: dict[str, Any], tmp_path: Path) -> None:
    polygons = geopandas.GeoDataFrame(
        {"class": ["broadleaved", "conifer"]},
        geometry=[_box(4, 4, 16, 16), _box(36, 4, 52, 16)],
        crs=CRS,
    )
    path = tmp_path / "woods.gpkg"
    polygons.to_file(path)
    source = FloorSource(str(path), LabelRules(outside="none", margin=1))
    report = score(request_of(place, tmp_path / "out", floor=source))
    assert report["floor_trained_on"]["labels"] == str(path)
    # two woods of four are taught as open land
    assert report["floors"]["forest"]["canopy"]["pr_auc"] < scored["floors"]["forest"]["canopy"]["pr_auc"]


def test_a_forest_from_elsewhere_answers_everywhere(place: Place, tmp_path: Path) -> None:
    other = make_place(tmp_path, landscape()[::-1, ::-1].copy(), spread=250, seed=9)
    source = FloorSource(other.labels, LabelRules(margin=0), area=AREA, warehouse=other.warehouse)
    report = score(request_of(place, tmp_path / "out", floor=source))
    assert report["floor_trained_on"]["where"] == "another area"
    assert report["floors"]["forest"]["canopy"]["pr_auc"] > 0.9
    assert report["pixels"] == SHAPE[0] * SHAPE[1]


def told(place: Place, labels: str) -> dict[str, Any]:
    """Return what a model says of the labels that it was trained on, as JSON gives it back."""
    split = asdict(TileSplit(block=8, gap=1))
    rules = asdict(LabelRules(margin=0))
    said = {"path": labels, "rules": rules, "warehouse": place.warehouse, "area": AREA, "until": None, "split": split}
    return json.loads(json.dumps({"labels": said}))


def test_the_forest_is_trained_on_what_the_model_names(place: Place, tmp_path: Path) -> None:
    training = told(place, place.labels)
    here = source_of_model(training, area=AREA, warehouse=place.warehouse)
    assert here is not None
    assert not here.is_elsewhere
    assert here.split == TileSplit(block=8, gap=1)
    there = source_of_model(training, area=AREA, warehouse="file:///another")
    assert there is not None
    assert there.warehouse == place.warehouse
    report = score(request_of(place, tmp_path, floor=there))
    assert report["floor_trained_on"]["where"] == "the train tiles of another area"
    assert sum(report["floor_trained_on"]["pixels"].values()) < 0.75 * SHAPE[0] * SHAPE[1]
    assert source_of_model(told(place, "/nowhere/a.tif"), area=AREA, warehouse=place.warehouse) is None
    assert source_of_model({"labels": "woods.gpkg"}, area=AREA, warehouse=place.warehouse) is None


def test_cells_of_coarse_labels_are_scored_once(place: Place, tmp_path: Path) -> None:
    cover = 100 * landscape().clip(0, 1).reshape(SHAPE[0] // 4, 4, SHAPE[1] // 4, 4).mean(axis=(1, 3))
    labels = write_raster(tmp_path / "cover.tif", cover.round().astype(np.uint8), pixel=40)
    rules = LabelRules(at_least=70, margin=0)
    report = score(request_of(place, tmp_path / "out", labels=labels, rules=rules, cell=4))
    assert report["pixels"] == SHAPE[0] * SHAPE[1] // 16
    # a raster of cover knows no kinds: those of the map are scored together
    assert list(report["classes"]) == ["none", "canopy"]
    assert report["classes"]["canopy"]["prevalence"] == pytest.approx(float((cover >= 70).mean()))
    assert report["canopy"]["pr_auc"] == report["classes"]["canopy"]["pr_auc"] > 0.99
    assert report["floors"]["forest"]["canopy"]["pr_auc"] > 0.9
    assert report["sizes"] is None


def test_hedges_are_scored_apart(scored: dict[str, Any]) -> None:
    report = scored
    widths = report["sizes"]["width_pixels"]
    assert widths["1"]["pixels"] == 56
    assert widths["4+"]["pixels"] == (landscape() > 0).sum() - 56
    assert widths["1"]["model"]["recall"] > 0.9
    assert sum(found["pixels"] for found in report["sizes"]["area_hectares"].values()) == (landscape() > 0).sum()


def test_a_probability_sample_gives_accuracy_and_areas_with_intervals(place: Place, tmp_path: Path) -> None:
    prepared = prepare_map(MapRequest(place.warehouse, AREA, "floor", collection="sampled"))
    for name, regions in prepared.groups():
        fill_regions(prepared, name, regions)
    path = tmp_path / "sample.gpkg"
    sample_map(publish_prepared(prepared).item_url, path, size=90, at_least=20, seed=1)
    drawn = geopandas.read_file(path)
    drawn["reference"] = drawn["map_class"]
    drawn.to_file(path)
    report = score(request_of(place, tmp_path / "out", sample=str(path)))
    assert report["accuracy"]["overall_accuracy"]["value"] == pytest.approx(1.0)
    areas = [found["area_hectares"]["value"] for found in report["accuracy"]["classes"].values()]
    assert sum(areas) == pytest.approx(SHAPE[0] * SHAPE[1] / 100)
    moved = drawn.to_crs(CRS)
    moved.geometry = moved.geometry.translate(xoff=5000)
    moved.to_crs("EPSG:4326").to_file(tmp_path / "moved.gpkg")
    with pytest.raises(ConfigurationError, match=r"moved\.gpkg: \d+ of \d+ points lie outside the map"):
        score(request_of(place, tmp_path / "out", sample=str(tmp_path / "moved.gpkg")))


def test_words_and_pictures_hold_the_scores(scored: dict[str, Any], out: Path) -> None:
    report = scored
    words = describe_canopy(report)
    assert f"{report['canopy']['pr_auc']:.4f}" in words
    rows = score_rows(report)
    assert {row["method"] for row in rows} == {"model", "forest", "mean_ndvi"}
    assert {row["class"] for row in rows} == {"canopy", "none", "broadleaved", "conifer"}
    names = [Path(picture).name for picture in report["pictures"]]
    assert names == ["precision_recall.png", "reliability.png", "sizes.png"]
    for name in names:
        assert imread(out / name).shape[1] > 600


def test_labels_that_know_no_kinds_score_canopy_alone(place: Place, scored: dict[str, Any], tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "canopy.tif", landscape().clip(0, 1))
    report = score(request_of(place, tmp_path / "out", labels=labels, canopy_only=True))
    assert report["canopy"]["pr_auc"] == pytest.approx(scored["canopy"]["pr_auc"], abs=1e-6)
    assert report["canopy"]["f1"] == pytest.approx(scored["canopy"]["f1"])
    assert report["sizes"]["width_pixels"]["1"]["model"] == scored["sizes"]["width_pixels"]["1"]["model"]


def test_a_forest_taught_kinds_is_scored_on_canopy_alone(place: Place, tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "canopy.tif", landscape().clip(0, 1))
    source = FloorSource(place.labels, LabelRules(margin=0))
    report = score(request_of(place, tmp_path, labels=labels, canopy_only=True, floor=source))
    assert set(report["floor_trained_on"]["pixels"]) == {"none", "broadleaved", "conifer"}
    assert list(report["floors"]["forest"]["classes"]) == ["none", "canopy"]
    assert report["floors"]["forest"]["canopy"]["pr_auc"] > 0.9


def test_what_cannot_be_scored_says_why(place: Place, tmp_path: Path) -> None:
    empty = write_raster(tmp_path / "none.tif", np.full(SHAPE, 255, np.uint8))
    with pytest.raises(ConfigurationError, match=r"none\.tif: the raster has no value"):
        score(request_of(place, tmp_path, labels=empty))
    with pytest.raises(ConfigurationError, match="no look"):
        score(request_of(place, tmp_path, until="2020-01-01"))


def _box(column: int, row: int, to_column: int, to_row: int) -> object:
    left, top = CORNER[0] + 10 * COLUMNS.start, CORNER[1] - 10 * ROWS.start
    return box(left + 10 * column, top - 10 * to_row, left + 10 * to_column, top - 10 * row)
