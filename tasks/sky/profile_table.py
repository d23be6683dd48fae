"""Profiles as a table: one schema for every method, with unit, UCD and meaning on each column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.sky.profile import Profile

_LIST, _FLAGS = pa.list_(pa.float64()), pa.list_(pa.int32())
_TEXT, _NUMBER, _INTEGER = pa.string(), pa.float64(), pa.int32()


@dataclass(frozen=True)
class Column:
    """One column: field of `Profile`, type, unit as VOUnits write it, UCD1+ word and meaning."""

    name: str
    type: pa.DataType
    unit: str
    ucd: str
    meaning: str


COLUMNS = (
    Column("object_id", _TEXT, "", "meta.id;meta.main", "Object"),
    Column("band", _TEXT, "", "instr.bandpass", "Band"),
    Column("state", _TEXT, "", "meta.code.status", "measured, outside, rejected or failed"),
    Column("reason", _TEXT, "", "meta.code.error", "Why it was not measured"),
    Column("message", _TEXT, "", "meta.note", "The same in words"),
    Column("method", _TEXT, "", "meta.code", "What measured it"),
    Column("ra", _NUMBER, "deg", "pos.eq.ra;meta.main", "Right ascension of the target, ICRS"),
    Column("dec", _NUMBER, "deg", "pos.eq.dec;meta.main", "Declination of the target, ICRS"),
    Column("redshift", _NUMBER, "", "src.redshift", "Redshift of the target list, not applied"),
    Column("radius_arcsec", _LIST, "arcsec", "phys.angSize.smajAxis", "Semi-major axis, geometric mean of bin edges"),
    Column("intensity", _LIST, "nmgy.arcsec**-2", "phot.flux.sb", "Surface brightness, linear, sky taken off"),
    Column("intensity_error", _LIST, "nmgy.arcsec**-2", "stat.error;phot.flux.sb", "Its error, 1 sigma"),
    Column("mu", _LIST, "mag.arcsec**-2", "phot.mag.sb", "Surface brightness, AB; null where not positive"),
    Column("mu_error", _LIST, "mag.arcsec**-2", "stat.error;phot.mag.sb", "Its error, 1 sigma"),
    Column("ellipticity", _LIST, "", "src.ellipticity", "1 - b/a"),
    Column("position_angle", _LIST, "deg", "pos.posAng", "East of north"),
    Column("offset_east_arcsec", _LIST, "arcsec", "pos.cartesian.x", "Middle of the ellipse, east of the centre"),
    Column("offset_north_arcsec", _LIST, "arcsec", "pos.cartesian.y", "Middle of the ellipse, north of the centre"),
    Column("flags", _FLAGS, "", "meta.code.qual", "Bits per radius"),
    Column("object_flags", _INTEGER, "", "meta.code.qual", "Bits per object and band"),
    Column("centre_ra", _NUMBER, "deg", "pos.eq.ra", "Right ascension of the measured centre, ICRS"),
    Column("centre_dec", _NUMBER, "deg", "pos.eq.dec", "Declination of the measured centre, ICRS"),
    Column("centre_x", _NUMBER, "pixel", "pos.cartesian.x;instr.pixel", "Centre, from 0 at the first pixel's centre"),
    Column("centre_y", _NUMBER, "pixel", "pos.cartesian.y;instr.pixel", "Centre, from 0 at the first pixel's centre"),
    Column("sky", _NUMBER, "nmgy.arcsec**-2", "instr.skyLevel", "Sky that was taken off"),
    Column("sky_error", _NUMBER, "nmgy.arcsec**-2", "stat.error;instr.skyLevel", "Its error, 1 sigma"),
    Column("psf_fwhm_arcsec", _NUMBER, "arcsec", "instr.obsty.seeing", "Width of the point spread function"),
    Column("r24_arcsec", _NUMBER, "arcsec", "phys.angSize.smajAxis", "Isophote of 24 mag/arcsec^2 of this band"),
    Column("r25_arcsec", _NUMBER, "arcsec", "phys.angSize.smajAxis", "Isophote of 25 mag/arcsec^2 of this band"),
    Column("r26_arcsec", _NUMBER, "arcsec", "phys.angSize.smajAxis", "Isophote of 26 mag/arcsec^2 of this band"),
    Column("d25_arcsec", _NUMBER, "arcsec", "phys.angSize", "Major diameter at 25 mag/arcsec^2 of this band"),
    Column("half_light_radius_arcsec", _NUMBER, "arcsec", "phys.angSize.smajAxis", "Ellipse of half the total flux"),
    Column("magnitude", _NUMBER, "mag", "phot.mag", "AB, to the last radius of S/N 3"),
    Column("magnitude_error", _NUMBER, "mag", "stat.error;phot.mag", "Its error, 1 sigma"),
    Column("total_magnitude", _NUMBER, "mag", "phot.mag", "AB, extrapolated"),
    Column("ebv", _NUMBER, "mag", "phot.color.excess", "E(B-V), not applied"),
    Column("extinction", _NUMBER, "mag", "phys.absorption.gal", "A of this band, not applied"),
    Column("seconds", _NUMBER, "s", "time.duration;meta.software", "Time that it took"),
    Column("release", _TEXT, "", "meta.version", "Data release of the image"),
    Column("snapshot", _TEXT, "", "meta.version", "Snapshot of the sky store"),
)
SCHEMA = pa.schema(
    [
        pa.field(
            column.name, column.type, metadata={"unit": column.unit, "ucd": column.ucd, "description": column.meaning}
        )
        for column in COLUMNS
    ],
)


def to_table(profiles: Iterable[Profile]) -> pa.Table:
    """Return profiles as an Arrow table of `SCHEMA`: a NaN scalar or magnitude is null there."""
    rows = list(profiles)
    arrays = [_to_array(column, [getattr(row, column.name) for row in rows]) for column in COLUMNS]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Profile]:
    """Return the profiles of a table of `SCHEMA`; null is NaN again.

    Raises
    ------
    KeyError
        Where a column is not there; the message names it.
    """
    columns = [_from_array(column, table[column.name]) for column in COLUMNS]
    names = [column.name for column in COLUMNS]
    return [Profile(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _to_array(column: Column, values: list[object]) -> pa.Array:
    if column.type == _LIST:
        return pa.array([_without_nan(np.asarray(value)) for value in values], type=column.type)
    if column.type == _NUMBER:
        return pa.array(np.asarray(values, dtype=float), type=column.type, from_pandas=True)
    return pa.array(values, type=column.type)


def _without_nan(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(float), from_pandas=True)


def _from_array(column: Column, values: pa.ChunkedArray) -> list[object]:
    if column.type == _LIST:
        return [
            np.asarray([np.nan if entry is None else entry for entry in row], dtype=float) for row in values.to_pylist()
        ]
    if column.type == _FLAGS:
        return [np.asarray(row, dtype=np.int32) for row in values.to_pylist()]
    if column.type == _NUMBER:
        return [np.nan if value is None else value for value in values.to_pylist()]
    return values.to_pylist()
