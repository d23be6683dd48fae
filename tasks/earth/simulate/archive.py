"""Write a generated archive: COGs, a static STAC catalogue, and the truth beside them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import Polygon

from tasks.earth.simulate.acquisitions import SECOND_TILE, Acquisition, Product, products
from tasks.earth.simulate.cog import write_cog
from tasks.earth.simulate.config import COLLECTION_ID, SimulateConfig
from tasks.earth.simulate.items import Asset, asset_filename, make_catalog, make_collection, make_item
from tasks.earth.simulate.noise import generator
from tasks.earth.simulate.phenology import BANDS
from tasks.earth.simulate.scene import (
    COARSE,
    OFFSET_DN,
    SimulatedDate,
    World,
    ground_reflectance,
    simulate_date,
    to_digital_numbers,
)
from tasks.earth.simulate.truth import write_truth
from tasks.errors import ConfigurationError

_LOG = logging.getLogger(__name__)
_SECOND_TILE_SOUTH = 5790240.0
"""Southern edge of 30UXD; north of it, 30UXC and 30UXD overlap."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ArchiveSummary:
    """What was written.

    Parameters
    ----------
    folder : Path
    catalog : Path
        The root of the STAC catalogue.
    collection : str
        Id of its one collection.
    truth : Path
        Folder of the truth.
    items, dates, label_polygons, bytes : int
        Items of the catalogue; overpasses they show; polygons in ``classes.gpkg``; size of all COGs of bands and SCL.
    canopy_share, conifer_share : float
        Share of pixels that are canopy, and conifer, at the end.
    cases : dict of str to tuple of str
        Hard case to item ids; also written to ``truth/cases.json``.
    seconds : float
        Wall time.
    """

    folder: Path
    catalog: Path
    collection: str
    truth: Path
    items: int
    dates: int
    label_polygons: int
    bytes: int
    canopy_share: float
    conifer_share: float
    cases: dict[str, tuple[str, ...]]
    seconds: float


def simulate_archive(
    folder: str | Path, config: SimulateConfig | None = None, *, on_progress: Progress | None = None
) -> ArchiveSummary:
    """Write an archive with known truth into an empty or new folder.

    Parameters
    ----------
    folder : str or Path
        Gets ``catalog.json``, ``sentinel-2-l2a/`` and ``truth/``.
    config : SimulateConfig, optional
    on_progress : callable, optional
        Called with (overpasses done, overpasses in all) from the thread that finished one, one call at a time.

    Returns
    -------
    ArchiveSummary

    Raises
    ------
    ConfigurationError
        If the folder holds something already.
    """
    started, config, folder = time.monotonic(), config or SimulateConfig(), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder}: not empty; name a new folder or empty this one")
    world = World.make(config)
    truth, polygons = write_truth(folder / "truth", world)
    listed = products(config)
    written = _write_dates(folder, world, listed, on_progress)
    items = [item for item, _ in written]
    cases = _cases(listed)
    _write_catalogue(folder, config, items, cases)
    summary = ArchiveSummary(
        folder=folder,
        catalog=folder / "catalog.json",
        collection=COLLECTION_ID,
        truth=folder / "truth",
        items=len(items),
        dates=len({p.acquisition.when for p in listed}),
        label_polygons=polygons,
        bytes=sum(size for _, size in written),
        canopy_share=float((truth.class_end > 0).mean()),
        conifer_share=float((truth.class_end == 2).mean()),
        cases=cases,
        seconds=time.monotonic() - started,
    )
    _LOG.info("wrote %d items of %d dates to %s in %.1f s", summary.items, summary.dates, folder, summary.seconds)
    return summary


def _cases(listed: tuple[Product, ...]) -> dict[str, tuple[str, ...]]:
    """Return the item ids of each hard case."""
    names = sorted({case for p in listed for case in p.cases})
    return {name: tuple(p.item_id for p in listed if name in p.cases) for name in names}


def _write_dates(
    folder: Path, world: World, listed: tuple[Product, ...], on_progress: Progress | None
) -> list[tuple[dict[str, Any], int]]:
    """Make and write every overpass over threads; return items and bytes in the order of the list."""
    groups = [(a, list(found)) for a, found in groupby(listed, key=lambda p: p.acquisition)]
    lock, done = threading.Lock(), [0]

    def write(group: tuple[Acquisition, list[Product]]) -> list[tuple[dict[str, Any], int]]:
        written = _write_overpass(folder, world, *group)
        with lock:
            done[0] += 1
            if on_progress is not None:
                on_progress(done[0], len(groups))
        return written

    with ThreadPoolExecutor(world.config.workers) as pool:
        return [entry for entries in pool.map(write, groups) for entry in entries]


def _write_overpass(
    folder: Path, world: World, acquisition: Acquisition, listed: list[Product]
) -> list[tuple[dict[str, Any], int]]:
    """Make one overpass and write each of its products."""
    if world.config.gap_free:
        _write_gap_free(folder / "truth" / "reflectance", world, acquisition)
    date = simulate_date(world, acquisition)
    return [_write_product(folder, world.config, product, date) for product in listed]


def _write_gap_free(folder: Path, world: World, acquisition: Acquisition) -> None:
    """Write the reflectance of the ground, times 10,000, ten bands at 10 m."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = to_digital_numbers(ground_reflectance(world, acquisition), offset_dn=0)
    name = f"{acquisition.when:%Y%m%d}_R{acquisition.relative_orbit:03d}.tif"
    write_cog(folder / name, numbers, world.config.geobox, nodata=0)


@dataclass(frozen=True)
class _View:
    """What of the area a product shows.

    Parameters
    ----------
    rows : int
        It shows this many rows from the north.
    seen : ndarray, shape (rows, x), bool
        On the 10 m grid; edges run between 20 m pixels.
    footprint : Polygon
        The same in metres.
    """

    rows: int
    seen: np.ndarray
    footprint: Polygon


def _write_product(
    folder: Path, config: SimulateConfig, product: Product, date: SimulatedDate
) -> tuple[dict[str, Any], int]:
    """Write the files and the item of one product."""
    target = folder / COLLECTION_ID / product.item_id
    target.mkdir(parents=True)
    view = _view(config, product.part)
    reflectance = _reprocess(config, product, date.reflectance[:, : view.rows])
    offset = OFFSET_DN if product.offset_in_pixels else 0
    seen_coarse = view.seen[::2, ::2]
    scl = np.where(seen_coarse, date.scl[: view.rows : 2, ::2], 0).astype(np.uint8)
    fine = config.geobox[: view.rows, :]
    coarse = GeoBox(scl.shape, fine.affine * Affine.scale(2), fine.crs)
    assets = []
    for index, band in enumerate(BANDS):
        pixels = reflectance[index, ::2, ::2] if COARSE[index] else reflectance[index]
        seen = seen_coarse if COARSE[index] else view.seen
        numbers = np.where(seen, to_digital_numbers(pixels, offset_dn=offset), 0).astype(np.uint16)
        assets.append(_write_asset(target, product, band, numbers, coarse if COARSE[index] else fine))
    if product.has_scl:
        assets.append(_write_asset(target, product, "SCL", scl, coarse))
    item = make_item(product, assets, footprint=view.footprint, scl=scl)
    _write_json(target / f"{product.item_id}.json", item)
    return item, sum(a.size for a in assets)


def _write_asset(target: Path, product: Product, band: str, pixels: np.ndarray, geobox: GeoBox) -> Asset:
    """Write one file."""
    name = asset_filename(product, band)
    size = write_cog(target / name, pixels, geobox, nodata=0, categorical=band == "SCL")
    return Asset(band, name, geobox, size)


def _reprocess(config: SimulateConfig, product: Product, reflectance: np.ndarray) -> np.ndarray:
    """Return slightly other pixels for another processing of the same overpass."""
    if not any(case.startswith("superseding") for case in product.cases):
        return reflectance
    rng = generator(config.seed, 400, product.acquisition.when.toordinal())
    gain, lift = rng.normal(1.0, 0.012, len(BANDS)), rng.normal(0.0, 0.002, len(BANDS))
    return np.asarray(reflectance * gain[:, None, None] + lift[:, None, None], dtype=np.float32)


def _view(config: SimulateConfig, part: str) -> _View:
    """Return what part of the area is seen; boundaries between seen and not run over whole 20 m pixels."""
    size = config.size_px
    rows = _strip_rows(config) if part == "strip" else size
    row, column = np.mgrid[0 : rows // 2, 0 : size // 2] * 2.0 / size
    split = row + 0.2 * column > 0.55  # swaths run from north-north-east to south-south-west
    edge = column + 0.25 * row < 0.24
    seen = {"first": ~split, "second": split, "corner": edge}.get(part, np.ones_like(split))
    corners: dict[str, list[tuple[float, float]]] = {
        "first": [(0, 0), (1, 0), (1, 0.35), (0, 0.55)],
        "second": [(0, 0.55), (1, 0.35), (1, 1), (0, 1)],
        "corner": [(0, 0), (0.24, 0), (0, 0.96)],
    }
    outline = corners.get(part, [(0, 0), (1, 0), (1, rows / size), (0, rows / size)])
    to_metres: Affine = config.geobox.affine
    footprint = Polygon([to_metres @ (x * size, y * size) for x, y in outline])
    return _View(rows, np.repeat(np.repeat(seen, 2, axis=0), 2, axis=1), footprint)


def _strip_rows(config: SimulateConfig) -> int:
    """Return the rows that the second tile covers: to its true edge, or three tenths where that is elsewhere."""
    top = config.south + config.size_px * 10
    rows = int((top - _SECOND_TILE_SOUTH) // 20 * 2)
    usable = 4 <= rows < config.size_px
    return rows if usable else max(4, int(config.size_px * 0.15) * 2)


def _write_catalogue(
    folder: Path, config: SimulateConfig, items: list[dict[str, Any]], cases: dict[str, tuple[str, ...]]
) -> None:
    """Write collection, root and what belongs to the truth; the root last, so that half an archive cannot be opened."""
    _write_json(folder / "truth" / "cases.json", cases)
    settings = {k: str(v) if k == "start" else v for k, v in asdict(config).items() if k != "workers"}
    _write_json(folder / "truth" / "config.json", {**settings, "second_tile": SECOND_TILE})
    _write_json(folder / COLLECTION_ID / "collection.json", make_collection(items))
    _write_json(folder / "catalog.json", make_catalog())


def _write_json(path: Path, content: Any) -> None:
    """Write JSON that is the same whenever its content is."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
