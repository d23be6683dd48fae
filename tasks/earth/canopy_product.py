"""The canopy map as a product: COGs, GeoZarr, picture, STAC item and collection, from a staged map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS, LandClass
from storage.export import Layer, blocks
from storage.publish import ProductKey
from tasks.earth.layers import map_layers
from tasks.earth.pictures import Caption, draw_class_map, finest_overview
from tasks.earth.product import (
    Lineage,
    Picture,
    Raster,
    RasterProduct,
    Sources,
    describe_item,
    write_rasters,
)

VERSION = 1
"""Of the layout of a map product; part of the id, to be raised when the same staged map gives other files."""

PREVIEW = Picture("preview", "Picture of the map with legend", ("overview", "thumbnail"))


@dataclass(frozen=True)
class MapSpec:
    """A map to publish.

    Parameters
    ----------
    collection : str
        STAC collection, e.g. ``"canopy"``.
    title : str
        What people read on item and picture.
    start, date : str
        ISO dates of the first and the last day of the series.
    geobox : GeoBox
        Grid of the product: a window of the staging grid.
    classes : tuple of LandClass
        In the order of the probabilities.
    lineage : Lineage
        Inputs, code, weights.
    area : dict, optional
        GeoJSON geometry in longitude and latitude; the footprint of the grid where None.
    accuracy : dict, optional
        Summary of the accuracy against held-out labels, in JSON types.
    extra : tuple of Layer
        Staged layers beyond those of `map_layers`.
    description : str
        Of the collection.
    license : str
        SPDX identifier, or ``"other"``.
    """

    collection: str
    title: str
    start: str
    date: str
    geobox: GeoBox
    classes: tuple[LandClass, ...]
    lineage: Lineage
    area: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Any] | None = None
    extra: tuple[Layer, ...] = ()
    description: str = "Tree canopy from time series of Sentinel-2"
    license: str = "other"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the product."""
        return map_layers(self.classes, self.extra)

    @property
    def product(self) -> RasterProduct:
        """Return what is published."""
        return RasterProduct(
            self.collection,
            self.title,
            self.start,
            self.date,
            self.date,
            self.geobox,
            self.layers,
            self.lineage,
            area=self.area,
            description=self.description,
            derivation="classified pixel by pixel",
            keywords=("Sentinel-2", "land cover", "tree canopy"),
            license=self.license,
            extensions=("classification", "processing", "projection", "raster"),
            version=VERSION,
            identity={"classes": [[land.value, land.name, land.colour] for land in self.classes]},
        )

    @property
    def key(self) -> ProductKey:
        """Return the name of the product."""
        return self.product.key

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COGs: one for each layer."""
        table = {"classification:classes": _class_table(self.classes)}
        return tuple(Raster(layer, fields=table if layer.name == "class" else {}) for layer in self.layers)


def write_map(folder: Path, spec: MapSpec, sources: Sources) -> dict[str, Any]:
    """Write all assets of a map into a local folder and return its STAC item."""
    write_rasters(folder, spec.product, sources, rasters=spec.rasters)
    areas = _areas_ha(spec, sources)
    _draw_preview(folder, spec, areas)
    # mapped areas are named as such: they are counts of pixels
    accuracy = {} if spec.accuracy is None else {"canopus:accuracy": dict(spec.accuracy)}
    properties = {"canopus:mapped_area_ha": areas, **accuracy}
    return describe_item(spec.product, spec.rasters, (PREVIEW,), properties=properties)


def _areas_ha(spec: MapSpec, sources: Sources) -> dict[str, float]:
    """Return the mapped area per class in hectares."""
    counts = np.zeros(256, dtype=np.int64)
    source = sources["class"]
    for y, x in blocks(source.shape, 1024):
        counts += np.bincount(np.asarray(source[y, x]).ravel(), minlength=256)
    affine = spec.geobox.affine
    pixel_ha = abs(float(affine.a * affine.e)) / 10_000
    return {land.name: round(int(counts[land.value]) * pixel_ha, 4) for land in spec.classes}


def _draw_preview(folder: Path, spec: MapSpec, areas: Mapping[str, float]) -> None:
    level, grid = finest_overview(folder / spec.product.zarr)
    caption = Caption(
        title=spec.title,
        period=f"Sentinel-2, {spec.start} to {spec.date}",
        footer=f"{spec.key.item_id}   ·   {spec.product.resolution:g} m pixels   ·   {spec.product.made_by}",
        areas_ha=areas,
    )
    draw_class_map(folder / f"{PREVIEW.name}.png", level["class"][:], grid, classes=spec.classes, caption=caption)


def _class_table(classes: tuple[LandClass, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "value": land_class.value,
            "name": land_class.name,
            "title": land_class.title,
            "description": land_class.title,
            "color_hint": land_class.colour[1:].upper(),
        }
        for land_class in classes
    ]
    return [*rows, {"value": NO_CLASS, "name": "no_data", "title": "No data", "description": "No data", "nodata": True}]
