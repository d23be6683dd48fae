"""Counters of energy and time are added up right, and what the machine does not say stays unsaid."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.earth.energy import Cost, Meter


def counter(folder: Path, name: str, microjoules: int, turn: int = 1_000_000) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{turn}\n")


def test_packages_add_up_and_their_parts_are_not_counted_again(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        counter(tmp_path, name, 100_000)
    meter = Meter(counters=tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        counter(tmp_path, name, 350_000)
    assert meter.read().package_joules == pytest.approx(0.5)


def test_a_counter_that_began_again_is_counted_on(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 900_000)
    meter = Meter(counters=tmp_path)
    counter(tmp_path, "intel-rapl:0", 100_000)
    meter.read()
    counter(tmp_path, "intel-rapl:0", 300_000)
    assert meter.read().package_joules == pytest.approx(0.4)


def test_without_counters_energy_is_not_known(tmp_path: Path) -> None:
    assert Meter(counters=tmp_path / "none").read().package_joules is None


def test_hours_of_cpu_and_gpu_are_those_of_this_process(tmp_path: Path) -> None:
    meter, cpu, wall = Meter(gpus=2, counters=tmp_path), time.process_time(), time.perf_counter()
    sum(range(300_000))
    cost = meter.read()
    assert 0 < cost.cpu_hours * 3600 <= time.process_time() - cpu + 0.05
    assert cost.gpu_hours * 3600 == pytest.approx(2 * (time.perf_counter() - wall), abs=0.1)


def test_costs_add_up_and_energy_only_where_both_know_it() -> None:
    assert Cost(1.0, 2.0, 3.0) + Cost(0.5, 0.5, 4.0) == Cost(1.5, 2.5, 7.0)
    assert (Cost(1.0, 2.0, 3.0) + Cost(0.5)).package_joules is None
