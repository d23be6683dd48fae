"""Tables of targets in every format, ids whole in each."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table

from tasks.errors import ConfigurationError
from tasks.sky.target_files import read_table
from tasks.sky.targets import read_targets

IDS = [1237653651835781245, 9007199254740993, 12]
RA, DEC = [10.0, 20.0, 30.5], [-1.0, 0.0, 45.25]


def table() -> Table:
    return Table({"objID": np.array(IDS, dtype=np.int64), "ra": RA, "dec": DEC, "name": ["a", "b", "c"]})


def save(path: Path, kind: str) -> Path:
    if kind == "parquet":
        pq.write_table(pa.table({"objID": pa.array(IDS, pa.int64()), "ra": RA, "dec": DEC}), path)
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(("objID,ra,dec\n" + _lines(",")).encode()))
    elif kind == "text":
        path.write_text("# objID   ra  dec\n" + _lines("   "))
    elif kind == "commented":
        path.write_text("#Table1\nobjID,ra,dec\n" + _lines(","))
    else:
        table().write(path, format={"csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(kind, kind))
    return path


def _lines(mark: str) -> str:
    return "".join(f"{mark.join(map(str, row))}\n" for row in zip(IDS, RA, DEC, strict=True))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "text", "commented", "ecsv", "parquet", "fits", "votable"])
def test_every_format_gives_the_same_targets(tmp_path: Path, kind: str) -> None:
    found = read_targets(save(tmp_path / "list.any", kind))
    assert [target.object_id for target in found.targets] == [str(name) for name in IDS]
    assert [target.ra for target in found.targets] == RA
    assert [target.dec for target in found.targets] == DEC
    assert found.integer_ids


@pytest.mark.parametrize("kind", ["csv", "parquet", "fits", "votable"])
def test_a_column_of_whole_numbers_with_a_gap_loses_no_digit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "list.any"
    if kind == "csv":
        path.write_text(f"objid,ra,dec\n{IDS[0]},1,1\n,2,2\n")
    elif kind == "parquet":
        pq.write_table(pa.table({"objid": pa.array([IDS[0], None], pa.int64()), "ra": [1.0, 2], "dec": [1.0, 2]}), path)
    else:
        ids = MaskedColumn(np.array([IDS[0], -1], dtype=np.int64), mask=[False, True])
        Table({"objid": ids, "ra": [1.0, 2.0], "dec": [1.0, 2.0]}).write(path, format=kind)
    first, second = read_targets(path).targets
    assert first.object_id == str(IDS[0])
    assert second.object_id == "J000800.00+020000.0"


def test_unsigned_ids_beyond_int64_become_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([2**63 + 5], pa.uint64()), "ra": [1.0], "dec": [1.0]}), tmp_path / "t")
    found = read_targets(tmp_path / "t")
    assert found.targets[0].object_id == str(2**63 + 5)
    assert not found.integer_ids


def test_sexagesimal_cells_in_quotes_and_fits_strings(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('name,RAJ2000,DEJ2000\nx,"10 01 52.9","-00 07 30"\n')
    Table({"name": ["x"], "RAJ2000": ["10:01:52.9"], "DEJ2000": ["-00:07:30"]}).write(tmp_path / "t.fits")
    for name in ("t.csv", "t.fits"):
        (target,) = read_targets(tmp_path / name).targets
        assert (target.ra, target.dec) == pytest.approx((150.4704166667, -0.125))


def test_recorded_answers_are_lists_too(shared_data: Path) -> None:
    folder = shared_data / "galaxies" / "service_responses"
    sdss = read_targets(folder / "sdss" / "xid_im.txt", merge_radius_arcsec=0.0)
    assert sdss.targets[0].object_id == "1237653651835781245"
    assert sdss.integer_ids
    assert len(sdss.targets) == 18
    (ned,) = read_targets(folder / "ned" / "query_object.xml").targets
    assert (ned.object_id, ned.ra, ned.dec) == ("MESSIER 001", 83.63321, 22.01446)
    assert len(read_targets(folder / "vizier" / "kang2010.xml").targets) == 50


@pytest.mark.parametrize(
    ("name", "words"),
    [("no_server_error.xml", "The database is not currently reachable"), ("kang.fits", "without a table")],
)
def test_a_file_without_a_table_says_what_it_says(shared_data: Path, tmp_path: Path, name: str, words: str) -> None:
    path = shared_data / "galaxies" / "service_responses" / "vizier" / name
    if name.endswith(".fits"):
        path = shared_data / "galaxies" / "service_responses" / "sdss" / "emptyfile.fits"
    with pytest.raises(ConfigurationError, match=words):
        read_table(path)


@pytest.mark.parametrize("body", [b"PAR1 rubbish", b"SIMPLE  = rubbish", b"\x1f\x8b rubbish", b"<VOTABLE><rubbish"])
def test_a_damaged_table_is_named(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "damaged").write_bytes(body)
    with pytest.raises(ConfigurationError, match="damaged"):
        read_table(tmp_path / "damaged")
