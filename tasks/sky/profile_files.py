"""Profiles as files that astronomers' tools read: Parquet, FITS and VOTable, with units and UCDs on each column."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Mapping
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
_FITS_BLOCK = 2880
_BASE64_LINE = 57
"""Bytes of a line of base64: pieces of so many join without padding between them."""


def write_parquet(path: Path, pieces: Iterable[pa.Table], facts: Mapping[str, str]) -> None:
    """Write tables of one schema as one, lists of any length, with `facts` among the file's metadata."""
    writer = None
    for piece in pieces:
        if writer is None:
            held = {**(piece.schema.metadata or {}), **{name.encode(): value.encode() for name, value in facts.items()}}
            writer = pq.ParquetWriter(path, piece.schema.with_metadata(held), compression="zstd")
        writer.write_table(piece.replace_schema_metadata(held))
    if writer is not None:
        writer.close()


def write_fits(path: Path, pieces: Iterable[pa.Table], facts: Mapping[str, str], *, widths: Mapping[str, int]) -> None:
    """Write tables as one FITS binary table.

    Parameters
    ----------
    path : Path
    pieces : iterable of Table
        One after another; none is held.
    facts : mapping of str to str
        HISTORY lines of the header.
    widths : mapping of str to int
        The longest list or text of each column (`widths_of`) in any of them.
    """
    from astropy.io import fits

    with path.open("wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        begins, count = file.tell(), 0
        file.write(_fits_header(widths, facts, rows=0))
        for piece in pieces:
            file.write(_records(to_astropy(piece, widths)).tobytes())
            count += piece.num_rows
        file.write(b"\0" * (-file.tell() % _FITS_BLOCK))
        # the number of rows is known last; the header is as long with it
        file.seek(begins)
        file.write(_fits_header(widths, facts, rows=count))


def _fits_header(widths: Mapping[str, int], facts: Mapping[str, str], *, rows: int) -> bytes:
    from astropy.io import fits

    padded = to_astropy(_no_rows(widths), widths)
    columns = [
        fits.Column(name=name, format=_fits_format(padded[name]), **_fits_facts(padded, name))
        for name in padded.colnames
    ]
    unit = fits.BinTableHDU.from_columns(columns, name="PROFILES")
    for number, name in enumerate(padded.colnames, start=1):
        unit.header[f"TUCD{number}"] = padded[name].meta["ucd"]
        unit.header[f"TCOMM{number}"] = padded[name].description
    unit.header["RADESYS"] = "ICRS"
    for name, value in facts.items():
        unit.header.add_history(_ascii(f"{name}: {value}"))
    unit.header["NAXIS2"] = rows
    text: bytes = unit.header.tostring().encode("ascii")
    return text


def write_votable(
    path: Path, pieces: Iterable[pa.Table], facts: Mapping[str, str], *, widths: Mapping[str, int]
) -> None:
    """Write tables as one VOTable with binary data; `facts` become INFO elements, the rest is as of `write_fits`."""
    head, tail = _votable_frame(to_astropy(_no_rows(widths), widths), facts)
    rest = b""
    with path.open("wb") as file:
        file.write(head)
        for piece in pieces:
            # astropy writes row by row in Python, a hundred times slower
            data = rest + _records(to_astropy(piece, widths), nulls=True).tobytes()
            whole = len(data) // _BASE64_LINE * _BASE64_LINE
            file.write(base64.encodebytes(data[:whole]))
            rest = data[whole:]
        file.write(base64.encodebytes(rest))
        file.write(tail)


def _no_rows(widths: Mapping[str, int]) -> pa.Table:
    """Return no rows of the types that the widths are of: ids without one are whole numbers."""
    ids = pa.string() if "object_id" in widths else pa.int64()
    types = {column.name: column.type for column in COLUMNS} | {"object_id": ids}
    return pa.table({name: pa.array([], kind) for name, kind in types.items()})


def _records(padded: Table, *, nulls: bool = False) -> np.ndarray:
    """Return rows as both formats keep them, big-endian and packed; of a VOTable with a bit for each column first, none set."""
    bits = [("null", "u1", ((len(padded.colnames) + 7) // 8,))] if nulls else []
    rows = np.zeros(len(padded), dtype=[*bits, *_big_endian(padded)])
    for name in padded.colnames:
        rows[name] = padded[name]
    return rows


def widths_of(table: pa.Table) -> dict[str, int]:
    """Return the longest list, or text as FITS can hold it, of each column that has some; 1 at least."""
    found = {}
    for column in COLUMNS:
        values = table[column.name].combine_chunks()
        if pa.types.is_list(values.type):
            found[column.name] = max(1, pc.max(pc.list_value_length(values)).as_py() or 0)
        elif pa.types.is_string(values.type):
            texts = pc.unique(values).fill_null("").to_pylist()
            found[column.name] = max((len(_ascii(text)) for text in texts), default=1) or 1
    return found


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


def to_astropy(table: pa.Table, widths: Mapping[str, int]) -> Table:
    """Return profiles as an astropy table: lists are padded with NaN to the width of their column, flags with -1; null is NaN."""
    from astropy.table import Table
    from astropy.units import UnrecognizedUnit

    padded = Table()
    for column in COLUMNS:
        padded[column.name] = _values(column, table[column.name].combine_chunks(), widths)
        described = padded[column.name]
        # kept as a word: astropy would write "nmgy / arcsec2", which is no unit of the VO's grammar
        described.unit = UnrecognizedUnit(column.unit) if "nmgy" in column.unit else column.unit or None
        described.description = column.meaning
        described.meta["ucd"] = column.ucd
    return padded


def _values(column: Column, values: pa.Array, widths: Mapping[str, int]) -> np.ndarray:
    if pa.types.is_list(column.type):
        return pad_lists(values, width=widths[column.name])
    if pa.types.is_string(values.type):
        texts = [_ascii(text).encode() for text in values.fill_null("").to_pylist()]
        return np.array(texts, dtype=f"S{widths[column.name]}")
    return np.asarray(values.to_numpy(zero_copy_only=False))


def pad_lists(values: pa.ListArray, *, width: int) -> np.ndarray:
    """Return lists as rows of one array, (row, width): numbers padded with NaN, integers with `NO_FLAG`."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    whole = pa.types.is_integer(values.type.value_type)
    shape = (len(values), width)
    padded = np.full(shape, NO_FLAG, dtype=np.int32) if whole else np.full(shape, np.nan)
    padded[np.arange(width) < lengths[:, None]] = flat
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
