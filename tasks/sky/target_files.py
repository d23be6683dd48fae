"""Tables of targets from files, whole numbers kept whole."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.errors import ConfigurationError
from tasks.sky.target_columns import Column

if TYPE_CHECKING:
    from astropy.table import Table

_MISSING_TEXT = frozenset({"", "nan", "null", "none", "n/a", "na", "--", "-nan"})


def read_table(path: Path) -> list[Column]:
    """Return the columns of a table, told apart by its first bytes and not by its name.

    Raises
    ------
    ConfigurationError
        No such file, or none that can be read as a table.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _read(_unpacked(body), path)
    except ConfigurationError:
        raise
    except (ValueError, TypeError, OSError, KeyError, IndexError, EOFError) as error:
        raise ConfigurationError(f"{path} cannot be read as a table: {' '.join(str(error).split())[:200]}") from error


def columns_of(table: Table) -> list[Column]:
    """Return the columns of an astropy table that have one value a row."""
    return [_column_of(table[name], name) for name in table.colnames if len(table[name].shape) == 1]


def _read(body: bytes, path: Path) -> list[Column]:
    if body.startswith(b"PAR1"):
        return _from_parquet(body)
    if body.startswith(b"SIMPLE"):
        return _from_fits(body, path)
    start = body[:2000].lstrip().lower()
    if start.startswith((b"<?xml", b"<votable")) or b"<votable" in start:
        return _from_votable(body, path)
    text = body.decode("utf-8-sig", errors="replace")
    if text.startswith("# %ECSV"):
        from astropy.table import Table

        return columns_of(Table.read(text, format="ascii.ecsv"))
    return _from_text(text, path)


def _unpacked(body: bytes) -> bytes:
    if body.startswith(b"\x1f\x8b"):
        return gzip.decompress(body)
    return bz2.decompress(body) if body.startswith(b"BZh") else body


def _from_parquet(body: bytes) -> list[Column]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(body))
    return [
        _from_arrow(name, table.column(name)) for name in table.column_names if not pa.types.is_nested(table[name].type)
    ]


def _from_arrow(name: str, column: Any) -> Column:
    import pyarrow as pa

    missing = np.asarray(column.is_null())
    if pa.types.is_integer(column.type):
        values = np.array([value or 0 for value in column.to_pylist()], dtype=object)
        return Column(name, _whole(values), missing)
    if pa.types.is_floating(column.type):
        return Column(name, np.asarray(column.to_numpy(), dtype=float), missing)
    return Column(name, np.array([_text(value) for value in column.to_pylist()], dtype=object), missing)


def _from_fits(body: bytes, path: Path) -> list[Column]:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(io.BytesIO(body), memmap=False) as units:
        tables = [unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise ConfigurationError(f"{path} is a FITS file without a table")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)  # units that astropy does not know
            return columns_of(Table.read(tables[0]))


def _from_votable(body: bytes, path: Path) -> list[Column]:
    from astropy.io import votable

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=votable.exceptions.VOWarning)
        warnings.simplefilter("ignore", category=UserWarning)
        found = votable.parse(io.BytesIO(body), verify="ignore")
        tables = [table for table in found.iter_tables() if len(table.fields)]
        if not tables:
            raise ConfigurationError(f"{path} is a VOTable without a table{_said(found)}")
        return columns_of(tables[0].to_table(use_names_over_ids=True))


def _said(found: Any) -> str:
    said = [str(info.value).strip() for info in found.infos if info.name == "Error" and str(info.value).strip()]
    return f": {said[0]}" if said else ""


def _from_text(text: str, path: Path) -> list[Column]:
    lines = [line for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and lines[0].startswith("#") and not _heads(lines[0], lines[1]):
        lines = lines[1:]
    lines = [lines[0].lstrip("# ").rstrip(), *(line for line in lines[1:] if not line.startswith("#"))] if lines else []
    if not lines or not lines[0]:
        raise ConfigurationError(f"{path} is empty")
    mark = _delimiter(lines[0])
    rows = [
        [cell.strip() for cell in row]
        for row in csv.reader([line.strip() for line in lines], delimiter=mark, skipinitialspace=True)
    ]
    names, width = rows[0], len(rows[0])
    if width < 2 or all(_is_number(name) for name in names):
        raise ConfigurationError(f"{path} does not begin with the names of its columns: {lines[0][:80]!r}")
    # A row of another length says nothing that can be trusted: what it says in place of a position makes it a bad one.
    full = [row if len(row) == width else [f"{len(row)} cells where {width} are expected"] * width for row in rows[1:]]
    return [_text_column(name, [row[place] for row in full]) for place, name in enumerate(names)]


def _heads(line: str, following: str) -> bool:
    """Return whether a commented line holds the names for the line after it."""
    mark = _delimiter(following)
    words = next(csv.reader([line.lstrip("# ").strip()], delimiter=mark, skipinitialspace=True), [])
    cells = next(csv.reader([following.strip()], delimiter=mark, skipinitialspace=True), [])
    return not following.startswith("#") and len(words) == len(cells) > 1 and any(_is_number(cell) for cell in cells)


def _delimiter(line: str) -> str:
    return next((mark for mark in (",", "\t", ";", "|") if mark in line), " ")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_column(name: str, cells: Sequence[str]) -> Column:
    missing = np.array([cell.lower() in _MISSING_TEXT for cell in cells], dtype=bool)
    return Column(name, np.array(cells, dtype=object), missing)


def _column_of(column: Any, name: str) -> Column:
    missing = (
        np.array(np.ma.getmaskarray(column), dtype=bool) if hasattr(column, "mask") else np.zeros(len(column), bool)
    )
    values = np.ma.getdata(np.asanyarray(column.filled(0) if _is_masked_number(column) else column))
    unit, ucd = str(column.unit or ""), str((getattr(column, "meta", None) or {}).get("ucd", ""))
    if values.dtype.kind in "iu":
        return Column(name, _whole(values), missing, unit, ucd)
    if values.dtype.kind == "f":
        return Column(name, values.astype(float), missing | ~np.isfinite(values), unit, ucd)
    texts = np.array([_text(value) for value in values], dtype=object)
    return Column(name, texts, missing | np.array([text.lower() in _MISSING_TEXT for text in texts], bool), unit, ucd)


def _is_masked_number(column: Any) -> bool:
    return hasattr(column, "filled") and column.dtype.kind in "iuf"


def _whole(values: np.ndarray) -> np.ndarray:
    """Return whole numbers as int64, or as text where one is too large for it."""
    if len(values) and int(max(values)) >= 2**63:
        return np.array([str(int(value)) for value in values], dtype=object)
    return values.astype(np.int64)


def _text(value: object) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
