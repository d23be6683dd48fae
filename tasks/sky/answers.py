"""Whole answers of services and whole files of archives: limited per host, tried again, kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import ConfigurationError, SourceRejected, SourceUnavailable
from tasks.limits import HttpLimits, TransferCount
from tasks.ranges import HttpFile, PassingError
from tasks.sky.fits_images import check_fits

_ANSWER = re.compile(r"[0-9a-f]{64}\.fits|\..*\.part")
"""Names of answers, and of those that a killed run was writing."""


def default_cache() -> Path:
    """Return the user's folder for raw answers: under ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "canopus" / "sky"


class Answers:
    """FITS files behind http, https or a path; what was fetched once is read from disk.

    An answer is kept only once it is a whole FITS file, under the SHA-256 of its URL, and appears in one step: a killed
    run leaves nothing half-written, and any number of processes share a folder.

    Parameters
    ----------
    limits : HttpLimits
    cache : Path, optional
        None = `default_cache`.
    """

    def __init__(self, limits: HttpLimits, *, cache: Path | None = None) -> None:
        self.limits = limits
        self.cache = cache or default_cache()
        self.count = TransferCount()

    def fits(self, url: str, *, deadline: float | None = None) -> bytes:
        """Return a FITS file, whole.

        Raises
        ------
        SourceRejected
            With reason ``missing-asset`` where there is none; ``unreadable`` for a local file that is cut.
        SourceUnavailable
            A server fails, or sends a cut file or a web page, in every try.
        ConfigurationError
            The cache cannot be written.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            return _local(Path(url))
        kept = self._kept(url)
        if kept.is_file() and not check_fits(body := kept.read_bytes(), downloaded=True):
            with contextlib.suppress(OSError):
                os.utime(kept)  # what is still asked for is not pruned
            return body
        body = HttpFile(url, self.limits, deadline=deadline, count=self.count).fetch_whole(accept=_whole)
        self._keep(kept, body)
        return body

    def _kept(self, url: str) -> Path:
        digest = hashlib.sha256(url.encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.fits"

    def _keep(self, path: Path, body: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            os.replace(name, path)
        except OSError as error:
            raise ConfigurationError(f"the cache {self.cache} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class Pruned:
    """Answers of a cache that nobody has asked for since: how many, and their bytes."""

    folder: str
    answers: int
    bytes: int


def prune_answers(folder: Path, limit: datetime, *, delete: bool) -> Pruned:
    """Return what of a cache was last asked for before a time, having deleted it if asked to; other files are left alone.

    Parameters
    ----------
    folder : Path
        Of raw answers; nothing is there where it does not exist.
    limit : datetime
        With its zone.
    delete : bool
    """
    count, size = 0, 0
    for path in sorted(folder.rglob("*")):
        if not _ANSWER.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        facts = path.stat()
        if facts.st_mtime < limit.timestamp():
            count, size = count + 1, size + facts.st_size
            if delete:
                path.unlink(missing_ok=True)
    return Pruned(str(folder), count, size)


def _whole(body: bytes) -> None:
    if wrong := check_fits(body, downloaded=True):
        raise PassingError(wrong)


def _local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceRejected(f"{path} does not exist", reason="missing-asset") from None
    except OSError as error:
        raise SourceUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
