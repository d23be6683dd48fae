"""Killed at any update, a training that is run again ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.earth.training_run import METRICS

CORE = Path(__file__).parent / "training_core.py"
TESTS = CORE.parent.parent
STEPS = 40


def start(warehouse: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, str(CORE), str(warehouse)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def run_to_end(warehouse: Path) -> str:
    """Return the version of the model: a hash of its weights."""
    output, said = start(warehouse).communicate(timeout=300)
    assert output.splitlines()[-1].startswith("version "), said
    return output.splitlines()[-1].removeprefix("version ")


def kill_after(warehouse: Path, updates: int) -> int:
    """Kill the training some updates after it began or went on; return the last update that it spoke of."""
    process = start(warehouse)
    assert process.stdout is not None
    last = 0
    for _ in range(updates):
        word, _, value = process.stdout.readline().partition(" ")
        if word != "update":
            last = STEPS if word == "version" else last
            break
        last = int(value)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert last, said
    return last


def kill_again_and_again(folder: Path, kills: int, seed: int) -> None:
    expected = run_to_end(folder / "unbroken")
    rng, reached = random.Random(seed), []
    warehouse = folder / "killed"
    for _ in range(kills):
        reached.append(kill_after(warehouse, rng.randint(1, 12)))
    assert run_to_end(warehouse) == expected
    assert max(reached) > min(reached)
    (run,) = (path for path in (warehouse / "runs").iterdir() if path.is_dir())
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_two_kills_of_a_training(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=2, seed=8)


@pytest.mark.chaos
def test_twelve_kills_of_a_training(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=12, seed=9)
