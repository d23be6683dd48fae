"""Prefect task: catalogue to jobs."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.earth.request import IngestRequest, Prepared, prepare_ingest


@task(name="search scenes", cache_policy=NO_CACHE, persist_result=False)
def search_scenes(request: IngestRequest) -> Prepared:
    """Search the catalogue and cut the work into tiles."""
    return prepare_ingest(request)
