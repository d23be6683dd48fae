"""The maps of an area that were published before: the one that a new map is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from storage.location import Location
from storage.publish import list_items, local_copy
from tasks.earth.product import RasterProduct, is_of_same_place

ClassReader = Callable[[slice, slice], np.ndarray]
"""Gives the class values of some rows and columns, uint8."""


@dataclass(frozen=True)
class LastMap:
    """A published map.

    Parameters
    ----------
    url : str
        Of its folder.
    item_id : str
        Its id.
    date : str
        Last day that it is about.
    areas_ha : mapping of str to float
        Mapped area of each class.
    """

    url: str
    item_id: str
    date: str
    areas_ha: dict[str, float]


def find_last(
    warehouse: Location, product: RasterProduct, *, classes: list[int], same_day: bool = True
) -> LastMap | None:
    """Return the last published map of the same collection, area, grid and classes, up to the day of a product.

    Parameters
    ----------
    warehouse : Location
        Root.
    product : RasterProduct
        It is not its own last map.
    classes : list of int
        Class values.
    same_day : bool
        Whether another version of the same day counts.
    """
    found = [
        item
        for item in list_items(warehouse, product.collection)
        if item["id"] != product.key.item_id
        and is_of_same_place(item, product)
        and _classes(item) == classes
        and (day_of(item) < product.end or (same_day and day_of(item) == product.end))
    ]
    if not found:
        return None
    item = max(found, key=lambda item: (day_of(item), item["properties"]["created"], item["id"]))
    folder = warehouse / "products" / product.collection / str(item["id"])
    return LastMap(folder.url, item["id"], day_of(item), item["properties"].get("canopus:mapped_area_ha", {}))


@contextmanager
def open_classes(last: LastMap | None) -> Iterator[ClassReader | None]:
    """Open the class raster of a map; None where there is no map."""
    if last is None:
        yield None
        return
    with local_copy(Location(last.url), ["class.tif"]) as folder, rasterio.open(folder / "class.tif") as raster:
        yield lambda rows, columns: raster.read(1, window=Window.from_slices(rows, columns))


def day_of(item: dict[str, Any]) -> str:
    """Return the last day that a published item is about."""
    return str(item["properties"]["end_datetime"])[:10]


def _classes(item: dict[str, Any]) -> list[int]:
    table = item["assets"].get("class", {}).get("classification:classes", [])
    return [row["value"] for row in table if not row.get("nodata")]
