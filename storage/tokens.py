"""Token stores: packed sequences as sharded Zarr, ``tokens/<name>/`` in the warehouse.

==============  ======================  =================  ====================================================
array           dimensions              dtype              meaning
==============  ======================  =================  ====================================================
``values``      sample, step, channel   uint16 or float32  dimensionless; see `TokenSchema` for the way back
``position``    sample, step, axis      float32            where a step stands; series: day and target day
``valid``       sample, step            bool               False is padding or a row that holds no sample
``place``       sample, index           int32              where a sample comes from; series: tile, row, column
==============  ======================  =================  ====================================================

One shard of each array is a unit of shuffling. Shards are written in groups, each with the state of what it was made
from; ``commits.json`` lists the groups that are whole and is written last. It also holds a checksum of every shard, so
that a reader never takes a shard that was rewritten meanwhile, or only in part, for the one that it asked for. A row
of the arrays that the list does not name is free.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BloscCodec

from storage.errors import NotFound, SchemaMismatch, TokensChanged
from storage.location import Location
from storage.locks import hold
from storage.manifest import content_hash

STRUCTURE_VERSION = 1
COMMITS = "commits.json"
CHUNK = 512
"""Samples of one chunk: small enough that a look at a few samples is cheap, large enough that a shard reads at once."""
_ARRAYS = ("values", "position", "valid", "place")


@dataclass(frozen=True)
class TokenChannel:
    """One channel of the values.

    Parameters
    ----------
    name, unit : str
        Unit of the physical quantity.
    scale, offset : float
        Physical quantity = value x scale + offset.
    """

    name: str
    unit: str = "1"
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class TokenAxis:
    """One axis of the positions."""

    name: str
    unit: str


@dataclass(frozen=True)
class TokenSchema:
    """The structure of a token store.

    Parameters
    ----------
    steps : int
        Most steps of one sample.
    channels : tuple of TokenChannel
        Of the values, in order.
    axes : tuple of TokenAxis
        Of the positions, in order.
    place : tuple of str
        Names of the numbers that say where a sample comes from.
    divisor, offset : float or None, float
        With a divisor, values are stored as uint16: value = stored / divisor + offset in float32, stored 0 is NaN.
        Without, they are stored as float32.
    shard : int
        Samples of one unit of shuffling.
    least : int
        Valid steps that a sample needs to be of use.
    """

    steps: int
    channels: tuple[TokenChannel, ...]
    axes: tuple[TokenAxis, ...]
    place: tuple[str, ...] = ()
    divisor: float | None = None
    offset: float = 0.0
    shard: int = 4096
    least: int = 2

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one sample in each array."""
        return {
            "values": (self.steps, len(self.channels)),
            "position": (self.steps, len(self.axes)),
            "valid": (self.steps,),
            "place": (len(self.place),),
        }

    @property
    def dtypes(self) -> dict[str, str]:
        """Return the type of each array."""
        values = "float32" if self.divisor is None else "uint16"
        return {"values": values, "position": "float32", "valid": "bool", "place": "int32"}

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return values as they are stored.

        Raises
        ------
        SchemaMismatch
            Where the way back would not give the same bits.
        """
        if self.divisor is None:
            return np.asarray(values, np.float32)
        scaled = np.rint((values.astype(np.float64) - self.offset) * self.divisor)
        stored = np.nan_to_num(scaled, nan=0.0).clip(0, 65535).astype(np.uint16)
        if not np.array_equal(self.decode(stored), values, equal_nan=True):
            raise SchemaMismatch(
                f"values do not fit into uint16 with divisor {self.divisor:g} and offset {self.offset:g}; "
                "store them as float32 (no divisor)"
            )
        return stored

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Return stored values as float32, NaN where there is none."""
        if self.divisor is None:
            return stored
        values = stored.astype(np.float32)
        values /= np.float32(self.divisor)
        values += np.float32(self.offset)
        values[stored == 0] = np.nan
        return values

    def require_same(self, stored: TokenSchema, where: str) -> None:
        """Check that what is to be written fits a store.

        Raises
        ------
        SchemaMismatch
            Naming every difference at once.
        """
        _require_same(asdict(stored), asdict(self), where)


@dataclass(frozen=True)
class TokenBlock:
    """Samples of one shard.

    Parameters
    ----------
    values : ndarray, shape (sample, step, channel), float32
        NaN where nothing was observed, and in padding.
    position : ndarray, shape (sample, step, axis), float32
    valid : ndarray, shape (sample, step), bool
    place : ndarray, shape (sample, index), int32
    """

    values: np.ndarray
    position: np.ndarray
    valid: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.valid)

    def rows(self, chosen: slice | np.ndarray) -> TokenBlock:
        """Return some of the samples."""
        return TokenBlock(self.values[chosen], self.position[chosen], self.valid[chosen], self.place[chosen])


@dataclass(frozen=True)
class Shard:
    """One whole shard.

    Parameters
    ----------
    number : int
        Rows ``number * shard`` and following of the arrays.
    samples, usable : int
        How many there are, and how many have the least number of valid steps.
    steps : int
        Most valid steps of any sample.
    checksum : int
        CRC-32C of the stored rows.
    """

    number: int
    samples: int
    usable: int
    steps: int
    checksum: int


@dataclass(frozen=True)
class Group:
    """Shards that were written together.

    Parameters
    ----------
    state : mapping
        What they were made from.
    shards : tuple of Shard
        In order.
    """

    state: Mapping[str, Any]
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class TokenStore:
    """A token store as it stood when it was opened.

    Parameters
    ----------
    location : Location
        ``<warehouse>/tokens/<name>``.
    schema : TokenSchema
        Structure.
    request : mapping
        What was asked of the one who packed it.
    groups : mapping of str to Group
        That are whole.
    """

    location: Location
    schema: TokenSchema
    request: Mapping[str, Any]
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Return the shards that can be read, in order of their numbers."""
        found = [shard for group in self.groups.values() for shard in group.shards]
        return tuple(sorted(found, key=lambda shard: shard.number))

    @property
    def samples(self) -> int:
        """Return how many samples can be read."""
        return sum(shard.samples for shard in self.shards)

    @property
    def usable(self) -> int:
        """Return how many samples have the least number of valid steps."""
        return sum(shard.usable for shard in self.shards)

    @property
    def version(self) -> str:
        """Return a name of the contents: the same where every sample and its order are the same."""
        return content_hash([asdict(self.schema), [asdict(shard) for shard in self.shards]])[:16]

    def read(self, shard: Shard) -> TokenBlock:
        """Return the samples of a shard, as long as its longest.

        Raises
        ------
        TokensChanged
            Where the shard was packed anew since the store was opened, or is damaged.
        """
        start = shard.number * self.schema.shard
        rows = slice(start, start + shard.samples)
        try:
            stored = {name: np.asarray(self._arrays[name][rows]) for name in _ARRAYS}
        except (OSError, ValueError, RuntimeError) as error:  # what a codec says of bytes that it cannot unpack
            raise self._changed(shard) from error
        if _checksum(stored) != shard.checksum:
            raise self._changed(shard)
        steps = max(shard.steps, 1)
        return TokenBlock(
            self.schema.decode(stored["values"][:, :steps]),
            stored["position"][:, :steps],
            stored["valid"][:, :steps],
            stored["place"],
        )

    def _changed(self, shard: Shard) -> TokensChanged:
        return TokensChanged(
            f"{self.location}: shard {shard.number} is not what its record says: it was packed anew since, or is "
            "damaged; open the store again, and where that does not help pack it again"
        )

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        group = zarr.open_group(self.location.zarr_store(read_only=True), mode="r")
        return {name: _array(group, name, str(self.location)) for name in _ARRAYS}


class TokenWriter:
    """Writes groups of shards into one store; made by `write_tokens`, which holds the store's lock."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._group = zarr.open_group(store.location.zarr_store(), mode="r+")

    @property
    def store(self) -> TokenStore:
        """Return the store as of the last commit."""
        return self._store

    def write(self, name: str, samples: TokenBlock, state: Mapping[str, Any]) -> Group:
        """Write a group, in the place of the one of that name where there is one.

        Parameters
        ----------
        name : str
            Of the group.
        samples : TokenBlock
            Of one or several shards, of `steps` steps at most.
        state : mapping
            Plain data: what they are made from.

        Raises
        ------
        SchemaMismatch
            Where channels, axes or the number of steps are not the store's.
        """
        self.withdraw([name])
        size = self._store.schema.shard
        parts = [samples.rows(slice(start, start + size)) for start in range(0, len(samples), size)]
        shards = [self._write(number, part) for number, part in zip(self._free(len(parts)), parts, strict=True)]
        group = Group(dict(state), tuple(shards))
        self._commit({**self._store.groups, name: group})
        return group

    def note(self, name: str, state: Mapping[str, Any]) -> None:
        """Change the state of a group whose samples are what they were."""
        group = self._store.groups[name]
        if dict(group.state) != dict(state):
            self._commit({**self._store.groups, name: replace(group, state=dict(state))})

    def withdraw(self, names: Sequence[str]) -> None:
        """Take groups from what readers see."""
        kept = {name: group for name, group in self._store.groups.items() if name not in names}
        if len(kept) < len(self._store.groups):
            self._commit(kept)

    def _free(self, count: int) -> list[int]:
        taken = {shard.number for shard in self._store.shards}
        free = [number for number in range(len(taken) + count) if number not in taken][:count]
        self._grow(max(free, default=-1) + 1)
        return free

    def _grow(self, shards: int) -> None:
        schema = self._store.schema
        for name, shape in schema.shapes.items():
            array = _array(self._group, name, str(self._store.location))
            if array.shape[0] < shards * schema.shard:
                array.resize((shards * schema.shard, *shape))

    def _write(self, number: int, samples: TokenBlock) -> Shard:
        schema = self._store.schema
        stored = _padded(samples, schema)
        rows = slice(number * schema.shard, (number + 1) * schema.shard)
        for name, values in stored.items():
            whole = np.zeros((schema.shard, *values.shape[1:]), values.dtype)
            whole[: len(samples)] = values
            array = _array(self._group, name, str(self._store.location))
            # zarr reads the shard that it replaces, and fails where that is damaged
            key = array.metadata.encode_chunk_key((number, *(0 for _ in whole.shape[1:])))
            self._store.location.delete(f"{name}/{key}")
            array[rows] = whole
        looks = samples.valid.sum(axis=1)
        longest = int(looks.max(initial=0))
        return Shard(number, len(samples), int((looks >= schema.least).sum()), longest, _checksum(stored))

    def _commit(self, groups: Mapping[str, Group]) -> None:
        content = {"structure": STRUCTURE_VERSION, "groups": {name: asdict(group) for name, group in groups.items()}}
        self._store.location.write_bytes(COMMITS, json.dumps(content, separators=(",", ":")).encode())
        self._store = replace(self._store, groups=dict(groups))


def open_tokens(location: Location) -> TokenStore:
    """Return a token store with all shards that are whole.

    Raises
    ------
    NotFound
        Where there is none.
    SchemaMismatch
        Where its structure is not of this version, or its arrays are not those that it declares.
    """
    try:
        group = zarr.open_group(location.zarr_store(read_only=True), mode="r")
    except FileNotFoundError as error:
        raise NotFound(f"{location}: there is no token store here") from error
    if not group.attrs:
        raise NotFound(f"{location}: there is no token store here yet: its first writer was stopped, or is at work")
    schema, request = _declared(group, str(location))
    return TokenStore(location, schema, request, _read_commits(location))


@contextlib.contextmanager
def write_tokens(
    location: Location, schema: TokenSchema, request: Mapping[str, Any], *, wait_s: float = 600.0
) -> Iterator[TokenWriter]:
    """Open a token store for writing, alone; make it where there is none.

    On a folder the writer holds an OS file lock beside the store. On an object store there is no lock: two writers at
    once may undo each other's groups, which the next run then writes again.

    Parameters
    ----------
    location : Location
        ``<warehouse>/tokens/<name>``.
    schema : TokenSchema
        Structure.
    request : mapping
        Plain data: what is asked for; kept in the store.
    wait_s : float
        How long to wait for another writer.

    Raises
    ------
    SchemaMismatch
        Where a store of another structure or request stands there.
    TileBusy
        Where another process keeps it for longer than `wait_s`.
    """
    with hold(location, wait_s):
        try:
            store = open_tokens(location)
        except NotFound:
            _lay_out(location, schema, request)
            store = open_tokens(location)
        schema.require_same(store.schema, str(location))
        _require_same(dict(store.request), json.loads(json.dumps(request)), str(location))
        yield TokenWriter(store)


# --- parts ------------------------------------------------------------------------------------------------------


def _lay_out(location: Location, schema: TokenSchema, request: Mapping[str, Any]) -> None:
    """Make the arrays, and last the attributes that readers look for."""
    location.delete(COMMITS)
    group = zarr.create_group(location.zarr_store(), overwrite=True)
    chunk = next(size for size in range(min(CHUNK, schema.shard), 0, -1) if schema.shard % size == 0)
    # of all that read at over 400,000 samples/s the smallest (benchmarks/bench_feed.py)
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    dimensions = {
        "values": ("sample", "step", "channel"),
        "position": ("sample", "step", "axis"),
        "valid": ("sample", "step"),
        "place": ("sample", "index"),
    }
    for name, shape in schema.shapes.items():
        group.create_array(
            name,
            shape=(0, *shape),
            chunks=(chunk, *(max(size, 1) for size in shape)),
            shards=(schema.shard, *(max(size, 1) for size in shape)),
            dtype=schema.dtypes[name],
            compressors=codec,
            fill_value=0,
            dimension_names=dimensions[name],
            attributes=_array_attributes(schema) if name == "values" else {},
        )
    attributes: dict[str, Any] = {
        "title": "tokens",
        "canopus:structure": STRUCTURE_VERSION,
        "canopus:tokens": asdict(schema),
        "canopus:request": dict(request),
    }
    group.update_attributes(attributes)


def _array_attributes(schema: TokenSchema) -> dict[str, Any]:
    if schema.divisor is None:
        return {"units": "1"}
    return {"units": "1", "scale_factor": 1 / schema.divisor, "add_offset": schema.offset, "_FillValue": 0}


def _declared(group: zarr.Group, where: str) -> tuple[TokenSchema, dict[str, Any]]:
    attributes: dict[str, Any] = dict(group.attrs)
    version = attributes.get("canopus:structure")
    if version != STRUCTURE_VERSION or "canopus:tokens" not in attributes:
        raise SchemaMismatch(
            f"{where}: not a token store of structure version {STRUCTURE_VERSION} (found {version!r}); pack it again "
            "under another name"
        )
    stated = dict(attributes["canopus:tokens"])
    stated["channels"] = tuple(TokenChannel(**channel) for channel in stated["channels"])
    stated["axes"] = tuple(TokenAxis(**axis) for axis in stated["axes"])
    schema = TokenSchema(**{**stated, "place": tuple(stated["place"])})
    for name, shape in schema.shapes.items():
        array = _array(group, name, where)
        if array.shape[1:] != shape or str(array.dtype) != schema.dtypes[name]:
            raise SchemaMismatch(
                f"{where}: array {name} is {array.dtype} {array.shape[1:]} per sample; the store declares "
                f"{schema.dtypes[name]} {shape}"
            )
    return schema, dict(attributes["canopus:request"])


def _array(group: zarr.Group, name: str, where: str) -> zarr.Array:
    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise SchemaMismatch(f"{where}: array {name} is missing; the store is damaged, pack it again")
    return found


def _read_commits(location: Location) -> dict[str, Group]:
    try:
        content = json.loads(location.read_bytes(COMMITS))
    except NotFound:
        return {}
    return {
        name: Group(group["state"], tuple(Shard(**shard) for shard in group["shards"]))
        for name, group in content["groups"].items()
    }


def _padded(samples: TokenBlock, schema: TokenSchema) -> dict[str, np.ndarray]:
    """Return the arrays as they are stored, every sample of the store's length."""
    found = {
        "values": schema.encode(samples.values),
        "position": np.asarray(samples.position, np.float32),
        "valid": np.asarray(samples.valid, bool),
        "place": np.asarray(samples.place, np.int32),
    }
    padded = {}
    for name, shape in schema.shapes.items():
        values = found[name]
        if values.ndim != len(shape) + 1 or values.shape[2:] != shape[1:] or values.shape[1] > shape[0]:
            raise SchemaMismatch(f"samples have {name} of shape {values.shape[1:]}; the store takes {shape}")
        more = shape[0] - values.shape[1]
        widths = [(0, 0), (0, more), *((0, 0) for _ in shape[1:])]
        # a position goes on as it ended, everything else is blank
        padded[name] = np.pad(values, widths, mode="edge") if name == "position" and more else np.pad(values, widths)
    return padded


def _checksum(stored: Mapping[str, np.ndarray]) -> int:
    checksum = 0
    for name in _ARRAYS:
        checksum = google_crc32c.extend(checksum, stored[name].tobytes())
    return checksum


def _require_same(stored: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> None:
    names = sorted({*stored, *asked})
    differences = [
        f"{name}: stored {stored.get(name)!r}, asked {asked.get(name)!r}"
        for name in names
        if stored.get(name) != asked.get(name)
    ]
    if differences:
        raise SchemaMismatch(
            f"{where} was packed in another way ({'; '.join(differences)}); pack with the stored settings, or under "
            "another name"
        )
