"""Regions of which nothing new was read are taken over from an earlier map instead of being made again.

What a region becomes follows from the looks at it and the model alone. The item of a map says of each cube a digest of
the looks that were read, so where none of the cubes in reach of a region has another digest, with the same model and
code on the same grid, the earlier map holds what would be made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from storage.location import Location
from storage.publish import list_items
from storage.regions import Region
from tasks.earth.canopy_map import MapJob
from tasks.earth.last_map import day_of
from tasks.earth.mapping import overlap
from tasks.earth.product import is_of_same_place
from tasks.earth.regional import Prepared
from tasks.earth.staging import write_staged_region

REACH = 128
"""Pixels around a region within which another look may matter to it: more than any model's halo."""


def take_over(prepared: Prepared) -> int:
    """Stage the regions that an earlier map holds already; return how many.

    Parameters
    ----------
    prepared : Prepared
        Of a `MapJob`.
    """
    if prepared.present is not None:
        return 0
    job = prepared.job
    assert isinstance(job, MapJob)
    item = _earlier(prepared.root, job)
    if item is None:
        return 0
    changed = _changed(job, item)
    left = [region for _, regions in prepared.groups() for region in regions]
    same = [] if changed is None else [region for region in left if not _reached(job, region, changed)]
    folder = prepared.root / "products" / job.product.collection / str(item["id"])
    for region in same:
        write_staged_region(prepared.staging, region, _read_region(job, folder, region))
    if same:
        prepared.run.append_log({"event": "taken over", "regions": len(same), "from": item["id"]})
    return len(same)


def _earlier(root: Location, job: MapJob) -> dict[str, Any] | None:
    """Return the newest map by the same model and code, of the same place and with the same layers."""
    made_of = job.product.lineage
    layers = sorted(layer.name for layer in job.product.layers)
    found = [
        item
        for item in list_items(root, job.product.collection)
        if item["properties"].get("canopus:model") == job.model
        and item["properties"].get("canopus:weights_sha256") == made_of.weights_sha256
        and item["properties"].get("processing:software") == dict(made_of.software)
        and sorted(name for name, asset in item["assets"].items() if "data_type" in asset) == layers
        and is_of_same_place(item, job.product)
    ]
    return max(found, key=lambda item: (day_of(item), item["properties"]["created"], item["id"]), default=None)


def _changed(job: MapJob, item: dict[str, Any]) -> set[str] | None:
    """Return the cubes whose looks are others than those of a map; None where one is there no more."""
    now, then = dict(job.product.lineage.looks), dict(item["properties"].get("canopus:looks", {}))
    changed = {path for path in {*now, *then} if now.get(path) != then.get(path)}
    return changed if changed <= {cube.path for cube in job.plan.cubes} else None


def _reached(job: MapJob, region: Region, changed: set[str]) -> bool:
    """Return whether a changed cube lies in reach of a region."""
    around = job.plan.staging[region["y"], region["x"]].pad(REACH)
    return any(overlap(cube.tile.geobox, around) is not None for cube in job.plan.cubes if cube.path in changed)


def _read_region(job: MapJob, folder: Location, region: Region) -> dict[str, np.ndarray]:
    """Return the layers of a region of a published map as they were staged."""
    level: Any = zarr.open_group((folder / job.product.zarr).zarr_store(read_only=True), mode="r")["0"]
    staging, product = job.plan.staging, job.product.geobox
    top = round((product.affine.f - staging.affine.f) / staging.affine.e)
    left = round((product.affine.c - staging.affine.c) / staging.affine.a)
    rows = slice(max(region["y"].start - top, 0), min(region["y"].stop - top, int(product.shape[0])))
    columns = slice(max(region["x"].start - left, 0), min(region["x"].stop - left, int(product.shape[1])))
    size = tuple(region[axis].stop - region[axis].start for axis in ("y", "x"))
    y = slice(rows.start + top - region["y"].start, rows.stop + top - region["y"].start)
    x = slice(columns.start + left - region["x"].start, columns.stop + left - region["x"].start)
    found = {}
    for layer in job.product.layers:
        values = np.full((*layer.leading, *size), layer.nodata, dtype=layer.dtype)
        values[..., y, x] = level[layer.name][..., rows, columns]
        found[layer.name] = values
    return found
