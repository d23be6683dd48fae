"""The flows that train: the floor, and EarthPT."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import LabelSettings, TrainCanopyConfig, TrainEarthPTConfig, TrainFloorConfig
from flows.labels import to_classes, to_rules
from flows.runtime import Summary
from models.data import Augmentation
from models.earthpt import EarthPTConfig
from models.training import TrainConfig
from storage.location import resolve
from tasks.earth.canopy_training import CURVE, CanopyRequest, HeadChoice, LabelledArea, TrainedCanopy
from tasks.earth.earthpt_training import EarthPTRequest, train_earthpt
from tasks.earth.forecast_evaluation import parse_holdout
from tasks.earth.grid import read_area
from tasks.earth.label_report import TileSplit
from tasks.earth.training import FloorRequest, Split, TrainedModel
from tasks.earth.training_data import AreaChoice, DataChoice
from tasks.earth.training_run import Trained
from tasks.train import train_canopy_task, train_earthpt_task, train_floor_task

ENDLESS = 10**9
"""Updates where only minutes end a training."""


@flow(name="train-floor")
def train_floor_model(config: TrainFloorConfig) -> Any:
    """Train temporal statistics and a forest on the labels of an area."""
    trained = train_floor_task(to_request(config))
    return Completed(message=f"{trained.reference.name}/{trained.reference.version}", data=summarise(trained))


@flow(name="train-earthpt")
def train_earthpt_model(config: TrainEarthPTConfig) -> Any:
    """Train EarthPT on generated series, on those of an area, or from a teacher; or go on where that was interrupted."""
    trained = train_earthpt_task(to_earthpt_request(config))
    return Completed(message=f"{trained.reference.name}/{trained.reference.version}", data=summarise_training(trained))


def follows() -> bool:
    """Return whether torchrun started this process beside one that leads."""
    return os.environ.get("RANK", "0") != "0"


def follow_earthpt(config: TrainEarthPTConfig) -> None:
    """Train beside the process that leads; that one alone is a flow, shows progress and writes."""
    train_earthpt(to_earthpt_request(config))


@flow(name="train-canopy")
def train_canopy_model(config: TrainCanopyConfig) -> Any:
    """Train a canopy head on an EarthPT."""
    trained = train_canopy_task(to_canopy_request(config))
    name = f"{trained.reference.name}/{trained.reference.version}"
    return Completed(message=name, data=summarise_canopy(trained))


def to_canopy_request(config: TrainCanopyConfig) -> CanopyRequest:
    """Return what the task needs, from what the user wrote."""
    head = HeadChoice(
        tuning=config.tuning,
        fresh_head=config.fresh_head or config.published,
        head=config.head,
        months=0 if config.published else config.months,
        hidden=config.hidden,
        reach=0 if config.published else config.reach,
        dropout=config.dropout,
        members=config.members,
        turns=config.turns,
        rank=config.rank,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        focus=config.focus,
        balanced=config.balanced,
        doubt=1.0 if config.published else config.doubt,
        patience=config.patience,
    )
    return CanopyRequest(
        warehouse=resolve(config.warehouse).url,
        name=config.name,
        backbone=config.backbone,
        classes=to_classes(config.classes),
        labelled=_labelled(config, config.labels) if config.labels else None,
        places=config.places,
        head=head,
        seed=config.seed,
        device=config.device,
        workers=config.workers,
    )


def _labelled(config: TrainCanopyConfig, labels: LabelSettings) -> LabelledArea:
    assert config.aoi is not None
    return LabelledArea(
        area=read_area(config.aoi),
        labels=labels.path,
        rules=to_rules(labels),
        crs=config.crs,
        resolution=config.resolution,
        until=config.until.isoformat() if config.until else labels.date,
        window_days=config.window_days,
        allow_unmasked=config.allow_unmasked,
        pixels=config.pixels,
        split=TileSplit(config.block, config.gap, config.shares, config.seed),
    )


def summarise_canopy(trained: TrainedCanopy) -> Summary:
    """Return what the command line prints."""
    counts = {f"{kind} pixels": count for kind, count in trained.training["pixels"].items()}
    counts["pixels left to the head"] = trained.training["doubted"]
    share = trained.training.get("share_of_pretraining")
    cost = (
        {"of pre-training": f"{share['looks']:.1%} of looks, {share['operations']:.1%} of operations"} if share else {}
    )
    return Summary(
        f"{trained.reference.name}/{trained.reference.version}",
        counts,
        details={
            "model": trained.reference.url,
            "curve": f"{trained.reference.url}/{CURVE}",
            **cost,
            **_pr_aucs(trained.metrics),
        },
    )


def _pr_aucs(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the scores of classes, and of canopy, in words."""
    scored = {**metrics["classes"], **({"canopy": metrics["canopy"]} if "canopy" in metrics else {})}
    return {
        name: f"PR-AUC {found['pr_auc']:.3f} at prevalence {found['prevalence']:.3f}"
        for name, found in scored.items()
        if found["pr_auc"] is not None
    }


def to_request(config: TrainFloorConfig) -> FloorRequest:
    """Return what the task needs, from what the user wrote."""
    return FloorRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        labels=config.labels.path,
        rules=to_rules(config.labels),
        classes=to_classes(config.classes),
        name=config.name,
        crs=config.crs,
        resolution=config.resolution,
        until=config.until.isoformat() if config.until else config.labels.date,
        allow_unmasked=config.allow_unmasked,
        trees=config.trees,
        seed=config.seed,
        split=Split(config.block, config.folds, config.seed),
    )


def summarise(trained: TrainedModel) -> Summary:
    """Return what the command line prints."""
    name = f"{trained.reference.name}/{trained.reference.version}"
    return Summary(
        name,
        {f"{kind} pixels": count for kind, count in trained.training["pixels_used"].items()},
        details={"model": trained.reference.url, **_pr_aucs(trained.metrics)},
    )


def to_earthpt_request(config: TrainEarthPTConfig) -> EarthPTRequest:
    """Return what the task needs, from what the user wrote."""
    start = config.starts_from
    steps = config.steps or (ENDLESS if config.minutes else 600 if start else 20_000)
    return EarthPTRequest(
        warehouse=resolve(config.warehouse).url,
        name=config.name,
        train=TrainConfig(
            steps=steps,
            learning_rate=config.learning_rate or (2e-4 if start else 1e-3),
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            clip=config.clip,
            ema_decay=config.ema_decay,
            accumulation=config.accumulation,
            precision=config.precision,
            compile=config.compile,
            parallel=config.parallel,
            checkpoint_every=config.checkpoint_every or (50 if start else 200),
            log_every=config.log_every,
            minutes=config.minutes,
            seed=config.seed,
        ),
        data=DataChoice(
            area=_area_choice(config) if config.aoi else None,
            prior_share=config.share_of_prior,
            series=config.series,
            looks=config.looks,
            scored=config.scored,
            pool=config.pool,
            places=config.places,
            seed=config.seed,
        ),
        model=EarthPTConfig(**config.model.model_dump()) if config.model else None,
        start=start,
        teacher=config.teacher,
        truth_share=config.truth_share,
        patience=config.patience,
        device=config.device,
        fresh=config.fresh,
    )


def _area_choice(config: TrainEarthPTConfig) -> AreaChoice:
    assert config.aoi is not None
    return AreaChoice(
        area=read_area(config.aoi),
        crs=config.crs,
        resolution=config.resolution,
        until=config.until.isoformat() if config.until else None,
        allow_unmasked=config.allow_unmasked,
        bands=config.bands,
        holdout=parse_holdout(config.holdout_blocks) if config.holdout_blocks else None,
        pixels=config.pixels,
        held_out_days=config.held_out_days,
        held_out_pixels=config.held_out_pixels,
        augmentation=Augmentation(config.shift_days, config.gain, config.left_out),
    )


def summarise_training(trained: Trained) -> Summary:
    """Return what the command line prints."""
    details: dict[str, Any] = {"model": trained.reference.url, "run": trained.run, "curve": trained.curve}
    for kind, scores in trained.metrics["held_out"].items():
        index, methods = next(iter(scores["indices"].items()))
        errors = ", ".join(f"{name} {found['mae']:.4f}" for name, found in methods.items() if found["mae"] is not None)
        details[kind] = f"mean error of {index} on held-out looks: {errors}"
    name = f"{trained.reference.name}/{trained.reference.version}"
    return Summary(name, {"updates": trained.training["steps"]}, notes=trained.notes, details=details)
