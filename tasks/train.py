"""Prefect tasks: train a model and show how well it does."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact, publish_accuracy, publish_training
from tasks.earth.canopy_training import CanopyRequest, TrainedCanopy, train_canopy
from tasks.earth.earthpt_training import EarthPTRequest, train_earthpt
from tasks.earth.training import FloorRequest, TrainedModel, train_floor
from tasks.earth.training_run import Trained


@task(name="train floor", cache_policy=NO_CACHE, persist_result=False)
def train_floor_task(request: FloorRequest) -> TrainedModel:
    """Train on the labelled pixels, and publish the accuracy table."""
    with ProgressArtifact("train", request.name) as progress:
        trained = train_floor(request, progress)
    publish_accuracy(trained.reference.name, trained.metrics)
    return trained


@task(name="train canopy", cache_policy=NO_CACHE, persist_result=False)
def train_canopy_task(request: CanopyRequest) -> TrainedCanopy:
    """Read cells, train the head, and publish its curve and the accuracy table."""
    with ProgressArtifact("train", request.name) as progress:
        trained = train_canopy(request, progress)
    publish_accuracy(trained.reference.name, trained.metrics)
    return trained


@task(name="train EarthPT", cache_policy=NO_CACHE, persist_result=False)
def train_earthpt_task(request: EarthPTRequest) -> Trained:
    """Pack what is not packed yet, train, and publish loss curve and scores."""
    with ProgressArtifact("train", request.name) as progress:
        trained = train_earthpt(request, progress)
    publish_training(trained)
    return trained
