"""Small archives with known pixels, their ingest without Prefect, and what a cube then holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
from affine import Affine
from factories import EARTH_SEARCH, Archive
from odc.geo.geobox import GeoBox

from storage.cube import open_cube, read_scenes
from storage.location import resolve
from tasks.earth.ingest import SceneRow, TileReport, ingest_tile
from tasks.earth.request import IngestRequest, Prepared, prepare_ingest
from tasks.earth.scenes import BandAsset, OffsetClaim, Scene
from tasks.limits import HttpLimits

BANDS = ("B02", "B04", "B08")
TILE = "earth/utm30n-10m/x0060_y0556"
TILE_CORNER = (614_400.0, 5_703_680.0)
"""Left and upper edge of the tile, EPSG:32630."""
BLOCK = (slice(256, 512), slice(256, 512))
WHOLE = (slice(None), slice(None))
QUICK = HttpLimits(attempts=6, backoff_s=0.01, backoff_max_s=0.05, requests_per_s=10_000)


def grid(row: int = 256, column: int = 256, size: int = 256, *, pixel: float = 10.0) -> GeoBox:
    """Return a square of `size` pixels of 10 m whose corner is that pixel of the tile, in pixels of `pixel` metres."""
    left, top = TILE_CORNER[0] + 10 * column, TILE_CORNER[1] - 10 * row
    count = round(size * 10 / pixel)
    return GeoBox((count, count), Affine(pixel, 0, left, 0, -pixel, top), "EPSG:32630")


def area_of(geobox: GeoBox, margin: float = 60.0) -> dict[str, Any]:
    """Return the polygon of a grid, drawn in by some metres, in degrees."""
    left, bottom, right, top = geobox.boundingbox
    from odc.geo.geom import box

    inner = box(left + margin, bottom + margin, right - margin, top - margin, geobox.crs)
    return dict(inner.to_crs("EPSG:4326").json)


def text_of(area: Mapping[str, Any]) -> str:
    """Return the bounds of an area as the command line takes them."""
    from shapely.geometry import shape

    return ",".join(f"{value:.8f}" for value in shape(area).bounds)


@dataclass(frozen=True)
class Look:
    """One item of an archive: what its files hold."""

    seed: int
    geobox: GeoBox = field(default_factory=grid)
    bands: tuple[str, ...] = BANDS
    raised: int = 0
    """Digital numbers added to every pixel, as baseline 04.00 does."""
    masked: bool = True
    cloudy: tuple[int, int] = (0, 40)
    """First and end column under cloud."""

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.geobox.shape[0]), int(self.geobox.shape[1])

    @property
    def reflectance(self) -> np.ndarray:
        """Return what the cube has to hold: (band, y, x) uint16."""
        rng = np.random.default_rng(self.seed)
        return rng.integers(200, 4000, (len(self.bands), *self.shape), dtype=np.uint16)

    @property
    def scl(self) -> np.ndarray:
        values = np.full(self.shape, 4, dtype=np.uint8)
        values[:, slice(*self.cloudy)] = 9
        return values

    def files(self) -> dict[str, tuple[np.ndarray, GeoBox]]:
        numbers = self.reflectance + np.uint16(self.raised)
        files = {band: (values, self.geobox) for band, values in zip(self.bands, numbers, strict=True)}
        return files | ({"SCL": (self.scl, self.geobox)} if self.masked else {})


def properties(
    day: str = "2021-05-01", tile: str = "30UXC", *, baseline: str = "03.00", strip: str = "T105620", **more: Any
) -> dict[str, Any]:
    """Return the properties of an item as the public catalogues write them."""
    compact = day.replace("-", "")
    return {
        "platform": "sentinel-2a",
        "processing:level": "L2A",
        "s2:mgrs_tile": tile,
        "s2:processing_baseline": baseline,
        "s2:datatake_id": f"GS2A_{compact}T105619_030589_N{baseline}",
        "s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_VGS4_{compact}T140000_S{compact}{strip}_N{baseline}",
        "s2:generation_time": f"{day}T14:00:00.000Z",
        **more,
    }


def add_look(
    archive: Archive, item_id: str, day: str, look: Look, *, names: Mapping[str, str] = EARTH_SEARCH, **more: Any
) -> Path:
    """Add an item; further keywords go to `properties`."""
    return archive.add(item_id, f"{day}T10:56:21Z", look.files(), properties=properties(day, **more), names=names)


def days(count: int, start: str = "2021-05-01", step: int = 5) -> list[str]:
    """Return days that are some days apart."""
    return [str(day) for day in np.datetime64(start) + np.arange(count) * step]


def make_archive(folder: Path, count: int = 6, **look: Any) -> Archive:
    """Return an archive of one scene on each of some days; scene i has seed i."""
    archive = Archive(folder)
    for index, day in enumerate(days(count)):
        add_look(archive, f"S2A_30UXC_{day.replace('-', '')}_0_L2A", day, Look(index, **look))
    return archive


def request_of(catalog: str | Path, warehouse: str | Path, **more: Any) -> IngestRequest:
    """Return a request for all that an archive holds, over `grid()`."""
    known = {
        "collection": "sentinel-2-l2a",
        "area": area_of(grid()),
        "start": "2015-01-01",
        "end": "2030-01-01",
        "bands": BANDS,
        "limits": QUICK,
    }
    return IngestRequest(**{**known, **more, "catalog": str(catalog), "warehouse": str(warehouse)})


@dataclass(frozen=True)
class Ingested:
    """An ingest that ran to its end."""

    prepared: Prepared
    reports: tuple[TileReport, ...]

    @property
    def rows(self) -> list[SceneRow]:
        return [*self.prepared.rejected, *(row for report in self.reports for row in report.rows)]

    def states(self) -> dict[str, str]:
        """Return the state of each scene by its id."""
        return {row.scene: row.state for row in self.rows}

    def row(self, scene: str) -> SceneRow:
        return next(row for row in self.rows if row.scene == scene)


def ingest(request: IngestRequest, *, scenes: Sequence[int] | None = None) -> Ingested:
    """Run the core of `canopus ingest`."""
    from dataclasses import replace

    prepared = prepare_ingest(request)
    jobs = prepared.jobs
    if scenes is not None:
        jobs = tuple(replace(job, scenes=tuple(job.scenes[index] for index in scenes)) for job in jobs)
    return Ingested(prepared, tuple(ingest_tile(job) for job in jobs))


@dataclass(frozen=True)
class Contents:
    """All that a cube holds, in memory, sorted by time."""

    stored: np.ndarray
    """(time, band, y, x) uint16: reflectance x 10,000, 0 = no data."""
    scl: np.ndarray
    valid: np.ndarray
    times: np.ndarray
    scenes: pd.DataFrame

    @property
    def days(self) -> list[str]:
        return [str(time)[:10] for time in self.times]


def read_all(url: str | Path, tile: str = TILE, *, window: tuple[slice, slice] = BLOCK) -> Contents:
    """Return all that a cube holds in a window, by default under `grid()`."""
    location = resolve(url) / tile
    opened = open_cube(location).isel(y=window[0], x=window[1])
    values = opened["reflectance"].values
    stored = np.where(np.isnan(values), 0, np.round(values * 1e4)).astype(np.uint16)
    table = read_scenes(location)
    return Contents(stored, opened["scl"].values, opened["valid"].values, opened["time"].values, table)


def assert_same_cube(one: Contents, other: Contents, *, but: Iterable[str] = ()) -> None:
    """Compare every value; `but` names columns of the scene table that may differ."""
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.stored, other.stored)
    np.testing.assert_array_equal(one.scl, other.scl)
    np.testing.assert_array_equal(one.valid, other.valid)
    left, right = (table.drop(columns=[*but]) for table in (one.scenes, other.scenes))
    pd.testing.assert_frame_equal(left, right)


def an_item(
    item_id: str = "S2A_30UXC_20210501_0_L2A",
    *,
    assets: Mapping[str, Mapping[str, Any]] | None = None,
    time: str = "2021-05-01T10:56:21Z",
    collection: str = "sentinel-2-l2a",
    longitude: float = -1.3,
    drop: Iterable[str] = (),
    **more: Any,
) -> pystac.Item:
    """Return an item of Earth Search; `more` overrides its properties, `drop` leaves some out."""
    names = [*EARTH_SEARCH.values()] if assets is None else []
    listed = {name: {"href": f"https://host/{item_id}/{name}.tif"} for name in names} | dict(assets or {})
    west, east = longitude - 0.1, longitude + 0.1
    ring = [[west, 51.0], [east, 51.0], [east, 51.2], [west, 51.2], [west, 51.0]]
    stated = {"datetime": time, **properties(), **more}
    return pystac.Item.from_dict(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": item_id,
            "collection": collection,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": [west, 51.0, east, 51.2],
            "properties": {key: value for key, value in stated.items() if key not in set(drop)},
            "assets": listed,
            "links": [],
        }
    )


def a_scene(scene_id: str = "a", day: str = "2021-05-01", *, tile: str = "30UXC", **more: Any) -> Scene:
    """Return a scene whose pixels nobody reads; `more` overrides its fields."""
    known: dict[str, Any] = {
        "id": scene_id,
        "collection": "sentinel-2-l2a",
        "platform": "sentinel-2a",
        "mgrs_tile": tile,
        "datatake": f"GS2A_{day.replace('-', '')}T105619_030589",
        "datastrip": f"{day.replace('-', '')}T105620",
        "sensing_start": f"{day}T10:56:21.000000",
        "baseline": "03.00",
        "generation_time": f"{day}T14:00:00.000Z",
        "cloud_cover": 10.0,
        "longitude": -1.3,
        "footprint": area_of(grid()),
        "assets": {band: BandAsset(f"{scene_id}/{band}.tif") for band in BANDS},
        "offset": OffsetClaim(0, "s2:processing_baseline"),
    }
    return Scene(**{**known, **more})
