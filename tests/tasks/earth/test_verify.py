from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.classes import CANOPY_CLASSES
from storage.errors import NotFound
from storage.location import resolve
from tasks.earth.canopy_product import MapSpec, write_map
from tasks.earth.layers import map_layers
from tasks.earth.product import Lineage, publish_staged
from tasks.earth.staging import create_staging, write_staged_region
from tasks.earth.verify import verify_product

GRID = GeoBox((200, 180), Affine(10, 0, 399360, 0, -10, 5130240), "EPSG:32633")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a published map."""
    random = np.random.default_rng(5)
    first = random.integers(0, 10001, GRID.shape).astype("uint16")
    zero = np.zeros(GRID.shape, "uint16")
    root = tmp_path_factory.mktemp("verify")
    staging = resolve(root / "staging")
    create_staging(staging, GRID, map_layers(CANOPY_CLASSES))
    arrays = {
        "class": random.integers(0, 3, GRID.shape).astype("uint8"),
        "probability": np.stack([first, 10000 - first, zero]),
        "canopy_probability": 10000 - first,
        "clear_count": zero + 30,
        "last_clear_date": zero + 20000,
    }
    write_staged_region(staging, {"y": slice(0, 200), "x": slice(0, 180)}, arrays)
    lineage = Lineage((), {}, "ab", "cd", {"canopus": "0.1.0"}, "run", datetime(2025, 1, 1, tzinfo=UTC))
    spec = MapSpec("canopy", "A map", "2023-01-01", "2024-12-31", GRID, CANOPY_CLASSES, lineage)
    receipt = publish_staged(
        resolve(root / "warehouse"),
        spec.product,
        staging,
        rasters=spec.rasters,
        write=lambda folder, sources: write_map(folder, spec, sources),
    )
    return Path(receipt.item_url).parent


@pytest.fixture
def product(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / whole.name))


def sign_again(folder: Path) -> None:
    """Make sizes and checksums fit what lies there, so that only a look into the files finds what is wrong."""
    item_path = folder / f"{folder.name}.json"
    manifest, item = json.loads((folder / "manifest.json").read_text()), json.loads(item_path.read_text())
    for row in manifest["files"]:
        data = (folder / row["name"]).read_bytes()
        row |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for asset in item["assets"].values():
        path = folder / asset["href"]
        if path.is_file():
            asset["file:size"] = path.stat().st_size
            asset["file:checksum"] = "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    item_path.write_text(json.dumps(item))


def rewrite(path: Path, change: Callable[[np.ndarray], None], **options) -> None:
    """Write a COG again with other values or options."""
    with rasterio.open(path) as raster:
        values, profile = raster.read(), raster.profile | {"scales": raster.scales}
    change(values)
    scales = profile.pop("scales")
    profile |= {"driver": "GTiff"} | options
    with rasterio.open(path.with_suffix(".new"), "w", **profile) as raster:
        raster.write(values)
        raster.scales = scales
    path.with_suffix(".new").replace(path)


def keep(values: np.ndarray) -> None:
    """Change nothing."""


def findings(folder: Path) -> list[str]:
    return [str(finding) for finding in verify_product(folder).findings]


def test_a_published_map_is_whole(whole: Path):
    report = verify_product(whole)
    assert report.ok
    assert report.files == len([p for p in whole.rglob("*") if p.is_file()]) - 2
    assert report.item_url.endswith(f"{whole.name}.json")


def test_missing_truncated_and_changed_files_are_all_named(product: Path):
    (product / "preview.png").unlink()
    data = (product / "probability.tif").read_bytes()
    (product / "probability.tif").write_bytes(data[: len(data) // 2])
    changed = bytearray((product / "clear_count.tif").read_bytes())
    changed[-1] ^= 0xFF
    (product / "clear_count.tif").write_bytes(changed)
    found = findings(product)
    assert "preview.png: missing" in found
    assert any(text.startswith("probability.tif: truncated") for text in found)
    assert "clear_count.tif: changed: its SHA-256 is not the published one" in found


def test_a_raster_that_cannot_be_read_is_named_and_the_rest_still_checked(product: Path):
    (product / "class.tif").write_bytes(b"no raster")
    found = findings(product)
    assert any(text.startswith("class.tif: truncated") for text in found)
    assert any(text.startswith("class.tif: unreadable") for text in found)


def test_values_that_are_no_class_are_counted(product: Path):
    rewrite(product / "class.tif", lambda values: values.__setitem__((0, slice(0, 2), slice(0, 3)), 9))
    sign_again(product)
    assert "class.tif: 6 pixels hold a value that is no class of the item" in findings(product)


def test_probabilities_that_do_not_sum_to_one_are_counted(product: Path):
    rewrite(product / "probability.tif", lambda values: values.__setitem__((2, 0, slice(0, 4)), 50))
    sign_again(product)
    assert "probability.tif: 4 pixels have probabilities that do not sum to 1" in findings(product)


def test_rounding_of_probabilities_is_allowed(product: Path):
    rewrite(product / "probability.tif", lambda values: values.__setitem__((2, 0, slice(0, 4)), 1))
    sign_again(product)
    assert not any("sum to 1" in text for text in findings(product))


def test_a_class_without_probabilities_is_found(product: Path):
    rewrite(product / "probability.tif", lambda values: values.__setitem__((slice(None), 5, 5), 65535))
    sign_again(product)
    assert any("1 pixels have a class without probabilities" in text for text in findings(product))


def test_another_grid_type_or_nodata_than_the_item_says_is_found(product: Path):
    rewrite(product / "class.tif", keep, transform=Affine(10, 0, 399370, 0, -10, 5130240))
    rewrite(product / "clear_count.tif", keep, nodata=0)
    rewrite(product / "last_clear_date.tif", keep, crs="EPSG:32632")
    sign_again(product)
    found = findings(product)
    assert any(text.startswith("class.tif: transform is [10.0, 0.0, 399370.0") for text in found)
    assert "clear_count.tif: nodata is 0.0, the item says 65535" in found
    assert any(text.startswith("last_clear_date.tif: CRS is EPSG:32632") for text in found)


def test_a_file_that_is_no_cloud_optimised_geotiff_is_found(product: Path):
    rewrite(product / "class.tif", keep, width=1200, height=1100, tiled=False, blockxsize=1200, blockysize=1)
    sign_again(product)
    assert any(text.startswith("class.tif: no valid COG") for text in findings(product))


def test_zarr_that_differs_from_the_cog_is_found(product: Path):
    array = zarr.open_array(product / "map.zarr" / "0" / "clear_count", mode="r+")
    array[100, 100:107] = 3
    sign_again(product)
    assert findings(product) == ["map.zarr/0/clear_count: differs from clear_count.tif in 7 of the sampled values"]


def test_nothing_published_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(NotFound, match="nothing is published"):
        verify_product(tmp_path)
