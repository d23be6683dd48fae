from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storage.errors import NotFound, SchemaMismatch, StorageError
from storage.location import Location, resolve
from storage.publish import (
    Finding,
    ProductKey,
    find_product,
    locate_product,
    product_id,
    publish,
    refresh_collection,
    verify_files,
)

COLLECTION = {
    "type": "Collection",
    "stac_version": "1.1.0",
    "id": "leaves",
    "description": "Leaves",
    "license": "other",
}


def key_of(number: int) -> ProductKey:
    return ProductKey("leaves", product_id("leaves", f"2025-01-{number + 1:02}", {"n": number}))


def stage_of(number: int):
    """Return a stage that writes two files and a folder of two."""

    def stage(folder: Path) -> dict[str, Any]:
        (folder / "a.txt").write_bytes(b"a%d" % number)
        (folder / "b.txt").write_bytes(b"b%d" % number * 100)
        (folder / "c.zarr" / "0").mkdir(parents=True)
        (folder / "c.zarr" / "zarr.json").write_bytes(b"{}")
        (folder / "c.zarr" / "0" / "c").write_bytes(b"%d" % number)
        day = f"2025-01-{number + 1:02}T00:00:00Z"
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": key_of(number).item_id,
            "geometry": {"type": "Point", "coordinates": [number, 50]},
            "bbox": [number, 50, number + 0.5, 51],
            "properties": {"datetime": day},
            "assets": {
                "a": {"href": "./a.txt", "type": "text/plain"},
                "b": {"href": "./b.txt", "type": "text/plain"},
                "c": {"href": "./c.zarr", "type": "application/vnd.zarr"},
            },
        }

    return stage


def publish_leaf(warehouse: Location, number: int = 0):
    return publish(warehouse, key_of(number), stage_of(number), collection=COLLECTION)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def linked_items(warehouse: Location) -> list[str]:
    collection = json.loads((warehouse / "products" / "leaves").read_bytes("collection.json"))
    return [link["href"] for link in collection["links"] if link["rel"] == "item"]


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path / "warehouse")


def test_a_product_is_published_with_sizes_checksums_and_links(warehouse: Location):
    receipt = publish_leaf(warehouse)
    assert receipt.state == "published"
    item = json.loads(Path(receipt.item_url).read_text())
    assert item["assets"]["b"]["file:size"] == 200
    assert item["assets"]["c"]["file:size"] == 3
    # SHA-256 of b"a0" as sha256sum prints it, after the multihash prefix 12 20
    assert item["assets"]["a"]["file:checksum"] == (
        "12204e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e"
    )
    assert {link["rel"] for link in item["links"]} == {"root", "parent", "collection"}
    assert linked_items(warehouse) == [f"./{key_of(0).item_id}/{key_of(0).item_id}.json"]
    assert verify_files(receipt.item_url).ok


def test_publishing_twice_is_publishing_once(warehouse: Location):
    publish_leaf(warehouse)
    before = {p: p.stat().st_mtime_ns for p in warehouse.local_path.rglob("*") if p.is_file()}

    def stage(folder: Path) -> dict[str, Any]:
        raise AssertionError("staged again")

    receipt = publish(warehouse, key_of(0), stage, collection=COLLECTION)
    assert receipt.state == "present"
    assert before == {p: p.stat().st_mtime_ns for p in warehouse.local_path.rglob("*") if p.is_file()}
    assert find_product(warehouse, key_of(0)) == receipt
    assert find_product(warehouse, key_of(1)) is None


def test_another_version_leaves_the_first_addressable_and_the_extent_covers_both(warehouse: Location):
    first = publish_leaf(warehouse, 0)
    publish_leaf(warehouse, 4)
    assert verify_files(first.item_url).ok
    collection = json.loads((warehouse / "products" / "leaves").read_bytes("collection.json"))
    assert collection["extent"]["spatial"]["bbox"] == [[0, 50, 4.5, 51]]
    assert collection["extent"]["temporal"]["interval"] == [["2025-01-01T00:00:00Z", "2025-01-05T00:00:00Z"]]
    assert len(linked_items(warehouse)) == 2


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Killer:
    """Lets writes through Location happen until the n-th, which dies before or after it took effect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self.left, self.after, self.lock, self.dead = at, after, threading.Lock(), False
        for name in ("write_bytes", "put_file", "delete"):
            monkeypatch.setattr(Location, name, self.wrap(getattr(Location, name)))

    def wrap(self, method):
        def wrapped(*arguments):
            with self.lock:
                self.left -= 1
                dies = self.left == 0
                self.dead |= dies and not self.after
                if self.dead:
                    raise Killed
                method(*arguments)
                self.dead |= dies
                if self.dead:
                    raise Killed

        return wrapped


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_shows_nothing_or_a_whole_product_and_a_rerun_completes_it(tmp_path: Path, after: bool):
    undisturbed = resolve(tmp_path / "undisturbed")
    publish_leaf(undisturbed, 0)
    publish_leaf(undisturbed, 1)
    deaths = 0
    for at in range(1, 50):
        warehouse = resolve(tmp_path / f"killed{at}")
        publish_leaf(warehouse, 0)
        with pytest.MonkeyPatch.context() as monkeypatch:
            Killer(monkeypatch, at, after=after)
            try:
                publish_leaf(warehouse, 1)
            except Killed:
                deaths += 1
            else:
                break
        assert verify_files(key_of(0).folder(warehouse)).ok
        for href in linked_items(warehouse):
            assert verify_files(warehouse / "products" / "leaves" / href[2:]).ok
        if find_product(warehouse, key_of(1)) is not None:
            assert verify_files(key_of(1).folder(warehouse)).ok
        publish_leaf(warehouse, 1)
        assert contents(warehouse.local_path) == contents(undisturbed.local_path)
    assert deaths == 7  # four files, manifest, item, collection


def test_what_an_interrupted_publication_left_is_swept_away(warehouse: Location):
    key_of(0).folder(warehouse).write_bytes("c.zarr/1/c", b"of an older layout")
    receipt = publish_leaf(warehouse)
    assert not key_of(0).folder(warehouse).exists("c.zarr/1/c")
    assert verify_files(receipt.item_url).ok


def test_publishers_of_different_items_at_once_lose_no_link(warehouse: Location):
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda number: publish_leaf(warehouse, number), range(12)))
    assert {receipt.state for receipt in receipts} == {"published"}
    assert sorted(linked_items(warehouse)) == sorted(
        f"./{key_of(n).item_id}/{key_of(n).item_id}.json" for n in range(12)
    )


def test_a_stale_listing_is_looked_at_again(warehouse: Location, monkeypatch: pytest.MonkeyPatch):
    publish_leaf(warehouse, 0)
    write, intruded = Location.write_bytes, []

    def write_after_another(location: Location, name: str, data: bytes) -> None:
        if name == "collection.json" and not intruded:
            intruded.append(True)
            publish_leaf(warehouse, 2)  # publishes and links its item between our listing and our write
        write(location, name, data)

    monkeypatch.setattr(Location, "write_bytes", write_after_another)
    publish_leaf(warehouse, 1)
    assert len(linked_items(warehouse)) == 3


def test_a_check_that_finds_something_stops_the_publication(warehouse: Location):
    with pytest.raises(StorageError, match=r"a\.txt: is wrong"):
        publish(
            warehouse, key_of(0), stage_of(0), collection=COLLECTION, check=lambda *_: [Finding("a.txt", "is wrong")]
        )
    assert warehouse.list_names() == []


def test_an_asset_that_was_not_staged_stops_the_publication(warehouse: Location):
    def stage(folder: Path) -> dict[str, Any]:
        item = stage_of(0)(folder)
        (folder / "b.txt").unlink()
        return item

    with pytest.raises(StorageError, match="asset 'b' was not staged"):
        publish(warehouse, key_of(0), stage, collection=COLLECTION)


def damage_missing(folder: Path) -> str:
    (folder / "a.txt").unlink()
    return "a.txt: missing"


def damage_truncated(folder: Path) -> str:
    (folder / "b.txt").write_bytes(b"b0")
    return "b.txt: truncated: 2 bytes of 200"


def damage_changed(folder: Path) -> str:
    (folder / "c.zarr/0/c").write_bytes(b"9")
    return "c.zarr/0/c: changed"


def damage_added(folder: Path) -> str:
    (folder / "c.zarr/9").write_bytes(b"9")
    return "c.zarr/9: not in the manifest"


def damage_manifest(folder: Path) -> str:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"size": 200', '"size": 201'))
    return "manifest.json: size or checksum in the item differ"


def damage_manifest_syntax(folder: Path) -> str:
    (folder / "manifest.json").write_text("{")
    return "manifest.json: unreadable"


def damage_item(folder: Path) -> str:
    item = next(folder.glob("leaves-*.json"))
    item.write_text(item.read_text().replace("./a.txt", "./z.txt"))
    return "z.txt: asset 'a' of the item is not in the manifest"


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_verify_names_the_file_and_what_is_wrong(warehouse: Location, damage):
    receipt = publish_leaf(warehouse)
    expected = damage(Path(receipt.item_url).parent)
    report = verify_files(receipt.item_url)
    assert not report.ok
    assert any(str(finding).startswith(expected) for finding in report.findings), report.findings


def test_verify_takes_the_item_or_its_folder_and_says_when_there_is_none(warehouse: Location):
    receipt = publish_leaf(warehouse)
    folder, item_id = locate_product(Path(receipt.item_url).parent)
    assert (folder, item_id) == locate_product(receipt.item_url)
    with pytest.raises(NotFound, match="nothing is published"):
        verify_files(warehouse / "products" / "leaves")


def test_a_removed_item_loses_its_link_at_the_next_refresh(warehouse: Location):
    for number in range(2):
        publish_leaf(warehouse, number)
    warehouse.delete_tree(f"products/leaves/{key_of(0).item_id}")
    refresh_collection(warehouse / "products" / "leaves", COLLECTION)
    assert linked_items(warehouse) == [f"./{key_of(1).item_id}/{key_of(1).item_id}.json"]


def test_product_ids_follow_the_content_not_its_order():
    first = product_id("canopy", "2025-08-31", {"a": 1, "b": [2, 3]})
    assert first == product_id("canopy", "2025-08-31", {"b": [2, 3], "a": 1})
    assert first != product_id("canopy", "2025-08-31", {"a": 1, "b": [3, 2]})
    assert first.startswith("canopy-20250831-")
    with pytest.raises(SchemaMismatch, match="cannot name a product"):
        ProductKey("../elsewhere", first)
