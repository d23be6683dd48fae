"""What is trained on and what is held out have nothing in common, and the description says all that decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.earthpt import EarthPT, EarthPTConfig
from tasks.earth.prior import PoolBatches, PriorBatches, PriorConfig
from tasks.earth.processes import Team
from tasks.earth.training_data import DataChoice, gather, prior_version

ALONE = Team(0, 1, torch.device("cpu"))
CHOICE = DataChoice(series=4, looks=40, seed=5)


def test_the_prior_is_trained_on_by_its_seed() -> None:
    data = gather("unused", CHOICE, ALONE, horizon_days=100)
    expected = PriorBatches(PriorConfig(looks=40, series=4, seed=5)).at(3)
    torch.testing.assert_close(data.batches.at(3).values, expected.values, equal_nan=True)
    assert data.description["prior"] == {"looks": 40, "series": 4, "seed": 5, "code": prior_version()}


def test_held_out_series_are_none_of_those_trained_on() -> None:
    data = gather("unused", CHOICE, ALONE, horizon_days=100)
    (held,) = data.held_out
    first_days = set(held.tokens.position[:, 0, 0].tolist())
    firsts = torch.stack([data.batches.at(position).values[:, 0] for position in range(20)]).nan_to_num(-9).view(-1, 10)
    others = held.tokens.values[:, 0, :10].nan_to_num(-9)
    assert not (firsts[:, None] == others[None]).all(dim=-1).any()
    assert len(first_days) > 100
    assert held.number > 1000


def test_another_seed_holds_out_other_series() -> None:
    first, second = (gather("unused", replace(CHOICE, seed=seed), ALONE, horizon_days=100) for seed in (5, 6))
    assert not torch.equal(first.held_out[0].questions.day, second.held_out[0].questions.day)


def test_a_pool_is_drawn_once_and_named(tmp_path: Path) -> None:
    choice = replace(CHOICE, pool=1, places=1)
    data = gather(str(tmp_path), choice, ALONE, horizon_days=100)
    again = gather(str(tmp_path), choice, ALONE, horizon_days=100)
    assert isinstance(data.batches, PoolBatches)
    assert torch.equal(data.batches.at(3).values, again.batches.at(3).values)
    (held,) = data.held_out
    assert held.read is not None
    assert not (held.read & ~held.tokens.valid).any()
    assert held.read.sum() < held.tokens.valid.sum()
    assert len(held.tokens) > 512
    assert np.isfinite(held.loss(EarthPT(EarthPTConfig(1, 1, 16, 2, 4)).eval()))
    assert data.description["prior"]["pool"] == data.description["prior"]["places"] == 1
    assert f"{len(data.batches.pool):,} series, drawn once, of which 1 places gave some" in data.facts[0]


def test_the_version_of_the_prior_is_a_hash_of_its_code() -> None:
    assert prior_version() == prior_version()
    assert len(prior_version()) == 12
    int(prior_version(), 16)
