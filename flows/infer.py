"""The flow that maps an area and publishes the map."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import MapConfig
from flows.runtime import Summary, task_runner
from storage.location import resolve
from storage.publish import Receipt
from tasks.earth.canopy_map import MapRequest, PreparedMap
from tasks.earth.grid import read_area
from tasks.infer import freeze_map, map_cell, publish_product


@flow(name="map-canopy")
def map_canopy(config: MapConfig) -> Any:
    """Classify the cubes of an area region by region, and publish the map."""
    prepared = freeze_map(to_request(config))
    mapped = map_cells(prepared, config.dask)
    receipt = publish_product(prepared)
    return Completed(message=f"{receipt.state}: {receipt.item_url}", data=summarise(prepared, receipt, mapped))


def to_request(config: MapConfig) -> MapRequest:
    """Return what the tasks need, from what the user wrote."""
    return MapRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        model=config.model,
        collection=config.collection,
        title=config.title,
        crs=config.crs,
        resolution=config.resolution,
        until=config.until.isoformat() if config.until else None,
        allow_unmasked=config.allow_unmasked,
    )


def map_cells(prepared: PreparedMap, dask: str | None) -> int:
    """Classify what is left, several cells at once; return the number of regions."""
    if prepared.present is not None:
        return 0
    with task_runner(dask) as runner:
        futures = [
            runner.submit(map_cell, parameters={"prepared": prepared, "name": name, "regions": regions}, wait_for=[])
            for name, regions in prepared.groups()
        ]
        return sum(future.result() for future in futures)


def summarise(prepared: PreparedMap, receipt: Receipt, mapped: int) -> Summary:
    """Return what the command line prints."""
    folder = receipt.item_url.rsplit("/", 1)[0]
    return Summary(
        prepared.run.id,
        {"mapped": mapped, "already there": len(prepared.plan.regions) - mapped},
        products=(receipt.item_url,),
        details={
            "state": receipt.state,
            "map": f"{folder}/class.tif",
            "item": receipt.item_url,
            "picture": f"{folder}/preview.png",
        },
    )
