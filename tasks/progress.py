"""Who wants to know how far long work has come: the command line's bars, Prefect's artifacts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, str, int, int, str], None]
"""Called with stage, what is worked on, parts done, parts in all, and a few words on how it goes."""

_listeners: list[Listener] = []
_lock = threading.Lock()


def report(stage: str, name: str, done: int, total: int, words: str = "") -> None:
    """Tell every listener of this process how far `name` has come."""
    with _lock:
        current = list(_listeners)
    for listener in current:
        listener(stage, name, done, total, words)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` for every report while the block runs."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
