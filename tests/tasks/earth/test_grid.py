"""Which tiles an area needs, in which zone, and which part of each."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import pytest
from factories import romania_grids
from hypothesis import given
from hypothesis import strategies as st
from ingest_cases import area_of, grid
from odc.geo.geom import Geometry
from shapely.geometry import LineString, Polygon, box, mapping

from tasks.earth.grid import read_area, tiles_of
from tasks.errors import ConfigurationError


def test_an_area_inside_a_block_needs_that_block() -> None:
    (tile,) = tiles_of(area_of(grid()))
    assert tile.path == "earth/utm30n-10m/x0060_y0556"
    assert tile.window == (256, 512, 256, 512)
    assert tile.geobox.shape == (1024, 1024)
    assert (tile.geobox.affine.c, tile.geobox.affine.f) == (614_400.0, 5_703_680.0)


def test_a_window_grows_by_whole_blocks() -> None:
    (tile,) = tiles_of(area_of(grid(240, 300, 220)))
    assert tile.window == (0, 512, 256, 768)


def test_an_area_over_a_tiles_border_needs_both_tiles() -> None:
    tiles = tiles_of(area_of(grid(256, 900, 256)))
    assert [tile.name for tile in tiles] == ["x0060_y0556", "x0061_y0556"]
    assert [tile.window for tile in tiles] == [(256, 512, 768, 1024), (256, 512, 0, 256)]


def test_an_area_over_a_zones_border_needs_tiles_of_both_zones() -> None:
    tiles = tiles_of(dict(mapping(box(-0.02, 51.4, 0.02, 51.42))))
    assert {tile.grid for tile in tiles} == {"utm30n-10m", "utm31n-10m"}
    west = [tile for tile in tiles if tile.grid == "utm30n-10m"]
    part = Geometry(mapping(box(-0.02, 51.4, -0.001, 51.42)), "EPSG:4326").to_crs("EPSG:32630")
    assert any(tile.geobox.extent.contains(part.centroid) for tile in west)


def test_the_southern_half_has_its_own_zones() -> None:
    tiles = tiles_of(dict(mapping(box(36.99, -0.01, 37.0, 0.01))))
    assert {tile.grid for tile in tiles} == {"utm37n-10m", "utm37s-10m"}


def test_a_named_crs_is_one_grid_whatever_the_zones() -> None:
    ten = romania_grids()[10]
    tiles = tiles_of(area_of(ten, margin=5), crs="EPSG:3035")
    assert {tile.grid for tile in tiles} == {"epsg3035-10m"}
    covered = sum(tile.geobox.extent.geom.intersection(ten.extent.geom).area for tile in tiles)
    assert covered == pytest.approx(ten.extent.geom.area)
    assert all(tile.geobox.affine.c % 10 == 0 and tile.geobox.affine.f % 10 == 0 for tile in tiles)


def test_another_resolution_has_a_grid_of_its_own() -> None:
    (tile,) = tiles_of(area_of(grid()), resolution=20.0)
    assert tile.path == "earth/utm30n-20m/x0030_y0278"
    assert tile.geobox.resolution.x == 20.0


@given(st.integers(0, 1700), st.integers(0, 1700), st.integers(30, 330))
def test_the_windows_cover_the_area_once(row: int, column: int, size: int) -> None:
    wanted = grid(row, column, size)
    tiles = tiles_of(area_of(wanted, margin=20))
    inner = Geometry(area_of(wanted, margin=25), "EPSG:4326").to_crs("EPSG:32630").geom
    parts = [
        tile.geobox[tile.window[0] : tile.window[1], tile.window[2] : tile.window[3]].extent.geom for tile in tiles
    ]
    assert sum(part.intersection(inner).area for part in parts) == pytest.approx(inner.area, rel=1e-9)
    assert all(edge % 256 == 0 for tile in tiles for edge in tile.window)
    assert len({tile.path for tile in tiles}) == len(tiles)


@pytest.mark.parametrize(
    ("crs", "words"),
    [
        ("EPSG:4326", "not projected in metres"),
        ("EPSG:999999", "no such coordinate"),
        ("EPSG:2225", "not projected in metres"),
    ],
)
def test_a_crs_that_is_not_in_metres_is_refused(crs: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        tiles_of(area_of(grid()), crs=crs)


def test_an_area_at_the_pole_lies_in_no_zone() -> None:
    with pytest.raises(ConfigurationError, match="lies in no UTM zone; name a CRS"):
        tiles_of(dict(mapping(box(0, 85, 10, 88))))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3,x", "four numbers"),
        ("3,2,1,4", "min below max"),
        ("-190,2,1,4", "in degrees"),
        ("600000,5700000,610000,5710000", "in degrees"),
        ("nowhere.geojson", "neither a file nor"),
        ("1,2,3", "neither a file nor"),
    ],
)
def test_an_area_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_area(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{ not json", "not JSON"),
        ('{"type": "FeatureCollection", "features": []}', "holds no feature|not a vector file"),
        (
            json.dumps({"type": "Feature", "properties": {}, "geometry": mapping(LineString([(0, 0), (1, 1)]))}),
            "holds no polygon",
        ),
        ("[1, 2]", "not GeoJSON"),
        ('{"type": "Polygon"}', "not a polygon"),
        ('{"type": "Polygon", "coordinates": []}', "holds no polygon"),
        (json.dumps(mapping(box(600_000, 5_700_000, 601_000, 5_701_000))), "not in degrees"),
    ],
)
def test_a_file_that_holds_no_area_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        read_area(str(path))


def test_a_box_a_bare_geometry_a_feature_and_a_geopackage_are_one_area(tmp_path: Path) -> None:
    polygon = box(-1.3, 51.3, -1.2, 51.4)
    (tmp_path / "bare.json").write_text(json.dumps(mapping(polygon)))
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(polygon)}
    (tmp_path / "feature.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    table = geopandas.GeoDataFrame(geometry=[polygon], crs="EPSG:4326")
    table.to_file(tmp_path / "area.gpkg")
    expected = tiles_of(read_area("-1.3,51.3,-1.2,51.4"))
    for name in ("bare.json", "feature.geojson", "area.gpkg"):
        assert tiles_of(read_area(str(tmp_path / name))) == expected, name


def test_a_file_in_another_crs_is_brought_to_degrees(tmp_path: Path) -> None:
    table = geopandas.GeoDataFrame(geometry=[Polygon(grid().extent.geom.buffer(-60).exterior)], crs="EPSG:32630")
    table.to_file(tmp_path / "area.gpkg")
    (tile,) = tiles_of(read_area(str(tmp_path / "area.gpkg")))
    assert tile.window == (256, 512, 256, 512)


def test_a_file_without_a_crs_is_refused(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)]).to_file(tmp_path / "area.shp")
    with pytest.raises(ConfigurationError, match="states no coordinate reference system"):
        read_area(str(tmp_path / "area.shp"))
