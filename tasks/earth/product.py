"""What every raster product of the Earth has in common: COGs, GeoZarr, STAC item and collection, from staged layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyproj
import shapely
import shapely.geometry
from odc.geo.geobox import GeoBox

from storage.errors import SchemaMismatch, StorageError
from storage.export import ArrayLike, Cropped, Layer, Plane, write_cog, write_geozarr
from storage.geozarr import spatial_attributes
from storage.location import Location, resolve
from storage.publish import ProductKey, Receipt, product_id, publish
from storage.regions import Region
from tasks.earth.staging import missing_pixels, open_staging
from tasks.earth.verify import check_product

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
ZARR_TYPE = "application/vnd.zarr"
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
    """A scene that a product was made from: item id and where its STAC item or its product lies."""

    scene_id: str
    href: str


@dataclass(frozen=True)
class Lineage:
    """What a product was made from and by.

    Parameters
    ----------
    inputs : tuple of InputScene
        Scenes that were read.
    snapshots : mapping of str to str
        Icechunk snapshot per cube, the cube named as in the warehouse (``earth/<grid>/<tile>``).
    weights_sha256, config_hash : str
        The model's weights and the run's configuration.
    software : mapping of str to str
        Name to version of the code, e.g. ``{"canopus": "0.1.0"}``.
    run_id : str
        Run that made it; not part of the product's id.
    created : datetime
        When that run started, with a time zone; not part of the product's id.
    looks : mapping of str to str
        Digest of what was read of each cube, the same whichever snapshot it was read at; stands for the snapshots in the
        product's id where it is given.
    """

    inputs: tuple[InputScene, ...]
    snapshots: Mapping[str, str]
    weights_sha256: str
    config_hash: str
    software: Mapping[str, str]
    run_id: str
    created: datetime
    looks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raster:
    """A COG of a product, and where the same values stand in its Zarr group.

    Parameters
    ----------
    layer : Layer
        What the COG holds.
    variable : str
        Of the Zarr group; by default the layer's name.
    plane : int or None
        Entry of the variable's dimension before (y, x), where the COG holds one of them.
    fields : mapping
        Further fields of the asset, in JSON types.
    """

    layer: Layer
    variable: str = ""
    plane: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Return the name of the file."""
        return f"{self.layer.name}.tif"

    def source(self, sources: Mapping[str, ArrayLike]) -> ArrayLike:
        """Return the values, from those of the Zarr group's variables."""
        whole = sources[self.variable or self.layer.name]
        return whole if self.plane is None else Plane(whole, self.plane)

    def asset(self, *, resolution: float | None = None) -> dict[str, Any]:
        """Return what the item says of the COG; without a resolution, the collection of all of its kind."""
        layer = self.layer
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
            **self.fields,
        }
        if self.variable:
            fields["canopus:variable"] = self.variable
        if self.plane is not None:
            fields["canopus:plane"] = self.plane
        return fields if resolution is None else fields | {"raster:spatial_resolution": resolution}


@dataclass(frozen=True)
class Picture:
    """A PNG beside the rasters: its asset's name, which is the file's too, its title, what it is for."""

    name: str
    title: str
    roles: tuple[str, ...] = ("overview",)


@dataclass(frozen=True)
class RasterProduct:
    """A product to publish.

    Parameters
    ----------
    collection : str
        STAC collection, e.g. ``"canopy"``.
    title : str
        What people read on item and picture.
    start, end : str
        ISO dates of the first and the last day that it is about.
    dated : str
        ISO date in its id.
    geobox : GeoBox
        Its grid: a window of the staging grid.
    layers : tuple of Layer
        As they are staged.
    lineage : Lineage
        Inputs, code, weights.
    area : dict, optional
        GeoJSON geometry in longitude and latitude; the footprint of the grid where None.
    description : str
        Of the collection.
    derivation : str
        How it comes from the series, in a few words.
    keywords : tuple of str
        Of the collection.
    license : str
        SPDX identifier, or ``"other"``.
    extensions : tuple of str
        Names among `EXTENSIONS`.
    zarr : str
        Name of the Zarr group.
    version : int
        Of the files' layout, to be raised when the same staged layers give other files.
    identity : mapping
        What else decides the files, in JSON types; part of the id.
    """

    collection: str
    title: str
    start: str
    end: str
    dated: str
    geobox: GeoBox
    layers: tuple[Layer, ...]
    lineage: Lineage
    area: Mapping[str, Any] | None = None
    description: str = ""
    derivation: str = ""
    keywords: tuple[str, ...] = ("Sentinel-2",)
    license: str = "other"
    extensions: tuple[str, ...] = ("processing", "projection", "raster")
    zarr: str = "map.zarr"
    version: int = 1
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> ProductKey:
        """Return the name of the product: the same for the same looks, weights, code, settings and area."""
        made_of = self.lineage
        content = {
            "version": self.version,
            "looks": dict(made_of.looks or made_of.snapshots),
            "weights": made_of.weights_sha256,
            "config": made_of.config_hash,
            "software": dict(made_of.software),
            "grid": [str(self.geobox.crs), list(self.geobox.affine)[:6], [int(size) for size in self.geobox.shape]],
            "area": None if self.area is None else dict(self.area),
            "period": [self.start, self.end],
            "layers": [layer.name_and_kind for layer in self.layers],
            **self.identity,
        }
        return ProductKey(self.collection, product_id(self.collection, self.dated, content))

    @property
    def geometry(self) -> dict[str, Any]:
        """Return the area as GeoJSON in longitude and latitude."""
        if self.area is not None:
            return dict(json.loads(json.dumps(self.area)))
        return _footprint(self.geobox)

    @property
    def resolution(self) -> float:
        """Return the side of a pixel in the unit of the CRS."""
        return abs(float(self.geobox.affine.a))

    @property
    def place(self) -> str:
        """Return the middle of the area in degrees, for people."""
        middle = shapely.geometry.shape(self.geometry).centroid
        north, east = ("N" if middle.y >= 0 else "S"), ("E" if middle.x >= 0 else "W")
        return f"{abs(middle.y):.2f}° {north} {abs(middle.x):.2f}° {east}"

    @property
    def made_by(self) -> str:
        """Return name and version of the code."""
        return ", ".join(f"{name} {version}" for name, version in self.lineage.software.items())


Sources = Mapping[str, ArrayLike]
"""Stored values of each layer on the grid of the product, read when asked."""


def publish_staged(
    warehouse: Location,
    product: RasterProduct,
    staging: Location,
    *,
    rasters: tuple[Raster, ...],
    write: Callable[[Path, Sources], dict[str, Any]],
    properties: Mapping[str, Any] | None = None,
) -> Receipt:
    """Publish a staged product, or find that it is there.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse; the product goes below ``products/<collection>``.
    product : RasterProduct
        What it is; its `geobox` is the window of the staging grid that is published.
    staging : Location
        As given to `create_staging`, every region of the window done.
    rasters : tuple of Raster
        The COGs, for the collection to describe.
    write : callable
        Writes all assets into a local folder from the staged values, and returns the STAC item.
    properties : mapping, optional
        Further properties of the item, in JSON types: what was found when it was checked.

    Returns
    -------
    Receipt
        With the item as stored; ``state="present"`` where the same product was there.

    Raises
    ------
    SchemaMismatch
        Where the product's grid is no window of the staging grid.
    StorageError
        Where regions are missing, or the written files contradict each other.
    """

    def stage(folder: Path) -> dict[str, Any]:
        item = write(folder, open_staged(product, staging))
        return item | {"properties": item["properties"] | dict(properties or {})}

    return publish(
        warehouse,
        product.key,
        stage,
        collection=describe_collection(product, rasters),
        check=check_product,
    )


def open_staged(product: RasterProduct, staging: Location) -> dict[str, ArrayLike]:
    """Return the staged layers, cropped to the grid of the product.

    Raises
    ------
    SchemaMismatch
        Where the product's grid is no window of the staging grid, or layers are missing.
    StorageError
        Where regions are missing.
    """
    grid, arrays = open_staging(staging)
    window = _window(grid, product.geobox)
    missing = missing_pixels(staging, window)
    if missing:
        raise StorageError(f"{staging}: {missing} pixels of the product are in no finished region; run it again")
    absent = [layer.name for layer in product.layers if layer.name not in arrays]
    if absent:
        raise SchemaMismatch(f"{staging}: the layers {absent} are not staged")
    return {layer.name: Cropped(arrays[layer.name], window["y"], window["x"]) for layer in product.layers}


def write_rasters(
    folder: Path,
    product: RasterProduct,
    sources: Sources,
    *,
    rasters: tuple[Raster, ...],
    layers: tuple[Layer, ...] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the COGs and the Zarr group of a product into a local folder.

    Parameters
    ----------
    folder : Path
        Empty.
    product : RasterProduct
        Its grid and what it says of itself.
    sources : mapping of str to ArrayLike
        Stored values of the Zarr group's variables.
    rasters : tuple of Raster
        The COGs.
    layers : tuple of Layer, optional
        Variables of the Zarr group; by default the product's.
    attributes : mapping, optional
        Further attributes of the Zarr group.
    """
    tags = _tags(product)
    for raster in rasters:
        write_cog(folder / raster.file, raster.source(sources), product.geobox, layer=raster.layer, tags=tags)
    store = resolve(folder / product.zarr).zarr_store()
    about = _group_attributes(product) | dict(attributes or {})
    write_geozarr(store, sources, product.geobox, layers=layers or product.layers, attributes=about)


def describe_collection(product: RasterProduct, rasters: tuple[Raster, ...]) -> dict[str, Any]:
    """Return the STAC collection of a product, without extent and links to items."""
    used = [name for name in product.extensions if name != "projection"]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSIONS[name] for name in used],
        "id": product.collection,
        "title": product.collection.replace("-", " ").capitalize(),
        "description": product.description,
        "keywords": list(product.keywords),
        "license": product.license,
        "providers": [
            {"name": "Canopus", "roles": ["processor"], "processing:software": dict(product.lineage.software)},
        ],
        "item_assets": {raster.layer.name: raster.asset() for raster in rasters},
    }


def describe_item(
    product: RasterProduct,
    rasters: tuple[Raster, ...],
    pictures: tuple[Picture, ...],
    *,
    properties: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the STAC item of a product, without sizes, checksums and links to its collection.

    Parameters
    ----------
    product : RasterProduct
        What it is.
    rasters, pictures : tuple
        Its COGs and PNGs.
    properties : mapping
        Further properties, in JSON types.
    """
    geometry = product.geometry
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSIONS[name] for name in product.extensions],
        "id": product.key.item_id,
        "geometry": geometry,
        "bbox": list(shapely.geometry.shape(geometry).bounds),
        "properties": _period(product) | _provenance(product) | _projection(product) | dict(properties),
        "links": [
            {"rel": "derived_from", "href": _public(scene.href), "title": scene.scene_id}
            for scene in product.lineage.inputs
        ],
        "assets": _assets(product, rasters, pictures),
    }


def is_of_same_place(item: Mapping[str, Any], product: RasterProduct) -> bool:
    """Return whether a published item has the area and the grid of a product."""
    placed = json.loads(json.dumps(_projection(product)))
    same_grid = all(item["properties"].get(name) == value for name, value in placed.items())
    return same_grid and item["geometry"] == product.geometry


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


def _footprint(geobox: GeoBox) -> dict[str, Any]:
    """Return the outline of a grid in longitude and latitude, to the centimetre, curved edges followed."""
    transformer = pyproj.Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)
    outline = shapely.segmentize(shapely.box(*geobox.boundingbox), 256 * abs(float(geobox.affine.a)))
    turned = shapely.transform(outline, transformer.transform, interleaved=False)
    return dict(json.loads(shapely.to_geojson(shapely.transform(turned, lambda corners: corners.round(7)))))


def _period(product: RasterProduct) -> dict[str, Any]:
    return {
        "title": product.title,
        "datetime": f"{product.end}T00:00:00Z",
        "start_datetime": f"{product.start}T00:00:00Z",
        "end_datetime": f"{product.end}T00:00:00Z",
        "created": _stamp(product.lineage.created),
        "updated": _stamp(product.lineage.created),
        "gsd": product.resolution,
        "license": product.license,
    }


def _provenance(product: RasterProduct) -> dict[str, Any]:
    lineage = product.lineage
    return {
        "processing:level": "L4",
        "processing:lineage": f"Sentinel-2 L2A series, masked, {product.derivation}",
        "processing:software": dict(lineage.software),
        "processing:datetime": _stamp(lineage.created),
        "canopus:run_id": lineage.run_id,
        "canopus:weights_sha256": lineage.weights_sha256,
        "canopus:config_hash": lineage.config_hash,
        "canopus:snapshots": dict(sorted(lineage.snapshots.items())),
        "canopus:looks": dict(sorted(lineage.looks.items())),
    }


def _projection(product: RasterProduct) -> dict[str, Any]:
    placed = spatial_attributes(product.geobox)
    return {
        "proj:code": placed.get("proj:code"),
        **({} if "proj:code" in placed else {"proj:wkt2": placed["proj:wkt2"]}),
        "proj:bbox": placed["spatial:bbox"],
        "proj:shape": placed["spatial:shape"],
        "proj:transform": placed["spatial:transform"],
    }


def _assets(product: RasterProduct, rasters: tuple[Raster, ...], pictures: tuple[Picture, ...]) -> dict[str, Any]:
    assets: dict[str, Any] = {
        raster.layer.name: {"href": f"./{raster.file}"} | raster.asset(resolution=product.resolution)
        for raster in rasters
    }
    assets["zarr"] = {
        "href": f"./{product.zarr}",
        "type": ZARR_TYPE,
        "title": "All layers with overviews (GeoZarr)",
        "roles": ["data"],
    }
    for picture in pictures:
        assets[picture.name] = {
            "href": f"./{picture.name}.png",
            "type": "image/png",
            "title": picture.title,
            "roles": list(picture.roles),
        }
    return assets


def _tags(product: RasterProduct) -> dict[str, str]:
    """Return the metadata of each COG; nothing of the run, so that two runs write the same bytes."""
    return {
        "TIFFTAG_IMAGEDESCRIPTION": f"{product.title}, {product.start} to {product.end}",
        "TIFFTAG_SOFTWARE": product.made_by,
        "CANOPUS_ITEM": product.key.item_id,
        "CANOPUS_WEIGHTS_SHA256": product.lineage.weights_sha256,
        "CANOPUS_CONFIG_HASH": product.lineage.config_hash,
    }


def _group_attributes(product: RasterProduct) -> dict[str, Any]:
    return {
        "title": product.title,
        "source": "Sentinel-2 L2A",
        "history": f"from masked series, {product.derivation}",
        "license": product.license,
        "canopus:item": product.key.item_id,
        "canopus:software": dict(product.lineage.software),
        "canopus:config_hash": product.lineage.config_hash,
        "canopus:weights_sha256": product.lineage.weights_sha256,
        "canopus:inputs": [scene.scene_id for scene in product.lineage.inputs],
    }


def _public(href: str) -> str:
    """Return an address without user, query and fragment, where signatures and passwords live."""
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", ""))


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
