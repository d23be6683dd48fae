"""The published EarthPT: the numbers of the original, its size, dates and order of bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.autoregressive import huber
from models.earthpt_published import (
    ALPHABETICAL_BANDS,
    PublishedEarthPT,
    PublishedEarthPTConfig,
    config_of,
    date_features,
    day_of_year,
)
from models.indices import BANDS
from models.published import read_published
from models.tokens import PixelSeries, SeriesTokeniser, Tokens

NEW_YEAR_2001 = 366.0
CONFIG = PublishedEarthPTConfig(layers=2, heads=2, width=16, block_size=12)


class Original:
    """The tiny checkpoint, and what the original implementation makes of it."""

    def __init__(self, folder: Path) -> None:
        model = read_published(folder / "ckpt.pt", "earthpt").model
        assert isinstance(model, PublishedEarthPT)
        self.model = model.eval().requires_grad_(False)
        known = np.load(folder / "io.npz")
        self.known = {name: torch.from_numpy(known[name]) for name in known}
        days = NEW_YEAR_2001 + self.known["day_of_year"].float()
        self.position = torch.stack([days[:-1], days[1:]], dim=-1).expand(3, -1, -1)
        self.values = self.known["inputs"][..., :10]
        self.context = int(self.known["context_steps"])

    def tokens(self, steps: int) -> Tokens:
        return Tokens(
            self.values[:, :steps], self.position[:, :steps], torch.ones((len(self.values), steps), dtype=torch.bool)
        )


@pytest.fixture(scope="module")
def original(shared_data: Path) -> Original:
    return Original(shared_data / "checkpoints" / "earthpt_tiny")


def apart(found: Tensor, known: Tensor) -> float:
    assert found.shape == known.shape
    return float((found - known).abs().max())


def test_inputs_are_those_of_the_original(original: Original) -> None:
    features = original.model.features(original.values, original.position)
    assert apart(features, original.known["inputs"]) <= 1e-6


def test_predictions_are_those_of_the_original(original: Original) -> None:
    predictions = original.model(original.tokens(24))
    assert apart(predictions, original.known["predictions"]) <= 2e-5


def test_the_loss_is_that_of_the_original(original: Original) -> None:
    tokens = original.tokens(24)
    loss = huber(original.model(tokens), tokens.values, tokens.valid)
    assert apart(loss, original.known["huber_loss"]) <= 2e-5


def test_training_compares_with_the_next_step(original: Original) -> None:
    loss = original.model.loss(original.tokens(24), generator=torch.Generator())
    expected = huber(original.known["predictions"][:, :-1], original.values[:, 1:24], original.tokens(23).valid)
    assert apart(loss, expected) <= 2e-5


def test_the_embedding_is_that_of_the_original(original: Original) -> None:
    assert apart(original.model.embedding(original.tokens(24)), original.known["embedding_mean"]) <= 2e-5


@pytest.mark.parametrize("cached", [True, False])
def test_roll_out_past_the_block_is_that_of_the_original(original: Original, cached: bool) -> None:
    """12 steps of context and 21 of roll-out; the block ends at 24."""
    context = original.tokens(original.context)
    made = original.model.generate(context, original.position[:, original.context :], cached=cached)
    assert apart(made, original.known["rollout"][:, original.context :, :10]) <= 1e-4
    assert apart(made[:, :1], original.known["last_step"]) <= 2e-5


def test_a_forecast_sets_the_target_days_itself(original: Original) -> None:
    context = original.tokens(original.context)
    unset = context.position.clone()
    unset[..., 1] = 0
    made = original.model.forecast(
        Tokens(context.values, unset, context.valid), original.position[0, original.context :, 0]
    )
    assert apart(made, original.known["rollout"][:, original.context :, :10]) <= 1e-4


def test_the_largest_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = PublishedEarthPT(PublishedEarthPTConfig())
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(counts.values()) == 709_881_600
    assert sum(counts.values()) - counts["positions.weight"] == 709_553_920


def test_days_of_the_year_are_those_of_the_calendar() -> None:
    dates = np.arange("1899-01-01", "2402-01-01", dtype="datetime64[D]")
    known = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
    days = torch.from_numpy((dates - np.datetime64("2000-01-01")).astype(int))
    np.testing.assert_array_equal(day_of_year(days), known)
    np.testing.assert_array_equal(day_of_year(days + 0.9), known)


def test_date_features_are_sine_and_cosine_of_both_dates() -> None:
    quarter = 365 / 4
    features = date_features(torch.tensor([[NEW_YEAR_2001, NEW_YEAR_2001 + 91]]))
    known = [0.0, 1.0, np.sin(np.pi / 2 * 91 / quarter), np.cos(np.pi / 2 * 91 / quarter)]
    np.testing.assert_allclose(features[0], known, atol=1e-6)


def test_scaling_is_the_published_one() -> None:
    stored = torch.tensor([[[0, 500, 1000, 4321, 1, 2, 3, 4, 5, 6]]], dtype=torch.uint16)
    series = PixelSeries(stored, torch.tensor([[8000.0]]), torch.tensor([[True]]))
    values = SeriesTokeniser().tokenise(series).values[0, 0]
    expected = 2 * (stored[0, 0, 1:].double() / 1000) - 1
    torch.testing.assert_close(values[1:], expected.float())


def test_weights_in_another_order_of_bands_give_the_same_forecast() -> None:
    """Moving the weights' columns and rows along with the order changes nothing that the tokens see."""
    plain = PublishedEarthPT(CONFIG).eval().requires_grad_(False)
    other = PublishedEarthPT(PublishedEarthPTConfig(**{**vars(CONFIG), "bands": ALPHABETICAL_BANDS}))
    other.eval().requires_grad_(False)
    order = [BANDS.index(band) for band in ALPHABETICAL_BANDS]
    moved = plain.state_dict()
    moved["embed.0.weight"] = torch.cat([moved["embed.0.weight"][:, order], moved["embed.0.weight"][:, 10:]], dim=1)
    moved["head.weight"] = moved["head.weight"][order]
    other.load_state_dict(moved)
    values = torch.randn((2, 7, 10), generator=torch.Generator().manual_seed(1))
    day = torch.arange(7.0).expand(2, -1) * 5 + 8000
    tokens = Tokens(values, torch.stack([day, day + 5], dim=-1), torch.ones((2, 7), dtype=torch.bool))
    torch.testing.assert_close(other(tokens), plain(tokens))


def test_config_goes_through_json() -> None:
    config = PublishedEarthPTConfig(2, 2, 16, 12, bands=ALPHABETICAL_BANDS)
    assert config_of(PublishedEarthPT(config).to_config()) == config


def test_what_is_not_ten_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="in some order"):
        PublishedEarthPTConfig(bands=BANDS[:9])
    with pytest.raises(ValueError, match="11 channels came"):
        PublishedEarthPT(CONFIG).features(torch.zeros(1, 1, 11), torch.zeros(1, 1, 2))
