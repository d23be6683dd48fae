"""Pixel series of an area packed into a token store that grows with its cubes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from models.indices import BANDS
from models.tokens import HALF_RANGE, Tokens, pad
from storage.cube import CubeState, read_state
from storage.errors import NotFound, SchemaMismatch, TokensChanged
from storage.location import Location, resolve
from storage.regions import Region, region_key
from storage.tokens import (
    TokenAxis,
    TokenBlock,
    TokenChannel,
    TokenSchema,
    TokenStore,
    TokenWriter,
    open_tokens,
    write_tokens,
)
from tasks.earth.extra_channels import ExtraSource
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.mapping import CubePart, MapPlan, plan_for
from tasks.earth.places import drawn, in_area, regions_of
from tasks.earth.series import SeriesReader, SeriesRules, last_day, merged, tokeniser_of
from tasks.errors import ConfigurationError

LEAST_LOOKS = 8
"""Valid looks that a series needs to be trained on."""
GROUP_SHARDS = 8
"""Shards that are written together; their samples are dealt out at random, so that a shard holds many places."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PackRequest:
    """Which series are packed; see `pack_area`.

    Parameters
    ----------
    warehouse, name : str
        URL, and name of the store.
    area : dict
        GeoJSON geometry, EPSG:4326.
    steps, pixels, seed : int
        Most looks of one series, series to draw, and the seed of the draw.
    before : str or None
        Nothing of this day or a later one is read.
    bands : tuple of str or None
        Of the cubes; None for all.
    extra : tuple of ExtraSource
        Channels beside the bands.
    holdout : Holdout or None
        Blocks that are left out.
    crs, resolution : str or None, float
        Of the grid.
    allow_unmasked : bool
        Whether looks without a mask count.
    """

    warehouse: str
    name: str
    area: dict[str, Any]
    steps: int = 256
    pixels: int = 100_000
    seed: int = 0
    before: str | None = None
    bands: tuple[str, ...] | None = None
    extra: tuple[ExtraSource, ...] = ()
    holdout: Holdout | None = None
    crs: str | None = None
    resolution: float = 10.0
    allow_unmasked: bool = False


@dataclass(frozen=True)
class PackReport:
    """What became of a packing.

    Parameters
    ----------
    store : TokenStore
        Opened, with all that is in it now.
    groups : dict of str to int
        Groups of shards by state: ``new``, ``appended`` (looks added to the same series), ``recomputed``, ``skipped``.
    samples : dict of str to int
        Samples likewise.
    """

    store: TokenStore
    groups: dict[str, int]
    samples: dict[str, int]


@dataclass(frozen=True)
class StoredTokens:
    """The samples of a token store that have enough looks, as a source of batches.

    Parameters
    ----------
    store : TokenStore
        As it stands.
    """

    store: TokenStore

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return how many samples each shard has."""
        return tuple(shard.usable for shard in self.store.shards)

    def read(self, shard: int) -> Tokens:
        """Return the samples of a shard."""
        block = self.store.read(self.store.shards[shard])
        enough = block.valid.sum(axis=1) >= self.store.schema.least
        return _to_torch(block if enough.all() else block.rows(enough))


def pack_area(
    plan: MapPlan,
    name: str,
    *,
    steps: int = 256,
    pixels: int = 100_000,
    before: np.datetime64 | None = None,
    holdout: Holdout | None = None,
    bands: tuple[str, ...] | None = None,
    extra: tuple[ExtraSource, ...] = (),
    seed: int = 0,
    shard: int = 4096,
    on_progress: Progress | None = None,
) -> PackReport:
    """Pack series of an area into ``tokens/<name>/``, or bring what is there up to date.

    Pixels are drawn by their place, so that they stay the same when cubes grow. Nothing is read of a cube whose snapshot
    is the packed one; looks that came since are added to the series; where a date was replaced, all series of the groups
    that it touches are read again. A packing that was stopped goes on where it stood.

    Parameters
    ----------
    plan : MapPlan
        Cubes and area.
    name : str
        Of the store.
    steps, bands, before, extra : int, tuple of str, datetime64[D], tuple of ExtraSource
        As in `SeriesRules`.
    pixels : int
        Series to draw, more or less, when the store is made; later runs keep to the share that this was then.
    holdout : Holdout, optional
        Only pixels that training may see are drawn.
    seed : int
        Of the draw.
    shard : int
        Samples of one unit of shuffling.
    on_progress : callable, optional
        Called with the tile, groups done and groups in all.

    Raises
    ------
    ConfigurationError
        Where bands or extra channels are not there as asked, the store was packed in another way, or no series has
        `LEAST_LOOKS` looks.
    """
    if steps < LEAST_LOOKS:
        raise ConfigurationError(f"steps {steps}: a series needs {LEAST_LOOKS} looks to be trained on")
    rules = SeriesRules(steps, bands, before, extra)
    request = _request(plan, rules, holdout=holdout, pixels=pixels, seed=seed)
    location = tokens_location(plan.warehouse, name)
    try:
        request["share"] = _kept_share(location) or _share(plan, holdout, pixels)
        packing = _Packing(plan, rules, holdout, request, shard)
        with write_tokens(location, schema_of(rules, shard=shard), request) as writer:
            report = packing.run(writer, on_progress)
    except SchemaMismatch as error:
        raise ConfigurationError(str(error)) from error
    if not report.store.usable:
        raise ConfigurationError(f"no pixel of the area has {LEAST_LOOKS} clear looks; ingest a longer time")
    return report


def pack(request: PackRequest, on_progress: Progress | None = None) -> PackReport:
    """Pack series of an area, or bring what is there up to date.

    Raises
    ------
    ConfigurationError
        As `plan_map` and `pack_area`.
    """
    plan = plan_for(request)
    return pack_area(
        plan,
        request.name,
        steps=request.steps,
        pixels=request.pixels,
        before=None if request.before is None else np.datetime64(request.before, "D"),
        holdout=request.holdout,
        bands=request.bands,
        extra=request.extra,
        seed=request.seed,
        on_progress=on_progress,
    )


def open_source(warehouse: str, name: str) -> StoredTokens:
    """Return the tokens of a store as a source of batches.

    Raises
    ------
    NotFound
        Where there is no such store.
    """
    return StoredTokens(open_tokens(tokens_location(warehouse, name)))


def tokens_location(warehouse: str, name: str) -> Location:
    """Return where a token store lies."""
    return resolve(warehouse) / "tokens" / name


def schema_of(rules: SeriesRules, *, shard: int = 4096) -> TokenSchema:
    """Return the structure of a store of series: uint16 as cubes hold them, float32 where there are extra channels."""
    bands = [TokenChannel(name, "1", HALF_RANGE * 1e-4, HALF_RANGE * 1e-4) for name in BANDS]
    extra = [
        TokenChannel(source.channel.name, source.channel.unit, source.channel.scale, source.channel.offset)
        for source in rules.extra
    ]
    day = "days since 2000-01-01"
    return TokenSchema(
        rules.steps,
        (*bands, *extra),
        (TokenAxis("day", day), TokenAxis("target_day", day)),
        ("row", "column"),
        divisor=None if extra else HALF_RANGE,
        offset=-1.0,
        shard=shard,
        least=LEAST_LOOKS,
    )


# --- packing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Pixels of some regions of one tile, whose series are packed together."""

    cube: CubePart
    number: int
    parts: tuple[tuple[Region, np.ndarray], ...]

    @property
    def name(self) -> str:
        return f"{self.cube.path}#{self.number}"

    @property
    def count(self) -> int:
        return sum(len(pixels) for _, pixels in self.parts)

    @property
    def digest(self) -> int:
        """Return a number that says which pixels these are."""
        found = 0
        for region, pixels in self.parts:
            found = zlib.crc32(pixels.astype("<i8").tobytes(), zlib.crc32(region_key(region).encode(), found))
        return found

    @property
    def places(self) -> np.ndarray:
        """Return row and column in the tile of each pixel: (pixel, 2)."""
        found = []
        for region, pixels in self.parts:
            row, column = np.divmod(pixels, region["x"].stop - region["x"].start)
            found.append(np.stack([row + region["y"].start, column + region["x"].start], axis=1))
        return np.concatenate(found).astype(np.int32)


@dataclass(frozen=True)
class _Packing:
    """One run of `pack_area`."""

    plan: MapPlan
    rules: SeriesRules
    holdout: Holdout | None
    request: dict[str, Any]
    shard: int
    counts: dict[str, list[int]] = field(default_factory=dict)

    def run(self, writer: TokenWriter, on_progress: Progress | None) -> PackReport:
        groups = [group for cube in sorted(self.plan.cubes, key=lambda cube: cube.path) for group in self._groups(cube)]
        wanted = {group.name for group in groups}
        writer.withdraw([name for name in writer.store.groups if name not in wanted])
        for number, group in enumerate(groups, start=1):
            state = self._pack(writer, group)
            self.counts.setdefault(state, []).append(group.count)
            if on_progress is not None:
                on_progress(group.cube.path, number, len(groups))
        states = ("new", "appended", "recomputed", "skipped")
        found = {state: self.counts.get(state, []) for state in states}
        return PackReport(
            writer.store,
            {name: len(own) for name, own in found.items()},
            {name: sum(own) for name, own in found.items()},
        )

    def _groups(self, cube: CubePart) -> Iterator[_Group]:
        """Yield the drawn pixels of a tile, regions joined while they fit into one group."""
        most, number = GROUP_SHARDS * self.shard, 0
        held: list[tuple[Region, np.ndarray]] = []
        for region, chosen in _drawn_pixels(self.plan, cube, self.holdout, **self._draw):
            if held and sum(len(own) for _, own in held) + len(chosen) > most:
                yield _Group(cube, number, tuple(held))
                held, number = [], number + 1
            held.append((region, chosen))
        if held:
            yield _Group(cube, number, tuple(held))

    @property
    def _draw(self) -> dict[str, Any]:
        return {"share": self.request["share"], "seed": self.request["seed"]}

    def _pack(self, writer: TokenWriter, group: _Group) -> str:
        """Bring a group up to date, and return what had to be done."""
        reader = SeriesReader(self.plan, group.cube, self.rules)
        state = {
            "snapshot": group.cube.snapshot,
            "pixels": group.digest,
            "extra": [extra.fingerprint for extra in reader.extra],
        }
        held = writer.store.groups.get(group.name)
        if held is None:
            writer.write(group.name, self._whole(reader, group), state)
            return "new"
        if dict(held.state) == state:
            return "skipped"
        since = self._appended_since(reader, held.state, state)
        if since == ():
            writer.note(group.name, state)
            return "skipped"
        longer = self._longer(reader, group, writer.store, since=since[0]) if since else None
        writer.write(group.name, longer or self._whole(reader, group), state)
        return "recomputed" if longer is None else "appended"

    def _appended_since(
        self, reader: SeriesReader, held: Mapping[str, Any], state: Mapping[str, Any]
    ) -> tuple[int, ...] | None:
        same = all(held[name] == state[name] for name in ("pixels", "extra"))
        return _appended_since(reader, held["snapshot"]) if same else None

    def _whole(self, reader: SeriesReader, group: _Group) -> TokenBlock:
        return self._dealt(group, pad([reader.read(region, pixels) for region, pixels in group.parts]))

    def _longer(self, reader: SeriesReader, group: _Group, store: TokenStore, *, since: int) -> TokenBlock | None:
        """Return the packed series with the looks that came since; None where they cannot be read."""
        try:
            held = pad([_to_torch(store.read(shard)) for shard in store.groups[group.name].shards])
        except TokensChanged:
            return None
        came = pad([reader.read(region, pixels, since=since) for region, pixels in group.parts])
        dealt = self._dealt(group, came)
        return replace(_to_numpy(merged(held, _to_torch(dealt), self.rules.steps)), place=dealt.place)

    def _dealt(self, group: _Group, tokens: Tokens) -> TokenBlock:
        """Return samples in the order in which they are packed."""
        seed = [self.request["seed"] % 2**32, zlib.crc32(group.name.encode())]
        order = np.random.default_rng(seed).permutation(group.count)
        return replace(_to_numpy(tokens), place=group.places).rows(order)


def _appended_since(reader: SeriesReader, snapshot: str) -> tuple[int, ...] | None:
    """Return the dates that came since a snapshot and may be read, or None where series have to be read anew.

    That is so where a date was replaced, where one has the same day as another (their order within the day is not kept
    in tokens), and where the snapshot is gone.
    """
    location, until = reader.plan.root / reader.cube.path, reader.until
    try:
        old = read_state(location, snapshot)
    except NotFound:
        return None
    new = read_state(location, reader.cube.snapshot)
    if _replaced(old, new, until):
        return None
    days = new.times.astype("datetime64[D]")
    read = np.ones(len(days), dtype=bool) if until is None else days <= until
    came = np.flatnonzero(read & (np.arange(len(days)) >= len(old.times)))
    if any((days[read] == days[entry]).sum() > 1 for entry in came):
        return None
    return tuple(int(entry) for entry in came)


def _replaced(old: CubeState, new: CubeState, until: np.datetime64 | None) -> bool:
    """Return whether a date that may be read is not what it was."""
    count = len(old.times)
    if len(new.times) < count or new.records[: len(old.records)] != old.records:
        return True
    named = [record.get("entry") for record in new.records[len(old.records) :]]
    moved = np.flatnonzero(new.times[:count] != old.times).tolist()
    touched = {entry for entry in named if entry is not None and entry < count} | set(moved)
    days = [state.times[entry].astype("datetime64[D]") for entry in touched for state in (old, new)]
    return any(until is None or day <= until for day in days)


def _drawn_pixels(
    plan: MapPlan, cube: CubePart, holdout: Holdout | None, *, share: float, seed: int
) -> Iterator[tuple[Region, np.ndarray]]:
    """Yield the pixels of each region of a tile that are drawn, numbers row by row; regions without one are left out."""
    shape = (int(cube.tile.geobox.shape[0]), int(cube.tile.geobox.shape[1]))
    trainable = None if holdout is None else holdout.trainable(shape)
    for region in regions_of(cube):
        chosen = in_area(plan, cube.tile.geobox[region["y"], region["x"]])
        if trainable is not None:
            chosen &= trainable[region["y"], region["x"]]
        if share < 1.0:
            chosen &= drawn(region, share, seed=zlib.crc32(cube.path.encode(), seed % 2**32))
        pixels = np.flatnonzero(chosen)
        if pixels.size:
            yield region, pixels


def _share(plan: MapPlan, holdout: Holdout | None, pixels: int) -> float:
    """Return which share of the pixels makes up the number that is asked for."""
    found = sum(
        len(chosen) for cube in plan.cubes for _, chosen in _drawn_pixels(plan, cube, holdout, share=1.0, seed=0)
    )
    if not found:
        raise ConfigurationError("no pixel of the area is left to train on: the hold-out takes all of it")
    return min(1.0, pixels / found)


def _kept_share(location: Location) -> float | None:
    """Return the share that a store was made with."""
    try:
        return float(open_tokens(location).request["share"])
    except (NotFound, KeyError):
        return None


def _request(plan: MapPlan, rules: SeriesRules, *, holdout: Holdout | None, pixels: int, seed: int) -> dict[str, Any]:
    """Return what says which series a store holds, as plain data."""
    until = last_day(plan, rules)
    return {
        "area": plan.area,
        "bands": list(tokeniser_of(plan, rules).bands),
        "last_day": None if until is None else str(until),
        "allow_unmasked": plan.allow_unmasked,
        "holdout": None if holdout is None else asdict(holdout),
        "extra": [asdict(source) for source in rules.extra],
        "pixels": pixels,
        "seed": seed,
    }


def _to_numpy(tokens: Tokens) -> TokenBlock:
    place = np.zeros((len(tokens), 0), np.int32)
    return TokenBlock(tokens.values.numpy(), tokens.position.numpy(), tokens.valid.numpy(), place)


def _to_torch(block: TokenBlock) -> Tokens:
    return Tokens(torch.from_numpy(block.values), torch.from_numpy(block.position), torch.from_numpy(block.valid))
