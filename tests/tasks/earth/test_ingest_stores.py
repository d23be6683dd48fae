"""Folder, object store and Dask processes give one cube; two writers of one tile do not hurt it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import Archive
from ingest_cases import (
    TILE,
    Contents,
    Look,
    add_look,
    area_of,
    assert_same_cube,
    days,
    grid,
    ingest,
    make_archive,
    read_all,
    request_of,
)

from storage.cube import create_cube, read_state
from storage.location import resolve
from storage.schema import CubeSchema
from tasks.earth.ingest import TileJob, TileReport, ingest_tile
from tasks.earth.request import prepare_ingest

RIGHT = "earth/utm30n-10m/x0061_y0556"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return five dates on two tiles, with a second scene on one of them."""
    wide = grid(256, 896, 256)
    archive = make_archive(tmp_path_factory.mktemp("stores") / "archive", 5, geobox=wide)
    add_look(
        archive, "S2A_30UYC_20210506_0_L2A", days(5)[1], Look(40, wide, raised=1000), tile="30UYC", baseline="05.00"
    )
    return archive


@pytest.fixture(scope="module")
def area() -> dict[str, Any]:
    return area_of(grid(256, 896, 256))


def both_tiles(warehouse: str | Path) -> tuple[Contents, Contents]:
    left = read_all(warehouse, window=(slice(256, 512), slice(768, 1024)))
    return left, read_all(warehouse, RIGHT, window=(slice(256, 512), slice(0, 256)))


@pytest.fixture(scope="module")
def expected(
    archive: Archive, area: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Contents, Contents]:
    warehouse = tmp_path_factory.mktemp("stores") / "warehouse"
    ingest(request_of(archive.catalog, warehouse, area=area))
    return both_tiles(warehouse)


def assert_same_tiles(found: tuple[Contents, Contents], expected: tuple[Contents, Contents]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.stored.any()
        assert_same_cube(one, other)


@pytest.mark.server
def test_an_object_store_holds_what_a_folder_holds(
    archive: Archive, area: dict[str, Any], expected: tuple[Contents, Contents], s3_warehouse: str
) -> None:
    request = request_of(archive.catalog, s3_warehouse, area=area)
    ingest(request)
    assert_same_tiles(both_tiles(s3_warehouse), expected)
    before = read_state(resolve(s3_warehouse) / TILE).snapshot
    again = ingest(request)
    assert {row.state for row in again.rows} == {"skipped"}
    assert again.reports[0].snapshot == before


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a client of two processes that import what the tests do."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, host="127.0.0.1") as running, distributed.Client(running) as client:
        yield client


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("store", ["folder", "s3"])
def test_two_dask_processes_give_what_one_gives(
    archive: Archive,
    area: dict[str, Any],
    expected: tuple[Contents, Contents],
    cluster: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    store: str,
) -> None:
    warehouse = str(tmp_path) if store == "folder" else request.getfixturevalue("s3_warehouse")
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    cluster.run(os.environ.update, environment)
    jobs = prepare_ingest(request_of(archive.catalog, warehouse, area=area)).jobs
    futures = [cluster.submit(ingest_tile, job, pure=False, workers=[worker]) for job, worker in _spread(cluster, jobs)]
    reports = cluster.gather(futures)
    assert len(reports) == 2
    assert {row.state for report in reports for row in report.rows} == {"ingested"}
    assert len({cluster.who_has(future)[future.key][0] for future in futures}) == 2
    assert_same_tiles(both_tiles(warehouse), expected)


def _spread(client: Any, jobs: tuple[TileJob, ...]) -> Iterator[tuple[TileJob, str]]:
    yield from zip(jobs, client.scheduler_info()["workers"], strict=True)


def _ingest_at_once(job: TileJob, barrier: Any, answers: Any) -> None:
    barrier.wait(60)
    try:
        answers.put(ingest_tile(job))
    except BaseException as error:
        answers.put(repr(error))


def run_two(jobs: list[TileJob]) -> list[TileReport]:
    """Ingest jobs at the same moment, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(len(jobs)), context.Queue()
    processes = [context.Process(target=_ingest_at_once, args=(job, barrier, answers)) for job in jobs]
    for process in processes:
        process.start()
    reports = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert all(isinstance(report, TileReport) for report in reports), reports
    return reports


def states_of(report: TileReport) -> list[str]:
    return [row.state for row in report.rows]


def test_on_a_folder_the_second_writer_waits_and_finds_all_done(archive: Archive, tmp_path: Path) -> None:
    left = area_of(grid(256, 896, 128))
    ingest(request_of(archive.catalog, tmp_path / "alone", area=left))
    (job,) = prepare_ingest(request_of(archive.catalog, tmp_path / "both", area=left)).jobs
    reports = run_two([job, job])
    assert sorted(set(states_of(report)).pop() for report in reports) == ["ingested", "skipped"]
    assert all(len(set(states_of(report))) == 1 for report in reports)
    window = (slice(256, 512), slice(768, 1024))
    assert_same_cube(read_all(tmp_path / "both", window=window), read_all(tmp_path / "alone", window=window))


@pytest.mark.slow
@pytest.mark.server
def test_on_an_object_store_both_writers_finish_and_the_cube_is_right(
    archive: Archive, tmp_path: Path, s3_warehouse: str
) -> None:
    left = area_of(grid(256, 896, 128))
    ingest(request_of(archive.catalog, tmp_path, area=left))
    (job,) = prepare_ingest(request_of(archive.catalog, s3_warehouse, area=left)).jobs
    reports = run_two([job, job])
    assert all(set(states_of(report)) <= {"ingested", "skipped"} for report in reports)
    assert sum(states_of(report).count("ingested") for report in reports) >= 6
    window = (slice(256, 512), slice(768, 1024))
    assert_same_cube(read_all(s3_warehouse, window=window), read_all(tmp_path, window=window))


@pytest.mark.slow
@pytest.mark.server
def test_on_an_object_store_writers_of_different_dates_finish_too(
    archive: Archive, tmp_path: Path, s3_warehouse: str
) -> None:
    left = area_of(grid(256, 896, 128))
    ingest(request_of(archive.catalog, tmp_path, area=left))
    halves = [{"end": days(5)[2]}, {"start": days(5)[3]}]
    jobs = [prepare_ingest(request_of(archive.catalog, s3_warehouse, area=left, **half)).jobs[0] for half in halves]
    reports = run_two(jobs)
    assert [set(states_of(report)) for report in reports] == [{"ingested"}, {"ingested"}]
    window = (slice(256, 512), slice(768, 1024))
    found, alone = read_all(s3_warehouse, window=window), read_all(tmp_path, window=window)
    assert_same_cube(found, alone, but=["entry"])


def _create_at_once(url: str, barrier: Any, answers: Any) -> None:
    for name in range(20):
        barrier.wait(60)
        try:
            create_cube(resolve(url) / f"cube{name}", CubeSchema(grid(), ("B02",)))
            answers.put((name, ""))
        except BaseException as error:
            answers.put((name, repr(error)))


@pytest.mark.slow
def test_two_processes_that_create_one_cube_both_find_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_create_at_once, args=(str(tmp_path), barrier, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    said = [answers.get(timeout=120) for _ in range(40)]
    for process in processes:
        process.join(60)
    assert {error for _, error in said} == {""}
    for name in range(20):
        assert read_state(resolve(tmp_path) / f"cube{name}").times.size == 0
