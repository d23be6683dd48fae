"""Batches of series: each pixel once, its newest valid looks in order, and little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.indices import BANDS
from models.tokens import PixelSeries, SeriesTokeniser, compact, to_days
from tasks.earth import series_batches
from tasks.earth.series_batches import RegionSeries, batches_of

TEN_METRES = ("B08", "B02", "B04")


def region(pixels: int = 50, times: int = 30, *, seed: int = 0) -> RegionSeries:
    """Return random series of three bands, given in another order than the model's; some pixels have few looks."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(1, 8000, (times, 3, pixels))
    valid = rng.random((times, pixels)) < rng.random(pixels)
    valid[:, 7] = False
    dates = np.datetime64("2020-01-01") + np.cumsum(rng.integers(1, 20, times))
    return RegionSeries((stored / 10_000).astype(np.float32), valid, dates, TEN_METRES)


def test_every_pixel_with_a_look_comes_once_with_the_tokens_of_its_valid_looks() -> None:
    series = region()
    seen: list[int] = []
    tokeniser = SeriesTokeniser(TEN_METRES)
    for batch in batches_of(series, looks=100, tokens=200):
        for row, pixel in enumerate(batch.pixels):
            one = PixelSeries(
                torch.from_numpy(np.round(series.reflectance[None, :, :, pixel] * 10_000).astype(np.int32)),
                to_days(series.dates)[None],
                torch.from_numpy(series.valid[None, :, pixel]),
            )
            expected = compact(tokeniser.tokenise(one))
            count = int(batch.tokens.valid[row].sum())
            assert batch.tokens.valid[row, :count].all()
            assert count == int(expected.valid.sum())
            torch.testing.assert_close(
                batch.tokens.values[row, :count], expected.values[0], atol=1e-5, rtol=0, equal_nan=True
            )
            assert torch.equal(batch.tokens.position[row, :count, 0], expected.position[0, :, 0])
            assert (batch.tokens.position[row, count:, 0] == expected.position[0, -1, 0]).all()
        seen += batch.pixels.tolist()
    assert sorted(seen) == [pixel for pixel in range(50) if series.valid[:, pixel].any()]
    assert 7 not in seen


def test_only_the_newest_looks_are_kept() -> None:
    series = region()
    all_looks = {
        int(pixel): batch.tokens.values[row][batch.tokens.valid[row]]
        for batch in batches_of(series, looks=100, tokens=10_000)
        for row, pixel in enumerate(batch.pixels)
    }
    for batch in batches_of(series, looks=4, tokens=10_000):
        assert batch.tokens.valid.shape[1] <= 4
        for row, pixel in enumerate(batch.pixels):
            kept = batch.tokens.values[row][batch.tokens.valid[row]]
            assert torch.equal(kept.nan_to_num(9), all_looks[int(pixel)][-4:].nan_to_num(9))


def test_batches_keep_to_the_budget_and_waste_little() -> None:
    series, asked = region(pixels=1000), 3
    batches = list(batches_of(series, looks=100, tokens=600, asked=asked))
    assert all((valid.shape[1] + asked) * len(valid) <= 600 for valid in (batch.tokens.valid for batch in batches))
    looks = sum(int(batch.tokens.valid.sum()) for batch in batches)
    assert sum(batch.tokens.valid.numel() for batch in batches) <= 1.1 * looks
    longest = list(batches_of(series, looks=100, tokens=1))
    assert all(len(batch.pixels) == 1 for batch in longest)


def test_blocks_of_pixels_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    series = region()
    whole = {
        int(p): b.tokens.valid[r].sum() for b in batches_of(series, looks=9, tokens=99) for r, p in enumerate(b.pixels)
    }
    monkeypatch.setattr(series_batches, "PIXELS_AT_ONCE", 8)
    cut = {
        int(p): b.tokens.valid[r].sum() for b in batches_of(series, looks=9, tokens=99) for r, p in enumerate(b.pixels)
    }
    assert whole == cut


def test_a_look_without_a_number_is_no_look() -> None:
    series = region()
    series.reflectance[3] = np.nan
    series.reflectance[4, 1] = np.nan
    days = to_days(series.dates)
    (batch,) = batches_of(series, looks=100, tokens=100_000)
    found = batch.tokens.position[..., 0][batch.tokens.valid]
    assert not (found == days[3]).any()
    assert (found == days[4]).any()
    at = (batch.tokens.position[..., 0] == days[4]) & batch.tokens.valid
    assert batch.tokens.values[..., BANDS.index("B02")][at].isnan().all()
    assert not batch.tokens.values[..., BANDS.index("B08")][at].isnan().any()


def test_nothing_valid_gives_no_batch() -> None:
    series = region()
    series.valid[:] = False
    assert list(batches_of(series, looks=5, tokens=100)) == []
