"""Pauses, gates and what may be said of a URL."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tasks.errors import SourceUnavailable
from tasks.limits import (
    HostGate,
    HttpLimits,
    gate_for,
    pause_before_retry,
    retry_after_s,
    text_without_secrets,
    without_secrets,
)


def test_pauses_double_up_to_a_limit_with_half_of_them_jitter() -> None:
    limits = HttpLimits(backoff_s=1.0, backoff_max_s=8.0)
    for attempt, longest in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)]:
        pauses = [pause_before_retry(attempt, limits) for _ in range(200)]
        assert longest / 2 <= min(pauses) < 0.6 * longest
        assert 0.9 * longest < max(pauses) <= longest


def test_what_a_server_asks_for_is_never_undercut_but_capped() -> None:
    limits = HttpLimits(backoff_s=0.5, retry_after_max_s=60)
    assert all(7.0 <= pause_before_retry(1, limits, retry_after_s=7.0) <= 7.25 for _ in range(100))
    assert 60.0 <= pause_before_retry(1, limits, retry_after_s=86_400.0) <= 60.25


@pytest.mark.parametrize(
    ("header", "expected"), [(None, None), ("12", 12.0), (" 3 ", 3.0), ("soon", None), ("-5", None)]
)
def test_retry_after_in_seconds(header: str | None, expected: float | None) -> None:
    assert retry_after_s(header) == expected


def test_retry_after_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_s(soon) == pytest.approx(30, abs=3)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_pause_holds_for_every_thread() -> None:
    gate = HostGate(HttpLimits(concurrent=4, requests_per_s=1000))
    gate.pause(0.3)
    begin, passed = time.monotonic(), []

    def go() -> None:
        with gate.passage("x"):
            passed.append(time.monotonic() - begin)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(passed) >= 0.29


def test_nobody_waits_at_a_gate_beyond_the_deadline() -> None:
    gate = HostGate(HttpLimits())
    gate.pause(60)
    with (
        pytest.raises(SourceUnavailable, match="scene was not read") as caught,
        gate.passage("scene", deadline=time.monotonic() + 1),
    ):
        pass
    assert caught.value.reason == "time-limit"


def test_equal_limits_share_a_gate() -> None:
    assert gate_for("a", HttpLimits()) is gate_for("a", HttpLimits())
    assert gate_for("a", HttpLimits()) is not gate_for("b", HttpLimits())


def test_urls_lose_what_is_secret() -> None:
    assert without_secrets("https://me:pw@host:8080/a%20b.tif?sig=1#x") == "https://host:8080/a%20b.tif"
    assert without_secrets("s3://bucket/key.tif") == "s3://bucket/key.tif"
    assert without_secrets("/plain/path.tif") == "/plain/path.tif"
    said = 'bad request:\n "https://host/a.tif?sig=secret" and https://host/b?token=secret.'
    assert "secret" not in text_without_secrets(said)
    assert len(text_without_secrets("x" * 1000)) == 300
