"""Make and open an Icechunk repository, whatever another process does there or a killed one left."""

from __future__ import annotations

import json
import shutil
import time
from functools import cache
from typing import Any

import icechunk

from storage.errors import NotFound
from storage.location import Location

BRANCH = "main"
_MAKE_ATTEMPTS = 6
_FIRST_PAUSE_S = 0.05
_BRANCH_FILE = "refs/branch.main/ref.json"
_FIRST_SNAPSHOT = "1CECHNKREP0F1RSTCMT0"
"""Id of the empty snapshot that every repository of this format starts with."""


def open_repository(location: Location) -> icechunk.Repository:
    """Return a repository that stands.

    Raises
    ------
    NotFound
        Where there is none.
    """
    quiet_icechunk()
    storage = location.icechunk_storage()
    if not icechunk.Repository.exists(storage):
        raise NotFound(f"{location}: there is no cube here")
    return icechunk.Repository.open(storage)


def read_session(location: Location, snapshot: str | None, *, what: str) -> icechunk.Session:
    """Return a session that reads the newest state of a repository, or an older one.

    Raises
    ------
    NotFound
        Where there is no repository, or no such snapshot; the message says `what` was looked for.
    """
    quiet_icechunk()
    try:
        if location.local_path is not None and not location.local_path.is_dir():
            raise NotFound(f"{location}: there is no {what} here")
        repository = icechunk.Repository.open(location.icechunk_storage())
        if snapshot is None:
            return repository.readonly_session(BRANCH)
        repository.lookup_snapshot(snapshot)
        return repository.readonly_session(snapshot_id=snapshot)
    except icechunk.IcechunkError as error:
        which = f"no {what}" if snapshot is None else f"no {what} with snapshot {snapshot}"
        raise NotFound(f"{location}: {which} here ({str(error).strip().splitlines()[-1].strip()})") from error


def has_snapshot(location: Location, snapshot: str) -> bool:
    """Return whether a state is one of a repository's."""
    try:
        open_repository(location).lookup_snapshot(snapshot)
    except (NotFound, icechunk.IcechunkError):
        return False
    return True


def open_or_make_repository(location: Location, *, chunks_per_manifest: int | None = None) -> icechunk.Repository:
    """Return a repository, made where there is none.

    `chunks_per_manifest` is how many chunks along the first axis one list of chunks holds, in a repository made now: a
    commit writes anew only the lists that it adds to. By default there is one list per array.

    Making writes the first snapshot, then the branch that points to it. On an object store two writers can come at the
    same moment: the one that loses waits for the other's branch. A writer killed between the two leaves a snapshot
    without a branch, which Icechunk takes for a repository neither to open nor to make: the branch is added.
    """
    quiet_icechunk()
    storage = location.icechunk_storage()
    config = _configuration(chunks_per_manifest)
    attempts = 2 if location.local_path is not None else _MAKE_ATTEMPTS
    for attempt in range(attempts):
        try:
            return icechunk.Repository.open_or_create(storage, config=config)
        except icechunk.IcechunkError as error:
            failure = error
        time.sleep(_FIRST_PAUSE_S * 2**attempt)
    if location.local_path is not None and _holds_nothing(location):
        # under the tile's lock: clear what a killed writer left, half-written files among it
        shutil.rmtree(location.local_path)
        return icechunk.Repository.create(storage, config=config)
    if location.list_names("snapshots") != [f"snapshots/{_FIRST_SNAPSHOT}"] or location.list_names("refs"):
        raise failure
    # only where there is no branch yet: another writer's commits must not be lost
    location.write_new(_BRANCH_FILE, json.dumps({"snapshot": _FIRST_SNAPSHOT}).replace(" ", "").encode())
    return icechunk.Repository.open(storage)


def tag_snapshot(location: Location, snapshot: str, name: str) -> None:
    """Name a snapshot that a product was made from, so that it is kept; naming it twice is no error."""
    repository = open_repository(location)
    if name not in repository.list_tags():
        repository.create_tag(name, snapshot)


def _configuration(chunks_per_manifest: int | None) -> icechunk.RepositoryConfig:
    config = icechunk.RepositoryConfig.default()
    if chunks_per_manifest is not None:
        axis: dict[Any, int] = {icechunk.ManifestSplitDimCondition.Axis(0): chunks_per_manifest}
        splitting = icechunk.ManifestSplittingConfig.from_dict({icechunk.ManifestSplitCondition.AnyArray(): axis})
        config.manifest = icechunk.ManifestConfig(splitting=splitting)
    return config


def _holds_nothing(location: Location) -> bool:
    """Return whether nothing was ever committed: no branch, and no data that a lost branch may have pointed to."""
    data = [*location.list_names("chunks"), *location.list_names("manifests")]
    return not data and not location.exists(_BRANCH_FILE)


@cache
def quiet_icechunk() -> None:
    """Keep Icechunk's warnings to itself, once a process.

    It warns on every folder that concurrent commits are unsafe there: the tile's lock sees to that.
    """
    icechunk.set_logs_filter("error")
