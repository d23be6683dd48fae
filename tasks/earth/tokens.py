"""From cubes to tokens: pixel series streamed for inference, or packed into a token store that grows with its cubes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from models.indices import BANDS
from models.tokens import HALF_RANGE, NO_DATA, PixelSeries, SeriesTokeniser, Tokens, next_days, pad, to_days
from storage.cube import CubeState, SeriesBlock, read_block, read_state
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
from tasks.earth.extra_channels import ExtraReader, ExtraSource, require_distinct
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.mapping import CubePart, MapPlan
from tasks.earth.places import drawn, in_area, regions_of
from tasks.errors import ConfigurationError

LEAST_LOOKS = 8
"""Valid looks that a series needs to be trained on."""
PIXELS_AT_ONCE = 8192
GROUP_SHARDS = 8
"""Shards that are written together; their samples are dealt out at random, so that a shard holds many places."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SeriesRules:
    """How the looks at a pixel become a series.

    Parameters
    ----------
    steps : int
        Most looks of one series: the newest.
    bands : tuple of str, optional
        Of the cubes; by default all.
    before : datetime64[D], optional
        Nothing of this day or a later one is read.
    extra : tuple of ExtraSource
        Channels beside the bands.
    """

    steps: int = 256
    bands: tuple[str, ...] | None = None
    before: np.datetime64 | None = None
    extra: tuple[ExtraSource, ...] = ()


@dataclass(frozen=True)
class RegionTokens:
    """The series of some pixels of a region.

    Parameters
    ----------
    cube : CubePart
        Where they lie.
    region : dict of str to slice
        In pixels of the tile.
    pixels : ndarray, shape (sample,), int
        Numbers in the region, row by row.
    tokens : Tokens
        Valid looks first, in order of their days; the others are NaN.
    """

    cube: CubePart
    region: Region
    pixels: np.ndarray
    tokens: Tokens


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


def stream_tokens(
    plan: MapPlan, rules: SeriesRules | None = None, *, at_once: int = PIXELS_AT_ONCE
) -> Iterator[RegionTokens]:
    """Yield the series of every pixel of an area that has a valid look, region by region; nothing is written.

    Parameters
    ----------
    plan : MapPlan
        Cubes and area.
    rules : SeriesRules, optional
        How.
    at_once : int
        Pixels of one piece. Memory holds one region of one cube and one piece.

    Raises
    ------
    ConfigurationError
        Where bands or extra channels are not there as asked.
    """
    rules = rules or SeriesRules()
    for cube in plan.cubes:
        reader = SeriesReader(plan, cube, rules)
        for region in regions_of(cube):
            inside = in_area(plan, cube.tile.geobox[region["y"], region["x"]])
            if inside.any():
                yield from reader.stream(region, np.flatnonzero(inside), at_once=at_once)


@dataclass(frozen=True)
class SeriesReader:
    """Reads the series of one tile.

    Parameters
    ----------
    plan : MapPlan
        Warehouse, bands and last day.
    cube : CubePart
        The tile at its snapshot.
    rules : SeriesRules
        How.
    """

    plan: MapPlan
    cube: CubePart
    rules: SeriesRules

    @property
    def until(self) -> np.datetime64 | None:
        """Return the last day that is read."""
        return last_day(self.plan, self.rules)

    @cached_property
    def tokeniser(self) -> SeriesTokeniser:
        """Return what makes tokens of series."""
        return tokeniser_of(self.plan, self.rules)

    @cached_property
    def extra(self) -> tuple[ExtraReader, ...]:
        """Return the readers of the extra channels over this tile."""
        return tuple(source.open(self.cube.tile) for source in self.rules.extra)

    def stream(self, region: Region, pixels: np.ndarray, *, at_once: int = PIXELS_AT_ONCE) -> Iterator[RegionTokens]:
        """Yield the series of those pixels of a region that have a valid look, some at a time."""
        block = self._block(region, 0)
        extra = self._extra(region, block)
        seen = pixels[block.valid.any(axis=0).reshape(-1)[pixels]]
        for start in range(0, seen.size, at_once):
            some = seen[start : start + at_once]
            yield RegionTokens(self.cube, region, some, self._tokens(block, extra, some))

    def read(self, region: Region, pixels: np.ndarray, *, since: int = 0) -> Tokens:
        """Return the series of all of these pixels of a region, of dates from the `since`-th in order of arrival on."""
        block = self._block(region, since)
        return self._tokens(block, self._extra(region, block), pixels)

    def _block(self, region: Region, since: int) -> SeriesBlock:
        return read_block(
            self.plan.root / self.cube.path,
            region,
            snapshot=self.cube.snapshot,
            until=self.until,
            allow_unmasked=self.plan.allow_unmasked,
            since=since,
        )

    def _extra(self, region: Region, block: SeriesBlock) -> list[np.ndarray]:
        return [reader.read(region, block.times) for reader in self.extra]

    def _tokens(self, block: SeriesBlock, extra: Sequence[np.ndarray], pixels: np.ndarray) -> Tokens:
        """Return the newest valid looks of some pixels, first and in order: (pixel, look, channel)."""
        times, bands = block.reflectance.shape[:2]
        if not times:
            return _nothing(len(pixels), len(self.tokeniser.channels))
        order, kept = _newest(block.valid.reshape(times, -1)[:, pixels].T, self.rules.steps)
        chosen = [self.plan.bands.index(band) for band in self.tokeniser.bands]
        stored = _taken(block.reflectance.reshape(times, bands, -1)[:, :, pixels][:, chosen], order)
        stored[~kept] = NO_DATA
        clear = torch.from_numpy(kept)
        day = _held(to_days(block.times.astype("datetime64[D]"))[torch.from_numpy(order)], clear)
        others = None
        if extra:
            found = _taken(np.stack([values.reshape(times, -1)[:, pixels] for values in extra], axis=1), order)
            others = torch.from_numpy(found).masked_fill(~clear[..., None], torch.nan)
        return self.tokeniser.tokenise(PixelSeries(torch.from_numpy(stored), day, clear, others))


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
    rules = SeriesRules(steps, bands, before, extra)
    request = _request(plan, rules, holdout=holdout, pixels=pixels, seed=seed)
    location = tokens_location(plan.warehouse, name)
    try:
        request["share"] = _kept_share(location) or _share(plan, holdout, pixels)
        packing = _Packing(plan, rules, holdout, request, shard)
        with write_tokens(location, _schema(plan, rules, shard), request) as writer:
            report = packing.run(writer, on_progress)
    except SchemaMismatch as error:
        raise ConfigurationError(str(error)) from error
    if not report.store.usable:
        raise ConfigurationError(f"no pixel of the area has {LEAST_LOOKS} clear looks; ingest a longer time")
    return report


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


def tokeniser_of(plan: MapPlan, rules: SeriesRules) -> SeriesTokeniser:
    """Return what makes tokens of the series of a plan.

    Raises
    ------
    ConfigurationError
        Where the cubes lack a band, or hold one that no model takes.
    """
    unknown = [band for band in plan.bands if band not in BANDS and (rules.bands is None or band in rules.bands)]
    if unknown:
        raise ConfigurationError(f"the cubes hold {', '.join(unknown)}; EarthPT takes {', '.join(BANDS)}")
    require_distinct(rules.extra)
    return SeriesTokeniser(plan.chosen_bands(rules.bands), tuple(source.channel for source in rules.extra))


def last_day(plan: MapPlan, rules: SeriesRules) -> np.datetime64 | None:
    """Return the last day that may be read: of the plan, and before the rules' cut."""
    days = [plan.until, None if rules.before is None else rules.before.astype("datetime64[D]") - np.timedelta64(1, "D")]
    return min((day for day in days if day is not None), default=None)


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
        return replace(_to_numpy(_merged(held, _to_torch(dealt), self.rules.steps)), place=dealt.place)

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


def _schema(plan: MapPlan, rules: SeriesRules, shard: int) -> TokenSchema:
    """Return the structure of a store: uint16 as the cubes hold it, float32 where there are extra channels."""
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


# --- series -----------------------------------------------------------------------------------------------------


def _newest(valid: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which looks come first, the newest valid ones in order, and which of them are valid: (pixel, look)."""
    surplus = np.maximum(valid.sum(axis=1, keepdims=True) - steps, 0)
    kept = valid & (np.cumsum(valid, axis=1) > surplus)
    longest = max(int(kept.sum(axis=1).max(initial=0)), 1)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :longest]
    return order, np.take_along_axis(kept, order, axis=1)


def _taken(looks: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return looks (time, channel, pixel) in an order of each pixel's own: (pixel, look, channel)."""
    series = np.ascontiguousarray(np.moveaxis(looks, 2, 0))  # (pixel, time, channel)
    return np.take_along_axis(series, order[:, :, None], axis=1)


def _held(day: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return days that stay at the last valid one from there on, 0 where there is none."""
    count = valid.sum(dim=1, keepdim=True)
    last = day.gather(1, (count - 1).clamp(min=0))
    return torch.where(valid, day, torch.where(count > 0, last, 0.0))


def _nothing(count: int, channels: int) -> Tokens:
    """Return series of a cube without a date: one step that is not valid."""
    return Tokens(
        torch.full((count, 1, channels), torch.nan), torch.zeros(count, 1, 2), torch.zeros(count, 1, dtype=torch.bool)
    )


def _merged(held: Tokens, came: Tokens, steps: int) -> Tokens:
    """Return the newest `steps` looks of two sets of series of the same pixels, in order of their days."""
    pairs = ((held.values, came.values), (held.position, came.position), (held.valid, came.valid))
    both = Tokens(*(torch.cat(pair, dim=1) for pair in pairs))
    day = torch.where(both.valid, both.position[..., 0], torch.inf)
    order = day.argsort(dim=1, stable=True)
    count = both.valid.sum(dim=1, keepdim=True)
    longest = max(min(int(count.max()), steps), 1)
    first = (count - steps).clamp(min=0)
    chosen = order.gather(1, (first + torch.arange(longest)).clamp(max=order.shape[1] - 1))
    valid = torch.arange(longest) < (count - first)
    days = _held(both.position[..., 0].gather(1, chosen), valid)
    values = both.values.gather(1, chosen[..., None].expand(-1, -1, both.values.shape[2]))
    return Tokens(
        values.masked_fill(~valid[..., None], torch.nan), torch.stack([days, next_days(days, valid)], dim=-1), valid
    )


def _to_numpy(tokens: Tokens) -> TokenBlock:
    place = np.zeros((len(tokens), 0), np.int32)
    return TokenBlock(tokens.values.numpy(), tokens.position.numpy(), tokens.valid.numpy(), place)


def _to_torch(block: TokenBlock) -> Tokens:
    return Tokens(torch.from_numpy(block.values), torch.from_numpy(block.position), torch.from_numpy(block.valid))
