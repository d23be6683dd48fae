"""Real files of other makers: the Barbellino crop goes in, its top-of-atmosphere twin and Landsat do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from factories import Archive
from ingest_cases import ingest, request_of
from odc.geo.geobox import GeoBox

from storage.cube import open_cube
from storage.location import resolve
from storage.schema import SENTINEL2_BANDS

STACKED = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B11", "B12")
BANDS = tuple(band for band in SENTINEL2_BANDS if band != "B8A")
TIME = "2017-07-03T10:20:21Z"


@pytest.fixture
def barbellino(shared_data: Path) -> Path:
    return shared_data / "eo/geotiff_scenes/s2_barbellino"


def grid_of(path: Path) -> GeoBox:
    with rasterio.open(path) as source:
        return GeoBox(source.shape, source.transform, source.crs.to_string())


def area_of(geobox: GeoBox) -> dict[str, Any]:
    return dict(geobox.extent.to_crs("EPSG:4326").json)


def add_stack(
    archive: Archive, item_id: str, stack: Path, names: tuple[str, ...], mask: Path | None, **stated: Any
) -> None:
    """Add an item whose bands lie in one file, under names that the item lists."""
    assets: dict[str, Any] = {"data": {"href": str(stack), "bands": [{"name": name} for name in names]}}
    if mask is not None:
        assets["scl"] = {"href": str(mask)}
    footprint = grid_of(stack).geographic_extent.geom
    archive.add_item(item_id, TIME, assets, footprint, properties={"platform": "sentinel-2a", **stated})


def test_the_barbellino_crop_goes_in_bit_by_bit(barbellino: Path, tmp_path: Path) -> None:
    stack = barbellino / "S2A2A_20170703_022_Barbellino_BOA_10.tif"
    mask = barbellino / "S2A2A_20170703_022_Barbellino_SCL_10.tif"
    archive = Archive(tmp_path / "archive")
    stated = {"processing:level": "L2A", "s2:processing_baseline": "02.05", "s2:mgrs_tile": "32TNS"}
    add_stack(archive, "barbellino", stack, STACKED, mask, **stated)
    request = request_of(archive.catalog, tmp_path / "warehouse", area=area_of(grid_of(stack)), bands=BANDS)
    done = ingest(request)
    assert done.states() == {"barbellino": "ingested"}
    with rasterio.open(stack) as source, rasterio.open(mask) as classes:
        numbers, scl = source.read(), classes.read(1)
        left, top = source.transform.c, source.transform.f
    (report,) = done.reports
    cube = open_cube(resolve(tmp_path / "warehouse") / report.tile).isel(time=0)
    window = cube.sel(x=slice(left, left + 240), y=slice(top, top - 420))
    assert window["reflectance"].shape == (9, 42, 24)
    expected = numbers[[STACKED.index(band) for band in BANDS]]
    known = expected != 65535
    stored = np.where(known, np.round(window["reflectance"].values * 1e4), 65535).astype(np.uint16)
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_array_equal(np.isnan(window["reflectance"].values), ~known)
    np.testing.assert_array_equal(window["scl"].values, scl.repeat(2, axis=0).repeat(2, axis=1))
    assert int(np.isfinite(cube["reflectance"]).sum()) == int(known.sum())


def test_without_leaving_out_the_missing_band_it_is_named(barbellino: Path, tmp_path: Path) -> None:
    stack = barbellino / "S2A2A_20170703_022_Barbellino_BOA_10.tif"
    archive = Archive(tmp_path / "archive")
    add_stack(archive, "barbellino", stack, STACKED, None, **{"processing:level": "L2A"})
    area = area_of(grid_of(stack))
    done = ingest(request_of(archive.catalog, tmp_path / "warehouse", area=area, bands=SENTINEL2_BANDS))
    assert done.row("barbellino").reason == "missing-asset"
    assert "no asset for B8A" in done.row("barbellino").message


@pytest.mark.parametrize(
    ("item_id", "stated"),
    [
        ("S2A1C_20170703_022_Barbellino_TOA_10", {"processing:level": "L1C"}),
        ("S2A_MSIL1C_20170703T102021_N0205_R065_T32TNS_20170703T102404", {}),
        ("barbellino", {"s2:product_type": "S2MSI1C"}),
    ],
)
def test_top_of_atmosphere_is_refused_by_name(
    barbellino: Path, tmp_path: Path, item_id: str, stated: dict[str, Any]
) -> None:
    stack = barbellino / "S2A1C_20170703_022_Barbellino_TOA_10.tif"
    archive = Archive(tmp_path / "archive")
    add_stack(archive, item_id, stack, (*STACKED[:9], "B10", *STACKED[9:]), None, **stated)
    request = request_of(archive.catalog, tmp_path / "warehouse", area=area_of(grid_of(stack)), bands=BANDS)
    done = ingest(request)
    row = done.row(item_id)
    assert (row.state, row.reason) == ("failed", "invalid-input")
    assert item_id in row.message
    assert "top-of-atmosphere (L1C)" in row.message
    assert not (tmp_path / "warehouse").exists()


def test_landsat_scenes_are_refused_by_name(shared_data: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    scenes = shared_data / "eo/geotiff_scenes"
    folders = sorted(folder for folder in (scenes / "landsat8_newyork_2018").iterdir() if folder.is_dir())[:3]
    for folder in [*folders, scenes / "landsat8_cloudy"]:
        files = {path.stem.rsplit("_", 1)[1]: path for path in sorted(folder.glob("*.[tT][iI][fF]"))}
        names = {"B2": "blue", "B3": "green", "B4": "red", "B5": "nir", "B6": "swir16", "B7": "swir22", "BQA": "qa"}
        assets = {names[band]: {"href": str(path)} for band, path in files.items()}
        footprint = grid_of(files["B2"]).geographic_extent.geom
        archive.add_item(folder.name, TIME, assets, footprint, properties={"platform": "landsat-8"})
    world = {"type": "Polygon", "coordinates": [[[-92, 30], [-70, 30], [-70, 45], [-92, 45], [-92, 30]]]}
    done = ingest(
        request_of(archive.catalog, tmp_path / "warehouse", area=world, crs="EPSG:3857", resolution=500, bands=("B02",))
    )
    assert len(done.rows) == 4
    for row in done.rows:
        assert (row.state, row.reason) == ("failed", "invalid-input")
        assert row.scene in row.message
        assert "landsat-8 is not Sentinel-2" in row.message
