"""What the report says of labels, against what was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from label_cases import CRS, GRID, pixels, write_polygons
from matplotlib.image import imread
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_CLASSES
from tasks.earth.label_report import LabelReportRequest, TileSplit, describe_labels, report_labels
from tasks.earth.label_rules import LabelRules
from tasks.errors import ConfigurationError


def request_of(labels: Path, out: Path, grid: GeoBox = GRID, **rules: object) -> LabelReportRequest:
    return LabelReportRequest(
        warehouse=str(out / "warehouse"),
        area=grid.extent.to_crs("EPSG:4326").geom.__geo_interface__,
        labels=str(labels),
        rules=LabelRules(**{"outside": "none", "margin": 0} | rules),  # type: ignore[arg-type]
        classes=CANOPY_CLASSES,
        crs=CRS,
        split=TileSplit(block=5, gap=1),
        out=str(out / "report"),
    )


@pytest.fixture
def woods(tmp_path: Path) -> Path:
    """Two woods that overlap by 20 pixels, a small one, and one of which nothing is known."""
    shapes = [pixels(1, 1, 11, 11), pixels(9, 1, 15, 11), pixels(17, 2, 19, 4), pixels(22, 4, 28, 8)]
    return write_polygons(tmp_path / "woods.gpkg", ["conifer", "broadleaved", "conifer", "ignore"], shapes)


def test_pixels_and_hectares_are_those_drawn(woods: Path, tmp_path: Path) -> None:
    report = report_labels(request_of(woods, tmp_path, min_area_ha=0.1))
    assert report["pixels"] == 600
    assert report["classes"]["conifer"] == {"pixels": 80, "hectares": pytest.approx(0.8)}
    assert report["classes"]["broadleaved"]["pixels"] == 40
    assert report["classes"]["none"]["pixels"] == 600 - 140 - 4 - 24
    unknown = {name: found["pixels"] for name, found in report["unknown"].items() if found["pixels"]}
    assert unknown == {"overlap": 20, "below_unit": 4, "ignored_value": 24}
    assert report["polygons"] == {"none": 0, "broadleaved": 1, "conifer": 2, "unknown": 1}
    assert list(report["tiles"].values()) == [False]


def test_parts_and_gap_add_up_to_the_classes(woods: Path, tmp_path: Path) -> None:
    report = report_labels(request_of(woods, tmp_path))
    for name, found in report["classes"].items():
        assert sum(parts[name] for parts in report["split"]["pixels"].values()) == found["pixels"]
    assert all(report["split"]["pixels"][part]["conifer"] for part in ("train", "validation", "test"))


def test_report_and_picture_are_written_and_the_words_hold_the_numbers(woods: Path, tmp_path: Path) -> None:
    report = report_labels(request_of(woods, tmp_path, date="2021-06-30"))
    assert json.loads((tmp_path / "report" / "labels.json").read_text()) == report
    assert imread(tmp_path / "report" / "labels.png").shape[1] > 500
    words = describe_labels(report)
    assert "600 pixels of the area, 6.0 ha" in words
    assert "labels of 2021-06-30" in words
    assert "cubes: 0 of 1 tiles" in words


def test_the_picture_shows_classes_and_reasons(woods: Path, tmp_path: Path) -> None:
    report_labels(request_of(woods, tmp_path, min_area_ha=0.1))
    shown = imread(tmp_path / "report" / "labels.png")[:, :, :3]

    def there(colour: str) -> bool:
        wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        return bool((np.abs(shown - wanted).max(axis=2) < 0.004).sum() > 20)

    assert there("#1d5b3a")  # conifer
    assert there("#d0342c")  # overlap
    assert there("#c9c9d6")  # a class that is ignored
    assert not there("#8c7aa9")  # no ignore area is given, so the legend has none


def test_labels_that_leave_nothing_say_why(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["ignore"], [pixels(0, 0, 30, 20)])
    with pytest.raises(ConfigurationError, match=r"a\.gpkg: no pixel of the area has a class left.*ignored_value 600"):
        report_labels(request_of(path, tmp_path))
    far = write_polygons(tmp_path / "b.gpkg", ["conifer"], [pixels(3000, 0, 3030, 20)])
    with pytest.raises(ConfigurationError, match="no polygon lies in the area"):
        report_labels(request_of(far, tmp_path))
