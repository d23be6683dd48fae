"""The canopy map as a product: COGs, GeoZarr, picture, STAC item and collection, from a staged map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pyproj
import shapely
import shapely.geometry
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS, LandClass
from storage.errors import SchemaMismatch, StorageError
from storage.export import ArrayLike, Cropped, Layer, blocks, write_cog, write_geozarr
from storage.geozarr import geobox_from_attributes, spatial_attributes
from storage.location import Location, resolve
from storage.publish import ProductKey, Receipt, find_product, product_id, publish
from storage.regions import Region
from tasks.earth.pictures import Caption, draw_class_map
from tasks.earth.staging import (
    create_staging,
    map_layers,
    missing_pixels,
    open_staging,
    staged_regions_done,
    write_staged_region,
)
from tasks.earth.verify import check_map, verify_product

__all__ = [
    "InputScene",
    "Lineage",
    "MapSpec",
    "create_staging",
    "find_map",
    "map_layers",
    "publish_map",
    "staged_regions_done",
    "verify_product",
    "write_staged_region",
]

VERSION = 1
"""Of the layout of a map product; part of the id, to be raised when the same staged map gives other files."""

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
ZARR_TYPE = "application/vnd.zarr"
PREVIEW_PIXELS = 1400
STAC_VERSION = "1.1.0"
EXTENSIONS = {
    name: f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
    for name, version in (
        ("classification", "2.0.0"),
        ("processing", "1.2.0"),
        ("projection", "2.0.0"),
        ("raster", "2.0.0"),
    )
}


@dataclass(frozen=True)
class InputScene:
    """A scene that a map was made from: item id and where its STAC item or its product lies."""

    scene_id: str
    href: str


@dataclass(frozen=True)
class Lineage:
    """What a map was made from and by.

    Parameters
    ----------
    inputs : tuple of InputScene
        Scenes that were read.
    snapshots : mapping of str to str
        Icechunk snapshot per cube, the cube named as in the warehouse (``earth/<grid>/<tile>``).
    weights_sha256, config_hash : str
        The classifier's weights and the run's configuration.
    software : mapping of str to str
        Name to version of the code, e.g. ``{"canopus": "0.1.0"}``.
    run_id : str
        Run that made the map; not part of the product's id.
    created : datetime
        When that run started, with a time zone; not part of the product's id.
    """

    inputs: tuple[InputScene, ...]
    snapshots: Mapping[str, str]
    weights_sha256: str
    config_hash: str
    software: Mapping[str, str]
    run_id: str
    created: datetime


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
    def key(self) -> ProductKey:
        """Return the name of the product: the same for the same snapshots, weights, code, settings and area."""
        made_of = self.lineage
        content = {
            "version": VERSION,
            "snapshots": dict(made_of.snapshots),
            "weights": made_of.weights_sha256,
            "config": made_of.config_hash,
            "software": dict(made_of.software),
            "grid": [str(self.geobox.crs), list(self.geobox.affine)[:6], [int(size) for size in self.geobox.shape]],
            "area": None if self.area is None else dict(self.area),
            "period": [self.start, self.date],
            "layers": [[layer.name, layer.dtype, layer.nodata, list(layer.bands)] for layer in self.layers],
            "classes": [[land_class.value, land_class.name, land_class.colour] for land_class in self.classes],
        }
        return ProductKey(self.collection, product_id(self.collection, self.date, content))

    @property
    def geometry(self) -> dict[str, Any]:
        """Return the area as GeoJSON in longitude and latitude."""
        if self.area is not None:
            return dict(json.loads(json.dumps(self.area)))
        return _footprint(self.geobox)


@dataclass(frozen=True)
class _StagedMap:
    """A staged map cropped to the grid of the product."""

    spec: MapSpec
    sources: Mapping[str, ArrayLike]

    def areas_ha(self) -> dict[str, float]:
        """Return the mapped area per class in hectares."""
        counts = np.zeros(256, dtype=np.int64)
        source = self.sources["class"]
        for y, x in blocks(source.shape, 1024):
            counts += np.bincount(np.asarray(source[y, x]).ravel(), minlength=256)
        affine = self.spec.geobox.affine
        pixel_ha = abs(float(affine.a * affine.e)) / 10_000
        return {land.name: round(int(counts[land.value]) * pixel_ha, 4) for land in self.spec.classes}


def find_map(warehouse: Location, spec: MapSpec) -> Receipt | None:
    """Return the receipt of a map that is already published, or None; cheap, so ask before classifying."""
    return find_product(warehouse, spec.key)


def publish_map(warehouse: Location, spec: MapSpec, staging: Location) -> Receipt:
    """Publish a staged map.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse; the product goes below ``products/<collection>``.
    spec : MapSpec
        What the map is; its `geobox` is the window of the staging grid that is published.
    staging : Location
        As given to `create_staging`, every region of the window done.

    Returns
    -------
    Receipt
        With the item as stored; ``state="present"`` where the same map was there.

    Raises
    ------
    SchemaMismatch
        Where the product's grid is no window of the staging grid.
    StorageError
        Where regions are missing, or the written files contradict each other.
    """

    def stage(folder: Path) -> dict[str, Any]:
        staged = _open_staged(spec, staging)
        return _write_map(folder, staged)

    return publish(warehouse, spec.key, stage, collection=describe_collection(spec), check=check_map)


def describe_collection(spec: MapSpec) -> dict[str, Any]:
    """Return the STAC collection of a map, without extent and links to items."""
    names = ("classification", "processing", "raster")
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSIONS[name] for name in names],
        "id": spec.collection,
        "title": spec.collection.replace("-", " ").capitalize(),
        "description": spec.description,
        "keywords": ["Sentinel-2", "land cover", "tree canopy"],
        "license": spec.license,
        "providers": [
            {"name": "Canopus", "roles": ["processor"], "processing:software": dict(spec.lineage.software)},
        ],
        "item_assets": {layer.name: _asset_fields(spec, layer) for layer in spec.layers},
    }


def _open_staged(spec: MapSpec, staging: Location) -> _StagedMap:
    grid, arrays = open_staging(staging)
    window = _window(grid, spec.geobox)
    missing = missing_pixels(staging, window)
    if missing:
        raise StorageError(f"{staging}: {missing} pixels of the map are in no finished region; run the mapping again")
    absent = [layer.name for layer in spec.layers if layer.name not in arrays]
    if absent:
        raise SchemaMismatch(f"{staging}: the layers {absent} are not staged")
    return _StagedMap(
        spec, {layer.name: Cropped(arrays[layer.name], window["y"], window["x"]) for layer in spec.layers}
    )


def _window(grid: GeoBox, part: GeoBox) -> Region:
    """Return the rows and columns of `grid` that `part` covers."""
    row = (part.affine.f - grid.affine.f) / grid.affine.e
    column = (part.affine.c - grid.affine.c) / grid.affine.a
    y, x = round(row), round(column)
    rows, columns = (int(size) for size in part.shape)
    same = grid.crs == part.crs and (grid.affine.a, grid.affine.e) == (part.affine.a, part.affine.e)
    inside = 0 <= y <= y + rows <= grid.shape[0] and 0 <= x <= x + columns <= grid.shape[1]
    if not (same and inside and abs(row - y) < 1e-6 and abs(column - x) < 1e-6):
        raise SchemaMismatch(f"the product's grid {part} is no window of the staged grid {grid}")
    return {"y": slice(y, y + rows), "x": slice(x, x + columns)}


def _write_map(folder: Path, staged: _StagedMap) -> dict[str, Any]:
    """Write all assets of a map into a local folder and return its STAC item."""
    spec = staged.spec
    tags = _tags(spec)
    for layer in spec.layers:
        write_cog(folder / f"{layer.name}.tif", staged.sources[layer.name], spec.geobox, layer=layer, tags=tags)
    store = resolve(folder / "map.zarr").zarr_store()
    write_geozarr(store, staged.sources, spec.geobox, layers=spec.layers, attributes=_group_attributes(spec))
    areas = staged.areas_ha()
    _draw_preview(folder, spec, areas)
    return describe_item(spec, areas)


def _draw_preview(folder: Path, spec: MapSpec, areas: Mapping[str, float]) -> None:
    """Draw the finest overview that a picture can show."""
    import zarr

    root = zarr.open_group(folder / "map.zarr", mode="r")
    layout: Any = root.attrs["multiscales"]
    names = [level["asset"] for level in layout["layout"] if max(level["spatial:shape"]) <= PREVIEW_PIXELS]
    level: Any = root[names[0]]
    made_by = ", ".join(f"{name} {version}" for name, version in spec.lineage.software.items())
    caption = Caption(
        title=spec.title,
        period=f"Sentinel-2, {spec.start} to {spec.date}",
        footer=f"{spec.key.item_id}   ·   {_resolution(spec):g} m pixels   ·   {made_by}",
        areas_ha=areas,
    )
    grid = geobox_from_attributes(level.attrs)
    draw_class_map(folder / "preview.png", level["class"][:], grid, classes=spec.classes, caption=caption)


def describe_item(spec: MapSpec, areas: Mapping[str, float]) -> dict[str, Any]:
    """Return the STAC item of a map, without sizes, checksums and links to its collection.

    Parameters
    ----------
    spec : MapSpec
        The map.
    areas : mapping of str to float
        Mapped area per class name in hectares.
    """
    geometry = spec.geometry
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS.values()),
        "id": spec.key.item_id,
        "geometry": geometry,
        "bbox": list(shapely.geometry.shape(geometry).bounds),
        "properties": _period(spec) | _provenance(spec) | _projection(spec) | _findings(spec, areas),
        "links": [
            {"rel": "derived_from", "href": _public(scene.href), "title": scene.scene_id}
            for scene in spec.lineage.inputs
        ],
        "assets": _assets(spec),
    }


def _footprint(geobox: GeoBox) -> dict[str, Any]:
    """Return the outline of a grid in longitude and latitude, to the centimetre, curved edges followed."""
    transformer = pyproj.Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)
    outline = shapely.segmentize(shapely.box(*geobox.boundingbox), 256 * abs(float(geobox.affine.a)))
    turned = shapely.transform(outline, transformer.transform, interleaved=False)
    return dict(json.loads(shapely.to_geojson(shapely.transform(turned, lambda corners: corners.round(7)))))


def _period(spec: MapSpec) -> dict[str, Any]:
    return {
        "title": spec.title,
        "datetime": f"{spec.date}T00:00:00Z",
        "start_datetime": f"{spec.start}T00:00:00Z",
        "end_datetime": f"{spec.date}T00:00:00Z",
        "created": _stamp(spec.lineage.created),
        "updated": _stamp(spec.lineage.created),
        "gsd": _resolution(spec),
        "license": spec.license,
    }


def _provenance(spec: MapSpec) -> dict[str, Any]:
    lineage = spec.lineage
    return {
        "processing:level": "L4",
        "processing:lineage": "Sentinel-2 L2A series, masked, classified pixel by pixel",
        "processing:software": dict(lineage.software),
        "processing:datetime": _stamp(lineage.created),
        "canopus:run_id": lineage.run_id,
        "canopus:weights_sha256": lineage.weights_sha256,
        "canopus:config_hash": lineage.config_hash,
        "canopus:snapshots": dict(sorted(lineage.snapshots.items())),
    }


def _projection(spec: MapSpec) -> dict[str, Any]:
    placed = spatial_attributes(spec.geobox)
    return {
        "proj:code": placed.get("proj:code"),
        **({} if "proj:code" in placed else {"proj:wkt2": placed["proj:wkt2"]}),
        "proj:bbox": placed["spatial:bbox"],
        "proj:shape": placed["spatial:shape"],
        "proj:transform": placed["spatial:transform"],
    }


def _findings(spec: MapSpec, areas: Mapping[str, float]) -> dict[str, Any]:
    """Return mapped areas, named as such, and the accuracy where it is known."""
    accuracy = {} if spec.accuracy is None else {"canopus:accuracy": dict(spec.accuracy)}
    return {"canopus:mapped_area_ha": dict(areas), **accuracy}


def _assets(spec: MapSpec) -> dict[str, Any]:
    assets = {
        layer.name: {"href": f"./{layer.name}.tif"} | _asset_fields(spec, layer, resolution=_resolution(spec))
        for layer in spec.layers
    }
    assets["zarr"] = {
        "href": "./map.zarr",
        "type": ZARR_TYPE,
        "title": "All layers with overviews (GeoZarr)",
        "roles": ["data"],
    }
    assets["preview"] = {
        "href": "./preview.png",
        "type": "image/png",
        "title": "Picture of the map with legend",
        "roles": ["overview", "thumbnail"],
    }
    return assets


def _asset_fields(spec: MapSpec, layer: Layer, *, resolution: float | None = None) -> dict[str, Any]:
    """Return what the item says of one COG, and the collection of all of its kind."""
    fields: dict[str, Any] = {
        "type": COG_TYPE,
        "title": layer.title,
        "roles": ["data"],
        "data_type": layer.dtype,
        "nodata": layer.nodata,
        "unit": layer.unit,
        "raster:scale": layer.scale,
        "raster:offset": 0.0,
        "raster:sampling": "area",
        "bands": [{"name": name} for name in layer.bands or (layer.name,)],
    }
    if resolution is not None:
        fields["raster:spatial_resolution"] = resolution
    if layer.name == "class":
        fields["classification:classes"] = _class_table(spec.classes)
    return fields


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


def _tags(spec: MapSpec) -> dict[str, str]:
    """Return the metadata of each COG; nothing of the run, so that two runs write the same bytes."""
    made_by = ", ".join(f"{name} {version}" for name, version in spec.lineage.software.items())
    return {
        "TIFFTAG_IMAGEDESCRIPTION": f"{spec.title}, {spec.start} to {spec.date}",
        "TIFFTAG_SOFTWARE": made_by,
        "CANOPUS_ITEM": spec.key.item_id,
        "CANOPUS_WEIGHTS_SHA256": spec.lineage.weights_sha256,
        "CANOPUS_CONFIG_HASH": spec.lineage.config_hash,
    }


def _group_attributes(spec: MapSpec) -> dict[str, Any]:
    return {
        "title": spec.title,
        "source": "Sentinel-2 L2A",
        "history": "classified pixel by pixel from masked series",
        "license": spec.license,
        "canopus:item": spec.key.item_id,
        "canopus:software": dict(spec.lineage.software),
        "canopus:config_hash": spec.lineage.config_hash,
        "canopus:weights_sha256": spec.lineage.weights_sha256,
        "canopus:inputs": [scene.scene_id for scene in spec.lineage.inputs],
    }


def _public(href: str) -> str:
    """Return an address without user, query and fragment, where signatures and passwords live."""
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", ""))


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _resolution(spec: MapSpec) -> float:
    return abs(float(spec.geobox.affine.a))
