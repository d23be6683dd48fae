"""Tokens: the way back gives exactly what came in, whatever the bands, gaps and lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.indices import BANDS
from models.tokens import (
    ExtraChannel,
    PixelSeries,
    SeriesTokeniser,
    Tokens,
    compact,
    next_days,
    pad,
    to_dates,
    to_days,
    to_reflectance,
)
from storage.schema import SENTINEL2_BANDS

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12))
BAND_SETS = st.lists(st.sampled_from(BANDS), min_size=1, unique=True).map(tuple)


def series_of(reflectance: np.ndarray, extra: np.ndarray | None = None) -> PixelSeries:
    """Return a series with a look every five days, all clear."""
    count, steps = reflectance.shape[:2]
    days = (8000 + 5 * torch.arange(steps)).float().expand(count, -1)
    clear = torch.ones((count, steps), dtype=torch.bool)
    return PixelSeries(torch.from_numpy(reflectance), days, clear, None if extra is None else torch.from_numpy(extra))


def tokens_of(*days: float, count: int = 1, channels: int = 2) -> Tokens:
    """Return tokens whose values are their days."""
    day = torch.tensor(days, dtype=torch.float32).expand(count, -1)
    return Tokens(
        day[..., None].expand(-1, -1, channels), torch.stack([day, day], dim=-1), torch.ones_like(day, dtype=torch.bool)
    )


def test_the_ten_bands_are_those_of_the_cubes() -> None:
    assert BANDS == SENTINEL2_BANDS


@given(st.data(), BAND_SETS, SHAPES)
def test_the_way_back_gives_the_stored_integers(
    data: st.DataObject, bands: tuple[str, ...], shape: tuple[int, int]
) -> None:
    stored = data.draw(arrays.arrays(np.uint16, (*shape, len(bands))))
    tokeniser = SeriesTokeniser(bands)
    tokens = tokeniser.tokenise(series_of(stored))
    back = tokeniser.detokenise(tokens)
    assert back.reflectance.dtype == torch.uint16
    np.testing.assert_array_equal(back.reflectance.numpy(), stored)
    others = [number for number, band in enumerate(BANDS) if band not in bands]
    assert tokens.values[..., others].isnan().all()
    assert tokens.values.shape == (*shape, 10)


@given(
    arrays.arrays(np.int32, (2, 3, 2), elements=st.integers(-(10**7), 10**7)),
    st.floats(-500, 500),
    st.floats(0.01, 1000),
)
def test_extra_channels_come_back_to_three_units_in_the_last_place(
    thousandths: np.ndarray, offset: float, scale: float
) -> None:
    extra = (thousandths / 1000).astype(np.float32)
    tokeniser = SeriesTokeniser(
        ("B04",), (ExtraChannel("vv", offset, scale, "dB"), ExtraChannel("height", 0, 256, "m"))
    )
    back = tokeniser.detokenise(tokeniser.tokenise(series_of(np.ones((2, 3, 1), np.uint16), extra))).extra
    assert back is not None
    largest = np.maximum(np.abs(extra), np.maximum(abs(offset), np.abs(extra - np.float32(offset))))
    off = np.abs(back.numpy().astype(float) - extra)
    assert (off <= 3 * np.spacing(largest.astype(np.float32))).all()
    np.testing.assert_array_equal(back.numpy()[..., 1], extra[..., 1])


def test_every_stored_integer_has_its_own_value_and_zero_is_nan() -> None:
    stored = np.arange(65536, dtype=np.uint16).reshape(1, -1, 1)
    tokens = SeriesTokeniser(("B08",)).tokenise(series_of(stored))
    values = tokens.values[0, :, BANDS.index("B08")]
    assert values[0].isnan()
    assert (values[1:].diff() > 0).all()
    assert values[[500, 1000, 10_000]].tolist() == [0.0, 1.0, 19.0]
    assert to_reflectance(values)[10_000].item() == pytest.approx(1.0)


def test_days_and_clear_looks_come_back() -> None:
    clear = torch.tensor([[True, False, True, False]])
    series = PixelSeries(torch.ones((1, 4, 10), dtype=torch.uint16), torch.tensor([[1.0, 3.5, 8.0, 9.0]]), clear)
    back = SeriesTokeniser().detokenise(SeriesTokeniser().tokenise(series))
    assert torch.equal(back.days, series.days)
    assert torch.equal(back.clear, clear)
    assert back.extra is None


def test_the_target_day_is_that_of_the_next_clear_look() -> None:
    days = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    valid = torch.tensor([[True, False, True, True, False]])
    assert next_days(days, valid).tolist() == [[3.0, 3.0, 4.0, 4.0, 5.0]]
    assert next_days(days, valid, after=torch.tensor([9.0])).tolist() == [[3.0, 3.0, 4.0, 9.0, 9.0]]


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_compacting_keeps_the_valid_steps_in_order(rows: list[list[bool]]) -> None:
    valid = torch.tensor(rows)
    tokens = tokens_of(*range(1, 7), count=len(rows))
    short = compact(Tokens(tokens.values, tokens.position, valid))
    assert short.valid.sum(dim=1).tolist() == valid.sum(dim=1).tolist()
    assert short.valid.shape[1] == max(1, int(valid.sum(dim=1).max()))
    for number, row in enumerate(rows):
        kept = [day + 1.0 for day, is_kept in enumerate(row) if is_kept]
        assert short.values[number, : len(kept), 0].tolist() == kept
        assert short.position[number, : len(kept), 0].tolist() == kept
        assert short.values[number, len(kept) :].isnan().all()
        assert (short.position[number, 1:, 0] >= short.position[number, :-1, 0]).all()


def test_padding_makes_one_batch_and_compacting_each_series_undoes_it() -> None:
    parts = [tokens_of(1, 2, 3), tokens_of(5), tokens_of(7, 8, count=2)]
    batch = pad(parts)
    assert len(batch) == 4
    assert batch.valid.sum(dim=1).tolist() == [3, 1, 2, 2]
    assert batch.values[1, 1:].isnan().all()
    assert batch.position[1, :, 0].tolist() == [5.0, 5.0, 5.0]
    alone = compact(Tokens(batch.values[1:2], batch.position[1:2], batch.valid[1:2]))
    assert torch.equal(alone.values, parts[1].values)


def test_a_series_without_looks_can_be_padded() -> None:
    none = Tokens(torch.zeros((1, 0, 2)), torch.zeros((1, 0, 2)), torch.zeros((1, 0), dtype=torch.bool))
    assert pad([none, tokens_of(4)]).valid.tolist() == [[False], [True]]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="each one once"):
        SeriesTokeniser(("B04", "B01"))
    with pytest.raises(ValueError, match="each one once"):
        SeriesTokeniser(("B04", "B04"))
    with pytest.raises(ValueError, match="not positive"):
        ExtraChannel("vv", scale=0)
    with pytest.raises(ValueError, match="1 bands and 0 extra channels came"):
        SeriesTokeniser(("B04", "B08")).tokenise(series_of(np.ones((1, 1, 1), np.uint16)))
    with pytest.raises(ValueError, match="tokens have 2 channels"):
        SeriesTokeniser().detokenise(tokens_of(1))
    with pytest.raises(ValueError, match="same channels"):
        pad([tokens_of(1), tokens_of(1, channels=3)])
    with pytest.raises(ValueError, match="none"):
        pad([])


@given(st.dates(np.datetime64("1985-01-01").item(), np.datetime64("2060-01-01").item()))
def test_dates_become_days_and_come_back(date: object) -> None:
    dates = np.array([date], dtype="datetime64[D]")
    np.testing.assert_array_equal(to_dates(to_days(dates)), dates)
    assert to_days(np.array(["2000-01-01", "2000-12-31"], dtype="datetime64[D]")).tolist() == [0.0, 365.0]


def test_cutting_steps_and_moving_keep_all_three_fields() -> None:
    cut = tokens_of(1, 2, 3).steps(1, None).to("cpu")
    assert cut.values[0, :, 0].tolist() == cut.position[0, :, 1].tolist() == [2.0, 3.0]
    assert cut.valid.shape == (1, 2)
