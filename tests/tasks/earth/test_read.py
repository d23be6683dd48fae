"""What a file's pixels become on the tile's grid, and what lies on top where scenes overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from factories import write_cog
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_cases import a_scene, grid
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from tasks.earth.radiometry import OffsetDecision
from tasks.earth.read import ReadOptions, SceneRaster, mosaic, read_scene
from tasks.earth.scenes import BandAsset, OffsetClaim, Scene
from tasks.errors import SourceRejected

CLEAR = (4, 5, 6)
TEN = grid(256, 256, 64)
TWENTY = grid(256, 256, 64, pixel=20.0)


def numbers(geobox: GeoBox, seed: int = 0) -> np.ndarray:
    rows, columns = geobox.shape
    return np.random.default_rng(seed).integers(200, 4000, (rows, columns), dtype=np.uint16)


def scene_of(folder: Path, *, nodata: float | None = 0, **files: tuple[np.ndarray, GeoBox]) -> Scene:
    """Write one file for each band (``mask`` among them) and return the scene that names them."""
    assets = {}
    for band, (values, geobox) in files.items():
        write_cog(folder / f"{band}.tif", values, geobox, nodata=nodata)
        assets[band] = BandAsset(str(folder / f"{band}.tif"))
    return a_scene(assets=assets)


def test_ten_metre_pixels_are_copied_and_twenty_metre_ones_fill_four(tmp_path: Path) -> None:
    ten, twenty = numbers(TEN), numbers(TWENTY, 1)
    scene = scene_of(tmp_path, B02=(ten, TEN), B05=(twenty, TWENTY), mask=(np.full((32, 32), 4, np.uint8), TWENTY))
    raster = read_scene(scene, TEN, bands=("B02", "B05"), options=ReadOptions())
    np.testing.assert_array_equal(raster.reflectance[0], ten)
    np.testing.assert_array_equal(raster.reflectance[1], twenty.repeat(2, axis=0).repeat(2, axis=1))
    assert raster.scl.shape == (64, 64)
    assert raster.resampling == "B02: 10 m copied; B05 mask: 20 m nearest"


def test_twenty_metre_cells_are_cut_where_the_window_starts_between_them(tmp_path: Path) -> None:
    twenty = numbers(TWENTY)
    scene = scene_of(tmp_path, B05=(twenty, TWENTY))
    raster = read_scene(scene, TEN[5:40, 7:50], bands=("B05",), options=ReadOptions())
    np.testing.assert_array_equal(raster.reflectance[0], twenty.repeat(2, axis=0).repeat(2, axis=1)[5:40, 7:50])


@settings(max_examples=25, deadline=None)
@given(
    top=st.integers(-80, 80),
    left=st.integers(-80, 80),
    rows=st.integers(1, 90),
    columns=st.integers(1, 90),
    pixel=st.sampled_from([10, 20]),
)
def test_any_window_holds_the_files_values_and_zero_outside(
    tmp_path_factory: pytest.TempPathFactory, top: int, left: int, rows: int, columns: int, pixel: int
) -> None:
    geobox = TEN if pixel == 10 else TWENTY
    values = numbers(geobox)
    scene = scene_of(tmp_path_factory.mktemp("scene"), B02=(values, geobox))
    target = GeoBox((rows, columns), TEN.affine * Affine.translation(left, top), TEN.crs)
    fine = values.repeat(pixel // 10, axis=0).repeat(pixel // 10, axis=1)
    surroundings = np.zeros((400, 400), dtype=np.uint16)
    surroundings[100:164, 100:164] = fine
    raster = read_scene(scene, target, bands=("B02",), options=ReadOptions())
    expected = surroundings[100 + top : 100 + top + rows, 100 + left : 100 + left + columns]
    np.testing.assert_array_equal(raster.reflectance[0], expected)
    assert raster.covered_pixels == int((expected != 0).sum())
    assert raster.has_data == bool(expected.any())


def test_a_shifted_grid_takes_the_pixel_under_each_centre(tmp_path: Path) -> None:
    values = numbers(TEN)
    scene = scene_of(tmp_path, B02=(values, TEN))
    shifted = GeoBox((64, 64), TEN.affine * Affine.translation(0.3, 0.6), TEN.crs)
    raster = read_scene(scene, shifted, bands=("B02",), options=ReadOptions())
    expected = np.zeros_like(values)
    expected[:-1, :] = values[
        1:, :
    ]  # 0.6 of a pixel down: the centre lies in the next row; 0.3 right: in the same column
    np.testing.assert_array_equal(raster.reflectance[0], expected)
    assert raster.resampling == "B02: 10 m nearest"


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_another_crs_is_warped_as_rasterio_does(tmp_path: Path, method: str) -> None:
    values = numbers(TEN)
    scene = scene_of(tmp_path, B02=(values, TEN), mask=((values % 12).astype(np.uint8), TEN))
    target = TEN.to_crs("EPSG:32631", resolution=10)
    raster = read_scene(scene, target, bands=("B02",), options=ReadOptions(resampling=method))  # type: ignore[arg-type]
    for found, source, how in (
        (raster.reflectance[0], values, method),
        (raster.scl, (values % 12).astype(np.uint8), "nearest"),
    ):
        expected = np.zeros(target.shape, dtype=source.dtype)
        reproject(
            source,
            expected,
            src_transform=TEN.affine,
            src_crs=str(TEN.crs),
            src_nodata=0,
            dst_transform=target.affine,
            dst_crs=str(target.crs),
            dst_nodata=0,
            resampling=Resampling[how],
        )
        np.testing.assert_array_equal(found, expected)
    assert f"10 m warped from EPSG:32630, {method}" in raster.resampling


def test_a_coarser_grid_takes_the_mean_of_what_has_data(tmp_path: Path) -> None:
    values = numbers(TEN)
    values[:2, :2] = 0
    values[0, 2] = 0
    scene = scene_of(tmp_path, B02=(values, TEN), mask=((values % 12).astype(np.uint8), TEN))
    raster = read_scene(scene, TWENTY, bands=("B02",), options=ReadOptions())
    blocks = values.reshape(32, 2, 32, 2).transpose(0, 2, 1, 3).reshape(32, 32, 4).astype(float)
    blocks[blocks == 0] = np.nan
    with np.errstate(invalid="ignore"):
        mean = np.nansum(blocks, axis=2) / np.isfinite(blocks).sum(axis=2)
    assert raster.reflectance[0, 0, 0] == 0
    difference = raster.reflectance[0].astype(float)[np.isfinite(mean)] - mean[np.isfinite(mean)]
    assert np.abs(difference).max() <= 0.5
    assert set(np.unique(raster.scl)) <= set(range(12))


def test_no_data_of_the_file_becomes_zero(tmp_path: Path) -> None:
    values = numbers(TEN)
    values[:10] = 65535
    scene = scene_of(tmp_path, nodata=65535, B02=(values, TEN))
    raster = read_scene(scene, TEN, bands=("B02",), options=ReadOptions())
    assert not raster.reflectance[0, :10].any()
    np.testing.assert_array_equal(raster.reflectance[0, 10:], values[10:])


def test_no_data_of_the_item_goes_before_that_of_the_file(tmp_path: Path) -> None:
    values = numbers(TEN)
    values[:10] = 65535
    scene = scene_of(tmp_path, nodata=None, B02=(values, TEN))
    named = a_scene(assets={"B02": BandAsset(scene.assets["B02"].href, nodata=65535)})
    assert not read_scene(named, TEN, bands=("B02",), options=ReadOptions()).reflectance[0, :10].any()


def test_no_data_of_the_item_is_not_blended_into_a_warp(tmp_path: Path) -> None:
    values = np.full((64, 64), 1000, dtype=np.uint16)
    values[:20] = 65535
    scene = scene_of(tmp_path, nodata=None, B02=(values, TEN))
    named = a_scene(assets={"B02": BandAsset(scene.assets["B02"].href, nodata=65535)})
    target = TEN.to_crs("EPSG:32631", resolution=10)
    warped = read_scene(named, target, bands=("B02",), options=ReadOptions(resampling="bilinear")).reflectance
    assert set(np.unique(warped)) == {0, 1000}


def test_the_offset_is_taken_off_before_the_scenes_meet(tmp_path: Path) -> None:
    values = numbers(TEN)
    scene = scene_of(tmp_path, B02=(values + np.uint16(1000), TEN), mask=(np.full((64, 64), 4, np.uint8), TEN))
    claimed = a_scene(assets=scene.assets, offset=OffsetClaim(-1000, "s2:processing_baseline"))
    raster = read_scene(claimed, TEN, bands=("B02",), options=ReadOptions())
    np.testing.assert_array_equal(raster.reflectance[0], values)
    assert raster.offset.verdict == "agree"


def test_a_scene_without_mask_has_no_clear_pixel(tmp_path: Path) -> None:
    raster = read_scene(scene_of(tmp_path, B02=(numbers(TEN), TEN)), TEN, bands=("B02",), options=ReadOptions())
    assert not raster.has_mask
    assert not raster.scl.any()
    assert (raster.covered_pixels, raster.clear_pixels(CLEAR)) == (64 * 64, 0)


def test_bands_of_one_stack_are_read_by_their_number(tmp_path: Path) -> None:
    stack = np.stack([numbers(TEN, seed) for seed in range(3)])
    write_cog(tmp_path / "stack.tif", stack, TEN)
    href = str(tmp_path / "stack.tif")
    scene = a_scene(assets={"B04": BandAsset(href, 3), "B02": BandAsset(href, 1)})
    raster = read_scene(scene, TEN, bands=("B02", "B04"), options=ReadOptions())
    np.testing.assert_array_equal(raster.reflectance, stack[[0, 2]])
    beyond = a_scene(assets={"B04": BandAsset(href, 4)})
    with pytest.raises(SourceRejected, match=r"stack.tif: band 4 of 3 for B04") as refusal:
        read_scene(beyond, TEN, bands=("B04",), options=ReadOptions())
    assert refusal.value.reason == "missing-asset"


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"crs": None}, "not projected"),
        ({"crs": "EPSG:4326", "transform": Affine(1e-4, 0, -1.3, 0, -1e-4, 51.5)}, "not projected"),
        ({"transform": TEN.affine * Affine.rotation(30)}, "rotated"),
    ],
)
def test_a_file_without_a_projected_upright_grid_is_refused_by_name(
    tmp_path: Path, profile: dict[str, object], words: str
) -> None:
    known = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "dtype": "uint16", "crs": "EPSG:32630"}
    with rasterio.open(tmp_path / "B02.tif", "w", **{**known, "transform": TEN.affine, **profile}) as target:
        target.write(numbers(TEN), 1)
    scene = a_scene(assets={"B02": BandAsset(str(tmp_path / "B02.tif"))})
    with pytest.raises(SourceRejected, match=words) as refusal:
        read_scene(scene, TEN, bands=("B02",), options=ReadOptions())
    assert "B02.tif" in str(refusal.value)
    assert refusal.value.reason == "invalid-input"


def raster_of(scene_id: str, values: list[int], scl: list[int]) -> SceneRaster:
    """Return one row of pixels."""
    reflectance = np.array([[values]], dtype=np.uint16)
    decision = OffsetDecision(0, "", 0, "agree", None)
    return SceneRaster(a_scene(scene_id), reflectance, np.array([scl], dtype=np.uint8), decision, True, "")


def test_the_clear_scene_lies_on_top_then_the_better_one() -> None:
    best = raster_of("best", [1, 1, 1, 0, 0], [4, 9, 9, 0, 0])
    other = raster_of("other", [2, 2, 2, 2, 0], [4, 4, 8, 9, 0])
    reflectance, scl = mosaic([best, other], CLEAR)
    assert reflectance[0, 0].tolist() == [1, 2, 1, 2, 0]
    assert scl[0].tolist() == [4, 4, 9, 9, 0]


def test_a_pixel_comes_whole_from_one_scene() -> None:
    half = raster_of("half", [0], [4])
    half = SceneRaster(half.scene, np.array([[[7]], [[0]]], dtype=np.uint16), half.scl, half.offset, True, "")
    full = SceneRaster(a_scene("full"), np.array([[[5]], [[6]]], dtype=np.uint16), half.scl, half.offset, True, "")
    assert mosaic([half, full], CLEAR)[0][:, 0, 0].tolist() == [5, 6]


def test_one_scene_alone_is_kept_as_it_is() -> None:
    only = raster_of("only", [1, 0], [9, 0])
    assert mosaic([only], CLEAR)[0] is only.reflectance


def test_inputs_of_a_mosaic_are_left_as_they_were() -> None:
    best, other = raster_of("best", [1, 0], [9, 0]), raster_of("other", [2, 2], [4, 4])
    mosaic([best, other], CLEAR)
    assert best.reflectance[0, 0].tolist() == [1, 0]
    assert other.scl[0].tolist() == [4, 4]
