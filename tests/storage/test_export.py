from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rio_cogeo import cog_validate

from storage import geozarr
from storage.errors import SchemaMismatch
from storage.export import Axis, Cropped, Layer, Plane, blocks, date_axis, halve, write_cog, write_geozarr
from storage.location import resolve

CLASS = Layer(
    "class", "Class", "uint8", 255, overviews="mode", colours={0: (230, 220, 200), 1: (120, 180, 60), 2: (30, 90, 60)}
)
PROBABILITY = Layer(
    "probability",
    "Probability",
    "uint16",
    65535,
    overviews="average",
    axes=(Axis("class_name", ("none", "broadleaved", "conifer")),),
    scale=1e-4,
)
COUNT = Layer("clear_count", "Clear looks", "uint16", 65535, overviews="average", unit="1")


def geobox(rows: int, columns: int) -> GeoBox:
    return GeoBox((rows, columns), Affine(10, 0, 600000, 0, -10, 5100000), "EPSG:32633")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    shape = (700, 1100)
    classes = np.kron(random.integers(0, 3, (88, 138)), np.ones((8, 8)))[: shape[0], : shape[1]].astype("uint8")
    first = random.integers(0, 5001, shape)
    second = random.integers(0, 5000, shape)
    probability = np.stack([first, second, 10000 - first - second]).astype("uint16")
    classes[:40, :50] = 255
    probability[:, :40, :50] = 65535
    return {
        "class": classes,
        "probability": probability,
        "clear_count": random.integers(0, 90, shape).astype("uint16"),
    }


def test_cog_holds_the_values_grid_nodata_colours_and_names(arrays, tmp_path: Path):
    grid = geobox(700, 1100)
    write_cog(tmp_path / "class.tif", arrays["class"], grid, layer=CLASS, tags={"TITLE": "a map"})
    valid, errors, warnings = cog_validate(tmp_path / "class.tif", strict=True)
    assert valid, errors + warnings
    with rasterio.open(tmp_path / "class.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), arrays["class"])
        assert raster.crs.to_epsg() == 32633
        assert raster.transform == grid.affine
        assert raster.nodata == 255
        assert raster.block_shapes == [(512, 512)]
        assert raster.colormap(1)[2] == (30, 90, 60, 255)
        assert raster.descriptions == ("class",)
        assert raster.tags()["TITLE"] == "a map"


def test_probabilities_are_one_cog_with_scale_and_a_band_per_class(arrays, tmp_path: Path):
    write_cog(tmp_path / "p.tif", arrays["probability"], geobox(700, 1100), layer=PROBABILITY)
    assert cog_validate(tmp_path / "p.tif", strict=True)[0]
    with rasterio.open(tmp_path / "p.tif") as raster:
        np.testing.assert_array_equal(raster.read(), arrays["probability"])
        assert raster.descriptions == ("none", "broadleaved", "conifer")
        assert raster.scales == (1e-4, 1e-4, 1e-4)
        assert raster.nodata == 65535
        coarse = raster.read(out_shape=(3, 350, 550))
        assert raster.overviews(1) == [2, 4]
    filled = coarse[0] != 65535
    assert np.abs(coarse.astype(int).sum(axis=0)[filled] - 10000).max() <= 2
    assert (coarse[:, :20, :25] == 65535).all()


def test_class_overviews_hold_the_most_frequent_class(arrays, tmp_path: Path):
    write_cog(tmp_path / "class.tif", arrays["class"], geobox(700, 1100), layer=CLASS)
    with rasterio.open(tmp_path / "class.tif", overview_level=0) as raster:
        coarse = raster.read(1)
    # classes come in blocks of 8 pixels, so a half-resolution pixel lies in one of them
    np.testing.assert_array_equal(coarse, arrays["class"][::2, ::2])


def test_same_input_gives_the_same_bytes(arrays, tmp_path: Path):
    grid = geobox(700, 1100)
    for name in ("a", "b"):
        write_cog(tmp_path / f"{name}.tif", arrays["probability"], grid, layer=PROBABILITY, tags={"b": "1", "a": "2"})
        write_geozarr(resolve(tmp_path / f"{name}.zarr").zarr_store(), arrays, grid, layers=(CLASS, PROBABILITY, COUNT))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    first, second = (
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in (tmp_path / "a.zarr", tmp_path / "b.zarr")
    )
    assert first == second


def test_geozarr_holds_values_cf_names_and_overviews_in_the_native_crs(arrays, tmp_path: Path):
    grid = geobox(700, 1100)
    store = resolve(tmp_path / "m.zarr").zarr_store()
    write_geozarr(store, arrays, grid, layers=(CLASS, PROBABILITY, COUNT))
    tree = xr.open_datatree(store, engine="zarr", consolidated=True, mask_and_scale=False, decode_coords="all")
    layout = tree.attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == ["0", "1", "2", "3"]
    full = tree["0"].to_dataset()
    for name, values in arrays.items():
        np.testing.assert_array_equal(full[name].values, values)
    assert full["class_name"].values.tolist() == ["none", "broadleaved", "conifer"]
    for entry in layout:
        level = tree[entry["asset"]].to_dataset()
        assert list(level["class"].shape) == entry["spatial:shape"]
        assert geozarr.geobox_from_attributes(level["class"].attrs).crs == grid.crs
        assert list(level["class"].rio.transform())[:6] == entry["spatial:transform"]
        assert set(np.unique(level["class"])) <= {0, 1, 2, 255}
    physical = xr.open_zarr(store, group="0", zarr_format=3)["probability"]
    assert float(physical.sum("class_name", skipna=False)[100, 100]) == pytest.approx(1.0, abs=1e-6)
    assert np.isnan(physical.values[:, 0, 0]).all()


def test_geozarr_is_sharded(arrays, tmp_path: Path):
    write_geozarr(resolve(tmp_path / "m.zarr").zarr_store(), arrays, geobox(700, 1100), layers=(CLASS, PROBABILITY))
    array = zarr.open_array(tmp_path / "m.zarr" / "0" / "probability", mode="r")
    assert array.chunks == (1, 256, 256)
    assert array.shards == (3, 768, 1024)
    assert len([p for p in (tmp_path / "m.zarr" / "0" / "probability" / "c").rglob("*") if p.is_file()]) == 2


def test_a_crop_reads_the_window_only():
    whole = np.arange(40 * 50).reshape(40, 50)
    crop = Cropped(whole, slice(8, 30), slice(5, 45))
    assert crop.shape == (22, 40)
    np.testing.assert_array_equal(crop[slice(16, 22), slice(32, 40)], whole[24:30, 37:45])
    np.testing.assert_array_equal(crop[..., slice(16, 99), slice(0, 99)], whole[24:30, 5:45])


DAYS = np.array(["2024-05-01", "2024-06-01", "2024-07-01"], dtype="datetime64[D]")
QUANTILES = Layer(
    "ndvi",
    "Quantiles of NDVI",
    "int16",
    -32768,
    overviews="average",
    axes=(date_axis("time", DAYS), Axis("quantile", (0.1, 0.5))),
    scale=1e-4,
)


def test_a_layer_of_dates_and_quantiles_is_one_zarr_variable_with_decoded_coordinates(tmp_path: Path):
    values = np.random.default_rng(3).integers(-2000, 9000, (3, 2, 300, 600)).astype("int16")
    values[..., :10, :] = -32768
    store = resolve(tmp_path / "q.zarr").zarr_store()
    write_geozarr(store, {"ndvi": values}, geobox(300, 600), layers=(QUANTILES,))
    found = xr.open_zarr(store, group="0")["ndvi"]
    assert found.dims == ("time", "quantile", "y", "x")
    assert (found["time"].values.astype("datetime64[D]") == DAYS).all()
    assert found["quantile"].values.tolist() == [0.1, 0.5]
    np.testing.assert_allclose(found.values[..., 10:, :], values[..., 10:, :] * 1e-4, atol=1e-6)
    assert np.isnan(found.values[..., :10, :]).all()
    coarse = xr.open_zarr(store, group="1", mask_and_scale=False)["ndvi"].values
    np.testing.assert_array_equal(coarse, halve(values, "average", nodata=-32768))


def test_a_shard_holds_one_date_and_stays_small(tmp_path: Path):
    wide = Layer("embedding", "Embedding", "float32", np.nan, axes=(Axis("feature", tuple(range(96))),))
    store = resolve(tmp_path / "s.zarr").zarr_store()
    sources = {"ndvi": Generated((3, 2, 300, 600), "int16"), "embedding": Generated((96, 300, 600), "float32")}
    write_geozarr(store, sources, geobox(300, 600), layers=(QUANTILES, wide))
    level = zarr.open_group(store, mode="r")["0"]
    assert level["ndvi"].shards == (1, 2, 512, 768)
    assert level["embedding"].shards == (96, 256, 256)
    assert np.isnan(level["embedding"].fill_value)
    assert "_FillValue" not in level["embedding"].attrs


def test_a_plane_is_one_entry_of_the_last_dimension_before_y_and_x():
    values = np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5)
    plane = Plane(values, 1)
    assert plane.shape == (3, 4, 5)
    np.testing.assert_array_equal(plane[slice(None), slice(1, 3), slice(0, 2)], values[:, 1, 1:3, :2])
    np.testing.assert_array_equal(plane[..., slice(0, 4), slice(0, 5)], values[:, 1])
    np.testing.assert_array_equal(Plane(values[0], 0)[slice(0, 4), slice(0, 5)], values[0, 0])


def test_bands_are_named_by_dates_and_levels():
    assert QUANTILES.bands[:3] == ("2024-05-01 0.1", "2024-05-01 0.5", "2024-06-01 0.1")
    assert Layer("a", "A", "uint8", 0).bands == ()


@pytest.mark.parametrize("chunk", [256, 300])
def test_chunked_source_gives_the_same_file_as_an_array_in_memory(arrays, tmp_path: Path, chunk: int):
    grid = geobox(500, 900)
    stored = zarr.create_array(tmp_path / "s.zarr", data=arrays["probability"], chunks=(3, chunk, chunk))
    window = (slice(100, 600), slice(100, 1000))
    write_cog(tmp_path / "a.tif", Cropped(stored, *window), grid, layer=PROBABILITY)
    write_cog(tmp_path / "b.tif", arrays["probability"][(..., *window)], grid, layer=PROBABILITY)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_halving_by_mode_lets_no_nodata_vote_and_breaks_ties_downwards():
    values = np.array([[2, 2, 255, 255], [1, 0, 255, 1], [2, 1, 255, 255], [1, 2, 255, 255]], dtype="uint8")
    np.testing.assert_array_equal(halve(values, "mode", nodata=255), [[2, 1], [1, 255]])


def test_halving_by_average_rounds_half_up_over_valid_pixels():
    values = np.array([[1, 2, 65535], [2, 1, 7], [65535, 65535, 9]], dtype="uint16")
    np.testing.assert_array_equal(halve(values, "average", nodata=65535), [[2, 7], [65535, 9]])
    assert halve(values, "average", nodata=65535).dtype == np.uint16


def test_blocks_cover_every_pixel_once():
    seen = np.zeros((700, 1100), int)
    for y, x in blocks(seen.shape, 512):
        seen[y, x] += 1
    assert (seen == 1).all()


def test_a_source_of_another_shape_or_type_is_refused(tmp_path: Path):
    with pytest.raises(SchemaMismatch, match=r"expected uint8 \(5, 5\)"):
        write_cog(tmp_path / "a.tif", np.zeros((5, 6), "uint8"), geobox(5, 5), layer=CLASS)
    with pytest.raises(SchemaMismatch, match="got float32"):
        write_cog(tmp_path / "a.tif", np.zeros((5, 5), "float32"), geobox(5, 5), layer=CLASS)
    assert list(tmp_path.iterdir()) == []


class Generated:
    """A large array that exists only block by block."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "uint16") -> None:
        self.shape, self.dtype, self.largest = shape, np.dtype(dtype), 0

    def __getitem__(self, key):
        y, x = key[-2:]
        self.largest = max(self.largest, (y.stop - y.start) * (x.stop - x.start))
        leading = np.empty(self.shape[:-2])[key[:-2]].shape
        return np.full((*leading, y.stop - y.start, x.stop - x.start), 3333, self.dtype)


def test_the_source_is_read_in_windows_of_at_most_one_shard(tmp_path: Path):
    source = Generated((3, 2600, 2100))
    write_cog(tmp_path / "a.tif", source, geobox(2600, 2100), layer=PROBABILITY)
    assert source.largest <= 1024 * 1024
    write_geozarr(
        resolve(tmp_path / "a.zarr").zarr_store(),
        {"probability": source},
        geobox(2600, 2100),
        layers=(PROBABILITY,),
    )
    assert source.largest <= 1024 * 1024
