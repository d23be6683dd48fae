"""Search a static STAC catalogue: linked JSON files in a folder or on a web server."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pystac.utils import make_absolute_href
from pystac_client.exceptions import APIError

from tasks.earth.catalog_io import CatalogIO, is_http, local_path, read_local_json
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class Document:
    """One JSON file of a catalogue, and where it lies."""

    href: str
    content: dict[str, Any]

    def linked(self, rel: str) -> list[str]:
        """Return the absolute hrefs of the links of one kind."""
        links = [link for link in self.content.get("links", []) if link.get("rel") == rel]
        return [make_absolute_href(link["href"], self.href, start_is_dir=False) for link in links]


@dataclass(frozen=True)
class BrokenLink:
    """A linked item that could not be read."""

    href: str
    why: str


class StaticCatalog:
    """Walks a catalogue's links; the network is asked by several threads, as the limits allow."""

    def __init__(self, root: Document, io: CatalogIO, *, threads: int) -> None:
        self._root, self._io, self._threads = root, io, threads
        self._root_is_remote = is_http(root.href)

    def items_of(self, collection: str) -> Iterator[Document | BrokenLink]:
        """Return every item of a collection, in the order of its links.

        Raises
        ------
        ConfigurationError
            Where there is no such collection; the message names those there are.
        """
        if self._root.content.get("type") == "FeatureCollection":
            yield from self._inline_items(collection)
            return
        hrefs = [href for node in self._walk(self._find(collection)) for href in node.linked("item")]
        with ThreadPoolExecutor(max_workers=self._threads if self._root_is_remote else 1) as pool:
            yield from pool.map(self._try_read, hrefs)

    def _inline_items(self, collection: str) -> Iterator[Document]:
        features = self._root.content.get("features", [])
        found = [feature for feature in features if feature.get("collection") == collection]
        if not found:
            raise unknown_collection(collection, sorted({str(feature.get("collection")) for feature in features}))
        yield from (Document(self._root.href, feature) for feature in found)

    def _find(self, collection: str) -> Document:
        seen: list[str] = []
        for node in self._walk(self._root, into_collections=False):
            if node.content.get("type") == "Collection":
                seen.append(str(node.content.get("id")))
                if seen[-1] == collection:
                    return node
        raise unknown_collection(collection, seen)

    def _walk(self, root: Document, *, into_collections: bool = True) -> Iterator[Document]:
        """Return a document and all below it, each once; links may lead in circles."""
        seen, waiting = {root.href}, deque([root])
        while waiting:
            node = waiting.popleft()
            yield node
            if node.content.get("type") == "Collection" and not into_collections:
                continue
            new = [href for href in node.linked("child") if href not in seen]
            seen.update(new)
            waiting.extend(self._read(href) for href in new)

    def _try_read(self, href: str) -> Document | BrokenLink:
        try:
            return self._read(href)
        except (ConfigurationError, APIError) as error:
            return BrokenLink(href, str(error))

    def _read(self, href: str) -> Document:
        if not self._root_is_remote and not is_http(href):
            return Document(href, read_local_json(local_path(href)))
        return Document(href, json.loads(self._io.read_text(href)))


def unknown_collection(collection: str, known: list[str]) -> ConfigurationError:
    """Return the error for a collection that a catalogue does not have."""
    names = ", ".join(sorted(known)[:30]) or "none"
    more = f" and {len(known) - 30} more" if len(known) > 30 else ""
    return ConfigurationError(f"collection: {collection!r} is not in the catalogue; there is {names}{more}")
