"""The flow that measures the profiles of a list of targets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed

from flows.config_sky import ColumnSettings, ProfilesConfig
from flows.runtime import FAILED_NAME, Summary, task_runner
from storage.location import resolve
from storage.locks import hold
from storage.manifest import Run
from tasks.artifacts import ProgressArtifact
from tasks.limits import HttpLimits
from tasks.profiles import Tally, end_processes, extract_one_batch, freeze_targets, publish_profiles
from tasks.sky.extraction_plan import ExtractionRequest, Prepared, prepared_of
from tasks.sky.methods import pin_model
from tasks.sky.stored import pin_store
from tasks.sky.target_columns import ColumnNames

if TYPE_CHECKING:
    from tasks.sky.extraction_report import Extracted

AT_ONCE = 2
"""Batches of one process: while one waits for its source, another measures."""


@flow(name="extract-profiles")
def extract_profiles(config: ProfilesConfig) -> Any:
    """Fetch the cutouts of every target, measure their profiles and publish them; go on where that was interrupted."""
    prepared = freeze_targets(to_request(config))
    return finish(run_batches(prepared, config.dask))


@flow(name="redrive-profiles")
def redrive_profiles(warehouse: str, run: Run, dask: str | None = None) -> Any:
    """Take up again what failed in a run and may pass, and what it never came to."""
    now = {"warehouse": resolve(warehouse).url, "workers": workers_of(None, dask)}
    return finish(run_batches(prepared_of(run, now=now, again=True), dask))


def to_request(config: ProfilesConfig) -> ExtractionRequest:
    """Return what the tasks need, from what the user wrote."""
    return ExtractionRequest(
        targets=config.targets or "",
        source=pin_store(config.source, config.warehouse),
        warehouse=resolve(config.warehouse).url,
        bands=config.bands,
        method=config.method,
        geometry=config.geometry,
        model=pin_model(config.warehouse, config.method, config.model or ""),
        training_mode=config.training_mode,
        members=config.members,
        columns=_column_names(config.columns),
        ebv_map=config.ebv_map or "",
        size_pixels=config.size_pixels,
        size_arcsec=config.size_arcsec,
        pixel_scale_arcsec=config.pixel_scale,
        zero_points=config.zero_point,
        max_empty_share=config.max_empty_share,
        psf=config.psf,
        viewer_url=config.viewer_url,
        cache=config.cache,
        batch_size=config.batch_size,
        time_limit_s=config.time_limit_s,
        merge_radius_arcsec=config.merge_radius_arcsec,
        workers=workers_of(config.workers, config.dask),
        pages=config.pages,
        limits=HttpLimits(**config.http.model_dump()),
        refresh=config.refresh,
        collection=config.collection,
        title=config.title,
    )


def _column_names(settings: ColumnSettings) -> ColumnNames:
    named = settings.model_dump()
    return ColumnNames(identifier=named.pop("id"), **named)


def workers_of(asked: int | None, dask: str | None) -> int:
    """Return how many processes measure beside each process that runs batches."""
    return asked or (1 if dask else os.cpu_count() or 1)


def run_batches(prepared: Prepared, dask: str | None) -> Extracted:
    """Run the batches that are left as tasks, several at once, and publish what all of them gave."""
    left = sum(len(job.targets) for job in prepared.jobs)
    try:
        with (
            hold(prepared.run.location, 0.0),
            ProgressArtifact("profiles", prepared.run.id) as progress,
            task_runner(dask, threads=AT_ONCE) as runner,
        ):
            tally = Tally(progress, prepared.run.id, left)
            # a process of Dask cannot call us back for each object
            told = None if dask else tally
            futures = [
                runner.submit(extract_one_batch, parameters={"job": job, "tally": told}, wait_for=[])
                for job in prepared.jobs
            ]
            for future in futures:
                report = future.result()
                if told is None:
                    tally.count(report.counts)
            return publish_profiles(prepared)
    finally:
        end_processes(prepared.request.workers)


def finish(extracted: Extracted) -> Any:
    """Say how the run ended."""
    summary = Summary(
        extracted.run.id,
        extracted.counts,
        products=extracted.products,
        failures=extracted.failures,
        notes=extracted.notes,
        details=extracted.details,
        retry=f"canopus redrive {extracted.run.id}" if extracted.counts["failed"] else "",
    )
    return Completed(
        name=FAILED_NAME if summary.failures else None,
        message=f"{summary.counts}; {len(summary.failures)} failure(s)",
        data=summary,
    )
