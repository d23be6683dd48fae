"""From a STAC item to a scene: what it is, where its bands lie, how its digital numbers become reflectance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac

from storage.schema import SENTINEL2_BANDS
from tasks.errors import SourceRejected

EARTH_SEARCH_NAMES = {
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "swir16": "B11",
    "swir22": "B12",
}
"""Asset names of Earth Search v1; Planetary Computer and Earth Search v0 use the band names themselves."""

BASELINE_WITH_OFFSET = (4, 0)
BOA_ADD_OFFSET = -1000
"""Offset in digital numbers since processing baseline 04.00 (Sentinel-2 Products Specification v14.9, 4.3)."""

_PRODUCT = re.compile(
    r"(?P<platform>S2[A-D])_MSI(?P<level>L1C|L2A)_(?P<sensing>\d{8}T\d{6})_(?:N(?P<baseline>\d{4})_)?R\d{3}"
    r"_T?(?P<tile>\d{2}[A-Z]{3})_(?P<generation>\d{8}T\d{6})"
)
_DATASTRIP_START = re.compile(r"_S(\d{8}T\d{6})")
_BASELINE_SUFFIX = re.compile(r"_N\d\d\.\d\d$")
_SHORT_ID = re.compile(r"^(S2[A-D])_(\d{1,2}[A-Z]{3})_(\d{8})_(\d+)_L2A$")


@dataclass(frozen=True)
class BandAsset:
    """Where one band lies.

    Parameters
    ----------
    href : str
        As in the catalogue, not signed.
    index : int
        Band number in the file, from 1.
    nodata : float or None
        As the item says; the file's own value is used where the item is silent.
    """

    href: str
    index: int = 1
    nodata: float | None = None


@dataclass(frozen=True)
class OffsetClaim:
    """What the metadata say of the radiometric offset.

    Parameters
    ----------
    value : int
        Digital numbers to add, 0 or -1000.
    source : str
        The property that says so.
    """

    value: int
    source: str


@dataclass(frozen=True)
class Scene:
    """One Sentinel-2 L2A item, reduced to what ingest decides on.

    Parameters
    ----------
    id, collection, platform : str
        Platform in lower case, e.g. ``sentinel-2a``.
    mgrs_tile : str
        For example ``30UXC``.
    datatake : str
        Datatake id without its processing baseline.
    datastrip : str
        Sensing start of the datastrip, empty where the item does not say.
    sensing_start : str
        ISO 8601, UTC, microseconds.
    baseline : str
        Processing baseline, e.g. ``05.00``; ``00.00`` where unknown.
    generation_time : str
        ISO 8601, empty where unknown.
    cloud_cover : float or None
        Percent of the whole item.
    longitude : float
        Of the footprint's centre, degrees east, for the solar day.
    footprint : dict
        GeoJSON geometry, EPSG:4326.
    assets : dict of str to BandAsset
        Band name to place; the mask under ``mask`` where there is one.
    offset : OffsetClaim
        What the metadata say.
    href : str
        Where the item itself lies, empty where the catalogue does not say.
    """

    id: str
    collection: str
    platform: str
    mgrs_tile: str
    datatake: str
    datastrip: str
    sensing_start: str
    baseline: str
    generation_time: str
    cloud_cover: float | None
    longitude: float
    footprint: dict[str, Any]
    assets: dict[str, BandAsset]
    offset: OffsetClaim
    href: str = ""

    @property
    def time(self) -> np.datetime64:
        """Return the sensing start, datetime64[us], UTC."""
        return np.datetime64(self.sensing_start, "us")

    @property
    def solar_day(self) -> str:
        """Return the day at the scene's mean solar time, ``YYYY-MM-DD``: one overpass never falls on two days."""
        shift = np.timedelta64(round(self.longitude / 15.0 * 3600.0), "s")
        return str((self.time + shift).astype("datetime64[D]"))

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what two versions of the same acquisition share."""
        return self.platform, self.mgrs_tile, self.datatake, self.datastrip

    @property
    def rank(self) -> tuple[str, str, str]:
        """Return what grows from an older version to a newer one."""
        # catalogues write the time as 20200714T191310 or as ISO 8601: digits alone compare
        return self.baseline, re.sub(r"\D", "", self.generation_time)[:14], self.id

    @property
    def signature(self) -> str:
        """Return what changes when the catalogue replaces the scene in place."""
        return f"{self.id}|{self.baseline}|{self.generation_time}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, enough to read the scene again."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scene:
        """Return the scene that `to_json` described."""
        assets = {name: BandAsset(**asset) for name, asset in data["assets"].items()}
        return cls(**{**data, "assets": assets, "offset": OffsetClaim(**data["offset"])})


def parse_scene(item: pystac.Item, bands: Iterable[str] = SENTINEL2_BANDS, *, mask_asset: str = "scl") -> Scene:
    """Return the scene that an item of Earth Search, Planetary Computer or the like describes.

    Parameters
    ----------
    item : pystac.Item
        With absolute hrefs.
    bands : iterable of str
        Bands to be read; each has to be there.
    mask_asset : str
        Asset that holds the mask; an item without it is taken, and its looks are not valid.

    Raises
    ------
    SourceRejected
        Where the item is not Sentinel-2 L2A, lacks a band, or contradicts itself; the message names the item.
    """
    properties = item.properties
    _require_sentinel2_l2a(item)
    product = _product_parts(item)
    assets = _band_assets(item)
    missing = [band for band in bands if band not in assets]
    if missing:
        raise SourceRejected(f"{item.id}: no asset for {', '.join(missing)}", reason="missing-asset")
    chosen = {band: assets[band] for band in bands}
    mask = _mask_asset(item, mask_asset)
    if mask is not None:
        chosen["mask"] = mask
    baseline = _baseline(properties, product)
    if item.geometry is None or item.datetime is None:
        raise SourceRejected(f"{item.id}: no geometry or no datetime")
    return Scene(
        id=item.id,
        collection=item.collection_id or "",
        platform=str(properties.get("platform", product.get("platform", ""))).lower(),
        mgrs_tile=_mgrs_tile(item, product),
        datatake=_datatake(item, product),
        datastrip=_datastrip_start(properties),
        sensing_start=_utc(item.datetime),
        baseline=baseline,
        generation_time=str(properties.get("s2:generation_time", product.get("generation", ""))),
        cloud_cover=properties.get("eo:cloud_cover"),
        longitude=_centre_longitude(item.geometry),
        footprint=item.geometry,
        assets=chosen,
        offset=claimed_offset(item, baseline),
        href=item.get_self_href() or "",
    )


def claimed_offset(item: pystac.Item, baseline: str) -> OffsetClaim:
    """Return what the metadata say of the offset, the most specific statement first.

    In this order: `earthsearch:boa_offset_applied`, the bands' own offset, the processing baseline. The acquisition
    date is never used, since old scenes were reprocessed with new baselines.
    """
    from_baseline = BOA_ADD_OFFSET if _version(baseline) >= BASELINE_WITH_OFFSET else 0
    applied = item.properties.get("earthsearch:boa_offset_applied")
    if applied is not None:
        return OffsetClaim(0 if applied else from_baseline, "earthsearch:boa_offset_applied")
    declared = _declared_offset(item)
    if declared is not None:
        return OffsetClaim(declared, "raster:offset")
    if _version(baseline) > (0, 0):
        return OffsetClaim(from_baseline, "s2:processing_baseline")
    return OffsetClaim(0, "none")


def _require_sentinel2_l2a(item: pystac.Item) -> None:
    properties = item.properties
    platform = str(properties.get("platform", "")).lower().replace("_", "-")
    constellation = str(properties.get("constellation", "")).lower().replace(" ", "-")
    if platform and not platform.startswith("sentinel-2") and not constellation.startswith("sentinel-2"):
        raise SourceRejected(f"{item.id}: platform {properties.get('platform')} is not Sentinel-2")
    level = str(properties.get("processing:level", "")).upper()
    product_type = str(properties.get("s2:product_type", ""))
    names = " ".join([item.id, item.collection_id or "", str(_product_uri(properties)), product_type]).upper()
    if level.startswith("L1") or "L1C" in names or "MSI1C" in names:
        raise SourceRejected(f"{item.id}: top-of-atmosphere (L1C), not surface reflectance (L2A)")
    if not (level.startswith("L2") or "L2A" in names or "MSI2A" in names):
        raise SourceRejected(f"{item.id}: nothing in the item says that it is Sentinel-2 L2A")


def _product_uri(properties: Mapping[str, Any]) -> str:
    return str(properties.get("s2:product_uri") or properties.get("sentinel:product_id") or "")


def _product_parts(item: pystac.Item) -> dict[str, str]:
    for text in (_product_uri(item.properties), item.id):
        match = _PRODUCT.search(text)
        if match:
            return {name: value for name, value in match.groupdict().items() if value}
    return {}


def _baseline(properties: Mapping[str, Any], product: Mapping[str, str]) -> str:
    stated = properties.get("s2:processing_baseline") or properties.get("processing:version")
    digits = product.get("baseline", "0000")
    major, minor = _version(str(stated) if stated else f"{digits[:2]}.{digits[2:]}")
    return f"{major:02d}.{minor:02d}"


def _version(baseline: str) -> tuple[int, int]:
    major, _, minor = baseline.partition(".")
    return (int(major), int(minor or 0)) if major.isdigit() and (minor or "0").isdigit() else (0, 0)


def _mgrs_tile(item: pystac.Item, product: Mapping[str, str]) -> str:
    properties = item.properties
    for name in ("s2:mgrs_tile", "grid:code"):
        if properties.get(name):
            return str(properties[name]).removeprefix("MGRS-").zfill(5)
    for prefix in ("mgrs:", "sentinel:"):
        if f"{prefix}grid_square" in properties and f"{prefix}utm_zone" in properties:
            zone = properties[f"{prefix}utm_zone"]
            return f"{zone:>02}{properties[f'{prefix}latitude_band']}{properties[f'{prefix}grid_square']}"
    if product.get("tile"):
        return product["tile"]
    short = _SHORT_ID.match(item.id)
    return short[2].zfill(5) if short else ""


def _datatake(item: pystac.Item, product: Mapping[str, str]) -> str:
    stated = item.properties.get("s2:datatake_id")
    if stated:
        return _BASELINE_SUFFIX.sub("", str(stated))
    if product.get("sensing"):
        return f"G{product['platform']}_{product['sensing']}"
    # an item that names neither: only its own id tells it from others
    return item.id


def _datastrip_start(properties: Mapping[str, Any]) -> str:
    match = _DATASTRIP_START.search(str(properties.get("s2:datastrip_id", "")))
    return match[1] if match else ""


def _utc(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _centre_longitude(geometry: Mapping[str, Any]) -> float:
    from shapely.geometry import shape

    return float(shape(geometry).centroid.x)


def _band_assets(item: pystac.Item) -> dict[str, BandAsset]:
    found: dict[str, BandAsset] = {}
    for key, asset in item.assets.items():
        if not _is_readable_raster(key, asset):
            continue
        name = EARTH_SEARCH_NAMES.get(key, key if key in SENTINEL2_BANDS else None)
        if name is not None:
            found[name] = BandAsset(asset.href, 1, _nodata(asset, 0))
            continue
        for index, listed in enumerate(_band_names(asset)):
            listed = EARTH_SEARCH_NAMES.get(listed, listed)
            if listed in SENTINEL2_BANDS:
                found.setdefault(listed, BandAsset(asset.href, index + 1, _nodata(asset, index)))
    return found


def _is_readable_raster(key: str, asset: pystac.Asset) -> bool:
    roles = asset.roles or []
    return not key.endswith("-jp2") and key != "visual" and not {"thumbnail", "overview", "visual"} & set(roles)


def _band_names(asset: pystac.Asset) -> list[str]:
    listed = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    return [str(band.get("name", "")) for band in listed]


def _raster_band(asset: pystac.Asset, index: int) -> Mapping[str, Any]:
    for name in ("raster:bands", "bands"):
        listed = asset.extra_fields.get(name) or []
        if index < len(listed):
            return {key.removeprefix("raster:"): value for key, value in listed[index].items()}
    return {}


def _nodata(asset: pystac.Asset, index: int) -> float | None:
    value = _raster_band(asset, index).get("nodata", asset.extra_fields.get("nodata"))
    return None if value is None or isinstance(value, str) else float(value)


def _declared_offset(item: pystac.Item) -> int | None:
    offsets = {offset for key, asset in item.assets.items() for offset in _offsets_of(key, asset)}
    if len(offsets) > 1:
        raise SourceRejected(f"{item.id}: its bands declare different offsets {sorted(offsets)}")
    return offsets.pop() if offsets else None


def _offsets_of(key: str, asset: pystac.Asset) -> Iterator[int]:
    """Yield the offsets that an asset declares for Sentinel-2 bands, stacked ones included, in digital numbers."""
    if not _is_readable_raster(key, asset):
        return
    names = [key] if EARTH_SEARCH_NAMES.get(key, key) in SENTINEL2_BANDS else _band_names(asset)
    for index, name in enumerate(names):
        band = _raster_band(asset, index)
        offset = band.get("offset", asset.extra_fields.get("raster:offset"))
        if offset is not None and EARTH_SEARCH_NAMES.get(name, name) in SENTINEL2_BANDS:
            yield round(float(offset) / float(band.get("scale", asset.extra_fields.get("raster:scale", 1e-4))))


def _mask_asset(item: pystac.Item, name: str) -> BandAsset | None:
    for key in (name, name.upper(), name.lower()):
        if key in item.assets:
            return BandAsset(item.assets[key].href)
    return None
