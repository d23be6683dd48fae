"""The one way in and out of an Earth cube: one Icechunk repository per tile, one commit per date.

Layout (dimension order is fixed; y goes down):

==================  =======================  ========  ======================================================
array               dimensions               dtype     meaning
==================  =======================  ========  ======================================================
``reflectance``     time, band, y, x         uint16    surface reflectance x 10,000; 0 = no data
``scl``             time, y, x               uint8     scene classes (or another mask's values); 0 = none
``time``            time                     int64     earliest sensing start of the entry, us since 1970 UTC
``scenes/record``   scene                    string    one JSON row per decision, in order of arrival
==================  =======================  ========  ======================================================

Chunks are one date x all bands x 256 x 256, a shard is one date of the whole tile: appending a date rewrites no other.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from zarr.codecs import BloscCodec

from storage.errors import NotFound, TileBusy
from storage.geozarr import coordinates
from storage.location import Location, resolve
from storage.locks import hold
from storage.regions import Region
from storage.repository import BRANCH, open_or_make_repository, open_repository, read_session
from storage.schema import (
    BAND_ATTRIBUTES,
    CHUNK,
    REFLECTANCE_SCALE,
    CubeSchema,
    encode_record,
)
from storage.shards import write_shard
from storage.validity import derive_valid

TIME_UNITS = "microseconds since 1970-01-01"
RECORD_CHUNK = 128
BLOSC_BLOCK_BYTES = 128 * 1024


@dataclass(frozen=True)
class CubeState:
    """What a cube holds at one snapshot.

    Parameters
    ----------
    snapshot : str
        Icechunk snapshot id.
    schema : CubeSchema
        Structure as stored.
    times : ndarray, shape (time,), datetime64[us]
        In order of arrival, not sorted.
    records : list of dict
        Every row of the `scenes` table, oldest first; the last row of a scene is the one in force.
    """

    snapshot: str
    schema: CubeSchema
    times: np.ndarray
    records: list[dict[str, Any]]

    def current_records(self) -> dict[str, dict[str, Any]]:
        """Return the row in force for each scene id."""
        return {record["scene"]: record for record in self.records}


@dataclass(frozen=True)
class DateEntry:
    """One date of one tile, ready to be written.

    Parameters
    ----------
    index : int or None
        Position of the date to rewrite; None appends.
    time : datetime64[us]
        Earliest sensing start, UTC.
    window : tuple of slice
        Rows and columns of the tile that the arrays cover; the rest of the tile is no data.
    reflectance : ndarray, shape (band, y, x), uint16
        Reflectance x 10,000, 0 = no data.
    scl : ndarray, shape (y, x), uint8
        Mask values, 0 = none.
    records : tuple of dict
        Rows for the `scenes` table; ``entry`` is filled in by the writer.
    """

    index: int | None
    time: np.datetime64
    window: tuple[slice, slice]
    reflectance: np.ndarray
    scl: np.ndarray
    records: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class SeriesBlock:
    """All looks at one region of a cube, sorted by time.

    Parameters
    ----------
    reflectance : ndarray, shape (time, band, y, x), uint16
        Reflectance x 10,000, 0 = no data.
    valid : ndarray, shape (time, y, x), bool
        Clear, away from clouds, and with data in every band.
    times : ndarray, shape (time,), datetime64[us]
        Sensing start, UTC.
    geobox : GeoBox or None
        Where it lies; None where that is of no matter.
    """

    reflectance: np.ndarray
    valid: np.ndarray
    times: np.ndarray
    geobox: GeoBox | None = None


def create_cube(location: Location, schema: CubeSchema, *, wait_s: float = 600.0) -> None:
    """Make an empty cube; where one stands already, check that it has this structure.

    Raises
    ------
    SchemaMismatch
        Where the stored cube differs; the message names every difference.
    TileBusy
        Where another process keeps the tile for longer than `wait_s` and has not made it.
    """
    if _stands(location, schema):
        return
    # on a folder two first writers would both commit, and one's dates be lost
    with hold(location, wait_s):
        _make_cube(location, schema)


def read_state(location: Location, snapshot: str | None = None) -> CubeState:
    """Return what a cube holds, from its metadata alone.

    Raises
    ------
    NotFound
        Where there is no cube, or no such snapshot.
    """
    return _state(read_session(location, snapshot, what="cube"))


def open_cube(
    url: str | Location,
    snapshot: str | None = None,
    *,
    allow_unmasked: bool = False,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Return a cube as a lazy Dataset of physical values.

    Parameters
    ----------
    url : str or Location
        The tile's folder or prefix, e.g. ``warehouse/earth/utm30n-10m/x42y563``.
    snapshot : str, optional
        An older state of the cube; by default the newest.
    allow_unmasked : bool
        Whether a look without a mask (an item that had no SCL) counts as valid where it has data.
    chunks : mapping of dimension to int, optional
        Dask chunks; by default one date and 256 x 256 pixels, as stored.

    Returns
    -------
    Dataset
        ``reflectance (time, band, y, x)`` float32, 0 to 1, NaN = no data; ``scl (time, y, x)`` uint8;
        ``valid (time, y, x)`` bool. Sorted by time; CF and GeoZarr attributes.

    Raises
    ------
    NotFound
        Where there is no cube, or no such snapshot.
    """
    location = url if isinstance(url, Location) else resolve(url)
    session = read_session(location, snapshot, what="cube")
    state = _state(session)
    stored = xr.open_zarr(
        session.store,
        consolidated=False,
        mask_and_scale=False,
        drop_variables="record",
        chunks=dict(chunks or {"time": 1, "band": -1, "y": CHUNK, "x": CHUNK}),
    )
    cube = stored.sortby("time").assign_coords(band=stored["band"].astype(str)).set_coords("spatial_ref")
    cube["valid"] = _lazy_valid(cube, state.schema, allow_unmasked=allow_unmasked)
    cube["reflectance"] = _to_physical(cube["reflectance"])
    cube.attrs["canopus:snapshot"] = state.snapshot
    return cube


def read_scenes(url: str | Location, snapshot: str | None = None) -> pd.DataFrame:
    """Return the `scenes` table: one row for each scene with every decision that was taken on it."""
    location = url if isinstance(url, Location) else resolve(url)
    rows = list(read_state(location, snapshot).current_records().values())
    return pd.DataFrame(rows).sort_values("scene", ignore_index=True) if rows else pd.DataFrame()


def read_block(
    location: Location,
    region: Region,
    *,
    snapshot: str | None = None,
    first: np.datetime64 | None = None,
    until: np.datetime64 | None = None,
    allow_unmasked: bool = False,
    since: int = 0,
) -> SeriesBlock:
    """Return all looks at one region, the mask grown as the cube's rule says.

    Parameters
    ----------
    location : Location
        The tile's cube.
    region : Region
        ``{"y": slice, "x": slice}`` in pixels of the tile.
    snapshot : str, optional
        State of the cube to read.
    first, until : datetime64, optional
        Leave out looks on earlier and on later days.
    allow_unmasked : bool
        As in `open_cube`.
    since : int
        Leave out dates that came before this one, in order of arrival.
    """
    session = read_session(location, snapshot, what="cube")
    group = zarr.open_group(session.store, mode="r")
    state = _state(session)
    rows, columns = region["y"], region["x"]
    halo_rows, halo_columns, inner = _with_halo(region, state.schema)
    order = _order_until(state.times, until)
    order = order[order >= since]
    if first is not None:
        order = order[state.times[order] >= first.astype("datetime64[D]")]
    # contiguous slices: fancy indices would read shard by shard
    held = slice(int(order.min(initial=len(state.times))), int(order.max(initial=-1)) + 1)
    reflectance = np.asarray(_array(group, "reflectance")[held, :, rows, columns])
    scl = np.asarray(_array(group, "scl")[held, halo_rows, halo_columns])
    valid = derive_valid(scl, state.schema.mask.clear, dilation=state.schema.mask.dilation)[:, inner[0], inner[1]]
    if allow_unmasked:
        valid |= scl[:, inner[0], inner[1]] == 0
    valid &= (reflectance != 0).all(axis=1)
    kept = order - held.start
    if not np.array_equal(kept, np.arange(len(reflectance))):
        reflectance, valid = reflectance[kept], valid[kept]
    return SeriesBlock(reflectance, valid, state.times[order], state.schema.geobox[rows, columns])


def read_clear(
    location: Location,
    region: Region,
    *,
    snapshot: str | None = None,
    until: np.datetime64 | None = None,
    allow_unmasked: bool = False,
) -> np.ndarray:
    """Return which looks the mask calls clear, next to clouds or not: (time, y, x) bool, sorted as in `read_block`."""
    session = read_session(location, snapshot, what="cube")
    state = _state(session)
    scl = np.asarray(_array(zarr.open_group(session.store, mode="r"), "scl")[:, region["y"], region["x"]])
    clear = derive_valid(scl, state.schema.mask.clear, dilation=0)
    if allow_unmasked:
        clear |= scl == 0
    return np.asarray(clear[_order_until(state.times, until)])


class CubeWriter:
    """Writes dates into one cube; made by `write_cube`, which holds the tile's lock."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._repository = open_repository(location)
        self._session = self._repository.writable_session(BRANCH)
        self._state = _state(self._session)

    @property
    def state(self) -> CubeState:
        """Return the cube as of the last commit."""
        return self._state

    def write(self, entry: DateEntry) -> str:
        """Write one date with its scene rows in one commit, and return the snapshot's id.

        Raises
        ------
        TileBusy
            Where another writer committed meanwhile: nothing of this date is in; plan again and go on.
        """
        index = len(self._state.times) if entry.index is None else entry.index
        rows = [record | {"entry": index} for record in entry.records]
        _write_date(self._group(), index, entry)
        times = np.concatenate([self._state.times[:index], [entry.time], self._state.times[index + 1 :]])
        return self._commit(f"{str(entry.time)[:10]}: {len(rows)} scene(s)", times, rows)

    def note(self, records: Sequence[dict[str, Any]]) -> str:
        """Add rows for scenes that have no pixel here, so that they are not read again; return the snapshot's id."""
        rows = [record | {"entry": None} for record in records]
        return self._commit(f"no pixels in {len(rows)} scene(s)", self._state.times, rows)

    def _group(self) -> zarr.Group:
        return zarr.open_group(self._session.store, mode="r+")

    def _commit(self, message: str, times: np.ndarray, rows: list[dict[str, Any]]) -> str:
        _append_records(self._group(), rows)
        try:
            snapshot = self._session.commit(message)
        except icechunk.ConflictError as error:
            raise TileBusy(f"{self.location}: another writer committed meanwhile; this date is not in") from error
        self._session = self._repository.writable_session(BRANCH)
        self._state = CubeState(snapshot, self._state.schema, times, self._state.records + rows)
        return snapshot


@contextlib.contextmanager
def write_cube(location: Location, *, wait_s: float = 600.0) -> Iterator[CubeWriter]:
    """Open a cube for writing, alone.

    On a folder the writer holds an OS file lock beside the cube, which the system releases when the process dies; on
    an object store the conditional commit decides, and the writer that comes second gets `TileBusy`.

    Raises
    ------
    TileBusy
        Where another process keeps the tile for longer than `wait_s`.
    """
    with hold(location, wait_s):
        yield CubeWriter(location)


def _stands(location: Location, schema: CubeSchema) -> bool:
    """Return whether the cube is there; it has to have this structure then."""
    try:
        session = read_session(location, None, what="cube")
    except NotFound:
        return False
    if not _is_cube(session.store):
        return False
    schema.require_same(CubeSchema.from_group(zarr.open_group(session.store, mode="r")), str(location))
    return True


def _make_cube(location: Location, schema: CubeSchema) -> None:
    while not _stands(location, schema):
        session = open_or_make_repository(location).writable_session(BRANCH)
        # the session is newer than the look before: another writer may have come in between
        if _is_cube(session.store):
            continue
        _lay_out(session.store, schema)
        with contextlib.suppress(icechunk.ConflictError):
            session.commit("create the cube")


def _state(session: icechunk.Session) -> CubeState:
    if not _is_cube(session.store):
        raise NotFound("the repository holds no cube yet: its first writer was stopped, or is at work; ingest again")
    group = zarr.open_group(session.store, mode="r")
    texts = np.asarray(_array(group, "scenes/record")[:])
    times = np.asarray(_array(group, "time")[:]).astype("datetime64[us]")
    return CubeState(session.snapshot_id, CubeSchema.from_group(group), times, [json.loads(text) for text in texts])


def _is_cube(store: Any) -> bool:
    try:
        return "reflectance" in zarr.open_group(store, mode="r")
    except FileNotFoundError:
        return False


def _lay_out(store: Any, schema: CubeSchema) -> None:
    group = zarr.create_group(store, attributes=schema.attributes())
    rows, columns = schema.tile_shape
    bands = len(schema.bands)
    # the smallest on real reflectance of all that write at over 300 MB/s on one core (docs/performance.md)
    compressor = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=BLOSC_BLOCK_BYTES)
    reflectance: dict[str, Any] = {
        "long_name": "surface reflectance",
        "standard_name": "surface_bidirectional_reflectance",
        "units": "1",
        "scale_factor": REFLECTANCE_SCALE,
        "add_offset": 0.0,
        "_FillValue": 0,
        "grid_mapping": "spatial_ref",
    }
    group.create_array(
        "reflectance",
        shape=(0, bands, rows, columns),
        chunks=(1, bands, CHUNK, CHUNK),
        shards=(1, bands, rows, columns),
        dtype="uint16",
        compressors=compressor,
        fill_value=0,
        dimension_names=("time", "band", "y", "x"),
        attributes=reflectance,
    )
    scl: dict[str, Any] = {
        "long_name": f"mask values ({schema.mask.asset})",
        "units": "1",
        "grid_mapping": "spatial_ref",
    }
    group.create_array(
        "scl",
        shape=(0, rows, columns),
        chunks=(1, CHUNK, CHUNK),
        shards=(1, rows, columns),
        dtype="uint8",
        compressors=compressor,
        fill_value=0,
        dimension_names=("time", "y", "x"),
        attributes=scl,
    )
    _lay_out_coordinates(group, schema)


def _lay_out_coordinates(group: zarr.Group, schema: CubeSchema) -> None:
    time: dict[str, Any] = {
        "standard_name": "time",
        "long_name": "sensing start",
        "units": TIME_UNITS,
        "calendar": "proleptic_gregorian",
    }
    group.create_array("time", shape=(0,), chunks=(4096,), dtype="int64", dimension_names=("time",), attributes=time)
    group.create_array("scenes/record", shape=(0,), chunks=(RECORD_CHUNK,), dtype=str, dimension_names=("scene",))
    bands: dict[str, Any] = {
        "long_name": "spectral band",
        "common_names": [BAND_ATTRIBUTES.get(band, (band, 0.0))[0] for band in schema.bands],
        "central_wavelength_nm": [BAND_ATTRIBUTES.get(band, (band, 0.0))[1] for band in schema.bands],
    }
    names = group.create_array(
        "band",
        shape=(len(schema.bands),),
        chunks=(len(schema.bands),),
        dtype=str,
        dimension_names=("band",),
        attributes=bands,
    )
    names[:] = np.array(schema.bands, dtype=object)
    for name, variable in coordinates(schema.geobox).items():
        values = np.asarray(variable.values)
        axis = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape or "auto",
            dtype=values.dtype,
            dimension_names=[str(name) for name in variable.dims],
            attributes=dict(variable.attrs),
        )
        axis[...] = values


def _write_date(group: zarr.Group, index: int, entry: DateEntry) -> None:
    reflectance, scl, time = group["reflectance"], group["scl"], group["time"]
    assert isinstance(reflectance, zarr.Array)
    assert isinstance(scl, zarr.Array)
    assert isinstance(time, zarr.Array)
    if index >= time.shape[0]:
        length = index + 1
        reflectance.resize((length, *reflectance.shape[1:]))
        scl.resize((length, *scl.shape[1:]))
        time.resize((length,))
    write_shard(reflectance, index, entry.reflectance, entry.window)
    write_shard(scl, index, entry.scl, entry.window)
    time[index : index + 1] = np.array([entry.time], dtype="datetime64[us]").astype("int64")


def _array(group: zarr.Group, name: str) -> zarr.Array:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def _append_records(group: zarr.Group, rows: list[dict[str, Any]]) -> None:
    table = group["scenes/record"]
    assert isinstance(table, zarr.Array)
    start = table.shape[0]
    table.resize((start + len(rows),))
    table[start : start + len(rows)] = np.array([encode_record(row) for row in rows], dtype=object)


def _lazy_valid(cube: xr.Dataset, schema: CubeSchema, *, allow_unmasked: bool) -> xr.DataArray:
    def derive(scl: np.ndarray) -> np.ndarray:
        valid = derive_valid(scl, schema.mask.clear, dilation=schema.mask.dilation)
        return valid | (scl == 0) if allow_unmasked else valid

    depth = {0: 0, 1: schema.mask.dilation, 2: schema.mask.dilation}
    # beyond the tile counts as clear, as in derive_valid
    clear = schema.mask.clear[0]
    masked = cube["scl"].data.map_overlap(derive, depth=depth, boundary=clear, dtype=bool)
    attributes = {"long_name": "clear look with data", "units": "1", "grid_mapping": "spatial_ref"}
    has_data = (cube["reflectance"] != 0).all("band")
    return (cube["scl"].copy(data=masked) & has_data).assign_attrs(attributes)


def _to_physical(stored: xr.DataArray) -> xr.DataArray:
    attributes = {
        key: value for key, value in stored.attrs.items() if key not in ("scale_factor", "add_offset", "_FillValue")
    }
    return (stored.astype(np.float32) * np.float32(REFLECTANCE_SCALE)).where(stored != 0).assign_attrs(attributes)


def _with_halo(region: Region, schema: CubeSchema) -> tuple[slice, slice, tuple[slice, slice]]:
    width = schema.mask.dilation
    outer, inner = [], []
    for axis, size in zip((region["y"], region["x"]), schema.tile_shape, strict=True):
        start = max(0, axis.start - width)
        outer.append(slice(start, min(size, axis.stop + width)))
        inner.append(slice(axis.start - start, axis.stop - start))
    return outer[0], outer[1], (inner[0], inner[1])


def _order_until(times: np.ndarray, until: np.datetime64 | None) -> np.ndarray:
    order = np.argsort(times, kind="stable")
    if until is None:
        return order
    return order[times[order] < until.astype("datetime64[D]") + np.timedelta64(1, "D")]
