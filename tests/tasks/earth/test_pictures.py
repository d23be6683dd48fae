from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from storage.classes import CANOPY_CLASSES
from tasks.earth.pictures import Caption, colour, draw_class_map, round_length

CAPTION = Caption("A map", "2024", "footer", {"none": 70.0, "broadleaved": 20.0, "conifer": 10.0})


def geobox(rows: int, columns: int) -> GeoBox:
    return GeoBox((rows, columns), Affine(10, 0, 399360, 0, -10, 5130240), "EPSG:32633")


def draw(path: Path, values: np.ndarray, caption: Caption = CAPTION) -> np.ndarray:
    draw_class_map(path, values, geobox(*values.shape), classes=CANOPY_CLASSES, caption=caption)
    return np.asarray(Image.open(path).convert("RGB"))


def share(image: np.ndarray, rgb: tuple[int, int, int]) -> float:
    return float((image == rgb).all(axis=-1).sum())


def test_colours_are_those_of_the_classes_and_nodata_is_white():
    coloured = colour(np.array([[0, 1], [2, 255]], dtype="uint8"), CANOPY_CLASSES)
    assert coloured.tolist() == [[[232, 224, 207], [127, 181, 60]], [[29, 91, 58], [255, 255, 255]]]


def test_the_map_shows_each_class_where_it_is(tmp_path: Path):
    values = np.zeros((200, 200), dtype="uint8")
    values[:100, 100:] = 2  # upper right
    values[100:, :100] = 1  # lower left
    image = draw(tmp_path / "m.png", values)
    height, width = image.shape[:2]
    map_area = image[int(0.12 * height) : int(0.88 * height), int(0.1 * width) : int(0.7 * width)]
    half = map_area.shape[0] // 2, map_area.shape[1] // 2
    upper_right, lower_left = map_area[: half[0], half[1] :], map_area[half[0] :, : half[1]]
    conifer, broadleaved = CANOPY_CLASSES[2].rgb, CANOPY_CLASSES[1].rgb
    assert share(upper_right, conifer) > 0.6 * upper_right.shape[0] * upper_right.shape[1]
    assert share(lower_left, broadleaved) > 0.6 * lower_left.shape[0] * lower_left.shape[1]
    assert share(upper_right, broadleaved) == 0


def test_every_class_is_in_the_legend_even_where_the_map_has_none(tmp_path: Path):
    image = draw(tmp_path / "m.png", np.zeros((100, 100), dtype="uint8"))
    for land_class in CANOPY_CLASSES:
        assert share(image, land_class.rgb) > 1000


def test_the_same_map_gives_the_same_bytes(tmp_path: Path):
    values = np.random.default_rng(3).integers(0, 3, (80, 120)).astype("uint8")
    draw(tmp_path / "a.png", values)
    draw(tmp_path / "b.png", values)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("shape", [(30, 30), (60, 900), (900, 60), (1, 1)])
def test_any_shape_gives_a_picture_of_a_readable_size(tmp_path: Path, shape: tuple[int, int]):
    values = np.full(shape, 255, dtype="uint8")
    image = draw(tmp_path / "m.png", values, Caption("A very long title " * 8, "2024"))
    assert 550 < image.shape[0] < 1400
    assert 700 < image.shape[1] < 1500


@pytest.mark.parametrize(("longest", "expected"), [(2600.0, 2000.0), (999.0, 500.0), (10.0, 10.0), (0.3, 0.2)])
def test_scale_bars_have_round_lengths(longest: float, expected: float):
    assert round_length(longest) == pytest.approx(expected)
