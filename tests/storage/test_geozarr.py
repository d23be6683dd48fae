from __future__ import annotations

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from storage import geozarr
from storage.errors import SchemaMismatch
from storage.location import resolve

GRIDS = {
    "utm": GeoBox((60, 40), Affine(10, 0, 399960, 0, -10, 5600040), "EPSG:32633"),
    "laea": GeoBox((7, 9), Affine(10, 0, 5300120, 0, -10, 2700450), "EPSG:3035"),
    "british": GeoBox((5, 5), Affine(10, 0, 200000, 0, -10, 60000), "EPSG:27700"),
    "geographic": GeoBox((4, 8), Affine(0.5, 0, -5, 0, -0.25, 51), "EPSG:4326"),
    "no code": GeoBox((4, 8), Affine(10, 0, 0, 0, -10, 0), "+proj=laea +lat_0=46 +lon_0=25 +datum=WGS84 +units=m"),
}


@pytest.fixture(params=GRIDS, ids=lambda name: str(name).replace(" ", "-"))
def geobox(request: pytest.FixtureRequest) -> GeoBox:
    return GRIDS[request.param]


def dataset_on(geobox: GeoBox) -> xr.Dataset:
    rows, columns = (int(size) for size in geobox.shape)
    values = np.arange(rows * columns, dtype="uint16").reshape(rows, columns)
    return geozarr.georeference(xr.Dataset({"height": (("y", "x"), values)}), geobox)


def test_rioxarray_reads_back_crs_and_transform_from_zarr(geobox: GeoBox, tmp_path):
    store = resolve(tmp_path / "a.zarr").zarr_store()
    dataset_on(geobox).to_zarr(store, zarr_format=3, consolidated=False)
    read = xr.open_zarr(store, consolidated=False, decode_coords="all")["height"]
    assert CRS.from_user_input(read.rio.crs) == CRS.from_user_input(geobox.crs.proj)
    assert tuple(read.rio.transform())[:6] == tuple(geobox.affine)[:6]
    # not from the cached GeoTransform only: the pixel centres say the same
    assert tuple(read.rio.transform(recalc=True))[:6] == pytest.approx(tuple(geobox.affine)[:6], abs=1e-9)


def test_geozarr_attributes_read_back_to_the_same_grid(geobox: GeoBox):
    assert geozarr.geobox_from_attributes(geozarr.spatial_attributes(geobox)) == geobox


def test_coordinates_are_pixel_centres_with_cf_names():
    coordinates = geozarr.coordinates(GRIDS["utm"])
    assert coordinates["x"].values[:2].tolist() == [399965.0, 399975.0]
    assert coordinates["y"].values[:2].tolist() == [5600035.0, 5600025.0]
    assert coordinates["x"].attrs["standard_name"] == "projection_x_coordinate"
    assert coordinates["y"].attrs["units"] == "m"
    assert geozarr.coordinates(GRIDS["geographic"])["y"].attrs["standard_name"] == "latitude"


def test_cf_grid_mapping_holds_wkt_and_gdal_geotransform():
    attributes = geozarr.spatial_ref_attributes(GRIDS["laea"])
    assert attributes["grid_mapping_name"] == "lambert_azimuthal_equal_area"
    assert attributes["GeoTransform"] == "5300120.0 10.0 0.0 2700450.0 0.0 -10.0"
    assert CRS.from_wkt(attributes["crs_wkt"]).to_epsg() == 3035


def test_spatial_attributes_follow_the_conventions():
    attributes = geozarr.spatial_attributes(GRIDS["utm"])
    assert attributes["proj:code"] == "EPSG:32633"
    assert attributes["spatial:dimensions"] == ["y", "x"]
    assert attributes["spatial:transform"] == [10.0, 0.0, 399960.0, 0.0, -10.0, 5600040.0]
    assert attributes["spatial:bbox"] == [399960.0, 5599440.0, 400360.0, 5600040.0]
    assert attributes["spatial:shape"] == [60, 40]
    assert {entry["name"] for entry in attributes["zarr_conventions"]} == {"proj", "spatial"}


def test_a_crs_without_a_code_is_given_as_wkt():
    attributes = geozarr.spatial_attributes(GRIDS["no code"])
    assert "proj:code" not in attributes
    assert CRS.from_wkt(attributes["proj:wkt2"]).is_projected
    assert attributes["proj:projjson"]["type"] == "ProjectedCRS"


def test_multiscale_layout_names_each_level_with_its_own_grid():
    geobox = GeoBox((1000, 600), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")
    attributes = geozarr.multiscale_attributes(geobox, {"0": 1, "1": 2, "2": 8}, resampling="average")
    layout = attributes["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == ["0", "1", "2"]
    assert [entry.get("derived_from") for entry in layout] == [None, "0", "1"]
    assert [entry["transform"]["scale"] for entry in layout] == [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]
    assert layout[2]["spatial:shape"] == [125, 75]
    assert layout[2]["spatial:transform"] == [80.0, 0.0, 0.0, 0.0, -80.0, 0.0]
    assert {entry["name"] for entry in attributes["zarr_conventions"]} == {"multiscales", "proj", "spatial"}


def test_overviews_round_up_so_that_no_edge_is_lost():
    geobox = GeoBox((5, 3), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")
    assert geozarr.overview(geobox, 2).shape == (3, 2)
    assert geozarr.overview_factors((5000, 300)) == [2, 4, 8, 16, 32]
    assert geozarr.overview_factors((256, 256)) == []


def test_a_grid_without_crs_or_with_rotation_is_refused():
    with pytest.raises(SchemaMismatch, match="no CRS"):
        geozarr.spatial_attributes(GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 0), None))
    with pytest.raises(SchemaMismatch, match="rotated"):
        geozarr.coordinates(GeoBox((2, 2), Affine(10, 1, 0, 0, -10, 0), "EPSG:32633"))
    with pytest.raises(SchemaMismatch, match="spatial:shape"):
        geozarr.geobox_from_attributes({"proj:code": "EPSG:32633", "spatial:transform": [1, 0, 0, 0, -1, 0]})
