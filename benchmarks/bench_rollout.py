"""Roll-out of the published EarthPT: keys and values kept, against the whole context computed again at each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.tokens import Tokens

LEAST_RATIO = 10.0


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small steps on several threads measure how long threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pixels(count: int, steps: int) -> Tokens:
    """Return made-up series with a look every five days."""
    values = torch.randn((count, steps, 10), generator=torch.Generator().manual_seed(0))
    day = (8000 + 5 * torch.arange(steps)).float().expand(count, -1)
    return Tokens(values, torch.stack([day, day + 5], dim=-1), torch.ones((count, steps), dtype=torch.bool))


def seconds(run: Callable[[], Tensor]) -> float:
    """Return the wall time of a run."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def test_rollout(benchmark: BenchmarkFixture, full_size: bool) -> None:
    context, coming, count = (226, 30, 16) if full_size else (226, 30, 4)
    size = (5, 4, 256) if full_size else (2, 4, 128)
    model = PublishedEarthPT(PublishedEarthPTConfig(*size, block_size=256)).eval()
    seen = pixels(count, context)
    days = seen.position[0, -1, 1] + 5 * torch.arange(coming)
    parameters = sum(parameter.numel() for parameter in model.parameters())

    def cached() -> Tensor:
        return model.forecast(seen, days)

    def recomputed() -> Tensor:
        return model.forecast(seen, days, cached=False)

    with torch.inference_mode():
        apart = (cached() - recomputed()).abs().max().item()
        assert apart <= 1e-5
        rounds = 3 if full_size else 1
        pairs = [(seconds(cached), seconds(recomputed)) for _ in range(rounds)]
        benchmark.pedantic(cached, rounds=1)
    ratio = sorted(slow / fast for fast, slow in pairs)[rounds // 2]
    print(f"\n{parameters / 1e6:.1f}M parameters, {count} pixels, {context} steps of context, {coming} of roll-out")
    print(f"cached {pairs[0][0]:.2f} s, recomputed {pairs[0][1]:.2f} s: {ratio:.1f} times faster, {apart:.1e} apart")
    if full_size:
        assert ratio >= LEAST_RATIO
