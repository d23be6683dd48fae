"""Whole answers: what is asked for again, what is kept, what is not."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers.range_server import Faults
from servers.sky_services import Reply, SkyServer, serve_sky
from sky_files import fits_bytes, noise

from tasks.errors import ConfigurationError, SourceRejected, SourceUnavailable
from tasks.limits import HttpLimits
from tasks.sky.answers import Answers, default_cache, prune_answers

LIMITS = HttpLimits(attempts=4, backoff_s=0.02, backoff_max_s=0.1, requests_per_s=10_000, concurrent=3)
BODY = fits_bytes(noise((3, 40, 40)), {"BANDS": "grz"})

pytestmark = pytest.mark.server


def service(path: str, query: dict[str, str]) -> Reply:
    return Reply(BODY) if path != "/none.fits" else Reply(b"no", 404, "text/plain")


@pytest.fixture
def server() -> Iterator[SkyServer]:
    with serve_sky(service) as running:
        yield running


def test_an_answer_is_asked_for_once_and_then_read_from_disk(server: SkyServer, tmp_path: Path) -> None:
    url = f"{server.url}/a.fits?ra=1&dec=2"
    assert Answers(LIMITS, cache=tmp_path).fits(url) == BODY
    assert Answers(LIMITS, cache=tmp_path).fits(url) == BODY
    assert len(server.requests) == 1
    digest = hashlib.sha256(url.encode()).hexdigest()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{digest}.fits"]
    Answers(LIMITS, cache=tmp_path).fits(url.replace("ra=1", "ra=2"))
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", ["429", "500", "503", "html", "cut", "short", "empty", "reset"])
def test_each_fault_is_asked_again_until_the_answer_is_whole(kind: str, tmp_path: Path) -> None:
    faults = Faults(share=1.0, times=2, kinds=(kind,), retry_after_s=0)
    with serve_sky(service, faults) as server:
        answers = Answers(LIMITS, cache=tmp_path)
        assert answers.fits(f"{server.url}/a.fits") == BODY
        assert server.counts[kind] == 2
        assert answers.count.retries == 2


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("500", "HTTP status 500"),
        ("html", "web page"),
        ("cut", "dropped|bytes came"),
        ("short", "the file is cut"),
        ("empty", "empty answer"),
    ],
)
def test_a_fault_for_good_is_unavailable_and_leaves_nothing_on_disk(kind: str, words: str, tmp_path: Path) -> None:
    with serve_sky(service, Faults(share=1.0, times=99, kinds=(kind,))) as server:
        with pytest.raises(SourceUnavailable, match=words):
            Answers(LIMITS, cache=tmp_path).fits(f"{server.url}/a.fits?secret=1")
        assert len(server.requests) == LIMITS.attempts
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_pause_that_a_server_asks_for_is_kept(tmp_path: Path) -> None:
    with serve_sky(service, Faults(share=1.0, times=1, kinds=("429",), retry_after_s=1)) as server:
        Answers(LIMITS, cache=tmp_path).fits(f"{server.url}/a.fits")
        first, second = (moment for _, _, moment in server.requests)
        assert second - first >= 1.0


def test_a_slow_server_is_left_at_the_read_time_out(tmp_path: Path) -> None:
    limits = HttpLimits(attempts=2, backoff_s=0.01, read_timeout_s=0.1, requests_per_s=1000)
    with serve_sky(service, Faults(share=1.0, times=9, kinds=("slow",), slow_s=0.6)) as server:
        begun = time.monotonic()
        with pytest.raises(SourceUnavailable, match="no answer in time"):
            Answers(limits, cache=tmp_path).fits(f"{server.url}/a.fits")
        assert time.monotonic() - begun < 2.0


def test_a_deadline_ends_the_tries(tmp_path: Path) -> None:
    with serve_sky(service, Faults(share=1.0, times=9, kinds=("429",), retry_after_s=60)) as server:
        with pytest.raises(SourceUnavailable) as stopped:
            Answers(LIMITS, cache=tmp_path).fits(f"{server.url}/a.fits", deadline=time.monotonic() + 0.5)
        assert stopped.value.reason == "time-limit"


def test_what_is_not_there_is_asked_once(server: SkyServer, tmp_path: Path) -> None:
    with pytest.raises(SourceRejected) as missing:
        Answers(LIMITS, cache=tmp_path).fits(f"{server.url}/none.fits")
    assert missing.value.reason == "missing-asset"
    assert len(server.requests) == 1


def test_no_more_requests_are_under_way_than_allowed(tmp_path: Path) -> None:
    def slow(path: str, query: dict[str, str]) -> Reply:
        time.sleep(0.05)
        return Reply(BODY)

    with serve_sky(slow) as server:
        answers = Answers(LIMITS, cache=tmp_path)
        threads = [threading.Thread(target=answers.fits, args=(f"{server.url}/{n}.fits",)) for n in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 9
        assert 2 <= server.peak <= LIMITS.concurrent


def test_a_damaged_file_in_the_cache_is_fetched_again(server: SkyServer, tmp_path: Path) -> None:
    answers, url = Answers(LIMITS, cache=tmp_path), f"{server.url}/a.fits"
    answers.fits(url)
    (kept,) = (path for path in tmp_path.rglob("*.fits"))
    kept.write_bytes(BODY[:5000])
    assert answers.fits(url) == BODY
    assert kept.read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_says_which(server: SkyServer, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        Answers(LIMITS, cache=tmp_path / "sky").fits(f"{server.url}/a.fits")


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "canopus" / "sky"
    assert Answers(LIMITS).cache == default_cache()


def test_a_path_is_read_as_it_is_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(BODY)
    answers = Answers(LIMITS, cache=tmp_path / "cache")
    assert answers.fits(str(tmp_path / "a.fits")) == BODY
    with pytest.raises(SourceRejected) as missing:
        answers.fits(str(tmp_path / "b.fits"))
    assert missing.value.reason == "missing-asset"
    assert not (tmp_path / "cache").exists()


def test_answers_that_nobody_asked_for_are_pruned_and_other_files_are_not(tmp_path: Path) -> None:
    digest = "ab" * 32
    old, young, other = (tmp_path / "ab" / name for name in (f"{digest}.fits", f"{digest[::-1]}.fits", "mine.fits"))
    old.parent.mkdir()
    for path in (old, young, other):
        path.write_bytes(b"12345")
    for path in (old, other):
        os.utime(path, (1e9, 1e9))
    limit = datetime.now(UTC) - timedelta(days=1)
    shown = prune_answers(tmp_path, limit, delete=False)
    assert (shown.answers, shown.bytes, old.exists()) == (1, 5, True)
    assert prune_answers(tmp_path, limit, delete=True) == shown
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)
    assert prune_answers(tmp_path / "nowhere", limit, delete=True).answers == 0
