"""One more date: what it costs beside making the whole cube."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.archives import job_of, write_archive
from storage.cube import open_cube, read_state
from storage.location import resolve
from tasks.earth.ingest import TileJob, ingest_tile


def run(job: TileJob) -> float:
    """Ingest, and return the wall seconds: plan, state, reading and writing."""
    begun = time.perf_counter()
    ingest_tile(job)
    return time.perf_counter() - begun


@pytest.mark.filterwarnings("ignore")
def test_append(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    size, dates, more = (1024, 100, 9) if full_size else (256, 3, 1)
    archive = write_archive(tmp_path / "archive", size, dates + more, distinct=12)
    warehouse = tmp_path / "warehouse"
    jobs = [job_of(archive, size, warehouse, scenes=dates + added) for added in range(more + 1)]
    run(jobs[0])
    shutil.rmtree(warehouse)
    made = run(jobs[0])
    states = [read_state(resolve(warehouse) / jobs[0].tile.path)]
    one = []
    for job in jobs[1:]:
        one.append(run(job))
    again = run(jobs[-1])
    states.append(read_state(resolve(warehouse) / jobs[0].tile.path))
    assert [len(state.times) for state in states] == [dates, dates + more]
    newest = open_cube(resolve(warehouse) / jobs[0].tile.path)["reflectance"][-1]
    assert np.isfinite(newest.isel(y=slice(0, size), x=slice(0, size)).values).any()
    benchmark.pedantic(run, args=(jobs[-1],), rounds=1)
    print(f"\n{dates} dates of {size} x {size} x 10 bands made in {made:.2f} s, {1e3 * made / dates:.0f} ms a date")
    print(f"one more: {1e3 * np.median(one):.0f} ms, {100 * np.median(one) / made:.2f} % of making them")
    print(f"nothing new: {1e3 * again:.0f} ms")
