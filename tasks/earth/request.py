"""From what the user asks for to the jobs of an ingest run; the same jobs again from the run's manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from storage.location import resolve
from storage.manifest import Run, content_hash, start_run
from storage.schema import SENTINEL2_BANDS, MaskRule
from tasks.earth.grid import Tile, tiles_of
from tasks.earth.ingest import SceneRow, TileJob, scenes_on_tile
from tasks.earth.read import ReadOptions, ResamplingName
from tasks.earth.scenes import Scene, parse_scene
from tasks.earth.signing import default_signer
from tasks.earth.stac import SearchResult, search
from tasks.earth.transport import Access
from tasks.errors import ConfigurationError, SourceRejected, UsageError
from tasks.limits import HttpLimits


@dataclass(frozen=True)
class IngestRequest:
    """What is to be ingested, whence and whereto.

    Parameters
    ----------
    catalog : str
        URL of a STAC API, or URL, folder or file of a static catalogue.
    collection : str
        For example ``sentinel-2-l2a``.
    area : dict
        GeoJSON geometry, EPSG:4326.
    start, end : str
        First and last day, ``YYYY-MM-DD``.
    warehouse : str
        URL.
    crs : str or None
        Projected CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    bands : tuple of str
        Sentinel-2 band names.
    max_cloud : float or None
        Items with a higher ``eo:cloud_cover`` (percent) are left out.
    mask : MaskRule
        Which asset is the mask, and how it is read.
    resampling : {"nearest", "bilinear", "cubic"}
        For reflectance that is not on the grid.
    limits : HttpLimits
        Retries, time-outs and rate per host.
    allowed_hosts : tuple of str
        Where not empty, the only hosts read from.
    time_limit_s : float
        For one tile.
    """

    catalog: str
    collection: str
    area: dict[str, Any]
    start: str
    end: str
    warehouse: str
    crs: str | None = None
    resolution: float = 10.0
    bands: tuple[str, ...] = SENTINEL2_BANDS
    max_cloud: float | None = None
    mask: MaskRule = field(default_factory=MaskRule)
    resampling: ResamplingName = "nearest"
    limits: HttpLimits = field(default_factory=HttpLimits)
    allowed_hosts: tuple[str, ...] = ()
    time_limit_s: float = 3600.0

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the manifest; nothing in it is secret."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> IngestRequest:
        """Return the request that `to_json` described."""
        mask = data["mask"]
        return cls(
            **{
                **data,
                "bands": tuple(data["bands"]),
                "mask": MaskRule(mask["asset"], tuple(mask["clear"]), mask["dilation"]),
                "limits": HttpLimits(**data["limits"]),
                "allowed_hosts": tuple(data["allowed_hosts"]),
            }
        )


@dataclass(frozen=True)
class Prepared:
    """An ingest, ready to run.

    Parameters
    ----------
    jobs : tuple of TileJob
        One for each tile.
    rejected : tuple of SceneRow
        Items that are not what was asked for.
    notes : tuple of str
        What the user should know of the search: counts that do not match, repeated items.
    complete : bool
        Whether as many items came as the catalogue said there are.
    newest : str
        Newest sensing start among the items, empty where there are none.
    """

    jobs: tuple[TileJob, ...]
    rejected: tuple[SceneRow, ...]
    notes: tuple[str, ...]
    complete: bool
    newest: str


def prepare_ingest(request: IngestRequest) -> Prepared:
    """Search the catalogue and cut the work into tiles; nothing is written.

    Raises
    ------
    ConfigurationError
        Where the catalogue, collection, area, bands or dates cannot be right.
    SourceUnavailable
        Where the catalogue does not answer.
    """
    _check(request)
    found = search(
        request.catalog,
        request.collection,
        geometry=request.area,
        start=request.start,
        end=request.end,
        max_cloud=request.max_cloud,
        limits=request.limits,
    )
    scenes, rejected = [], []
    for item in found.items:
        try:
            scenes.append(parse_scene(item, request.bands, mask_asset=request.mask.asset))
        except SourceRejected as error:
            day = str(item.datetime or "")[:10]
            rejected.append(SceneRow("", item.id, day, "failed", error.reason, str(error)))
    for refused in found.rejected:
        rejected.append(SceneRow("", refused.id, "", "failed", "invalid-input", refused.why))
    tiles = tiles_of(request.area, crs=request.crs, resolution=request.resolution)
    return Prepared(
        tuple(_job(request, tile, tuple(scenes)) for tile in tiles),
        tuple(rejected),
        _notes(request, found),
        complete=found.complete,
        newest=str(found.newest or ""),
    )


def _notes(request: IngestRequest, found: SearchResult) -> tuple[str, ...]:
    if not found.items and not found.rejected:
        cloud = "" if request.max_cloud is None else f" with at most {request.max_cloud:g} % cloud"
        nothing = (
            f"the catalogue lists no item of {request.collection} here from {request.start} to {request.end}{cloud}"
        )
        return (*((found.message,) if found.message else ()), nothing)
    return (found.message,) if found.message else ()


def open_ingest_run(request: IngestRequest, prepared: Prepared) -> Run:
    """Freeze the inputs of an ingest in a manifest."""
    scenes = {scene.id: scene for job in prepared.jobs for scene in job.scenes}
    manifest = {
        "request": request.to_json(),
        "config_hash": content_hash(request.to_json()),
        "software": {"canopus": version("canopus")},
        "scenes": [scene.to_json() for scene in scenes.values()],
        "tiles": [_tile_json(job.tile) for job in prepared.jobs],
        "rejected": [asdict(row) for row in prepared.rejected],
        "notes": list(prepared.notes),
    }
    return start_run(resolve(request.warehouse), "ingest", manifest)


def jobs_of_run(run: Run) -> tuple[tuple[TileJob, ...], tuple[SceneRow, ...]]:
    """Return the jobs of a run's manifest that are not done, and the rows of what is.

    What failed is taken up again, and what the run never came to because it was killed. Items that were rejected are
    looked up in the catalogue once more, since what was wrong with them was the item itself.

    Raises
    ------
    ConfigurationError
        Where the run is no ingest.
    SourceUnavailable
        Where items were rejected and the catalogue does not answer.
    """
    manifest = run.read_manifest()
    if manifest.get("kind") != "ingest":
        raise ConfigurationError(f"{run.id} is a {manifest.get('kind')} run; redrive takes ingest runs")
    request = IngestRequest.from_json(manifest["request"])
    scenes = [Scene.from_json(scene) for scene in manifest["scenes"]]
    table = run.read_regions()
    rows = [SceneRow(**row) for row in table.to_dict("records")] or [SceneRow(**row) for row in manifest["rejected"]]
    settled = {(row.tile, row.scene) for row in rows if row.state != "failed"}
    known = {scene.id for scene in scenes}
    mended, rejected = _look_up(request, [row for row in rows if row.state == "failed" and row.scene not in known])
    scenes += mended
    done = (*(row for row in rows if row.state != "failed"), *rejected)
    jobs = []
    for data in manifest["tiles"]:
        tile = _tile_from_json(data)
        left = tuple(scene for scene in scenes if (tile.path, scene.id) not in settled)
        if left:
            jobs.append(_job(request, tile, left))
    return tuple(jobs), done


def _look_up(request: IngestRequest, rows: list[SceneRow]) -> tuple[list[Scene], list[SceneRow]]:
    """Search again for items that were rejected; return those that can be used now, and the rows of the others."""
    if not rows:
        return [], []
    prepared = prepare_ingest(request)
    names = {row.scene for row in rows}
    listed = {scene.id: scene for job in prepared.jobs for scene in job.scenes}
    mended = [scene for scene in listed.values() if names & {scene.id, scene.href}]
    found = {name for scene in mended for name in (scene.id, scene.href)}
    again = {row.scene: row for row in prepared.rejected}
    return mended, [again.get(row.scene, row) for row in rows if row.scene not in found]


def _check(request: IngestRequest) -> None:
    unknown = [band for band in request.bands if band not in SENTINEL2_BANDS]
    if unknown:
        raise UsageError(f"--bands: {', '.join(unknown)} unknown; there are {', '.join(SENTINEL2_BANDS)}")
    if request.start > request.end:
        raise UsageError(f"--start {request.start} lies after --end {request.end}")


def _job(request: IngestRequest, tile: Tile, scenes: tuple[Scene, ...]) -> TileJob:
    access = Access(
        limits=request.limits,
        catalog=request.catalog,
        allowed_hosts=request.allowed_hosts,
        sign=default_signer(),
    )
    options = ReadOptions(resampling=request.resampling, access=access)
    job = TileJob(request.warehouse, tile, scenes, request.bands, request.mask, options, request.time_limit_s)
    return replace(job, scenes=scenes_on_tile(job))


def _tile_json(tile: Tile) -> dict[str, Any]:
    return {
        "grid": tile.grid,
        "name": tile.name,
        "crs": str(tile.geobox.crs),
        "transform": list(tile.geobox.affine)[:6],
        "shape": [int(size) for size in tile.geobox.shape],
        "window": list(tile.window),
    }


def _tile_from_json(data: Mapping[str, Any]) -> Tile:
    geobox = GeoBox(tuple(data["shape"]), Affine(*data["transform"]), data["crs"])
    top, bottom, left, right = data["window"]
    return Tile(data["grid"], data["name"], geobox, (top, bottom, left, right))


def summarise(rows: Iterable[SceneRow]) -> dict[str, int]:
    """Return the number of scenes per state; a scene on two tiles counts once for each."""
    counts = dict.fromkeys(("ingested", "skipped", "superseded", "failed"), 0)
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    return counts
