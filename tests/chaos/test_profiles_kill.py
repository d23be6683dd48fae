"""Three hundred galaxies, one in a hundred spoilt in each of ten ways, the run killed three times: the same result."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
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
