"""Peak memory of ingest and of mapping, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.archives import write_archive

LIMIT_BYTES = 3e9
ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_peak_memory(benchmark: BenchmarkFixture, full_size: bool, tmp_path: Path) -> None:
    size, dates = (1024, 100) if full_size else (256, 8)
    write_archive(tmp_path / "archive", size, dates, distinct=12)
    ingested = run("ingest", tmp_path, size)
    mapped = benchmark.pedantic(run, args=("map", tmp_path, size), rounds=1)
    assert ingested["dates"] == mapped["dates"] == dates
    for found in (ingested, mapped):
        assert found["peak"] < LIMIT_BYTES
    print(f"\n{dates} dates of {size} x {size} x 10 bands: ingest peaks at {ingested['peak'] / 1e9:.2f} GB")
    print(f"its regions of 256 x 256, read and classified: {mapped['peak'] / 1e9:.2f} GB")


def run(step: str, folder: Path, size: int) -> dict[str, int]:
    """Return what `benchmarks.peaks` measured."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peaks", step, str(folder), str(size)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
