"""The flows that score: forecasts beside every floor, a canopy model beside a forest and mean NDVI."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import EvaluateCanopyConfig, EvaluateForecastConfig, FloorLabelSettings, LabelSettings
from flows.labels import to_rules
from flows.runtime import task_runner
from storage.location import resolve
from tasks.earth.canopy_evaluation import CanopyEvaluationRequest
from tasks.earth.canopy_floors import FloorSource
from tasks.earth.forecast_evaluation import (
    EvaluationRequest,
    PreparedEvaluation,
    Scored,
    parse_holdout,
    parse_origins,
)
from tasks.earth.forecast_protocol import ScoringRule
from tasks.earth.grid import read_area
from tasks.earth.label_report import TileSplit
from tasks.evaluate import freeze_evaluation, report_scores, score_canopy, score_cube


@flow(name="evaluate-forecast")
def evaluate_forecast(config: EvaluateForecastConfig) -> Any:
    """Score a model's forecasts of an area beside every floor; write report and pictures."""
    prepared = freeze_evaluation(to_request(config))
    report = report_scores(prepared, score_cubes(prepared, config.dask))
    return Completed(message=f"{report['counts']['targets']} targets", data=report)


def to_request(config: EvaluateForecastConfig) -> EvaluationRequest:
    """Return what the tasks need, from what the user wrote."""
    return EvaluationRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        rule=ScoringRule(parse_origins(config.origins), config.horizon, config.bin_days, config.context),
        model=config.model,
        bands=config.bands,
        holdout=parse_holdout(config.holdout_blocks) if config.holdout_blocks else None,
        share=config.share,
        crs=config.crs,
        resolution=config.resolution,
        allow_unmasked=config.allow_unmasked,
        out=config.out,
    )


def score_cubes(prepared: PreparedEvaluation, dask: str | None) -> list[Scored]:
    """Judge all regions, several cubes at once."""
    with task_runner(dask) as runner:
        futures = [
            runner.submit(score_cube, parameters={"prepared": prepared, "name": name, "parts": parts}, wait_for=[])
            for name, parts in prepared.groups()
        ]
        return [future.result() for future in futures]


@flow(name="evaluate-canopy")
def evaluate_canopy(config: EvaluateCanopyConfig) -> Any:
    """Score a canopy model over an area beside its floors; write report and pictures."""
    report = score_canopy(to_canopy_request(config))
    return Completed(message=f"{report['pixels']} pixels", data=report)


def to_canopy_request(config: EvaluateCanopyConfig) -> CanopyEvaluationRequest:
    """Return what the task needs, from what the user wrote."""
    split = TileSplit(config.split_block, config.split_gap, config.split_shares, config.split_seed)
    holdout = parse_holdout(config.holdout_blocks) if config.holdout_blocks else split if config.test_tiles else None
    return CanopyEvaluationRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        model=config.model,
        labels=config.labels.path,
        rules=to_rules(config.labels),
        until=config.date or config.labels.date,
        window_days=config.window_days,
        floor=_floor_source(config.floor) if config.floor else None,
        holdout=holdout,
        cell=config.cell,
        sample=config.sample,
        crs=config.crs,
        resolution=config.resolution,
        allow_unmasked=config.allow_unmasked,
        canopy_only=config.canopy_only,
        block=config.block,
        folds=config.folds,
        trees=config.trees,
        out=config.out,
    )


def _floor_source(floor: FloorLabelSettings) -> FloorSource:
    own = {name: getattr(floor, name) for name in LabelSettings.model_fields}
    return FloorSource(
        labels=floor.path,
        rules=to_rules(LabelSettings(**own)),
        area=read_area(floor.aoi) if floor.aoi else None,
        warehouse=resolve(floor.warehouse).url if floor.warehouse else None,
        until=floor.until or floor.date,
    )
