"""Profiles as files that astronomers' tools read: Parquet, FITS and VOTable, with units and UCDs on each column."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.sky.profile_table import COLUMNS, Column

if TYPE_CHECKING:
    from astropy.table import Table

NO_FLAG = -1
"""What lists of flags are padded with."""
VOTABLE_ROWS = 57 * 256
"""Rows that are encoded at a time; a multiple of three, so that pieces of base64 join without padding between them."""


def write_parquet(path: Path, table: pa.Table, facts: Mapping[str, str]) -> None:
    """Write a table as it is, lists of any length, with `facts` among the file's metadata."""
    held = {**(table.schema.metadata or {}), **{name.encode(): value.encode() for name, value in facts.items()}}
    pq.write_table(table.replace_schema_metadata(held), path, compression="zstd")


def write_fits(path: Path, table: pa.Table, facts: Mapping[str, str]) -> None:
    """Write a table as a FITS binary table; `facts` become HISTORY lines of its header."""
    from astropy.io import fits

    padded = to_astropy(table)
    columns = [
        fits.Column(
            name=name, format=_fits_format(padded[name]), array=np.asarray(padded[name]), **_fits_facts(padded, name)
        )
        for name in padded.colnames
    ]
    unit = fits.BinTableHDU.from_columns(columns, name="PROFILES")
    for number, name in enumerate(padded.colnames, start=1):
        unit.header[f"TUCD{number}"] = padded[name].meta["ucd"]
        unit.header[f"TCOMM{number}"] = padded[name].description
    unit.header["RADESYS"] = "ICRS"
    for name, value in facts.items():
        unit.header.add_history(_ascii(f"{name}: {value}"))
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(path, checksum=False)


def write_votable(path: Path, table: pa.Table, facts: Mapping[str, str]) -> None:
    """Write a table as a VOTable with binary data; `facts` become INFO elements."""
    padded = to_astropy(table)
    head, tail = _votable_frame(padded, facts)
    # astropy writes row by row in Python, a hundred times slower
    rows = np.zeros(len(padded), dtype=[("null", "u1", ((len(padded.colnames) + 7) // 8,)), *_big_endian(padded)])
    for name in padded.colnames:
        rows[name] = padded[name]
    with path.open("wb") as file:
        file.write(head)
        for start in range(0, len(rows), VOTABLE_ROWS):
            file.write(base64.encodebytes(rows[start : start + VOTABLE_ROWS].tobytes()))
        file.write(tail)


def _votable_frame(padded: Table, facts: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return what stands before and after the rows of a VOTable in its BINARY2 form."""
    from astropy.io.votable.exceptions import W50
    from astropy.io.votable.tree import CooSys, Info, VOTableFile

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # the VO's list of units has no nanomaggies
        warnings.simplefilter("ignore", W50)
        file = VOTableFile.from_table(padded[:0], table_id="profiles")
        file.coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
        for field in file.get_first_table().fields:
            if str(field.ucd).startswith("pos.eq."):
                field.ref = "icrs"
        file.infos.extend(Info(name=name, value=value) for name, value in facts.items())
        file.to_xml(buffer, tabledata_format="binary2")
    head, end, tail = buffer.getvalue().rpartition(b"</TABLE>")
    return head + b'<DATA><BINARY2><STREAM encoding="base64">\n', b"</STREAM></BINARY2></DATA>\n  " + end + tail


def _big_endian(padded: Table) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(name, padded[name].dtype.newbyteorder(">").str, padded[name].shape[1:]) for name in padded.colnames]


def to_astropy(table: pa.Table) -> Table:
    """Return profiles as an astropy table: lists are padded with NaN to the longest, flags with -1; null is NaN."""
    from astropy.table import Table
    from astropy.units import UnrecognizedUnit

    padded = Table()
    for column in COLUMNS:
        padded[column.name] = _values(column, table[column.name].combine_chunks())
        described = padded[column.name]
        # kept as a word: astropy would write "nmgy / arcsec2", which is no unit of the VO's grammar
        described.unit = UnrecognizedUnit(column.unit) if "nmgy" in column.unit else column.unit or None
        described.description = column.meaning
        described.meta["ucd"] = column.ucd
    return padded


def _values(column: Column, values: pa.Array) -> np.ndarray:
    if pa.types.is_list(column.type):
        return pad_lists(values)
    if pa.types.is_string(values.type):
        texts = values.fill_null("").to_pylist()
        return (
            np.array([_ascii(text).encode() for text in texts], dtype=np.bytes_) if texts else np.empty(0, dtype="S1")
        )
    return np.asarray(values.to_numpy(zero_copy_only=False))


def pad_lists(values: pa.ListArray) -> np.ndarray:
    """Return lists as rows of one array, (row, longest): numbers padded with NaN, integers with `NO_FLAG`."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    whole = pa.types.is_integer(values.type.value_type)
    shape = (len(values), max(1, int(lengths.max(initial=0))))
    padded = np.full(shape, NO_FLAG, dtype=np.int32) if whole else np.full(shape, np.nan)
    padded[np.arange(shape[1]) < lengths[:, None]] = flat
    return padded


def _fits_format(column: Any) -> str:
    values = np.asarray(column)
    if values.dtype.kind == "S":
        return f"{max(1, values.dtype.itemsize)}A"
    code = {"f8": "D", "i4": "J", "i8": "K"}[values.dtype.str[1:]]
    return f"{values.shape[1]}{code}" if values.ndim == 2 else code


def _fits_facts(padded: Table, name: str) -> dict[str, Any]:
    column = next(column for column in COLUMNS if column.name == name)
    facts: dict[str, Any] = {"unit": column.unit} if column.unit else {}
    if padded[name].ndim == 2 and padded[name].dtype.kind == "i":
        facts["null"] = NO_FLAG
    return facts


def _ascii(text: str) -> str:
    """Return a text as FITS can hold it."""
    return text.encode("ascii", "backslashreplace").decode().replace("\n", " ")
