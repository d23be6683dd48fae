"""The flow that scores forecasts beside every floor."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import EvaluateForecastConfig
from flows.runtime import task_runner
from storage.location import resolve
from tasks.earth.forecast_evaluation import (
    EvaluationRequest,
    PreparedEvaluation,
    Scored,
    parse_holdout,
    parse_origins,
)
from tasks.earth.forecast_protocol import ScoringRule
from tasks.earth.grid import read_area
from tasks.evaluate import freeze_evaluation, report_scores, score_cube


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
