"""Open a scene's file wherever it lies: a path, https, or an object store.

GDAL decodes, Canopus fetches. Reads go through a file object of our own and not through GDAL's network layer, so that
retries, limits per host, signing and the reasons for failures are the same for every source and are tested here.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import rasterio
from rasterio.abc import MultiByteRangeResourceContainer
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from tasks.errors import SourceRejected
from tasks.limits import HttpLimits, TransferCount, without_secrets
from tasks.ranges import HttpFile, Part, S3File, Signer, no_signature

T = TypeVar("T")

HEADER_BYTES = 64 * 1024
BLOCK_BYTES = 256 * 1024
CACHED_BLOCKS = 64
SMALL_FILE_BYTES = 2**20
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Only formats whose files stand alone: a VRT, for one, may name any other file or host.
_DRIVERS = {
    b"II*\x00": "GTiff",
    b"MM\x00*": "GTiff",
    b"II+\x00": "GTiff",
    b"MM\x00+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
}
_GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}


@dataclass(frozen=True)
class Access:
    """What may be read, on whose behalf, and how hard.

    Parameters
    ----------
    catalog : str
        Where the hrefs came from. A catalogue on the network may not name files of this machine, nor, unless it is
        itself on loopback, servers on loopback.
    allowed_hosts : tuple of str
        Where not empty, the only hosts (or buckets, ``s3://name``) that are read; ``*.example.org`` takes in what
        lies below. Where empty: any host over https, and loopback.
    sign : callable
        Turns an href into one that can be read; called at read time, again after a refusal.
    """

    limits: HttpLimits = field(default_factory=HttpLimits)
    catalog: str = ""
    allowed_hosts: tuple[str, ...] = ()
    sign: Signer = no_signature


class RangeSource(Protocol):
    """A remote file that can be read in parts."""

    name: str

    def fetch(self, start: int, stop: int) -> Part:
        """Return the bytes from `start` to before `stop`, or to the end of the file."""
        ...


class RangeCache:
    """The bytes of one remote file, fetched as they are asked for; safe between threads.

    Small reads (TIFF headers) come in aligned blocks that are kept; large ones are fetched exactly and not kept, since
    GDAL keeps what it decodes.
    """

    def __init__(self, source: RangeSource) -> None:
        self._source = source
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._head: Part | None = None
        self._lock = threading.RLock()

    @property
    def size(self) -> int:
        """Return the length of the file in bytes."""
        return self._first().total

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, fewer at the end of the file."""
        stop = min(start + length, self.size)
        head = self._first().data
        if stop <= start:
            return b""
        if stop <= len(head):
            return head[start:stop]
        if stop - start >= BLOCK_BYTES // 2 and self.size > SMALL_FILE_BYTES:
            return self._source.fetch(start, stop).data
        return self._read_blocks(start, stop)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return several (start, length) ranges, fetched side by side where there are more than one."""
        if len(ranges) < 2 or self.size <= SMALL_FILE_BYTES:
            return [self.read(start, length) for start, length in ranges]
        with ThreadPoolExecutor(max_workers=min(4, len(ranges))) as pool:
            return list(pool.map(lambda entry: self.read(*entry), ranges))

    def _first(self) -> Part:
        with self._lock:
            if self._head is None:
                self._head = self._source.fetch(0, HEADER_BYTES)
            return self._head

    def _read_blocks(self, start: int, stop: int) -> bytes:
        block = self._block_bytes
        first = start // block
        data = b"".join(self._block(index) for index in range(first, (stop - 1) // block + 1))
        return data[start - first * block : stop - first * block]

    @property
    def _block_bytes(self) -> int:
        return SMALL_FILE_BYTES if self.size <= SMALL_FILE_BYTES else BLOCK_BYTES

    def _block(self, index: int) -> bytes:
        with self._lock:
            if index not in self._blocks:
                self._blocks[index] = self._fetch_block(index)
                if len(self._blocks) > CACHED_BLOCKS:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(index)
            return self._blocks[index]

    def _fetch_block(self, index: int) -> bytes:
        start, stop = index * self._block_bytes, min((index + 1) * self._block_bytes, self.size)
        known = self._first().data[start:] if start < len(self._first().data) else b""
        return known if start + len(known) >= stop else known + self._source.fetch(start + len(known), stop).data


class RangeFile(io.RawIOBase):
    """A file object over a `RangeCache`, as GDAL reads it.

    GDAL prints and drops an exception raised in here, so the first one is kept in `failure`, the read comes up short,
    and `open_asset` raises it once GDAL has given up.
    """

    def __init__(self, cache: RangeCache, failures: list[Exception]) -> None:
        super().__init__()
        self._cache = cache
        self._failures = failures
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (self._length() if base is None else base)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none where the source has failed."""
        length = self._length() - self._position if size is None or size < 0 else size
        data = b"".join(self._ranges([(self._position, length)]) or [b""])
        self._position += len(data)
        return data

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Return several ranges at once; zeros where the source has failed, since GDAL copies without looking."""
        ranges = list(zip(map(int, offsets), map(int, sizes), strict=True))
        found = self._ranges(ranges) or [b""] * len(ranges)
        return [data.ljust(length, b"\0") for data, (_, length) in zip(found, ranges, strict=True)]

    def _length(self) -> int:
        return self._unless_failed(lambda: self._cache.size, otherwise=0)

    def _ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._unless_failed(lambda: self._cache.read_ranges(ranges), otherwise=[])

    def _unless_failed(self, action: Callable[[], T], *, otherwise: T) -> T:
        """Return what `action` does; after the first failure, which is kept, nothing more is asked of the source."""
        if self._failures:
            return otherwise
        try:
            return action()
        except Exception as error:
            self._failures.append(error)
            return otherwise


class _OneFile(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """The one file that GDAL is shown; it has no siblings, so GDAL does not go looking for any."""

    def __init__(self, path: str, cache: RangeCache, failures: list[Exception]) -> None:
        self._path, self._cache, self._failures = path, cache, failures

    def open(self, path: str, mode: str = "r", **kwds: Any) -> RangeFile:
        if not self.isfile(path):
            raise FileNotFoundError(path)
        return RangeFile(self._cache, self._failures)

    def isfile(self, path: str) -> bool:
        return path == self._path

    def isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str) -> list[str]:
        return []

    def mtime(self, path: str) -> int:
        return 0

    def rm(self, path: str) -> None:
        raise PermissionError(path)

    def size(self, path: str) -> int:
        if not self.isfile(path):
            raise FileNotFoundError(path)
        return self._cache.size


@contextlib.contextmanager
def open_asset(
    href: str, access: Access | None = None, *, deadline: float | None = None, count: TransferCount | None = None
) -> Iterator[DatasetReader]:
    """Open a raster for reading in this thread; close it on leaving.

    Read inside the ``with`` block: that is where a failed read gets its name and reason.

    Parameters
    ----------
    href : str
        A path, ``file://``, ``https://``, ``http://`` (loopback or allowed hosts) or ``s3://``.
    access : Access, optional
        Limits, allowed hosts and signing.
    deadline : float, optional
        Value of ``time.monotonic()`` after which no request is started.
    count : TransferCount, optional
        Is told of every request, retry and byte.

    Raises
    ------
    SourceUnavailable
        Where tries ran out on time-outs, 5xx, 429 or dropped connections, or the deadline passed.
    SourceRejected
        With reason ``denied`` (scheme, host, 401, 403), ``missing-asset`` (404) or ``unreadable`` (not a TIFF or
        JPEG 2000, truncated, corrupt).
    """
    access = access or Access()
    check_href(href, access)
    failures: list[Exception] = []
    name = without_secrets(href)
    with _named_failures(name, failures), rasterio.Env(**_GDAL_OPTIONS):
        if is_local(href):
            opened = _open_local(_local_path(href))
        else:
            source = _remote_file(href, access, deadline, count or TransferCount())
            opened = _open_remote(source, failures)
        with opened as dataset:
            yield dataset


def is_local(href: str) -> bool:
    """Return whether an href names a file of this machine."""
    return urlsplit(href).scheme in ("", "file")


def check_href(href: str, access: Access) -> None:
    """Refuse what a catalogue should not make us read.

    Raises
    ------
    SourceRejected
        With reason ``denied``, for another scheme than file, http, https and s3, for GDAL's virtual paths, for local
        files named by a catalogue on the network, and for hosts that are not allowed.
    """
    parts = urlsplit(href)
    remote_catalog = urlsplit(access.catalog).scheme in ("http", "https")
    if parts.scheme not in ("", "file", "http", "https", "s3") or href.startswith("/vsi"):
        raise _denied(href, "only files, http, https and s3 are read")
    if is_local(href):
        if remote_catalog:
            raise _denied(href, "a catalogue on the network may not name files of this machine")
        return
    if access.allowed_hosts:
        if not _matches(parts.scheme, parts.hostname or "", access.allowed_hosts):
            raise _denied(href, f"the allowed hosts are {', '.join(access.allowed_hosts)}")
        return
    if parts.hostname in LOOPBACK:
        if remote_catalog and urlsplit(access.catalog).hostname not in LOOPBACK:
            raise _denied(href, "a catalogue on the network may not name servers of this machine")
    elif parts.scheme == "http":
        raise _denied(href, "plain http is read from allowed hosts only: name the host in allowed_hosts")


def _matches(scheme: str, host: str, allowed: Sequence[str]) -> bool:
    names = {host, f"s3://{host}"} if scheme == "s3" else {host}
    return any(entry in names or (entry.startswith("*.") and host.endswith(entry[1:])) for entry in allowed)


def _denied(href: str, why: str) -> SourceRejected:
    return SourceRejected(f"{without_secrets(href)} was not read: {why}", reason="denied")


def _local_path(href: str) -> Path:
    return Path(unquote(urlsplit(href).path)) if href.startswith("file:") else Path(href)


def _remote_file(href: str, access: Access, deadline: float | None, count: TransferCount) -> RangeSource:
    if href.startswith("s3://"):
        return S3File(href, access.limits, deadline=deadline, count=count)

    def check(url: str) -> None:
        check_href(url, access)

    return HttpFile(href, access.limits, sign=access.sign, check=check, deadline=deadline, count=count)


def _open_local(path: Path) -> DatasetReader:
    try:
        with path.open("rb") as file:
            driver = _driver_of(file.read(8), str(path))
    except FileNotFoundError as error:
        raise SourceRejected(f"{path} does not exist", reason="missing-asset") from error
    except PermissionError as error:
        raise SourceRejected(f"{path} may not be read: permission denied", reason="denied") from error
    except OSError as error:
        raise SourceRejected(f"{path} cannot be read: {error.strerror}", reason="unreadable") from error
    return rasterio.open(path, driver=driver)


def _open_remote(source: RangeSource, failures: list[Exception]) -> DatasetReader:
    cache = RangeCache(source)
    driver = _driver_of(cache.read(0, 8), source.name)
    # A name of its own: rasterio keeps openers by folder, and two files of one scene share theirs.
    path = f"/canopus-{uuid4().hex}/{Path(urlsplit(source.name).path).name or 'asset'}"
    return rasterio.open(path, opener=_OneFile(path, cache, failures), driver=driver)


def _driver_of(head: bytes, name: str) -> str:
    for magic, driver in _DRIVERS.items():
        if head.startswith(magic):
            return driver
    said = "is empty" if not head else "is neither a TIFF nor a JPEG 2000 file"
    raise SourceRejected(f"{name} {said}", reason="unreadable")


@contextlib.contextmanager
def _named_failures(name: str, failures: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if failures:
            raise failures[0] from error
        if not _is_of_gdal(error):
            raise
        raise SourceRejected(f"{name} is truncated or corrupt: {_said_by_gdal(error)}", reason="unreadable") from error
    if failures:
        raise failures[0]


def _is_of_gdal(error: Exception) -> bool:
    """Return whether rasterio raised it; GDAL's own error classes have no base in common with rasterio's."""
    return isinstance(error, RasterioError) or type(error).__module__ == "rasterio._err"


def _said_by_gdal(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__
    return str(cause or error).splitlines()[0]
