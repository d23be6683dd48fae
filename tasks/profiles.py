"""Prefect tasks of bulk extraction: freeze the targets, one batch each, the run's tables and its product.

What needs the extra ``sky`` is imported where it is used, so that the flow can be deployed without.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact, publish_extraction
from tasks.sky.extraction_plan import BatchJob, ExtractionRequest, ObjectRow, Prepared, prepare_extraction
from tasks.sky.methods import require_sky_extra

if TYPE_CHECKING:
    from tasks.sky.extraction import BatchReport
    from tasks.sky.extraction_report import Extracted


class Tally:
    """Counts objects per state as they are done, and says how many are left and for how long."""

    def __init__(self, progress: ProgressArtifact, name: str, objects: int) -> None:
        self._progress, self._name, self._objects = progress, name, objects
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._begun = time.monotonic()

    def add(self, row: ObjectRow) -> None:
        """Count one object."""
        self.count({row.state: 1})

    def count(self, counts: Mapping[str, int]) -> None:
        """Count objects."""
        with self._lock:
            self._counts.update(counts)
            done = self._counts.total()
            words = ", ".join(f"{count} {state}" for state, count in sorted(self._counts.items()) if count)
            left_s = (time.monotonic() - self._begun) / max(done, 1) * (self._objects - done)
        self._progress(self._name, done, self._objects, f"{words}; {_in_words(left_s)} left")


@task(name="freeze targets", cache_policy=NO_CACHE, persist_result=False)
def freeze_targets(request: ExtractionRequest) -> Prepared:
    """Read the targets, and write them into a run, or find the run that was cut short."""
    require_sky_extra()
    return prepare_extraction(request)


@task(name="extract batch", task_run_name="batch {job.index}", cache_policy=NO_CACHE, persist_result=False)
def extract_one_batch(job: BatchJob, tally: Tally | None) -> BatchReport:
    """Fetch, store and measure the objects of one batch."""
    from tasks.sky.extraction import extract_batch

    return extract_batch(job, tally.add if tally else None)


@task(name="publish profiles", cache_policy=NO_CACHE, persist_result=False)
def publish_profiles(prepared: Prepared) -> Extracted:
    """Write the run's table and index page, publish the product, and show both."""
    from tasks.sky.extraction_report import finish_extraction

    extracted = finish_extraction(prepared)
    publish_extraction(extracted)
    return extracted


def end_processes(workers: int) -> None:
    """End the processes in which this process measured."""
    from tasks.sky.extraction import close_processes

    close_processes(workers)


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
