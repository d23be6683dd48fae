"""Prefect task: train the floor and show how well it does."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact, publish_accuracy
from tasks.earth.training import FloorRequest, TrainedModel, train_floor


@task(name="train floor", cache_policy=NO_CACHE, persist_result=False)
def train_floor_task(request: FloorRequest) -> TrainedModel:
    """Train on the labelled pixels, and publish the accuracy table."""
    with ProgressArtifact("train", request.name) as progress:
        trained = train_floor(request, progress)
    publish_accuracy(trained.reference.name, trained.metrics)
    return trained
