"""Prefect tasks of evaluations: freeze, judge the regions of one cube, write the report; score a canopy model."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.regions import Region
from tasks.artifacts import ProgressArtifact, publish_canopy_scores, publish_forecast_scores
from tasks.earth import canopy_evaluation
from tasks.earth.forecast_evaluation import (
    EvaluationRequest,
    PreparedEvaluation,
    Scored,
    finish_evaluation,
    prepare_evaluation,
    score_regions,
)
from tasks.earth.mapping import CubePart


@task(name="freeze evaluation inputs", cache_policy=NO_CACHE, persist_result=False)
def freeze_evaluation(request: EvaluationRequest) -> PreparedEvaluation:
    """Decide what is read and write the run's manifest."""
    return prepare_evaluation(request)


@task(name="score forecasts", task_run_name="score {name}", cache_policy=NO_CACHE, persist_result=False)
def score_cube(prepared: PreparedEvaluation, name: str, parts: list[tuple[CubePart, Region]]) -> Scored:
    """Judge the regions of one cube."""
    with ProgressArtifact("evaluate", name) as progress:
        return score_regions(prepared, parts, progress)


@task(name="report forecast scores", cache_policy=NO_CACHE, persist_result=False)
def report_scores(prepared: PreparedEvaluation, found: list[Scored]) -> dict[str, Any]:
    """Add up, write report and pictures, and show them."""
    report = finish_evaluation(prepared, found)
    publish_forecast_scores(report)
    return report


@task(name="score canopy", task_run_name="score {request.model}", cache_policy=NO_CACHE, persist_result=False)
def score_canopy(request: canopy_evaluation.CanopyEvaluationRequest) -> dict[str, Any]:
    """Map an area in memory, score it beside the floors, write report and pictures, and show them."""
    with ProgressArtifact("evaluate", request.model) as progress:
        report = canopy_evaluation.evaluate_canopy(request, progress)
    publish_canopy_scores(report)
    return report
