"""The flow that brings the cubes of an area up to date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import IngestConfig
from flows.runtime import FAILED_NAME, Summary, task_runner
from storage.location import resolve
from storage.manifest import Run
from storage.schema import MaskRule
from tasks.earth.grid import read_area
from tasks.earth.ingest import SceneRow, TileJob, TileReport
from tasks.earth.request import IngestRequest, Prepared, jobs_of_run, summarise
from tasks.ingest import close_ingest_run, freeze_inputs, ingest_one_tile
from tasks.limits import HttpLimits
from tasks.search import search_scenes


@flow(name="ingest-earth", log_prints=False, validate_parameters=True)
def ingest_earth(config: IngestConfig) -> Any:
    """Search a catalogue, and ingest what the cubes do not hold yet."""
    request = to_request(config)
    prepared = search_scenes(request)
    run = freeze_inputs(request, prepared)
    reports = ingest_tiles(prepared.jobs, config.dask)
    return finish(config.warehouse, run, prepared.rejected, reports, prepared)


@flow(name="redrive-ingest")
def redrive_ingest(warehouse: str, run: Run, dask: str | None = None) -> Any:
    """Take up again what failed in a run, or what it never came to."""
    jobs, done = jobs_of_run(run)
    reports = ingest_tiles(jobs, dask)
    return finish(warehouse, run, done, reports)


def to_request(config: IngestConfig) -> IngestRequest:
    """Return what the tasks need, from what the user wrote."""
    limits = config.http.model_dump(exclude={"allowed_hosts"})
    return IngestRequest(
        catalog=config.catalog,
        collection=config.collection,
        area=read_area(config.aoi),
        start=config.start.isoformat(),
        end=config.end.isoformat(),
        warehouse=resolve(config.warehouse).url,
        crs=config.crs,
        resolution=config.resolution,
        bands=config.bands,
        max_cloud=config.max_cloud,
        mask=MaskRule(config.mask.asset, config.mask.clear, config.mask.dilation),
        resampling=config.resampling,
        limits=HttpLimits(**limits),
        allowed_hosts=config.http.allowed_hosts,
        time_limit_s=config.time_limit_s,
    )


def ingest_tiles(jobs: tuple[TileJob, ...], dask: str | None) -> list[TileReport]:
    """Run the jobs as tasks, several tiles at once."""
    with task_runner(dask) as runner:
        futures = [runner.submit(ingest_one_tile, parameters={"job": job}, wait_for=[]) for job in jobs if job.scenes]
        return [future.result() for future in futures]


def finish(
    warehouse: str, run: Run, before: Iterable[SceneRow], reports: list[TileReport], prepared: Prepared | None = None
) -> Any:
    """Write the run's table and say how it ended."""
    rows = (*before, *(row for report in reports for row in report.rows))
    close_ingest_run(run, rows)
    failures = [f"{row.scene} [{row.reason}] {row.message}" for row in rows if row.state == "failed"]
    if prepared is not None and not prepared.complete:
        failures += prepared.notes
    summary = Summary(
        run.id,
        summarise(rows),
        cubes=tuple(f"{resolve(warehouse) / report.tile}" for report in reports if report.snapshot),
        failures=tuple(failures),
        notes=prepared.notes if prepared is not None else (),
        details={"newest": prepared.newest if prepared is not None else ""},
        retry=f"canopus redrive {run.id}",
    )
    return Completed(
        name=FAILED_NAME if failures else None,
        message=f"{summary.counts}; {len(failures)} failure(s)",
        data=summary,
    )
