"""Published profiles: nothing lost, units on every column, the same rows published once, opened by what others use."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sky_cases import random_cutout

from storage.errors import SchemaMismatch
from storage.location import Location, resolve
from storage.publish import Receipt
from storage.repository import open_repository
from storage.sky import append_cutouts
from tasks.earth.verify import verify_product
from tasks.sky import hats_catalogue, profile_rows
from tasks.sky.hats_catalogue import INDEX, partitions, write_hats
from tasks.sky.profile import Profile, unmeasured
from tasks.sky.profile_files import NO_FLAG, pad_lists, widths_of, write_fits, write_votable
from tasks.sky.profile_rows import ProfileRows
from tasks.sky.profile_table import COLUMNS, SCHEMA, from_table, to_table
from tasks.sky.publish import publish_profiles, summarise_profiles
from tasks.sky.verify import check_profiles

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in NestedFrame.drop")

FACTS = {
    "created": "2025-03-04T05:06:07+00:00",
    "run_id": "profiles-20250304T050607-abcdef",
    "config_hash": "c0ffee",
    "software": {"canopus": "0.1.0"},
    "inputs": [{"title": "targets.csv", "href": "https://example.org/targets.csv"}],
    "license": "CC-BY-4.0",
    "description": "Profiles of a test.",
}


def measured(object_id: str, band: str, *, seed: int, radii: int, place: tuple[float, float]) -> Profile:
    """Return a profile of random numbers with a magnitude that is not known at its end."""
    rng = np.random.default_rng(seed)
    lists = {name: rng.normal(size=radii) for name in ("intensity", "intensity_error", "mu", "mu_error")}
    lists["mu"][-1] = np.nan
    return Profile(
        object_id,
        band,
        method="isophote",
        radius_arcsec=np.geomspace(0.5, 20, radii),
        ellipticity=rng.uniform(size=radii),
        position_angle=rng.uniform(0, 180, radii),
        offset_east_arcsec=rng.normal(size=radii),
        offset_north_arcsec=rng.normal(size=radii),
        flags=rng.integers(0, 63, radii, dtype=np.int32),
        object_flags=2,
        ra=place[0],
        dec=place[1],
        r25_arcsec=float(seed),
        total_magnitude=float("nan") if seed % 2 else 17.5,
        seconds=rng.uniform(),
        release="dr9",
        snapshot="ABC",
        **lists,
    )


def rows(objects: int = 6) -> list[Profile]:
    """Return two bands of some objects: measured ones, one outside, one without a position that failed."""
    rng = np.random.default_rng(7)
    found = []
    for number in range(objects):
        place = (float(rng.uniform(0, 360)), float(np.degrees(np.arcsin(rng.uniform(-1, 1)))))
        found += [
            measured(str(2**60 + number), band, seed=2 * number + index, radii=4 + number, place=place)
            for index, band in enumerate("gr")
        ]
    outside = unmeasured(str(2**60 + objects), "gr", state="outside", reason="no-data", message="not in the footprint")
    found += [replace(row, ra=359.9, dec=-89.0) for row in outside]
    found += unmeasured(str(2**60 + objects + 1), "gr", state="failed", reason="unavailable", message="it said: é\nno")
    return found


def write_batches(folder: Path, profiles: Sequence[Profile], *, together: int = 5) -> list[Location]:
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(profiles), together):
        pq.write_table(to_table(profiles[start : start + together]), folder / f"{start:05d}.parquet")
    return [resolve(path) for path in sorted(folder.iterdir())]


def published(
    tmp_path: Path, profiles: Sequence[Profile], *, integer_ids: bool = True, facts: Mapping[str, Any] = FACTS
) -> Receipt:
    batches = write_batches(tmp_path / "batches", profiles)
    return publish_profiles(
        resolve(tmp_path / "warehouse"),
        batches,
        collection="profiles",
        title="Some galaxies",
        integer_ids=integer_ids,
        facts=facts,
    )


@pytest.fixture
def receipt(tmp_path: Path) -> Receipt:
    return published(tmp_path, rows())


def test_lsdb_opens_the_catalogue_with_every_row_that_has_a_position(receipt: Receipt) -> None:
    lsdb = pytest.importorskip("lsdb")
    catalogue = lsdb.open_catalog(receipt.assets["hats"])
    frame = catalogue.compute()
    placed = [row for row in rows() if np.isfinite(row.ra)]
    assert len(frame) == len(placed) == 14
    assert str(frame["object_id"].dtype).startswith("int64")
    found = {(row.object_id, row.band): row for row in frame.itertuples()}
    for row in placed:
        other = found[int(row.object_id), row.band]
        assert (other.ra, other.dec, other.state) == (row.ra, row.dec, row.state)
        np.testing.assert_array_equal(np.asarray(other.radius_arcsec, dtype=float), row.radius_arcsec)
    near = catalogue.cone_search(ra=placed[0].ra, dec=placed[0].dec, radius_arcsec=1.0).compute()
    assert set(near["object_id"]) == {int(placed[0].object_id)}


def test_the_catalogue_says_where_it_comes_from(receipt: Receipt) -> None:
    hats = pytest.importorskip("hats")
    info = hats.read_hats(receipt.assets["hats"]).catalog_info
    assert (info.total_rows, info.ra_column, info.dec_column) == (14, "ra", "dec")
    extra = info.model_dump(by_alias=True)
    assert extra["hats_creation_date"] == "2025-03-04T05:06"
    assert extra["canopus_config_hash"] == "c0ffee"
    assert extra["prov_progenitor"] == "https://example.org/targets.csv"
    assert "canopus 0.1.0" in extra["hats_builder"]
    from hats.io.validation import is_valid_catalog

    assert is_valid_catalog(receipt.assets["hats"], strict=True, verbose=False)


def test_parquet_holds_every_row_as_it_was_measured(receipt: Receipt) -> None:
    table = pq.read_table(receipt.assets["parquet"])
    assert table["object_id"].type == pa.int64()
    text = table.set_column(0, "object_id", pc.cast(table["object_id"], pa.string()))
    for found, expected in zip(from_table(text), rows(), strict=True):
        assert repr(found) == repr(expected)
    units = {field.name: (field.metadata[b"unit"], field.metadata[b"ucd"]) for field in table.schema}
    assert units == {column.name: (column.unit.encode(), column.ucd.encode()) for column in COLUMNS}
    assert table.schema.metadata[b"license"] == b"CC-BY-4.0"


def test_fits_is_padded_with_nan_and_has_units(receipt: Receipt) -> None:
    from astropy.io import fits

    with fits.open(receipt.assets["fits"]) as file:
        unit = file["PROFILES"]
        assert [column.name for column in unit.columns] == [column.name for column in COLUMNS]
        assert [column.unit or "" for column in unit.columns] == [column.unit for column in COLUMNS]
        ucds = [unit.header[f"TUCD{number}"] for number in range(1, len(COLUMNS) + 1)]
        assert ucds == [column.ucd for column in COLUMNS]
        data = unit.data
        assert len(data) == len(rows())
        assert data["object_id"].tolist() == [int(row.object_id) for row in rows()]
        for index, row in enumerate(rows()):
            length = len(row.radius_arcsec)
            np.testing.assert_array_equal(data["mu"][index][:length], row.mu)
            assert np.isnan(data["radius_arcsec"][index][length:]).all()
            np.testing.assert_array_equal(data["flags"][index][:length], row.flags)
            assert (data["flags"][index][length:] == NO_FLAG).all()
            assert np.array_equal(data["ra"][index], row.ra, equal_nan=True)
            assert data["state"][index] == row.state
        assert data["message"][-1] == "it said: \\xe9 no"
        assert "config_hash: c0ffee" in list(unit.header["HISTORY"])


def test_votable_holds_the_same_as_fits(receipt: Receipt) -> None:
    from astropy.io.fits import getdata
    from astropy.io.votable import parse

    with warnings.catch_warnings():
        # the VO has no nanomaggies; the word stands in the file all the same
        warnings.filterwarnings("ignore", message=".*nmgy.*")
        warnings.filterwarnings("ignore", message=".*'G' has been deprecated.*")
        file = parse(receipt.assets["votable"])
    table = file.get_first_table()
    assert {field.name: field.ucd for field in table.fields} == {column.name: column.ucd for column in COLUMNS}
    text = Path(receipt.assets["votable"]).read_text()
    assert re.findall('<FIELD ID="(?:mu|intensity)".*unit="(.*)"', text) == ["nmgy.arcsec**-2", "mag.arcsec**-2"]
    assert file.coordinate_systems[0].system == "ICRS"
    data = getdata(receipt.assets["fits"])
    for column in COLUMNS:
        one, other = table.array[column.name], data[column.name]
        if one.dtype.kind in "OU":
            assert [str(text) for text in one] == [str(text) for text in other]
        else:
            np.testing.assert_array_equal(np.ma.filled(one, NO_FLAG if one.dtype.kind == "i" else np.nan), other)


def test_tables_that_come_in_pieces_join_to_the_same_files(tmp_path: Path) -> None:
    from astropy.io.votable import parse

    table = to_table(rows() * 3)
    cut = [table.slice(0, 1), table.slice(1, 17), table.slice(18, 0), table.slice(18)]
    for pieces, name in (([table], "whole"), (cut, "cut")):
        write_fits(tmp_path / f"{name}.fits", pieces, {}, widths=widths_of(table))
        write_votable(tmp_path / f"{name}.vot", pieces, {}, widths=widths_of(table))
    for kind in ("fits", "vot"):
        assert (tmp_path / f"cut.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = parse(tmp_path / "cut.vot").get_first_table().array
    assert found["object_id"].tolist() == table["object_id"].to_pylist()
    np.testing.assert_array_equal(found["mu"].data, pad_lists(table["mu"].combine_chunks(), width=9))


def test_the_item_counts_what_became_of_the_rows(receipt: Receipt) -> None:
    properties = receipt.item["properties"]
    summary = json.loads(Path(receipt.assets["summary"]).read_text())
    assert properties["canopus:summary"] == summary
    assert summary["rows"] == 16
    assert summary["objects"] == 8
    assert summary["rows_without_position"] == 2
    assert summary["states"] == {"failed": 2, "measured": 12, "outside": 2}
    assert summary["reasons"] == {"no-data": 2, "unavailable": 2}
    assert summary["methods"] == {"isophote": 12}
    assert summary["medians"]["g"]["r25_arcsec"] == {"median": 5.0, "rows": 6}
    assert "total_magnitude" not in summary["medians"]["r"]
    assert receipt.item["bbox"][1] == -89.0
    assert "ICRS" in properties["canopus:frame"]
    assert receipt.item["links"][-1]["href"] == "https://example.org/targets.csv"
    assert properties["table:row_count"] == 16


def test_the_state_of_the_store_that_was_read_is_kept(tmp_path: Path) -> None:
    store = resolve(tmp_path) / "warehouse/sky/legacy"
    snapshot = append_cutouts(store, [random_cutout("1")], batch="a")
    receipt = published(tmp_path, rows(), facts=dict(FACTS) | {"snapshots": {"sky/legacy": snapshot}})
    assert receipt.item["properties"]["canopus:snapshots"] == {"sky/legacy": snapshot}
    assert open_repository(store).lookup_tag(receipt.key.item_id) == snapshot


def test_a_product_is_whole(receipt: Receipt) -> None:
    report = verify_product(receipt.item_url)
    assert report.ok, report.findings
    assert Path(receipt.item_url).parents[1].joinpath("collection.json").is_file()


@pytest.mark.filterwarnings("ignore:Error validating header")
@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("profiles.parquet", "unreadable"),
        ("profiles.fits", "unreadable"),
        ("profiles.vot", "unreadable"),
        ("summary.json", "unreadable"),
        ("hats/partition_info.csv", "truncated"),
    ],
)
def test_a_damaged_file_is_found(receipt: Receipt, file: str, problem: str) -> None:
    path = Path(receipt.item_url).parent / file
    path.write_bytes(path.read_bytes()[:30])
    findings = [str(finding) for finding in verify_product(receipt.item_url).findings]
    assert any(finding.startswith(f"{file}: truncated") for finding in findings)
    assert any(problem in finding for finding in findings)


def test_files_that_do_not_hold_the_same_rows_are_found(receipt: Receipt) -> None:
    folder = Path(receipt.item_url).parent
    fewer = pq.read_table(folder / "profiles.parquet").slice(1)
    write_fits(folder / "profiles.fits.new", [fewer], {}, widths=widths_of(fewer))
    (folder / "profiles.fits.new").rename(folder / "profiles.fits")
    next((folder / "hats" / "dataset").rglob("Npix=*.parquet")).unlink()
    found = {finding.file for finding in check_profiles(folder, receipt.item)}
    assert found == {"profiles.fits", "hats"}


def test_the_same_rows_are_published_once_on_whatever_day_and_in_whatever_time(tmp_path: Path) -> None:
    first = published(tmp_path, rows())
    later = dict(FACTS) | {"created": "2026-01-01T00:00:00+00:00", "run_id": "profiles-other"}
    slower = [replace(row, seconds=2 * row.seconds) for row in rows()]
    second = published(tmp_path, slower, facts=later)
    assert (first.state, second.state) == ("published", "present")
    assert second.key == first.key
    changed = [replace(rows()[0], magnitude=3.0), *rows()[1:]]
    third = published(tmp_path, changed, facts=later)
    assert third.key.item_id.startswith("profiles-20260101-")


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    receipts = [published(tmp_path / name, rows()) for name in ("one", "other")]
    manifests = [Path(receipt.item_url).with_name("manifest.json").read_bytes() for receipt in receipts]
    assert manifests[0] == manifests[1]


def test_batches_cut_otherwise_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ProfileRows(write_batches(tmp_path / "a", rows(), together=16), True)
    expected, known = pa.concat_tables(whole), whole.known
    monkeypatch.setattr(profile_rows, "PIECE_ROWS", 5)
    other = ProfileRows(write_batches(tmp_path / "b", rows(), together=3), True)
    assert [piece.num_rows for piece in other] == [5, 5, 5, 1]
    assert pa.concat_tables(other).equals(expected)
    assert (other.known.digest, other.known.widths) == (known.digest, known.widths)
    assert other.known.narrow.equals(known.narrow)


@pytest.mark.parametrize("change", [{"magnitude": 3.0}, {"message": "x"}, {"release": None}, {"object_flags": 3}])
def test_any_value_that_differs_gives_another_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    one = ProfileRows(write_batches(tmp_path / "a", rows()), True)
    changed = [replace(rows()[0], **({"release": ""} if change == {"release": None} else change)), *rows()[1:]]
    assert ProfileRows(write_batches(tmp_path / "b", changed), True).known.digest != one.known.digest


def test_ids_that_are_names_stay_strings(tmp_path: Path) -> None:
    profiles = [replace(row, object_id=f"NGC {index}") for index, row in enumerate(rows())]
    with pytest.raises(SchemaMismatch, match="integer_ids=False"):
        published(tmp_path, profiles)
    table = pq.read_table(published(tmp_path, profiles, integer_ids=False).assets["parquet"])
    assert table["object_id"].to_pylist() == [row.object_id for row in profiles]


def test_nothing_with_a_position_gives_a_product_without_a_catalogue(tmp_path: Path) -> None:
    profiles = list(unmeasured("1", "gr", state="failed", reason="unavailable", message="no answer"))
    receipt = published(tmp_path, profiles)
    assert "hats" not in receipt.assets
    assert receipt.item["bbox"] == [-180.0, -90.0, 180.0, 90.0]
    assert verify_product(receipt.item_url).ok


def test_no_row_at_all_is_a_product_too(tmp_path: Path) -> None:
    receipt = published(tmp_path, [])
    assert pq.read_table(receipt.assets["parquet"]).num_rows == 0
    assert receipt.item["properties"]["canopus:summary"]["rows"] == 0


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"object_id": ["1"]}), tmp_path / "other.parquet")
    with pytest.raises(SchemaMismatch, match=r"other\.parquet holds no profiles"):
        list(ProfileRows([tmp_path / "other.parquet"], False))


def test_partitions_hold_every_row_once_and_no_more_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hats_catalogue, "ROWS_PER_PARTITION", 50)
    rng = np.random.default_rng(2)
    index = np.sort(np.concatenate([rng.integers(0, 12 << 58, 1000), np.full(120, 5 << 58)]))
    found = list(partitions(index))
    assert np.concatenate([np.arange(rows.start, rows.stop) for _, _, rows in found]).tolist() == list(range(1120))
    for order, number, rows in found:
        assert (index[rows] >> (2 * (29 - order)) == number).all()
        assert rows.stop - rows.start <= 50 or order == hats_catalogue.HIGHEST_ORDER


def test_a_dense_catalogue_is_cut_into_pixels_that_lsdb_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lsdb = pytest.importorskip("lsdb")
    monkeypatch.setattr(hats_catalogue, "ROWS_PER_PARTITION", 20)
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(0, 360, 300), np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))
    table = pa.table({"name": [str(number) for number in range(300)], "ra": ra, "dec": dec})
    pieces = [table.slice(start, 70) for start in range(0, 300, 70)]
    assert write_hats(tmp_path / "hats", pieces, name="dense", properties={}) == 300
    catalogue = lsdb.open_catalog(tmp_path / "hats")
    assert len(catalogue.get_healpix_pixels()) >= 15
    frame = catalogue.compute()
    assert sorted(frame["name"], key=int) == table["name"].to_pylist()
    assert frame.index.name == INDEX


def test_lists_of_any_length_are_padded() -> None:
    numbers = pa.array([[1.0, None], [], [1.0, 2.0, 3.0], None], type=pa.list_(pa.float64()))
    np.testing.assert_array_equal(
        pad_lists(numbers, width=3), [[1, np.nan, np.nan], [np.nan] * 3, [1, 2, 3], [np.nan] * 3]
    )
    flags = pa.array([[4], []], type=pa.list_(pa.int32()))
    assert pad_lists(flags, width=2).tolist() == [[4, NO_FLAG], [NO_FLAG, NO_FLAG]]
    assert pad_lists(flags.slice(1), width=1).tolist() == [[NO_FLAG]]


def test_every_unit_and_ucd_is_known_to_the_field() -> None:
    from astropy import units
    from astropy.io.votable.ucd import check_ucd

    for column in COLUMNS:
        assert check_ucd(column.ucd, check_controlled_vocabulary=True, has_colon=False), column
        if column.unit:
            units.Unit(column.unit)


def test_a_summary_of_nothing_is_empty() -> None:
    assert summarise_profiles(SCHEMA.empty_table())["states"] == {}
