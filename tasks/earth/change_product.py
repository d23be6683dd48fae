"""What a change product consists of: patches large enough, COGs, GeoZarr, areas by quarter, picture, STAC item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.classes import NO_CLASS
from storage.export import ArrayLike, Layer, blocks
from tasks.earth.change import GAIN, LOSS, NONE, in_patches
from tasks.earth.change_pictures import PREVIEW, draw_change
from tasks.earth.pictures import finest_overview
from tasks.earth.product import Raster, RasterProduct, Sources, describe_item, write_rasters

KINDS = {LOSS: "loss", GAIN: "gain"}
_OF_CHANGE = ("change_date", "change_interval")


@dataclass(frozen=True)
class ChangeSpec:
    """A change product to publish.

    Parameters
    ----------
    product : RasterProduct
        What it is.
    least_area_ha : float
        Smaller patches are left out.
    rules : mapping
        What counted, in JSON types.
    dates : tuple of str
        Of the maps.
    """

    product: RasterProduct
    least_area_ha: float
    rules: Mapping[str, Any]
    dates: tuple[str, ...]

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COGs: one for each layer."""
        table = {"classification:classes": _table()}
        return tuple(
            Raster(layer, fields=table if layer.name == "change_kind" else {}) for layer in self.product.layers
        )

    @property
    def pixel_ha(self) -> float:
        """Return the area of a pixel."""
        return abs(float(self.product.geobox.affine.a * self.product.geobox.affine.e)) / 10_000


@dataclass(frozen=True)
class Kept:
    """A layer in which some pixels hold another value; read when asked.

    Parameters
    ----------
    source : ArrayLike
        Shape (y, x).
    kept : ndarray, shape (y, x), bool
        Pixels that stay as they are.
    other : int
        What the rest holds.
    """

    source: ArrayLike
    kept: np.ndarray
    other: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the layer."""
        return self.source.shape

    @property
    def dtype(self) -> Any:
        """Return its type."""
        return self.source.dtype

    def __getitem__(self, key: Any) -> Any:
        """Return values of a window."""
        values = np.asarray(self.source[key])
        return np.where(self.kept[key], values, np.asarray(self.other, values.dtype))


def write_change(folder: Path, spec: ChangeSpec, sources: Sources) -> dict[str, Any]:
    """Write all assets of a change product into a local folder and return its STAC item."""
    kept = without_small_patches(sources, least_pixels=spec.least_area_ha / spec.pixel_ha, layers=spec.product.layers)
    areas = changed_areas(kept["change_kind"], kept["change_date"], pixel_ha=spec.pixel_ha)
    said = {"canopus:rules": dict(spec.rules), "canopus:least_area_ha": spec.least_area_ha}
    write_rasters(folder, spec.product, kept, rasters=spec.rasters)
    level, grid = finest_overview(folder / spec.product.zarr)
    picture = draw_change(
        {name: np.asarray(level[name][:]) for name in ("change_kind", "change_date", "canopy")},
        grid,
        areas=areas,
        title=spec.product.title,
        words=(
            f"{spec.product.place}; {len(spec.dates)} maps, {spec.dates[0]} to {spec.dates[-1]}, and the looks behind them",
            f"{spec.product.key.item_id}   ·   {spec.product.resolution:g} m pixels   ·   {spec.product.made_by}",
        ),
    )
    (folder / f"{PREVIEW.name}.png").write_bytes(picture)
    # mapped areas are named as such: they are counts of pixels
    properties = said | {"canopus:changed_area_ha": areas, "canopus:map_dates": list(spec.dates)}
    return describe_item(spec.product, spec.rasters, (PREVIEW,), properties=properties)


def without_small_patches(sources: Sources, *, least_pixels: float, layers: tuple[Layer, ...]) -> dict[str, ArrayLike]:
    """Return the layers without the patches of fewer pixels; those are seen and unchanged."""
    fills = {layer.name: int(layer.nodata) for layer in layers}
    rows, columns = sources["change_kind"].shape
    kind = np.asarray(sources["change_kind"][0:rows, 0:columns])
    changed = (kind == LOSS) | (kind == GAIN)
    kept = ~changed | in_patches(kind, int(np.ceil(least_pixels - 1e-9)))
    others = {"change_kind": NONE, "change_confidence": 0} | {name: fills[name] for name in _OF_CHANGE}
    return {name: Kept(source, kept, others[name]) if name in others else source for name, source in sources.items()}


def changed_areas(kind: ArrayLike, date: ArrayLike, *, pixel_ha: float) -> dict[str, dict[str, float]]:
    """Return hectares of loss and gain: ``total``, each year (``2022``) and each quarter (``2022-Q3``) that has any."""
    counts: dict[str, dict[str, int]] = {name: {"total": 0} for name in KINDS.values()}
    for y, x in blocks((kind.shape[0], kind.shape[1]), 1024):
        kinds, days = np.asarray(kind[y, x]), np.asarray(date[y, x])
        for value, name in KINDS.items():
            months = days[kinds == value].astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
            counts[name]["total"] += months.size
            for quarter, number in zip(*np.unique(months // 3, return_counts=True), strict=True):
                year = 1970 + int(quarter) // 4
                for key in (str(year), f"{year}-Q{int(quarter) % 4 + 1}"):
                    counts[name][key] = counts[name].get(key, 0) + int(number)
    return {
        name: {key: round(found[key] * pixel_ha, 4) for key in ("total", *sorted(set(found) - {"total"}))}
        for name, found in counts.items()
    }


def _table() -> list[dict[str, Any]]:
    rows = ((NONE, "none", "No change"), (LOSS, "loss", "Woodland lost"), (GAIN, "gain", "Woodland gained"))
    listed: list[dict[str, Any]] = [
        {"value": value, "name": name, "title": title, "description": title} for value, name, title in rows
    ]
    return [
        *listed,
        {"value": NO_CLASS, "name": "no_data", "title": "No data", "description": "No data", "nodata": True},
    ]
