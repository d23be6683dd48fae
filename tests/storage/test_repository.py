"""A repository that was made by halves is finished, and never made twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine

from storage.cube import create_cube, open_cube, read_state, write_cube
from storage.errors import NotFound
from storage.location import Location, resolve
from storage.repository import open_or_make_repository, open_repository
from storage.schema import CubeSchema

GRID = GeoBox((256, 256), Affine(10, 0, 600_000, 0, -10, 5_700_000), "EPSG:32630")


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.server)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    root = str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3_warehouse")
    return resolve(root) / "earth/cube"


def test_none_is_not_made_by_looking(location: Location) -> None:
    with pytest.raises(NotFound, match="no cube here"):
        open_repository(location)
    assert location.list_names() == []


def test_it_is_made_once(location: Location) -> None:
    first = open_or_make_repository(location)
    first.create_tag("kept", first.lookup_branch("main"))
    assert open_or_make_repository(location).list_tags() == {"kept"}


def test_a_writer_killed_before_the_branch_was_written_is_made_good(location: Location) -> None:
    open_or_make_repository(location)
    location.delete("refs/branch.main/ref.json")
    create_cube(location, CubeSchema(GRID, ("B02",)))
    assert read_state(location).times.size == 0


def test_a_writer_killed_before_the_cube_was_laid_out_is_made_good(location: Location) -> None:
    open_or_make_repository(location)
    with pytest.raises(NotFound, match="holds no cube yet"):
        open_cube(location)
    create_cube(location, CubeSchema(GRID, ("B02",)))
    assert open_cube(location).sizes["time"] == 0


def test_a_branch_is_not_put_over_commits_whose_branch_was_lost(location: Location) -> None:
    create_cube(location, CubeSchema(GRID, ("B02",)))
    location.delete("refs/branch.main/ref.json")
    with pytest.raises(Exception, match="clean prefixes"):
        create_cube(location, CubeSchema(GRID, ("B02",)))


def test_writing_needs_a_cube(tmp_path: Path) -> None:
    location = resolve(tmp_path) / "earth/cube"
    with pytest.raises(NotFound), write_cube(location):
        pass
    shutil.rmtree(tmp_path / "earth")


def test_only_what_is_not_there_is_written_new(location: Location) -> None:
    assert location.write_new("name", b"first")
    assert not location.write_new("name", b"second")
    assert location.read_bytes("name") == b"first"
