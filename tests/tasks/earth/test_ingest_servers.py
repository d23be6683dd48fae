"""The same archive by API and ranges, faults and all, gives the same cube as from its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories import Archive
from ingest_cases import QUICK, Look, add_look, assert_same_cube, days, ingest, make_archive, read_all, request_of
from servers.archive import serve_archive
from servers.range_server import KINDS, Faults
from servers.stac_api import Behaviour

from storage.manifest import Run
from tasks.earth.ingest import ingest_tile
from tasks.earth.request import jobs_of_run, open_ingest_run, prepare_ingest
from tasks.limits import HttpLimits

pytestmark = pytest.mark.server

PATIENT = HttpLimits(attempts=8, backoff_s=0.01, backoff_max_s=0.05, requests_per_s=10_000)
SOURCE = ("source",)
"""The one column that may differ: it holds the hrefs."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return five dates, an overlapping tile, a superseded scene and one without mask."""
    folder = tmp_path_factory.mktemp("served") / "archive"
    archive = make_archive(folder, 5)
    add_look(archive, "S2A_30UYC_20210506_0_L2A", days(5)[1], Look(40, raised=1000), tile="30UYC", baseline="05.00")
    add_look(archive, "S2A_30UXC_20210511_1_L2A", days(5)[2], Look(41, raised=1000), baseline="05.00")
    add_look(archive, "S2A_30UXC_20210701_0_L2A", "2021-07-01", Look(42, masked=False))
    return archive


@pytest.fixture(scope="module")
def from_folder(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    warehouse = tmp_path_factory.mktemp("served") / "warehouse"
    ingest(request_of(archive.catalog, warehouse))
    return warehouse


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(), Behaviour(largest_page=2, repeats=1, conformance=False), Behaviour(methods=("GET",), counts=False)],
    ids=["well", "small pages", "GET only"],
)
def test_an_api_gives_what_the_folder_gives(
    archive: Archive, from_folder: Path, tmp_path: Path, behaviour: Behaviour
) -> None:
    with serve_archive(archive.folder, behaviour=behaviour) as served:
        done = ingest(request_of(served.url, tmp_path, max_cloud=50.0))
        assert served.files.counts["answered"] > 0
    assert done.prepared.complete
    assert {row.state for row in done.rows} == {"ingested", "superseded"}
    assert_same_cube(read_all(tmp_path), read_all(from_folder), but=SOURCE)


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_that_pass_leave_no_trace(archive: Archive, from_folder: Path, tmp_path: Path, seed: int) -> None:
    faults = Faults(seed=seed, share=0.5, times=2, retry_after_s=0, slow_s=0.02)
    with serve_archive(archive.folder, faults=faults) as served:
        done = ingest(request_of(served.url, tmp_path, limits=PATIENT))
        assert sum(served.files.counts[kind] for kind in KINDS) > 10
        assert sum(served.api.counts[kind] for kind in KINDS) > 0
    assert {row.state for row in done.rows} == {"ingested", "superseded"}
    assert_same_cube(read_all(tmp_path), read_all(from_folder), but=SOURCE)


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_passes_alone(archive: Archive, from_folder: Path, tmp_path: Path, kind: str) -> None:
    faults = Faults(seed=3, share=0.3, times=1, kinds=(kind,), retry_after_s=0, slow_s=0.02)
    with serve_archive(archive.folder) as served:
        served.files.faults = faults
        ingest(request_of(served.url, tmp_path, limits=PATIENT, end=days(5)[1]))
        assert served.files.counts[kind] > 0
    short = read_all(from_folder)
    served_cube = read_all(tmp_path)
    assert served_cube.days == short.days[:2]
    assert (served_cube.stored == short.stored[:2]).all()
    assert (served_cube.scl == short.scl[:2]).all()


def test_retry_after_is_waited_for(archive: Archive, tmp_path: Path) -> None:
    faults = Faults(seed=3, share=1.0, times=1, kinds=("429",), retry_after_s=1)
    with serve_archive(archive.folder) as served:
        served.files.faults = faults
        done = ingest(request_of(served.url, tmp_path, limits=QUICK, end=days(5)[0]))
        first = min(moment for *_, moment in served.files.requests)
        answered = max(moment for *_, moment in served.files.requests)
    assert {row.state for row in done.rows} == {"ingested"}
    assert answered - first >= 1.0


def test_a_file_that_never_recovers_is_a_row_and_comes_with_a_redrive(
    archive: Archive, from_folder: Path, tmp_path: Path
) -> None:
    broken = "sentinel-2-l2a/S2A_30UXC_20210521_0_L2A/B08.tif"
    with serve_archive(archive.folder) as served:
        served.files.never.add(broken)
        request = request_of(served.url, tmp_path, limits=replace(QUICK, attempts=3))
        prepared = prepare_ingest(request)
        run: Run = open_ingest_run(request, prepared)
        rows = [row for job in prepared.jobs for row in ingest_tile(job).rows]
        run.write_regions(rows)
        (failed,) = [row for row in rows if row.state == "failed"]
        assert (failed.scene, failed.reason) == ("S2A_30UXC_20210521_0_L2A", "unavailable")
        assert "503" in failed.message
        assert "B08.tif" in failed.message
        assert days(5)[4] not in read_all(tmp_path).days
        served.files.never.clear()
        jobs, _ = jobs_of_run(run)
        again = [row for job in jobs for row in ingest_tile(job).rows]
        assert [(row.scene, row.state) for row in again] == [("S2A_30UXC_20210521_0_L2A", "ingested")]
    assert_same_cube(read_all(tmp_path), read_all(from_folder), but=("source", "entry"))


def test_a_catalogue_on_the_network_may_not_name_files_of_this_machine(archive: Archive, tmp_path: Path) -> None:
    with serve_archive(archive.folder) as served:
        for item in served.api.items:
            for asset in item["assets"].values():
                asset["href"] = (archive.folder / asset["href"].split("/", 3)[3]).as_uri()
        done = ingest(request_of(served.url, tmp_path, end=days(5)[0]))
    assert [(row.state, row.reason) for row in done.rows] == [("failed", "denied")]
    assert "may not name files of this machine" in done.rows[0].message


def test_a_server_that_lost_items_is_said(archive: Archive, tmp_path: Path) -> None:
    with serve_archive(archive.folder, behaviour=Behaviour(lost=2)) as served:
        prepared = prepare_ingest(request_of(served.url, tmp_path))
    assert not prepared.complete
    assert prepared.notes == ("6 different items came, the server counts 8",)
