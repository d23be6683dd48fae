"""Runs: found by id, by its start, or as the newest of a kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import NotFound
from storage.location import Location, resolve
from storage.manifest import MANIFEST, content_hash, find_run, list_runs, start_run

IDS = ("ingest-20240101T000000-aaaaaa", "map-20240102T000000-bbbbbb", "train-earthpt-20240101T120000-cccccc")


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    root = resolve(tmp_path)
    for name in IDS:
        (root / "runs" / name).write_bytes(MANIFEST, b"{}")
    return root


def test_runs_are_listed_by_their_start_whatever_their_kind(warehouse: Location) -> None:
    assert list_runs(warehouse) == [IDS[0], IDS[2], IDS[1]]


def test_the_latest_is_that_of_the_kind_asked_for(warehouse: Location) -> None:
    assert find_run(warehouse, "latest").id == IDS[1]
    assert find_run(warehouse, "latest", kind="ingest").id == IDS[0]
    assert find_run(warehouse, "latest", kind=("ingest", "train")).id == IDS[2]


def test_the_start_of_an_id_is_enough_where_one_run_fits(warehouse: Location) -> None:
    assert find_run(warehouse, "train").id == IDS[2]
    with pytest.raises(NotFound, match="3 runs named"):
        find_run(warehouse, "")


def test_what_there_is_is_listed_where_nothing_fits(warehouse: Location) -> None:
    with pytest.raises(NotFound, match=IDS[0]):
        find_run(warehouse, "sky")
    with pytest.raises(NotFound, match="no run named 'latest'"):
        find_run(warehouse, "latest", kind="forecast")


def test_a_run_holds_its_inputs_before_it_does_anything(tmp_path: Path) -> None:
    run = start_run(resolve(tmp_path), "ingest", {"tiles": [1, 2]})
    manifest = run.read_manifest()
    assert (manifest["run"], manifest["kind"], manifest["tiles"]) == (run.id, "ingest", [1, 2])
    assert run.read_regions().empty


def test_the_order_of_keys_does_not_change_a_hash() -> None:
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
