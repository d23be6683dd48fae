"""Pictures of a forecast: each value in its place, pixels from low to high, the same bytes for the same forecast."""

from __future__ import annotations

import io

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from tasks.earth.forecast_pictures import IndexMaps, PixelForecast, choose_places, draw_maps, draw_pixels

GRID = GeoBox((80, 100), Affine(10, 0, 399360, 0, -10, 5130240), "EPSG:32633")
ORIGIN = np.datetime64("2024-04-01")
WORDS = ("46.3° N 13.7° E; model m", "small print")
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def maps_of(median: np.ndarray) -> IndexMaps:
    days = ORIGIN + 30 * np.arange(1, len(median) + 1)
    return IndexMaps("ndvi", days, median.astype(np.float32), np.full_like(median, 0.1, dtype=np.float32), GRID)


def drawn(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_same_maps_give_the_same_bytes_and_others_do_not() -> None:
    values = np.random.default_rng(0).random((2, 80, 100))
    one = draw_maps(maps_of(values), origin=ORIGIN, title="Forecast: NDVI", words=WORDS)
    assert one == draw_maps(maps_of(values), origin=ORIGIN, title="Forecast: NDVI", words=WORDS)
    assert one != draw_maps(maps_of(values[::-1]), origin=ORIGIN, title="Forecast: NDVI", words=WORDS)


def test_green_lies_where_the_index_is_high() -> None:
    values = np.full((1, 80, 100), 0.1)
    values[:, :, 50:] = 0.8
    picture = drawn(draw_maps(maps_of(values), origin=ORIGIN, title="T", words=WORDS))
    dark = np.argwhere((picture[..., 1] < 100) & (picture[..., 1] > picture[..., 0] + 40))
    pale = np.argwhere((picture[..., 0] > 245) & (picture[..., 2] < 235) & (picture[..., 2] > 180))
    assert len(dark) > 5000
    assert len(pale) > 5000
    assert np.median(dark[:, 1]) > np.median(pale[:, 1])


@pytest.mark.parametrize("dates", [1, 4])
@pytest.mark.parametrize("nothing", [False, True])
def test_one_date_or_four_with_or_without_values_make_a_picture_of_a_readable_size(dates: int, nothing: bool) -> None:
    values = np.full((dates, 80, 100), np.nan if nothing else 0.5)
    picture = drawn(draw_maps(maps_of(values), origin=ORIGIN, title="T", words=WORDS))
    assert 500 < picture.shape[0] < 1500
    assert 800 < picture.shape[1] < 1900


def test_pixels_are_chosen_from_low_to_high_among_those_with_a_long_past() -> None:
    values = np.linspace(0, 1, 80 * 100).reshape(1, 80, 100)
    counts = np.full((80, 100), 30)
    counts[:40] = 3
    places = choose_places(maps_of(values), counts, pixel=10.0)
    rows = [round((5130240 - 5 - y) / 10) for _, y in places]
    columns = [round((x - 399360 - 5) / 10) for x, _ in places]
    found = values[0, rows, columns]
    assert len(places) == 4
    assert (np.diff(found) > 0.05).all()
    assert min(rows) >= 40


def test_where_no_past_is_long_any_pixel_with_a_forecast_serves_and_without_one_none() -> None:
    values = np.full((1, 80, 100), np.nan)
    assert choose_places(maps_of(values), np.full((80, 100), 30), pixel=10.0) == []
    values[0, 5, 6] = 0.4
    assert choose_places(maps_of(values), np.full((80, 100), 2), pixel=10.0) == [(399360 + 65, 5130240 - 55)]


def test_single_pixels_are_drawn_with_past_and_fan() -> None:
    dates = np.datetime64("2022-01-05") + 14 * np.arange(55)
    days = ORIGIN + 3 * np.arange(40)
    rng = np.random.default_rng(1)
    fan = np.sort(rng.uniform(0.3, 0.8, (7, 40)), axis=0)
    floors = {"phase_folded": fan[3] - 0.05, "window_median": fan[3] + 0.05}
    pixels = [
        PixelForecast("ndvi", (399365.0, 5130235.0), ORIGIN, dates, rng.uniform(0.2, 0.8, 55), days, fan, floors)
        for _ in range(2)
    ]
    picture = drawn(draw_pixels(pixels, levels=LEVELS, title="T", what="w"))
    assert picture.shape[1] > 1400
    assert picture.shape[0] > 700
