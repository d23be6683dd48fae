"""Numbers belong to galaxies, not to batches."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from tasks.sky.generator.draws import Draws, draw_seeds


@pytest.fixture(scope="module")
def draws() -> Draws:
    return Draws(draw_seeds(2000, torch.Generator().manual_seed(1)))


def test_seeds_are_the_same_however_they_are_split() -> None:
    once = draw_seeds(16, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(once, torch.cat([draw_seeds(10, generator), draw_seeds(6, generator)]))


def test_a_galaxys_numbers_do_not_hang_on_the_others(draws: Draws) -> None:
    alone = Draws(draws.seeds[7:8])
    assert torch.equal(alone.normal("noise", 3, 5)[0], draws.normal("noise", 3, 5)[7])


def test_names_give_unrelated_numbers(draws: Draws) -> None:
    first, second = draws.uniform("bar"), draws.uniform("bulge")
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.08
    assert torch.equal(first, draws.uniform("bar"))


def test_numbers_are_uniform_and_normal_within_a_galaxy_and_across(draws: Draws) -> None:
    for uniform in (draws.uniform("across"), draws[torch.tensor([0])].uniform("within", 3000)[0]):
        assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    for normal in (draws.normal("across"), draws[torch.tensor([0])].normal("within", 3001)[0]):
        assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3


def test_neighbouring_normal_numbers_are_independent(draws: Draws) -> None:
    field = draws[torch.tensor([3])].normal("noise", 200, 200)[0]
    for shifted in (field.roll(1, 0), field.roll(1, 1), field.roll(100, 0)):
        assert abs(float((field * shifted).mean())) < 0.02


def test_quantiles_come_back(draws: Draws) -> None:
    quantiles = torch.tensor([1.0, 2.0, 4.0, 8.0, 20.0])
    drawn = draws.quantile("size", quantiles)
    assert torch.allclose(torch.quantile(drawn, torch.linspace(0, 1, 5)), quantiles, rtol=0.08)
