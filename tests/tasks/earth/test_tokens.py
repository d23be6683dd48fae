"""Packing: exactly the cubes' valid looks, the same pixels in any order, and what was added equals what is packed anew."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from token_cases import (
    CUBE_BANDS,
    day_of,
    grow,
    plan_of,
    renamed,
    series_in,
    series_in_cube,
    series_in_store,
    snapshot_of,
    tiles,
    write_day,
)

from models.data import ShuffledTokens
from storage.errors import NotFound
from storage.location import resolve
from storage.tokens import open_tokens
from tasks.earth import series as series_module
from tasks.earth import tokens as tokens_module
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.tokens import LEAST_LOOKS, PackReport, PackRequest, open_source, pack, pack_area
from tasks.errors import ConfigurationError

LOOKS = 10
STEPS = LEAST_LOOKS
ALL = 10**6


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    grow(folder, [3, 0, 1, 2, 4, 5, 6, 8, 7, 9])
    grow(folder, range(LEAST_LOOKS), tile=1)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    for tile in (0, 1):
        grow(folder, range(LOOKS), tile=tile)
    return folder


@pytest.fixture
def growing(template: Path, tmp_path: Path) -> Path:
    """A warehouse of one tile that a test may change."""
    return with_tiles(template, tmp_path, 0)


@pytest.fixture
def growing_two(template: Path, tmp_path: Path) -> Path:
    """A warehouse of two tiles that a test may change."""
    return with_tiles(template, tmp_path, 0, 1)


def with_tiles(template: Path, folder: Path, *numbers: int) -> Path:
    for number in numbers:
        shutil.copytree(template / tiles()[number].path, folder / tiles()[number].path)
    return folder


def packed(warehouse: Path, name: str, **more: object) -> PackReport:
    asked: dict = {"steps": STEPS, "pixels": ALL, "shard": 64, **more}
    return pack_area(plan_of(warehouse), name, **asked)


def states(report: PackReport) -> dict[str, int]:
    return {state: count for state, count in report.groups.items() if count}


@pytest.mark.parametrize("steps", [STEPS, LOOKS, 40])
def test_a_store_holds_exactly_the_cubes_valid_looks(warehouse: Path, steps: int) -> None:
    report = packed(warehouse, f"exact-{steps}", steps=steps)
    expected = series_in_cube(plan_of(warehouse), steps)
    found = series_in_store(report.store)
    assert found == expected
    assert report.samples["new"] == len(expected) == 336
    assert report.store.usable == sum(len(looks) >= LEAST_LOOKS for looks in expected.values())


def test_shards_of_any_size_hold_the_same_series(warehouse: Path) -> None:
    one, other = (packed(warehouse, f"cut-{size}", shard=size).store for size in (16, 4096))
    assert len(one.shards) > 20
    assert len(other.shards) == 2
    assert series_in_store(one) == series_in_store(other)


def test_a_shard_holds_pixels_from_all_over_its_group(warehouse: Path) -> None:
    store = packed(warehouse, "mixed").store
    rows = store.read(store.shards[0]).place[:, 0]
    assert set(rows.tolist()) == set(range(250, 262))


def test_the_draw_is_the_same_whatever_the_order_of_cubes(warehouse: Path) -> None:
    plan = plan_of(warehouse)
    forward = pack_area(plan, "forward", pixels=100, shard=64)
    backward = pack_area(renamed(plan, plan.cubes[::-1]), "backward", pixels=100, shard=64)
    assert forward.store.version == backward.store.version
    assert 60 < forward.store.samples < 140


def test_another_seed_draws_others_and_more_pixels_hold_the_fewer(warehouse: Path) -> None:
    few, more, other = (
        set(series_in_store(packed(warehouse, f"draw-{pixels}-{seed}", pixels=pixels, seed=seed).store))
        for pixels, seed in ((60, 0), (150, 0), (60, 1))
    )
    assert few < more
    assert len(few & other) < 0.5 * len(few)


def test_nothing_from_the_cut_on_reaches_a_token(tmp_path: Path) -> None:
    versions = []
    for name, seed in (("a", 0), ("b", 1)):
        grow(tmp_path / name, range(9))
        grow(tmp_path / name, range(9, 12), seed=seed)
        versions.append(packed(tmp_path / name, "cut", before=day_of(9)).store.version)
    assert versions[0] == versions[1]
    assert packed(tmp_path / "b", "later", before=day_of(10)).store.version != versions[0]


def test_held_out_blocks_are_not_packed(warehouse: Path) -> None:
    holdout = Holdout(folds=3, fold=1, block=4, gap=1)
    found = series_in_store(packed(warehouse, "held", holdout=holdout).store)
    trainable = holdout.trainable((1024, 1024))
    assert found
    assert set(found) == {place for place in series_in_cube(plan_of(warehouse), STEPS) if trainable[place[1], place[2]]}


def test_a_band_subset_is_packed_alone(warehouse: Path) -> None:
    store = packed(warehouse, "bands", bands=("B04",)).store
    expected = {
        place: [(day, look[1:2]) for day, look in looks]
        for place, looks in series_in_cube(plan_of(warehouse), STEPS).items()
    }
    assert series_in_store(store, ("B04",)) == expected


def test_the_same_snapshots_are_not_read_again(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(growing, "same")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cube was read")

    monkeypatch.setattr(series_module, "read_block", refuse)
    again = packed(growing, "same")
    assert states(again) == {"skipped": 1}
    assert again.store.version == first.store.version


def test_only_the_new_dates_of_a_grown_cube_are_read(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(growing, "grown")
    grow(growing, [LOOKS, LOOKS + 1])
    asked = []
    read = series_module.read_block

    def watched(*place: object, **more: object) -> object:
        asked.append(more["since"])
        return read(*place, **more)

    monkeypatch.setattr(series_module, "read_block", watched)
    assert states(packed(growing, "grown")) == {"appended": 1}
    assert set(asked) == {LOOKS}
    assert series_in_store(open_tokens(resolve(growing) / "tokens" / "grown")) == series_in_cube(
        plan_of(growing), STEPS
    )


def test_only_groups_of_the_grown_cube_are_packed(growing_two: Path) -> None:
    packed(growing_two, "two")
    grow(growing_two, [LOOKS], tile=1)
    report = packed(growing_two, "two")
    assert states(report) == {"appended": 1, "skipped": 1}
    assert series_in_store(report.store) == series_in_cube(plan_of(growing_two), STEPS)


def test_a_cube_that_comes_later_is_added_and_the_draw_stays(template: Path, tmp_path: Path) -> None:
    with_tiles(template, tmp_path, 1)
    first = series_in_store(packed(tmp_path, "later", pixels=60).store)
    with_tiles(template, tmp_path, 0)
    report = packed(tmp_path, "later", pixels=60)
    assert states(report) == {"new": 1, "skipped": 1}
    found = series_in_store(report.store)
    assert {place: found[place] for place in first} == first
    assert len(found) > len(first)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("append", "appended"),
        ("late", "appended"),
        ("same day", "recomputed"),
        ("replace", "recomputed"),
        ("replace with another day", "recomputed"),
        ("beyond the cut", "skipped"),
        ("replace beyond the cut", "skipped"),
        ("bring before the cut", "recomputed"),
    ],
)
@pytest.mark.parametrize("steps", [STEPS, pytest.param(40, marks=pytest.mark.slow)])
def test_what_is_brought_up_to_date_equals_what_is_packed_anew(
    growing: Path, change: str, state: str, steps: int
) -> None:
    cut = day_of(15)
    write_day(growing, day_of(16))
    packed(growing, "old", steps=steps, before=cut)
    {
        "append": lambda: grow(growing, [10, 11]),
        "late": lambda: write_day(growing, day_of(4) + 7),
        "same day": lambda: write_day(growing, day_of(4), hour=12),
        "replace": lambda: write_day(growing, day_of(8), seed=1, replaces=day_of(8)),
        "replace with another day": lambda: write_day(growing, day_of(8) + 1, replaces=day_of(8)),
        "beyond the cut": lambda: write_day(growing, day_of(15)),
        "replace beyond the cut": lambda: write_day(growing, day_of(16), seed=1, replaces=day_of(16)),
        "bring before the cut": lambda: write_day(growing, day_of(12), replaces=day_of(16)),
    }[change]()
    report = packed(growing, "old", steps=steps, before=cut)
    assert states(report) == {state: 1}
    assert report.store.version == packed(growing, "new", steps=steps, before=cut).store.version
    assert series_in_store(report.store) == series_in_cube(plan_of(growing), steps, before=cut)
    assert report.store.groups[f"{tiles()[0].path}#0"].state["snapshot"] == snapshot_of(growing)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_history_of_a_cube_ends_in_the_same_store(growing: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    held, steps = list(range(LOOKS)), int(rng.integers(STEPS, 20))
    packed(growing, "old", steps=steps)
    for turn in range(1, 9):
        if rng.random() < 0.25:
            number = int(rng.choice(held))
            write_day(growing, day_of(number), seed=turn, replaces=day_of(number))
        else:
            number = int(rng.choice([n for n in range(40) if n not in held]))
            write_day(growing, day_of(number), seed=turn)
            held.append(number)
        if rng.random() < 0.6:
            packed(growing, "old", steps=steps)
    report = packed(growing, "old", steps=steps)
    assert report.store.version == packed(growing, "new", steps=steps).store.version
    assert series_in_store(report.store) == series_in_cube(plan_of(growing), steps)


def test_a_packing_that_was_stopped_is_completed(growing_two: Path) -> None:

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(growing_two, "stopped", on_progress=stop)
    half = open_tokens(resolve(growing_two) / "tokens" / "stopped")
    assert 0 < half.samples < 336
    report = packed(growing_two, "stopped")
    assert states(report) == {"new": 1, "skipped": 1}
    assert report.store.version == packed(growing_two, "whole").store.version


@pytest.mark.parametrize("reads", [1, 3])
def test_an_update_that_was_stopped_anywhere_is_completed(
    growing_two: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    packed(growing_two, "stopped")
    for tile in (0, 1):
        grow(growing_two, [LOOKS], tile=tile)
    left = iter(range(reads))
    read = series_module.read_block

    def failing(*place: object, **more: object) -> object:
        if next(left, None) is None:
            raise OSError("the disk has gone")
        return read(*place, **more)

    with monkeypatch.context() as patch:
        patch.setattr(series_module, "read_block", failing)
        with pytest.raises(OSError, match="gone"):
            packed(growing_two, "stopped")
    between = open_tokens(resolve(growing_two) / "tokens" / "stopped")
    assert series_in_store(between).keys() == series_in_cube(plan_of(growing_two), STEPS).keys()
    report = packed(growing_two, "stopped")
    assert series_in_store(report.store) == series_in_cube(plan_of(growing_two), STEPS)


def test_a_damaged_group_is_packed_anew_when_its_cube_grows(growing: Path) -> None:
    packed(growing, "damaged")
    for path in (growing / "tokens/damaged/values/c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    grow(growing, [LOOKS])
    report = packed(growing, "damaged")
    assert states(report) == {"recomputed": 1}
    assert series_in_store(report.store) == series_in_cube(plan_of(growing), STEPS)


def test_a_snapshot_that_is_gone_has_its_series_read_anew(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(growing, "expired")
    old = snapshot_of(growing)
    grow(growing, [LOOKS])
    read = tokens_module.read_state

    def expired(location: object, snapshot: str | None = None) -> object:
        if snapshot == old:
            raise NotFound("no such snapshot")
        return read(location, snapshot)  # type: ignore[arg-type]

    monkeypatch.setattr(tokens_module, "read_state", expired)
    report = packed(growing, "expired")
    assert states(report) == {"recomputed": 1}
    assert series_in_store(report.store) == series_in_cube(plan_of(growing), STEPS)


def test_a_store_that_was_packed_otherwise_is_refused(warehouse: Path) -> None:
    packed(warehouse, "taken")
    with pytest.raises(ConfigurationError, match=r"bands: stored .*'B08'\], asked \['B02'\].*another name"):
        packed(warehouse, "taken", bands=("B02",))
    with pytest.raises(ConfigurationError, match="steps: stored 8, asked 9"):
        packed(warehouse, "taken", steps=9)
    with pytest.raises(ConfigurationError, match="last_day: stored None, asked '2019"):
        packed(warehouse, "taken", before=day_of(9))


def test_a_store_that_holds_no_usable_length_is_refused(warehouse: Path) -> None:
    with pytest.raises(ConfigurationError, match="steps 7: a series needs 8"):
        packed(warehouse, "narrow", steps=7)


def test_series_that_are_too_short_are_said_to_be(warehouse: Path) -> None:
    with pytest.raises(ConfigurationError, match="8 clear looks"):
        packed(warehouse, "short", before=day_of(3))


def test_the_source_gives_series_with_enough_looks(warehouse: Path) -> None:
    packed(warehouse, "source", steps=40)
    source = open_source(str(warehouse), "source")
    found = [series for shard in range(len(source.sizes)) for series in series_in(source.read(shard))]
    expected = [looks for looks in series_in_cube(plan_of(warehouse), 40).values() if len(looks) >= LEAST_LOOKS]
    assert Counter(map(str, found)) == Counter(map(str, expected))
    assert [len(source.read(shard)) for shard in range(len(source.sizes))] == list(source.sizes)
    assert 0 < len(found) < 336


def test_batches_of_a_store_cover_it_once_an_epoch(warehouse: Path) -> None:
    packed(warehouse, "batches", steps=40)
    source = open_source(str(warehouse), "batches")
    total = sum(source.sizes)
    batches = ShuffledTokens(source, 1, seed=3, window=2)
    found = [str(series_in(batches.at(position))[0]) for position in range(total)]
    expected = [str(s) for shard in range(len(source.sizes)) for s in series_in(source.read(shard))]
    assert Counter(found) == Counter(expected)
    assert torch.isnan(batches.at(0).values[..., 3]).all()  # B05, which these cubes do not hold


def test_a_request_is_packed_as_its_plan_is(warehouse: Path) -> None:
    plan = plan_of(warehouse)
    heard: list[tuple[str, int, int]] = []
    request = PackRequest(
        str(warehouse), "asked", plan.area, steps=STEPS, pixels=ALL, before=str(day_of(9)), crs="EPSG:32630"
    )
    report = pack(request, lambda *parts: heard.append(parts))
    assert series_in_store(report.store) == series_in_cube(plan, STEPS, before=day_of(9))
    assert [(done, total) for _, done, total in heard] == [(1, 2), (2, 2)]
    assert tuple(report.store.request["bands"]) == CUBE_BANDS


@pytest.mark.server
def test_an_object_store_keeps_tokens_alike(warehouse: Path, s3_warehouse: str) -> None:
    plan = plan_of(warehouse)
    folder = pack_area(plan, "s3", pixels=ALL, shard=64)
    location = resolve(s3_warehouse)
    rules = {"steps": 256, "pixels": ALL, "shard": 64}
    with pytest.MonkeyPatch.context() as patch:
        # cubes on the folder, tokens on the object store
        patch.setattr(tokens_module, "tokens_location", lambda _, name: location / "tokens" / name)
        report = pack_area(plan, "s3", **rules)
        again = pack_area(plan, "s3", **rules)
    assert report.store.location.scheme == "s3"
    assert states(again) == {"skipped": 2}
    assert series_in_store(report.store) == series_in_store(folder.store)
