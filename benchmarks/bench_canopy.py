"""Canopy maps of a region by the two shipped heads, beside the forest floor and the same network in padded batches of full masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_forecast import make_case, shares
from benchmarks.sidebyside import by_turns, ratio
from models.canopy import CanopyNet
from models.earthpt import to_channels
from models.forest import ForestClassifier, ForestConfig, feature_names
from models.indices import BANDS
from models.tokens import Tokens, compact, to_days
from storage.classes import CANOPY_CLASSES
from storage.cube import SeriesBlock
from storage.location import resolve
from tasks.earth.canopy_classifier import classify_features, features_of_block
from tasks.earth.canopy_features import pixel_features
from tasks.earth.mapping import classify_block, to_physical
from tasks.earth.model_files import load_network
from tasks.earth.series_batches import RegionSeries

SHIPPED = ("canopy-distilled", "canopy-small")


@pytest.fixture(autouse=True)
def _threads(full_size: bool) -> Iterator[None]:
    """Leave the machine's threads to a measurement; a test needs one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if full_size else 1)
    yield
    torch.set_num_threads(threads)


def make_block(side: int, dates: int) -> SeriesBlock:
    """Return a square of pixels as a cube gives it: half of them seen by one orbit only, half of the looks clouded."""
    case = make_case(side * side, dates)
    stored = (case.reflectance * 10_000).astype(np.uint16).reshape(dates, len(BANDS), side, side)
    return SeriesBlock(stored, case.valid.reshape(dates, side, side), case.dates.astype("datetime64[us]"))


def padded(model: CanopyNet, block: SeriesBlock) -> np.ndarray:
    """Return features (pixel, feature): all pixels in one batch as long as the longest, one mask of all by all."""
    count = len(block.times)
    values = (
        torch.from_numpy(block.reflectance.reshape(count, len(BANDS), -1).transpose(2, 0, 1) * np.float32(2e-3)) - 1
    )
    day = to_days(block.times.astype("datetime64[D]")).expand(len(values), -1)
    valid = torch.from_numpy(block.valid.reshape(count, -1).T.copy())
    tokens = compact(Tokens(values, torch.stack([day, day], dim=-1), valid))
    with torch.no_grad():
        # with gradients on, the network takes the way of `EarthPT.answer`
        with torch.enable_grad():
            found = model.features(to_channels(tokens.values), tokens.position[..., 0], tokens.valid)
        return found.detach().numpy()


def map_region(model: CanopyNet, block: SeriesBlock) -> np.ndarray:
    """Return classes, as a region of a map gets them."""
    found = features_of_block(block, model=model, bands=BANDS)
    return classify_features(found, model=model, classes=CANOPY_CLASSES)["class"]


def test_canopy(benchmark: BenchmarkFixture, full_size: bool) -> None:
    side, dates, few = (80, 52, 24) if full_size else (16, 24, 12)
    block, some = make_block(side, dates), make_block(few, dates)
    models = {name: load_network(resolve("."), name).model for name in SHIPPED}
    for model in models.values():
        assert isinstance(model, CanopyNet)
        model.requires_grad_(False)
    distilled = models[SHIPPED[0]]
    assert isinstance(distilled, CanopyNet)
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.2, 0.1, (2000, len(feature_names(BANDS)))).astype(np.float32)
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=100)).fit(drawn, rng.integers(0, 3, 2000))
    own = features_of_block(some, model=distilled, bands=BANDS)["features"].reshape(distilled.config.features, -1).T
    np.testing.assert_allclose(own, padded(distilled, some), atol=1e-3)
    rivals: dict[str, Callable[[], object]] = {
        name: partial(map_region, model, block) for name, model in models.items()
    }
    rivals |= {
        "padded": partial(padded, distilled, some),
        "forest floor": partial(classify_block, block, forest, CANOPY_CLASSES),
    }
    seconds = by_turns(rivals, 3 if full_size else 1)
    benchmark.pedantic(rivals[SHIPPED[0]], rounds=1)
    counts = {name: few**2 if name == "padded" else side**2 for name in rivals}
    each = {name: taken / counts[name] for name, taken in seconds.items()}
    print(
        f"\n{torch.get_num_threads()} threads; {side**2} pixels of {dates} dates, {block.valid.sum() / side**2:.0f} valid looks a pixel"
    )
    for name, taken in each.items():
        print(
            f"{name:<18}{1 / np.median(taken):9.0f} pixels/s; {ratio(taken, each[SHIPPED[0]]):6.2f} times {SHIPPED[0]}'s time"
        )
    print(
        f"where the time of reading goes: {', '.join(f'{kind} {part:.0%}' for kind, part in shares(reading(distilled, some)).items())}"
    )


def reading(model: CanopyNet, block: SeriesBlock) -> Callable[[], object]:
    """Return what reads a block in this very thread, where the profiler sees it."""
    count = len(block.times)
    stored = to_physical(block.reflectance.reshape(count, len(BANDS), -1))
    series = RegionSeries(stored, block.valid.reshape(count, -1), block.times.astype("datetime64[D]"), BANDS)
    return partial(pixel_features, model, series)
