"""Forecast products: the model's own numbers, however the area is cut, killed or run again; nothing from the future."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from cube_cases import CRS, area_of_pixels, core_errors, read_looks, write_looks

from storage.errors import NotFound
from storage.publish import Receipt
from tasks.earth import regional
from tasks.earth.forecast_map import plan_forecast, prepare_forecast
from tasks.earth.forecast_request import ForecastRequest
from tasks.earth.forecasters import WindowForecaster
from tasks.earth.mapping import fill_region
from tasks.earth.regional import fill_regions, publish_prepared
from tasks.earth.verify import verify_product
from tasks.errors import ConfigurationError

BANDS = ("B03", "B04", "B08")
ROWS, COLUMNS = slice(240, 270), slice(1004, 1044)  # two rows of blocks, two tiles
SHAPE = (ROWS.stop - ROWS.start, COLUMNS.stop - COLUMNS.start)
AREA = area_of_pixels(ROWS, COLUMNS)
DAYS = np.datetime64("2019-01-05") + 28 * np.arange(30)
ORIGIN = np.datetime64("2020-12-01")
EARLY = np.datetime64("2020-10-01")
DATES = ("2020-12-20", "2021-02-10")
NEVER_SEEN = (slice(3, 7), slice(2, 9))


def fill(warehouse: Path, chosen: np.ndarray, *, change_from: np.datetime64 | None = None) -> None:
    """Write random looks with clouds over the area on chosen days; from a day on, other ones."""
    rng, other = np.random.default_rng(5), np.random.default_rng(6)
    looks = rng.integers(100, 5000, (len(DAYS), len(BANDS), *SHAPE), dtype=np.uint16)
    scl = np.where(rng.random((len(DAYS), *SHAPE)) < 0.01, 9, 4).astype(np.uint8)
    looks[(..., *NEVER_SEEN)] = 0
    if change_from is not None:
        late = change_from <= DAYS
        looks[late] = other.integers(100, 9000, looks[late].shape, dtype=np.uint16)
    write_looks(warehouse, ROWS, COLUMNS, looks=looks[chosen], scl=scl[chosen], days=DAYS[chosen], bands=BANDS)


def request_of(warehouse: Path, **more: Any) -> ForecastRequest:
    request = ForecastRequest(str(warehouse), AREA, "window", str(ORIGIN), DATES, crs=CRS)
    return replace(request, **more)


def publish(request: ForecastRequest) -> Receipt:
    prepared = prepare_forecast(request)
    for name, regions in prepared.groups() if prepared.present is None else []:
        fill_regions(prepared, name, regions)
    return publish_prepared(prepared)


def opened(receipt: Receipt, **more: Any) -> xr.Dataset:
    return xr.open_zarr(receipt.assets["zarr"], group="0", **more).load()


def layers_of(request: ForecastRequest) -> dict[str, np.ndarray]:
    """Return what a forecast stages, region after region."""
    prepared = prepare_forecast(request)
    job, fill_one = prepared.job, prepared.job.open()
    found = [fill_region(job.plan, region, job.product.layers, fill_one) for region in job.plan.regions]
    return {name: np.concatenate([layers[name].reshape(-1) for layers in found]) for name in found[0]}


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cubes that end two months before the origin."""
    folder = tmp_path_factory.mktemp("early")
    fill(folder, DAYS < EARLY)
    return folder


@pytest.fixture(scope="module")
def warehouse(early: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "w"
    shutil.copytree(early, folder)
    fill(folder, DAYS >= EARLY)
    return folder


@pytest.fixture(scope="module")
def published(warehouse: Path) -> Receipt:
    return publish(request_of(warehouse))


def by_hand(warehouse: Path, bands: tuple[str, ...] = BANDS) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return reflectance and indices from the model itself, all pixels of both tiles at once, unrounded."""
    reflectance, valid, dates = read_looks(warehouse, ROWS, COLUMNS, before=ORIGIN)
    kept = reflectance[:, [BANDS.index(band) for band in bands]]
    days = np.array(DATES, dtype="datetime64[D]")
    found = WindowForecaster().forecast(kept, valid, dates, days, bands=bands)
    shaped = {name: values.reshape(*values.shape[:-1], *SHAPE) for name, values in found.indices.items()}
    return found.reflectance.reshape(*found.reflectance.shape[:-1], *SHAPE), shaped


def test_every_value_is_the_model_s_own_whatever_the_regions(warehouse: Path, published: Receipt) -> None:
    reflectance, indices = by_hand(warehouse)
    found = opened(published)
    assert set(indices) == {"ndvi", "evi2", "ndwi"}
    np.testing.assert_allclose(found["reflectance"].values, reflectance, atol=5.1e-5)
    for name, values in indices.items():
        np.testing.assert_allclose(found[name].values, values, atol=5.1e-5)
    assert np.isfinite(found["ndvi"].values).mean() > 0.9


def test_dates_levels_and_bands_are_coordinates(published: Receipt) -> None:
    found = opened(published)
    assert found["reflectance"].dims == ("time", "quantile", "band", "y", "x")
    assert found["time"].values.astype("datetime64[D]").astype(str).tolist() == list(DATES)
    assert found["quantile"].values.tolist() == list(WindowForecaster.quantiles)
    assert found["band"].values.tolist() == list(BANDS)


def test_index_maps_are_cogs_with_a_band_for_each_date(published: Receipt) -> None:
    whole = opened(published, mask_and_scale=False)["ndvi"]
    for name, level in (("ndvi_q10", 0.1), ("ndvi_q50", 0.5), ("ndvi_q90", 0.9)):
        with rasterio.open(published.assets[name]) as raster:
            np.testing.assert_array_equal(raster.read(), whole.sel(quantile=level).values)
            assert raster.descriptions == DATES
            assert raster.nodata == -32768
            assert set(raster.scales) == {1e-4}
            assert raster.tags()["CANOPUS_ITEM"] == published.key.item_id


def test_a_pixel_without_looks_is_no_data_and_counts_none(published: Receipt) -> None:
    found = opened(published)
    assert np.isnan(found["ndvi"].values[(..., *NEVER_SEEN)]).all()
    assert np.isnan(found["reflectance"].values[(..., *NEVER_SEEN)]).all()
    assert (found["clear_count"].values[NEVER_SEEN] == 0).all()


def test_the_item_is_valid_stac_and_says_what_it_was_made_of(warehouse: Path, published: Receipt) -> None:
    assert core_errors(published.item) == []
    properties = published.item["properties"]
    assert properties["canopus:origin"] == str(ORIGIN)
    assert properties["canopus:dates"] == list(DATES)
    assert properties["canopus:model"] == "window"
    assert len(properties["canopus:snapshots"]) == 2
    assert (properties["start_datetime"][:10], properties["end_datetime"][:10]) == DATES
    derived = {link["title"] for link in published.item["links"] if link["rel"] == "derived_from"}
    assert derived == {f"s{str(day).replace('-', '')}" for day in DAYS[DAYS < ORIGIN]}
    collection = json.loads((warehouse / "products" / "forecast" / "collection.json").read_text())
    assert core_errors(collection) == []


def test_the_product_is_sound_and_has_its_pictures(published: Receipt) -> None:
    assert verify_product(published.item_url).ok
    for name in ("preview", "pixels"):
        assert Path(published.assets[name]).stat().st_size > 20_000


def test_running_again_is_no_work_and_gives_the_same_item(warehouse: Path, published: Receipt) -> None:
    again = prepare_forecast(request_of(warehouse))
    assert again.present is not None
    assert publish_prepared(again).item == published.item


def test_dates_may_be_given_by_a_horizon(warehouse: Path) -> None:
    _, asked, _ = plan_forecast(request_of(warehouse, dates=(), horizon=50, every=20))
    assert [str(day) for day in asked.targets] == ["2020-12-21", "2021-01-10"]


def test_without_an_origin_all_looks_are_used(warehouse: Path) -> None:
    plan, asked, _ = plan_forecast(request_of(warehouse, origin=None, dates=()))
    assert asked.origin == DAYS[-1] + np.timedelta64(1, "D")
    assert plan.until == DAYS[-1]


class Killed(BaseException):
    """Stands for kill -9."""


def contents(receipt: Receipt) -> dict[str, bytes]:
    folder = Path(receipt.item_url).parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != f"{folder.name}.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_run_killed_between_regions_goes_on_where_it_was_and_gives_the_same_files(
    warehouse: Path, published: Receipt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(warehouse / "earth", tmp_path / "earth")
    request = request_of(tmp_path)
    prepared = prepare_forecast(request)
    write, left = regional.write_staged_region, [2]

    def dying(*arguments: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(regional, "write_staged_region", dying)
        with pytest.raises(Killed):
            fill_regions(prepared, "all", prepared.job.plan.regions)
    rest = prepare_forecast(request)
    assert len(prepared.job.plan.regions) == 4
    assert sum(len(regions) for _, regions in rest.groups()) == 2
    assert contents(publish(request)) == contents(published)
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.fixture
def other_future(early: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The same past, and other looks from a day on."""
    shutil.copytree(early, tmp_path / "w")
    fill(tmp_path / "w", DAYS >= EARLY, change_from=request.param)
    return tmp_path / "w"


@pytest.mark.parametrize("other_future", [ORIGIN], indirect=True)
def test_looks_from_the_origin_on_change_nothing(warehouse: Path, other_future: Path) -> None:
    found, expected = layers_of(request_of(other_future)), layers_of(request_of(warehouse))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("other_future", [ORIGIN - np.timedelta64(60, "D")], indirect=True)
def test_a_look_before_the_origin_does_change_it(warehouse: Path, other_future: Path) -> None:
    found, expected = layers_of(request_of(other_future)), layers_of(request_of(warehouse))
    assert (found["ndvi"] != expected["ndvi"]).any()


def test_some_bands_and_levels_alone(warehouse: Path) -> None:
    receipt = publish(request_of(warehouse, bands=("B08", "B04"), quantiles=(0.1, 0.5, 0.9), out_index=("evi2",)))
    found = opened(receipt)
    reflectance, indices = by_hand(warehouse, ("B04", "B08"))
    kept = [WindowForecaster.quantiles.index(level) for level in (0.1, 0.5, 0.9)]
    np.testing.assert_allclose(found["reflectance"].values, reflectance[:, kept], atol=5.1e-5)
    np.testing.assert_allclose(found["evi2"].values, indices["evi2"][:, kept], atol=5.1e-5)
    assert "ndwi" not in found
    assert {name for name in receipt.assets if name.endswith("q50")} == {"evi2_q50"}
    assert verify_product(receipt.item_url).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dates": ("2020-11-30",)}, "lies before the origin 2020-12-01"),
        ({"dates": (), "horizon": 10, "every": 30}, "no date to forecast"),
        ({"out_index": ("nbr",)}, "nbr"),
        ({"out_index": ()}, "at least one index"),
        ({"bands": ("B8A",)}, "B8A is not among them"),
        ({"quantiles": (0.33,)}, "without 0.33"),
        ({"origin": "2018-01-01", "dates": ("2018-02-01",)}, "ingest those dates"),
    ],
)
def test_what_cannot_be_forecast_is_said(warehouse: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepare_forecast(request_of(warehouse, **change))


def test_an_unknown_model_is_named(warehouse: Path) -> None:
    with pytest.raises(NotFound, match="nobody"):
        prepare_forecast(request_of(warehouse, model="nobody"))


def swap_quantiles(folder: Path) -> None:
    low, high = folder / "ndvi_q10.tif", folder / "ndvi_q90.tif"
    low.rename(folder / "kept")
    high.rename(low)
    (folder / "kept").rename(high)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda folder: (folder / "ndvi_q50.tif").write_bytes(b"no raster"), "ndvi_q50.tif: truncated"),
        (lambda folder: (folder / "preview.png").unlink(), "preview.png: missing"),
        (swap_quantiles, "ndvi_q10.tif: lies above ndvi_q50.tif"),
        (swap_quantiles, "forecast.zarr/0/ndvi: differs from ndvi_q90.tif"),
        (
            lambda folder: next(
                p for p in folder.glob("forecast.zarr/0/reflectance/c/**/0") if p.is_file()
            ).write_bytes(b"x"),
            "forecast.zarr/0/reflectance",
        ),
    ],
)
def test_damage_is_found(published: Receipt, tmp_path: Path, damage: Callable[[Path], None], found: str) -> None:
    whole = Path(published.item_url).parent
    copy = Path(shutil.copytree(whole, tmp_path / whole.name))
    damage(copy)
    assert any(str(finding).startswith(found) for finding in verify_product(copy).findings)
