"""What columns are and what cells say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigurationError
from tasks.sky.target_columns import Column, ColumnNames, degrees_of, recognise, rows_of


def column(name: str, values: list[object], *, unit: str = "", ucd: str = "") -> Column:
    array = np.array(values) if all(isinstance(value, float) for value in values) else np.array(values, dtype=object)
    return Column(name, array, np.zeros(len(values), bool), unit, ucd)


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("ra", "dec"),
        ("RA", "DEC"),
        ("raj2000", "dej2000"),
        ("_RAJ2000", "_DEJ2000"),
        ("ra_deg", "dec_deg"),
        ("RA(deg)", "DEC(deg)"),
        ("ALPHA_J2000", "DELTA_J2000"),
        ("RA_ICRS", "DE_ICRS"),
        ("TARGET_RA", "TARGET_DEC"),
        ("Right Ascension", "Declination"),
    ],
)
def test_columns_of_positions_are_known_by_their_names(ra: str, dec: str) -> None:
    roles = recognise([column("x", [1.0]), column(dec, [2.0]), column(ra, [3.0])], ColumnNames(), where="t")
    assert (roles.ra.name, roles.dec.name) == (ra, dec)


def test_degrees_that_vizier_computed_go_before_the_catalogues_own() -> None:
    table = [column(name, ["1"]) for name in ("RAJ2000", "DEJ2000", "_RAJ2000", "_DEJ2000")]
    assert recognise(table, ColumnNames(), where="t").ra.name == "_RAJ2000"


def test_ucds_tell_where_names_do_not() -> None:
    table = [
        column("a", [1.0], ucd="pos.eq.ra;meta.main"),
        column("b", [2.0], ucd="pos.eq.dec;meta.main"),
        column("c", ["x"], ucd="meta.id;meta.main"),
    ]
    roles = recognise(table, ColumnNames(), where="t")
    assert roles.identifier is not None
    assert (roles.ra.name, roles.dec.name, roles.identifier.name) == ("a", "b", "c")


def test_galactic_positions_become_icrs() -> None:
    roles = recognise([column("GLON", [0.0]), column("GLAT", [90.0])], ColumnNames(), where="t")
    (row,), _, _ = rows_of([roles.ra, roles.dec], roles, where="t")
    assert (row.ra, row.dec) == pytest.approx((192.85948, 27.12825), abs=1e-4)


@pytest.mark.parametrize(
    ("cell", "hours", "degrees"),
    [
        ("10:00:00", True, 150.0),
        ("10 00 00", True, 150.0),
        ("10h00m00s", True, 150.0),
        ("10:30", True, 157.5),
        ("-00:30:00", False, -0.5),
        ("-00 00 36", False, -0.01),
        ("+45d30m00s", False, 45.5),
        ("150d30m", True, 150.5),
        ("12.5", True, 12.5),
        (12.5, True, 12.5),
        (" 1e2 ", True, 100.0),
    ],
)
def test_angles_in_degrees_or_sexagesimal(cell: object, hours: bool, degrees: float) -> None:
    assert degrees_of(cell, hours=hours) == pytest.approx(degrees, abs=1e-12)


def test_units_of_a_column_are_heeded() -> None:
    assert degrees_of(10.0, hours=True, unit="hourangle") == 150.0
    assert degrees_of(np.pi, hours=True, unit="rad") == pytest.approx(180.0)


@pytest.mark.parametrize("cell", [None, "", "  ", "x", "12:60:00", "12:00:60", float("nan"), float("inf"), "inf"])
def test_what_is_no_angle_says_so(cell: object) -> None:
    with pytest.raises(ValueError, match=r"missing|no angle|60|finite"):
        degrees_of(cell, hours=True)


@given(st.floats(-89.999, 89.999))
def test_sexagesimal_text_of_a_declination_reads_back(dec: float) -> None:
    from astropy.coordinates import Angle

    text = Angle(dec, "deg").to_string(unit="deg", sep=":", precision=6, alwayssign=True)
    assert degrees_of(text, hours=False) == pytest.approx(dec, abs=1e-9)


def test_ids_of_19_digits_stay_whole() -> None:
    name = "1237653651835781245"
    table = [column("objid", [int(name), 7]), column("ra", [1.0, 2.0]), column("dec", [1.0, 2.0])]
    rows, _, _ = rows_of(table, recognise(table, ColumnNames(), where="t"), where="t")
    assert [row.identifier for row in rows] == [name, "7"]
    assert all(row.integer_id for row in rows)


def test_ids_whose_digits_are_lost_already_are_refused() -> None:
    table = [column("objid", [1237653651835781245.0]), column("ra", [1.0]), column("dec", [1.0])]
    with pytest.raises(ConfigurationError, match="objid are floating point"):
        rows_of(table, recognise(table, ColumnNames(), where="t"), where="t")


@pytest.mark.parametrize(
    ("name", "whole"),
    [("7", True), ("-3", True), ("007", False), ("9223372036854775807", True), ("9223372036854775808", False)],
)
def test_only_what_reads_back_as_written_is_a_whole_number(name: str, whole: bool) -> None:
    table = [column("id", [name]), column("ra", [1.0]), column("dec", [1.0])]
    (row,), _, _ = rows_of(table, recognise(table, ColumnNames(), where="t"), where="t")
    assert (row.identifier, row.integer_id) == (name, whole)


def test_a_column_z_of_magnitudes_is_no_redshift() -> None:
    table = [column("z", [17.2, 18.0]), column("ra", [1.0, 2.0]), column("dec", [1.0, 2.0])]
    rows, _, notes = rows_of(table, recognise(table, ColumnNames(), where="t"), where="t")
    assert all(np.isnan(row.redshift) for row in rows)
    assert any("taken for magnitudes" in note for note in notes)
