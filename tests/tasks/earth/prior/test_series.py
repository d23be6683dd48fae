"""The prior: seeded, physical, and as wide as it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.indices import BANDS
from storage.schema import SENTINEL2_BANDS
from tasks.earth.prior import PriorBatches, PriorConfig, Series, draw_series
from tasks.earth.prior.calendar import YEAR_DAYS, draw_calendar

CONFIG = PriorConfig(looks=96, series=300, seed=4)


@pytest.fixture(scope="module")
def drawn() -> Series:
    return draw_series(CONFIG, 0)


def ndvi(reflectance: np.ndarray) -> np.ndarray:
    red, nir = reflectance[..., BANDS.index("B04")], reflectance[..., BANDS.index("B08")]
    return (nir - red) / (nir + red)


def test_bands_are_those_of_the_cubes() -> None:
    assert BANDS == SENTINEL2_BANDS


def test_the_same_position_gives_the_same_bytes_and_another_gives_others(drawn: Series) -> None:
    again, other = draw_series(CONFIG, 0), draw_series(CONFIG, 1)
    assert again.reflectance.tobytes() == drawn.reflectance.tobytes()
    assert other.reflectance.tobytes() != drawn.reflectance.tobytes()


def test_looks_stand_in_order_with_padding_at_the_end(drawn: Series) -> None:
    assert (np.diff(drawn.day, axis=1) >= 0).all()
    assert (np.diff(drawn.valid.astype(int), axis=1) <= 0).all()
    assert drawn.valid.sum(axis=1).min() >= 2
    within = drawn.valid[:, 1:]
    assert (np.diff(drawn.day, axis=1)[within] > 0).all()


def test_reflectance_is_what_an_archive_can_hold(drawn: Series) -> None:
    seen = drawn.reflectance[drawn.valid]
    assert seen.min() >= 1e-4
    assert seen.max() <= 2.0
    stored = seen.astype(np.float64) * 1e4
    np.testing.assert_allclose(stored, np.round(stored), atol=2e-3)


def test_ground_is_physical(drawn: Series) -> None:
    ground = drawn.ground[drawn.valid]
    assert np.isfinite(ground).all()
    assert ground.min() > 0
    assert np.percentile(ground, 99.9) < 1.0


def test_series_differ_as_woods_fields_water_and_towns_do(drawn: Series) -> None:
    value = np.where(drawn.valid, ndvi(drawn.ground), np.nan)
    middle, swing = np.nanmedian(value, axis=1), np.nanmax(value, axis=1) - np.nanmin(value, axis=1)
    assert np.percentile(middle, 2) < 0.2
    assert np.percentile(middle, 95) > 0.8
    assert (swing < 0.12).mean() > 0.05
    assert (swing > 0.4).mean() > 0.2


def test_most_looks_are_close_to_the_ground_and_some_are_far(drawn: Series) -> None:
    off = np.abs(ndvi(drawn.reflectance) - ndvi(drawn.ground))[drawn.valid]
    assert 0.01 < np.median(off) < 0.05
    assert 0.01 < (off > 0.15).mean() < 0.2


def test_haze_is_bluer_than_the_ground(drawn: Series) -> None:
    blue, swir = BANDS.index("B02"), BANDS.index("B12")
    added = drawn.reflectance - drawn.ground
    hazy = drawn.valid & (added[..., blue] > 0.08)
    assert hazy.sum() > 50
    assert np.median(added[hazy][:, blue]) > 1.5 * np.median(added[hazy][:, swir])


def test_calendars_hold_sparse_and_dense_series_and_dark_seasons() -> None:
    calendar = draw_calendar(np.random.default_rng(0), 400, 400)
    years = (calendar.day.max(axis=1) - calendar.day[:, 0]) / YEAR_DAYS
    a_year = calendar.valid.sum(axis=1) / np.maximum(years, 0.5)
    assert np.percentile(a_year, 10) < 15
    assert np.percentile(a_year, 90) > 45
    gap = np.where(calendar.valid[:, 1:], np.diff(calendar.day, axis=1), 0).max(axis=1)
    assert (gap > 90).mean() > 0.15


def test_the_newest_looks_are_kept() -> None:
    whole = draw_calendar(np.random.default_rng(3), 60, 400)
    short = draw_calendar(np.random.default_rng(3), 60, 40)
    last = [row[valid][-40:] for row, valid in zip(whole.day, whole.valid, strict=True)]
    for row, valid, wanted in zip(short.day, short.valid, last, strict=True):
        np.testing.assert_array_equal(row[valid], wanted)


def test_batches_are_tokens_scaled_as_published() -> None:
    batches = PriorBatches(PriorConfig(looks=32, series=8))
    batch, series = batches.at(5), draw_series(PriorConfig(looks=32, series=8), 5)
    assert batch.values.dtype == torch.float32
    np.testing.assert_allclose(batch.values.numpy(), 2 * series.reflectance * 10 - 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.position[..., 0].numpy(), series.day)
    assert batches.tokens(batch) == series.valid.sum()
