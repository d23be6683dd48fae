"""How hard Canopus may lean on somebody else's server: tries, pauses, time-outs, requests at once."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from tasks.errors import SourceUnavailable

MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class HttpLimits:
    """Limits for one host; the same object (or an equal one) shares its counters within a process.

    Parameters
    ----------
    attempts : int
        Tries per request, the first included.
    backoff_s, backoff_max_s : float
        The pause doubles from the first to the second; a random half of it is jitter.
    retry_after_max_s : float
        The longest ``Retry-After`` that is honoured in full; a longer one is cut to this.
    connect_timeout_s, read_timeout_s : float
        Longest wait for a connection, and for the next bytes.
    request_timeout_s : float
        Longest time for one whole answer, so that a trickle does not hold a worker for ever.
    concurrent : int
        Requests to one host at once, over all threads of the process.
    requests_per_s : float
        Requests to one host per second, over all threads of the process.
    max_whole_bytes : int
        Largest file taken whole from a server that does not serve ranges.
    """

    attempts: int = 6
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 120.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    request_timeout_s: float = 300.0
    concurrent: int = 8
    requests_per_s: float = 100.0
    max_whole_bytes: int = 256 * 2**20


@dataclass
class TransferCount:
    """What a reader asked of the outside world; safe to share between threads."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    waited_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, requests: int = 0, retries: int = 0, received: int = 0, waited_s: float = 0.0) -> None:
        """Add to the counts."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.bytes += received
            self.waited_s += waited_s


class HostGate:
    """Lets through so many requests at once and so many per second to one host.

    A server that asks for a pause gets it from every thread, not only from the one that it told.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self._slots = threading.BoundedSemaphore(limits.concurrent)
        self._interval_s = 1.0 / limits.requests_per_s
        self._next_start = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def passage(self, name: str, *, deadline: float | None = None) -> Iterator[None]:
        """Hold one of the host's slots for what is called `name`, once its turn has come.

        Raises
        ------
        SourceUnavailable
            With reason ``time-limit`` where the turn comes after the deadline, a value of ``time.monotonic()``.
        """
        with self._slots:
            sleep_until_allowed(self._reserve(), name, deadline=deadline)
            yield

    def pause(self, seconds: float) -> None:
        """Let nobody start for so many seconds."""
        with self._lock:
            self._next_start = max(self._next_start, time.monotonic() + seconds)

    def _reserve(self) -> float:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._interval_s
            return start - now


@lru_cache(maxsize=1024)
def gate_for(host: str, limits: HttpLimits) -> HostGate:
    """Return the gate of a host; one per host and limits in a process."""
    return HostGate(limits)


def pause_before_retry(attempt: int, limits: HttpLimits, *, retry_after_s: float | None = None) -> float:
    """Return the seconds to wait after try number `attempt` (from 1), jitter included.

    Parameters
    ----------
    retry_after_s : float, optional
        What the server asked for; never undercut, up to ``limits.retry_after_max_s``.
    """
    if retry_after_s is not None:
        return min(retry_after_s, limits.retry_after_max_s) + random.uniform(0.0, limits.backoff_s / 2)
    longest = min(limits.backoff_max_s, limits.backoff_s * 2.0 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


def sleep_until_allowed(seconds: float, name: str, *, deadline: float | None = None) -> None:
    """Sleep, unless the deadline (a value of ``time.monotonic()``) would pass meanwhile.

    Raises
    ------
    SourceUnavailable
        With reason ``time-limit``, at once.
    """
    if deadline is not None and time.monotonic() + seconds > deadline:
        raise SourceUnavailable(
            f"{name} was not read: the time limit would pass before the next try", reason="time-limit"
        )
    time.sleep(seconds)


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, or None where it says nothing readable.

    Examples
    --------
    >>> retry_after_s("7")
    7.0
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def without_secrets(url: str) -> str:
    """Return a URL without its query, fragment and user information: a signed URL is a password.

    Examples
    --------
    >>> without_secrets("https://user:pw@host/a.tif?sig=abc")
    'https://host/a.tif'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def text_without_secrets(text: str, *, length: int = 300) -> str:
    """Return a server's own words, shortened, with the queries of any URLs in them cut off."""
    return re.sub(r"\?[^\s\"'<>)]+", "?...", " ".join(text.split()))[:length]


class _WithoutQueries(logging.Filter):
    """Cuts the queries off the addresses that urllib3 writes to its debug log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, with its text arguments cut."""
        if isinstance(record.args, tuple):
            record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
        return True


@lru_cache(maxsize=1)
def keep_queries_out_of_logs() -> None:
    """Make urllib3's log safe for signed addresses; called before the first request, does its work once."""
    logging.getLogger("urllib3.connectionpool").addFilter(_WithoutQueries())
