"""Recorded answers of real STAC servers, given again over HTTP on loopback."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from servers.range_server import running

PAGE_KEYS = ("token", "page", "next")


@dataclass(frozen=True)
class Recorded:
    """One answer: to what it was given, and whether its body went over the wire as gzip."""

    method: str
    path: str
    body: dict[str, Any]
    status: int
    text: str
    content_type: str
    is_gzip: bool

    def fits(self, method: str, path: str, body: dict[str, Any]) -> bool:
        """Return whether a request asks for this page, with nothing that both sides name told differently.

        What only the request names (a span of time, say) narrows the search; the recorded answer is then wider.
        """
        both = (set(self.body) & set(body)) - {"limit"}
        return (
            (method, path.rstrip("/")) == (self.method, self.path.rstrip("/"))
            and all(self.body[key] == body[key] for key in both)
            and all(self.body.get(key) == body.get(key) for key in PAGE_KEYS)
        )


@dataclass
class Replay:
    """A running replay: the address that stands for each recorded host, and what was asked."""

    url: str = ""
    hosts: set[str] = field(default_factory=set)
    answers: list[Recorded] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    unanswered: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    gzipped: int = 0

    def local(self, text: str) -> str:
        """Return a text with the recorded hosts' addresses turned into this server's."""
        for host in self.hosts:
            text = text.replace(f"https://{host}", self.url)
        return text


def read_cassette(path: Path) -> list[tuple[str, Recorded]]:
    """Return the host and answer of each interaction of a cassette."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [_recorded(entry) for entry in yaml.load(path.read_text(), loader)["interactions"]]


def _recorded(entry: dict[str, Any]) -> tuple[str, Recorded]:
    request, response = entry["request"], entry["response"]
    headers = {name.lower(): values[0] for name, values in response["headers"].items()}
    body = response["body"]["string"]
    data = body if isinstance(body, bytes) else body.encode()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    parts = urlsplit(request["uri"])
    return parts.netloc, Recorded(
        method=request["method"],
        path=parts.path,
        body=json.loads(request["body"]) if request["body"] else {},
        status=response["status"]["code"],
        text=text,
        content_type=headers.get("content-type", "application/json"),
        is_gzip=headers.get("content-encoding") == "gzip",
    )


def _cut_short(answer: Recorded, recorded: list[Recorded]) -> Recorded:
    """Return an answer without the links to pages that were not recorded."""
    content = json.loads(answer.text)
    if "features" not in content:
        return answer
    content["links"] = [link for link in content.get("links", []) if _is_followed(link, recorded)]
    return replace(answer, text=json.dumps(content))


def _is_followed(link: dict[str, Any], recorded: list[Recorded]) -> bool:
    asked = (link.get("method", "GET"), urlsplit(link["href"]).path, link.get("body") or {})
    return link["rel"] != "next" or any(answer.fits(*asked) for answer in recorded)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    state: Replay

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        asked = (self.command, urlsplit(self.path).path, body)
        self.state.requests.append(asked)
        found = next((answer for answer in self.state.answers if answer.fits(*asked)), None)
        if found is None:
            self.state.unanswered.append(asked)
            return self._send(
                404, b'{"code": "NotFound", "description": "not recorded"}', "application/json", zipped=False
            )
        zipped = found.is_gzip and "gzip" in self.headers.get("Accept-Encoding", "")
        self.state.gzipped += zipped
        return self._send(found.status, self.state.local(found.text).encode(), found.content_type, zipped=zipped)

    def _send(self, status: int, data: bytes, content_type: str, *, zipped: bool) -> None:
        data = gzip.compress(data) if zipped else data
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def replay(*cassettes: Path) -> Iterator[Replay]:
    """Serve the answers of cassettes on a free port of loopback."""
    state = Replay()
    for host, answer in (entry for path in cassettes for entry in read_cassette(path)):
        state.hosts.add(host)
        state.answers.append(answer)
    state.answers = [_cut_short(answer, state.answers) for answer in state.answers]
    with running(_Handler, state) as state.url:
        yield state
