"""The days of a backfill: both ends, month ends, and what is there already."""

from __future__ import annotations

import pytest

from tasks.earth.backfill import backfill_days
from tasks.errors import UsageError


@pytest.mark.parametrize(
    ("start", "end", "every", "days"),
    [
        ("2021-01-31", "2021-04-30", "1M", ["2021-01-31", "2021-02-28", "2021-03-31", "2021-04-30"]),
        ("2020-02-29", "2023-02-28", "1Y", ["2020-02-29", "2021-02-28", "2022-02-28", "2023-02-28"]),
        ("2021-03-31", "2021-12-30", "3M", ["2021-03-31", "2021-06-30", "2021-09-30"]),
        ("2021-03-01", "2021-03-20", "10D", ["2021-03-01", "2021-03-11"]),
        ("2021-03-01", "2021-03-15", "2W", ["2021-03-01", "2021-03-15"]),
        ("2021-03-01", "2021-03-01", "1M", ["2021-03-01"]),
    ],
)
def test_days_count_from_the_start_and_both_ends_belong(start: str, end: str, every: str, days: list[str]) -> None:
    assert list(backfill_days(start, end, every)) == days


def test_a_period_of_too_many_maps_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 1000 maps from 1990-01-01"):
        backfill_days("1990-01-01", "2021-01-01", "1D")
