"""A published map against labels and samples: scores worked out by hand, labels read by the same rules as in training."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import box

from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT, LandClass
from storage.location import resolve
from tasks.earth.accuracy import NOT_ESTIMATED
from tasks.earth.assess import sample_map, score_map
from tasks.earth.canopy_product import MapSpec, write_map
from tasks.earth.labels import LabelRules
from tasks.earth.layers import map_layers
from tasks.earth.product import Lineage, publish_staged
from tasks.earth.staging import create_staging, write_staged_region
from tasks.errors import ConfigurationError

GRID = GeoBox((100, 80), Affine(10, 0, 600_000, 0, -10, 5_700_000), "EPSG:32630")
WOOD = (slice(0, 100), slice(0, 20))
"""Mapped as canopy: 2,000 of 8,000 pixels."""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a published map of canopy or not."""
    return publish(tmp_path_factory.mktemp("assess"), CANOPY_OR_NOT)


def publish(root: Path, classes: tuple[LandClass, ...]) -> str:
    """Publish a map of a wood, of the last of the classes, and return its folder."""
    canopy = np.full(GRID.shape, 1000, "uint16")
    canopy[WOOD] = 9000
    others = [np.zeros_like(canopy)] * (len(classes) - 2)
    arrays = {
        "class": np.where(canopy > 5000, len(classes) - 1, 0).astype("uint8"),
        "probability": np.stack([10000 - canopy, *others, canopy]),
        "canopy_probability": canopy,
        "clear_count": np.full(GRID.shape, 30, "uint16"),
        "last_clear_date": np.full(GRID.shape, 20000, "uint16"),
    }
    staging = resolve(root / "staging")
    create_staging(staging, GRID, map_layers(classes))
    write_staged_region(staging, {"y": slice(0, 100), "x": slice(0, 80)}, arrays)
    lineage = Lineage((), {}, "ab", "cd", {"canopus": "0.1.0"}, "run", datetime(2025, 1, 1, tzinfo=UTC))
    spec = MapSpec("canopy", "A map", "2023-01-01", "2024-12-31", GRID, classes, lineage)
    receipt = publish_staged(
        resolve(root / "warehouse"),
        spec.product,
        staging,
        rasters=spec.rasters,
        write=lambda folder, sources: write_map(folder, spec, sources),
    )
    return str(Path(receipt.item_url).parent)


def write_cover(path: Path, columns: int) -> str:
    """Write a raster of tree cover: 85 % in the first columns, 40 % elsewhere."""
    values = np.full(GRID.shape, 40, "uint8")
    values[:, :columns] = 85
    profile = {"driver": "GTiff", "height": 100, "width": 80, "count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(path, "w", crs="EPSG:32630", transform=GRID.affine, **profile) as raster:
        raster.write(values, 1)
    return str(path)


def test_a_raster_of_tree_cover_is_cut_at_a_threshold(product: str, tmp_path: Path) -> None:
    labels = write_cover(tmp_path / "cover.tif", 40)
    scores = score_map(product, labels=labels, rules=LabelRules(at_least=70, margin=0)).scores
    assert scores["confusion"]["counts"] == [[4000, 2000], [0, 2000]]
    assert scores["classes"]["none"]["prevalence"] == 0.5
    # half of the canopy is mapped and all of that is right; the rest is tied with the open land
    assert scores["classes"]["canopy"]["roc_auc"] == pytest.approx(0.75)


def test_a_threshold_takes_the_kinds_of_a_map_together(product: str, tmp_path: Path) -> None:
    labels, rules = write_cover(tmp_path / "cover.tif", 40), LabelRules(at_least=70, margin=0)
    of_kinds = score_map(publish(tmp_path, CANOPY_CLASSES), labels=labels, rules=rules).scores
    of_two = score_map(product, labels=labels, rules=rules).scores
    assert of_kinds["confusion"] == of_two["confusion"]
    for name, found in of_two["classes"].items():
        for key in ("roc_auc", "pr_auc", "f1", "expected_calibration_error"):
            assert of_kinds["classes"][name][key] == pytest.approx(found[key]), (name, key)


def test_a_margin_leaves_out_pixels_beside_a_boundary(product: str, tmp_path: Path) -> None:
    labels = write_cover(tmp_path / "cover.tif", 20)
    scores = score_map(product, labels=labels, rules=LabelRules(at_least=70, margin=1)).scores
    assert scores["pixels"] == 8000 - 2 * 100
    assert scores["classes"]["canopy"]["pr_auc"] == pytest.approx(1.0)


def test_values_of_polygons_are_translated(product: str, tmp_path: Path) -> None:
    table = geopandas.GeoDataFrame(
        {"kind": ["Wald"]}, geometry=[box(600_000, 5_699_000, 600_200, 5_700_000)], crs="EPSG:32630"
    )
    path = tmp_path / "woods.gpkg"
    table.to_file(path)
    rules = LabelRules("kind", {"Wald": "canopy"}, outside="none", margin=0)
    scores = score_map(product, labels=str(path), rules=rules).scores
    assert scores["confusion"]["counts"] == [[6000, 0], [0, 2000]]


def test_without_a_sample_mapped_areas_are_called_that(product: str, tmp_path: Path) -> None:
    report = score_map(product, labels=write_cover(tmp_path / "cover.tif", 20), rules=LabelRules(at_least=70))
    assert report.scores["mapped_areas"]["mapped_hectares"] == {"none": 60.0, "canopy": 20.0}
    assert NOT_ESTIMATED in report.text
    assert "estimates" not in report.scores


def test_a_perfect_sample_estimates_the_mapped_areas(product: str, tmp_path: Path) -> None:
    path = tmp_path / "sample.gpkg"
    sample_map(product, path, size=80, at_least=20, seed=1)
    drawn = geopandas.read_file(path)
    drawn["reference"] = drawn["map_class"]
    drawn.to_file(path)
    report = score_map(product, sample=path)
    assert report.scores["estimates"]["overall"]["value"] == pytest.approx(1.0)
    shares = [share["value"] for share in report.scores["estimates"]["area_share"]]
    assert shares == pytest.approx([0.75, 0.25])
    assert NOT_ESTIMATED not in report.text


def test_a_map_is_scored_against_something(product: str) -> None:
    with pytest.raises(ConfigurationError, match="--labels"):
        score_map(product)
