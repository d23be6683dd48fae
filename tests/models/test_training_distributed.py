"""Two real processes under torchrun: they agree, they equal one process, and what FSDP spread is gathered whole."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from series_cases import SMALL
from two_processes import LINE, SERIES, Line, Pairs

from models.checkpoint import Subject, load_checkpoint
from models.earthpt import EarthPT
from models.training import TrainConfig, TrainState, fit
from storage.location import resolve

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = TESTS.parent
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(TESTS / "two_processes.py"), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def written(folder: Path, way: str, rank: int, config: TrainConfig) -> TrainState:
    found = load_checkpoint(resolve(folder / f"{way}-{rank}"), Subject(config, "test", {}, {}))
    assert found is not None
    return found.state


def close(first: TrainState, second: TrainState, tolerance: float) -> bool:
    pairs = [(getattr(first, part), getattr(second, part)) for part in ("model", "ema")]
    return all(
        one.keys() == other.keys() and all(torch.allclose(one[key], other[key], atol=tolerance) for key in one)
        for one, other in pairs
    )


def with_parallel(config: TrainConfig, parallel: str, **more: int) -> TrainConfig:
    return replace(config, parallel=parallel, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["series-ddp", "series-fsdp", "series-ddp-resumed", "series-fsdp-resumed"])
def test_both_processes_end_with_the_same_weights(folder: Path, way: str) -> None:
    config = with_parallel(SERIES, way.split("-")[1])
    first, second = (written(folder, way, rank, config) for rank in (0, 1))
    assert close(first, second, 0.0)
    assert first.step == second.step == SERIES.steps


def test_two_processes_are_one_with_the_doubled_batch(folder: Path) -> None:
    two = written(folder, "line-ddp", 0, with_parallel(LINE, "ddp"))
    one = fit(Line(), Pairs(together=2), LINE)
    assert float(one.model["layer.weight"]) > 0.2
    assert close(two, one, 1e-6)


def test_gradients_of_several_batches_are_exchanged_once(folder: Path) -> None:
    config = with_parallel(LINE, "ddp", accumulation=3)
    first, second = (written(folder, "line-accumulated", rank, config) for rank in (0, 1))
    assert close(first, second, 0.0)
    one = fit(Line(), Pairs(together=2), replace(LINE, accumulation=3))
    assert float(one.model["layer.weight"]) > 0.2
    assert close(first, one, 1e-6)


def test_sharded_weights_are_those_of_copied_ones(folder: Path) -> None:
    copied = written(folder, "series-ddp", 0, with_parallel(SERIES, "ddp"))
    sharded = written(folder, "series-fsdp", 0, with_parallel(SERIES, "fsdp"))
    assert close(sharded, copied, 1e-5)
    assert not close(sharded, TrainState(EarthPT(SMALL).state_dict(), EarthPT(SMALL).state_dict()), 1e-4)


def test_a_sharded_state_is_whole_and_goes_into_a_plain_model(folder: Path) -> None:
    state = written(folder, "series-fsdp", 0, with_parallel(SERIES, "fsdp"))
    EarthPT(SMALL).load_state_dict(state.weights)
    assert all(
        moments["exp_avg"].shape in {parameter.shape for parameter in EarthPT(SMALL).parameters()}
        for moments in state.optimiser["state"].values()
    )


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_stopped_run_of_two_processes_goes_on_as_if_unbroken(folder: Path, parallel: str) -> None:
    config = with_parallel(SERIES, parallel)
    unbroken = written(folder, f"series-{parallel}", 0, config)
    assert close(written(folder, f"series-{parallel}-resumed", 0, config), unbroken, 0.0)


def test_one_process_that_ends_training_ends_it_for_all(folder: Path) -> None:
    config = with_parallel(LINE, "ddp", checkpoint_every=5)
    assert [written(folder, "line-ended", rank, config).step for rank in (0, 1)] == [5, 5]
