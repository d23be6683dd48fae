"""The rows of many batches, read a piece at a time, and what has to be known of all of them before a file can be begun."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import SchemaMismatch
from storage.location import Location, resolve
from tasks.sky.profile_files import widths_of
from tasks.sky.profile_table import SCHEMA

PIECE_ROWS = 8192
"""Rows in memory at once; profiles of 60 radii take 5 kB each, padded twice as much."""
MEDIANS = ("r25_arcsec", "half_light_radius_arcsec", "magnitude", "total_magnitude", "psf_fwhm_arcsec", "seconds")
NARROW = ("object_id", "band", "state", "reason", "method", "ra", "dec", *MEDIANS)
"""Columns that are summed up over all rows: no lists among them."""


@dataclass(frozen=True)
class ProfileRows:
    """The rows of batches in their order, again and again.

    Parameters
    ----------
    batches : sequence of Location, str or Path
        Parquet files of `tasks.sky.profile_table.SCHEMA`.
    integer_ids : bool
        Whether ids come as int64, else as strings.
    """

    batches: Sequence[Location | str | Path]
    integer_ids: bool

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield tables of `PIECE_ROWS` rows, the last one of what is left; an empty one where there are no rows.

        Raises
        ------
        SchemaMismatch
            Where a batch has another schema, or an id is no integer that should be.
        """
        waiting, count, none = [SCHEMA.empty_table()], 0, True
        for batch in self.batches:
            waiting.append(_read(batch))
            count += waiting[-1].num_rows
            while count >= PIECE_ROWS:
                joined = pa.concat_tables(waiting)
                yield self._with_ids(joined.slice(0, PIECE_ROWS))
                waiting, count, none = [joined.slice(PIECE_ROWS)], count - PIECE_ROWS, False
        if count or none:
            yield self._with_ids(pa.concat_tables(waiting))

    @cached_property
    def known(self) -> Known:
        """Return what one reading of all rows tells."""
        return survey(self)

    def _with_ids(self, table: pa.Table) -> pa.Table:
        table = table.combine_chunks()
        if not self.integer_ids:
            return table
        try:
            ids = pc.cast(table["object_id"], pa.int64())
        except pa.ArrowInvalid as error:
            raise SchemaMismatch(
                f"object ids are not all integers ({error}); publish with integer_ids=False"
            ) from error
        return table.set_column(0, SCHEMA.field("object_id").with_type(pa.int64()), ids)


@dataclass(frozen=True)
class Known:
    """What is known of all rows.

    Parameters
    ----------
    narrow : Table
        The columns `NARROW` of every row.
    digest : str
        SHA-256 of all values but the seconds that measuring took: equal results, equal digest, however they are cut.
    widths : dict of str to int
        The longest list or text of each column that has some, as files of fixed width need it.
    """

    narrow: pa.Table
    digest: str
    widths: dict[str, int]


def survey(pieces: Iterable[pa.Table]) -> Known:
    """Return what one reading of pieces tells of all rows."""
    narrow, hashes, widths = [], _Hashes(), dict[str, int]()
    for piece in pieces:
        narrow.append(piece.select(NARROW))
        hashes.add(piece)
        for name, width in widths_of(piece).items():
            widths[name] = max(width, widths.get(name, 1))
    return Known(pa.concat_tables(narrow).combine_chunks(), hashes.digest(), widths)


class _Hashes:
    """A digest of each column, which grows by pieces: what an array says, however it lies in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, hashlib._Hash] = {}

    def add(self, table: pa.Table) -> None:
        for name in table.column_names:
            if name != "seconds":
                self._add(name, table[name].combine_chunks())

    def digest(self) -> str:
        named = (f"{name} {part.hexdigest()}\n" for name, part in self._parts.items())
        return hashlib.sha256("".join(named).encode()).hexdigest()

    def _add(self, name: str, values: pa.Array) -> None:
        if pa.types.is_list(values.type):
            self._update(f"{name} length", pc.fill_null(pc.list_value_length(values), -1))
            self._add(f"{name} value", values.flatten())
        elif pa.types.is_string(values.type):
            self._update(f"{name} length", pc.fill_null(pc.binary_length(values), -1))
            self._part(f"{name} text").update("".join(text or "" for text in values.to_pylist()).encode())
        else:
            self._part(f"{name} null").update(values.is_null().to_numpy(zero_copy_only=False).astype(np.uint8).data)
            self._update(name, pc.fill_null(values, 0))

    def _update(self, name: str, values: pa.Array) -> None:
        self._part(name).update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data)

    def _part(self, name: str) -> hashlib._Hash:
        return self._parts.setdefault(name, hashlib.sha256())


def _read(batch: Location | str | Path) -> pa.Table:
    location = batch if isinstance(batch, Location) else resolve(batch)
    data = Location(location.url.rsplit("/", 1)[0]).read_bytes(location.name)
    table = pq.read_table(io.BytesIO(data))
    if not table.schema.equals(SCHEMA):
        differing = sorted({str(field) for field in table.schema} ^ {str(field) for field in SCHEMA})
        raise SchemaMismatch(f"{batch} holds no profiles of this version: {', '.join(differing)}")
    return table.replace_schema_metadata()
