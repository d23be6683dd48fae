"""Change as a product: found in published maps and cubes, whole, dated, with its areas; and scored against the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from cube_cases import CRS, area_of_pixels, core_errors, write_looks

from models.forest import ForestClassifier, ForestConfig, temporal_statistics
from storage.classes import CANOPY_CLASSES
from storage.location import resolve
from storage.publish import Receipt
from tasks.earth.canopy_map import MapRequest, prepare_map
from tasks.earth.change import LOSS
from tasks.earth.change_evaluation import score_change
from tasks.earth.change_map import ChangeRequest, prepare_change
from tasks.earth.classifier_files import save_classifier
from tasks.earth.regional import Prepared, fill_regions, publish_prepared
from tasks.earth.verify import verify_product
from tasks.errors import ConfigurationError

pytestmark = pytest.mark.slow

BANDS = ("B02", "B04", "B08", "B12")
ROWS, COLUMNS = slice(240, 270), slice(1004, 1044)  # two rows of blocks, two tiles
SHAPE = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
DAYS = np.datetime64("2021-01-04") + 16 * np.arange(69)  # three years
WOOD, CUT, SPECK = (slice(4, 26), slice(5, 35)), (slice(10, 20), slice(12, 30)), (28, 2)
FELLED = np.datetime64("2022-07-01")
UNTIL = (
    "2021-12-31",
    "2022-03-31",
    "2022-06-30",
    "2022-09-30",
    "2022-12-31",
    "2023-03-31",
    "2023-06-30",
    "2023-09-30",
    "2023-12-31",
)


def greenness() -> np.ndarray:
    """Return how green each pixel is at each look: (time, y, x)."""
    wave = np.cos(2 * np.pi * (DAYS.astype("datetime64[D]").astype(int) - 200) / 365.25)
    field = np.broadcast_to((0.35 + 0.3 * wave)[:, None, None], (len(DAYS), *SHAPE)).copy()
    wood = (0.85 + 0.1 * wave)[:, None]
    field[(slice(None), *WOOD)] = wood[..., None]
    field[(slice(None), *SPECK)] = wood[:, 0]
    gone = DAYS > FELLED
    field[(gone, *CUT)] = (0.2 + 0.1 * wave[gone])[:, None, None]
    field[gone, SPECK[0], SPECK[1]] = 0.2 + 0.1 * wave[gone]
    return field + np.random.default_rng(4).normal(0, 0.015, field.shape)


def classes() -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[WOOD] = 2
    found[SPECK] = 2
    return found


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cubes in which a part of a wood is felled, nine maps of a year each, and a forest that knows wood from field."""
    folder = tmp_path_factory.mktemp("change")
    green = greenness()
    bands = (0.06 - 0.03 * green, 0.11 - 0.08 * green, 0.18 + 0.2 * green, 0.22 - 0.14 * green)
    looks = np.round(np.stack(bands, axis=1) * 1e4).astype(np.uint16)
    looks[:, :, :2, :2] = 0  # never seen
    write_looks(
        folder, ROWS, COLUMNS, looks=looks, scl=np.full((len(DAYS), *SHAPE), 4, np.uint8), days=DAYS, bands=BANDS
    )
    first = np.datetime64("2022-01-01") > DAYS
    known = (looks[first] / 1e4).astype(np.float32).reshape(first.sum(), len(BANDS), -1)
    features = temporal_statistics(known, np.ones(known[:, 0].shape, bool), DAYS[first], BANDS)
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=20)).fit(features, classes().ravel())
    told: dict[str, Any] = {"metrics": {"classes": {}, "evaluation": "none"}, "training": {}}
    save_classifier(resolve(folder), "forest", forest, classes=CANOPY_CLASSES, **told)
    for until in UNTIL:
        request = MapRequest(
            str(folder), area_of_pixels(ROWS, COLUMNS), "forest", crs=CRS, until=until, window_days=365
        )
        publish(prepare_map(request))
    return folder


def publish(prepared: Prepared) -> Receipt:
    for name, regions in prepared.groups() if prepared.present is None else []:
        fill_regions(prepared, name, regions)
    return publish_prepared(prepared)


def request_of(warehouse: Path, **more: Any) -> ChangeRequest:
    return replace(ChangeRequest(str(warehouse), area_of_pixels(ROWS, COLUMNS), crs=CRS), **more)


@pytest.fixture(scope="module")
def published(warehouse: Path) -> Receipt:
    return publish(prepare_change(request_of(warehouse)))


def opened(receipt: Receipt) -> xr.Dataset:
    return xr.open_zarr(receipt.assets["zarr"], group="0", decode_cf=False).load()


def test_what_was_felled_is_lost_on_its_day_over_both_tiles(published: Receipt) -> None:
    found = opened(published)
    expected = np.zeros(SHAPE, np.uint8)
    expected[CUT] = LOSS
    expected[:2, :2] = 255
    np.testing.assert_array_equal(found["change_kind"].values, expected)
    error = found["change_date"].values[CUT].astype("datetime64[D]") - FELLED
    assert np.abs(error.astype(int)).max() <= 16
    assert (found["change_date"].values[expected != LOSS] == 0).all()
    assert (found["change_confidence"].values[CUT] > 7000).all()


def test_small_patches_go_with_all_that_is_said_of_them(warehouse: Path, published: Receipt) -> None:
    everything = opened(publish(prepare_change(request_of(warehouse, least_area_ha=0.0))))
    assert everything["change_kind"].values[SPECK] == LOSS
    kept = opened(published)
    layers = ("change_kind", "change_date", "change_interval", "change_confidence")
    assert [int(kept[name].values[SPECK]) for name in layers] == [0, 0, 65535, 0]


def test_the_item_names_its_maps_and_the_areas_by_quarter(published: Receipt) -> None:
    assert core_errors(published.item) == []
    areas = published.item["properties"]["canopus:changed_area_ha"]
    assert areas["loss"]["total"] == areas["loss"]["2022"] == pytest.approx(1.8)
    assert areas["loss"].get("2022-Q2", 0) + areas["loss"].get("2022-Q3", 0) == pytest.approx(1.8)
    assert areas["gain"] == {"total": 0}
    links = [link for link in published.item["links"] if link["rel"] == "derived_from"]
    folder = Path(published.item_url).parent
    assert len(links) == len(UNTIL)
    assert all((folder / link["href"]).resolve().is_file() for link in links)
    assert verify_product(published.item_url).ok


def test_running_again_is_no_work_and_other_rules_another_product(warehouse: Path, published: Receipt) -> None:
    assert prepare_change(request_of(warehouse)).present is not None
    request = request_of(warehouse)
    stricter = prepare_change(replace(request, rules=replace(request.rules, fall=0.5)))
    assert stricter.present is None


def test_too_few_maps_is_an_error_that_says_what_to_do(warehouse: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"3 map\(s\) of canopy.*backfill"):
        prepare_change(request_of(warehouse, start="2023-06-01"))


def test_the_score_is_that_of_the_truth_and_stands_beside_the_floors(published: Receipt, tmp_path: Path) -> None:
    kind, day = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint16)
    kind[CUT], day[CUT] = LOSS, FELLED.astype(int)
    with rasterio.open(published.assets["change_kind"]) as source:
        profile = source.profile | {"driver": "GTiff", "nodata": None}
    for name, values in (("kind", kind), ("date", day)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile | {"dtype": values.dtype}) as target:
            target.write(values, 1)
    report = score_change(
        published.item_url, dates=str(tmp_path / "date.tif"), kinds=str(tmp_path / "kind.tif"), out=tmp_path
    )
    loss = report.scores["methods"]["canopus"]["loss"]
    assert (loss["pixels"]["recall"], loss["pixels"]["precision"]) == (1.0, 1.0)
    assert loss["date"]["within"]["30"] == 1.0
    assert loss["patches"]["recall"] == 1.0
    floor = report.scores["methods"]["first and last class"]["loss"]
    assert floor["pixels"]["recall"] == 1.0
    assert floor["date"]["median"] > 60
    assert report.scores["methods"]["NDVI of successive summers"]["loss"]["pixels"]["recall"] == 1.0
    assert (tmp_path / "change.png").stat().st_size > 10_000
    assert "canopus" in report.text
