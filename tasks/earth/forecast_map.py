"""Forecasts of an area as a product: quantiles of reflectance and indices per pixel and future date. No Prefect here."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.indices import available
from storage.cube import CubeState, SeriesBlock
from tasks.earth.forecast_pictures import draw_forecast
from tasks.earth.forecast_request import Forecasting, ForecastRequest
from tasks.earth.forecasters import WINDOW, open_forecaster
from tasks.earth.forecasting import HIGH, LOW, MEDIAN, Forecaster, quantile_index, require_bands
from tasks.earth.layers import VALUE_SCALE, index_layer, to_stored
from tasks.earth.mapping import Fill, MapPlan, count_looks, empty_layers, looks_at, plan_for
from tasks.earth.model_files import load_network
from tasks.earth.product import Raster, RasterProduct, Sources, describe_item, write_rasters
from tasks.earth.regional import Prepared, days_read, freeze_inputs, prepare
from tasks.errors import ConfigurationError

VERSION = 1
"""Of the layout of a forecast; part of the id, to be raised when the same staged layers give other files."""
_PIXELS_AT_ONCE = 4096
_LEVELS = ((LOW, "10 % quantile"), (MEDIAN, "Median"), (HIGH, "90 % quantile"))


@dataclass(frozen=True)
class ForecastJob:
    """Forecast the pixels of an area.

    Parameters
    ----------
    plan : MapPlan
        Cubes at their snapshots, looks before the origin, and grids.
    product : RasterProduct
        What is published.
    asked : Forecasting
        Model, dates, bands, quantiles.
    """

    plan: MapPlan
    product: RasterProduct
    asked: Forecasting

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COGs: for each index its median and the ends of the 80 % interval, a band for each date."""
        asked = self.asked
        return tuple(
            Raster(
                index_layer(name, f"q{round(100 * level):02d}", asked.days, title=title),
                variable=name,
                plane=quantile_index(asked.quantiles, level),
            )
            for name in asked.out_index
            for level, title in (_LEVELS[1], _LEVELS[0], _LEVELS[2])
        )

    def open(self) -> Fill:
        """Load the model, and return what forecasts the pixels of a window."""
        forecaster = open_forecaster(self.plan.root, self.asked.model)
        return partial(forecast_block, forecaster=forecaster, cube_bands=self.plan.bands, asked=self.asked)

    def write(self, folder: Path, sources: Sources) -> dict[str, Any]:
        """Write all assets and return the STAC item."""
        asked = self.asked
        said = {
            "canopus:model": asked.model,
            "canopus:origin": str(asked.origin),
            "canopus:dates": [str(day) for day in asked.targets],
            "canopus:quantiles": list(asked.quantiles),
        }
        write_rasters(folder, self.product, sources, rasters=self.rasters, attributes=said)
        forecaster = open_forecaster(self.plan.root, asked.model)
        pictures = draw_forecast(folder, self.plan, self.product, asked, forecaster=forecaster)
        return describe_item(self.product, self.rasters, pictures, properties=said)


def plan_forecast(request: ForecastRequest) -> tuple[MapPlan, Forecasting, dict[str, CubeState]]:
    """Return which cubes a forecast reads, what it is of, and what the cubes hold.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area or a look before the origin, the model does not take the bands, or a date, quantile
        or index cannot be had.
    NotFound
        Where there is no such model.
    """
    plan = plan_for(request)
    states = plan.states()
    origin = _origin(request, plan, states)
    plan = replace(plan, until=origin - np.timedelta64(1, "D"))
    bands = plan.chosen_bands(request.bands)
    model, weights = _pinned(plan, request.model)
    forecaster = open_forecaster(plan.root, model)
    require_bands(forecaster, bands)
    asked = Forecasting(
        model,
        weights,
        origin,
        _targets(request, origin),
        bands,
        available(bands),
        _out_index(request, bands),
        _quantiles(request, forecaster),
    )
    return plan, asked, states


def prepare_forecast(request: ForecastRequest) -> Prepared:
    """Freeze the inputs of a forecast in a run's manifest, and lay out its staging place.

    Raises
    ------
    ConfigurationError, NotFound
        As `plan_forecast`.
    """
    plan, asked, states = plan_forecast(request)
    days_read(plan, states)
    settled = {
        name: value
        for name, value in asdict(request).items()
        if name not in ("origin", "dates", "horizon", "every", "bands", "quantiles", "model", "out_index")
    }
    run, lineage = freeze_inputs(
        plan,
        "forecast",
        request=settled | asked.in_words(),
        weights_sha256=asked.weights_sha256,
        states=states,
    )
    product = RasterProduct(
        request.collection,
        request.title,
        str(asked.targets[0]),
        str(asked.targets[-1]),
        str(asked.origin),
        plan.product,
        asked.layers,
        lineage,
        area=request.area,
        description="Forecasts of surface reflectance and vegetation indices from time series of Sentinel-2",
        derivation=f"forecast pixel by pixel from looks before {asked.origin} with {asked.model}",
        keywords=("Sentinel-2", "forecast", *asked.indices),
        zarr="forecast.zarr",
        version=VERSION,
        identity={"out_index": list(asked.out_index)},
    )
    return prepare(ForecastJob(plan, product, asked), run)


def forecast_block(
    block: SeriesBlock, *, forecaster: Forecaster, cube_bands: tuple[str, ...], asked: Forecasting
) -> dict[str, np.ndarray]:
    """Return the layers of a block of series, pixels without a valid look as no data.

    Parameters
    ----------
    block : SeriesBlock
        Looks before the origin.
    forecaster : Forecaster
        The model.
    cube_bands : tuple of str
        What the block holds.
    asked : Forecasting
        What is forecast.

    Returns
    -------
    dict of str to ndarray
        Stored values of `forecast_layers`.
    """
    size = block.valid.shape[1:]
    layers = empty_layers(asked.layers, size)
    flat = {name: layers[name].reshape(*layers[name].shape[:-2], -1) for name in ("reflectance", *asked.indices)}
    numbers = [quantile_index(tuple(forecaster.quantiles), level) for level in asked.quantiles]
    chosen = [cube_bands.index(band) for band in asked.bands]
    for looks in looks_at(block, at_once=_PIXELS_AT_ONCE, bands=chosen):
        found = forecaster.forecast(looks.reflectance, looks.valid, looks.dates, asked.days, bands=asked.bands)
        flat["reflectance"][..., looks.pixels] = to_stored(found.reflectance[:, numbers], VALUE_SCALE)
        for name in asked.indices:
            flat[name][..., looks.pixels] = to_stored(found.indices[name][:, numbers], VALUE_SCALE)
    count_looks(block, layers)
    return layers


def _origin(request: ForecastRequest, plan: MapPlan, states: dict[str, CubeState]) -> np.datetime64:
    if request.origin is not None:
        return np.datetime64(request.origin, "D")
    return days_read(plan, states)[-1] + np.timedelta64(1, "D")


def _targets(request: ForecastRequest, origin: np.datetime64) -> tuple[np.datetime64, ...]:
    if request.dates:
        days = np.unique(np.array(request.dates, dtype="datetime64[D]"))
    else:
        days = origin + np.arange(request.every, request.horizon + 1, request.every)
    if not days.size:
        raise ConfigurationError(f"--every {request.every} is beyond --horizon {request.horizon}: no date to forecast")
    if days[0] < origin:
        raise ConfigurationError(f"--dates: {days[0]} lies before the origin {origin}; give a later date, or --origin")
    return tuple(days)


def _out_index(request: ForecastRequest, bands: tuple[str, ...]) -> tuple[str, ...]:
    had = available(bands)
    missing = [name for name in request.out_index if name not in had]
    if missing:
        raise ConfigurationError(
            f"--out-index {', '.join(missing)}: bands {', '.join(bands)} make {', '.join(had) or 'no index'}"
        )
    if not request.out_index:
        raise ConfigurationError("--out-index: name at least one index, such as ndvi")
    return request.out_index


def _quantiles(request: ForecastRequest, forecaster: Forecaster) -> tuple[float, ...]:
    if request.quantiles is None:
        return tuple(forecaster.quantiles)
    wanted = tuple(sorted({*request.quantiles, LOW, MEDIAN, HIGH}))
    for level in wanted:
        quantile_index(tuple(forecaster.quantiles), level)
    return wanted


def _pinned(plan: MapPlan, name: str) -> tuple[str, str]:
    """Return a model's name with its version, and the hash of its weights."""
    if name == WINDOW:
        return WINDOW, hashlib.sha256(b"").hexdigest()
    reference = load_network(plan.root, name).reference
    return f"{reference.name}/{reference.version}", reference.weights_sha256
