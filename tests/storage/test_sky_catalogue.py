"""The catalogue of a sky store: that of its records, whichever state the file beside the store is of."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sky_cases import random_cutout

from storage import sky_catalogue
from storage.cutouts import Cutout
from storage.location import Location, resolve
from storage.sky import SkyReader, append_cutouts
from storage.sky_catalogue import CATALOGUE


@pytest.fixture
def store(tmp_path: Path) -> Location:
    return resolve(tmp_path) / "sky/legacy"


def drawn(location: Location, cutouts: list[Cutout]) -> SkyReader:
    append_cutouts(location, cutouts, batch="first")
    return SkyReader(location)


def records_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the records that are read from now on to make a catalogue."""
    seen: list[int] = []
    to_row = sky_catalogue._to_row
    monkeypatch.setattr(sky_catalogue, "_to_row", lambda record: seen.append(record["record"]) or to_row(record))
    return seen


def test_opening_and_appending_read_the_catalogue_and_no_record(
    store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_cutouts(store, [random_cutout(str(number)) for number in range(5)], batch="a")
    seen = records_read(monkeypatch)
    reader = SkyReader(store)
    assert "3" in reader
    assert seen == []
    append_cutouts(store, [random_cutout("9")], batch="b")
    assert seen == [5], "what is added, and no more"


def test_another_state_than_the_catalogues_reads_only_the_records_that_it_lacks(
    store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = append_cutouts(store, [random_cutout(str(number)) for number in range(5)], batch="a")
    stale = store.read_bytes(CATALOGUE)
    append_cutouts(store, [random_cutout("2", seed=9), random_cutout("6")], batch="b")
    seen = records_read(monkeypatch)
    assert SkyReader(store, first).ids == ("0", "1", "2", "3", "4")
    assert seen == [2], "the row that was replaced since"
    store.write_bytes(CATALOGUE, stale)
    assert SkyReader(store).ids == ("0", "1", "3", "4", "2", "6")
    assert seen == [2, 5, 6], "what was added since"


def test_the_catalogue_of_every_state_is_that_of_its_records_alone(store: Location) -> None:
    rng = np.random.default_rng(3)
    names = ["7", "-3", "12", "0", "9", "x"]
    snapshots, files = [], []
    for batch in range(10):
        chosen = rng.choice(names[: 3 + batch // 3], size=3)
        cutouts = [random_cutout(str(name), seed=10 * batch + index) for index, name in enumerate(chosen)]
        snapshots.append(append_cutouts(store, cutouts, batch=str(batch)))
        files.append(store.read_bytes(CATALOGUE))
    for snapshot, file in zip(snapshots, files, strict=True):
        expected = pd.read_parquet(io.BytesIO(file))
        for other in (files[0], files[4], files[-1], None):
            store.delete(CATALOGUE)
            if other is not None:
                store.write_bytes(CATALOGUE, other)
            pd.testing.assert_frame_equal(SkyReader(store, snapshot).catalogue, expected)


def test_a_catalogue_of_another_store_is_not_believed(store: Location, tmp_path: Path) -> None:
    other = resolve(tmp_path) / "sky/other"
    append_cutouts(other, [random_cutout("of another")], batch="a")
    append_cutouts(store, [random_cutout("1")], batch="a")
    store.write_bytes(CATALOGUE, other.read_bytes(CATALOGUE))
    assert SkyReader(store).ids == ("1",)


def test_rows_of_some_objects_are_found_whatever_kind_their_ids_are(store: Location) -> None:
    large = str(2**62 + 1)
    reader = drawn(store, [random_cutout(large), random_cutout("5")])
    assert reader.rows_of([large, "05", "NGC 7"])["object_id"].tolist() == [large]
    append_cutouts(store, [random_cutout("05")], batch="b")
    assert SkyReader(store).rows_of([large, "05", "NGC 7"])["object_id"].tolist() == [large, "05"]


def test_ids_are_int64_in_the_catalogue_only_where_all_are_integers(store: Location) -> None:
    large = str(2**62 + 1)
    reader = drawn(store, [random_cutout(large)])
    assert reader.catalogue["object_id"].dtype == np.int64
    assert reader.catalogue["object_id"][0] == 2**62 + 1
    assert reader.ids == (large,)
    append_cutouts(store, [random_cutout("007"), random_cutout("NGC 7")], batch="b")
    assert SkyReader(store).catalogue["object_id"].tolist() == [large, "007", "NGC 7"]


def test_a_lost_stale_or_damaged_catalogue_is_made_anew(store: Location) -> None:
    append_cutouts(store, [random_cutout("1")], batch="a")
    stale = store.read_bytes(CATALOGUE)
    append_cutouts(store, [random_cutout("2")], batch="b")
    whole = store.read_bytes(CATALOGUE)
    for state in (None, stale, whole[:100]):
        store.delete(CATALOGUE)
        if state is not None:
            store.write_bytes(CATALOGUE, state)
        assert SkyReader(store).ids == ("1", "2")
        assert store.read_bytes(CATALOGUE) == whole
    store.write_bytes(CATALOGUE, stale)
    append_cutouts(store, [random_cutout("1"), random_cutout("3")], batch="c")
    assert SkyReader(store).ids == ("1", "2", "3")
