"""Embedding products: the network's own vectors, components that the stored basis makes of them, nothing done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
import zarr
from cube_cases import CRS, area_of_pixels, core_errors, read_looks, write_looks

from models.earthpt import EarthPT, EarthPTConfig
from storage.location import resolve
from storage.publish import Receipt
from tasks.earth.components import Basis
from tasks.earth.embedders import open_embedder
from tasks.earth.embedding_map import EmbedRequest, prepare_embedding
from tasks.earth.model_files import save_network
from tasks.earth.regional import fill_regions, publish_prepared
from tasks.earth.verify import verify_product
from tasks.errors import ConfigurationError

BANDS = ("B02", "B04", "B08")
ROWS, COLUMNS = slice(240, 270), slice(1004, 1044)  # two rows of blocks, two tiles
SHAPE = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
DAYS = np.datetime64("2021-01-05") + 30 * np.arange(12)
NEVER_SEEN = (slice(3, 7), slice(2, 9))
WIDTH = 16


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cubes of random looks, and a small network that was never trained."""
    folder = tmp_path_factory.mktemp("embed")
    rng = np.random.default_rng(5)
    looks = rng.integers(100, 5000, (len(DAYS), len(BANDS), *SHAPE), dtype=np.uint16)
    looks[(..., *NEVER_SEEN)] = 0
    scl = np.full((len(DAYS), *SHAPE), 4, dtype=np.uint8)
    write_looks(folder, ROWS, COLUMNS, looks=looks, scl=scl, days=DAYS, bands=BANDS)
    model = EarthPT(EarthPTConfig(layers=1, heads=2, width=WIDTH), generator=torch.Generator().manual_seed(3))
    told: dict[str, Any] = {"metrics": {}, "training": {}, "card": "Never trained."}
    save_network(resolve(folder), "tiny", model, kind="earthpt", config=asdict(model.config), **told)
    return folder


def request_of(warehouse: Path, **more: Any) -> EmbedRequest:
    return replace(EmbedRequest(str(warehouse), area_of_pixels(ROWS, COLUMNS), "tiny", crs=CRS), **more)


def publish(request: EmbedRequest) -> Receipt:
    prepared = prepare_embedding(request)
    for name, regions in prepared.groups() if prepared.present is None else []:
        fill_regions(prepared, name, regions)
    return publish_prepared(prepared)


@pytest.fixture(scope="module")
def published(warehouse: Path) -> Receipt:
    return publish(request_of(warehouse, dtype="float32"))


def opened(receipt: Receipt) -> xr.Dataset:
    return xr.open_zarr(receipt.assets["zarr"], group="0").load()


def by_hand(warehouse: Path, until: np.datetime64 = DAYS[-1]) -> np.ndarray:
    """Return the network's vectors of all pixels of both tiles at once: (feature, y, x)."""
    looks = read_looks(warehouse, ROWS, COLUMNS, before=until + np.timedelta64(1, "D"))
    found = open_embedder(resolve(warehouse), "tiny").embed(*looks, bands=BANDS)
    return found.T.reshape(WIDTH, *SHAPE)


def test_every_vector_is_the_network_s_own_whatever_the_regions(warehouse: Path, published: Receipt) -> None:
    found = opened(published)["embedding"]
    assert found.dims == ("feature", "y", "x")
    np.testing.assert_allclose(found.values, by_hand(warehouse), atol=2e-6)


def test_a_pixel_without_looks_is_no_data(published: Receipt) -> None:
    found = opened(published)
    assert np.isnan(found["embedding"].values[(slice(None), *NEVER_SEEN)]).all()
    assert np.isnan(found["components"].values[(slice(None), *NEVER_SEEN)]).all()
    assert np.isfinite(found["embedding"].values).all(axis=0).sum() == SHAPE[0] * SHAPE[1] - 4 * 7


def test_components_are_what_the_stored_basis_makes_of_the_embedding(published: Receipt) -> None:
    found = opened(published)
    basis = Basis.from_json(json.loads(Path(published.assets["basis"]).read_text()))
    expected = basis.components(found["embedding"].values)
    np.testing.assert_allclose(found["components"].values, expected, atol=1.1e-3)
    known = np.isfinite(expected).all(axis=0)
    assert expected[0][known].std() == pytest.approx(1.0, abs=1e-3)
    with rasterio.open(published.assets["components"]) as raster:
        np.testing.assert_allclose(raster.read(masked=True) * 1e-3, np.ma.masked_invalid(expected), atol=1.1e-3)
        assert raster.descriptions == ("component_1", "component_2", "component_3")
        assert raster.nodata == -32768


def test_the_item_is_valid_stac_and_names_model_and_inputs(published: Receipt) -> None:
    assert core_errors(published.item) == []
    properties = published.item["properties"]
    assert properties["canopus:model"].startswith("tiny/")
    assert len(properties["canopus:weights_sha256"]) == 64
    assert len(properties["canopus:snapshots"]) == 2
    assert len([link for link in published.item["links"] if link["rel"] == "derived_from"]) == len(DAYS)
    assert verify_product(published.item_url).ok


def test_running_again_is_no_work_and_half_precision_another_product(warehouse: Path, published: Receipt) -> None:
    again = prepare_embedding(request_of(warehouse, dtype="float32"))
    assert again.present is not None
    half = publish(request_of(warehouse))
    assert half.key != published.key
    found = opened(half)["embedding"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.values, opened(published)["embedding"].values, rtol=2e-3, atol=1e-3)


def test_until_leaves_later_looks_out(warehouse: Path) -> None:
    receipt = publish(request_of(warehouse, until=str(DAYS[6]), dtype="float32"))
    np.testing.assert_allclose(opened(receipt)["embedding"].values, by_hand(warehouse, DAYS[6]), atol=2e-6)
    assert receipt.item["properties"]["end_datetime"].startswith(str(DAYS[6]))


def test_a_component_that_does_not_come_from_the_embedding_is_found(published: Receipt, tmp_path: Path) -> None:
    whole = Path(published.item_url).parent
    copy = Path(shutil.copytree(whole, tmp_path / whole.name))
    array = zarr.open_array(copy / "embedding.zarr" / "0" / "embedding", mode="r+")
    array[:, 20, 10:15] = 9.0
    problems = [str(finding) for finding in verify_product(copy).findings]
    assert any("not what the basis makes of the embedding" in problem for problem in problems)
    assert any("changed" in problem or "bytes of" in problem for problem in problems)


def test_bands_that_cubes_lack_are_named(warehouse: Path) -> None:
    with pytest.raises(ConfigurationError, match="B11 is not among them"):
        prepare_embedding(request_of(warehouse, bands=("B04", "B11")))
