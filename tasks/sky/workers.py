"""Processes that work on one thing at a time and may be killed: a fit that hangs or crashes costs its object, not the run.

Python code cannot be stopped inside a thread, and fits are bound by Python itself, so threads would not gain either.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tasks.errors import SourceError, SourceUnavailable

START_S = 180.0
"""Longest time until a process has imported what it needs; on a busy machine with a cold disk it takes a while."""
_ORPHANED_S = 5.0
_COMMAND = "import sys; from tasks.sky.workers import serve; serve(int(sys.argv[1]))"
PROCESS_SETTINGS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
}
"""One thread each; and memory of arrays that come and go is not given back to the system each time, which costs a tenth."""
T = TypeVar("T")


class WorkerDied(SourceUnavailable):
    """The process ended under its work: a crash in compiled code, or the system took its memory back."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="bug")


class WorkerFailed(Exception):
    """The work raised; the message has the exception's type and words."""


class WorkerPool:
    """So many processes, started when they are first needed; a dead one is replaced.

    Parameters
    ----------
    size : int
        Processes at most; as many calls run at once.
    warm : callable, optional
        Called in each process before its first work, without a time limit: heavy imports.
    """

    def __init__(self, size: int, warm: Callable[[], object] | None = None) -> None:
        self.size = size
        self._warm = warm
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._started: set[_Worker] = set()
        self._lock = threading.Lock()
        for _ in range(size):
            self._places.put(None)

    def call(self, function: Callable[..., T], *arguments: Any, limit_s: float) -> T:
        """Return what a function gives in one of the processes; waits until one is free.

        Parameters
        ----------
        function : callable
            Of a module, so that the process can import it.
        limit_s : float
            Wall time, counted from the start of the work. At its end the process is killed.

        Raises
        ------
        SourceUnavailable
            With reason ``time-limit`` where the time ran out.
        WorkerDied
            Where the process ended by itself.
        SourceError
            As the function raised it.
        WorkerFailed
            Where the function raised anything else.
        """
        worker = self._places.get()
        try:
            if worker is None or not worker.is_alive:
                worker = self._start()
            return worker.call(function, arguments, limit_s)
        finally:
            self._places.put(worker if worker is not None and worker.is_alive else None)

    def close(self) -> None:
        """Kill the processes; the next call starts new ones."""
        with self._lock:
            workers, self._started = self._started, set()
        for worker in workers:
            worker.kill()

    def _start(self) -> _Worker:
        worker = _Worker()
        with self._lock:
            self._started = {known for known in self._started if known.is_alive} | {worker}
        worker.call(_nothing if self._warm is None else self._warm, (), START_S)
        return worker


@lru_cache(maxsize=8)
def pool_of(size: int, warm: Callable[[], object]) -> WorkerPool:
    """Return this process's pool of a size; its processes end with it."""
    return WorkerPool(size, warm)


class _Worker:
    """One process, and our end of the pipe to it."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | PROCESS_SETTINGS,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, function: Callable[..., T], arguments: tuple[Any, ...], limit_s: float) -> T:
        deadline = time.monotonic() + limit_s
        try:
            self._pipe.send((function, arguments, limit_s))
            if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                self.kill()
                raise SourceUnavailable(f"not done after {limit_s:g} s", reason="time-limit")
            done, value = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self.kill()
            code = self._process.returncode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            raise WorkerDied(f"the process that worked on it ended: {how}") from error
        if not done:
            raise value if isinstance(value, SourceError) else WorkerFailed(value)
        return value

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def serve(descriptor: int) -> None:
    """Work on what comes through a pipe until its other end is closed: what a process of the pool runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its processes
    pipe = Connection(descriptor)
    while True:
        try:
            function, arguments, limit_s = pipe.recv()
            # one whose run was killed has nobody to stop it; the alarm ends it inside compiled code too
            signal.setitimer(signal.ITIMER_REAL, math.ceil(limit_s) + _ORPHANED_S)
            answer = _answer(function, arguments)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            pipe.send(answer)
        except (EOFError, ConnectionError):
            return


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except SourceError as error:
        return False, error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return False, f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"


def _nothing() -> None:
    return None
