"""The flow that maps an area and publishes the map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import GateSettings, MapConfig
from flows.runtime import NO_NEWS_NAME, Summary, task_runner
from storage.location import resolve
from storage.publish import Receipt
from tasks.earth.canopy_map import MapRequest
from tasks.earth.gates import Checked, GateRules
from tasks.earth.grid import read_area
from tasks.earth.regional import Prepared
from tasks.earth.sample import read_sample
from tasks.infer import check_staged_map, fill_cell, freeze_map, publish_map, publish_product, report_map


@flow(name="map-canopy")
def map_canopy(config: MapConfig) -> Any:
    """Classify the cubes of an area region by region, and publish the map."""
    if config.sample is not None:
        read_sample(config.sample)  # one that cannot be read stops the run before it maps
    prepared = freeze_map(to_request(config))
    if prepared.present is not None and config.sample is None:
        return already_there(prepared)
    filled = fill_cells(prepared, "map", config.dask)
    checked = check_staged_map(prepared, to_rules(config.gates), config.sample)
    if checked.nothing_new:
        return hold_back(prepared, checked, filled)
    receipt = publish_map(prepared, checked)
    report = report_map(prepared, receipt, checked)
    summary = summarise(prepared, receipt, filled)
    return Completed(
        message=f"{receipt.state}: {receipt.item_url}",
        data=replace(summary, notes=allowed(checked), details={**summary.details, "report": report.url}),
    )


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


def to_rules(settings: GateSettings) -> GateRules:
    """Return the limits of the checks, from what the user wrote."""
    asked = settings.asked.isoformat() if settings.asked else None
    return GateRules(**settings.model_dump() | {"asked": asked})


def already_there(prepared: Prepared) -> Any:
    """Return the map that is there; what its publisher did not come to is done."""
    receipt = publish_product(prepared)
    return Completed(message=f"{receipt.state}: {receipt.item_url}", data=summarise(prepared, receipt, 0))


def hold_back(prepared: Prepared, checked: Checked, filled: int) -> Any:
    """Return that nothing was seen since the last map: not an error, and not a success either."""
    note = f"nothing new: {checked.failed[0].sentence}; nothing was published (--allow coverage publishes it)"
    counts = {"mapped": filled, "already there": len(prepared.job.plan.regions) - filled}
    return Completed(name=NO_NEWS_NAME, message=note, data=Summary(prepared.run.id, counts, notes=(note,)))


def allowed(checked: Checked) -> tuple[str, ...]:
    """Return the checks that failed and were allowed by hand."""
    return tuple(f"allowed by hand: {check.name}: {check.sentence}" for check in checked.checks if check.allowed)


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
