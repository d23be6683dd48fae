"""Features of a window: those of its pixels, whatever the parts and threads; only some pixels at once are in physical units."""

from __future__ import annotations

import tracemalloc
from copy import deepcopy

import numpy as np
import pytest
import torch

from models.canopy import CanopyConfig, CanopyNet
from models.indices import BANDS
from tasks.earth import canopy_features
from tasks.earth.canopy_features import grid_features, pixel_features
from tasks.earth.mapping import to_physical
from tasks.earth.series_batches import RegionSeries

MODEL = CanopyNet(CanopyConfig(layers=1, heads=2, width=8, pointers=2, months=1, hidden=8, reach=1)).eval()


def window(side: int, times: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return stored reflectance, valid looks and dates of a square; a tenth of the looks is clear."""
    rng = np.random.default_rng(2)
    stored = rng.integers(1, 9000, (times, len(BANDS), side, side), dtype=np.uint16)
    return stored, rng.random((times, side, side)) < 0.1, np.datetime64("2021-01-01") + 5 * np.arange(times)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_window_has_the_features_of_its_pixels(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(canopy_features, "PIXELS_AT_ONCE", 37)
    stored, valid, dates = window(15, 20)
    series = RegionSeries(to_physical(stored.reshape(20, len(BANDS), -1)), valid.reshape(20, -1), dates, BANDS)
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = grid_features(MODEL, stored, valid, dates, bands=BANDS)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(own)
    np.testing.assert_allclose(found.reshape(len(found), -1).T, pixel_features(MODEL, series), atol=1e-4)
    assert (found[:, ~valid.any(axis=0)] == 0).all()


def test_memory_is_that_of_a_part_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canopy_features, "PIXELS_AT_ONCE", 256)
    stored, valid, dates = window(64, 60)
    tracemalloc.start()
    grid_features(MODEL, stored, valid, dates, bands=BANDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * stored.size / 2


def test_looks_are_read_on_the_device_of_the_model() -> None:
    stored, valid, dates = window(4, 20)
    away = deepcopy(MODEL).to("meta")
    # a tensor of the meta device holds nothing: all goes there, and only the way back cannot be gone
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        grid_features(away, stored, valid, dates, bands=BANDS)
