"""Ingest one tile: plan, read each date, write it in one commit. No Prefect here; a tile is the unit of work."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from shapely.geometry import shape

from storage.cube import CubeWriter, DateEntry, create_cube, read_state, write_cube
from storage.errors import NotFound, SchemaMismatch, TileBusy
from storage.location import resolve
from storage.schema import CubeSchema, MaskRule
from tasks.earth.grid import Tile
from tasks.earth.plan import DatePlan, plan_tile
from tasks.earth.read import ReadOptions, SceneRaster, mosaic, read_scene
from tasks.earth.scenes import Scene
from tasks.errors import SourceError

logger = logging.getLogger(__name__)

_WRITE_ATTEMPTS = 5


@dataclass(frozen=True)
class TileJob:
    """Everything that a worker needs to bring one tile up to date.

    Parameters
    ----------
    warehouse : str
        URL.
    tile : Tile
        Which cell, and which part of it.
    scenes : tuple of Scene
        What the catalogue lists for it.
    bands : tuple of str
        Bands to keep.
    mask : MaskRule
        Kept in the cube.
    read : ReadOptions
        Retries, limits, resampling, read threads.
    time_limit_s : float
        Dates not begun by then are reported as failed with reason ``time-limit``.
    read_ahead : int
        Dates read while one is written.
    """

    warehouse: str
    tile: Tile
    scenes: tuple[Scene, ...]
    bands: tuple[str, ...]
    mask: MaskRule = field(default_factory=MaskRule)
    read: ReadOptions = field(default_factory=ReadOptions)
    time_limit_s: float = 3600.0
    read_ahead: int = 2


@dataclass(frozen=True)
class SceneRow:
    """What became of one scene on one tile: a row of the run's ``regions.parquet``.

    Parameters
    ----------
    tile, scene, day : str
        Tile path, scene id, solar day.
    state : str
        ``ingested``, ``skipped``, ``superseded``, ``failed``, or in a plan ``new`` and ``recompute``.
    reason, message : str
        Code of `tasks.errors.Reason` and the words, where it failed.
    seconds : float
        Reading and writing of its date.
    bytes : int
        Uncompressed bytes of its date.
    """

    tile: str
    scene: str
    day: str
    state: str
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class TileReport:
    """Outcome of one tile.

    Parameters
    ----------
    tile : str
        Path under the warehouse.
    snapshot : str
        State of the cube afterwards; empty where there is none.
    rows : tuple of SceneRow
        One for each scene.
    """

    tile: str
    snapshot: str
    rows: tuple[SceneRow, ...]


Progress = Callable[[str, int, int], None]
"""Called with the tile's path, dates done and dates to do."""


def plan_job(job: TileJob) -> tuple[DatePlan, ...]:
    """Return what `ingest_tile` would do, from the cube's metadata alone."""
    try:
        state = read_state(resolve(job.warehouse) / job.tile.path)
    except (NotFound, SchemaMismatch):
        state = None
    return plan_tile(state, scenes_on_tile(job), job.tile.window)


def ingest_tile(job: TileJob, on_progress: Progress | None = None) -> TileReport:
    """Bring one tile up to date: what is new is read and written, what stands is left alone.

    One date is one commit. Reading of the next dates goes on while one is written. A scene that cannot be read is a row
    of the report and stops no other.

    Raises
    ------
    TileBusy
        Where another writer keeps the tile, or commits ahead of this one again and again.
    SchemaMismatch
        Where the stored cube has other bands, grid or mask.
    """
    location = resolve(job.warehouse) / job.tile.path
    job = replace(job, scenes=scenes_on_tile(job))
    if not job.scenes:
        return TileReport(job.tile.path, "", ())
    create_cube(location, CubeSchema(job.tile.geobox, job.bands, job.mask))
    started = time.monotonic()
    done: dict[str, SceneRow] = {}
    for attempt in range(_WRITE_ATTEMPTS):
        try:
            with write_cube(location) as writer:
                _write_missing(job, writer, started, done, on_progress)
                return TileReport(job.tile.path, writer.state.snapshot, _asked_for(job, done))
        except TileBusy as error:
            # on an object store another writer came first: look at what stands now and go on
            if location.local_path is not None or attempt == _WRITE_ATTEMPTS - 1:
                raise
            logger.warning("%s; planning again (%d)", error, attempt + 1)
    raise AssertionError("unreachable")


def scenes_on_tile(job: TileJob) -> tuple[Scene, ...]:
    """Return the scenes whose footprint touches the wanted part of the tile."""
    rows = slice(job.tile.window[0], job.tile.window[1])
    columns = slice(job.tile.window[2], job.tile.window[3])
    wanted = job.tile.geobox[rows, columns].geographic_extent.geom
    return tuple(scene for scene in job.scenes if shape(scene.footprint).intersects(wanted))


def _write_missing(
    job: TileJob, writer: CubeWriter, started: float, done: dict[str, SceneRow], on_progress: Progress | None
) -> None:
    plans = plan_tile(writer.state, job.scenes, job.tile.window)
    late = []
    for plan in plans:
        if plan.action == "skip":
            _note(done, _rows(job, plan, "skipped"))
            late += _unrecorded(writer, plan)
    if late:
        writer.note(late)
    todo = [plan for plan in plans if plan.action != "skip"]
    for count, (plan, loaded) in enumerate(_read_ahead(job, todo, started), start=1):
        _note(done, _write_date(job, writer, plan, loaded))
        if on_progress is not None:
            on_progress(job.tile.path, count, len(todo))


@dataclass(frozen=True)
class _LoadedDate:
    rasters: tuple[SceneRaster, ...]
    failures: dict[str, SourceError]
    seconds: float


def _read_ahead(job: TileJob, plans: list[DatePlan], started: float) -> Iterator[tuple[DatePlan, _LoadedDate]]:
    """Yield each date read, in order, with at most `read_ahead` dates in memory beyond the one in use."""
    with ThreadPoolExecutor(max_workers=max(1, job.read_ahead)) as pool:
        pending: deque[tuple[DatePlan, Future[_LoadedDate]]] = deque()
        waiting = iter(plans)
        try:
            for plan in waiting:
                pending.append((plan, pool.submit(_load, job, plan, started)))
                if len(pending) > job.read_ahead:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _load(job: TileJob, plan: DatePlan, started: float) -> _LoadedDate:
    begun = time.perf_counter()
    rasters: list[SceneRaster] = []
    failures: dict[str, SourceError] = {}
    deadline = started + job.time_limit_s
    geobox = job.tile.geobox[plan.window[0] : plan.window[1], plan.window[2] : plan.window[3]]
    for scene in plan.scenes:
        try:
            if time.monotonic() > deadline:
                raise SourceError(f"the tile's {job.time_limit_s:.0f} s were over", reason="time-limit")
            rasters.append(read_scene(scene, geobox, bands=job.bands, options=job.read, deadline=deadline))
        except SourceError as error:
            logger.warning("%s: %s not read: %s", job.tile.path, scene.id, error)
            failures[scene.id] = error
    return _LoadedDate(tuple(rasters), failures, time.perf_counter() - begun)


def _write_date(job: TileJob, writer: CubeWriter, plan: DatePlan, loaded: _LoadedDate) -> list[SceneRow]:
    begun = time.perf_counter()
    failed = [_failed_row(job, plan, scene, error) for scene, error in loaded.failures.items()]
    read = [raster.scene.id for raster in loaded.rasters]
    held_back = _would_lose(writer, plan, loaded)
    if held_back or not read:
        return failed + _rows(job, plan, "failed", only=read, reason="unavailable", message=held_back)
    if failed and _stands(writer, plan, loaded):
        return failed + _rows(job, plan, "skipped", only=read)
    if plan.index is None and not any(raster.has_data for raster in loaded.rasters):
        writer.note(_records(job, plan, loaded, "empty"))
        return failed + _rows(job, plan, "skipped", only=read, reason="no-data", message="no pixel falls into the area")
    entry = _entry(job, plan, loaded)
    writer.write(entry)
    seconds = loaded.seconds + time.perf_counter() - begun
    size = entry.reflectance.nbytes + entry.scl.nbytes
    rows = _rows(job, plan, "ingested", only=read)
    return failed + [replace(row, seconds=seconds, bytes=size) if row.state == "ingested" else row for row in rows]


def _would_lose(writer: CubeWriter, plan: DatePlan, loaded: _LoadedDate) -> str:
    """Return why a date must not be rewritten: a scene that it stands on, or its newer version, cannot be read now."""
    if plan.index is None:
        return ""
    current = writer.state.current_records()
    versions = {scene: [scene] for scene in loaded.failures}
    for old, new in plan.superseded.items():
        versions.get(new, []).append(old)
    lost = [scene for scene, ids in versions.items() if any(current.get(id_, {}).get("state") == "used" for id_ in ids)]
    return f"kept as it stands: {', '.join(lost)} cannot be read" if lost else ""


def _stands(writer: CubeWriter, plan: DatePlan, loaded: _LoadedDate) -> bool:
    """Return whether the cube holds already what could be read: what failed must not have it written at every run."""
    current = writer.state.current_records()
    held = [current.get(raster.scene.id, {}) for raster in loaded.rasters]
    return all(
        record.get("state") in ("used", "empty")
        and record["signature"] == raster.scene.signature
        and tuple(record["window"]) == plan.window
        for record, raster in zip(held, loaded.rasters, strict=True)
    )


def _unrecorded(writer: CubeWriter, plan: DatePlan) -> list[dict[str, Any]]:
    """Return rows for old versions that came after the newer one: no pixel changes, the decision is recorded."""
    current = writer.state.current_records()
    return [
        record
        for record in _superseded_records(plan)
        if current.get(record["scene"], {}).get("superseded_by") != record["superseded_by"]
    ]


def _entry(job: TileJob, plan: DatePlan, loaded: _LoadedDate) -> DateEntry:
    reflectance, scl = mosaic(loaded.rasters, job.mask.clear)
    window = (slice(plan.window[0], plan.window[1]), slice(plan.window[2], plan.window[3]))
    first = min(raster.scene.time for raster in loaded.rasters)
    return DateEntry(plan.index, first, window, reflectance, scl, _records(job, plan, loaded, "used"))


def _records(job: TileJob, plan: DatePlan, loaded: _LoadedDate, state: str) -> tuple[dict[str, Any], ...]:
    return (*(_record(job, plan, raster) | {"state": state} for raster in loaded.rasters), *_superseded_records(plan))


def _superseded_records(plan: DatePlan) -> list[dict[str, Any]]:
    return [
        _base_record(plan, old) | {"state": "superseded", "superseded_by": plan.superseded[old.id]}
        for old in plan.replaced
    ]


def _base_record(plan: DatePlan, scene: Scene) -> dict[str, Any]:
    return {
        "scene": scene.id,
        "signature": scene.signature,
        "solar_day": scene.solar_day,
        "platform": scene.platform,
        "sensing_start": scene.sensing_start,
        "mgrs_tile": scene.mgrs_tile,
        "datatake": scene.datatake,
        "datastrip": scene.datastrip,
        "baseline": scene.baseline,
        "generation_time": scene.generation_time,
        "cloud_cover_percent": scene.cloud_cover,
        "window": list(plan.window),
        "superseded_by": None,
        "source": scene.to_json(),
    }


def _record(job: TileJob, plan: DatePlan, raster: SceneRaster) -> dict[str, Any]:
    whole = job.tile.geobox.shape[0] * job.tile.geobox.shape[1]
    return _base_record(plan, raster.scene) | {
        "offset_dn": raster.offset.value,
        "offset_source": raster.offset.source,
        "offset_claimed_dn": raster.offset.claimed,
        "offset_pixels": raster.offset.verdict,
        "dark_target_dn": raster.offset.dark,
        "mask": job.mask.asset if raster.has_mask else None,
        "resampling": raster.resampling,
        "covered_share": round(raster.covered_pixels / whole, 6),
        "clear_share": round(raster.clear_pixels(job.mask.clear) / whole, 6),
    }


def _rows(
    job: TileJob,
    plan: DatePlan,
    state: str,
    *,
    only: Iterable[str] | None = None,
    reason: str = "",
    message: str = "",
) -> list[SceneRow]:
    chosen = {scene.id for scene in plan.scenes} if only is None else set(only)
    rows = [
        SceneRow(job.tile.path, scene.id, plan.day, state, reason, message)
        for scene in plan.scenes
        if scene.id in chosen
    ]
    for old, new in sorted(plan.superseded.items()):
        rows.append(SceneRow(job.tile.path, old, plan.day, "superseded", "", f"replaced by {new}"))
    return rows


def _failed_row(job: TileJob, plan: DatePlan, scene: str, error: SourceError) -> SceneRow:
    return SceneRow(job.tile.path, scene, plan.day, "failed", error.reason, str(error))


def _note(done: dict[str, SceneRow], rows: list[SceneRow]) -> None:
    """Keep what a first attempt did: after a conflict its dates come back as skipped."""
    for row in rows:
        if row.state == "skipped" and done.get(row.scene, row).state == "ingested":
            continue
        done[row.scene] = row


def _asked_for(job: TileJob, done: dict[str, SceneRow]) -> tuple[SceneRow, ...]:
    """Return the rows of the scenes that were offered; of others that stand on the same dates, only failures."""
    offered = {scene.id for scene in job.scenes}
    return tuple(row for row in done.values() if row.scene in offered or row.state == "failed")
