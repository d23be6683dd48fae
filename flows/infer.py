"""The flow that maps an area and publishes the map."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import MapConfig
from flows.runtime import Summary, task_runner
from storage.location import resolve
from storage.publish import Receipt
from tasks.earth.canopy_map import MapRequest
from tasks.earth.grid import read_area
from tasks.earth.regional import Prepared
from tasks.infer import fill_cell, freeze_map, publish_product


@flow(name="map-canopy")
def map_canopy(config: MapConfig) -> Any:
    """Classify the cubes of an area region by region, and publish the map."""
    prepared = freeze_map(to_request(config))
    filled = fill_cells(prepared, "map", config.dask)
    receipt = publish_product(prepared)
    return Completed(message=f"{receipt.state}: {receipt.item_url}", data=summarise(prepared, receipt, filled))


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
        window_days=config.window_days,
    )


def fill_cells(prepared: Prepared, kind: str, dask: str | None) -> int:
    """Fill what is left, several cells at once; return the number of regions."""
    if prepared.present is not None:
        return 0
    with task_runner(dask) as runner:
        futures = [
            runner.submit(
                fill_cell,
                parameters={"prepared": prepared, "kind": kind, "name": name, "regions": regions},
                wait_for=[],
            )
            for name, regions in prepared.groups()
        ]
        return sum(future.result() for future in futures)


def summarise(prepared: Prepared, receipt: Receipt, filled: int) -> Summary:
    """Return what the command line prints."""
    rasters = (receipt.assets[raster.layer.name] for raster in prepared.job.rasters)
    return Summary(
        prepared.run.id,
        {"mapped": filled, "already there": len(prepared.job.plan.regions) - filled},
        products=(receipt.item_url,),
        details={
            "state": receipt.state,
            "map": next(rasters),
            "item": receipt.item_url,
            "picture": receipt.assets["preview"],
        },
    )
