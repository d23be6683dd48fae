"""What an Earth cube looks like: dimensions, types, chunks, units and fill, checked by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import zarr
from odc.geo.geobox import GeoBox

from storage.errors import SchemaMismatch
from storage.geozarr import geobox_from_attributes, spatial_attributes

SENTINEL2_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

BAND_ATTRIBUTES: dict[str, tuple[str, float]] = {
    "B02": ("blue", 492.4),
    "B03": ("green", 559.8),
    "B04": ("red", 664.6),
    "B05": ("red edge 1", 704.1),
    "B06": ("red edge 2", 740.5),
    "B07": ("red edge 3", 782.8),
    "B08": ("near infrared", 832.8),
    "B8A": ("narrow near infrared", 864.7),
    "B11": ("shortwave infrared 1", 1613.7),
    "B12": ("shortwave infrared 2", 2202.4),
}
"""Common name and central wavelength in nanometres (Sentinel-2A, ESA spectral responses v3.0)."""

CHUNK = 256
REFLECTANCE_SCALE = 1e-4
STRUCTURE_VERSION = 1


@dataclass(frozen=True)
class MaskRule:
    """How the stored mask raster becomes ``valid``.

    Parameters
    ----------
    asset : str
        Asset of the scene that is kept in `scl`, by default the Sen2Cor scene classification.
    clear : tuple of int
        Values that count as a clear look.
    dilation : int
        Pixels by which everything that is not clear grows.
    """

    asset: str = "scl"
    clear: tuple[int, ...] = (4, 5, 6)
    dilation: int = 2


@dataclass(frozen=True)
class CubeSchema:
    """The structure of one tile's cube.

    Parameters
    ----------
    geobox : GeoBox
        The whole tile: shape, affine and CRS. y goes down, coordinates are pixel centres.
    bands : tuple of str
        Band names in order.
    mask : MaskRule
        Kept in the cube, so that every reader derives the same ``valid``.
    """

    geobox: GeoBox
    bands: tuple[str, ...] = SENTINEL2_BANDS
    mask: MaskRule = field(default_factory=MaskRule)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Return (y, x) in pixels."""
        rows, columns = self.geobox.shape
        return int(rows), int(columns)

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes of the cube."""
        return {
            "Conventions": "CF-1.11",
            "title": "Sentinel-2 L2A surface reflectance",
            "license": "contains modified Copernicus Sentinel data",
            "canopus:structure": STRUCTURE_VERSION,
            "canopus:mask": {
                "asset": self.mask.asset,
                "clear": list(self.mask.clear),
                "dilation": self.mask.dilation,
            },
            "canopus:bands": list(self.bands),
            **spatial_attributes(self.geobox),
        }

    @classmethod
    def from_group(cls, group: zarr.Group) -> CubeSchema:
        """Return the schema that a stored cube declares.

        Raises
        ------
        SchemaMismatch
            Where the group is no cube, or of another structure version.
        """
        attributes = dict(group.attrs)
        version = attributes.get("canopus:structure")
        if version != STRUCTURE_VERSION:
            raise SchemaMismatch(
                f"{group.store_path}: structure version {version!r}, this code reads {STRUCTURE_VERSION}"
            )
        mask: Any = attributes["canopus:mask"]
        bands: Any = attributes["canopus:bands"]
        return cls(
            geobox=geobox_from_attributes(attributes),
            bands=tuple(bands),
            mask=MaskRule(mask["asset"], tuple(mask["clear"]), int(mask["dilation"])),
        )

    def require_same(self, stored: CubeSchema, where: str) -> None:
        """Check that new data fit a stored cube.

        Raises
        ------
        SchemaMismatch
            Naming every difference at once.
        """
        pairs = {
            "CRS": (str(stored.geobox.crs), str(self.geobox.crs)),
            "transform": (tuple(stored.geobox.affine), tuple(self.geobox.affine)),
            "shape": (stored.tile_shape, self.tile_shape),
            "bands": (stored.bands, self.bands),
            "mask": (stored.mask, self.mask),
        }
        differences = [f"{name}: stored {old}, asked {new}" for name, (old, new) in pairs.items() if old != new]
        if differences:
            raise SchemaMismatch(
                f"{where} has another structure ({'; '.join(differences)}); "
                "ingest with the stored settings, or name another warehouse"
            )


def encode_record(record: dict[str, Any]) -> str:
    """Return one row of the `scenes` table as compact JSON with sorted keys."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
