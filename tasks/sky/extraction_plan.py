"""What a bulk extraction of profiles is asked, how it is cut into batches, and its run in the warehouse.

``runs/profiles-.../``: ``manifest.json``, ``targets.parquet`` (as they were read, with the number of their batch),
``profiles/NNNNN.parquet`` and ``objects/NNNNN.parquet`` of each finished batch, ``pages/`` and, at the end,
``regions.parquet``. A batch is done when its table of objects is there, which is written last.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import NotFound, StorageError
from storage.location import Location, resolve
from storage.manifest import Run, content_hash, list_runs, start_run
from storage.sky import SkyReader
from tasks.errors import ConfigurationError, UsageError
from tasks.limits import HttpLimits
from tasks.sky.profile import STATES, State
from tasks.sky.source_options import VIEWER_LIMITS, VIEWER_URL, SourceOptions
from tasks.sky.sources import CutoutSource, open_source
from tasks.sky.stored import StoreSource, targets_of_store
from tasks.sky.target_columns import ColumnNames
from tasks.sky.targets import Target, TargetList, read_targets

KIND = "profiles"
TARGETS = "targets.parquet"
DEFAULT_SIZE = 256
BATCH_BYTES = 512 * 2**20
"""Most bytes of the cutouts of one batch, where the targets' sizes are known."""
_BYTES_PER_PIXEL = 4 + 1 + 4 + 4
_NEAR_DEG = 1e-7
_NATIVE_SCALE = {"legacy": 0.262, "bricks": 0.262, "sdss": 0.396}
"""Arcsec per pixel of a survey's images."""
_FREE = ("warehouse", "workers", "limits", "cache")
"""Settings that may change between two goes at one run: what comes out does not depend on them."""


_OF_THE_SOURCE = (
    *("source", "bands", "size_pixels", "size_arcsec", "pixel_scale_arcsec", "zero_points"),
    *("max_empty_share", "psf", "viewer_url"),
)
"""Settings that decide the cutout of a position."""


@dataclass(frozen=True)
class ExtractionRequest:
    """Which profiles are to be measured, from what, how.

    Parameters
    ----------
    targets : str
        File of positions, or a query; empty for every image of a folder, or object of a store.
    source : str
        ``legacy``, ``legacy:LAYER``, ``sdss``, ``bricks:PATH``, ``folder:PATH`` or ``store:NAME``.
    warehouse : str
        URL.
    bands : tuple of str
        Empty for the source's own.
    method : str
        One of `tasks.sky.methods.METHODS`.
    geometry : str
        One of `tasks.sky.methods.GEOMETRIES`.
    model : str
        ``name/version`` of the weights, of a method that takes some.
    training_mode, members : bool, int
        See `tasks.sky.methods.Weights`.
    columns : ColumnNames
        Of the list, that are not to be guessed.
    size_pixels, size_arcsec : int or float, optional
        Side of a cutout, where a target does not say its own.
    pixel_scale_arcsec : float, optional
        Of local files whose headers do not say; of the viewer's answers, to ask for.
    zero_points : mapping of str to float
        AB magnitude of one unit of flux, by band, ``*`` for every one, of local files whose headers do not say.
    max_empty_share : float
        An image with more of its pixels empty than this is rejected.
    psf : bool
        Whether the point spread function is asked for where it is a request of its own.
    viewer_url : str
        Of the Legacy Survey's viewer.
    cache : str, optional
        Folder for the services' raw answers; None = the user's.
    batch_size : int
        Objects of one commit.
    time_limit_s : float
        Wall time of the work on one object, at most; and again for fetching it.
    ebv_map : str
        Dust map that gives E(B-V) where the list does not; empty = none.
    merge_radius_arcsec : float
        Targets nearer to each other are one.
    workers : int
        Processes that measure, on each machine that runs batches.
    pages : bool
        Whether a page with a picture of each object is made.
    limits : HttpLimits
        How hard another's server may be leant on.
    refresh : bool
        Begin a new run, and fetch what the store holds already.
    collection, title : str
        Of the product.
    """

    targets: str
    source: str
    warehouse: str
    bands: tuple[str, ...] = ()
    method: str = "auto"
    geometry: str = "free"
    model: str = ""
    training_mode: bool = False
    members: int = 1
    columns: ColumnNames = field(default_factory=ColumnNames)
    ebv_map: str = ""
    size_pixels: int | None = None
    size_arcsec: float | None = None
    pixel_scale_arcsec: float | None = None
    zero_points: Mapping[str, float] = field(default_factory=dict)
    max_empty_share: float = SourceOptions.max_empty_share
    psf: bool = True
    viewer_url: str = VIEWER_URL
    cache: str | None = None
    batch_size: int = 100
    time_limit_s: float = 60.0
    merge_radius_arcsec: float = 1.0
    workers: int = 1
    pages: bool = True
    limits: HttpLimits = VIEWER_LIMITS
    refresh: bool = False
    collection: str = "profiles"
    title: str = "Surface-brightness profiles"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExtractionRequest:
        """Return the request that `to_json` described."""
        made = {
            "bands": tuple(data["bands"]),
            "columns": ColumnNames(**data["columns"]),
            "limits": HttpLimits(**data["limits"]),
        }
        return cls(**{**data, **made})

    @property
    def source_digest(self) -> str:
        """Return a digest of what decides the cutout of a position: by it, the store's objects are used again."""
        return content_hash({name: getattr(self, name) for name in _OF_THE_SOURCE})[:12]

    @property
    def side_pixels(self) -> int | None:
        """Return the side of a cutout that is asked for, None where the target or the source decides.

        Raises
        ------
        UsageError
            Where arcsec cannot be turned into pixels.
        """
        if self.size_arcsec is None:
            return self.size_pixels
        scale = self.pixel_scale_arcsec or _NATIVE_SCALE.get(self.source.partition(":")[0])
        if self.size_pixels is not None or scale is None:
            raise UsageError(
                f"--size-arcsec {self.size_arcsec:g}: give it with --pixel-scale, and without --size-pixels"
            )
        return max(1, round(self.size_arcsec / scale))

    def open_source(self, *, run: str = "") -> CutoutSource:
        """Return the source of the cutouts.

        Parameters
        ----------
        run : str
            Which run asks: one that fetches all anew keeps the services' answers in a folder of its own.

        Raises
        ------
        ConfigurationError
            Where there is no such source.
        """
        from tasks.sky.answers import default_cache

        cache = default_cache() if self.cache is None else Path(self.cache).expanduser()
        options = SourceOptions(
            size_pixels=self.side_pixels,
            pixel_scale_arcsec=self.pixel_scale_arcsec,
            zero_points=self.zero_points,
            max_empty_share=self.max_empty_share,
            cache=cache / run if self.refresh and run else cache,
            url=self.viewer_url.rstrip("/"),
            psf=self.psf,
            limits=self.limits,
            warehouse=self.warehouse,
        )
        return open_source(self.source, bands=self.bands, options=options)


@dataclass(frozen=True)
class ObjectRow:
    """What became of one object: a row of ``regions.parquet``.

    Parameters
    ----------
    object_id : str
        Whose.
    ra, dec : float
        Degrees.
    batch : int
        Number of its batch.
    state : str
        One of `tasks.sky.profile.STATES`: ``measured`` where one band was.
    reason, message : str
        Where a band, or all, were not.
    bands : int
        How many were measured.
    flags : int
        `tasks.sky.profile.ObjectFlag` of all bands.
    seconds : float
        Of work in a process; not of waiting for servers.
    """

    object_id: str
    ra: float
    dec: float
    batch: int
    state: State
    reason: str = ""
    message: str = ""
    bands: int = 0
    flags: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class BatchJob:
    """One batch of a run.

    Parameters
    ----------
    request : ExtractionRequest
        What is asked.
    run : Run
        Where its tables go.
    index, batches : int
        Which batch of how many, from 0.
    targets : tuple of Target
        In the order of the list.
    again : bool
        Take up what failed in it, and keep the rest.
    """

    request: ExtractionRequest
    run: Run
    index: int
    batches: int
    targets: tuple[Target, ...] = field(repr=False)
    again: bool = False

    @property
    def name(self) -> str:
        """Return the batch's number as its files have it."""
        return f"{self.index:05d}"

    @property
    def store_batch(self) -> str:
        """Return the name of the commit: which cutouts these are, and of which run."""
        return f"{self.request.source_digest}-{self.run.id}-{self.name}"


def plan_batches(targets: tuple[Target, ...], request: ExtractionRequest) -> tuple[int, ...]:
    """Return the number of each target's batch: so many objects at most, and fewer where they are large."""
    numbers, count, held, number = [], 0, 0, 0
    for target in targets:
        size = expected_bytes(target, request)
        if count and (count == request.batch_size or held + size > BATCH_BYTES):
            number, count, held = number + 1, 0, 0
        numbers.append(number)
        count, held = count + 1, held + size
    return tuple(numbers)


def expected_bytes(target: Target, request: ExtractionRequest) -> int:
    """Return the uncompressed size of a target's cutout, as far as it is known beforehand."""
    side = target.size_pixels or request.side_pixels or DEFAULT_SIZE
    return side**2 * max(1, len(request.bands)) * _BYTES_PER_PIXEL


@dataclass(frozen=True)
class Prepared:
    """A run with its inputs frozen.

    Parameters
    ----------
    request : ExtractionRequest
        What is asked.
    run : Run
        New, or one that was cut short.
    jobs : tuple of BatchJob
        Batches that are left to do.
    batches, objects : int
        In the whole run.
    notes : tuple of str
        What the user should know of the target list.
    bad_rows : tuple of str
        Rows of the list that are no target, one line each.
    """

    request: ExtractionRequest
    run: Run
    jobs: tuple[BatchJob, ...]
    batches: int
    objects: int
    notes: tuple[str, ...] = ()
    bad_rows: tuple[str, ...] = ()


def read_target_list(request: ExtractionRequest) -> TargetList:
    """Return the targets of a request.

    Raises
    ------
    ConfigurationError
        Where the list cannot be read or has no target.
    """
    if request.targets:
        found = read_targets(request.targets, merge_radius_arcsec=request.merge_radius_arcsec, columns=request.columns)
    elif request.source.startswith("folder:"):
        from tasks.sky.folder import targets_of_folder

        found = targets_of_folder(Path(request.source.removeprefix("folder:")), columns=request.columns)
    elif isinstance(source := request.open_source(), StoreSource):
        found = targets_of_store(source)
    else:
        raise UsageError(
            f"--source {request.source}: name the --targets; only a folder or a store is measured whole without"
        )
    if not found.targets:
        raise ConfigurationError(f"{request.targets or request.source}: {found.rows} rows and no target among them")
    if request.ebv_map:
        from tasks.sky.dust import open_dust_map, with_reddening

        return replace(found, targets=with_reddening(found.targets, open_dust_map(request.ebv_map)))
    return found


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction would do.

    Parameters
    ----------
    targets : TargetList
        As read now.
    batches : int
        In all.
    held : int
        Objects in the store that are not fetched again.
    bytes : int
        Uncompressed, of those that are, as far as sizes are known.
    run : Run or None
        The run of the same targets and settings that would go on.
    finished : int
        Batches that it has finished.
    """

    targets: TargetList
    batches: int
    held: int
    bytes: int
    run: Run | None
    finished: int


def plan_extraction(request: ExtractionRequest) -> ExtractionPlan:
    """Return what `prepare_extraction` and its batches would do; nothing is written.

    Raises
    ------
    ConfigurationError
        Where the targets or the source cannot be used.
    """
    source, found, root = request.open_source(), read_target_list(request), resolve(request.warehouse)
    run = None if request.refresh else _same_run(root, _digest(request, found))
    batches = plan_batches(found.targets, request)[-1] + 1
    if isinstance(source, StoreSource):
        left = [target for target in found.targets if not source.holds(target)]
    else:
        held = held_in_store(root / "sky" / source.name, request, run, found.targets)
        left = [target for target in found.targets if not is_held(target, held)]
    size = 0 if isinstance(source, StoreSource) else sum(expected_bytes(target, request) for target in left)
    finished = len(run.location.list_names("objects/")) if run else 0
    return ExtractionPlan(found, batches, len(found.targets) - len(left), size, run, finished)


def held_in_store(
    store: Location, request: ExtractionRequest, run: Run | None, targets: Sequence[Target]
) -> dict[str, tuple[float, float]]:
    """Return position by id of those targets whose cutouts in the store need not be fetched again, if they still lie there.

    A file may have changed since another run; what this run stored itself is as frozen as its targets.
    """
    try:
        reader = SkyReader(store)
    except NotFound:
        return {}
    digest = f"{request.source_digest}-"
    this_run_only = request.refresh or request.source.startswith("folder:")
    prefix = f"{digest}{run.id if run else ''}-" if this_run_only else digest
    rows = reader.rows_of(target.object_id for target in targets)
    rows = rows[rows["batch"].astype(str).str.startswith(prefix)]
    return dict(zip(rows["object_id"], zip(rows["ra"], rows["dec"], strict=True), strict=True))


def is_held(target: Target, held: Mapping[str, tuple[float, float]]) -> bool:
    """Return whether a target's cutout is among those in the store, of the same position."""
    if target.object_id not in held:
        return False
    offsets = (abs(mine - its) for mine, its in zip((target.ra, target.dec), held[target.object_id], strict=True))
    return all(math.isnan(offset) or offset < _NEAR_DEG for offset in offsets)


def prepare_extraction(request: ExtractionRequest) -> Prepared:
    """Read the targets and freeze them in a run, or find the run that was asked the same.

    A run is the same where targets, source, settings and code are. With `refresh` a new one begins.

    Raises
    ------
    ConfigurationError
        Where the targets or the source cannot be used.
    """
    request.open_source()  # what is wrong with it is said before anything is written
    found = read_target_list(request)
    digest, root = _digest(request, found), resolve(request.warehouse)
    run = None if request.refresh else _same_run(root, digest)
    now = {name: getattr(request, name) for name in _FREE}
    return prepared_of(run or _start(root, request, found, digest), now=now)


def prepared_of(run: Run, *, now: Mapping[str, Any], again: bool = False) -> Prepared:
    """Return what is left of a run.

    Parameters
    ----------
    run : Run
        Of this kind.
    now : mapping
        Settings that may differ from when it began: they do not change what comes out.
    again : bool
        Also take up objects that failed and may pass.

    Raises
    ------
    ConfigurationError
        Where it is another kind of run.
    """
    manifest = run.read_manifest()
    if manifest.get("kind") != KIND:
        raise ConfigurationError(f"{run.id} is a {manifest.get('kind')} run, no extraction of profiles")
    request = replace(ExtractionRequest.from_json(manifest["request"]), **now)
    jobs = tuple(_jobs(run, request, again=again))
    batches, objects = manifest["batches"], manifest["objects"]
    return Prepared(request, run, jobs, batches, objects, tuple(manifest["notes"]), tuple(manifest["bad_rows"]))


def read_objects(run: Run, index: int) -> list[ObjectRow] | None:
    """Return the rows of a finished batch, None where it is not finished."""
    try:
        data = run.location.read_bytes(f"objects/{index:05d}.parquet")
    except NotFound:
        return None
    return [ObjectRow(**row) for row in pq.read_table(io.BytesIO(data)).to_pylist()]


def write_table(location: Location, name: str, table: pa.Table) -> None:
    """Write a table as Parquet; readers see all of it or nothing."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    location.write_bytes(name, buffer.getvalue())


def read_frozen_targets(run: Run) -> dict[int, tuple[Target, ...]]:
    """Return a run's targets by the number of their batch, in order."""
    rows = pq.read_table(io.BytesIO(run.location.read_bytes(TARGETS))).to_pylist()
    found: dict[int, list[Target]] = {}
    for row in rows:
        number = row.pop("batch")
        found.setdefault(number, []).append(Target(**{**row, "names": tuple(row["names"])}))
    return {number: tuple(targets) for number, targets in found.items()}


def count_states(rows: list[ObjectRow]) -> dict[str, int]:
    """Return the number of objects in each state."""
    counts = dict.fromkeys(STATES, 0)
    for row in rows:
        counts[row.state] += 1
    return counts


def _digest(request: ExtractionRequest, found: TargetList) -> str:
    asked = {name: value for name, value in request.to_json().items() if name not in (*_FREE, "refresh")}
    return content_hash({"asked": asked, "targets": found.digest, "canopus": version("canopus")})


def _jobs(run: Run, request: ExtractionRequest, *, again: bool) -> Iterator[BatchJob]:
    batches = read_frozen_targets(run)
    for index, targets in sorted(batches.items()):
        rows = read_objects(run, index)
        failed = again and rows is not None and any(row.state == "failed" for row in rows)
        if rows is None or failed:
            yield BatchJob(request, run, index, len(batches), targets, again=failed)


def _start(root: Location, request: ExtractionRequest, found: TargetList, digest: str) -> Run:
    numbers = plan_batches(found.targets, request)
    manifest = {
        "request": request.to_json(),
        "config_hash": digest,
        "targets_digest": found.digest,
        "software": {"canopus": version("canopus")},
        "rows": found.rows,
        "objects": len(found.targets),
        "batches": numbers[-1] + 1,
        "integer_ids": found.integer_ids,
        "notes": _notes(found),
        "bad_rows": [f"row {row.row}: {row.reason}" for row in found.bad_rows],
        "merged": [asdict(merged) for merged in found.merged],
    }
    run = start_run(root, KIND, manifest)
    rows = [{**asdict(target), "batch": number} for target, number in zip(found.targets, numbers, strict=True)]
    write_table(run.location, TARGETS, pa.Table.from_pylist(rows))
    return run


def _same_run(root: Location, digest: str) -> Run | None:
    for name in reversed(list_runs(root)):
        run = Run(root / "runs" / name, name)
        if name.startswith(f"{KIND}-") and run.location.exists(TARGETS):
            try:
                manifest = run.read_manifest()
            except (StorageError, ValueError):
                continue
            if manifest.get("config_hash") == digest:
                return run
    return None


def _notes(found: TargetList) -> list[str]:
    notes = [*found.notes]
    if found.merged:
        notes.append(f"{len(found.merged)} rows of the target list are merged with another at the same position")
    if found.bad_rows:
        notes.append(f"{len(found.bad_rows)} of {found.rows} rows of the target list are no target")
    return notes
