"""The catalogue of a sky store: one row for each object in force, in Parquet beside the repository.

The records of the store are the truth, and a record is never changed: a row that is in force in one state is in force in
every other one that holds it and no later record of its id.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr

from storage.errors import LocationFailed, NotFound
from storage.location import Location
from storage.repository import has_snapshot
from storage.sky_schema import read_record

CATALOGUE = "catalogue.parquet"
SNAPSHOT_KEY = b"canopus:snapshot"
_INT64 = 2**63
_INTEGER = "^(0|-?[1-9][0-9]{0,18})$"

_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int64()
CATALOGUE_COLUMNS = {
    "object_id": _TEXT,
    "ra": _NUMBER,
    "dec": _NUMBER,
    "bands": _TEXT,
    "rows": _COUNT,
    "columns": _COUNT,
    "pixel_scale_arcsec": _NUMBER,
    "flux_unit": _TEXT,
    "calibrated": pa.bool_(),
    "ivar_source": _TEXT,
    "release": _TEXT,
    "source": _TEXT,
    "notes": _TEXT,
    "batch": _TEXT,
    "group": _TEXT,
    "row": _COUNT,
    "record": _COUNT,
    "digest": _TEXT,
}
"""Columns of the catalogue; `object_id` is int64 where the id of every object is an integer."""


def table_of(location: Location, snapshot: str, texts: zarr.Array, *, keep: bool) -> pa.Table:
    """Return the catalogue of a state: as it lies beside the store where it is of this state.

    What is in force in another state and was written by this one's end is in force here; the other records are read.
    """
    table, of = _stored_catalogue(location)
    if of == snapshot:
        return table
    known = table if of and has_snapshot(location, of) else empty_catalogue()
    known = known.filter(pc.less(known["record"], texts.shape[0]))
    missing = np.setdiff1d(np.arange(texts.shape[0]), known["record"].to_numpy())
    table = merge_rows(known, to_catalogue(_records_at(texts, missing)))
    if keep:
        # who may only read makes it again each time
        with contextlib.suppress(LocationFailed):
            write_catalogue(location, table, snapshot)
    return table


def _stored_catalogue(location: Location) -> tuple[pa.Table, str]:
    """Return the catalogue beside a store, and which state it is of; empty where there is none."""
    try:
        table = pq.read_table(io.BytesIO(location.read_bytes(CATALOGUE)))
    except (NotFound, pa.ArrowInvalid):
        return empty_catalogue(), ""
    return table, (table.schema.metadata or {}).get(SNAPSHOT_KEY, b"").decode()


def _records_at(texts: zarr.Array, places: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the records at some places, in order; chunks without any are not read."""
    side = texts.chunks[0]
    for chunk in np.unique(places // side):
        held = np.asarray(texts[chunk * side : (chunk + 1) * side])
        for place in places[places // side == chunk]:
            yield read_record(str(held[place % side])) | {"record": int(place)}


def write_catalogue(location: Location, table: pa.Table, snapshot: str) -> None:
    """Write the catalogue of a state beside its store."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({SNAPSHOT_KEY: snapshot.encode()}), buffer, compression="zstd")
    location.write_bytes(CATALOGUE, buffer.getvalue())


def empty_catalogue() -> pa.Table:
    """Return a catalogue without rows."""
    return pa.schema(CATALOGUE_COLUMNS).empty_table()


def to_catalogue(records: Iterable[dict[str, Any]]) -> pa.Table:
    """Return the rows of a catalogue, ids as strings."""
    return pa.Table.from_pylist([_to_row(record) for record in records], schema=pa.schema(CATALOGUE_COLUMNS))


def _to_row(record: dict[str, Any]) -> dict[str, Any]:
    bands = record["bands"]
    row = {name: record[name] for name in CATALOGUE_COLUMNS if name in record}
    return row | {
        "object_id": record["object"],
        "bands": _joined(band["name"] for band in bands),
        "rows": record["shape"][0],
        "columns": record["shape"][1],
        "calibrated": all(band["calibrated"] for band in bands),
        "ivar_source": _joined(dict.fromkeys(band["ivar_source"] for band in bands)),
        "release": _joined(dict.fromkeys(band["release"] for band in bands if band["release"])),
        "notes": "; ".join(record["notes"]),
    }


def _joined(words: Iterable[str]) -> str:
    return ",".join(words)


def merge_rows(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return the rows in force, in order of arrival: of rows of one id the last; ids int64 where all are integers."""
    old = with_text_ids(old)
    shared = pc.is_in(old["object_id"], value_set=new["object_id"].combine_chunks())
    rivals = pa.concat_tables([old.filter(shared), new]).sort_by("record")
    last = {object_id: index for index, object_id in enumerate(rivals["object_id"].to_pylist())}
    winners = rivals.take(pa.array(last.values(), type=_COUNT))
    table = pa.concat_tables([old.filter(pc.invert(shared)), winners]).sort_by("record")
    if len(table) and pc.all(pc.match_substring_regex(table["object_id"], _INTEGER)).as_py():
        with contextlib.suppress(pa.ArrowInvalid):  # more digits than 64 bits hold
            return table.set_column(0, "object_id", table["object_id"].cast(_COUNT))
    return table


def select_rows(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    """Return the rows of some ids."""
    kind = table["object_id"].type
    values = list(ids) if kind == _TEXT else [int(object_id) for object_id in ids if _is_int64(object_id)]
    return table.filter(pc.is_in(table["object_id"], value_set=pa.array(values, type=kind)))


def with_text_ids(table: pa.Table) -> pa.Table:
    """Return rows whose ids are strings."""
    return table.set_column(0, "object_id", table["object_id"].cast(_TEXT))


def _is_int64(text: str) -> bool:
    """Return whether a string is what an int64 is printed as."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return False
    return str(int(text)) == text and -_INT64 <= int(text) < _INT64
