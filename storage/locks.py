"""One writer at a time on a folder: an OS file lock, which the system releases when the process dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from storage.errors import TileBusy
from storage.location import Location


@contextlib.contextmanager
def hold(location: Location, wait_s: float) -> Iterator[None]:
    """Keep other writers of this machine from a folder while the block runs; on an object store do nothing.

    Raises
    ------
    TileBusy
        Where another process keeps the folder for longer than `wait_s`.
    """
    if location.local_path is None:
        yield
        return
    path = location.local_path.with_name(f"{location.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise TileBusy(f"{location}: another process has been writing here for over {wait_s:.0f} s") from error
    try:
        yield
    finally:
        lock.release()
