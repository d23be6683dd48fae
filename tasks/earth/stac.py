"""Search a STAC catalogue: an API through pystac-client, or static files.

Every form is asked the same question and answers with the same items in the same order; what came is held against what
the server says there is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pystac
from pystac_client import Client, ConformanceClasses, ItemSearch
from pystac_client.exceptions import APIError

from tasks.earth.catalog_io import CatalogIO, is_http, local_path, read_local_json
from tasks.earth.query import CLOUD_COVER, Moment, Query, make_query
from tasks.earth.static_catalog import BrokenLink, Document, StaticCatalog, unknown_collection
from tasks.errors import ConfigurationError, SourceRejected
from tasks.limits import HttpLimits, without_secrets

logger = logging.getLogger(__name__)

PAGE_ITEMS = 100
LONGEST_GET = 1500
"""Characters of a geometry that still go into an address; a longer one is asked for by its bounding box."""
_NOT_UNDERSTOOD = frozenset({400, 405, 415, 422, 501})


@dataclass(frozen=True)
class RejectedItem:
    """An item that came but cannot be used, and why."""

    id: str
    why: str


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    items : tuple of pystac.Item
        Sorted by time and id, with absolute hrefs.
    matched : int or None
        How many the server says there are, where it does.
    received : int
        Different items that came, before those that do not answer the query were put aside.
    duplicates : int
        Items that came more than once, over all pages.
    source : str
        The catalogue's address without its query.
    complete : bool
        False where fewer or more came than the server counted, or its paging went wrong; `message` says so.
    """

    items: tuple[pystac.Item, ...]
    source: str
    matched: int | None = None
    pages: int = 1
    received: int = 0
    duplicates: int = 0
    rejected: tuple[RejectedItem, ...] = ()
    complete: bool = True
    message: str = ""

    @property
    def newest(self) -> datetime | None:
        """Return the time of the newest item: how fresh the catalogue is."""
        return max((_time_of(item) for item in self.items), default=None)


def search(
    catalog: str | Path,
    collection: str,
    *,
    geometry: Mapping[str, Any] | None,
    start: Moment,
    end: Moment,
    max_cloud: float | None = None,
    limits: HttpLimits | None = None,
    page_size: int = PAGE_ITEMS,
) -> SearchResult:
    """Return the items of a collection that meet an area and a span of time.

    Parameters
    ----------
    catalog : str or path
        Address of a STAC API or of a static catalogue, or a catalogue's file or folder.
    geometry : dict or None
        GeoJSON geometry in longitude and latitude; None for everywhere.
    start, end : str, date or datetime
        Both included; a date stands for the whole day, UTC.
    max_cloud : float, optional
        Percent; items that do not state their cloud cover are then left out.

    Raises
    ------
    ConfigurationError
        Where the address is no STAC catalogue, has no such collection, or refuses the question.
    SourceUnavailable
        Where the server did not answer in all the tries; nothing is returned by halves.
    SourceRejected
        With reason ``denied``, where the catalogue asks for credentials.
    """
    query = make_query(collection, geometry=geometry, start=start, end=end, max_cloud=max_cloud)
    limits = limits or HttpLimits()
    io = CatalogIO(limits)
    root = _read_root(str(catalog), io)
    source = without_secrets(root.href)
    if any(link.get("rel") == "search" for link in root.content.get("links", [])):
        gathered = _search_api(root, query, io, page_size)
    else:
        gathered = _search_files(StaticCatalog(root, io, threads=limits.concurrent), query)
    result = gathered.result(query, source)
    logger.info("%s: %d items of %s in %d pages", source, len(result.items), collection, result.pages)
    return result


@dataclass
class _Gathered:
    """Items as they come in, page by page."""

    documents: dict[str, Document] = field(default_factory=dict)
    rejected: list[RejectedItem] = field(default_factory=list)
    pages: int = 0
    duplicates: int = 0
    matched: int | None = None
    message: str = ""

    def add(self, documents: Iterable[Document | BrokenLink]) -> int:
        """Take in a page; return how many of its items are new."""
        before = len(self.documents) + len(self.rejected)
        for document in documents:
            if isinstance(document, BrokenLink):
                self.rejected.append(RejectedItem(without_secrets(document.href), document.why))
                continue
            key = str(document.content.get("id"))
            self.duplicates += key in self.documents
            self.documents.setdefault(key, document)
        self.pages += 1
        return len(self.documents) + len(self.rejected) - before

    def result(self, query: Query, source: str) -> SearchResult:
        """Return the items that answer the query, and how the counts compare."""
        items = [item for document in self.documents.values() if (item := self._item(document, query)) is not None]
        message = self.message or self._count_message()
        if message:
            logger.warning("%s: %s", source, message)
        return SearchResult(
            items=tuple(sorted(items, key=lambda item: (_time_of(item), item.id))),
            source=source,
            matched=self.matched,
            pages=self.pages,
            received=len(self.documents),
            duplicates=self.duplicates,
            rejected=tuple(self.rejected),
            complete=not message,
            message=message,
        )

    def _count_message(self) -> str:
        if self.matched is None or self.matched == len(self.documents):
            return ""
        return f"{len(self.documents)} different items came, the server counts {self.matched}"

    def _item(self, document: Document, query: Query) -> pystac.Item | None:
        try:
            if not query.is_answered_by(document.content):
                return None
            return _to_item(document)
        except (pystac.STACError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"not a whole STAC item: {f'no {error}' if isinstance(error, KeyError) else error}"
            self.rejected.append(RejectedItem(str(document.content.get("id")), why))
            return None


def _to_item(document: Document) -> pystac.Item:
    if not document.content.get("assets"):
        raise ValueError("it has no assets")
    own = [link["href"] for link in document.content.get("links", []) if link.get("rel") == "self"]
    href = own[0] if own and is_http(document.href) else document.href
    item = pystac.Item.from_dict(document.content, href=href, preserve_dict=True, migrate=True)
    item.set_self_href(href)
    item.make_asset_hrefs_absolute()
    return item


def _time_of(item: pystac.Item) -> datetime:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise SourceRejected(f"{item.id} has no time")
    return moment


def _read_root(catalog: str, io: CatalogIO) -> Document:
    if is_http(catalog):
        return _read_remote_root(catalog, io)
    if "://" in catalog and not catalog.startswith("file://"):
        raise ConfigurationError(f"catalog: {without_secrets(catalog)} is neither https, http, file nor a path")
    path = local_path(catalog).expanduser().resolve()
    if path.is_dir():
        found = [path / name for name in ("catalog.json", "collection.json") if (path / name).is_file()]
        if not found:
            raise ConfigurationError(f"catalog: there is no catalog.json or collection.json in {path}")
        path = found[0]
    return _checked(Document(str(path), read_local_json(path)))


def _read_remote_root(url: str, io: CatalogIO) -> Document:
    try:
        return _checked(Document(url, json.loads(io.read_text(url))))
    except APIError as error:
        status = getattr(error, "status_code", None)
        raise ConfigurationError(
            f"catalog: {without_secrets(url)} answers with HTTP status {status}; is that a STAC catalogue's address?"
        ) from error


def _checked(root: Document) -> Document:
    content = root.content
    is_stac = isinstance(content, dict) and ("stac_version" in content or content.get("type") == "FeatureCollection")
    if not is_stac or content.get("type") == "Feature":
        raise ConfigurationError(f"catalog: {without_secrets(root.href)} is not a STAC catalogue")
    links = {link.get("rel"): link.get("href") for link in content.get("links", [])}
    if ("items" in links and "item" not in links and "search" not in links) or "next" in links:
        advice = f"; give {without_secrets(str(links['root']))}" if "root" in links else ""
        raise ConfigurationError(
            f"catalog: {without_secrets(root.href)} is one page of a STAC API, not its root{advice}"
        )
    return root


def _search_files(catalog: StaticCatalog, query: Query) -> _Gathered:
    gathered = _Gathered()
    gathered.add(catalog.items_of(query.collection))
    return gathered


def _search_api(root: Document, query: Query, io: CatalogIO, page_size: int) -> _Gathered:
    client = _client(root, io)
    refusals: list[str] = []
    for method, cloud in _ways_to_ask(client, query):
        try:
            gathered = _gather(_item_search(client, query, page_size, method=method, cloud=cloud), root.href)
        except APIError as error:
            status = getattr(error, "status_code", None)
            refusals.append(f"HTTP status {status}: {error}")
            if status == 404 or status not in _NOT_UNDERSTOOD:
                break
            logger.info("%s does not understand a %s search with %s", root.href, method, sorted(cloud))
        else:
            if not gathered.documents:
                _check_collection(_collections_href(client), query.collection, io)
            return gathered
    _check_collection(_collections_href(client), query.collection, io)
    raise ConfigurationError(f"catalog: {without_secrets(root.href)} refuses the search: {refusals[-1]}")


def _client(root: Document, io: CatalogIO) -> Client:
    """Return the API's client; a server that states no conformance classes but links to a search has one."""
    client = io.stac_object_from_dict(root.content, href=root.href)
    if not isinstance(client, Client):
        raise ConfigurationError(f"catalog: {without_secrets(root.href)} is not the root of a STAC API")
    client.set_self_href(root.href)
    client.add_conforms_to("ITEM_SEARCH")
    return client


def _ways_to_ask(client: Client, query: Query) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return methods and cloud filters to try in turn, the best that the server claims first."""
    declared = {str(link.extra_fields.get("method", "")).upper() for link in client.get_links("search")} - {""}
    methods = [method for method in ("POST", "GET") if not declared or method in declared]
    yield from ((method, cloud) for method in methods for cloud in _cloud_filters(client, query))


def _cloud_filters(client: Client, query: Query) -> Iterator[dict[str, Any]]:
    """Return the arguments that limit the cloud cover: CQL2, then the query extension, then none at all."""
    if query.max_cloud is not None:
        if client.conforms_to(ConformanceClasses.FILTER):
            yield {"filter": {"op": "<=", "args": [{"property": CLOUD_COVER}, query.max_cloud]}}
        if client.conforms_to(ConformanceClasses.QUERY):
            yield {"query": {CLOUD_COVER: {"lte": query.max_cloud}}}
    yield {}


def _item_search(client: Client, query: Query, page_size: int, *, method: str, cloud: dict[str, Any]) -> ItemSearch:
    place: dict[str, Any] = {}
    if query.geometry is not None:
        place = {"intersects": dict(query.geometry)}
        if method == "GET" and len(json.dumps(query.geometry)) > LONGEST_GET:
            place = {"bbox": list(query.bounds)}
    if method == "GET" and "filter" in cloud:
        cloud = {"filter": f'"{CLOUD_COVER}" <= {query.max_cloud:g}', "filter_lang": "cql2-text"}
    return ItemSearch(
        _search_href(client, method),
        method=method,
        client=client,
        collections=[query.collection],
        datetime=query.interval,
        limit=page_size,
        **place,
        **cloud,
    )


def _search_href(client: Client, method: str) -> str:
    links = client.get_links("search")
    declared = [link for link in links if str(link.extra_fields.get("method", method)).upper() == method]
    return str((declared or links)[0].absolute_href)


def _gather(found: ItemSearch, href: str) -> _Gathered:
    gathered = _Gathered()
    for page in found.pages_as_dicts():
        gathered.matched = _matched(page) if _matched(page) is not None else gathered.matched
        new = gathered.add(Document(href, feature) for feature in page.get("features", []))
        if new == 0:
            gathered.message = "the server's pages repeat themselves, so its paging was given up"
            break
    return gathered


def _matched(page: Mapping[str, Any]) -> int | None:
    count = page.get("numberMatched", (page.get("context") or {}).get("matched"))
    return count if isinstance(count, int) else None


def _collections_href(client: Client) -> str:
    stated = next((link.absolute_href for link in client.get_links("data")), None)
    return stated or f"{str(client.get_self_href()).rstrip('/')}/collections"


def _check_collection(collections_href: str, collection: str, io: CatalogIO) -> None:
    """Raise where the catalogue has no such collection: no items is then not the answer."""
    try:
        io.read_text(f"{collections_href.rstrip('/')}/{quote(collection, safe='')}")
    except APIError as error:
        if getattr(error, "status_code", None) not in (400, 404):
            raise ConfigurationError(
                f"catalog: {without_secrets(collections_href)} cannot say whether it has {collection!r}: {error}"
            ) from error
        raise unknown_collection(collection, _known_collections(io, collections_href)) from error


def _known_collections(io: CatalogIO, base: str) -> list[str]:
    try:
        return [str(entry.get("id")) for entry in json.loads(io.read_text(base)).get("collections", [])]
    except APIError:
        return []
