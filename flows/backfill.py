"""The flow that publishes the maps of a period, each as the update would have on its day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import BackfillConfig, MapConfig
from flows.infer import map_canopy, to_request
from flows.runtime import FAILED_NAME, Summary
from storage.manifest import Run
from tasks.backfill import close_backfill, freeze_backfill
from tasks.earth.backfill import BackfillDay, backfill_days
from tasks.errors import ChecksFailed


@dataclass(frozen=True)
class Outcome:
    """What became of one day: its state, the item's URL, and why there is none."""

    day: str
    state: str
    item: str = ""
    note: str = ""


@flow(name="backfill-canopy-map")
def backfill_canopy_map(config: BackfillConfig) -> Any:
    """Map each day of a period that is not published yet, the oldest first; run again, it goes on where it stopped."""
    run, days = freeze_backfill(to_request(config.map), days_of(config))
    outcomes = [map_day(config.map, day) for day in days]
    close_backfill(run, outcomes)
    return conclude(run, outcomes)


def days_of(config: BackfillConfig) -> tuple[str, ...]:
    """Return the days that are mapped."""
    return backfill_days(config.start.isoformat(), config.end.isoformat(), config.every)


def map_day(config: MapConfig, day: BackfillDay) -> Outcome:
    """Publish the map of one day, by the flow that the update runs too; a failed check holds back that day only."""
    if day.state != "missing":
        return Outcome(day.day, day.state, day.item, day.note)
    asked = MapConfig.model_validate(config.model_dump() | {"until": day.day})
    state: Any = map_canopy(asked, return_state=True)
    found = state.result(raise_on_failure=False)
    if isinstance(found, ChecksFailed):
        return Outcome(day.day, "held back", note=str(found))
    if isinstance(found, BaseException):
        raise found
    if not found.products:
        return Outcome(day.day, "nothing new", note=found.notes[0])
    return Outcome(day.day, "mapped", found.products[0])


def conclude(run: Run, outcomes: Iterable[Outcome]) -> Any:
    """Return how many maps were published, and why the others were not."""
    rows = list(outcomes)
    counts = Counter(row.state for row in rows)
    failures = tuple(f"{row.day}: {row.note}" for row in rows if row.state == "held back")
    summary = Summary(
        run.id,
        dict(counts),
        products=tuple(row.item for row in rows if row.item),
        failures=failures,
        notes=tuple(f"{row.day}: {row.note}" for row in rows if row.state in ("nothing new", "no look")),
        retry="the same command, which passes over what is published",
    )
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    return Completed(name=FAILED_NAME if failures else None, message=words, data=summary)
