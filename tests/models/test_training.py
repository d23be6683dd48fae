"""The loop: its schedule, its sums, and that stopping it changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.training import NotLearning, StepReport, TrainConfig, TrainState, fit, learning_rate_at

CONFIG = TrainConfig(steps=12, learning_rate=0.05, warmup_steps=3, ema_decay=0.9, log_every=1, seed=5)


class Line(nn.Module):
    """Predicts the next value of a series from this one."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.drop = nn.Dropout(dropout)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
        noise = 1e-3 * torch.randn(batch[:, :1].shape, generator=generator, device=batch.device)
        return (self.layer(self.drop(batch[:, :1] + noise)) - batch[:, 1:]).square().mean()


@dataclass(frozen=True)
class Pairs:
    """Neighbours in an AR(1) series of coefficient 0.8 and unit innovations."""

    count: int = 16

    def at(self, position: int) -> Tensor:
        draw = torch.Generator().manual_seed(position)
        first = torch.randn((self.count, 1), generator=draw) / math.sqrt(1 - 0.64)
        return torch.cat([first, 0.8 * first + torch.randn((self.count, 1), generator=draw)], dim=1)

    def tokens(self, batch: Tensor) -> int:
        return batch.numel()


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return all(same(*pair) for pair in zip(first, second, strict=True))
    return bool(first == second)


def test_it_finds_the_best_forecast_of_an_autoregressive_series() -> None:
    model = Line()
    config = replace(CONFIG, steps=400, weight_decay=0.0, ema_decay=0.98)
    state = fit(model, Pairs(64), config)
    assert abs(float(state.weights["layer.weight"]) - 0.8) < 0.03
    model.load_state_dict(state.weights)
    held_out = Pairs(20_000).at(10**6)
    with torch.no_grad():
        assert abs(float(model.loss(held_out, generator=torch.Generator())) - 1.0) < 0.03


@pytest.mark.parametrize("stop", [1, 4, 7, 11])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_that_was_stopped_gives_the_same_bits(stop: int, accumulation: int) -> None:
    config = replace(CONFIG, accumulation=accumulation)
    unbroken = fit(Line(0.3), Pairs(), config)
    kept: list[TrainState] = []
    fit(Line(0.3), Pairs(), replace(config, checkpoint_every=stop), checkpoint=kept.append)
    resumed = fit(Line(0.3), Pairs(), config, kept[0])
    assert kept[0].step == stop
    for part in ("model", "ema", "optimiser", "step", "position"):
        assert same(getattr(resumed, part), getattr(unbroken, part)), part


def test_another_seed_gives_other_weights() -> None:
    assert not same(fit(Line(), Pairs(), CONFIG).model, fit(Line(), Pairs(), replace(CONFIG, seed=6)).model)


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    model = Line(0.5)
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    fit(model, Pairs(), CONFIG)
    assert torch.equal(torch.rand(3), wanted)


def test_accumulating_batches_is_one_large_batch() -> None:
    class Silent(Line):
        def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
            return (self.layer(batch[:, :1]) - batch[:, 1:]).square().mean()

    class Joined(Pairs):
        def at(self, position: int) -> Tensor:
            return torch.cat([Pairs(self.count).at(4 * position + part) for part in range(4)])

    several = fit(Silent(), Pairs(), replace(CONFIG, accumulation=4))
    one = fit(Silent(), Joined(), CONFIG)
    assert several.position == 4 * one.position
    for name, tensor in one.model.items():
        assert torch.allclose(tensor, several.model[name], atol=1e-6)


def test_the_learning_rate_rises_and_falls_as_a_cosine() -> None:
    config = TrainConfig(steps=110, learning_rate=2.0, final_share=0.1, warmup_steps=10)
    assert [learning_rate_at(config, step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate_at(config, 59) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert learning_rate_at(config, 109) == pytest.approx(0.2)


def test_minutes_hasten_the_cosine() -> None:
    config = TrainConfig(steps=1000, learning_rate=1.0, warmup_steps=0, minutes=10)
    assert learning_rate_at(config, 0, elapsed_s=600) == pytest.approx(0.1)


def test_a_budget_of_minutes_ends_the_run() -> None:
    state = fit(Line(), Pairs(), replace(CONFIG, steps=10**7, minutes=0.01))
    assert 0 < state.step < 10**7


def test_the_average_follows_its_formula() -> None:
    seen: list[dict[str, Tensor]] = []
    config = replace(CONFIG, steps=5, checkpoint_every=1)
    state = fit(Line(), Pairs(), config, checkpoint=lambda now: seen.append(now.model))
    average = torch.zeros(1, 1)
    for number, weights in enumerate(seen, start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weights["layer.weight"]
    assert torch.allclose(state.ema["layer.weight"], average, atol=1e-6)


def test_only_matrices_decay() -> None:
    class Still(Line):
        def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
            return 0.0 * (self.layer.weight.sum() + self.layer.bias.sum())

    model = Still()
    nn.init.ones_(model.layer.weight)
    nn.init.ones_(model.layer.bias)
    fit(model, Pairs(), replace(CONFIG, weight_decay=0.5))
    assert float(model.layer.weight) < 0.95
    assert float(model.layer.bias) == 1.0


def test_gradients_are_clipped_together() -> None:
    reports: list[StepReport] = []
    fit(Line(), Pairs(), replace(CONFIG, clip=1e-9, weight_decay=0.0), on_step=reports.append)
    assert reports[0].gradient_norm > 1e-3


def test_reports_count_tokens_and_time() -> None:
    reports: list[StepReport] = []
    fit(Line(), Pairs(), replace(CONFIG, log_every=5), on_step=reports.append)
    assert [report.step for report in reports] == [5, 10, 12]
    assert all(report.tokens == 32 and 0 <= report.wait_seconds <= report.seconds for report in reports)
    assert reports[-1].eta_seconds == 0


def test_a_step_without_a_finite_loss_changes_nothing() -> None:
    class Broken(Line):
        def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
            return super().loss(batch, generator=generator) * (math.nan if float(batch[0, 0]) > 0 else 1.0)

    model = Broken()
    fit(model, Pairs(), replace(CONFIG, steps=20))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert float(model.layer.weight) != 0


def test_training_that_never_works_stops_and_says_so() -> None:
    class Hopeless(Line):
        def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
            return super().loss(batch, generator=generator) * math.inf

    with pytest.raises(NotLearning, match="10 updates in a row"):
        fit(Hopeless(), Pairs(), replace(CONFIG, steps=50))


def test_an_error_in_the_data_reaches_the_caller() -> None:
    class Torn(Pairs):
        def at(self, position: int) -> Tensor:
            if position == 3:
                raise OSError("shard 7 is cut short")
            return super().at(position)

    with pytest.raises(OSError, match="shard 7"):
        fit(Line(), Torn(), CONFIG)


def test_products_on_a_cpu_stay_whole_and_the_setting_is_the_callers() -> None:
    seen: list[str] = []
    before = torch.get_float32_matmul_precision()
    fit(Line(), Pairs(), CONFIG, on_step=lambda _: seen.append(torch.get_float32_matmul_precision()))
    assert {*seen, torch.get_float32_matmul_precision()} == {before}


def test_a_state_does_not_change_when_training_goes_on_from_it() -> None:
    config = replace(CONFIG, checkpoint_every=4)
    kept: list[TrainState] = []
    fit(Line(), Pairs(), config, checkpoint=kept.append)
    fit(Line(), Pairs(), CONFIG, kept[0])
    ended = fit(Line(), Pairs(), config, checkpoint=lambda _: True)
    assert ended.step == 4
    for part in ("model", "ema", "optimiser"):
        assert same(getattr(kept[0], part), getattr(ended, part)), part


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("stop", [4, 7])
def test_on_a_gpu_a_stopped_run_goes_on_and_its_state_lies_in_the_hosts_memory(stop: int) -> None:
    unbroken = fit(Line(0.3).cuda(), Pairs(), CONFIG)
    kept: list[TrainState] = []
    fit(Line(0.3).cuda(), Pairs(), replace(CONFIG, checkpoint_every=stop), checkpoint=kept.append)
    resumed = fit(Line(0.3).cuda(), Pairs(), CONFIG, kept[0])
    for name, tensor in unbroken.model.items():
        assert tensor.device.type == "cpu"
        torch.testing.assert_close(resumed.model[name], tensor)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_state_of_a_gpu_is_gone_on_from_on_a_cpu() -> None:
    kept: list[TrainState] = []
    fit(Line().cuda(), Pairs(), replace(CONFIG, checkpoint_every=5), checkpoint=kept.append)
    assert fit(Line(), Pairs(), CONFIG, kept[0]).step == CONFIG.steps
    assert fit(Line().cuda(), Pairs(), CONFIG, fit(Line(), Pairs(), replace(CONFIG, steps=5))).step == CONFIG.steps
