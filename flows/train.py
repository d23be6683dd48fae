"""The flow that trains the floor."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import TrainFloorConfig
from flows.runtime import Summary
from storage.classes import LandClass
from storage.location import resolve
from tasks.earth.grid import read_area
from tasks.earth.labels import LabelRules
from tasks.earth.training import FloorRequest, Split, TrainedModel
from tasks.train import train_floor_task


@flow(name="train-floor")
def train_floor_model(config: TrainFloorConfig) -> Any:
    """Train temporal statistics and a forest on the labels of an area."""
    trained = train_floor_task(to_request(config))
    return Completed(message=f"{trained.reference.name}/{trained.reference.version}", data=summarise(trained))


def to_request(config: TrainFloorConfig) -> FloorRequest:
    """Return what the task needs, from what the user wrote."""
    return FloorRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        labels=config.labels.path,
        rules=LabelRules(**config.labels.model_dump(exclude={"path"})),
        classes=tuple(LandClass(**settings.model_dump()) for settings in config.classes),
        name=config.name,
        crs=config.crs,
        resolution=config.resolution,
        until=config.until.isoformat() if config.until else None,
        allow_unmasked=config.allow_unmasked,
        trees=config.trees,
        seed=config.seed,
        split=Split(config.block, config.folds, config.seed),
    )


def summarise(trained: TrainedModel) -> Summary:
    """Return what the command line prints."""
    scored = {
        **trained.metrics["classes"],
        **({"canopy": trained.metrics["canopy"]} if "canopy" in trained.metrics else {}),
    }
    scores = {
        name: f"PR-AUC {found['pr_auc']:.3f} at prevalence {found['prevalence']:.3f}" for name, found in scored.items()
    }
    name = f"{trained.reference.name}/{trained.reference.version}"
    return Summary(
        name,
        {f"{kind} pixels": count for kind, count in trained.training["pixels_used"].items()},
        details={"model": trained.reference.url, **scores},
    )
