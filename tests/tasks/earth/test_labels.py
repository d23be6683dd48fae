"""Labels drawn by hand, read back on grids; and splits that keep neighbours together."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy.ndimage import minimum_filter
from shapely.geometry import Point, box

from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT, NO_CLASS
from tasks.earth.label_rules import LabelRules
from tasks.earth.label_splits import blocked_folds
from tasks.earth.labels import open_labels
from tasks.errors import ConfigurationError

CRS = "EPSG:32633"
LEFT, TOP = 500_000, 5_000_000
GRID = GeoBox((20, 30), Affine(10, 0, LEFT, 0, -10, TOP), CRS)


def pixels(column: float, row: float, to_column: float, to_row: float) -> object:
    """Return the rectangle between two pixel corners of `GRID`."""
    return box(LEFT + 10 * column, TOP - 10 * to_row, LEFT + 10 * to_column, TOP - 10 * row)


def write_polygons(path: Path, values: list[object], shapes: list[object], *, crs: str | None = CRS) -> Path:
    geopandas.GeoDataFrame({"class": values}, geometry=shapes, crs=crs).to_file(path)
    return path


def write_raster(
    path: Path, values: np.ndarray, *, pixel: float = 20, nodata: float | None = 255, crs: str | None = CRS
) -> Path:
    profile = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype,
    }
    transform = Affine(pixel, 0, LEFT, 0, -pixel, TOP)
    with rasterio.open(path, "w", **profile, transform=transform, crs=crs, nodata=nodata) as target:
        target.write(values, 1)
    return path


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_pixels_belong_to_the_polygon_that_holds_their_centre(tmp_path: Path, suffix: str) -> None:
    # 0.4 of a pixel does not reach a centre, 0.6 does
    path = write_polygons(tmp_path / f"woods.{suffix}", ["conifer"], [pixels(4, 3, 9.4, 8.6)])
    labels = open_labels(path, CANOPY_CLASSES, LabelRules(margin=0)).on(GRID)
    expected = np.full((20, 30), NO_CLASS, np.uint8)
    expected[3:9, 4:9] = 2
    np.testing.assert_array_equal(labels, expected)


def test_the_margin_eats_both_sides_of_a_boundary(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "woods.gpkg", ["broadleaved"], [pixels(10, 5, 20, 15)])
    labels = open_labels(path, CANOPY_CLASSES, LabelRules(outside="none", margin=2)).on(GRID)
    assert (labels[7:13, 12:18] == 1).all()
    assert (labels == 1).sum() == 36
    ring = np.zeros((20, 30), bool)
    ring[3:17, 8:22] = True
    ring[7:13, 12:18] = False
    np.testing.assert_array_equal(labels == NO_CLASS, ring)
    assert (labels[~ring & (labels != 1)] == 0).all()


def test_polygons_of_one_class_side_by_side_have_no_boundary(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["conifer", "conifer"], [pixels(0, 0, 15, 20), pixels(15, 0, 30, 20)])
    assert (open_labels(path, CANOPY_CLASSES).on(GRID)[1:-1, 1:-1] == 2).all()


def test_overlapping_polygons_of_different_classes_leave_nothing_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_polygons(
        tmp_path / "a.gpkg", ["conifer", "broadleaved"], [pixels(0, 0, 12, 20), pixels(10, 0, 30, 20)]
    )
    caplog.set_level("INFO", logger="tasks.earth.label_polygons")
    labels = open_labels(path, CANOPY_CLASSES, LabelRules(margin=0)).on(GRID)
    assert (labels[:, :10] == 2).all()
    assert (labels[:, 10:12] == NO_CLASS).all()
    assert (labels[:, 12:] == 1).all()
    assert "40 pixels" in caplog.text


def test_values_are_mapped_or_ignored(tmp_path: Path) -> None:
    path = write_polygons(
        tmp_path / "a.gpkg", ["Fichte", "Kahl", "1"], [pixels(0, 0, 5, 20), pixels(5, 0, 10, 20), pixels(10, 0, 15, 20)]
    )
    rules = LabelRules(values={"Fichte": "conifer", "Kahl": "ignore"}, outside="none", margin=0)
    labels = open_labels(path, CANOPY_CLASSES, rules).on(GRID)
    assert [int(labels[0, column]) for column in (0, 5, 10, 15)] == [2, NO_CLASS, 1, 0]


def test_polygons_in_another_crs_land_where_they_should(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"class": ["conifer"]}, geometry=[pixels(3, 4, 12, 14)], crs=CRS).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "a.geojson")
    labels = open_labels(tmp_path / "a.geojson", CANOPY_CLASSES, LabelRules(margin=0)).on(GRID)
    expected = np.zeros((20, 30), bool)
    expected[4:14, 3:12] = True
    np.testing.assert_array_equal(labels == 2, expected)


@settings(max_examples=15, deadline=None)
@given(row=st.integers(0, 15), column=st.integers(0, 25), margin=st.integers(0, 3))
def test_any_cut_of_the_grid_gives_the_same_labels(
    tmp_path_factory: pytest.TempPathFactory, row: int, column: int, margin: int
) -> None:
    path = write_polygons(
        tmp_path_factory.mktemp("cut") / "a.gpkg",
        ["conifer", "broadleaved"],
        [pixels(2, 2, 11, 9), pixels(11, 6, 25, 18)],
    )
    source = open_labels(path, CANOPY_CLASSES, LabelRules(outside="none", margin=margin))
    cut = (slice(row, row + 5), slice(column, column + 5))
    np.testing.assert_array_equal(source.on(GRID[cut]), source.on(GRID)[cut])


def test_a_coarse_raster_is_laid_onto_the_grid_by_nearest_neighbour(tmp_path: Path) -> None:
    cells = np.random.default_rng(0).integers(0, 101, (10, 15)).astype(np.uint8)
    cells[0, 0] = 255
    path = write_raster(tmp_path / "cover.tif", cells)
    labels = open_labels(path, CANOPY_OR_NOT, LabelRules(at_least=70, margin=0)).on(GRID)
    expected = np.where(cells == 255, NO_CLASS, cells >= 70).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(labels, expected)


def test_a_grid_a_little_off_the_raster_takes_the_same_cells(tmp_path: Path) -> None:
    cells = np.random.default_rng(0).integers(0, 101, (10, 15)).astype(np.uint8)
    source = open_labels(write_raster(tmp_path / "cover.tif", cells), CANOPY_OR_NOT, LabelRules(at_least=70, margin=0))
    moved = GeoBox((20, 30), Affine(10, 0, LEFT - 2.6, 0, -10, TOP + 4.2), CRS)
    np.testing.assert_array_equal(source.on(moved), source.on(GRID))


def test_a_class_raster_is_mapped_and_its_edge_is_no_boundary(tmp_path: Path) -> None:
    cells = np.full((20, 30), 311, np.int16)
    cells[:, 15:] = 312
    path = write_raster(tmp_path / "clc.tif", cells, pixel=10, nodata=None)
    rules = LabelRules(values={"311": "broadleaved", "312": "conifer"}, margin=1)
    labels = open_labels(path, CANOPY_CLASSES, rules).on(GRID)
    assert (labels[:, :14] == 1).all()
    assert (labels[:, 14:16] == NO_CLASS).all()
    assert (labels[:, 16:] == 2).all()


def test_beyond_the_raster_nothing_is_known(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((5, 5), np.uint8), pixel=20, nodata=None)
    labels = open_labels(path, CANOPY_CLASSES, LabelRules(margin=0)).on(GRID)
    assert (labels[:10, :10] == 1).all()
    assert (labels == NO_CLASS).sum() == 600 - 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_field": "species"}, "no field 'species'; it has class"),
        ({"outside": "water"}, "mapped to water"),
        ({"values": {"elm": "elms"}}, "mapped to elms"),
        ({}, "holds elm; known are none, broadleaved, conifer, ignore"),
    ],
)
def test_what_is_no_class_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["elm"], [pixels(0, 0, 5, 5)])
    with pytest.raises(ConfigurationError, match=message):
        open_labels(path, CANOPY_CLASSES, LabelRules(**change))


def test_unmapped_values_may_be_ignored(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["elm", "conifer"], [pixels(0, 0, 5, 5), pixels(5, 0, 9, 5)])
    labels = open_labels(path, CANOPY_CLASSES, LabelRules(unmapped="ignore", margin=0)).on(GRID)
    assert set(np.unique(labels)) == {2, NO_CLASS}


def test_files_that_cannot_be_labels_say_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.gpkg: not readable"):
        open_labels(tmp_path / "missing.gpkg", CANOPY_CLASSES)
    with pytest.raises(ConfigurationError, match=r"missing\.tif: neither"):
        open_labels(tmp_path / "missing.tif", CANOPY_CLASSES)
    points = write_polygons(tmp_path / "points.gpkg", ["conifer"], [Point(LEFT, TOP)])
    with pytest.raises(ConfigurationError, match="must be polygons, not Point"):
        open_labels(points, CANOPY_CLASSES)
    continuous = write_raster(tmp_path / "height.tif", np.random.default_rng(0).random((50, 50)).astype(np.float32))
    with pytest.raises(ConfigurationError, match="threshold"):
        open_labels(continuous, CANOPY_CLASSES)


def test_a_file_without_crs_is_refused(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.shp", ["conifer"], [pixels(0, 0, 5, 5)], crs=None)
    with pytest.raises(ConfigurationError, match="has no CRS"):
        open_labels(path, CANOPY_CLASSES)
    with pytest.raises(ConfigurationError, match="has no CRS"):
        open_labels(write_raster(tmp_path / "a.tif", np.ones((5, 5), np.uint8), crs=None), CANOPY_CLASSES)


def test_labels_elsewhere_and_labels_in_another_unit_are_refused(tmp_path: Path) -> None:
    far = GRID.translate_pix(100_000, 0)
    polygons = open_labels(write_polygons(tmp_path / "a.gpkg", ["conifer"], [pixels(0, 0, 5, 5)]), CANOPY_CLASSES)
    polygons.require_overlap([far, GRID])
    with pytest.raises(ConfigurationError, match="no polygon lies in the area"):
        polygons.require_overlap([far])
    fraction = write_raster(tmp_path / "a.tif", np.random.default_rng(0).random((10, 15)).astype(np.float32))
    cover = open_labels(fraction, CANOPY_OR_NOT, LabelRules(at_least=70))
    with pytest.raises(ConfigurationError, match="in the raster's unit"):
        cover.require_overlap([GRID])
    with pytest.raises(ConfigurationError, match="no value anywhere"):
        cover.require_overlap([far])


def test_folds_keep_blocks_whole_and_share_them_out() -> None:
    folds = blocked_folds((100, 70), block_size=20, folds=5, seed=3)
    assert folds.shape == (100, 70)
    for row in range(0, 100, 20):
        for column in range(0, 70, 20):
            assert np.unique(folds[row : row + 20, column : column + 20]).size == 1
    assert np.bincount(folds[::20, ::20].ravel()).tolist() == [4, 4, 4, 4, 4]
    np.testing.assert_array_equal(folds, blocked_folds((100, 70), block_size=20, folds=5, seed=3))
    assert (folds != blocked_folds((100, 70), block_size=20, folds=5, seed=4)).any()


def test_a_gap_keeps_folds_apart() -> None:
    folds = blocked_folds((60, 60), block_size=20, folds=3, seed=0, gap=2)
    for fold in range(3):
        near = minimum_filter((folds != fold).astype(np.uint8), 5, mode="constant", cval=1) == 0
        assert not ((folds != fold) & (folds >= 0) & near).any()
    assert (folds[8:12, 8:12] >= 0).all()


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="smaller blocks"):
        blocked_folds((10, 10), block_size=20, folds=2, seed=0)
