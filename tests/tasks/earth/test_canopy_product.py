from __future__ import annotations

import dataclasses
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from cube_cases import core_errors
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_CLASSES
from storage.errors import SchemaMismatch, StorageError
from storage.export import Layer
from storage.location import Location, resolve
from storage.publish import Receipt, find_product
from storage.regions import cut_regions
from tasks.earth.canopy_product import MapSpec, write_map
from tasks.earth.layers import map_layers
from tasks.earth.product import InputScene, Lineage, publish_staged
from tasks.earth.staging import create_staging, write_staged_region
from tasks.earth.verify import verify_product

GRID = GeoBox((512, 512), Affine(10, 0, 399360, 0, -10, 5130240), "EPSG:32633")
WINDOW = GRID[100:400, 30:310]  # 300 x 280 pixels, off the chunk borders
EXTRA = Layer("change_year", "Year of change", "uint16", 0, unit="year")


def known_arrays() -> dict[str, np.ndarray]:
    """Return layers with a known count of pixels per class within the window."""
    random = np.random.default_rng(11)
    shape = (512, 512)
    classes = np.zeros(shape, dtype="uint8")
    classes[100:150, :] = 1
    classes[150:160, :] = 2
    first = random.integers(0, 5001, shape)
    second = random.integers(0, 5000, shape)
    probability = np.stack([first, second, 10000 - first - second]).astype("uint16")
    count = random.integers(1, 90, shape).astype("uint16")
    date = random.integers(20000, 20100, shape).astype("uint16")
    outside = np.zeros(shape, dtype=bool)
    outside[390:, :] = True
    canopy = 10000 - probability[0]
    classes[outside], probability[:, outside], count[outside], date[outside] = 255, 65535, 65535, 0
    canopy[outside] = 65535
    return {
        "class": classes,
        "probability": probability,
        "canopy_probability": canopy,
        "clear_count": count,
        "last_clear_date": date,
    }


ARRAYS = known_arrays()


def spec_of(**changes) -> MapSpec:
    lineage = Lineage(
        inputs=(InputScene("S2A_1", "https://user:secret@example.org/items/S2A_1?sig=secret"),),
        snapshots={"earth/EPSG32633/E39N501": "SNAPSHOT1"},
        weights_sha256="ab" * 32,
        config_hash="cd" * 32,
        software={"canopus": "0.1.0"},
        run_id="run-1",
        created=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    spec = MapSpec("canopy", "Tree canopy", "2023-01-01", "2024-12-31", WINDOW, CANOPY_CLASSES, lineage)
    return dataclasses.replace(spec, **changes)


def stage(location: Location, extra: tuple[Layer, ...] = ()) -> Location:
    create_staging(location, GRID, map_layers(CANOPY_CLASSES, extra))
    arrays = ARRAYS | {layer.name: np.full((512, 512), 2020, layer.dtype) for layer in extra}
    for region in cut_regions((512, 512), 256):
        window = (region["y"], region["x"])
        write_staged_region(location, region, {name: values[(..., *window)] for name, values in arrays.items()})
    return location


def publish_map(warehouse: Location, spec: MapSpec, staging: Location) -> Receipt:
    return publish_staged(
        warehouse,
        spec.product,
        staging,
        rasters=spec.rasters,
        write=lambda folder, sources: write_map(folder, spec, sources),
    )


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Location:
    return stage(resolve(tmp_path_factory.mktemp("staging")))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, staging: Location):
    warehouse = resolve(tmp_path_factory.mktemp("warehouse"))
    return warehouse, publish_map(warehouse, spec_of(), staging)


def test_the_window_of_each_layer_is_published_as_cog_and_zarr(published):
    _, receipt = published
    window = (slice(100, 400), slice(30, 310))
    zarr = xr.open_zarr(receipt.assets["zarr"], group="0", mask_and_scale=False, decode_times=False)
    for name, values in ARRAYS.items():
        expected = values[(..., *window)]
        with rasterio.open(receipt.assets[name]) as raster:
            np.testing.assert_array_equal(raster.read().reshape(expected.shape), expected)
            assert raster.transform == WINDOW.affine
        np.testing.assert_array_equal(zarr[name].values, expected)
    assert verify_product(receipt.item_url).ok


def test_days_decode_to_dates_and_no_look_to_no_date(published):
    _, receipt = published
    dates = xr.open_zarr(receipt.assets["zarr"], group="0")["last_clear_date"]
    assert dates.values[0, 0] == np.datetime64("1970-01-01") + int(ARRAYS["last_clear_date"][100, 30])
    assert np.isnat(dates.values[-1, 0])


def test_mapped_areas_are_counted_within_the_window(published):
    _, receipt = published
    # rows 100 to 150 are broadleaved, 150 to 160 conifer, 160 to 390 none, the rest outside; a pixel is 0.01 ha
    expected = {"none": 230 * 280 / 100, "broadleaved": 50 * 280 / 100, "conifer": 10 * 280 / 100}
    assert receipt.item["properties"]["canopus:mapped_area_ha"] == pytest.approx(expected)


def test_the_item_says_what_the_map_was_made_of(published):
    _, receipt = published
    properties = receipt.item["properties"]
    assert properties["canopus:weights_sha256"] == "ab" * 32
    assert properties["canopus:config_hash"] == "cd" * 32
    assert properties["canopus:snapshots"] == {"earth/EPSG32633/E39N501": "SNAPSHOT1"}
    assert properties["processing:software"] == {"canopus": "0.1.0"}
    assert properties["created"] == properties["updated"] == "2025-01-02T03:04:05Z"
    derived = [link for link in receipt.item["links"] if link["rel"] == "derived_from"]
    assert derived == [{"rel": "derived_from", "href": "https://example.org/items/S2A_1", "title": "S2A_1"}]
    assert receipt.item["assets"]["class"]["classification:classes"][2]["color_hint"] == "1D5B3A"
    assert receipt.item["assets"]["probability"]["bands"] == [
        {"name": "none"},
        {"name": "broadleaved"},
        {"name": "conifer"},
    ]


def test_no_secret_of_an_address_reaches_a_file(published):
    warehouse, _ = published
    assert not any(b"secret" in path.read_bytes() for path in warehouse.local_path.rglob("*") if path.is_file())


def test_item_and_collection_are_valid_stac_and_link_to_each_other(published):
    warehouse, receipt = published
    path = warehouse.local_path / "products" / "canopy" / "collection.json"
    assert core_errors(receipt.item) == []
    assert core_errors(json.loads(path.read_text())) == []
    collection = pystac.Collection.from_file(str(path))
    items = list(collection.get_items())
    assert [item.id for item in items] == [receipt.key.item_id]
    assert items[0].get_collection().id == "canopy"
    assert all(Path(asset.get_absolute_href()).exists() for asset in items[0].assets.values())


ALLOWED = {
    "proj": {"code", "wkt2", "bbox", "shape", "transform"},
    "raster": {"scale", "offset", "sampling", "spatial_resolution"},
    "classification": {"classes"},
    "processing": {"level", "lineage", "software", "datetime"},
    "file": {"size", "checksum"},
}


def test_only_fields_of_the_declared_extensions_are_used(published):
    _, receipt = published
    declared = {url.split("/")[3]: url.split("/")[4] for url in receipt.item["stac_extensions"]}
    assert declared == {
        "classification": "v2.0.0",
        "file": "v2.1.0",
        "processing": "v1.2.0",
        "projection": "v2.0.0",
        "raster": "v2.0.0",
    }
    used = set(receipt.item["properties"]) | {key for asset in receipt.item["assets"].values() for key in asset}
    for field in used:
        prefix, _, name = field.partition(":")
        assert not name or prefix == "canopus" or name in ALLOWED[prefix], field


def test_the_same_map_is_published_once_whatever_the_run(published, tmp_path: Path):
    warehouse, receipt = published
    again = spec_of(lineage=dataclasses.replace(spec_of().lineage, run_id="run-2", created=datetime.now(UTC)))
    assert find_product(warehouse, again.key) is not None
    # an empty staging place would fail if it were read
    assert publish_map(warehouse, again, resolve(tmp_path)).state == "present"
    assert again.key == receipt.key


@pytest.mark.parametrize(
    "change",
    [
        {"date": "2025-01-31"},
        {"geobox": GRID[100:400, 30:300]},
        {"lineage": dataclasses.replace(spec_of().lineage, snapshots={"earth/EPSG32633/E39N501": "SNAPSHOT2"})},
        {"lineage": dataclasses.replace(spec_of().lineage, looks={"earth/EPSG32633/E39N501": "digest"})},
        {"lineage": dataclasses.replace(spec_of().lineage, weights_sha256="ef" * 32)},
        {"lineage": dataclasses.replace(spec_of().lineage, software={"canopus": "0.2.0"})},
        {"area": {"type": "Polygon", "coordinates": [[[13, 46], [14, 46], [14, 47], [13, 46]]]}},
    ],
    ids=["date", "grid", "snapshot", "looks", "weights", "code", "area"],
)
def test_another_input_is_another_product(change: dict):
    assert spec_of(**change).key != spec_of().key


def test_a_layer_added_to_the_table_is_published_like_the_others(tmp_path: Path):
    staging = stage(resolve(tmp_path / "staging"), extra=(EXTRA,))
    receipt = publish_map(resolve(tmp_path / "w"), spec_of(extra=(EXTRA,)), staging)
    with rasterio.open(receipt.assets["change_year"]) as raster:
        assert (raster.read(1) == 2020).all()
        assert raster.units == ("year",)
    assert xr.open_zarr(receipt.assets["zarr"], group="0", mask_and_scale=False)["change_year"].shape == (300, 280)
    assert receipt.item["assets"]["change_year"]["title"] == "Year of change"
    assert verify_product(receipt.item_url).ok


def test_an_unfinished_staging_is_not_published(tmp_path: Path):
    staging, warehouse = resolve(tmp_path / "staging"), resolve(tmp_path / "w")
    stage(staging)
    staging.delete("done/y00256x00000-256x256")
    with pytest.raises(StorageError, match=f"{(428 - 256) * (256 - 30)} pixels"):
        publish_map(warehouse, spec_of(geobox=GRID[84:428, 30:310]), staging)
    assert find_product(warehouse, spec_of().key) is None
    assert warehouse.list_names() == []


def test_a_grid_that_is_no_window_of_the_staging_is_refused(tmp_path: Path, staging: Location):
    shifted = GeoBox((10, 10), Affine(10, 0, 399365, 0, -10, 5130240), "EPSG:32633")
    for grid in (shifted, GRID.pad(1), GeoBox((10, 10), GRID.affine, "EPSG:32632")):
        with pytest.raises(SchemaMismatch, match="no window"):
            publish_map(resolve(tmp_path / "w"), spec_of(geobox=grid), staging)


def test_contradicting_layers_are_not_published(tmp_path: Path):
    staging = stage(resolve(tmp_path / "staging"))
    region = {"y": slice(0, 256), "x": slice(0, 256)}
    arrays = {name: values[..., :256, :256].copy() for name, values in ARRAYS.items()}
    arrays["class"][200, 100:110] = 7
    arrays["probability"][0, 201, 100:105] += 300
    write_staged_region(staging, region, arrays)
    with pytest.raises(StorageError, match=r"class\.tif: 10 pixels.*probability\.tif: 5 pixels"):
        publish_map(resolve(tmp_path / "w"), spec_of(), staging)
    assert resolve(tmp_path / "w").list_names() == []


class Killed(BaseException):
    """Stands for kill -9."""


def die_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the warehouse take `at - 1` files, and die at the next."""
    lock, left = threading.Lock(), [at]

    def dying(write):
        def wrapped(location: Location, *arguments) -> None:
            with lock:
                left[0] -= 1
                if left[0] <= 0:
                    raise Killed
                write(location, *arguments)

        return wrapped

    for name in ("put_file", "write_bytes"):
        monkeypatch.setattr(Location, name, dying(getattr(Location, name)))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_map_killed_while_it_is_moved_is_not_there_and_a_rerun_gives_identical_bytes(
    tmp_path: Path, staging: Location, published
):
    whole = contents(published[0].local_path)
    # the writes are the files, then manifest, item and collection; tests/storage kills at each of them
    for at in (len(whole) // 2, len(whole) - 1, len(whole)):
        warehouse = resolve(tmp_path / f"killed-{at}")
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_at(monkeypatch, at)
            with pytest.raises(Killed):
                publish_map(warehouse, spec_of(), staging)
        found = find_product(warehouse, spec_of().key)
        assert (found is not None) == (at == len(whole))
        assert found is None or verify_product(found.item_url).ok
        publish_map(warehouse, spec_of(), staging)
        assert contents(warehouse.local_path) == whole
