"""The one way out: stage, check, describe, move into place, receipt.

A product is a folder ``products/<collection>/<item id>/`` of assets, a ``manifest.json`` with size and SHA-256 of each
file, and the STAC item ``<item id>.json``, written last. Whoever finds an item finds all of it: a publisher killed at
any instant leaves a folder without an item, which the next run of the same product fills over. The id comes from what
the product is made of, so the same input is published once, and another version gets another folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from storage.errors import NotFound, SchemaMismatch, StorageError
from storage.location import Location, resolve

MANIFEST = "manifest.json"
COLLECTION = "collection.json"
FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
GEOJSON_TYPE = "application/geo+json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_READERS = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProductKey:
    """Where a product lies below the warehouse.

    Parameters
    ----------
    collection : str
        Name of the STAC collection and of its folder.
    item_id : str
        Name of the item and of its folder; make one with `product_id`.

    Raises
    ------
    SchemaMismatch
        Where a name is not of letters, digits, dots, dashes and underscores.
    """

    collection: str
    item_id: str

    def __post_init__(self) -> None:
        """Check the names."""
        for name in (self.collection, self.item_id):
            if not _NAME.fullmatch(name):
                raise SchemaMismatch(f"{name!r} cannot name a product: use letters, digits, '.', '-' and '_'")

    def collection_folder(self, warehouse: Location) -> Location:
        """Return the folder of the collection."""
        return warehouse / "products" / self.collection

    def folder(self, warehouse: Location) -> Location:
        """Return the folder of the product."""
        return self.collection_folder(warehouse) / self.item_id

    @property
    def item_name(self) -> str:
        """Return the name of the STAC item in the folder of the product."""
        return f"{self.item_id}.json"


@dataclass(frozen=True)
class StoredFile:
    """One row of a manifest: `name` relative to the item, `size` in bytes, `sha256` in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """Proof that a product is there.

    Parameters
    ----------
    state : {"published", "present"}
        Whether this call published it or found it.
    key : ProductKey
        Collection and item id.
    item_url : str
        Path or URL of the STAC item.
    assets : mapping of str to str
        Path or URL per asset.
    size : int
        Bytes of all files in the manifest.
    item : dict
        The STAC item as stored.
    """

    state: Literal["published", "present"]
    key: ProductKey
    item_url: str
    assets: Mapping[str, str]
    size: int
    item: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file of a product."""

    file: str
    problem: str

    def __str__(self) -> str:
        """Return ``file: problem``."""
        return f"{self.file}: {self.problem}"


@dataclass(frozen=True)
class VerifyReport:
    """Outcome of checking a product against its item and manifest.

    Parameters
    ----------
    item_url : str
        What was checked.
    files, size : int
        Number of files looked at and their bytes.
    findings : tuple of Finding
        Everything that is wrong; empty where the product is whole.
    """

    item_url: str
    files: int
    size: int
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings


Stage = Callable[[Path], dict[str, Any]]
"""Writes all assets into an empty local folder and returns the STAC item that describes them.

Each asset's `href` is relative to the item (``./class.tif``; a folder for Zarr). Links to the collection, sizes and
checksums are added.
"""

Check = Callable[[Path, Mapping[str, Any]], list[Finding]]
"""Looks at a local folder of assets and the item's dict, and names what is wrong."""


def product_id(collection: str, date: str, content: Mapping[str, Any]) -> str:
    """Return ``<collection>-<date>-<12 hexadecimal digits>``, the digits from what the product is made of.

    Parameters
    ----------
    collection : str
        Name of the collection.
    date : str
        ISO date that tells versions apart for people, e.g. ``"2025-08-31"``.
    content : mapping
        Everything that decides the product's bytes, in JSON types: cube snapshots, config hash, weights, area.

    Examples
    --------
    >>> product_id("canopy", "2025-08-31", {"snapshots": {"33N": "A"}})
    'canopy-20250831-863d006ecf12'
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{collection}-{date.replace('-', '')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def find_product(warehouse: Location, key: ProductKey) -> Receipt | None:
    """Return the receipt of a product that is there, or None."""
    folder = key.folder(warehouse)
    try:
        item = json.loads(folder.read_bytes(key.item_name))
    except NotFound:
        return None
    return _receipt("present", warehouse, key, item)


def list_items(warehouse: Location, collection: str) -> list[dict[str, Any]]:
    """Return the STAC items of a collection, by id; none where there is no such collection."""
    folder = warehouse / "products" / collection
    return list(_read_items(folder, _item_names(folder)).values())


def publish(
    warehouse: Location,
    key: ProductKey,
    stage: Stage,
    *,
    collection: Mapping[str, Any],
    check: Check | None = None,
) -> Receipt:
    """Publish a product, or find that it is there.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    key : ProductKey
        Collection and deterministic id.
    stage : callable
        Called with an empty local folder: writes the assets and returns the item. Same key, same bytes.
    collection : mapping
        STAC collection without extent and links to items: those follow from the items that are there.
    check : callable, optional
        Called with the staged folder and the finished item; what it finds stops the publication.

    Returns
    -------
    Receipt
        ``state`` is ``"present"`` where the item was there before; nothing is staged then.

    Raises
    ------
    StorageError
        Where the staged product is not whole or `check` found something; nothing is published then.
    """
    found = find_product(warehouse, key)
    if found is None:
        with tempfile.TemporaryDirectory(prefix="canopus-product-") as scratch:
            item = _stage_and_move(warehouse, key, stage=stage, check=check, folder=Path(scratch))
        found = _receipt("published", warehouse, key, item)
        _log.info("published %s: %d bytes", found.item_url, found.size)
    # also after "present": the publisher may have died between the item and the link to it
    refresh_collection(key.collection_folder(warehouse), collection)
    return found


def refresh_collection(folder: Location, template: Mapping[str, Any]) -> None:
    """Write ``collection.json`` from the items that are there.

    Publishers of different items may do so at once. Each lists the items again after it wrote: whoever writes last has
    either seen all items or looks once more, so no link is lost.

    Parameters
    ----------
    folder : Location
        Folder of the collection.
    template : mapping
        The collection without extent and links.
    """
    while True:
        names = _item_names(folder)
        text = _to_json(_describe_collection(template, _read_items(folder, names)))
        if _read_or_none(folder, COLLECTION) != text:
            folder.write_bytes(COLLECTION, text)
        if _item_names(folder) == names:
            return


def locate_product(where: str | Path | Location) -> tuple[Location, str]:
    """Return the folder and the item id that a path or URL of an item or of its folder names.

    Raises
    ------
    NotFound
        Where there is no item.
    """
    location = where if isinstance(where, Location) else resolve(where)
    if location.name.endswith(".json"):
        folder, item_id = Location(location.url.rsplit("/", 1)[0]), location.name.removesuffix(".json")
    else:
        folder, item_id = location, location.name
    if not folder.exists(f"{item_id}.json"):
        raise NotFound(f"{folder}: no {item_id}.json there, so nothing is published; give the item or its folder")
    return folder, item_id


def verify_files(where: str | Path | Location, *, check: Check | None = None) -> VerifyReport:
    """Check each file of a published product against manifest and item.

    Parameters
    ----------
    where : str, Path or Location
        Path or URL of the STAC item or of its folder.
    check : callable, optional
        Looks into the files, and is called even where some are missing or changed.

    Returns
    -------
    VerifyReport
        Missing, truncated, changed and superfluous files by name.

    Raises
    ------
    NotFound
        Where there is no item.
    """
    folder, item_id = locate_product(where)
    item_url = str(folder / f"{item_id}.json")
    try:
        item = json.loads(folder.read_bytes(f"{item_id}.json"))
        manifest = json.loads(folder.read_bytes(MANIFEST))
        listed = [StoredFile(**row) for row in manifest["files"]]
    except (NotFound, ValueError, KeyError, TypeError) as error:
        return VerifyReport(item_url, 0, 0, (Finding(MANIFEST, f"unreadable item or manifest: {error}"),))
    present = set(folder.list_names()) - {f"{item_id}.json", MANIFEST}
    findings = [Finding(name, "not in the manifest") for name in sorted(present - {row.name for row in listed})]
    findings += _check_description(folder, item, listed)
    with local_copy(folder, sorted(present)) as path:
        findings += [finding for row in listed for finding in _check_file(path, row)]
        findings += check(path, item) if check else []
    return VerifyReport(item_url, len(listed), sum(row.size for row in listed), tuple(findings))


@contextmanager
def local_copy(folder: Location, names: list[str]) -> Iterator[Path]:
    """Give a local folder that holds `names`: the folder itself, or a copy that goes away afterwards."""
    if folder.local_path is not None:
        yield folder.local_path
        return
    with tempfile.TemporaryDirectory(prefix="canopus-verify-") as scratch:
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(lambda name: folder.get_file(name, Path(scratch) / name), names))
        yield Path(scratch)


def _stage_and_move(
    warehouse: Location, key: ProductKey, *, stage: Stage, check: Check | None, folder: Path
) -> dict[str, Any]:
    """Build a product in a local folder, move it into place, the item last, and return the item."""
    draft = stage(folder)
    files = _list_files(folder)
    manifest = _to_json(
        {"collection": key.collection, "item": key.item_id, "files": [vars(row) for row in files]},
    )
    item = _describe_item(key, draft, files, manifest)
    findings = _check_staged(key, item, files) + (check(folder, item) if check else [])
    if findings:
        raise StorageError(f"{key.item_id} is not fit to publish: {'; '.join(map(str, findings))}")
    target = key.folder(warehouse)
    _move(target, folder, files, item_name=key.item_name)
    target.write_bytes(MANIFEST, manifest)
    target.write_bytes(key.item_name, _to_json(item))
    return item


def _move(target: Location, folder: Path, files: list[StoredFile], *, item_name: str) -> None:
    """Copy staged files to where they belong, and remove what an interrupted publication left beside them."""
    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(lambda row: target.put_file(row.name, folder / row.name), files))
    for name in set(target.list_names()) - {row.name for row in files} - {MANIFEST, item_name}:
        target.delete(name)


def _list_files(folder: Path) -> list[StoredFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path)) for path in paths]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def multihash(sha256: str) -> str:
    """Return a SHA-256 as the STAC file extension writes it: code 0x12, length 0x20, digest."""
    return f"1220{sha256}"


def _describe_item(
    key: ProductKey, draft: Mapping[str, Any], files: list[StoredFile], manifest: bytes
) -> dict[str, Any]:
    """Return the item with links, sizes and checksums."""
    assets = {name: dict(asset) | _file_facts(asset["href"], files) for name, asset in draft["assets"].items()}
    assets["manifest"] = {
        "href": f"./{MANIFEST}",
        "type": "application/json",
        "title": "Size and SHA-256 of each file",
        "roles": ["metadata"],
        "file:size": len(manifest),
        "file:checksum": multihash(hashlib.sha256(manifest).hexdigest()),
    }
    links = [
        {"rel": rel, "href": f"../{COLLECTION}", "type": "application/json"} for rel in ("root", "parent", "collection")
    ]
    return dict(draft) | {
        "stac_extensions": sorted({*draft.get("stac_extensions", ()), FILE_EXTENSION}),
        "collection": key.collection,
        "links": links + draft.get("links", []),
        "assets": assets,
    }


def _file_facts(href: str, files: list[StoredFile]) -> dict[str, Any]:
    """Return size and checksum of an asset; for a folder its whole size, its files are in the manifest."""
    name = href.removeprefix("./")
    for row in files:
        if row.name == name:
            return {"file:size": row.size, "file:checksum": multihash(row.sha256)}
    return {"file:size": sum(row.size for row in files if row.name.startswith(f"{name}/"))}


def _check_staged(key: ProductKey, item: Mapping[str, Any], files: list[StoredFile]) -> list[Finding]:
    findings = [Finding(row.name, "is empty") for row in files if row.size == 0]
    if item["id"] != key.item_id:
        findings.append(Finding(key.item_name, f"describes {item['id']!r}"))
    if any(row.name in (MANIFEST, key.item_name) for row in files):
        findings.append(Finding(MANIFEST, "names of manifest and item are taken by assets"))
    return findings + [
        Finding(asset["href"], f"asset {name!r} was not staged")
        for name, asset in item["assets"].items()
        if not asset["file:size"]
    ]


def _check_description(folder: Location, item: Mapping[str, Any], listed: list[StoredFile]) -> list[Finding]:
    """Compare what the item says of its assets with the manifest."""
    rows = {row.name: row for row in listed}
    manifest = folder.read_bytes(MANIFEST)
    rows[MANIFEST] = StoredFile(MANIFEST, len(manifest), hashlib.sha256(manifest).hexdigest())
    findings = []
    for name, asset in item.get("assets", {}).items():
        file = str(asset["href"]).removeprefix("./")
        row = rows.get(file)
        if row is None:
            if not any(other.startswith(f"{file}/") for other in rows):
                findings.append(Finding(file, f"asset {name!r} of the item is not in the manifest"))
        elif (asset.get("file:size"), asset.get("file:checksum")) != (row.size, multihash(row.sha256)):
            findings.append(Finding(file, "size or checksum in the item differ from the manifest"))
    return findings


def _check_file(folder: Path, row: StoredFile) -> list[Finding]:
    path = folder / row.name
    if not path.is_file():
        return [Finding(row.name, "missing")]
    size = path.stat().st_size
    if size != row.size:
        how = "truncated" if size < row.size else "longer than published"
        return [Finding(row.name, f"{how}: {size} bytes of {row.size}")]
    if sha256_of(path) != row.sha256:
        return [Finding(row.name, "changed: its SHA-256 is not the published one")]
    return []


def _item_names(folder: Location) -> list[str]:
    """Return ``<id>/<id>.json`` of every item there, sorted."""
    names = (name.split("/") for name in folder.list_names())
    return ["/".join(parts) for parts in names if len(parts) == 2 and parts[1] == f"{parts[0]}.json"]


def _read_items(folder: Location, names: list[str]) -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(_READERS) as pool:
        return {
            name: json.loads(text)
            for name, text in zip(names, pool.map(lambda name: _read_or_none(folder, name), names), strict=True)
            if text is not None  # removed meanwhile
        }


def _read_or_none(folder: Location, name: str) -> bytes | None:
    try:
        return folder.read_bytes(name)
    except NotFound:
        return None


def _describe_collection(template: Mapping[str, Any], items: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the collection with the extent of its items and links to them."""
    edges = list(zip(*(item["bbox"] for item in items.values()), strict=True))
    box = [min(edges[0]), min(edges[1]), max(edges[2]), max(edges[3])]
    starts = [_time(item, "start_datetime") for item in items.values()]
    ends = [_time(item, "end_datetime") for item in items.values()]
    links: list[dict[str, str]] = [{"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"}]
    links += [
        {"rel": "item", "href": f"./{name}", "type": GEOJSON_TYPE, "title": _title(item)}
        for name, item in items.items()
    ]
    extent = {"spatial": {"bbox": [box]}, "temporal": {"interval": [[min(starts), max(ends)]]}}
    return {**template, "extent": extent, "links": links}


def _time(item: Mapping[str, Any], name: str) -> str:
    return str(item["properties"].get(name) or item["properties"]["datetime"])


def _title(item: Mapping[str, Any]) -> str:
    return str(item["properties"].get("title", item["id"]))


def _receipt(
    state: Literal["published", "present"], warehouse: Location, key: ProductKey, item: dict[str, Any]
) -> Receipt:
    folder = key.folder(warehouse)
    assets = {name: str(folder / str(asset["href"]).removeprefix("./")) for name, asset in item["assets"].items()}
    size = sum(int(asset.get("file:size", 0)) for asset in item["assets"].values())
    return Receipt(state, key, str(folder / key.item_name), assets, size, item)


def _to_json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
