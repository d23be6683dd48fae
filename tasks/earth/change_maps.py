"""The maps that change is read from: which of a collection belong together, and their values on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely.geometry
import zarr
from odc.geo.geobox import GeoBox

from storage.classes import NO_CANOPY
from storage.geozarr import geobox_from_attributes
from storage.location import Location
from storage.publish import list_items
from tasks.earth.change import MapSeries
from tasks.earth.layers import NO_COUNT, NO_PROBABILITY, PROBABILITY_SCALE
from tasks.errors import ConfigurationError


@dataclass(frozen=True)
class MapReference:
    """A published map.

    Parameters
    ----------
    collection, item_id : str
        Where it lies below the warehouse.
    start, date : str
        First and last day of the looks behind it, ``YYYY-MM-DD``.
    weights_sha256 : str
        Of its model.
    group : str
        Name of its Zarr group.
    """

    collection: str
    item_id: str
    start: str
    date: str
    weights_sha256: str
    group: str

    @property
    def href(self) -> str:
        """Return its item, as seen from the item of another product."""
        return f"../../{self.collection}/{self.item_id}/{self.item_id}.json"

    def open(self, warehouse: Location) -> zarr.Group:
        """Return its finest level, for reading."""
        folder = warehouse / "products" / self.collection / self.item_id / self.group
        level = zarr.open_group(folder.zarr_store(read_only=True), mode="r")["0"]
        assert isinstance(level, zarr.Group)
        return level


def choose_maps(
    warehouse: Location, collection: str, area: dict[str, Any], *, start: str | None, end: str | None, least: int
) -> tuple[MapReference, ...]:
    """Return the maps of a collection that touch an area, by date.

    All are of one model: that of the map made last. Of two on one day, the one made last counts.

    Parameters
    ----------
    warehouse : Location
        Root.
    collection : str
        Of the maps.
    area : dict
        GeoJSON geometry, EPSG:4326.
    start, end : str or None
        First and last date of the maps, ``YYYY-MM-DD``.
    least : int
        How many there have to be.

    Raises
    ------
    ConfigurationError
        Where there are fewer.
    """
    shape = shapely.geometry.shape(area)
    items = [
        item
        for item in list_items(warehouse, collection)
        if "probability" in item["assets"] and shapely.geometry.shape(item["geometry"]).intersects(shape)
    ]
    items.sort(key=lambda item: (item["properties"]["created"], item["id"]))
    maps = [_reference(item) for item in items]
    chosen = {found.date: found for found in maps if found.weights_sha256 == maps[-1].weights_sha256}
    kept = [chosen[date] for date in sorted(chosen) if (start or "") <= date <= (end or "9999")]
    if len(kept) < least:
        raise ConfigurationError(
            f"{warehouse}: {len(kept)} map(s) of {collection} in the area and the time asked for, and change wants "
            f"{least}: make some with `canopus backfill --window-days 365`"
        )
    return tuple(kept)


def _reference(item: dict[str, Any]) -> MapReference:
    properties = item["properties"]
    return MapReference(
        item["collection"],
        item["id"],
        properties["start_datetime"][:10],
        properties["end_datetime"][:10],
        properties["canopus:weights_sha256"],
        item["assets"]["zarr"]["href"].removeprefix("./"),
    )


@dataclass(frozen=True)
class OpenMaps:
    """Maps opened for reading.

    Parameters
    ----------
    references : tuple of MapReference
        By date.
    levels : tuple of Group
        Their finest levels.
    """

    references: tuple[MapReference, ...]
    levels: tuple[zarr.Group, ...]

    @classmethod
    def of(cls, warehouse: Location, references: Sequence[MapReference]) -> OpenMaps:
        """Open the maps."""
        return cls(tuple(references), tuple(found.open(warehouse) for found in references))

    def on(self, geobox: GeoBox) -> MapSeries:
        """Return canopy probability and clear looks on a grid, nearest neighbour; NaN and 0 outside a map."""
        read = [_on(level, geobox) for level in self.levels]
        starts, dates = ([getattr(found, name) for found in self.references] for name in ("start", "date"))
        return MapSeries(
            np.stack([probability for probability, _ in read]),
            np.stack([count for _, count in read]),
            np.array(starts, dtype="datetime64[D]"),
            np.array(dates, dtype="datetime64[D]"),
        )


def _on(level: zarr.Group, geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return canopy probability and clear looks of one map: (pixel,) each."""
    rows, columns = _places(geobox_from_attributes(level.attrs), geobox)
    stored: Any = level["probability"]
    counts: Any = level["clear_count"]
    inside = (rows >= 0) & (rows < stored.shape[-2]) & (columns >= 0) & (columns < stored.shape[-1])
    probability = np.full(rows.shape, np.nan, np.float32)
    count = np.zeros(rows.shape, np.int32)
    if inside.any():
        y = slice(int(rows[inside].min()), int(rows[inside].max()) + 1)
        x = slice(int(columns[inside].min()), int(columns[inside].max()) + 1)
        at = (rows[inside] - y.start, columns[inside] - x.start)
        none = np.asarray(stored[_place_of_none(level), y, x])[at]
        looks = np.asarray(counts[y, x])[at]
        probability[inside] = np.where(none == NO_PROBABILITY, np.nan, 1 - none * PROBABILITY_SCALE)
        count[inside] = np.where(looks == NO_COUNT, 0, looks)
    return probability.ravel(), count.ravel()


def _place_of_none(level: zarr.Group) -> int:
    names: Any = level["class_name"]
    listed = [str(name) for name in np.asarray(names[:]).tolist()]
    if NO_CANOPY not in listed:
        raise ConfigurationError(f"the maps' classes are {', '.join(listed)}; change wants one called {NO_CANOPY!r}")
    return listed.index(NO_CANOPY)


def _places(held: GeoBox, asked: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column in one grid of each pixel centre of another: (y, x) int."""
    height, width = (int(size) for size in asked.shape)
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = asked.affine * (column, row)
    if held.crs != asked.crs:
        x, y = pyproj.Transformer.from_crs(str(asked.crs), str(held.crs), always_xy=True).transform(x, y)
    inner_column, inner_row = ~held.affine * (x, y)
    return np.floor(inner_row).astype(np.int64), np.floor(inner_column).astype(np.int64)
