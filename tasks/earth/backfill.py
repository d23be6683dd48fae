"""Maps of a period, each as of its day: which days, and which of them are published. No Prefect here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from storage.publish import find_product
from tasks.earth.canopy_map import MapRequest, map_job
from tasks.errors import NoLooks, UsageError

MOST_DAYS = 1000

DayState = Literal["published", "missing", "no look"]

_UNITS = {"D": "days", "W": "weeks", "M": "months", "Y": "years"}


@dataclass(frozen=True)
class BackfillDay:
    """One map of a backfill.

    Parameters
    ----------
    day : str
        Last day of its series, ``YYYY-MM-DD``.
    state : {"published", "missing", "no look"}
        Whether it is there; ``no look`` where the cubes hold nothing up to that day.
    item : str
        Its id, and where it is published its URL; empty where there is no look.
    note : str
        Why there is none.
    """

    day: str
    state: DayState
    item: str = ""
    note: str = ""


def backfill_days(start: str, end: str, every: str) -> tuple[str, ...]:
    """Return the days of a period, both ends included; each counts from the start, so that month ends stay month ends.

    Parameters
    ----------
    start, end : str
        ``YYYY-MM-DD``.
    every : str
        A number and D, W, M or Y.

    Raises
    ------
    UsageError
        Where there are more than `MOST_DAYS`.

    Examples
    --------
    >>> backfill_days("2021-01-31", "2021-06-01", "1M")
    ('2021-01-31', '2021-02-28', '2021-03-31', '2021-04-30', '2021-05-31')
    """
    first, last, count = pd.Timestamp(start), pd.Timestamp(end), int(every[:-1])
    days: list[str] = []
    while (day := first + pd.DateOffset(**{_UNITS[every[-1]]: count * len(days)})) <= last:
        if len(days) == MOST_DAYS:
            raise UsageError(
                f"--every {every}: more than {MOST_DAYS} maps from {start} to {end}; give a shorter period"
            )
        days.append(f"{day:%Y-%m-%d}")
    return tuple(days)


def plan_backfill(request: MapRequest, days: tuple[str, ...]) -> tuple[BackfillDay, ...]:
    """Return which maps of a period are there, oldest first; nothing is written.

    Raises
    ------
    ConfigurationError
        As `map_job`, but for days without a look.
    """
    return tuple(_look_up(replace(request, until=day), day) for day in days)


def _look_up(request: MapRequest, day: str) -> BackfillDay:
    try:
        job = map_job(request)
    except NoLooks as error:
        return BackfillDay(day, "no look", note=str(error))
    found = find_product(job.plan.root, job.product.key)
    return (
        BackfillDay(day, "published", found.item_url) if found else BackfillDay(day, "missing", job.product.key.item_id)
    )
