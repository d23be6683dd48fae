"""Services of the sky on loopback: a viewer of cutouts, archives of files, and recorded answers; they fail on cue."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from servers.range_server import Faults, running

SERVICE_KINDS = ("429", "500", "503", "html", "cut", "short", "slow", "empty", "reset")
PAGE = b"<!DOCTYPE html><html><body>Gateway</body></html>"


@dataclass(frozen=True)
class Reply:
    """What a service answers."""

    body: bytes
    status: int = 200
    content_type: str = "image/fits"


NOT_FOUND = Reply(b"not found", 404, "text/plain")
Service = Callable[[str, dict[str, str]], Reply]
"""From path and query (a form's fields among them) to an answer."""


@dataclass
class SkyServer:
    """A running service; `requests` and `counts` tell what was asked of it."""

    service: Service
    faults: Faults | None = None
    url: str = ""
    requests: list[tuple[str, dict[str, str], float]] = field(default_factory=list)
    """(path, query, time.monotonic()) of each."""
    counts: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    _failed: Counter[str] = field(default_factory=Counter)
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, path: str, query: dict[str, str]) -> str | None:
        """Note a request; return the fault that it meets, or None."""
        with self._lock:
            self.requests.append((path, query, time.monotonic()))
            self._under_way += 1
            self.peak = max(self.peak, self._under_way)
            key = f"{path} {sorted(query.items())}"
            kind = self.faults.kind(key, self._failed[key]) if self.faults else None
            self._failed[key] += kind is not None
            self.counts[kind or "answered"] += 1
            return kind

    def end(self) -> None:
        """Note that a request is over."""
        with self._lock:
            self._under_way -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    state: SkyServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _serve(self, form: bytes) -> None:
        parts = urlsplit(self.path)
        text = parts.query + "&" + form.decode("utf-8", errors="replace")
        query = dict(parse_qsl(text, keep_blank_values=True))
        kind = self.state.begin(parts.path, query)
        try:
            self._answer(kind, self.state.service(parts.path, query))
        finally:
            self.state.end()

    def _answer(self, kind: str | None, reply: Reply) -> None:
        if kind == "reset":
            self.close_connection = True
            self.connection.close()
            return
        if kind == "slow":
            time.sleep(self.state.faults.slow_s if self.state.faults else 0.0)
        body, status, content_type = reply.body, reply.status, reply.content_type
        if kind and kind.isdigit():
            body, status, content_type = PAGE, int(kind), "text/html"
        elif kind in ("html", "empty"):
            # Said to be an image, as a mistaken proxy says it: the bytes must tell.
            body = PAGE if kind == "html" else b""
        elif kind == "short":
            body = body[: len(body) // 2]
        self.send_response(status)
        if status == 429 and self.state.faults:
            self.send_header("Retry-After", str(self.state.faults.retry_after_s))
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)
        if kind == "cut":
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def serve_sky(service: Service, faults: Faults | None = None) -> Iterator[SkyServer]:
    """Serve on a free port of loopback until the block is left."""
    state = SkyServer(service=service, faults=faults)
    with running(_Handler, state) as state.url:
        yield state


def send_to_loopback(monkeypatch: pytest.MonkeyPatch, server: SkyServer) -> None:
    """Send what `requests` sends to any host to a server on loopback, the host's name first in the path."""
    send = requests.adapters.HTTPAdapter.send

    def redirected(self: object, request: requests.PreparedRequest, **options: object) -> requests.Response:
        parts = urlsplit(str(request.url))
        request.url = f"{server.url}/{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        return send(self, request, **{**options, "verify": False})  # type: ignore[arg-type]

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)
