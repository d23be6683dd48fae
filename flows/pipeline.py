"""The chains: archive to published map once, and the recurring update of a map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import PipelineConfig, SimulateSettings, TrainCanopyConfig, TrainFloorConfig, UpdateConfig
from flows.infer import map_canopy
from flows.ingest import ingest_earth
from flows.runtime import FAILED_NAME, NO_NEWS_NAME, Summary
from flows.train import train_canopy_model, train_floor_model
from tasks.simulate import generate_archive


@flow(name="archive-to-map")
def archive_to_map(config: PipelineConfig) -> Any:
    """Ingest an area, train a model where that is asked for, and publish the map."""
    simulate_if_asked(config.simulate)
    ingested: Any = ingest_earth(config.ingest)
    trained = () if config.train is None else (train_as_asked(config.train),)
    mapped: Any = map_canopy(config.map)
    return conclude(ingested, *trained, mapped)


def train_as_asked(config: TrainCanopyConfig | TrainFloorConfig) -> Any:
    """Train a canopy head, or the floor."""
    return train_canopy_model(config) if isinstance(config, TrainCanopyConfig) else train_floor_model(config)


@flow(name="update-canopy-map")
def update_canopy_map(config: UpdateConfig) -> Any:
    """Ingest what is new and map it; where the map of these looks is there, say so and publish nothing."""
    ingested: Any = ingest_earth(config.ingest)
    mapped: Any = map_canopy(config.map_asked)
    return conclude(ingested, mapped) if mapped.details.get("state") == "published" else no_news(ingested, mapped)


def simulate_if_asked(settings: SimulateSettings | None) -> None:
    """Make the generated archive, where the run is to have one."""
    if settings is not None:
        generate_archive(Path(settings.folder), seed=settings.seed, size_km=settings.size_km, years=settings.years)


def conclude(*steps: Summary) -> Any:
    """Return how a chain ended: what was published, and everything that failed on the way."""
    last = steps[-1]
    failures = tuple(failure for step in steps for failure in step.failures)
    summary = Summary(
        last.run,
        {name: count for step in steps for name, count in step.counts.items()},
        cubes=tuple(cube for step in steps for cube in step.cubes),
        products=last.products,
        failures=failures,
        notes=tuple(note for step in steps for note in step.notes),
        details={"runs": ", ".join(step.run for step in steps), **last.details},
        retry="; ".join(step.retry for step in steps if step.failures),
    )
    return Completed(name=FAILED_NAME if failures else None, message=f"{', '.join(last.products)}", data=summary)


def no_news(ingested: Summary, mapped: Summary) -> Any:
    """Return that nothing new was to be seen: not an error, and not a success either."""
    newest = ingested.details.get("newest") or "no date"
    notes = mapped.notes or (f"no new data; the newest item the catalogue lists is of {newest}",)
    summary = replace(ingested, notes=(*ingested.notes, *notes))
    return Completed(name=FAILED_NAME if ingested.failures else NO_NEWS_NAME, message="; ".join(notes), data=summary)
