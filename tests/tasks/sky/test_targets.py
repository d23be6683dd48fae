"""Lists of targets: every row a target, merged into one, or listed as bad."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigurationError
from tasks.sky.target_columns import ColumnNames
from tasks.sky.targets import TargetList, digest_of, group_positions, position_name, read_targets

PROBES = "galaxies/target_lists/probes_legacy_cutout_requests.parquet"


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def accounted(found: TargetList) -> int:
    """Return how many rows a list accounts for."""
    merged = sum(len(group.rows) - 1 for group in found.merged)
    return len(found.targets) + merged + len(found.bad_rows)


def test_a_plain_list_gives_its_targets_with_what_its_columns_say(tmp_path: Path) -> None:
    text = "objid,ra,dec,z,ebv,size,file\n17,10.5,-3.25,0.01,0.05,256,a.fits\n18,20,4,,,,\n"
    found = read_targets(written(tmp_path, text))
    first, second = found.targets
    assert (first.object_id, first.ra, first.dec, first.names) == ("17", 10.5, -3.25, ("17",))
    assert (first.redshift, first.ebv, first.size_pixels, first.file) == (0.01, 0.05, 256, "a.fits")
    assert math.isnan(second.redshift)
    assert math.isnan(second.ebv)
    assert second.size_pixels is None
    assert found.integer_ids
    assert found.rows == 2


def test_the_list_of_probes_requests_plans_2746_rows_603_of_them_exact_repeats(shared_data: Path) -> None:
    table = pd.read_parquet(shared_data / PROBES)
    exact = read_targets(shared_data / PROBES, merge_radius_arcsec=0.0)
    assert exact.rows == len(table) == 2746
    assert sum(len(group.rows) - 1 for group in exact.merged) == int(table.duplicated(["ra", "dec"]).sum()) == 603
    assert len(exact.targets) == 2746 - 603
    assert not exact.bad_rows
    assert {target.size_pixels for target in exact.targets} == {512}
    # nothing lies between 0 and 1 arcsec in this list
    assert read_targets(shared_data / PROBES).digest == exact.digest
    names = [name for target in exact.targets for name in target.names]
    assert sorted(names) == sorted(table["name"])


def test_merging_a_merged_list_changes_nothing(shared_data: Path, tmp_path: Path) -> None:
    first = read_targets(shared_data / PROBES, merge_radius_arcsec=30.0)
    table = pd.DataFrame([(t.object_id, t.ra, t.dec) for t in first.targets], columns=["name", "ra", "dec"])
    table.to_parquet(tmp_path / "again.parquet")
    again = read_targets(tmp_path / "again.parquet", merge_radius_arcsec=30.0)
    assert len(first.targets) < 2143
    assert not again.merged
    assert [t.object_id for t in again.targets] == [t.object_id for t in first.targets]


def test_a_bad_row_is_listed_with_its_number_and_reason_and_stops_nothing(tmp_path: Path) -> None:
    rows = ["a,10,20", "b,,20", "c,ten,20", "d,10,95", "e,400,5", "f,nan,5", "g,11,21,extra", "h,12:61:00,1", "i,12,22"]
    found = read_targets(written(tmp_path, "name,ra,dec\n" + "\n".join(rows) + "\n"))
    assert [target.object_id for target in found.targets] == ["a", "i"]
    reasons = {bad.row: bad.reason for bad in found.bad_rows}
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 8]
    assert reasons[2] == "RA is missing"
    assert reasons[3] == "RA 'ten' is no angle"
    assert reasons[4] == "Dec 95 is not within -90 to 90 degrees"
    assert reasons[5] == "RA 400 is not within 0 to 360 degrees"
    assert reasons[7] == "RA '4 cells where 3 are expected' is no angle"
    assert "60 minutes" in reasons[8]
    assert accounted(found) == found.rows == 9


def test_rows_of_one_position_keep_every_name_and_the_first_value_that_is_there(tmp_path: Path) -> None:
    text = "name,ra,dec,z\nA,100,10,\nB,100.0001,10,0.02\nC,100.0002,10,0.03\nD,200,10,\n"
    found = read_targets(written(tmp_path, text))
    first, other = found.targets
    assert first.names == ("A", "B", "C")
    assert (first.ra, first.redshift) == (100.0, 0.02)
    assert other.object_id == "D"
    (merged,) = found.merged
    assert merged.rows == (1, 2, 3)
    assert merged.separation_arcsec == pytest.approx(0.0002 * 3600 * math.cos(math.radians(10)), rel=1e-6)


def test_an_id_that_comes_again_elsewhere_is_a_bad_row(tmp_path: Path) -> None:
    found = read_targets(written(tmp_path, "id,ra,dec\n5,10,0\n6,11,0\n5,12,0\n"))
    assert [target.object_id for target in found.targets] == ["5", "6"]
    assert [(bad.row, bad.reason) for bad in found.bad_rows] == [(3, "its id 5 is that of row 1, 7200.0 arcsec away")]


def test_rows_without_an_id_are_named_after_their_position(tmp_path: Path) -> None:
    found = read_targets(written(tmp_path, "id,ra,dec\n,150.470618,-0.125157\n77,1,1\n"))
    assert found.targets[0].object_id == "J100152.94-000730.5"
    assert not found.integer_ids
    assert any("1 rows without an id" in note for note in found.notes)
    without = read_targets(written(tmp_path, "ra,dec\n1,2\n"))
    assert without.targets[0].object_id == position_name(1.0, 2.0) == "J000400.00+020000.0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,flux\na,1\n", "among name, flux"),
        ("name,ra,dec\n", "holds no rows"),
        ("", "is empty"),
        ("1,2\n3,4\n", "names of its columns"),
    ],
)
def test_a_list_that_is_none_names_what_there_is(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_targets(written(tmp_path, text))


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.csv cannot be read"):
        read_targets(tmp_path / "nowhere.csv")


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "ra,dec,ra_fit,dec_fit,label\n1,2,3,4,x\n")
    names = ColumnNames(ra="ra_fit", dec="DEC_FIT", identifier="label")
    (target,) = read_targets(path, columns=names).targets
    assert (target.object_id, target.ra, target.dec) == ("x", 3.0, 4.0)
    with pytest.raises(ConfigurationError, match="has no column nope; it has ra, dec"):
        read_targets(path, columns=ColumnNames(identifier="nope"))
    with pytest.raises(ConfigurationError, match="together"):
        read_targets(path, columns=ColumnNames(ra="ra"))


def test_the_digest_knows_content_and_not_the_file(tmp_path: Path) -> None:
    text = "name,ra,dec\na,1,2\nb,3,4\n"
    first = read_targets(written(tmp_path, text))
    second = read_targets(written(tmp_path, text.replace(",", " "), "list.txt"))
    other = read_targets(written(tmp_path, text.replace("3,4", "3,4.0000001")))
    assert first.digest == second.digest == digest_of(first.targets)
    assert first.digest != other.digest


def test_positions_join_across_ra_0_and_over_a_pole() -> None:
    assert group_positions([359.9999, 0.0001, 180.0], [0.0, 0.0, 0.0], radius_arcsec=1.0) == [[0, 1], [2]]
    assert group_positions([0.0, 90.0, 180.0, 0.0], [89.9999, 89.9999, 89.9999, 89.99], radius_arcsec=1.0) == [
        [0, 1, 2],
        [3],
    ]


def test_a_chain_of_near_positions_is_one_group() -> None:
    step = 0.9 / 3600
    assert group_positions([10.0] * 5, [i * step for i in range(5)], radius_arcsec=1.0) == [[0, 1, 2, 3, 4]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_groups_are_those_of_the_slow_way(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    ra = (rng.normal(0.0, 2.0, count) / 3600 / np.cos(np.radians(60))) % 360.0
    dec = 60.0 + rng.normal(0.0, 2.0, count) / 3600
    x, y = np.cos(np.radians(60)) * ((ra + 180) % 360 - 180) * 3600, (dec - 60) * 3600
    near = np.hypot(x[:, None] - x, y[:, None] - y)
    if np.any(np.abs(near - 1.0) < 1e-3):
        return
    groups = group_positions(list(ra), list(dec), radius_arcsec=1.0)
    label = {member: number for number, group in enumerate(groups) for member in group}
    reach = near <= 1.0
    for _ in range(count.bit_length()):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    assert sorted(label) == list(range(count))
    assert all((label[i] == label[j]) == reach[i, j] for i in range(count) for j in range(count))
