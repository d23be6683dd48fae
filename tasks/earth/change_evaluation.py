"""How well changes are found and dated: against rasters of the truth, beside two simple floors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from models.indices import INDICES
from storage.classes import NO_CANOPY, NO_CLASS
from storage.cube import SeriesBlock
from storage.export import Layer
from storage.location import Location
from storage.publish import local_copy, locate_product
from tasks.earth.assess import open_map
from tasks.earth.change import GAIN, LOSS
from tasks.earth.change_scores import FoundChange, TrueChange, describe_scores, scores_of
from tasks.earth.layers import CLEAR_COUNT, LOOKS, PROBABILITY_SCALE
from tasks.earth.mapping import count_looks, empty_layers, fill_region, plan_map, to_physical
from tasks.errors import ConfigurationError

_SEASON = (5, 6, 7, 8, 9)
_NDVI_STEP = 0.15


@dataclass(frozen=True)
class ChangeReport:
    """Scores of a change product, as data and in words."""

    scores: dict[str, Any]
    text: str


def score_change(
    where: str, *, dates: str, kinds: str, woodland: str | None = None, out: Path | None = None
) -> ChangeReport:
    """Score a change product beside the floors.

    Parameters
    ----------
    where : str
        Path or URL of its folder or item.
    dates, kinds : str
        Rasters of the truth on its grid: days since 1970-01-01, and 1 felled, 2 planted.
    woodland : str, optional
        Raster of the class at first, 0 where there was no woodland; by default all felling counts.
    out : Path, optional
        Folder for the picture.

    Raises
    ------
    ConfigurationError
        Where a raster is on another grid.
    """
    folder, item_id = locate_product(where)
    found, geobox, item = _read_product(folder, item_id)
    kind = _raster(kinds, geobox)
    before = np.ones(kind.shape, bool) if woodland is None else _raster(woodland, geobox) > 0
    truth = TrueChange(kind, _raster(dates, geobox).astype(np.int64), before)
    methods = {"canopus": found, **_floors(folder, item, geobox)}
    scores: dict[str, Any] = {
        "item": item_id,
        "pixels": int((truth.kind <= GAIN).sum()),
        "methods": {name: scores_of(method, truth) for name, method in methods.items()},
    }
    if out is not None:
        from tasks.earth.change_plots import draw_scores

        out.mkdir(parents=True, exist_ok=True)
        (out / "change.png").write_bytes(draw_scores(found, truth, scores["methods"], title=item_id))
    return ChangeReport(scores, describe_scores(scores))


def _read_product(folder: Location, item_id: str) -> tuple[FoundChange, GeoBox, dict[str, Any]]:
    item = json.loads(folder.read_bytes(f"{item_id}.json"))
    names = ("change_kind", "change_date", "change_confidence", "change_interval")
    missing = [name for name in names if name not in item["assets"]]
    if missing:
        raise ConfigurationError(f"{folder}: no change product, {', '.join(missing)} is not among its assets")
    layers = []
    with local_copy(folder, [f"{name}.tif" for name in names]) as path:
        for name in names:
            with rasterio.open(path / f"{name}.tif") as source:
                layers.append(source.read(1))
                geobox = GeoBox(source.shape, source.transform, source.crs.to_string())
    kind, day, confidence, interval = layers
    found = FoundChange(
        kind, day.astype(np.int64), confidence * np.float32(PROBABILITY_SCALE), interval.astype(np.int64)
    )
    return found, geobox, item


def _raster(path: str, geobox: GeoBox) -> np.ndarray:
    with rasterio.open(path) as source:
        if source.shape != geobox.shape or not source.transform.almost_equals(geobox.affine, 1e-6):
            raise ConfigurationError(f"{path}: not on the grid of the product ({geobox.shape} at {geobox.affine[:6]})")
        return np.asarray(source.read(1))


def _floors(folder: Location, item: Mapping[str, Any], geobox: GeoBox) -> dict[str, FoundChange]:
    root = folder.url.rsplit("/", 3)[0]
    maps = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
    first, last = (f"{root}/products/{href.removeprefix('../../')}" for href in (maps[0], maps[-1]))
    return {
        "first and last class": _class_difference(first, last, geobox),
        "NDVI of successive summers": _ndvi_difference(root, item, geobox),
    }


def _class_difference(first: str, last: str, geobox: GeoBox) -> FoundChange:
    """Return what the classes of the first and the last map say; the date is midway."""
    with open_map(first) as before, open_map(last) as after:
        if before.geobox != geobox or after.geobox != geobox:
            raise ConfigurationError("the first or the last map is on another grid than the change product")
        none = next(land.value for land in before.classes if land.name == NO_CANOPY)
        seen = (before.values != NO_CLASS) & (after.values != NO_CLASS)
        was, is_now = before.values != none, after.values != none
        days = [
            np.datetime64(found.item["properties"]["end_datetime"][:10], "D").astype(int) for found in (before, after)
        ]
    kind = np.where(was & ~is_now, LOSS, np.where(~was & is_now, GAIN, 0)).astype(np.uint8)
    return FoundChange(np.where(seen, kind, NO_CLASS).astype(np.uint8), np.full(kind.shape, sum(days) // 2))


def _ndvi_difference(root: str, item: Mapping[str, Any], geobox: GeoBox) -> FoundChange:
    """Return where the mean NDVI of May to September steps most from a year to the next; the date is the new year."""
    layers = (Layer("kind", "kind", "uint8", NO_CLASS), Layer("day", "day", "int64", 0), *LOOKS)
    period = [np.datetime64(item["properties"][name][:10], "D") for name in ("start_datetime", "end_datetime")]
    plan = plan_map(root, dict(item["geometry"]), crs=str(geobox.crs), until=period[1])
    kind = np.full(plan.staging.shape, NO_CLASS, np.uint8)
    day = np.zeros(plan.staging.shape, np.int64)
    for region in plan.regions:
        found = fill_region(plan, region, layers, partial(_summers, layers=layers, bands=plan.bands))
        kind[region["y"], region["x"]], day[region["y"], region["x"]] = found["kind"], found["day"]
    row = round((geobox.affine.f - plan.staging.affine.f) / plan.staging.affine.e)
    column = round((geobox.affine.c - plan.staging.affine.c) / plan.staging.affine.a)
    window = (slice(row, row + geobox.shape[0]), slice(column, column + geobox.shape[1]))
    return FoundChange(kind[window], day[window])


def _summers(block: SeriesBlock, *, layers: tuple[Layer, ...], bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    filled = empty_layers(layers, block.valid.shape[1:])
    count_looks(block, filled)
    red, nir = (to_physical(block.reflectance[:, bands.index(name)]) for name in INDICES["ndvi"].bands)
    ndvi = np.where(block.valid, INDICES["ndvi"].formula(red, nir), 0.0)
    month = block.times.astype("datetime64[M]").astype(int) % 12 + 1
    year = block.times.astype("datetime64[Y]").astype(int) + 1970
    largest = np.zeros(block.valid.shape[1:])
    before = None
    for which in np.unique(year):
        chosen = (year == which) & np.isin(month, _SEASON)
        number = block.valid[chosen].sum(axis=0)
        mean = np.where(number > 0, ndvi[chosen].sum(axis=0) / np.maximum(number, 1), np.nan)
        step = np.zeros_like(largest) if before is None else np.nan_to_num(mean - before)
        better = np.abs(step) > np.abs(largest)
        largest[better] = step[better]
        filled["day"][better] = np.datetime64(f"{which}-01-01", "D").astype(int)
        before = mean
    kind = np.where(largest <= -_NDVI_STEP, LOSS, np.where(largest >= _NDVI_STEP, GAIN, 0))
    filled["kind"][...] = np.where(filled[CLEAR_COUNT] > 0, kind, NO_CLASS)
    return filled
