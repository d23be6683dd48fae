"""The default EarthPT: causal, blind to what it must not see, and with quantiles that mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from series_cases import SMALL, answers, lively_model, questions, series

from models.earthpt import (
    OUTPUTS,
    QUANTILES,
    EarthPT,
    EarthPTConfig,
    Questions,
    config_of,
    from_channels,
    pinball,
    season_median,
    spread_factors,
    to_channels,
)
from models.floors import window_median
from models.indices import BANDS
from models.tokens import Tokens, to_days


@pytest.fixture(scope="module")
def model() -> EarthPT:
    return lively_model(3)


def test_channels_come_back_as_physical_values() -> None:
    reflectance = torch.rand((50, 10), generator=torch.Generator().manual_seed(1)) * 0.6
    physical = from_channels(to_channels(reflectance * 20 - 1))
    assert torch.allclose(physical[:, :10], reflectance, atol=1e-6)
    red, nir = reflectance[:, BANDS.index("B04")], reflectance[:, BANDS.index("B08")]
    assert torch.allclose(physical[:, OUTPUTS.index("ndvi")], (nir - red) / (nir + red), atol=1e-5)


def test_what_comes_after_the_origin_changes_nothing(model: EarthPT) -> None:
    batch = series()
    asked = questions(batch)
    later = batch.values.clone()
    later[:, int(asked.origin[0, 0]) + 1 :] = 7.0
    changed = Tokens(later, batch.position, batch.valid)
    assert torch.equal(answers(model, batch, asked), answers(model, changed, asked))


def test_what_is_not_valid_changes_nothing(model: EarthPT) -> None:
    batch = series()
    valid = batch.valid.clone()
    valid[:, 3] = False
    hidden = batch.values.clone()
    hidden[:, 3] = -0.5
    asked = questions(batch)
    first = answers(model, Tokens(batch.values, batch.position, valid), asked)
    assert torch.equal(first, answers(model, Tokens(hidden, batch.position, valid), asked))
    assert not torch.equal(first, answers(model, batch, asked))


def test_one_question_does_not_hear_another(model: EarthPT) -> None:
    batch = series()
    asked = questions(batch)
    together = answers(model, batch, asked)
    alone = answers(model, batch, Questions(asked.origin[:, 2:3], asked.day[:, 2:3], asked.target[:, 2:3]))
    assert torch.allclose(together[:, 2:3], alone, atol=1e-5)


def test_padding_and_company_do_not_matter(model: EarthPT) -> None:
    batch = series(count=1)
    kept = int(batch.valid.sum())
    short = Tokens(batch.values[:, :kept], batch.position[:, :kept], batch.valid[:, :kept])
    asked = questions(batch)
    asked = Questions(asked.origin.clamp(max=kept - 1), asked.day, asked.target)
    assert torch.allclose(answers(model, batch, asked), answers(model, short, asked), atol=1e-5)


def test_a_missing_band_is_not_a_value(model: EarthPT) -> None:
    batch = series()
    asked = questions(batch)
    gone = batch.values.clone()
    gone[..., BANDS.index("B11")] = torch.nan
    found = answers(model, Tokens(gone, batch.position, batch.valid), asked)
    assert torch.isfinite(found).all()
    assert not torch.equal(found, answers(model, batch, asked))


def test_quantiles_ascend(model: EarthPT) -> None:
    batch = series()
    found = answers(model, batch, questions(batch))
    assert found.shape[-2:] == (len(OUTPUTS), len(QUANTILES))
    assert (found.diff(dim=-1) >= 0).all()


def test_a_shift_of_whole_years_changes_little(model: EarthPT) -> None:
    batch = series()
    asked = questions(batch)
    years = 4 * 365.25
    moved = Tokens(batch.values, batch.position + years, batch.valid)
    later = Questions(asked.origin, asked.day + years, asked.target)
    assert torch.allclose(answers(model, batch, asked), answers(model, moved, later), atol=2e-3)


def test_the_pinball_loss_is_least_at_the_quantiles() -> None:
    draw = torch.randn((1, 20_000, len(OUTPUTS)), generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(QUANTILES))
    counts = torch.ones(draw.shape[:2], dtype=torch.bool)
    best = pinball(normal.expand(*draw.shape, -1), draw, counts)
    for moved in (normal + 0.1, normal - 0.1, normal * 1.2, normal * 0.8):
        assert pinball(moved.expand(*draw.shape, -1), draw, counts) > best


def test_unknown_truth_and_empty_questions_do_not_count() -> None:
    truth = torch.zeros((1, 2, len(OUTPUTS)))
    truth[0, 0, 3] = torch.nan
    answer = torch.zeros((*truth.shape, len(QUANTILES)))
    answer[0, 0, 3], answer[0, 1] = 99.0, 99.0
    assert pinball(answer, truth, torch.tensor([[True, False]])) == 0


def test_training_questions_lie_after_their_origin_and_within_the_horizon(model: EarthPT) -> None:
    batch = series(count=40, looks=30)
    asked = model._ask(batch, torch.Generator().manual_seed(0))
    day = batch.position[..., 0]
    counted = asked.target > asked.origin
    assert counted.float().mean() > 0.9
    assert batch.valid.gather(1, asked.target)[counted].all()
    ahead = (asked.day - day.gather(1, asked.origin))[counted]
    assert (ahead > 0).all()
    assert (ahead <= SMALL.horizon_days + 22).all()  # the next look after the drawn day


def test_ndvi_is_never_hidden_and_is_all_that_some_series_keep(model: EarthPT) -> None:
    batch = series(count=400)
    kept = ~model._hide(batch.values, torch.Generator().manual_seed(0)).isnan().any(dim=1)  # (B, 15)
    assert kept[:, OUTPUTS.index("ndvi")].all()
    number = kept[:, : len(BANDS)].sum(dim=1)
    assert 0.3 < (number < len(BANDS)).float().mean() < 0.7
    alone = number == 0
    assert 0.04 < alone.float().mean() < 0.13
    assert (kept[alone].sum(dim=1) == 1).all()
    assert (kept[~alone][:, [BANDS.index("B04"), BANDS.index("B08")]]).all()


def test_the_median_of_the_season_is_the_floor_of_that_name() -> None:
    draw = np.random.default_rng(0)
    dates = np.datetime64("2017-01-01") + np.sort(draw.choice(1400, 60, replace=False))
    values, valid = draw.random((60, 7)), draw.random((60, 7)) < 0.4
    valid[:, 0] = False
    valid[dates.astype("datetime64[M]").astype(int) % 12 < 5, 1] = False  # nothing within 60 days of some targets
    targets = np.datetime64("2021-01-05") + np.arange(0, 330, 30)
    expected = window_median(values, valid, dates, targets)
    found = season_median(
        torch.from_numpy(values.T[..., None]),
        to_days(dates).expand(7, -1),
        to_days(targets).expand(7, -1),
        allowed=torch.from_numpy(valid.T.copy())[:, None].expand(-1, len(targets), -1),
    )
    assert np.allclose(found[..., 0].T, np.nan_to_num(expected))


def test_it_learns_a_level_that_differs_from_series_to_series() -> None:
    draw = torch.Generator().manual_seed(5)
    model = EarthPT(EarthPTConfig(layers=1, heads=2, width=32, pointers=2, queries=16, band_dropout=0.0))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)

    def batch() -> Tokens:
        level = torch.rand((16, 1, 10), generator=draw) * 0.5 - 0.9
        day = 7000 + 10 * torch.arange(24.0).expand(16, -1)
        noise = 0.02 * torch.randn((16, 24, 10), generator=draw)
        return Tokens(level + noise, torch.stack([day, day], dim=-1), torch.ones((16, 24), dtype=torch.bool))

    first = model.loss(batch(), generator=draw).item()
    for _ in range(120):
        optimiser.zero_grad()
        model.loss(batch(), generator=draw).backward()
        optimiser.step()
    assert model.loss(batch(), generator=draw).item() < 0.4 * first


def test_the_embedding_is_the_mean_over_valid_looks(model: EarthPT) -> None:
    batch = series()
    with torch.inference_mode():
        whole = model.embed(to_channels(batch.values), batch.position[..., 0], batch.valid)
        kept = int(batch.valid[0].sum())
        alone = model.embed(to_channels(batch.values[:1, :kept]), batch.position[:1, :kept, 0], batch.valid[:1, :kept])
    assert whole.shape == (3, SMALL.width)
    assert torch.allclose(whole[:1], alone, atol=1e-5)


def test_the_config_comes_back_from_what_is_saved() -> None:
    assert config_of({"layers": 5, "width": 64, "kind": "earthpt"}) == EarthPTConfig(layers=5, width=64)
    assert math.isclose(EarthPTConfig().band_dropout, 0.5)


def test_spread_factors_make_held_out_looks_fall_where_they_should() -> None:
    draw = torch.Generator().manual_seed(2)
    truth = torch.randn((40_000, 15), generator=draw)
    truth[truth < 0] *= 2  # a longer tail below
    level = torch.tensor(QUANTILES)
    narrow = 0.8 * torch.distributions.Normal(0.0, 1.0).icdf(level).expand(*truth.shape, -1)
    factors = spread_factors(narrow, truth)
    stretched = narrow * factors
    below = (truth[..., None] <= stretched).float().mean(dim=(0, 1))
    assert torch.allclose(below, level, atol=0.02)
    assert (stretched.diff(dim=-1) >= 0).all()
    assert (factors[:, 0] > factors[:, -1]).all()


def test_held_out_looks_never_make_the_quantiles_narrower() -> None:
    draw = torch.Generator().manual_seed(2)
    truth = torch.randn((4_000, 15), generator=draw)
    wide = 2 * torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(QUANTILES)).expand(*truth.shape, -1)
    assert (spread_factors(wide, truth) == 1).all()


def test_spread_widens_the_answer_and_keeps_its_median() -> None:
    calm, wide, batch = lively_model(3), lively_model(3), series()
    wide.spread.fill_(2.0)
    wide.spread[:, 3] = 1.0
    first, second = answers(calm, batch, questions(batch)), answers(wide, batch, questions(batch))
    assert torch.equal(first[..., 3], second[..., 3])
    assert torch.allclose(second[..., 6] - second[..., 3], 2 * (first[..., 6] - first[..., 3]), atol=1e-5)
