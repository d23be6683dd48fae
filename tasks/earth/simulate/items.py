"""STAC items as the two public catalogues write them.

Names and values follow real items of Earth Search v1 (collection ``sentinel-2-l2a``) and of the Planetary Computer
(collection ``sentinel-2-l2a``). What depends on the time of writing is taken from the sensing time, so the same
archive has the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import Polygon, mapping

from tasks.earth.simulate.acquisitions import Product
from tasks.earth.simulate.config import COLLECTION_ID
from tasks.earth.simulate.phenology import BANDS

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSIONS = "https://stac-extensions.github.io"
# band: Earth Search v1 asset, common name, its title, Planetary Computer's description, centre and width in micrometres
_BANDS: dict[str, tuple[str, str, str, str, float, float]] = {
    "B02": ("blue", "blue", "Blue (band 2) - 10m", "Band 2 - Blue - 10m", 0.49, 0.098),
    "B03": ("green", "green", "Green (band 3) - 10m", "Band 3 - Green - 10m", 0.56, 0.045),
    "B04": ("red", "red", "Red (band 4) - 10m", "Band 4 - Red - 10m", 0.665, 0.038),
    "B05": ("rededge1", "rededge", "Red edge 1 (band 5) - 20m", "Band 5 - Vegetation red edge 1 - 20m", 0.704, 0.019),
    "B06": ("rededge2", "rededge", "Red edge 2 (band 6) - 20m", "Band 6 - Vegetation red edge 2 - 20m", 0.74, 0.018),
    "B07": ("rededge3", "rededge", "Red edge 3 (band 7) - 20m", "Band 7 - Vegetation red edge 3 - 20m", 0.783, 0.028),
    "B08": ("nir", "nir", "NIR 1 (band 8) - 10m", "Band 8 - NIR - 10m", 0.842, 0.145),
    "B8A": ("nir08", "nir08", "NIR 2 (band 8A) - 20m", "Band 8A - Vegetation red edge 4 - 20m", 0.865, 0.033),
    "B11": ("swir16", "swir16", "SWIR 1 (band 11) - 20m", "Band 11 - SWIR (1.6) - 20m", 1.61, 0.143),
    "B12": ("swir22", "swir22", "SWIR 2 (band 12) - 20m", "Band 12 - SWIR (2.2) - 20m", 2.19, 0.242),
}
_SCL_PROPERTIES = {
    "s2:dark_features_percentage": 2, "s2:cloud_shadow_percentage": 3, "s2:vegetation_percentage": 4,
    "s2:not_vegetated_percentage": 5, "s2:water_percentage": 6, "s2:unclassified_percentage": 7,
    "s2:medium_proba_clouds_percentage": 8, "s2:high_proba_clouds_percentage": 9,
    "s2:thin_cirrus_percentage": 10, "s2:snow_ice_percentage": 11,
}  # fmt: skip


@dataclass(frozen=True)
class Asset:
    """One file of an item.

    Parameters
    ----------
    band : str
        Band name, or "SCL".
    filename : str
        Beside the item.
    geobox : GeoBox
    size : int
        Bytes.
    """

    band: str
    filename: str
    geobox: GeoBox
    size: int


def asset_filename(product: Product, band: str) -> str:
    """Return the name of a file as its catalogue has it.

    Parameters
    ----------
    product : Product
    band : str
        Band name, or "SCL".

    Returns
    -------
    str
    """
    if product.layout == "earth-search":
        return f"{band}.tif"
    resolution = "10m" if band in ("B02", "B03", "B04", "B08") else "20m"
    return f"T{product.tile}_{product.acquisition.datatake_start:%Y%m%dT%H%M%S}_{band}_{resolution}.tif"


def make_item(product: Product, assets: list[Asset], *, footprint: Polygon, scl: np.ndarray) -> dict[str, Any]:
    """Return a STAC item.

    Parameters
    ----------
    product : Product
    assets : list of Asset
        Files that lie beside the item; without one for "SCL" the item has none.
    footprint : shapely.Polygon
        Where there is data, in the projection of the files.
    scl : ndarray, uint8
        Scene classification, 0 outside the footprint; gives the percentages.

    Returns
    -------
    dict
        With relative links, to be written as ``<collection>/<item id>/<item id>.json``.
    """
    crs = assets[0].geobox.crs
    assert crs is not None  # every grid of an archive has one
    to_degrees = Transformer.from_crs(str(crs), "EPSG:4326", always_xy=True)
    ring = [[round(v, 6) for v in to_degrees.transform(x, y)] for x, y in footprint.exterior.coords]
    shape = Polygon(ring)
    earth_search = product.layout == "earth-search"
    describe = _earth_search_properties if earth_search else _planetary_computer_properties
    asset_entry = _earth_search_asset if earth_search else _planetary_computer_asset
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": product.item_id,
        "collection": COLLECTION_ID,
        "stac_extensions": _extensions(product),
        "bbox": [round(v, 6) for v in shape.bounds],
        "geometry": {"type": "Polygon", "coordinates": [[list(p) for p in mapping(shape)["coordinates"][0]]]},
        "properties": {
            "datetime": _stamp(product, milliseconds=True),
            "proj:epsg": crs.epsg,
            **describe(product),
            **_shares(scl),
        },
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": dict(asset_entry(product, a) for a in assets),
    }


def _stamp(product: Product, *, milliseconds: bool) -> str:
    """Return the sensing time as the catalogue writes it."""
    when = product.acquisition.when
    if product.layout == "planetary-computer":
        return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond:06d}Z"
    return f"{when:%Y-%m-%dT%H:%M:%S}" + (f".{when.microsecond // 1000:03d}000Z" if milliseconds else "Z")


def _extensions(product: Product) -> list[str]:
    """Return the schemas that the catalogue names."""
    if product.layout == "planetary-computer":
        names = ["eo/v1.0.0", "sat/v1.0.0", "projection/v1.0.0"]
    else:
        names = ["eo/v1.1.0", "file/v2.1.0", "grid/v1.0.0", "mgrs/v1.0.0", "processing/v1.1.0", "projection/v1.1.0"]
        names += ["raster/v1.1.0", "view/v1.0.0"]
    return [f"{_EXTENSIONS}/{name}/schema.json" for name in names]


def _shares(scl: np.ndarray) -> dict[str, float]:
    """Return the percentages that both catalogues copy from the product's metadata."""
    seen = max(int((scl > 0).sum()), 1)
    shares = {name: round(100.0 * int((scl == code).sum()) / seen, 6) for name, code in _SCL_PROPERTIES.items()}
    cloud = round(100.0 * int(np.isin(scl, (8, 9, 10)).sum()) / seen, 6)
    nodata = round(100.0 * int((scl == 0).sum()) / scl.size, 6)
    return {"eo:cloud_cover": cloud, "s2:nodata_pixel_percentage": nodata, **shares}


def _common_properties(product: Product) -> dict[str, Any]:
    """Return what both catalogues copy from the product's metadata under the same names."""
    return {
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": product.baseline,
        "s2:product_uri": product.product_uri,
        "s2:datatake_id": product.datatake_id,
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": product.datastrip_id,
        "s2:granule_id": product.granule_id,
        "s2:degraded_msi_data_percentage": 0.0,
        "s2:saturated_defective_pixel_percentage": 0.0,
    }


def _earth_search_properties(product: Product) -> dict[str, Any]:
    """Return the properties of an Earth Search v1 item."""
    sensed, sun = product.acquisition, product.acquisition.sun
    made = f"{product.generated:%Y-%m-%dT%H:%M:%S}"
    properties = {
        "created": f"{made}.000Z",
        "updated": f"{made}.000Z",
        "platform": f"sentinel-{sensed.platform[1:].lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "mgrs:utm_zone": int(product.tile[:2]),
        "mgrs:latitude_band": product.tile[2],
        "mgrs:grid_square": product.tile[3:],
        "grid:code": f"MGRS-{product.tile}",
        "view:sun_azimuth": round(sun.azimuth_deg, 6),
        "view:sun_elevation": round(sun.elevation_deg, 6),
        "s2:sequence": str(product.sequence),
        "s2:generation_time": f"{made}.000000Z",
        "processing:software": {"sentinel2-to-stac": "0.1.1"},
        **_common_properties(product),
    }
    if product.offset_flag is not None:
        properties["earthsearch:boa_offset_applied"] = product.offset_flag
    return properties


def _planetary_computer_properties(product: Product) -> dict[str, Any]:
    """Return the properties of a Planetary Computer item."""
    sensed, sun = product.acquisition, product.acquisition.sun
    return {
        "platform": f"Sentinel-{sensed.platform[1:]}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "s2:mgrs_tile": product.tile,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": sensed.relative_orbit,
        "s2:mean_solar_zenith": round(90 - sun.elevation_deg, 6),
        "s2:mean_solar_azimuth": round(sun.azimuth_deg, 6),
        "s2:generation_time": f"{product.generated:%Y-%m-%dT%H:%M:%S}.000000Z",
        **_common_properties(product),
    }


def _earth_search_asset(product: Product, asset: Asset) -> tuple[str, dict[str, Any]]:
    """Return the name and the entry of a file in an Earth Search v1 item."""
    resolution = round(asset.geobox.resolution.x)
    entry: dict[str, Any] = {
        "href": f"./{asset.filename}",
        "type": COG_TYPE,
        "gsd": resolution,
        "proj:shape": list(asset.geobox.shape),
        "proj:transform": [float(v) for v in asset.geobox.affine[:6]],
        "file:size": asset.size,
    }
    if asset.band == "SCL":
        raster = {"nodata": 0, "data_type": "uint8", "spatial_resolution": resolution}
        entry |= {"title": "Scene classification map (SCL)", "raster:bands": [raster], "roles": ["data", "reflectance"]}
        return "scl", entry
    name, common, title, _, centre, width = _BANDS[asset.band]
    raster = {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15, "spatial_resolution": resolution}
    if product.band_offset is not None:
        raster |= {"scale": 0.0001, "offset": product.band_offset}
    entry |= {
        "title": title,
        "eo:bands": [{"name": name, "common_name": common, "center_wavelength": centre, "full_width_half_max": width}],
        "raster:bands": [raster],
        "roles": ["data", "reflectance"],
    }
    return name, entry


def _planetary_computer_asset(_product: Product, asset: Asset) -> tuple[str, dict[str, Any]]:
    """Return the name and the entry of a file in a Planetary Computer item."""
    resolution = round(asset.geobox.resolution.x)
    entry: dict[str, Any] = {
        "href": f"./{asset.filename}",
        "type": COG_TYPE,
        "title": "Scene classfication map (SCL)",  # so in real items  # codespell:ignore classfication
        "proj:bbox": [float(v) for v in asset.geobox.boundingbox.bbox],
        "proj:shape": list(asset.geobox.shape),
        "proj:transform": [float(v) for v in asset.geobox.affine[:6]],
        "gsd": float(resolution),
        "roles": ["data"],
    }
    if asset.band in BANDS:
        _, common, _, title, centre, width = _BANDS[asset.band]
        described = {"name": asset.band, "common_name": common, "description": title.removesuffix(f" - {resolution}m")}
        entry |= {
            "title": title,
            "eo:bands": [{**described, "center_wavelength": centre, "full_width_half_max": width}],
        }
    return asset.band, entry


def make_collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the collection that holds the items.

    Parameters
    ----------
    items : list of dict

    Returns
    -------
    dict
    """
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    box = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    return {
        "type": "Collection",
        "id": COLLECTION_ID,
        "stac_version": "1.0.0",
        "title": "Sentinel-2 Level-2A (generated)",
        "description": "A generated Sentinel-2 archive with known truth. No real image is in it.",
        "license": "Apache-2.0",
        "extent": {"spatial": {"bbox": [box]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            *({"rel": "item", "href": f"./{i['id']}/{i['id']}.json", "type": "application/geo+json"} for i in items),
        ],
    }


def make_catalog() -> dict[str, Any]:
    """Return the root of the catalogue."""
    return {
        "type": "Catalog",
        "id": "canopus-simulated",
        "stac_version": "1.0.0",
        "title": "Generated Sentinel-2 archive",
        "description": "Made by `canopus simulate`; the truth lies in the folder truth/ beside this file.",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "child", "href": f"./{COLLECTION_ID}/collection.json", "type": "application/json"},
        ],
    }
