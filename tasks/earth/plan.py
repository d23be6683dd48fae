"""What has to be done for one tile: which scenes count, how they group into dates, what is new.

Pure functions of the scenes and of what the cube already holds; nothing is read and nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from storage.cube import CubeState
from tasks.earth.scenes import Scene

Window = tuple[int, int, int, int]
"""Rows and columns of a tile: first row, end row, first column, end column, in pixels."""

Action = Literal["new", "skip", "recompute"]


@dataclass(frozen=True)
class DatePlan:
    """One date of one tile and what to do about it.

    Parameters
    ----------
    day : str
        Solar day, ``YYYY-MM-DD``.
    platform : str
        Such as ``sentinel-2a``.
    action : {"new", "skip", "recompute"}
        What the run will do.
    why : str
        In words, for the plan that ``--dry-run`` prints.
    index : int or None
        Position in the cube where the date stands already.
    scenes : tuple of Scene
        The scenes that count, best first: newest baseline, then smaller id.
    superseded : dict of str to str
        Scene id to the id of the scene that replaces it.
    replaced : tuple of Scene
        The superseded scenes, by id; the cube may hold some that the catalogue lists no more.
    window : Window
        Part of the tile to fill.
    """

    day: str
    platform: str
    action: Action
    why: str
    index: int | None
    scenes: tuple[Scene, ...]
    superseded: dict[str, str]
    replaced: tuple[Scene, ...]
    window: Window


def choose_versions(scenes: Iterable[Scene]) -> tuple[tuple[Scene, ...], dict[str, str]]:
    """Return the newest version of each acquisition, best first, and which scene replaces which.

    Two scenes are versions of one acquisition where platform, MGRS tile, datatake (without its baseline) and the
    datastrip's sensing start agree; the newest baseline wins, then the newest generation time. Halves of a datatake
    that was split into datastrips differ in the last and are both kept.
    """
    versions: dict[tuple[str, ...], list[Scene]] = defaultdict(list)
    for scene in scenes:
        versions[scene.key].append(scene)
    kept: list[Scene] = []
    superseded: dict[str, str] = {}
    for group in versions.values():
        newest = max(group, key=lambda scene: scene.rank)
        kept.append(newest)
        superseded |= {scene.id: newest.id for scene in group if scene.id != newest.id}
    return tuple(sorted(kept, key=_priority)), superseded


def plan_tile(state: CubeState | None, scenes: Iterable[Scene], window: Window) -> tuple[DatePlan, ...]:
    """Return what to do for each date of a tile, oldest first.

    Parameters
    ----------
    state : CubeState or None
        What the cube holds; None where there is none yet.
    scenes : iterable of Scene
        What the catalogue answered. Scenes that the cube holds and the catalogue no longer lists stay.
    window : Window
        Part of the tile that is wanted; grows by what the cube already covers.
    """
    stored = _stored_dates(state)
    offered: dict[tuple[str, str], dict[str, Scene]] = defaultdict(dict)
    for scene in scenes:
        offered[scene.solar_day, scene.platform][scene.id] = scene
    wanted = _union([window, *(record.window for record in stored.values())])
    plans = []
    for day, platform in sorted(set(offered) | set(stored)):
        plans.append(_plan_date(day, platform, offered[day, platform], stored.get((day, platform)), wanted))
    return tuple(plans)


@dataclass(frozen=True)
class _StoredDate:
    index: int | None
    scenes: dict[str, Scene]
    used: frozenset[str]
    window: Window


def _plan_date(
    day: str, platform: str, offered: dict[str, Scene], stored: _StoredDate | None, window: Window
) -> DatePlan:
    candidates = (stored.scenes if stored else {}) | offered
    kept, superseded = choose_versions(candidates.values())
    action, why = _decide(kept, stored, window)
    index = stored.index if stored else None
    replaced = tuple(candidates[scene] for scene in sorted(superseded))
    return DatePlan(day, platform, action, why, index, kept, superseded, replaced, window)


def _decide(kept: tuple[Scene, ...], stored: _StoredDate | None, window: Window) -> tuple[Action, str]:
    if stored is None:
        return "new", "not in the cube"
    if not _covers(stored.window, window):
        return "recompute", "the area grew"
    signatures = {scene.signature for scene in kept}
    if signatures == stored.used:
        return "skip", "in the cube"
    new = sorted(scene.id for scene in kept if scene.signature not in stored.used)
    return "recompute", f"new or replaced: {', '.join(new)}" if new else "a scene was replaced"


def _stored_dates(state: CubeState | None) -> dict[tuple[str, str], _StoredDate]:
    by_date: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in state.current_records().values() if state else ():
        by_date[record["solar_day"], record["platform"]].append(record)
    return {date: _stored_date(records) for date, records in by_date.items()}


def _stored_date(records: list[dict[str, Any]]) -> _StoredDate:
    scenes = [Scene.from_json(record["source"]) for record in records]
    read = [record for record in records if record["state"] in ("used", "empty")]
    entries = [record["entry"] for record in records if record["entry"] is not None]
    return _StoredDate(
        entries[0] if entries else None,
        {scene.id: scene for scene in scenes},
        frozenset(record["signature"] for record in read),
        _intersection([tuple(record["window"]) for record in read]),
    )


def _priority(scene: Scene) -> tuple[float, str]:
    """Order newest baseline first, then the smaller id."""
    return -float(scene.baseline), scene.id


def _covers(outer: Window, inner: Window) -> bool:
    return outer[0] <= inner[0] and outer[1] >= inner[1] and outer[2] <= inner[2] and outer[3] >= inner[3]


def _union(windows: list[Window]) -> Window:
    tops, bottoms, lefts, rights = zip(*windows, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)


def _intersection(windows: list[Any]) -> Window:
    tops, bottoms, lefts, rights = zip(*windows, strict=True)
    return max(tops), min(bottoms), max(lefts), min(rights)
