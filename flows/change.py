"""The flow that finds woodland lost and gained in a sequence of maps, and publishes it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import ChangeConfig
from flows.infer import fill_cells, summarise
from storage.location import resolve
from tasks.earth.change import ChangeRules
from tasks.earth.change_map import ChangeRequest
from tasks.earth.grid import read_area
from tasks.infer import freeze_change, publish_product


@flow(name="change-canopy")
def change_canopy(config: ChangeConfig) -> Any:
    """Find the changes of an area region by region, and publish kind, date and confidence of each."""
    prepared = freeze_change(to_request(config))
    filled = fill_cells(prepared, "change", config.dask)
    receipt = publish_product(prepared)
    return Completed(message=f"{receipt.state}: {receipt.item_url}", data=summarise(prepared, receipt, filled))


def to_request(config: ChangeConfig) -> ChangeRequest:
    """Return what the tasks need, from what the user wrote."""
    return ChangeRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        maps=config.collection,
        start=config.start.isoformat() if config.start else None,
        end=config.end.isoformat() if config.end else None,
        least_area_ha=config.min_area_ha,
        rules=ChangeRules(**config.rules.model_dump()),
        collection=config.out_collection,
        title=config.title,
        crs=config.crs,
        resolution=config.resolution,
        allow_unmasked=config.allow_unmasked,
    )
