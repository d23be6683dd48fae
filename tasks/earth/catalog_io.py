"""The one way in which catalogues are read: JSON from files and over HTTP, with retries and limits."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pystac
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import Request, RequestException, Response
from requests.exceptions import ConnectionError as ConnectionFailed
from requests.exceptions import InvalidSchema, InvalidURL, SSLError, Timeout, TooManyRedirects

from tasks.errors import ConfigurationError, SourceRejected
from tasks.limits import (
    MAY_PASS,
    HttpLimits,
    TransferCount,
    keep_queries_out_of_logs,
    retry_after_s,
    text_without_secrets,
    without_secrets,
)
from tasks.ranges import PassingError, with_retries

logger = logging.getLogger(__name__)


class CatalogIO(StacApiIO):  # type: ignore[misc]
    """pystac-client's reader with Canopus's retries: dropped connections, cut bodies and 429 included.

    Raises
    ------
    SourceUnavailable
        Where the tries have run out.
    SourceRejected
        With reason ``denied`` for 401 and 403.
    pystac_client.exceptions.APIError
        For other statuses, with ``status_code``.
    """

    def __init__(self, limits: HttpLimits, count: TransferCount | None = None) -> None:
        super().__init__(max_retries=None)
        keep_queries_out_of_logs()
        self._limits = limits
        self._count = count or TransferCount()
        self._answers = 0
        self._not_json = 0

    def read_text(self, source: pystac.link.HREF, *args: Any, **kwargs: Any) -> str:
        """Return the text behind a URL or a link; never that of a local file."""
        if not isinstance(source, pystac.Link) and not is_http(str(source)):
            raise ConfigurationError(f"{without_secrets(str(source))}: a catalogue on the network names a local file")
        return str(super().read_text(source, *args, **kwargs))

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Return the JSON text that a request is answered with."""
        verb = (method or "GET").upper()
        content = {"json": parameters} if verb == "POST" else {"params": parameters or {}}
        request = Request(method=verb, url=href, headers=headers, **content)  # type: ignore[arg-type]
        return with_retries(
            lambda: self._try(request),
            name=without_secrets(href),
            limits=self._limits,
            deadline=None,
            count=self._count,
        )

    def _try(self, request: Request) -> str:
        name = without_secrets(str(request.url))
        try:
            prepared = self.session.prepare_request(request)
            settings = self.session.merge_environment_settings(str(prepared.url), {}, None, None, None)
            timeout = (self._limits.connect_timeout_s, self._limits.read_timeout_s)
            response = self.session.send(prepared, timeout=timeout, **settings)
        except (InvalidSchema, InvalidURL, TooManyRedirects) as error:
            raise ConfigurationError(f"{name} cannot be asked: {type(error).__name__}") from error
        except RequestException as error:
            raise PassingError(_in_words(error)) from error
        _check_status(response, name)
        return self._json_text(response, name)

    def _json_text(self, response: Response, name: str) -> str:
        text = response.content.decode("utf-8", errors="replace")
        self._count.add(received=len(response.content))
        try:
            json.loads(text)
        except ValueError as error:
            self._not_json += 1
            if self._answers == 0 and self._not_json >= min(3, self._limits.attempts):
                raise ConfigurationError(
                    f"catalog: {name} answers with something else than a STAC catalogue"
                ) from error
            raise PassingError("something else than JSON came") from error
        self._answers += 1
        return text


def _check_status(response: Response, name: str) -> None:
    status = response.status_code
    if status in MAY_PASS or status > 504:
        raise PassingError(f"HTTP status {status}", retry_after_s=retry_after_s(response.headers.get("Retry-After")))
    if status in (401, 403):
        raise SourceRejected(f"{name} may not be read (HTTP status {status})", reason="denied")
    if not 200 <= status < 300:
        error = APIError(text_without_secrets(response.text))
        error.status_code = status
        raise error


def _in_words(error: RequestException) -> str:
    """Return what went wrong, without requests' own text: that holds the whole URL."""
    if isinstance(error, Timeout):
        return "no answer in time"
    if isinstance(error, SSLError):
        return "the secure connection failed"
    return "no connection" if isinstance(error, ConnectionFailed) else "the connection was dropped"


def is_http(href: str) -> bool:
    """Return whether an href is of the network."""
    return urlsplit(href).scheme in ("http", "https")


def local_path(href: str) -> Path:
    """Return the path that a ``file://`` URL or a plain path names."""
    return Path(unquote(urlsplit(href).path)) if href.startswith("file:") else Path(href)


def read_local_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    ConfigurationError
        Where there is no such file, or something else in it.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"catalog: {path} does not exist") from error
    except OSError as error:
        raise ConfigurationError(f"catalog: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"catalog: {path} is not JSON") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"catalog: {path} holds no JSON object")
    return found
