"""The flow that forecasts an area and publishes the quantiles."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.config import ForecastConfig
from flows.infer import fill_cells, summarise
from storage.location import resolve
from tasks.earth.forecast_request import ForecastRequest
from tasks.earth.grid import read_area
from tasks.infer import freeze_forecast, publish_product


@flow(name="forecast-area")
def forecast_area(config: ForecastConfig) -> Any:
    """Forecast the pixels of an area region by region, and publish quantiles, index maps and pictures."""
    prepared = freeze_forecast(to_request(config))
    filled = fill_cells(prepared, "forecast", config.dask)
    receipt = publish_product(prepared)
    return Completed(message=f"{receipt.state}: {receipt.item_url}", data=summarise(prepared, receipt, filled))


def to_request(config: ForecastConfig) -> ForecastRequest:
    """Return what the tasks need, from what the user wrote."""
    return ForecastRequest(
        warehouse=resolve(config.warehouse).url,
        area=read_area(config.aoi),
        model=config.model,
        origin=config.origin.isoformat() if config.origin else None,
        dates=tuple(day.isoformat() for day in config.dates),
        horizon=config.horizon,
        every=config.every,
        bands=config.bands,
        quantiles=config.quantiles,
        out_index=config.out_index,
        collection=config.collection,
        title=config.title,
        crs=config.crs,
        resolution=config.resolution,
        allow_unmasked=config.allow_unmasked,
    )
