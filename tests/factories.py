"""Small archives with known pixels: COGs and a static STAC catalogue, for tests and benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile
from shapely.geometry import mapping

COLLECTION = "sentinel-2-l2a"
EARTH_SEARCH = {
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B11": "swir16",
    "B12": "swir22",
    "SCL": "scl",
}


def write_cog(path: Path, values: np.ndarray, geobox: GeoBox, *, nodata: float | None = 0) -> None:
    """Write (y, x) or (band, y, x) as a COG."""
    bands = values[None] if values.ndim == 2 else values
    profile = {
        "driver": "COG",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": str(geobox.crs),
        "transform": geobox.affine,
        "nodata": nodata,
        "compress": "deflate",
        "blocksize": 256,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(bands)
        path.write_bytes(memory.read())


@dataclass
class Archive:
    """A static STAC catalogue that grows item by item.

    Items lie at ``<folder>/<collection>/<id>/<id>.json`` with their files beside them.
    """

    folder: Path
    collection: str = COLLECTION
    items: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / self.collection).mkdir(parents=True, exist_ok=True)
        self._write_index()

    @property
    def catalog(self) -> Path:
        """Return the catalogue's file."""
        return self.folder / "catalog.json"

    def add(
        self,
        item_id: str,
        time: str,
        bands: Mapping[str, tuple[np.ndarray, GeoBox]],
        *,
        properties: Mapping[str, Any] | None = None,
        names: Mapping[str, str] = EARTH_SEARCH,
        nodata: float | None = 0,
    ) -> Path:
        """Write one item; `bands` maps B02, ..., SCL to values and their grid."""
        folder = self.folder / self.collection / item_id
        assets = {}
        for band, (values, geobox) in bands.items():
            write_cog(folder / f"{band}.tif", values, geobox, nodata=nodata)
            assets[names.get(band, band)] = {
                "href": f"./{band}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
            }
        footprint = next(iter(bands.values()))[1].geographic_extent.geom
        return self.add_item(item_id, time, assets, footprint, properties=properties)

    def add_item(
        self,
        item_id: str,
        time: str,
        assets: Mapping[str, Any],
        footprint: Any,
        *,
        properties: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write an item whose files are there already."""
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": item_id,
            "collection": self.collection,
            "geometry": mapping(footprint),
            "bbox": list(footprint.bounds),
            "properties": {"datetime": time, "platform": "sentinel-2a", "eo:cloud_cover": 10.0, **(properties or {})},
            "assets": dict(assets),
            "links": [
                {"rel": "collection", "href": "../collection.json"},
                {"rel": "root", "href": "../../catalog.json"},
            ],
        }
        path = self.folder / self.collection / item_id / f"{item_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(item))
        if item_id not in self.items:
            self.items.append(item_id)
        self._write_index()
        return path

    def _write_index(self) -> None:
        root = {
            "type": "Catalog",
            "id": "test",
            "stac_version": "1.0.0",
            "description": "generated for a test",
            "links": [
                {"rel": "child", "href": f"./{self.collection}/collection.json"},
                {"rel": "root", "href": "./catalog.json"},
            ],
        }
        collection = {
            "type": "Collection",
            "id": self.collection,
            "stac_version": "1.0.0",
            "description": "generated for a test",
            "license": "proprietary",
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            "links": [{"rel": "root", "href": "../catalog.json"}]
            + [{"rel": "item", "href": f"./{item}/{item}.json"} for item in self.items],
        }
        self.catalog.write_text(json.dumps(root))
        (self.folder / self.collection / "collection.json").write_text(json.dumps(collection))


def write_romania(folder: Path, shared: Path, *, dates: slice = slice(None)) -> Archive:
    """Write the real Romanian series as COGs with a static catalogue.

    The originals' EPSG:3035 pixel edges do not lie on multiples of 10 m; they are moved there (by less than 10 m), with
    the 20 m cells on multiples of 20 m. B02 B03 B04 B08 are the 10 m cube's, B8A and B11 the 20 m cube's, SCL the
    10 m cube's.
    """
    import xarray as xr

    ten = xr.open_dataset(shared / "eo/s2_romania_forest/s2_10m.nc", mask_and_scale=False).isel(time=dates)
    twenty = xr.open_dataset(shared / "eo/s2_romania_forest/s2_20m.nc", mask_and_scale=False).isel(time=dates)
    grids = romania_grids()
    archive = Archive(folder)
    for index, time in enumerate(ten["time"].values):
        day = str(time)[:10]
        bands = {band: (ten[band].values[index], grids[10]) for band in ("B02", "B03", "B04", "B08", "SCL")}
        bands |= {band: (twenty[band].values[index], grids[20]) for band in ("B8A", "B11")}
        properties = {"s2:processing_baseline": "02.12", "processing:level": "L2A"}
        archive.add(f"S2A_34TFR_{day.replace('-', '')}_0_L2A", f"{day}T09:30:00Z", bands, properties=properties)
    return archive


def romania_grids() -> dict[int, GeoBox]:
    """Return the moved 10 m and 20 m grids of the Romanian series."""
    origin = (5271980.0, 2533000.0)
    return {
        size: GeoBox(shape, rasterio.Affine(size, 0, origin[0], 0, -size, origin[1]), "EPSG:3035")
        for size, shape in ((10, (100, 70)), (20, (50, 35)))
    }
