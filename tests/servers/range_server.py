"""A folder over HTTP with ranges, on loopback, that fails on cue: by seed, and not for ever."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

KINDS = ("500", "502", "503", "429", "slow", "cut", "reset", "html")


@dataclass(frozen=True)
class Faults:
    """Which requests fail, how, and how often.

    A request (path and range) is struck or spared by a hash of it and the seed, so threads change nothing. A struck
    one fails `times` times, each time with a kind chosen the same way, and is then answered.
    """

    seed: int = 0
    share: float = 0.3
    times: int = 2
    kinds: tuple[str, ...] = KINDS
    retry_after_s: int = 1
    slow_s: float = 0.2

    def kind(self, key: str, earlier: int) -> str | None:
        """Return the fault for a request that failed `earlier` times already, or None."""
        if earlier >= self.times or self._number(key, "struck") >= self.share:
            return None
        return self.kinds[int(self._number(key, f"kind {earlier}") * len(self.kinds))]

    def _number(self, key: str, purpose: str) -> float:
        digest = hashlib.sha256(f"{self.seed}|{purpose}|{key}".encode()).digest()
        return int(struct.unpack("<Q", digest[:8])[0]) / 2**64


@dataclass
class RangeServer:
    """A running server; `counts` and `requests` tell what was asked of it."""

    folder: Path
    faults: Faults | None = None
    serve_ranges: bool = True
    never: set[str] = field(default_factory=set)
    """Names (relative to the folder) that answer 503 for good."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Names that answer with a status for good."""
    required_query: dict[str, str] = field(default_factory=dict)
    """Names that answer 403 unless the query is this."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Names that answer 302 with a URL."""
    delay_s: float = 0.0
    url: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str, str, float]] = field(default_factory=list)
    """(method, target, range, time.monotonic()) of each."""
    peak: int = 0
    """The most requests under way at once."""
    _failed: Counter[str] = field(default_factory=Counter)
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def url_of(self, name: str | Path) -> str:
        """Return the URL of a file of the folder, given relative to it or absolute."""
        path = Path(name)
        relative = path.relative_to(self.folder) if path.is_absolute() else path
        return f"{self.url}/{quote(relative.as_posix())}"

    def begin(self, method: str, target: str, span: str) -> str | None:
        """Note a request; return the fault that it meets, or None."""
        with self._lock:
            self.requests.append((method, target, span, time.monotonic()))
            self._under_way += 1
            self.peak = max(self.peak, self._under_way)
            key = f"{urlsplit(target).path} {span}"
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
    state: RangeServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        kind = self.state.begin(self.command, self.path, self.headers.get("Range", ""))
        try:
            time.sleep(self.state.delay_s)
            self._answer(kind)
        finally:
            self.state.end()

    def _answer(self, kind: str | None) -> None:
        name = unquote(urlsplit(self.path).path.lstrip("/"))
        status = self._fixed_status(name) or (int(kind) if kind and kind.isdigit() else 200)
        if kind == "reset":
            return self._reset()
        if name in self.state.redirects:
            return self._plain(302, b"", location=self.state.redirects[name])
        if kind == "slow":
            time.sleep(self.state.faults.slow_s if self.state.faults else 0.0)
        if status != 200:
            return self._plain(status, b"no")
        if kind == "html":
            return self._plain(200, b"<html><body>Sign in</body></html>", content_type="text/html; charset=utf-8")
        path = (self.state.folder / name).resolve()
        if not path.is_relative_to(self.state.folder.resolve()) or not path.is_file():
            return self._plain(404, b"not found")
        return self._file(path, cut=kind == "cut")

    def _fixed_status(self, name: str) -> int | None:
        if name in self.state.never:
            return 503
        if self.state.required_query.get(name, urlsplit(self.path).query) != urlsplit(self.path).query:
            return 403
        return self.state.statuses.get(name)

    def _file(self, path: Path, *, cut: bool) -> None:
        facts = path.stat()
        start, stop = self._span(facts.st_size)
        if start >= facts.st_size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{facts.st_size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        partial = "Range" in self.headers and self.state.serve_ranges
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{facts.st_size}")
        self.send_header("Content-Type", "application/json" if path.suffix == ".json" else "image/tiff")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"')
        self.send_header("Last-Modified", formatdate(facts.st_mtime, usegmt=True))
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read((stop - start) // 2 if cut else stop - start))
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _span(self, size: int) -> tuple[int, int]:
        header = self.headers.get("Range", "")
        if not header.startswith("bytes=") or not self.state.serve_ranges:
            return 0, size
        first, _, last = header[6:].partition("-")
        if not first:
            return max(0, size - int(last)), size
        return int(first), min(size, int(last) + 1 if last else size)

    def _plain(self, status: int, body: bytes, *, content_type: str = "text/plain", location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        if status == 429 and self.state.faults:
            self.send_header("Retry-After", str(self.state.faults.retry_after_s))
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _reset(self) -> None:
        """Drop the connection the hard way: with RST in place of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


class QuietServer(ThreadingHTTPServer):
    """A threaded server that does not print what its clients do to it."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def running(handler: type[BaseHTTPRequestHandler], state: object) -> Iterator[str]:
    """Serve on a free port of loopback until the block is left; give the address. The handler's `state` is the one given."""
    server = QuietServer(("127.0.0.1", 0), type("Handler", (handler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_folder(folder: Path, faults: Faults | None = None, *, serve_ranges: bool = True) -> Iterator[RangeServer]:
    """Serve a folder on a free port of loopback until the block is left."""
    state = RangeServer(folder=folder, faults=faults, serve_ranges=serve_ranges)
    with running(_Handler, state) as state.url:
        yield state
