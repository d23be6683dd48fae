"""A writer of a sky store killed at any instant leaves whole batches, and the next run completes the store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos.sky_core import batches
from sky_cases import assert_same_cutout

from storage.errors import NotFound
from storage.location import Location, resolve
from storage.sky import SkyReader

CORE = Path(__file__).with_name("sky_core.py")
START_S = 60.0


def start(store: Location) -> subprocess.Popen[str]:
    """Start a writer and wait until it is about to write."""
    path = os.pathsep.join([str(CORE.parents[1]), str(CORE.parents[2])])
    process = subprocess.Popen(
        [sys.executable, str(CORE), str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=START_S)[1]
    return process


def run_to_end(store: Location) -> float:
    """Return the seconds that the work took."""
    process = start(store)
    begun = time.perf_counter()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return time.perf_counter() - begun


def kill_after(seconds: float, store: Location) -> None:
    """Kill a writer some time into its work."""
    process = start(store)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)


def whole_batches(store: Location) -> int:
    """Return how many batches are in: each has all its objects, and each object is what its batch wrote."""
    try:
        reader = SkyReader(store)
    except NotFound:
        return 0
    written = {(name, cutout.object_id): cutout for name, cutouts in batches() for cutout in cutouts}
    there = set(reader.catalogue["batch"])
    assert set(reader.ids) == {object_id for name, object_id in written if name in there}
    for name, object_id in zip(reader.catalogue["batch"], reader.ids, strict=True):
        assert_same_cutout(reader.read(object_id), written[name, object_id])
    return len(there)


def kill_again_and_again(folder: Path, kills: int, seed: int) -> None:
    """Kill writers of one store at random instants, look at it each time, then let one finish."""
    rng = random.Random(seed)
    duration = run_to_end(resolve(folder) / "whole/sky/legacy")
    store = resolve(folder) / "killed/sky/legacy"
    reached = [0]
    for kill in range(kills):
        kill_after(rng.uniform(0.0, 0.6 * duration * (kill + 1) / kills), store)
        reached.append(whole_batches(store))
    assert reached == sorted(reached)
    run_to_end(store)
    assert whole_batches(store) == len(list(batches()))
    newest = {cutout.object_id: cutout for _, cutouts in batches() for cutout in cutouts}
    reader = SkyReader(store)
    for object_id, cutout in newest.items():
        assert_same_cutout(reader.read(object_id), cutout)


def test_two_kills_of_a_writer(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=2, seed=5)


@pytest.mark.slow
def test_twenty_kills_of_a_writer(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=20, seed=6)
