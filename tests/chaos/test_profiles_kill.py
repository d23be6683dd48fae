"""Three hundred galaxies, one in a hundred spoilt in each of ten ways, the run killed three times: the same result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sky_folder_cases import SPOIL, GalaxyFolder, make_folder

from storage.location import resolve
from storage.manifest import list_runs
from storage.sky import SkyReader
from tasks.sky.extraction_plan import ExtractionRequest

CORE = Path(__file__).parent / "profiles_core.py"
ROOT = Path(__file__).parents[2]
GALAXIES, BATCH = 300, 25
LIMIT_S = 20.0
KINDS = tuple(SPOIL)[:10]
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> GalaxyFolder:
    return make_folder(tmp_path_factory.mktemp("sky"), GALAXIES, kinds=KINDS, each=GALAXIES // 100)


def request_of(made: GalaxyFolder, warehouse: Path) -> ExtractionRequest:
    return ExtractionRequest(
        str(made.targets),
        f"folder:{made.folder}",
        resolve(warehouse).url,
        bands=("r",),
        batch_size=BATCH,
        time_limit_s=LIMIT_S,
        workers=2,
        pages=False,
    )


def start(request: ExtractionRequest, folder: Path) -> subprocess.Popen[str]:
    path = folder / "request.json"
    path.write_text(json.dumps(request.to_json()))
    return subprocess.Popen(
        [sys.executable, str(CORE), str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(request: ExtractionRequest, folder: Path) -> dict[str, Any]:
    said, errors = start(request, folder).communicate(timeout=PATIENCE_S)
    assert said.count("\n") == 2, errors
    return json.loads(said.splitlines()[-1])


def kill_after(batches: int, request: ExtractionRequest, folder: Path, *, later_s: float) -> int:
    """Kill a run some time after so many batches are finished; return how many are."""
    process = start(request, folder)
    deadline = time.monotonic() + PATIENCE_S
    while finished(request) < batches:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(later_s)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=LIMIT_S + 20)
    assert family
    assert not alive, "the run's processes end with it"
    return finished(request)


def command_line(process: psutil.Process) -> str:
    """Return how a process was started, nothing of one that is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def finished(request: ExtractionRequest) -> int:
    return len(list((resolve(request.warehouse).local_path or Path()).glob("runs/*/objects/*.parquet")))


def result_of(request: ExtractionRequest, ended: dict[str, Any]) -> tuple[pa.Table, pd.DataFrame, dict[str, str]]:
    """Return all that should be equal: profiles, rows of objects, stored cutouts; not times nor names of states."""
    profiles = pq.read_table(Path(ended["product"]).parent / "profiles.parquet").drop_columns(["seconds", "snapshot"])
    root = resolve(request.warehouse)
    regions = pd.read_parquet((root.local_path or Path()) / "runs" / ended["run"] / "regions.parquet")
    reader = SkyReader(root / "sky" / "images")
    return profiles, regions, dict(zip(reader.ids, reader.catalogue["digest"], strict=True))


@pytest.mark.slow
def test_a_run_that_is_killed_three_times_ends_as_one_that_is_not(galaxies: GalaxyFolder, tmp_path: Path) -> None:
    calm = request_of(galaxies, tmp_path / "calm")
    expected = result_of(calm, finish(calm, tmp_path))
    killed, rng = replace(calm, warehouse=resolve(tmp_path / "killed").url), random.Random(4)
    counts = [kill_after(batches, killed, tmp_path, later_s=rng.uniform(0.0, 1.0)) for batches in (1, 4, 8)]
    assert counts == sorted(counts)
    assert counts[-1] < GALAXIES // BATCH
    ended = finish(killed, tmp_path)
    assert list_runs(resolve(killed.warehouse)) == [ended["run"]], "it goes on with the run that was killed"
    profiles, regions, digests = result_of(killed, ended)
    assert profiles.equals(expected[0])
    timed = ["seconds"]
    pd.testing.assert_frame_equal(regions.drop(columns=timed), expected[1].drop(columns=timed))
    assert digests == expected[2]
    check_rows(galaxies, profiles, regions)


def check_rows(galaxies: GalaxyFolder, profiles: pa.Table, regions: pd.DataFrame) -> None:
    """Every object has its rows, each bad one its reason, none took longer than its time."""
    names = [f"g{number:04d}" for number in range(GALAXIES)]
    assert list(regions["object_id"]) == names
    assert profiles["object_id"].to_pylist() == names
    rows = regions.set_index("object_id")
    assert rows["seconds"].max() <= LIMIT_S
    for name, kind in galaxies.spoilt.items():
        row = rows.loc[name]
        noted = row["state"] == "rejected" and row["reason"] and row["message"]
        assert noted or row["flags"] & ~2, (name, kind, dict(row))
    good = rows.drop(index=list(galaxies.spoilt))
    assert set(good["state"]) == {"measured"}


@contextmanager
def command_of(request: ExtractionRequest, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command line itself, with Prefect's own server behind it, which a killed command leaves behind."""
    named = {
        "targets": request.targets,
        "source": request.source,
        "bands": ",".join(request.bands),
        "warehouse": request.warehouse,
        "batch-size": request.batch_size,
        "time-limit": request.time_limit_s,
        "workers": request.workers,
    }
    options = [part for name, value in named.items() for part in (f"--{name}", str(value))]
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "profiles", *options, "--no-pages", "--json"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_command_killed_between_two_batches_goes_on_when_it_is_given_again(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 12, kinds=("truncated", "no-object"))
    calm = replace(request_of(made, tmp_path / "calm"), batch_size=2)
    expected = result_of(calm, finish(calm, tmp_path))
    killed = replace(calm, warehouse=resolve(tmp_path / "killed").url)
    said = tmp_path / "said.txt"
    with command_of(killed, said) as process:
        deadline = time.monotonic() + PATIENCE_S
        while finished(killed) < 1:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        measuring = [one for one in family if "tasks.sky.workers" in command_line(one)]
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(family, timeout=LIMIT_S + 20)
        assert measuring
        assert not alive, "the processes that measure, and Prefect's server, end with the command"
        assert 1 <= finished(killed) < 6, "killed while others were under way"
        with command_of(killed, said) as again:
            assert again.wait(PATIENCE_S) == 3, said.read_text()  # the spoilt ones are rejected
    summary = json.loads(said.read_text().splitlines()[-1])
    assert list_runs(resolve(killed.warehouse)) == [summary["run"]]
    profiles, regions, digests = result_of(killed, {"run": summary["run"], "product": summary["details"]["product"]})
    assert profiles.equals(expected[0])
    pd.testing.assert_frame_equal(regions.drop(columns="seconds"), expected[1].drop(columns="seconds"))
    assert digests == expected[2]
