"""Work in processes: what comes back, and what a hang, a crash or an exception costs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import factorial, gcd

import pytest

from tasks.errors import SourceUnavailable
from tasks.sky.workers import WorkerDied, WorkerFailed, WorkerPool


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(2)
    yield pool
    pool.close()


def test_a_call_gives_what_the_function_gives_in_another_process(pool: WorkerPool) -> None:
    assert pool.call(gcd, 12, 18, limit_s=20) == 6
    assert pool.call(os.getpid, limit_s=20) != os.getpid()


def test_a_call_that_hangs_is_killed_at_its_limit_and_the_next_one_runs(pool: WorkerPool) -> None:
    pool.call(os.getpid, limit_s=20)
    begun = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"not done after 0.3 s") as stopped:
        pool.call(time.sleep, 60, limit_s=0.3)
    assert stopped.value.reason == "time-limit"
    assert time.monotonic() - begun < 5
    assert pool.call(gcd, 9, 6, limit_s=20) == 3


def test_a_process_that_is_killed_under_its_work_says_so_and_is_replaced(pool: WorkerPool) -> None:
    with pytest.raises(WorkerDied, match="signal 6"):
        pool.call(os.abort, limit_s=20)
    assert pool.call(gcd, 9, 6, limit_s=20) == 3


def test_an_exception_comes_back_with_its_type_and_the_process_lives() -> None:
    single = WorkerPool(1)
    try:
        first = single.call(os.getpid, limit_s=20)
        with pytest.raises(WorkerFailed, match="ValueError: factorial"):
            single.call(factorial, -1, limit_s=20)
        assert single.call(os.getpid, limit_s=20) == first
    finally:
        single.close()


def test_as_many_calls_as_processes_run_at_once(pool: WorkerPool) -> None:
    for _ in range(2):  # both processes are up before the clock runs
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: pool.call(time.sleep, 0.2, limit_s=20), range(2)))
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: pool.call(time.sleep, 0.6, limit_s=20), range(2)))
    assert time.monotonic() - begun < 1.15


def test_a_closed_pool_leaves_no_process_and_starts_anew() -> None:
    single = WorkerPool(1)
    first = single.call(os.getpid, limit_s=20)
    single.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert single.call(os.getpid, limit_s=20) != first
    single.close()


def test_the_pool_may_be_called_from_many_threads(pool: WorkerPool) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda n=n: found.append(pool.call(gcd, n, 0, limit_s=20))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(20))
