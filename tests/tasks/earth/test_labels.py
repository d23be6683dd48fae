"""Labels drawn by hand, read back on grids; and splits that keep neighbours together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from label_cases import CRS, GRID, LEFT, TOP, pixels, write_polygons, write_raster
from odc.geo.geobox import GeoBox
from shapely.affinity import translate
from shapely.geometry import Point, box
from shapely.ops import unary_union

from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT, NO_CLASS, LandClass
from tasks.earth.label_rules import LabelRules, Reason
from tasks.earth.labels import open_labels
from tasks.errors import ConfigurationError


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


def test_a_threshold_cuts_in_two_and_is_no_label_of_kinds(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "cover.tif", np.full((2, 2), 80, "uint8"))
    with pytest.raises(ConfigurationError, match="the classes are none, broadleaved, conifer: take two classes"):
        open_labels(path, CANOPY_CLASSES, LabelRules(at_least=70))


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


def test_kinds_of_canopy_are_canopy_to_classes_without_kinds_and_nothing_else_is(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["larch", "broadleaved"], [pixels(0, 0, 9, 9), pixels(12, 0, 20, 9)])
    rules = LabelRules(values={"larch": "conifer"}, outside="none", margin=0)
    assert open_labels(path, CANOPY_OR_NOT, rules).on(GRID)[3, [3, 15, 25]].tolist() == [1, 1, 0]
    scrub = (LandClass(0, "none", "None", "#000000"), LandClass(1, "scrub", "Scrub", "#ffffff"))
    with pytest.raises(ConfigurationError, match="mapped to conifer; the classes are none, scrub, ignore"):
        open_labels(path, scrub, rules)


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


def test_polygons_below_the_mapping_unit_are_unknown_and_not_none(tmp_path: Path) -> None:
    # 0.24 ha, 0.25 ha, and 0.45 ha of which 0.2 ha are a strip of 20 m
    shapes = [pixels(1, 1, 5, 7), pixels(7, 1, 12, 6), unary_union([pixels(14, 1, 19, 6), pixels(19, 3, 29, 5)])]
    path = write_polygons(tmp_path / "a.gpkg", ["conifer"] * 3, shapes)
    rules = LabelRules(outside="none", margin=0, min_area_ha=0.25, min_width_m=25)
    known = open_labels(path, CANOPY_CLASSES, rules).explained(GRID)
    assert (known.classes[1:7, 1:5] == NO_CLASS).all()
    assert (known.classes[1:6, 7:12] == 2).all()
    assert (known.classes[1:6, 14:19] == 2).all()
    assert (known.classes[3:5, 19:29] == NO_CLASS).all()
    assert (known.reason == Reason.BELOW_UNIT).sum() == 24 + 20
    assert (known.classes == 0).sum() == 600 - 24 - 20 - 25 - 25


def test_an_opening_takes_no_corners(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["conifer"], [pixels(5, 5, 15, 15)])
    known = open_labels(path, CANOPY_CLASSES, LabelRules(margin=0, min_width_m=99)).explained(GRID)
    assert (known.classes == 2).sum() == 100


def test_margins_are_kept_beside_what_is_below_the_mapping_unit(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["conifer"], [pixels(10, 8, 13, 11)])
    known = open_labels(path, CANOPY_CLASSES, LabelRules(outside="none", margin=1, min_area_ha=1)).explained(GRID)
    assert (known.reason == Reason.MARGIN).sum() == 25 - 9
    assert (known.classes == 0).sum() == 600 - 25


def test_patches_of_a_raster_below_the_mapping_unit_are_unknown(tmp_path: Path) -> None:
    cells = np.zeros((20, 30), np.uint8)
    cells[2:5, 2:6] = 1  # 0.12 ha
    cells[8:12, 2:6] = 1  # 0.16 ha
    cells[5, 20:29] = 1  # 10 m wide
    cells[9:12, 20:28] = 1
    cells[12, 28] = 1  # touches by a corner only
    path = write_raster(tmp_path / "a.tif", cells, pixel=10, nodata=None)
    rules = LabelRules(margin=0, min_area_ha=0.13, min_width_m=20)
    known = open_labels(path, CANOPY_CLASSES, rules).explained(GRID)
    expected = np.zeros((20, 30), bool)
    expected[8:12, 2:6] = expected[9:12, 20:28] = True
    np.testing.assert_array_equal(known.classes == 1, expected)
    np.testing.assert_array_equal(known.reason == Reason.BELOW_UNIT, (cells == 1) & ~expected)


@settings(max_examples=10, deadline=None)
@given(row=st.integers(0, 12), column=st.integers(0, 20), seed=st.integers(0, 99))
def test_any_cut_of_a_raster_keeps_the_same_patches(
    tmp_path_factory: pytest.TempPathFactory, row: int, column: int, seed: int
) -> None:
    cells = (np.random.default_rng(seed).random((20, 30)) < 0.6).astype(np.uint8)
    path = write_raster(tmp_path_factory.mktemp("patches") / "a.tif", cells, pixel=10, nodata=None)
    source = open_labels(path, CANOPY_CLASSES, LabelRules(margin=1, min_area_ha=0.08, min_width_m=15))
    cut = (slice(row, row + 8), slice(column, column + 9))
    np.testing.assert_array_equal(source.on(GRID[cut]), source.on(GRID)[cut])


@pytest.mark.parametrize("suffix", ["gpkg", "tif"])
def test_in_ignore_areas_nothing_is_known(tmp_path: Path, suffix: str) -> None:
    ignore = write_polygons(tmp_path / "ignore.gpkg", ["x"], [pixels(3, 2, 9, 12)])
    if suffix == "gpkg":
        path = write_polygons(tmp_path / "a.gpkg", ["conifer"], [pixels(0, 0, 30, 20)])
    else:
        path = write_raster(tmp_path / "a.tif", np.full((20, 30), 2, np.uint8), pixel=10, nodata=None)
    known = open_labels(path, CANOPY_CLASSES, LabelRules(ignore=str(ignore))).explained(GRID)
    expected = np.zeros((20, 30), bool)
    expected[2:12, 3:9] = True
    np.testing.assert_array_equal(known.reason == Reason.IGNORE_AREA, expected)
    # an ignore area is no boundary between classes
    assert (known.classes[1:-1, 1:-1][~expected[1:-1, 1:-1]] == 2).all()


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_polygons_newer_than_the_labels_or_too_old_are_unknown(tmp_path: Path, suffix: str) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["conifer"] * 5, "year": [2022, 2021, 2012, 2011, None]},
        geometry=[pixels(5 * k, 0, 5 * k + 5, 20) for k in range(5)],
        crs=CRS,
    )
    path = tmp_path / f"a.{suffix}"
    frame.to_file(path)
    rules = LabelRules(margin=0, outside="none", date="2021-06-30", date_field="year", max_age_years=9)
    known = open_labels(path, CANOPY_CLASSES, rules).explained(GRID)
    assert known.classes[0, ::5].tolist() == [NO_CLASS, 2, 2, NO_CLASS, 2, 0]
    assert known.reason[0, [0, 15]].tolist() == [Reason.DATE] * 2


def test_dates_of_polygons_may_be_days(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["conifer"] * 3, "seen": ["2021-07-01", "2021-06-30", " "]},
        geometry=[pixels(5 * k, 0, 5 * k + 5, 20) for k in range(3)],
        crs=CRS,
    )
    frame.to_file(tmp_path / "a.gpkg")
    rules = LabelRules(margin=0, date="2021-06-30", date_field="seen")
    assert open_labels(tmp_path / "a.gpkg", CANOPY_CLASSES, rules).on(GRID)[0, [0, 5, 10]].tolist() == [NO_CLASS, 2, 2]
    frame["seen"] = "last spring"
    frame.to_file(tmp_path / "b.gpkg")
    with pytest.raises(ConfigurationError, match=r"b\.gpkg: field 'seen' holds last spring"):
        open_labels(tmp_path / "b.gpkg", CANOPY_CLASSES, rules)


@pytest.mark.parametrize(
    ("suffix", "crs"), [("gpkg", "EPSG:32633"), ("geojson", "EPSG:27700"), ("shp", "EPSG:3035"), ("shp", "EPSG:27700")]
)
def test_degrees_said_to_be_metres_are_refused(tmp_path: Path, suffix: str, crs: str) -> None:
    path = write_polygons(tmp_path / f"a.{suffix}", ["conifer"], [box(-4.1, 50.2, -4.0, 50.3)], crs=crs)
    with pytest.raises(ConfigurationError, match=rf"a\.{suffix}: coordinates .* look like degrees"):
        open_labels(path, CANOPY_CLASSES)


def test_metres_said_to_be_degrees_or_of_another_country_are_refused(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["conifer"], [pixels(0, 0, 9, 9)], crs="EPSG:4326")
    with pytest.raises(ConfigurationError, match="they are no degrees"):
        open_labels(path, CANOPY_CLASSES)
    raster = write_raster(tmp_path / "a.tif", np.ones((5, 5), np.uint8), crs="EPSG:4326")
    with pytest.raises(ConfigurationError, match=r"a\.tif: coordinates .* they are no degrees"):
        open_labels(raster, CANOPY_CLASSES)
    # northing 5,000 km is not in Great Britain
    path = write_polygons(tmp_path / "b.gpkg", ["conifer"], [pixels(0, 0, 9, 9)], crs="EPSG:27700")
    with pytest.raises(ConfigurationError, match="which is used in United Kingdom"):
        open_labels(path, CANOPY_CLASSES)


def test_coordinates_in_the_next_zone_are_no_error(tmp_path: Path) -> None:
    far = translate(pixels(0, 0, 9, 9), xoff=600_000)
    open_labels(write_polygons(tmp_path / "a.gpkg", ["conifer"], [far]), CANOPY_CLASSES)


def test_ignore_areas_are_checked_as_labels_are(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "a.gpkg", ["conifer"], [pixels(0, 0, 9, 9)])
    with pytest.raises(ConfigurationError, match=r"nowhere\.gpkg: not readable"):
        open_labels(path, CANOPY_CLASSES, LabelRules(ignore=str(tmp_path / "nowhere.gpkg")))
    wrong = write_polygons(tmp_path / "w.gpkg", ["x"], [box(3, 50, 4, 51)])
    with pytest.raises(ConfigurationError, match=r"w\.gpkg: coordinates .* look like degrees"):
        open_labels(path, CANOPY_CLASSES, LabelRules(ignore=str(wrong)))


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_files_of_every_format_name_field_and_value(tmp_path: Path, suffix: str) -> None:
    path = write_polygons(tmp_path / f"a.{suffix}", ["elm"], [pixels(0, 0, 5, 5)])
    with pytest.raises(ConfigurationError, match=rf"a\.{suffix}: field 'class' holds elm; known are none"):
        open_labels(path, CANOPY_CLASSES)
    with pytest.raises(ConfigurationError, match=rf"a\.{suffix}: no field 'kind'; it has class"):
        open_labels(path, CANOPY_CLASSES, LabelRules(class_field="kind"))
    far = open_labels(path, CANOPY_CLASSES, LabelRules(values={"elm": "broadleaved"}))
    with pytest.raises(ConfigurationError, match=rf"a\.{suffix}: no polygon lies in the area"):
        far.require_overlap([GRID.translate_pix(3000, 0)])


def test_a_raster_with_an_unknown_class_names_it(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.full((5, 5), 7, np.uint8))
    with pytest.raises(ConfigurationError, match=r"a\.tif: the raster holds 7; known are none"):
        open_labels(path, CANOPY_CLASSES)
    with pytest.raises(ConfigurationError, match=r"a\.tif: date_field year is an attribute of polygons"):
        open_labels(path, CANOPY_CLASSES, LabelRules(date="2020-01-01", date_field="year"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"date_field": "year"}, "which day the labels are of"),
        ({"date": "2020-01-01", "max_age_years": 3.0}, "date_field"),
        ({"date": "2020"}, "wanted is YYYY-MM-DD"),
        ({"min_area_ha": -1.0}, "cannot be negative"),
    ],
)
def test_rules_that_cannot_be_say_why(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LabelRules(**change)


def test_a_file_without_polygons_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(ConfigurationError, match=r"a\.geojson: holds no"):
        open_labels(tmp_path / "a.geojson", CANOPY_CLASSES)
