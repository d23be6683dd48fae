"""A STAC API on loopback over a static catalogue's items: stac-fastapi with the items in memory.

Filters and pages are worked out in Python, so it answers by the specification and not by a database's reading of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attr
import cql2
import pystac
import uvicorn
from fastapi import HTTPException
from servers.range_server import Faults
from shapely.geometry import box, shape
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions.filter import SearchFilterExtension
from stac_fastapi.extensions.pagination import OffsetPaginationExtension
from stac_fastapi.extensions.query import QueryExtension
from stac_fastapi.extensions.sort import SortExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Behaviour:
    """How the server differs from a well-behaved one.

    Parameters
    ----------
    conformance : bool
        Whether the landing page states conformance classes at all.
    counts : bool
        Whether answers carry ``numberMatched``.
    largest_page : int
        Items a page at most, whatever is asked for.
    repeats : int
        Items at the end of a page that the next one repeats.
    lost : int
        Items that are counted but never sent.
    filters : tuple of str
        Of "filter" (CQL2) and "query"; what is missing is neither stated nor understood.
    methods : tuple of str
        Of "GET" and "POST".
    circles : bool
        Whether the last page links to the first one.
    """

    conformance: bool = True
    counts: bool = True
    largest_page: int = 10_000
    repeats: int = 0
    lost: int = 0
    filters: tuple[str, ...] = ("filter", "query")
    methods: tuple[str, ...] = ("GET", "POST")
    circles: bool = False


@dataclass
class StacServer:
    """A running API: its address, its items, and the searches it was asked."""

    url: str
    items: list[dict[str, Any]]
    searches: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Faults by kind, and "answered"; counted only where there are faults."""


@attr.s
class _Backend(BaseCoreClient):
    items: list[dict[str, Any]] = attr.ib(factory=list)
    collections: dict[str, dict[str, Any]] = attr.ib(factory=dict)
    behaviour: Behaviour = attr.ib(factory=Behaviour)
    searches: list[dict[str, Any]] = attr.ib(factory=list)

    def landing_page(self, **kwargs: Any) -> Any:
        page = super().landing_page(**kwargs)
        methods = self.behaviour.methods
        page["links"] = [
            link for link in page["links"] if link["rel"] != "search" or link.get("method", "GET") in methods
        ]
        if not self.behaviour.conformance:
            page.pop("conformsTo")
            for link in page["links"]:
                link.pop("method", None)
        return page

    def post_search(self, search_request: Any, **kwargs: Any) -> Any:
        asked = search_request.model_dump(mode="json", by_alias=True, exclude_none=True)
        return self._search("POST", asked, kwargs["request"])

    def get_search(self, **kwargs: Any) -> Any:
        request = kwargs.pop("request")
        asked = {key: value for key, value in kwargs.items() if value is not None}
        for key in ("intersects", "query"):
            if isinstance(asked.get(key), str):
                asked[key] = json.loads(asked[key])
        if "filter_expr" in asked:
            asked["filter"] = asked.pop("filter_expr")
        return self._search("GET", asked, request)

    def get_item(self, item_id: str, collection_id: str, **kwargs: Any) -> Any:
        for item in self.items:
            if (item["id"], item["collection"]) == (item_id, collection_id):
                return item
        raise NotFoundError(f"Item {item_id} does not exist.")

    def all_collections(self, **kwargs: Any) -> Any:
        return {"collections": list(self.collections.values()), "links": []}

    def get_collection(self, collection_id: str, **kwargs: Any) -> Any:
        if collection_id not in self.collections:
            raise NotFoundError(f"Collection {collection_id} does not exist.")
        return self.collections[collection_id]

    def item_collection(self, collection_id: str, limit: int = 10, **kwargs: Any) -> Any:
        self.get_collection(collection_id)
        return self._search("GET", {"collections": [collection_id], "limit": limit}, kwargs["request"])

    def _search(self, method: str, asked: dict[str, Any], request: Request) -> dict[str, Any]:
        if method not in self.behaviour.methods:
            raise HTTPException(405, "Method Not Allowed")
        if any(name in asked and name not in self.behaviour.filters for name in ("filter", "query")):
            raise HTTPException(400, "Unknown parameter")
        self.searches.append({"method": method, **asked})
        found = [item for item in self.items if _answers(item, asked)]
        sent = found[: len(found) - self.behaviour.lost]
        offset = int(asked.get("offset") or 0)
        stop = offset + min(int(asked.get("limit") or 10), self.behaviour.largest_page)
        page: dict[str, Any] = {"type": "FeatureCollection", "features": sent[offset:stop], "links": []}
        if stop < len(sent) or (self.behaviour.circles and sent):
            following = max(offset + 1, stop - self.behaviour.repeats) if stop < len(sent) else 0
            page["links"] = [_next_link(method, {**asked, "offset": following}, request)]
        if self.behaviour.counts:
            page |= {"numberMatched": len(found), "numberReturned": len(page["features"])}
        return page


def _next_link(method: str, asked: dict[str, Any], request: Request) -> dict[str, Any]:
    href = str(request.url).partition("?")[0]
    if method == "POST":
        return {"rel": "next", "method": "POST", "type": "application/geo+json", "href": href, "body": asked}
    plain = {
        key.replace("_", "-"): ",".join(map(str, value))
        if isinstance(value, list | tuple)
        else json.dumps(value)
        if isinstance(value, dict)
        else value
        for key, value in asked.items()
    }
    return {"rel": "next", "method": "GET", "type": "application/geo+json", "href": f"{href}?{urlencode(plain)}"}


def _answers(item: dict[str, Any], asked: dict[str, Any]) -> bool:
    return (
        ("collections" not in asked or item["collection"] in asked["collections"])
        and ("ids" not in asked or item["id"] in asked["ids"])
        and ("bbox" not in asked or shape(item["geometry"]).intersects(box(*asked["bbox"])))
        and ("intersects" not in asked or shape(item["geometry"]).intersects(shape(asked["intersects"])))
        and ("datetime" not in asked or _in_interval(item["properties"], asked["datetime"]))
        and all(_in_query(item["properties"], name, tests) for name, tests in (asked.get("query") or {}).items())
        and ("filter" not in asked or _in_filter(item, asked["filter"]))
    )


def _in_interval(properties: dict[str, Any], interval: str) -> bool:
    first, _, last = interval.partition("/")
    begin = properties.get("start_datetime") or properties["datetime"]
    end = properties.get("end_datetime") or properties["datetime"]
    return (first in ("", "..") or _time(end) >= _time(first)) and (
        last == ".." or _time(begin) <= _time(last or first)
    )


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_query(properties: dict[str, Any], name: str, tests: dict[str, Any]) -> bool:
    value = properties.get(name)
    return value is not None and all(_COMPARE[test](value, limit) for test, limit in tests.items())


def _in_filter(item: dict[str, Any], expression: str | dict[str, Any]) -> bool:
    parsed = cql2.parse_json(json.dumps(expression)) if isinstance(expression, dict) else cql2.parse_text(expression)
    try:
        return bool(parsed.matches(item))
    except Exception:  # cql2 raises a bare Exception where a property is missing: null is not true
        return False


def read_items(catalog: Path, asset_url: Callable[[Path], str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the items and collections of a static catalogue, asset paths turned into URLs."""
    root = pystac.Catalog.from_file(str(catalog / "catalog.json" if catalog.is_dir() else catalog))
    collections = {found.id: found for found in root.get_collections()}
    items = []
    for collection in collections.values():
        for item in collection.get_items(recursive=True):
            item.make_asset_hrefs_absolute()
            for asset in item.assets.values():
                asset.href = asset_url(Path(asset.href)) if asset.href.startswith("/") else asset.href
            items.append(item.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []})
    plain = {name: found.to_dict(include_self_link=False) | {"links": []} for name, found in collections.items()}
    return sorted(items, key=lambda item: (item["properties"]["datetime"], item["id"])), plain


def make_api(backend: _Backend) -> StacApi:
    """Return the application around a backend."""
    extensions: list[Any] = [SortExtension(), OffsetPaginationExtension()]
    extensions += [SearchFilterExtension()] if "filter" in backend.behaviour.filters else []
    extensions += [QueryExtension()] if "query" in backend.behaviour.filters else []
    backend.extensions = extensions
    return StacApi(
        settings=ApiSettings(enable_response_models=False),
        client=backend,
        extensions=extensions,
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
        middlewares=[Middleware(GZipMiddleware, minimum_size=500)],
    )


class FaultyApp:
    """An application before which requests fail on cue, each for its own path and body."""

    def __init__(self, app: Any, faults: Faults, counts: Counter[str]) -> None:
        self._app, self._faults, self._counts = app, faults, counts
        self._failed: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or fail it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        message = await receive()
        while message.get("more_body"):
            message["body"] += (following := await receive())["body"]
            message["more_body"] = following["more_body"]
        key = f"{scope['method']} {scope['path']} {scope['query_string']!r} {message.get('body')!r}"
        kind = self._faults.kind(key, self._failed[key])
        self._failed[key] += kind is not None
        self._counts[kind or "answered"] += 1
        if kind == "slow":
            await asyncio.sleep(self._faults.slow_s)
        if kind in (None, "slow"):
            return await self._app(scope, _given(message, receive), send)
        return await self._fail(kind or "", send)

    async def _fail(self, kind: str, send: Any) -> None:
        status = int(kind) if kind.isdigit() else 200
        headers = [(b"content-type", b"text/html"), (b"content-length", b"999" if kind in ("cut", "reset") else b"4")]
        headers += [(b"retry-after", str(self._faults.retry_after_s).encode())] if status == 429 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"<no>"})


def _given(message: Any, receive: Any) -> Any:
    """Return a receiver that gives a message that was taken already, then what follows."""
    waiting = [message]

    async def next_message() -> Any:
        return waiting.pop() if waiting else await receive()

    return next_message


@contextmanager
def serve_stac(
    items: list[dict[str, Any]],
    collections: dict[str, Any],
    behaviour: Behaviour | None = None,
    *,
    faults: Faults | None = None,
) -> Iterator[StacServer]:
    """Serve items and collections (as `read_items` gives them) on a free port of loopback."""
    backend = _Backend(items=items, collections=collections, behaviour=behaviour or Behaviour())
    counts: Counter[str] = Counter()
    listener = socket.create_server(("127.0.0.1", 0))
    app: Any = make_api(backend).app
    app = FaultyApp(app, faults, counts) if faults else app
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield StacServer(f"http://127.0.0.1:{listener.getsockname()[1]}", items, backend.searches, counts)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


@contextmanager
def serve_catalog(
    catalog: Path,
    asset_url: Callable[[Path], str],
    behaviour: Behaviour | None = None,
    *,
    faults: Faults | None = None,
) -> Iterator[StacServer]:
    """Serve a static catalogue through an API; `asset_url` says where each asset file is served."""
    items, collections = read_items(catalog, asset_url)
    with serve_stac(items, collections, behaviour, faults=faults) as running:
        yield running
