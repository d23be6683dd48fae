"""The one way in and out of a sky store: one Icechunk repository per survey, one commit per batch.

Layout (y goes up, as FITS has it; B bands, S the side of the size class):

==============================  ==============  ========  ==========================================================
array                           shape           dtype     meaning
==============================  ==============  ========  ==========================================================
``<S>/<bands>/<unit>/flux``     object B S S    float32   in the group's unit per pixel, as the source gave it
``.../valid``                   object B S S    bool      there is data; false beyond the object's shape
``.../ivar``                    object B S S    float32   inverse variance; 0 = not known or bad
``.../maskbits``                object B S S    int32     the survey's own bits
``.../segmentation``            object S S      int32     0 sky, 1 the object, 2 and up its neighbours
``.../shape``                   object 2        int32     rows and columns of each object
``.../object``, ``.../band``    object; B       string    ids and band names
``large/<digest>/...``          as above, 1     as above  an object larger than every class, not padded
``objects/record``              record          string    one JSON row per object as written, in order of arrival
``objects/psf``                 pixel           float32   images of point spread functions, one after another
==============================  ==============  ========  ==========================================================

A chunk is one object, so a batch rewrites no other. What is 0 all over (no mask bits, no variance) is not stored, and
padding compresses to nothing. An object written again gets a new row: the last record of an id is in force, older
snapshots keep the older one. ``catalogue.parquet`` beside the repository is made from the records; whoever reads
another state than the file's takes from it what still holds, and reads only the records that are missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
import zarr

from storage.chunks import read_chunks, write_chunks
from storage.cutouts import Cutout
from storage.errors import NotFound, TileBusy
from storage.location import Location, resolve
from storage.locks import hold
from storage.repository import BRANCH, open_or_make_repository, open_repository, read_session
from storage.schema import encode_record
from storage.sky_catalogue import (
    empty_catalogue,
    merge_rows,
    select_rows,
    table_of,
    to_catalogue,
    with_text_ids,
    write_catalogue,
)
from storage.sky_schema import (
    PLANES,
    SkyGroup,
    check_cutout,
    check_structure,
    describe,
    digest_of,
    group_of,
    lay_out_group,
    lay_out_store,
    read_record,
    root_attributes,
    to_cutout,
)

PIECE_BYTES = 64 * 1024**2
CHUNKS_PER_MANIFEST = 2048
"""What a commit lists anew: the objects beside those that it adds, and not the whole store."""
_COMMIT_ATTEMPTS = 10


def append_cutouts(
    location: Location, cutouts: Sequence[Cutout], *, batch: str, terms: str = "", wait_s: float = 600.0
) -> str:
    """Write a batch of cutouts in one commit and return the snapshot's id.

    An object that is there with equal content is left as it is; one that is there with other content gets a new row,
    which is in force from then on. Where nothing is new nothing is committed, so a batch can be written again.

    Parameters
    ----------
    location : Location
        ``sky/<survey>`` in the warehouse; made where there is none.
    cutouts : sequence of Cutout
        Any sizes, bands and units.
    batch : str
        Name of the batch, kept with each object.
    terms : str
        Licence and acknowledgement, for a store that is made now; by default what is known of the survey.
    wait_s : float
        How long to wait for another writer of this machine.

    Raises
    ------
    SchemaMismatch
        Where a cutout's arrays do not fit each other; nothing of the batch is in then.
    TileBusy
        Where other writers keep the store.
    """
    for cutout in cutouts:
        check_cutout(cutout)
    digests = [digest_of(cutout) for cutout in cutouts]
    with hold(location, wait_s):
        for _ in range(_COMMIT_ATTEMPTS):
            # on an object store another writer may commit first: what is new is asked again then
            with contextlib.suppress(icechunk.ConflictError):
                return _append(location, cutouts, digests, batch=batch, terms=terms)
    raise TileBusy(f"{location}: other writers committed {_COMMIT_ATTEMPTS} times meanwhile; batch {batch} is not in")


class SkyReader:
    """Reads one state of a sky store; safe to share between threads.

    Parameters
    ----------
    location : Location
        ``sky/<survey>`` in the warehouse.
    snapshot : str, optional
        An older state; by default the newest.

    Raises
    ------
    NotFound
        Where there is no store, or no such snapshot.
    """

    def __init__(self, location: Location, snapshot: str | None = None) -> None:
        self.location = location
        self._session = read_session(location, snapshot, what="sky store")
        self._root = _open_root(self._session)
        self._texts, self._psfs = _array(self._root, "objects/record"), _array(self._root, "objects/psf")
        self._table = table_of(location, self.snapshot, self._texts, keep=snapshot is None)
        self._group = lru_cache(maxsize=256)(self._open_group)
        self._records = lru_cache(maxsize=64)(self._read_records)

    @property
    def snapshot(self) -> str:
        """Return the id of the state that is read."""
        return str(self._session.snapshot_id)

    @cached_property
    def catalogue(self) -> pd.DataFrame:
        """Return one row for each object in force, in order of arrival."""
        return self._table.to_pandas()

    def rows_of(self, ids: Iterable[str]) -> pd.DataFrame:
        """Return the catalogue's rows of those objects that are there, ids as strings."""
        return with_text_ids(select_rows(self._table, ids)).to_pandas()

    def sizes_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Return by id the bytes of the planes, uncompressed, of those objects that are there."""
        rows = self.rows_of(ids)
        return dict(zip(rows["object_id"], map(int, _bytes_of(rows)), strict=True)) if len(rows) else {}

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Return the id of every object as a string, in the order of the catalogue."""
        return tuple(map(str, self._table["object_id"].to_pylist()))

    def __contains__(self, object_id: str) -> bool:
        """Return whether there is such an object."""
        return object_id in self._places

    def read(self, object_id: str) -> Cutout:
        """Return one object as it was written; no other object is read.

        Raises
        ------
        NotFound
            Where there is none of that id.
        """
        path, row, index = self._place(object_id)
        record = self._record(index)
        arrays = self._group(path)
        rows, columns = record["shape"]
        is_large = path.startswith("large/")
        wanted = [] if is_large else [(array, (row, *_at_zero(array))) for array in arrays.values()]
        images = _psf_pixels(record["psf"])
        side = self._psfs.chunks[0]
        wanted += [(self._psfs, (number,)) for number in range(images.start // side, -(-images.stop // side))]
        chunks = read_chunks(wanted)
        if is_large:
            planes = {name: np.asarray(array[0:1])[0] for name, array in arrays.items()}
        else:
            planes = {name: chunks.pop(0)[0, ..., :rows, :columns].copy() for name in arrays}
        held = np.concatenate(chunks)[images.start % side :] if chunks else np.empty(0, dtype=np.float32)
        return to_cutout(record, planes, _cut_psfs(record["psf"], held, images.start))

    def record(self, object_id: str) -> dict[str, Any]:
        """Return all that is kept of an object but its arrays, in JSON types.

        Raises
        ------
        NotFound
            Where there is none of that id.
        """
        return self._record(self._place(object_id)[2])

    def _place(self, object_id: str) -> tuple[str, int, int]:
        if object_id not in self._places:
            raise NotFound(f"{self.location}: no object {object_id!r} in snapshot {self.snapshot}")
        index = self._places[object_id]
        group, row, record = (self._table[name][index].as_py() for name in ("group", "row", "record"))
        return group, row, record

    @cached_property
    def _places(self) -> dict[str, int]:
        return {object_id: index for index, object_id in enumerate(self.ids)}

    def _record(self, index: int) -> dict[str, Any]:
        chunk = self._texts.chunks[0]
        return read_record(self._records(index // chunk)[index % chunk])

    def _read_records(self, chunk_index: int) -> list[str]:
        start = chunk_index * self._texts.chunks[0]
        return [str(text) for text in np.asarray(self._texts[start : start + self._texts.chunks[0]])]

    def _open_group(self, path: str) -> dict[str, zarr.Array]:
        group = self._root[path]
        assert isinstance(group, zarr.Group)
        return {plane.name: _array(group, plane.name) for plane in PLANES}


def open_sky(url: str | Location, snapshot: str | None = None) -> dict[str, xr.Dataset]:
    """Return a sky store as lazy Datasets, one per group, to look at in a notebook.

    Parameters
    ----------
    url : str or Location
        The store's folder or prefix, e.g. ``warehouse/sky/legacy``.
    snapshot : str, optional
        An older state of the store; by default the newest.

    Returns
    -------
    dict of str to Dataset
        By group, ``<size>/<bands>/<unit>``: ``flux``, ``valid``, ``ivar``, ``maskbits (object, band, y, x)``,
        ``segmentation (object, y, x)``, ``shape (object, axis)``; coordinates ``object`` (id), ``band``, ``ra``, ``dec``,
        ``pixel_scale_arcsec`` and ``batch``. Only objects in force.

    Raises
    ------
    NotFound
        Where there is no store, or no such snapshot.
    """
    location = url if isinstance(url, Location) else resolve(url)
    reader = SkyReader(location, snapshot)
    frame = reader.catalogue.assign(object_id=list(reader.ids))
    return {str(path): _open_dataset(reader, str(path), rows) for path, rows in frame.groupby("group", sort=True)}


@dataclass(frozen=True)
class SkyState:
    """What a sky store holds.

    Parameters
    ----------
    snapshot : str
        Its newest state.
    written : datetime
        When that was committed, UTC.
    objects : int
        In force.
    bytes : int
        Of their planes as they come out, uncompressed.
    last_batch : str
        Name of the batch that came in last; empty where none did.
    """

    snapshot: str
    written: datetime
    objects: int
    bytes: int
    last_batch: str


def read_sky_state(location: Location) -> SkyState:
    """Return what a store holds, from its catalogue.

    Raises
    ------
    NotFound
        Where there is no store.
    """
    reader = SkyReader(location)
    table = reader.catalogue
    size = int(_bytes_of(table).sum()) if len(table) else 0
    written = open_repository(location).lookup_snapshot(reader.snapshot).written_at
    return SkyState(reader.snapshot, written, len(table), size, str(table["batch"].iloc[-1]) if len(table) else "")


def _bytes_of(table: pd.DataFrame) -> pd.Series:
    """Return the size of the planes of each row of a catalogue, uncompressed."""
    bands = table["bands"].str.count(",") + 1
    of_pixel = sum(np.dtype(plane.dtype).itemsize * (bands if plane.has_bands else 1) for plane in PLANES)
    return table["rows"] * table["columns"] * of_pixel


@dataclass(frozen=True)
class _Placed:
    """A cutout with the place that it gets."""

    cutout: Cutout
    digest: str
    group: SkyGroup
    row: int


def _append(location: Location, cutouts: Sequence[Cutout], digests: Sequence[str], *, batch: str, terms: str) -> str:
    """Write what is new and commit it, on top of the newest state."""
    repository = open_or_make_repository(location, chunks_per_manifest=CHUNKS_PER_MANIFEST)
    session = repository.writable_session(BRANCH)
    parent = session.snapshot_id
    root, is_new = _open_or_lay_out(session, location.name, terms)
    table = empty_catalogue() if is_new else table_of(location, str(parent), _array(root, "objects/record"), keep=False)
    fresh = _what_is_new(cutouts, digests, table)
    if not fresh and not is_new:
        return str(parent)
    placed = _place(root, fresh)
    records = _write(root, placed, batch)
    snapshot = str(session.commit(f"{batch}: {len(placed)} object(s)"))
    write_catalogue(location, merge_rows(table, to_catalogue(records)), snapshot)
    return snapshot


def _open_or_lay_out(session: icechunk.Session, survey: str, terms: str) -> tuple[zarr.Group, bool]:
    try:
        root = zarr.open_group(session.store, mode="r+")
    except FileNotFoundError:
        root = zarr.create_group(session.store, attributes=root_attributes(survey, terms))
        lay_out_store(root)
        return root, True
    check_structure(root)
    return root, False


def _what_is_new(cutouts: Sequence[Cutout], digests: Sequence[str], table: pa.Table) -> list[tuple[Cutout, str]]:
    there = select_rows(table, [cutout.object_id for cutout in cutouts])
    known = dict(zip(map(str, there["object_id"].to_pylist()), there["digest"].to_pylist(), strict=True))
    fresh = []
    for cutout, digest in zip(cutouts, digests, strict=True):
        if known.get(cutout.object_id) != digest:
            known[cutout.object_id] = digest
            fresh.append((cutout, digest))
    return fresh


def _place(root: zarr.Group, fresh: list[tuple[Cutout, str]]) -> list[_Placed]:
    """Give each cutout the next row of its group; groups that are not there are made."""
    ends: dict[str, int] = {}
    placed = []
    for cutout, digest in fresh:
        group = group_of(cutout, digest)
        if group.path not in ends:
            ends[group.path] = _array(root, f"{group.path}/shape").shape[0] if group.path in root else 0
            if group.path not in root:
                lay_out_group(root, group)
        placed.append(_Placed(cutout, digest, group, ends[group.path]))
        ends[group.path] += 1
    return placed


def _write(root: zarr.Group, placed: list[_Placed], batch: str) -> list[dict[str, Any]]:
    """Write arrays and records of all objects, and return the records with their index."""
    for path in dict.fromkeys(row.group.path for row in placed):
        group = root[path]
        assert isinstance(group, zarr.Group)
        _write_group(group, [row for row in placed if row.group.path == path])
    places = _write_psfs(_array(root, "objects/psf"), [row.cutout for row in placed])
    records = [
        describe(row.cutout)
        | {"batch": batch, "group": row.group.path, "row": row.row, "digest": row.digest, "psf": psf}
        for row, psf in zip(placed, places, strict=True)
    ]
    table = _array(root, "objects/record")
    start = table.shape[0]
    _extend(table, np.array([encode_record(record) for record in records], dtype=object))
    return [record | {"record": start + index} for index, record in enumerate(records)]


def _write_group(group: zarr.Group, placed: list[_Placed]) -> None:
    """Write the rows of one group, which follow each other."""
    place = placed[0].group
    for plane in PLANES:
        array = _array(group, plane.name)
        array.resize(place.shape(plane, placed[-1].row + 1))
        if place.is_large:
            array[0:1] = getattr(placed[0].cutout, plane.name)[None]
            continue
        for piece in _pieces(placed, int(np.prod(array.chunks)) * array.dtype.itemsize):
            write_chunks(array, [((row.row, *_at_zero(array)), _padded(row, plane.name, array)) for row in piece])
    _extend(_array(group, "shape"), np.array([row.cutout.shape for row in placed], dtype=np.int32))
    _extend(_array(group, "object"), np.array([row.cutout.object_id for row in placed], dtype=object))


def _pieces(placed: list[_Placed], object_bytes: int) -> Iterator[list[_Placed]]:
    """Yield runs of objects that fit into memory together."""
    length = max(1, PIECE_BYTES // max(1, object_bytes))
    for start in range(0, len(placed), length):
        yield placed[start : start + length]


def _padded(placed: _Placed, name: str, array: zarr.Array) -> np.ndarray:
    values = np.zeros(array.chunks, dtype=array.dtype)
    rows, columns = placed.cutout.shape
    values[0, ..., :rows, :columns] = getattr(placed.cutout, name)
    return values


def _write_psfs(array: zarr.Array, cutouts: list[Cutout]) -> list[list[list[int] | None]]:
    """Append all images, and return where each begins and its shape, per object and band."""
    start, images, places = array.shape[0], [], []
    for cutout in cutouts:
        row: list[list[int] | None] = []
        for band in cutout.bands:
            if band.psf is None:
                row.append(None)
                continue
            row.append([start, *band.psf.shape])
            images.append(band.psf.ravel())
            start += band.psf.size
        places.append(row)
    if images:
        _extend(array, np.concatenate(images))
    return places


def _psf_pixels(places: list[list[int] | None]) -> slice:
    """Return where the images of an object lie, which follow each other."""
    known = [place for place in places if place is not None]
    if not known:
        return slice(0, 0)
    last, rows, columns = known[-1]
    return slice(known[0][0], last + rows * columns)


def _cut_psfs(places: list[list[int] | None], held: np.ndarray, first: int) -> list[np.ndarray | None]:
    """Return each image of an object, or None, from its pixels, which begin at `first`."""
    return [
        None if place is None else held[place[0] - first :][: place[1] * place[2]].reshape(place[1:]).copy()
        for place in places
    ]


def _at_zero(array: zarr.Array) -> tuple[int, ...]:
    """Return the place of the first chunk on every axis but the first."""
    return tuple(0 for _ in array.chunks[1:])


def _extend(array: zarr.Array, values: np.ndarray) -> None:
    """Append to the first axis."""
    if not len(values):
        return
    start = array.shape[0]
    array.resize((start + len(values), *array.shape[1:]))
    array[start : start + len(values)] = values


def _open_root(session: icechunk.Session) -> zarr.Group:
    try:
        root = zarr.open_group(session.store, mode="r")
    except FileNotFoundError as error:
        raise NotFound("the repository holds no sky store yet: its first writer was stopped, or is at work") from error
    check_structure(root)
    return root


def _array(group: zarr.Group, name: str) -> zarr.Array:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def _open_dataset(reader: SkyReader, path: str, rows: pd.DataFrame) -> xr.Dataset:
    stored = xr.open_zarr(reader._session.store, group=path, consolidated=False, mask_and_scale=False, chunks={})
    rows = rows.sort_values("row")
    group = stored.isel(object=rows["row"].to_numpy())
    degrees = {"units": "degree"}
    coordinates = {
        "ra": ("object", rows["ra"], degrees | {"standard_name": "right_ascension", "long_name": "target, ICRS"}),
        "dec": ("object", rows["dec"], degrees | {"standard_name": "declination", "long_name": "target, ICRS"}),
        "pixel_scale_arcsec": (
            "object",
            rows["pixel_scale_arcsec"],
            {"units": "arcsec", "long_name": "side of a pixel"},
        ),
        "batch": ("object", rows["batch"].to_numpy(dtype=object), {"long_name": "batch that wrote the object"}),
    }
    group = group.assign_coords(coordinates).assign_attrs(dict(reader._root.attrs) | group.attrs)
    return group.assign_attrs({"canopus:snapshot": reader.snapshot})
