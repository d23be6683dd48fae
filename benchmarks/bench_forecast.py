"""Forecasts over a region with the small network: batches of little padding, against padded ones and pixel after pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.profiler import ProfilerActivity, profile

from benchmarks.sidebyside import by_turns, ratio
from models.earthpt import OUTPUTS, EarthPT, EarthPTConfig, Questions, from_channels, to_channels
from models.indices import BANDS
from models.tokens import Tokens, compact, to_days
from tasks.earth.earthpt_forecasters import EarthPTForecaster
from tasks.earth.forecasters import WindowForecaster
from tasks.earth.model_folders import ModelReference

CONFIG = EarthPTConfig(layers=3, heads=4, width=64)
"""Of the distilled network."""
KINDS_OF_WORK = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_softmax"),
    "GELU": ("aten::gelu",),
}


@dataclass(frozen=True)
class Case:
    """A region: reflectance (time, 10, pixel), valid (time, pixel), dates, and what is asked."""

    reflectance: np.ndarray
    valid: np.ndarray
    dates: np.ndarray
    targets: np.ndarray

    def part(self, pixels: int) -> Case:
        """Return every n-th pixel, so many in all."""
        some = slice(None, None, max(self.valid.shape[1] // pixels, 1))
        return Case(self.reflectance[:, :, some], self.valid[:, some], self.dates, self.targets)


@pytest.fixture(autouse=True)
def _threads(full_size: bool) -> Iterator[None]:
    """Leave the machine's threads to a measurement; a test needs one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if full_size else 1)
    yield
    torch.set_num_threads(threads)


def make_case(pixels: int, dates: int) -> Case:
    """Return two orbits' looks every five days; half of the pixels see one orbit only; half of the looks are clouded."""
    rng = np.random.default_rng(0)
    reflectance = rng.uniform(0.02, 0.5, (dates, len(BANDS), pixels)).astype(np.float32)
    valid = rng.random((dates, pixels)) < rng.uniform(0.2, 0.8, (dates, 1))
    valid[::2, : pixels // 2] = False
    days = np.datetime64("2021-01-03") + 5 * np.arange(dates)
    return Case(reflectance, valid, days, days[-1] + 15 * np.arange(1, 13))


def padded(model: EarthPT, case: Case) -> np.ndarray:
    """Return NDVI (target, quantile, pixel): all pixels in one batch as long as the longest, one mask of all by all."""
    values = torch.from_numpy(np.ascontiguousarray(case.reflectance.transpose(2, 0, 1))) * 20 - 1
    day = to_days(case.dates).expand(len(values), -1)
    tokens = compact(Tokens(values, torch.stack([day, day], dim=-1), torch.from_numpy(case.valid.T)))
    origin = (tokens.valid.sum(dim=1, keepdim=True) - 1).expand(-1, len(case.targets))
    asked = Questions(origin, to_days(case.targets).expand(len(values), -1), origin)
    with torch.inference_mode():
        answer = model.answer(to_channels(tokens.values), tokens.position[..., 0], tokens.valid, asked)
    return from_channels(answer.permute(1, 3, 0, 2))[..., OUTPUTS.index("ndvi")].numpy()


def one_by_one(model: EarthPT, case: Case) -> np.ndarray:
    """Return NDVI of one pixel after the other."""
    pixels = range(case.valid.shape[1])
    parts = [Case(case.reflectance[..., n : n + 1], case.valid[:, n : n + 1], case.dates, case.targets) for n in pixels]
    return np.concatenate([padded(model, part) for part in parts], axis=-1)


def test_forecast(benchmark: BenchmarkFixture, full_size: bool) -> None:
    pixels, dates, few, fewest = (4096, 146, 512, 64) if full_size else (64, 40, 32, 4)
    model = EarthPT(CONFIG, generator=torch.Generator().manual_seed(0)).eval()
    last = model.head[2]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight, 0, 0.3, generator=torch.Generator().manual_seed(1))
    forecaster = EarthPTForecaster(model, ModelReference("distilled", "", "", ""))
    case = make_case(pixels, dates)
    some, single = case.part(few), case.part(fewest)

    def region(part: Case = case) -> np.ndarray:
        found = forecaster.forecast(part.reflectance, part.valid, part.dates, part.targets, bands=BANDS)
        return found.indices["ndvi"]

    def window() -> object:
        return WindowForecaster().forecast(case.reflectance, case.valid, case.dates, case.targets, bands=BANDS)

    np.testing.assert_allclose(region(some), padded(model, some), atol=1e-5)
    np.testing.assert_allclose(region(single), one_by_one(model, single), atol=1e-5)
    rivals = {
        "region": region,
        "padded": lambda: padded(model, some),
        "pixel after pixel": lambda: one_by_one(model, single),
        "window floor": window,
    }
    seconds = by_turns(rivals, 3 if full_size else 1)
    benchmark.pedantic(region, rounds=1)
    counts = {"region": pixels, "padded": few, "pixel after pixel": fewest, "window floor": pixels}
    each = {name: taken / counts[name] for name, taken in seconds.items()}
    looks = case.valid.sum() / pixels
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{parameters / 1e6:.2f}M parameters, {torch.get_num_threads()} threads; {pixels} pixels of {dates} dates")
    print(f"{looks:.0f} valid looks a pixel, {len(case.targets)} targets, all bands and indices, 7 quantiles")
    for name, taken in each.items():
        middle = float(np.median(taken))
        print(
            f"{name:<18}{1 / middle:9.0f} series/s {dates / middle:12.0f} pixel-dates/s; a million looks read "
            f"{1e6 * middle / looks:7.1f} s; {ratio(taken, each['region']):6.2f} times the region's time"
        )
    print(f"where the time goes: {', '.join(f'{kind} {share:.0%}' for kind, share in shares(region).items())}")
    square = torch.rand(1024, 1024)
    share = product_rate(region) / product_rate(lambda: [square @ square for _ in range(5)])
    print(f"matrix products run at {share:.0%} of the rate of a large one")


def shares(run: Callable[[], object]) -> dict[str, float]:
    """Return which part of the processor's time goes into which kind of work."""
    spent = {event.key: event.self_cpu_time_total for event in profiled(run)}
    total = sum(spent.values())
    named = {kind: sum(spent.get(key, 0) for key in keys) / total for kind, keys in KINDS_OF_WORK.items()}
    return named | {"rotations, norms, copies": 1 - sum(named.values())}


def product_rate(run: Callable[[], object]) -> float:
    """Return the operations in linear layers per microsecond spent in them."""
    products = [event for event in profiled(run) if event.key in ("aten::mm", "aten::addmm")]
    return sum(event.flops for event in products) / sum(event.self_cpu_time_total for event in products)


def profiled(run: Callable[[], object]) -> Any:
    """Return the profile of a run, summed by operation."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], with_flops=True) as found:
        run()
    return found.key_averages()
