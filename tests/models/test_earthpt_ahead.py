"""Questions about days to come: the same numbers as EarthPT.answer, whatever the length and bands of the series."""

from __future__ import annotations

import pytest
import torch
from series_cases import lively_model, series
from torch import Tensor

from models.earthpt import EarthPT, Questions, to_channels
from models.tokens import Tokens


@pytest.fixture(scope="module")
def model() -> EarthPT:
    model = lively_model(3).eval()
    model.get_buffer("spread")[:, -1] = 1.7
    return model


def both(model: EarthPT, batch: Tokens, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the short way and `EarthPT.answer` say."""
    channels, day = to_channels(batch.values), batch.position[..., 0]
    origin = (batch.valid.sum(dim=1, keepdim=True) - 1).expand(-1, len(ahead))
    asked = Questions(origin, ahead.expand(len(batch), -1), origin)
    with torch.inference_mode():
        short = model.answer_ahead(channels, day, batch.valid, ahead=ahead.expand(len(batch), -1))
        return short, model.answer(channels, day, batch.valid, asked)


@pytest.mark.parametrize("questions", [1, 5])
def test_answers_are_those_of_the_model(model: EarthPT, questions: int) -> None:
    batch = series(count=6, looks=30)
    assert len(set(batch.valid.sum(dim=1).tolist())) > 1  # some with padding
    ahead = batch.position[..., 0].max() + torch.linspace(3, 200, questions)
    short, expected = both(model, batch, ahead)
    assert short.shape == (6, questions, 15, 7)
    assert short.std(dim=0).min() > 0
    torch.testing.assert_close(short, expected, atol=1e-5, rtol=0)


def test_missing_bands_and_a_single_look_are_no_matter(model: EarthPT) -> None:
    batch = series(count=4, looks=12)
    values = batch.values.clone()
    values[:2, :, 3] = torch.nan
    values[:, 1] = torch.nan
    valid = batch.valid.clone()
    valid[3] = torch.arange(12) < 1
    short, expected = both(model, Tokens(values, batch.position, valid), batch.position[..., 0].max() + torch.ones(2))
    torch.testing.assert_close(short, expected, atol=1e-5, rtol=0)


def test_padding_may_hold_anything(model: EarthPT) -> None:
    batch = series(count=4, looks=20)
    ahead = batch.position[..., 0].max() + torch.tensor([10.0])
    first, _ = both(model, batch, ahead)
    gone = batch.values.clone()
    gone[~batch.valid] = torch.nan
    second, _ = both(model, Tokens(gone, batch.position, batch.valid), ahead)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
