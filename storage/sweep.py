"""What nothing refers to any more: old states of cubes and sky stores, and folders that a killed run left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from storage.errors import NotFound
from storage.location import Location
from storage.locks import hold
from storage.repository import BRANCH, open_repository

STAGING = "staging"


@dataclass(frozen=True)
class SweptCube:
    """Old states of one cube or sky store.

    Parameters
    ----------
    path : str
        Under the warehouse.
    states : int
        Snapshots that go: older than the limit, neither the newest nor named by a product.
    kept : tuple of str
        Products whose snapshots stay.
    bytes : int
        What was freed; 0 where nothing was deleted.
    """

    path: str
    states: int
    kept: tuple[str, ...]
    bytes: int = 0


def limit_of(days: float) -> datetime:
    """Return the moment so many days ago, UTC."""
    return datetime.now(UTC) - timedelta(days=days)


def sweep_cube(warehouse: Location, path: str, older_than: datetime, *, delete: bool) -> SweptCube:
    """Count, or delete, the states of a cube or sky store that are older than a moment and that no product was made from.

    The newest state stays, and so does every one that has a tag (`storage.repository.tag_snapshot`). On a folder the tile's
    lock is held meanwhile; on an object store a writer may be at work, whose objects are newer than any sensible limit.

    Raises
    ------
    NotFound
        Where there is no cube.
    TileBusy
        Where another process keeps the tile for over a minute.
    """
    location = warehouse / path
    repository = open_repository(location)
    tags = tuple(sorted(repository.list_tags()))
    kept = {repository.lookup_tag(tag) for tag in tags} | {repository.lookup_branch(BRANCH)}
    # the first, empty snapshot of a repository has no parent and stays
    history = [info for info in repository.ancestry(branch=BRANCH) if info.parent_id is not None]
    old = [info.id for info in history if info.written_at < older_than and info.id not in kept]
    if not delete:
        return SweptCube(path, len(old), tags)
    with hold(location, 60.0):
        repository.expire_snapshots(older_than=older_than)
        freed = repository.garbage_collect(older_than)
    return SweptCube(path, int(freed.snapshots_deleted), tags, int(freed.bytes_deleted))


def abandoned(warehouse: Location, older_than: datetime) -> Iterator[str]:
    """Yield staging folders and products without an item in which nothing was written since a moment."""
    for product in (warehouse / STAGING).list_folders():
        yield from _if_old(warehouse, f"{STAGING}/{product}", older_than)
    for collection in (warehouse / "products").list_folders():
        for product in (warehouse / "products" / collection).list_folders():
            path = f"products/{collection}/{product}"
            if not (warehouse / path).exists(f"{product}.json"):
                yield from _if_old(warehouse, path, older_than)


def cubes_of(warehouse: Location) -> Iterator[str]:
    """Yield the path of every cube, sorted."""
    for grid in (warehouse / "earth").list_folders():
        for tile in (warehouse / "earth" / grid).list_folders():
            yield f"earth/{grid}/{tile}"


def stores_of(warehouse: Location) -> Iterator[str]:
    """Yield the path of every Icechunk repository: the cubes, then the stores of the sky."""
    yield from cubes_of(warehouse)
    for survey in (warehouse / "sky").list_folders():
        yield f"sky/{survey}"


def _if_old(warehouse: Location, path: str, older_than: datetime) -> Iterator[str]:
    try:
        changed = (warehouse / path).changed()
    except NotFound:
        return
    if changed is None or changed < older_than:
        yield path
