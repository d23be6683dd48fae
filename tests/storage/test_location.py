"""One contract for the places where bytes lie: a folder and an object store keep it alike."""

from __future__ import annotations

import pickle
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr

from storage.errors import LocationError, LocationFailed, NotFound
from storage.location import Location, resolve

ODD_NAMES = ["plain.json", "with space.json", "plus+and%25.json", "a=b&c.json", "ümläut.json", "deep/er/file.bin"]


class LocationContract:
    """What every location does; a subclass gives the URL of an empty one."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def place(self, url: str) -> Location:
        return resolve(url)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_what_was_written_is_read(self, place: Location, name: str) -> None:
        assert not place.exists(name)
        place.write_bytes(name, b"first")
        place.write_bytes(name, b"second, and longer")
        assert place.exists(name)
        assert place.read_bytes(name) == b"second, and longer"
        assert place.list_names() == [name]
        place.delete(name)
        assert not place.exists(name)

    def test_an_empty_file_is_a_file(self, place: Location) -> None:
        place.write_bytes("empty", b"")
        assert place.exists("empty")
        assert place.read_bytes("empty") == b""

    def test_what_is_not_there_is_not_found(self, place: Location) -> None:
        with pytest.raises(NotFound, match="absent does not exist"):
            place.read_bytes("absent")
        assert not place.exists("absent")
        assert not place.exists("absent/deeper")
        assert place.list_names() == []
        assert place.list_names("absent") == []
        assert place.list_folders() == []
        assert place.list_folders("absent") == []
        place.delete("absent")
        place.delete_tree("absent")

    @pytest.mark.parametrize("size", [0, 1000, 12_000_000])
    def test_files_are_put_and_fetched_whole(self, place: Location, tmp_path: Path, size: int) -> None:
        data = np.random.default_rng(1).bytes(size)
        (tmp_path / "one").write_bytes(data)
        place.put_file("deep/copy", tmp_path / "one")
        assert place.read_bytes("deep/copy") == data
        place.get_file("deep/copy", tmp_path / "new folder" / "two")
        assert (tmp_path / "new folder" / "two").read_bytes() == data
        with pytest.raises(NotFound):
            place.get_file("absent", tmp_path / "three")
        assert not (tmp_path / "three").exists()

    def test_a_folder_is_no_file(self, place: Location) -> None:
        place.write_bytes("folder/file", b"x")
        assert not place.exists("folder")
        with pytest.raises(NotFound):
            place.read_bytes("folder")

    def test_names_and_folders_are_listed_sorted(self, place: Location) -> None:
        for name in ["b/2", "b/1", "a/x/deep", "top", "b c/1", "b-c/1"]:
            place.write_bytes(name, b"x")
        assert place.list_names() == ["a/x/deep", "b c/1", "b-c/1", "b/1", "b/2", "top"]
        assert place.list_names("b") == ["b/1", "b/2"]
        assert place.list_folders() == ["a", "b", "b c", "b-c"]
        assert place.list_folders("a") == ["x"]
        assert (place / "a").list_names() == ["x/deep"]

    def test_a_tree_goes_and_its_neighbours_stay(self, place: Location) -> None:
        for name in ["tree/1", "tree/deep/2", "tree2/1", "other"]:
            place.write_bytes(name, b"x")
        place.delete_tree("tree")
        assert place.list_names() == ["other", "tree2/1"]
        assert place.list_names("tree") == []
        place.write_bytes("tree/1", b"again")
        assert place.read_bytes("tree/1") == b"again"

    def test_the_whole_location_can_go_and_be_made_again(self, place: Location) -> None:
        place.write_bytes("a/b", b"x")
        place.delete_tree("")
        assert place.list_names() == []
        assert not place.exists("a/b")
        place.write_bytes("a/b", b"y")
        assert place.read_bytes("a/b") == b"y"

    def test_more_names_than_one_answer_holds(self, place: Location) -> None:
        for number in range(120):
            place.write_bytes(f"many/{number:04d}", b"")
        assert len(place.list_names("many")) == 120

    def test_locations_pickle(self, place: Location) -> None:
        place.write_bytes("x", b"1")
        assert pickle.loads(pickle.dumps(place)).read_bytes("x") == b"1"

    def test_zarr_arrays_come_back_also_through_a_pickled_store(self, place: Location) -> None:
        values = np.arange(24, dtype="uint16").reshape(4, 6)
        array = zarr.create_array((place / "z").zarr_store(), shape=(4, 6), dtype="uint16", chunks=(2, 3))
        array[:] = values
        store = pickle.loads(pickle.dumps((place / "z").zarr_store(read_only=True)))
        np.testing.assert_array_equal(zarr.open_array(store, mode="r")[:], values)
        assert place.exists("z/zarr.json")

    def test_an_icechunk_repository_keeps_its_commits(self, place: Location) -> None:
        repository = icechunk.Repository.create((place / "cube").icechunk_storage())
        session = repository.writable_session("main")
        array = zarr.create_array(session.store, shape=(4,), dtype="int32", chunks=(2,))
        array[:] = [1, 2, 3, 4]
        first = session.commit("first")
        session = repository.writable_session("main")
        zarr.open_array(session.store)[0] = 9
        session.commit("second")
        again = icechunk.Repository.open(resolve(str((place / "cube").url)).icechunk_storage())
        assert zarr.open_array(again.readonly_session("main").store, mode="r")[:].tolist() == [9, 2, 3, 4]
        old = again.readonly_session(snapshot_id=first)
        assert zarr.open_array(old.store, mode="r")[:].tolist() == [1, 2, 3, 4]
        assert icechunk.Repository.exists((place / "cube").icechunk_storage())
        assert not icechunk.Repository.exists((place / "other").icechunk_storage())

    def test_the_second_of_two_commits_from_one_state_is_refused(self, place: Location) -> None:
        repository = icechunk.Repository.create((place / "cube").icechunk_storage())
        session = repository.writable_session("main")
        zarr.create_array(session.store, shape=(4,), dtype="int32", chunks=(2,))
        session.commit("base")
        one, two = repository.writable_session("main"), repository.writable_session("main")
        zarr.open_array(one.store)[0] = 1
        zarr.open_array(two.store)[0] = 2
        one.commit("one")
        with pytest.raises(icechunk.ConflictError):
            two.commit("two")
        assert zarr.open_array(repository.readonly_session("main").store, mode="r")[0] == 1


class TestFolder(LocationContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "ware house%20")

    def test_reading_makes_no_folder(self, place: Location) -> None:
        assert not place.exists("x")
        assert place.list_names() == []
        with pytest.raises(NotFound):
            place.read_bytes("x")
        assert place.local_path is not None
        assert not place.local_path.exists()

    def test_what_is_in_the_way_is_an_error_that_names_it(self, place: Location) -> None:
        place.write_bytes("file", b"x")
        with pytest.raises(LocationFailed, match="file/below"):
            place.write_bytes("file/below", b"x")

    def test_a_tree_leaves_no_empty_folders(self, place: Location) -> None:
        place.write_bytes("tree/deep/1", b"x")
        place.delete_tree("tree")
        assert place.local_path is not None
        assert not (place.local_path / "tree").exists()


@pytest.mark.server
class TestObjectStore(LocationContract):
    @pytest.fixture
    def url(self, s3_warehouse: str) -> str:
        return s3_warehouse

    def test_a_wrong_key_is_an_error_and_not_an_empty_store(
        self, place: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.write_bytes("x", b"1")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        for action in (place.exists, place.read_bytes, place.delete, place.list_names, place.list_folders):
            with pytest.raises(LocationFailed, match=r"s3://canopus/.*permission denied"):
                action("x")
        with pytest.raises(LocationFailed, match="permission denied"):
            place.write_bytes("x", b"2")

    def test_a_store_that_is_not_there_is_an_error_that_names_the_place(
        self, place: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setattr("storage.location.RETRY", {"max_retries": 0})
        with pytest.raises(LocationFailed, match="s3://canopus/"):
            place.exists("x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "scheme 'ftp' is none of"),
        ("s3://key:secret@bucket/x", "must not hold credentials"),
        ("s3:///x", "no bucket"),
    ],
)
def test_urls_that_cannot_be_a_warehouse_are_refused(url: str, message: str) -> None:
    with pytest.raises(LocationError, match=message) as caught:
        resolve(url)
    assert "secret" not in str(caught.value)


def test_paths_and_urls_name_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "a b"
    assert {resolve(place).url for place in ("a b", str(there), there, there.as_uri(), f"{there}/")} == {there.as_uri()}
    assert str(resolve(there)) == str(there)
    assert str(resolve("s3://bucket/x/") / "y") == "s3://bucket/x/y"
    assert (resolve("s3://bucket/x") / "y").name == "y"
