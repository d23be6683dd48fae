"""One batch of a bulk extraction: fetch, prepare, store in one commit, measure, draw. Every object ends with its rows."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.cutouts import Cutout
from storage.errors import SchemaMismatch
from storage.location import Location, resolve
from storage.sky import SkyReader, append_cutouts
from storage.sky_schema import check_cutout
from tasks.errors import SourceError, SourceRejected
from tasks.sky.contact_sheet import PER_SHEET, contact_sheet
from tasks.sky.extinction import extinction
from tasks.sky.extraction_plan import (
    BatchJob,
    ExtractionRequest,
    ObjectRow,
    count_states,
    held_in_store,
    is_held,
    read_objects,
    write_table,
)
from tasks.sky.gallery import PER_PAGE, gallery_picture
from tasks.sky.measuring import Outcome, measure_cutouts, pieces_of, timed, warm_up
from tasks.sky.methods import Weights, open_method
from tasks.sky.prepare import has_object, prepare_cutout
from tasks.sky.profile import Profile, ProfileMethod, State, unmeasured
from tasks.sky.profile_table import from_table, to_table
from tasks.sky.qa_pages import write_batch_page
from tasks.sky.qa_plots import draw_object
from tasks.sky.sources import CutoutSource
from tasks.sky.stored import StoreSource
from tasks.sky.targets import Target
from tasks.sky.workers import WorkerFailed, WorkerPool, pool_of

_log = logging.getLogger(__name__)

OnObject = Callable[[ObjectRow], None]
FETCHES = 8
"""Threads that wait for a source at once, in one batch; the source's own limits stand below it."""
DRAW_S = 120.0
"""Longest time for a picture."""
_WORST_FIRST: tuple[State, ...] = ("failed", "rejected", "outside")


@dataclass(frozen=True)
class BatchReport:
    """What became of a batch; small, so that it travels.

    Parameters
    ----------
    index : int
        Which batch.
    counts : dict of str to int
        Objects per state, of those that were worked on now.
    """

    index: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Found:
    """One object on its way: a cutout, or why there is none.

    Parameters
    ----------
    target : Target
        Whose.
    cutout : Cutout or None
        Prepared; None where it is read from the store when it is measured, or where there is none.
    lost : tuple of Profile
        Rows in its place where there is none.
    seconds : float
        Of work so far.
    """

    target: Target
    cutout: Cutout | None = None
    lost: tuple[Profile, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Measured:
    """One object at its end: its row of the run's table, its profiles, and a picture of them where one was drawn."""

    row: ObjectRow
    profiles: tuple[Profile, ...]
    picture: bytes | None = None


def extract_batch(
    job: BatchJob, on_object: OnObject | None = None, *, method: ProfileMethod | None = None
) -> BatchReport:
    """Bring one batch to its end, and write its tables.

    Parameters
    ----------
    job : BatchJob
        Which.
    on_object : callable, optional
        Called with the row of each object once it is done.
    method : ProfileMethod, optional
        By default the one that the request names.

    Raises
    ------
    StorageError
        Where the warehouse cannot be written. What is wrong with an object is in its rows.
    """
    return _Batch.of(job, method).extract(on_object or _tell_nobody)


@dataclass(frozen=True)
class _Batch:
    job: BatchJob
    source: CutoutSource
    method: ProfileMethod
    pool: WorkerPool
    store: Location
    bands: tuple[str, ...]

    @classmethod
    def of(cls, job: BatchJob, method: ProfileMethod | None) -> _Batch:
        request = job.request
        source = request.open_source(run=job.run.id)
        store = resolve(request.warehouse) / "sky" / source.name
        pool = pool_of(request.workers, warm_up)
        return cls(job, source, method or _method_of(request), pool, store, request.bands or source.bands)

    @property
    def limit_s(self) -> float:
        return self.job.request.time_limit_s

    def extract(self, on_object: OnObject) -> BatchReport:
        kept = self._kept() if self.job.again else {}
        targets = [target for target in self.job.targets if target.object_id not in kept]
        found = self._gather(targets)
        if isinstance(self.source, StoreSource):
            reader: SkyReader | None = self.source.reader
        else:
            self._append([one.cutout for one in found if one.cutout is not None])
            # what is measured is what was stored, whether it was fetched now or before
            found = [replace(one, cutout=None) for one in found]
            reader = SkyReader(self.store) if any(not one.lost for one in found) else None

        def finish(piece: slice) -> list[Measured]:
            done = []
            for measured in self._finish(found[piece], reader):
                on_object(measured.row)
                done.append(measured)
            return done

        with ThreadPoolExecutor(self.pool.size) as threads:
            fresh = [measured for piece in threads.map(finish, self._pieces(found, reader)) for measured in piece]
        done = kept | {measured.row.object_id: measured for measured in fresh}
        self._write([done[target.object_id] for target in self.job.targets], reader)
        return BatchReport(self.job.index, count_states([measured.row for measured in fresh]))

    def _kept(self) -> dict[str, Measured]:
        rows = [row for row in read_objects(self.job.run, self.job.index) or [] if row.state != "failed"]
        table = pq.read_table(io.BytesIO(self.job.run.location.read_bytes(f"profiles/{self.job.name}.parquet")))
        profiles: dict[str, list[Profile]] = {}
        for profile in from_table(table):
            profiles.setdefault(profile.object_id, []).append(profile)
        return {row.object_id: Measured(row, tuple(profiles[row.object_id])) for row in rows}

    def _gather(self, targets: Sequence[Target]) -> list[Found]:
        stored = isinstance(self.source, StoreSource)
        held = {} if stored else held_in_store(self.store, self.job.request, self.job.run, targets)

        def gather(target: Target) -> Found:
            return Found(target) if is_held(target, held) else self._fetch(target)

        with ThreadPoolExecutor(max(FETCHES, self.pool.size)) as threads:
            return list(threads.map(gather, targets))

    def _fetch(self, target: Target) -> Found:
        try:
            cutout = self.source.fetch(target, deadline=time.monotonic() + self.limit_s)
            prepared, seconds = cutout, 0.0
            if not has_object(cutout):
                prepared, seconds = self.pool.call(timed, prepare_cutout, cutout, limit_s=self.limit_s)
            check_cutout(prepared)
        except Exception as error:
            return self._lost(target, error)
        return Found(target, prepared, seconds=seconds)

    def _lost(self, target: Target, error: Exception) -> Found:
        """Return an object's rows in the place of its cutout or profiles: an error costs its object and nothing else."""
        state, reason, message = _in_words(error)
        if reason == "bug":
            _log.warning("object %s: %s", target.object_id, message, exc_info=error)
        bands = self.bands or ("",)  # of a folder's image that cannot be read, no band is known
        lost = unmeasured(target.object_id, bands, state=state, reason=reason, message=message)
        return Found(target, lost=lost, seconds=self.limit_s if reason == "time-limit" else 0.0)

    def _append(self, cutouts: list[Cutout]) -> None:
        if cutouts:
            append_cutouts(self.store, cutouts, batch=self.job.store_batch)

    def _pieces(self, found: list[Found], reader: SkyReader | None) -> list[slice]:
        ids = [one.target.object_id for one in found if not one.lost]
        sizes = {} if reader is None else reader.sizes_of(ids)
        known = (0 if one.lost else sizes[one.target.object_id] for one in found)
        return list(pieces_of(known, self.method, workers=self.pool.size))

    def _finish(self, piece: Sequence[Found], reader: SkyReader | None) -> Iterator[Measured]:
        """Yield objects at their end, those that were lost before and those that are measured now."""
        there = [one for one in piece if not one.lost]
        cutouts = [one.cutout or reader.read(one.target.object_id) for one in there] if reader is not None else []
        limits = [max(1.0, self.limit_s - one.seconds) for one in there]
        outcomes = iter(measure_cutouts(self.pool, self.method, cutouts, limits_s=limits))
        snapshot, held = reader.snapshot if reader is not None else "", iter(cutouts)
        for one in piece:
            yield self._row(one, one.lost, "") if one.lost else self._end(one, next(held), next(outcomes), snapshot)

    def _end(self, one: Found, cutout: Cutout, outcome: Outcome, snapshot: str) -> Measured:
        if outcome.error is not None:
            lost = self._lost(one.target, outcome.error)
            seconds = lost.seconds or one.seconds + outcome.seconds
            return self._row(replace(lost, seconds=seconds), lost.lost, snapshot)
        measured = self._row(replace(one, seconds=one.seconds + outcome.seconds), outcome.profiles, snapshot)
        return replace(measured, picture=self._draw(cutout, measured)) if self.job.request.pages else measured

    def _row(self, one: Found, profiles: Sequence[Profile], snapshot: str) -> Measured:
        target, by_band = one.target, {profile.band: profile for profile in profiles}
        bands = self.bands or tuple(by_band)
        absent = [band for band in bands if band not in by_band]
        for profile in unmeasured(
            target.object_id, absent, state="outside", reason="no-data", message="the source gave no such band"
        ):
            by_band[profile.band] = profile
        facts: dict[str, Any] = {"ra": target.ra, "dec": target.dec, "redshift": target.redshift, "snapshot": snapshot}
        rows = tuple(
            replace(by_band[band], **facts, ebv=target.ebv, extinction=extinction(self.source.name, band, target.ebv))
            for band in bands
        )
        return Measured(_row_of(target, self.job.index, rows, one.seconds), rows)

    def _draw(self, cutout: Cutout, measured: Measured) -> bytes | None:
        if measured.row.state != "measured":
            return None
        return self._drawn(partial(draw_object, cutout, measured.profiles), f"object {measured.row.object_id}")

    def _drawn(self, draw: Callable[[], bytes], name: str) -> bytes | None:
        try:
            return self.pool.call(draw, limit_s=DRAW_S)
        except (SourceError, WorkerFailed) as error:
            _log.warning("%s: no picture (%s)", name, error)
            return None

    def _write(self, measured: list[Measured], reader: SkyReader | None) -> None:
        job, folder = self.job, self.job.run.location
        write_table(folder, f"profiles/{job.name}.parquet", to_table(row for one in measured for row in one.profiles))
        if reader is not None:
            self._draw_gallery([one.row.object_id for one in measured if one.row.state == "measured"], reader)
        if job.request.pages:
            for number, one in enumerate(measured):
                if one.picture is not None:
                    folder.write_bytes(f"pages/{job.name}/{number:04d}.png", one.picture)
            write_batch_page(job, [(one.row, one.profiles) for one in measured])
        # written last: with it the batch is done
        write_table(folder, f"objects/{job.name}.parquet", pa.Table.from_pylist([asdict(one.row) for one in measured]))

    def _draw_gallery(self, measured: list[str], reader: SkyReader) -> None:
        """Draw the first objects of the batch; where no pages are asked for, in thumbnails."""
        pages, name = self.job.request.pages, f"batch {self.job.name}"
        cutouts = [reader.read(object_id) for object_id in measured[: PER_PAGE if pages else PER_SHEET]]
        if not cutouts:
            return
        draw = partial(gallery_picture, cutouts) if pages else partial(contact_sheet, cutouts, objects=len(measured))
        picture = self._drawn(draw, name)
        if picture is not None:
            self.job.run.location.write_bytes(f"pages/{self.job.name}.gallery.png", picture)


def close_processes(size: int) -> None:
    """End the processes of this process's pool."""
    pool_of(size, warm_up).close()


def _method_of(request: ExtractionRequest) -> ProfileMethod:
    weights = Weights(request.warehouse, request.model, request.training_mode, request.members)
    return open_method(request.method, geometry=request.geometry, weights=weights)


def _in_words(error: Exception) -> tuple[State, str, str]:
    """Return state, reason and message of an object that an error stopped."""
    if isinstance(error, SourceRejected):
        return "outside" if error.reason == "no-data" else "rejected", error.reason, str(error)
    if isinstance(error, SourceError):
        return "failed", error.reason, str(error)
    if isinstance(error, SchemaMismatch):
        return "rejected", "invalid-input", str(error)
    return "failed", "bug", str(error) if isinstance(error, WorkerFailed) else f"{type(error).__name__}: {error}"


def _row_of(target: Target, batch: int, profiles: Sequence[Profile], seconds: float) -> ObjectRow:
    measured = [profile for profile in profiles if profile.state == "measured"]
    lost = [profile for profile in profiles if profile.state != "measured"]
    states = {profile.state for profile in lost}
    state = "measured" if measured else next(state for state in _WORST_FIRST if state in states)
    said = {profile.message: f"{profile.band}: {profile.message}" if measured else profile.message for profile in lost}
    reasons = dict.fromkeys(profile.reason for profile in lost if measured or profile.state == state)
    flags = 0
    for profile in measured:
        flags |= profile.object_flags
    return ObjectRow(
        target.object_id,
        target.ra,
        target.dec,
        batch,
        state,
        ", ".join(reasons),
        "; ".join(said.values()),
        len(measured),
        flags,
        seconds,
    )


def _tell_nobody(_: ObjectRow) -> None:
    return None
