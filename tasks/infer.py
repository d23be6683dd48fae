"""Prefect tasks of mapping: freeze, classify one cell, publish."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.publish import Receipt
from storage.regions import Region
from tasks.artifacts import ProgressArtifact, publish_map_artifacts
from tasks.earth.canopy_map import MapRequest, PreparedMap, map_regions, prepare_map, publish_prepared


@task(name="freeze map inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_map(request: MapRequest) -> PreparedMap:
    """Decide what is read and write the run's manifest."""
    return prepare_map(request)


@task(name="map cell", task_run_name="map {name}", cache_policy=NO_CACHE, persist_result=False)
def map_cell(prepared: PreparedMap, name: str, regions: list[Region]) -> int:
    """Classify the regions of one cell of 1024 pixels."""
    with ProgressArtifact("map", name) as progress:
        return map_regions(prepared, name, regions, progress)


@task(name="publish map", cache_policy=NO_CACHE, persist_result=False)
def publish_product(prepared: PreparedMap) -> Receipt:
    """Publish the map and show it."""
    receipt = publish_prepared(prepared)
    publish_map_artifacts(receipt)
    return receipt
