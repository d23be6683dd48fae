"""Prefect tasks of ingest: one tile each, and the run's table."""

from __future__ import annotations

from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.errors import StorageError
from storage.manifest import Run
from tasks.artifacts import ProgressArtifact, publish_scene_table
from tasks.earth.ingest import SceneRow, TileJob, TileReport, ingest_tile
from tasks.earth.request import IngestRequest, Prepared, open_ingest_run


@task(name="freeze inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_inputs(request: IngestRequest, prepared: Prepared) -> Run:
    """Write the run's manifest."""
    return open_ingest_run(request, prepared)


@task(name="ingest tile", task_run_name="ingest {job.tile.name}", cache_policy=NO_CACHE, persist_result=False)
def ingest_one_tile(job: TileJob) -> TileReport:
    """Bring one tile up to date; a tile that cannot be written is a row for each of its scenes."""
    try:
        with ProgressArtifact("ingest", job.tile.name) as progress:
            return ingest_tile(job, progress)
    except StorageError as error:
        row = SceneRow(job.tile.path, "", "", "failed", "conflict", str(error))
        return TileReport(
            job.tile.path, "", tuple(replace(row, scene=scene.id, day=scene.solar_day) for scene in job.scenes)
        )


@task(name="close run", cache_policy=NO_CACHE, persist_result=False)
def close_ingest_run(run: Run, rows: tuple[SceneRow, ...]) -> None:
    """Write the table of scenes into the run, and show it."""
    run.write_regions(rows)
    run.append_log(*({"event": row.state, **row.__dict__} for row in rows if row.state != "skipped"))
    publish_scene_table(run.id, rows)
