"""Prefect task: train the network that reads profiles off images, and show how it went."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact, publish_curve
from tasks.earth.training_run import Trained
from tasks.sky.network_training import ProfileNetRequest, train_profile_net


@task(name="train profiles", cache_policy=NO_CACHE, persist_result=False)
def train_profiles_task(request: ProfileNetRequest) -> Trained:
    """Draw galaxies, train the network on them, calibrate it, and publish its loss curve."""
    with ProgressArtifact("train", request.name) as progress:
        trained = train_profile_net(request, progress)
    publish_curve(trained.reference, trained.training, trained.curve, trained.notes)
    return trained
