"""Parts of remote files over HTTP and from object stores, with the retries that both share."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from tasks.errors import SourceRejected, SourceUnavailable
from tasks.limits import (
    MAY_PASS,
    HttpLimits,
    TransferCount,
    gate_for,
    keep_queries_out_of_logs,
    pause_before_retry,
    retry_after_s,
    sleep_until_allowed,
    without_secrets,
)

logger = logging.getLogger(__name__)

Signer = Callable[[str], str]
T = TypeVar("T")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 1024 * 1024
_S3_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def no_signature(href: str) -> str:
    """Return the href as it is."""
    return href


@dataclass(frozen=True)
class Part:
    """Some bytes of a file, and how many it has in all."""

    data: bytes
    total: int


class PassingError(Exception):
    """A try failed in a way that may pass; `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def with_retries(
    action: Callable[[], T], *, name: str, limits: HttpLimits, deadline: float | None, count: TransferCount
) -> T:
    """Return what `action` returns, tried again while it raises `PassingError`.

    Raises
    ------
    SourceUnavailable
        When the tries have run out, or the deadline (a value of ``time.monotonic()``) has passed.
    """
    gate = gate_for(urlsplit(name).netloc, limits)
    for attempt in range(1, limits.attempts + 1):
        try:
            with gate.passage(name, deadline=deadline):
                count.add(requests=1)
                return action()
        except PassingError as failure:
            if attempt == limits.attempts:
                message = f"{name} could not be read in {limits.attempts} tries; the last one: {failure}"
                raise SourceUnavailable(message) from failure
            logger.info("%s: %s; trying again (%d of %d)", name, failure, attempt + 1, limits.attempts)
            if failure.retry_after_s is not None:
                gate.pause(min(failure.retry_after_s, limits.retry_after_max_s))
            pause = pause_before_retry(attempt, limits, retry_after_s=failure.retry_after_s)
            sleep_until_allowed(pause, name, deadline=deadline)
            count.add(retries=1, waited_s=pause)
    raise AssertionError("attempts is at least 1")


class HttpFile:
    """A file behind http or https, read by ranges.

    Parameters
    ----------
    href : str
        As in the catalogue; `sign` is applied to it before each request.
    check : callable
        Raises for a URL that may not be read; asked about every redirect.
    """

    def __init__(
        self,
        href: str,
        limits: HttpLimits,
        *,
        sign: Signer = no_signature,
        check: Callable[[str], None] = lambda url: None,
        deadline: float | None = None,
        count: TransferCount | None = None,
    ) -> None:
        self.name = without_secrets(href)
        self._href, self._limits, self._sign, self._check = href, limits, sign, check
        self._deadline, self._count = deadline, count or TransferCount()
        self._tag: tuple[int, str] | None = None
        self._whole: bytes | None = None
        self._refusals = 0

    def fetch(self, start: int, stop: int) -> Part:
        """Return the bytes from `start` to before `stop`, or to the end of the file.

        Raises
        ------
        SourceUnavailable, SourceRejected
        """
        if self._whole is not None:
            return Part(self._whole[start:stop], len(self._whole))
        return with_retries(
            lambda: self._try(start, stop),
            name=self.name,
            limits=self._limits,
            deadline=self._deadline,
            count=self._count,
        )

    def fetch_whole(self, *, accept: Callable[[bytes], None] = lambda body: None) -> bytes:
        """Return the whole file in one request without a range: the answer of a service, or a small file.

        Parameters
        ----------
        accept : callable
            Raises `PassingError` for a body that is not what was asked for and may be the next time.

        Raises
        ------
        SourceUnavailable, SourceRejected
        """

        def attempt() -> bytes:
            body = self._try(0, None).data
            accept(body)
            return body

        return with_retries(attempt, name=self.name, limits=self._limits, deadline=self._deadline, count=self._count)

    def _try(self, start: int, stop: int | None) -> Part:
        try:
            response = self._request(start, stop)
            try:
                part = self._part(response, start, stop)
            except BaseException:
                response.close()  # what was not read must not be taken for the next answer
                raise
            response.release_conn()
            return part
        except HTTPError as error:
            raise PassingError(_in_words(error)) from error

    def _request(self, start: int, stop: int | None) -> urllib3.BaseHTTPResponse:
        url = self._sign(self._href)
        span = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        for _ in range(6):
            response = _pool(url, self._limits).request(
                "GET",
                url,
                headers={**span, "Accept-Encoding": "identity"},
                preload_content=False,
                redirect=False,
                retries=False,
            )
            if response.status not in _REDIRECTS:
                return response
            url = urljoin(url, response.headers.get("Location", ""))
            response.drain_conn()
            self._check(url)
        raise SourceRejected(f"{self.name} redirects in a circle", reason="unreadable")

    def _part(self, response: urllib3.BaseHTTPResponse, start: int, stop: int | None) -> Part:
        if response.status not in (200, 206):
            self._refuse(response, start)
            return Part(b"", start)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise PassingError("a web page came in place of the file")
        if response.status == 200 or stop is None:
            return self._take_whole(response, start, stop)
        first, last, total = _content_range(response)
        if first != start or last + 1 != min(stop, total):
            raise PassingError(f"bytes {first}-{last} came in place of {start}-{stop - 1}")
        self._check_unchanged(total, response.headers.get("ETag", ""))
        return Part(self._body(response, last + 1 - first), total)

    def _take_whole(self, response: urllib3.BaseHTTPResponse, start: int, stop: int | None) -> Part:
        """Take the file whole: as asked, or from a server that does not serve ranges."""
        length = int(response.headers.get("Content-Length", "0") or 0)
        limit = self._limits.max_whole_bytes
        data = b"" if length > limit else self._body(response, length or None, limit=limit)
        if length > limit or len(data) > limit:
            raise SourceRejected(
                f"{self.name}: the file is larger than {limit} bytes and does not come in ranges",
                reason="unreadable",
            )
        if stop is not None:
            self._whole = data
        return Part(data[start:stop], len(data))

    def _body(self, response: urllib3.BaseHTTPResponse, length: int | None, *, limit: int | None = None) -> bytes:
        """Return the body; a short one, or one that takes too long, is a failure that may pass."""
        end = min(time.monotonic() + self._limits.request_timeout_s, self._deadline or math.inf)
        chunks, received = [], 0
        for chunk in response.stream(_CHUNK_BYTES):
            chunks.append(chunk)
            received += len(chunk)
            if limit is not None and received > limit:
                break
            if time.monotonic() > end:
                raise PassingError(f"{received} bytes came in the time for one request")
        self._count.add(received=received)
        if length is not None and received != length:
            raise PassingError(f"{received} bytes came, {length} were announced")
        return b"".join(chunks)

    def _check_unchanged(self, total: int, etag: str) -> None:
        tag = (total, "" if etag.startswith("W/") else etag)
        if self._tag is None:
            self._tag = tag
        elif self._tag != tag:
            raise SourceUnavailable(f"{self.name} was replaced while it was being read")

    def _refuse(self, response: urllib3.BaseHTTPResponse, start: int) -> None:
        """Say what an answer other than 200 and 206 means."""
        status = response.status
        asked = retry_after_s(response.headers.get("Retry-After"))
        response.drain_conn()
        if status in MAY_PASS or status > 504:
            raise PassingError(f"HTTP status {status}", retry_after_s=asked)
        if status in (401, 403) and self._sign is not no_signature and self._refusals == 0:
            self._refusals += 1
            forget = getattr(self._sign, "forget", None)
            if forget is not None:
                forget(self._href)
            raise PassingError(f"HTTP status {status}: the signature may have expired", retry_after_s=0.0)
        if status in (404, 410):
            raise SourceRejected(f"{self.name} does not exist (HTTP status {status})", reason="missing-asset")
        if status in (401, 403):
            raise SourceRejected(
                f"{self.name} may not be read (HTTP status {status}){_hint(self.name)}", reason="denied"
            )
        if status != 416 or start == 0:
            what = "is empty" if status == 416 else f"cannot be read (HTTP status {status})"
            raise SourceRejected(f"{self.name} {what}", reason="unreadable")


def _content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int, int]:
    header = response.headers.get("Content-Range", "")
    unit, _, rest = header.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit != "bytes" or not (first.isdigit() and last.isdigit() and total.isdigit()):
        raise PassingError(f"an unreadable Content-Range came: {header!r}")
    return int(first), int(last), int(total)


def _hint(name: str) -> str:
    host = urlsplit(name).hostname or ""
    if not host.endswith(".blob.core.windows.net"):
        return ""
    return ": the Planetary Computer's files need signing, install planetary-computer"


def _in_words(error: HTTPError) -> str:
    """Return what went wrong, without urllib3's own text: that holds the URL with its signature."""
    if isinstance(error, ProtocolError):
        return "the connection was dropped"
    return {
        "ConnectTimeoutError": "no connection in time",
        "ReadTimeoutError": "no answer in time",
        "NewConnectionError": "no connection",
        "NameResolutionError": "the host's name could not be resolved",
        "SSLError": "the secure connection failed",
    }.get(type(error).__name__, type(error).__name__)


def _pool(url: str, limits: HttpLimits) -> urllib3.PoolManager:
    """Return the connections for a URL, by way of the proxy that the environment names for it."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    return _connections(proxy, limits)


@lru_cache(maxsize=8)
def _connections(proxy: str | None, limits: HttpLimits) -> urllib3.PoolManager:
    keep_queries_out_of_logs()
    timeout = urllib3.Timeout(connect=limits.connect_timeout_s, read=limits.read_timeout_s)
    if proxy is None:
        return urllib3.PoolManager(num_pools=64, maxsize=limits.concurrent, timeout=timeout)
    parts = urlsplit(proxy)
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = urllib3.make_headers(proxy_basic_auth=secret) if secret else None
    return urllib3.ProxyManager(
        without_secrets(proxy), num_pools=64, maxsize=limits.concurrent, timeout=timeout, proxy_headers=headers
    )


class S3File:
    """An object behind ``s3://bucket/key``, read by ranges.

    Credentials come from the environment as the AWS tools read them; where there are none, and where
    ``CANOPUS_ARCHIVE_S3_ANONYMOUS=1`` (an archive that is not the warehouse's store), requests are not signed.
    ``CANOPUS_ARCHIVE_S3_ENDPOINT`` names another store for the archive than ``AWS_ENDPOINT_URL``;
    ``AWS_REQUEST_PAYER=requester`` is honoured.
    """

    def __init__(
        self, href: str, limits: HttpLimits, *, deadline: float | None = None, count: TransferCount | None = None
    ) -> None:
        parts = urlsplit(href)
        self.name = without_secrets(href)
        self._key = unquote(parts.path.lstrip("/"))
        self._store = _bucket(parts.netloc, limits, _s3_settings())
        self._limits, self._deadline, self._count = limits, deadline, count or TransferCount()

    def fetch(self, start: int, stop: int) -> Part:
        """Return the bytes from `start` to before `stop`, or to the end of the object.

        Raises
        ------
        SourceUnavailable, SourceRejected
        """
        return with_retries(
            lambda: self._try(start, stop),
            name=self.name,
            limits=self._limits,
            deadline=self._deadline,
            count=self._count,
        )

    def _try(self, start: int, stop: int) -> Part:
        import obstore
        from obstore import exceptions

        try:
            found = obstore.get(self._store, self._key, options={"range": (start, stop)})
            data = bytes(found.bytes())
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            raise SourceRejected(f"{self.name} does not exist", reason="missing-asset") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            raise SourceRejected(f"{self.name} may not be read: access denied", reason="denied") from error
        except (exceptions.BaseError, OSError) as error:
            raise self._generic(error, start) from error
        self._count.add(received=len(data))
        total = int(found.meta["size"])
        if len(data) != min(stop, total) - start:
            raise PassingError(f"{len(data)} bytes came in place of {min(stop, total) - start}")
        return Part(data, total)

    def _generic(self, error: Exception, start: int) -> Exception:
        """Tell an empty object from a failure that may pass: both come as the store's generic error."""
        text = str(error)
        if "status code: 416" in text or "range" in text.lower():
            return SourceRejected(f"{self.name} is empty or shorter than {start + 1} bytes", reason="unreadable")
        if "status code: 403" in text or "status code: 401" in text:
            return SourceRejected(f"{self.name} may not be read: access denied", reason="denied")
        return PassingError("the object store did not answer, or with an error")


def _s3_settings() -> tuple[tuple[str, Any], ...]:
    """Return the options of the archive's store, in a form that can be a cache's key."""
    env = os.environ
    archive = env.get("CANOPUS_ARCHIVE_S3_ENDPOINT")
    own = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or env.get("AWS_ENDPOINT")
    anonymous = env.get("CANOPUS_ARCHIVE_S3_ANONYMOUS") == "1" or not any(name in env for name in _S3_CREDENTIALS)
    options: dict[str, Any] = {"region": env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or ""}
    if anonymous:
        options |= {"skip_signature": True}
    endpoint = archive or (None if env.get("CANOPUS_ARCHIVE_S3_ANONYMOUS") == "1" else own)
    if endpoint:
        options |= {"endpoint": endpoint}
    if env.get("AWS_REQUEST_PAYER") == "requester":
        options |= {"request_payer": True}
    return tuple(sorted(options.items()))


@lru_cache(maxsize=64)
def _bucket(bucket: str, limits: HttpLimits, settings: tuple[tuple[str, Any], ...]) -> Any:
    from obstore.store import S3Store

    options = dict(settings)
    region = options["region"] or ("us-east-1" if "endpoint" in options else _bucket_region(bucket, limits))
    # Named even for AWS itself: the store would otherwise take the warehouse's endpoint from the environment.
    endpoint = str(options.get("endpoint", f"https://s3.{region}.amazonaws.com"))
    client: Any = {
        "connect_timeout": f"{limits.connect_timeout_s}s",
        "timeout": f"{limits.request_timeout_s}s",
        "allow_http": endpoint.startswith("http://"),
    }
    options |= {"region": region, "endpoint": endpoint, "virtual_hosted_style_request": False}
    return S3Store(bucket, client_options=client, retry_config={"max_retries": 0}, **options)


def _bucket_region(bucket: str, limits: HttpLimits) -> str:
    """Ask AWS where a bucket lies; it says so even to those who may not read it."""
    try:
        url = f"https://{bucket}.s3.amazonaws.com/"
        answer = _pool(url, limits).request("HEAD", url, redirect=False, retries=False)
    except HTTPError as error:
        raise SourceUnavailable(f"s3://{bucket}: its region could not be found out; set AWS_REGION") from error
    return str(answer.headers.get("x-amz-bucket-region", "us-east-1"))
