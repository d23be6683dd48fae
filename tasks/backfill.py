"""Prefect tasks of a backfill: freeze, close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.location import resolve
from storage.manifest import Run, start_run
from tasks.artifacts import publish_table
from tasks.earth.backfill import BackfillDay, plan_backfill
from tasks.earth.canopy_map import MapRequest


@task(name="freeze backfill", cache_policy=NO_CACHE, persist_result=False)
def freeze_backfill(request: MapRequest, days: tuple[str, ...]) -> tuple[Run, tuple[BackfillDay, ...]]:
    """Look up which maps of the period are there, and write the run's manifest."""
    planned = plan_backfill(request, days)
    manifest = {"request": asdict(request), "days": [asdict(day) for day in planned]}
    return start_run(resolve(request.warehouse), "backfill", manifest), planned


@task(name="close backfill", cache_policy=NO_CACHE, persist_result=False)
def close_backfill(run: Run, outcomes: Sequence[Any]) -> None:
    """Write what became of each day, and show it."""
    rows = [asdict(outcome) for outcome in outcomes]
    run.write_regions(rows)
    publish_table("backfill", rows, f"Maps of {run.id}")
