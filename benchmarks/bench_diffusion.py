"""The diffusion model: images a second of training, and of sampling in few steps beside 1000 ancestral ones in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.samplers import Sampler, sample, sigma_steps
from models.training import StepReport, TrainConfig, fit
from tasks.sky.diffusion_data import GalaxyBatches
from tasks.sky.galaxy_pool import Pool

FEW, MANY = 18, 1000
LEAST_RATIO = 30.0
SMALL = replace(DiffusionConfig(), pixels=16, widths=(16,), depths=(1,), attended=0)
CONDITIONS = {"conditions": ("magnitude",), "condition_centre": (0.0,), "condition_spread": (1.0,)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Let one core's pace be told, whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(full_size: bool) -> GalaxyDiffusion:
    """Return a model of the shipped size, or a small one, with first weights: what they are does not change the pace."""
    return GalaxyDiffusion(replace(DiffusionConfig() if full_size else SMALL, **CONDITIONS))  # type: ignore[arg-type]


def noise_pool(config: DiffusionConfig) -> Pool:
    rng = np.random.default_rng(0)
    flux = rng.normal(scale=0.01, size=(64, 3, config.pixels, config.pixels)).astype(np.float16)
    return Pool(flux, rng.normal(size=(64, 1)).astype(np.float32), ("magnitude",), ("g", "r", "z"), 0.524)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training(benchmark: BenchmarkFixture, full_size: bool, precision: str) -> None:
    model = model_of(full_size)
    batches = GalaxyBatches(noise_pool(model.config), 32, seed=0)
    updates = 12 if full_size else 3
    config = TrainConfig(steps=updates, precision=precision, ema_decay=0.999, log_every=1, weight_decay=0.0)  # type: ignore[arg-type]
    reports: list[StepReport] = []

    def run() -> None:
        reports.clear()
        fit(model, batches, config, on_step=reports.append)

    benchmark.pedantic(run, rounds=1)
    seconds = sorted(report.seconds for report in reports[1:])[len(reports[1:]) // 2]
    size = sum(parameter.numel() for parameter in model.parameters())
    assert len(reports) == updates
    print(f"\ntraining, {precision}, {size / 1e6:.2f}M parameters, one thread: {32 / seconds:.1f} images/s")


def test_sampling(benchmark: BenchmarkFixture, full_size: bool) -> None:
    model = model_of(full_size).eval()
    config, count = model.config, 32 if full_size else 2
    noise = torch.randn(count, 3, config.pixels, config.pixels, generator=torch.Generator().manual_seed(0))
    steps = MANY if full_size else 40

    def made(sampler: Sampler, evaluations: int) -> Tensor:
        levels = sigma_steps(evaluations, sigma_min=config.sigma_min, sigma_max=config.sigma_max)
        return sample(model.denoise, noise, levels, sampler=sampler, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        slow = seconds(lambda: made("ancestral", steps))
        fast = min(seconds(lambda: made("dpm", FEW)) for _ in range(3))
        benchmark.pedantic(made, args=("dpm", FEW), rounds=1)
    print(
        f"\nsampling {count} images of {config.pixels} pixels, one thread: dpm, {FEW} steps {count / fast:.2f} images/s; "
        f"ancestral, {steps} steps {count / slow:.3f} images/s: {slow / fast:.1f} times faster"
    )
    if full_size:
        assert slow / fast >= LEAST_RATIO


def seconds(run: Callable[[], Tensor]) -> float:
    """Return the wall time of a run."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
