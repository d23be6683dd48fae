"""The canopy map as a job: which cubes and classifier, what it says of itself. No Prefect here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks.earth.canopy_product import MapSpec, write_map
from tasks.earth.classifiers import open_map_model
from tasks.earth.mapping import Filling, MapPlan, plan_for, windowed
from tasks.earth.product import Raster, RasterProduct, Sources
from tasks.earth.regional import Prepared, days_read, describe_inputs, prepare, record_inputs


@dataclass(frozen=True)
class MapRequest:
    """What is to be mapped, and with what.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    model : str
        Name, or name/version.
    collection, title : str
        Of the product.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    until : str or None
        Last day of the series, ``YYYY-MM-DD``; None for all.
    allow_unmasked : bool
        Whether looks without a mask count.
    window_days : int or None
        Only looks of so many days up to `until` are read, so that what was felled before does not linger; None for all.
    """

    warehouse: str
    area: dict[str, Any]
    model: str
    collection: str = "canopy"
    title: str = "Tree canopy"
    crs: str | None = None
    resolution: float = 10.0
    until: str | None = None
    allow_unmasked: bool = False
    window_days: int | None = None


@dataclass(frozen=True)
class MapJob:
    """Classify the cubes of an area.

    Parameters
    ----------
    plan : MapPlan
        Cubes at their snapshots, and grids.
    spec : MapSpec
        What the product will say of itself.
    model : str
        ``name/version``.
    """

    plan: MapPlan
    spec: MapSpec
    model: str

    @property
    def product(self) -> RasterProduct:
        """Return what is published."""
        return self.spec.product

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COGs."""
        return self.spec.rasters

    def open(self) -> Filling:
        """Load the model, and return how it fills a region."""
        return open_map_model(self.plan.root, self.model).filling(self.plan.bands)

    def write(self, folder: Path, sources: Sources) -> dict[str, Any]:
        """Write all assets and return the STAC item."""
        return write_map(folder, self.spec, sources)


def prepare_map(request: MapRequest) -> Prepared:
    """Freeze the inputs of a map in a run's manifest, and lay out its staging place.

    Raises
    ------
    ConfigurationError
        As `map_job`.
    """
    job = map_job(request)
    run, lineage = record_inputs(job.plan, "map", request=asdict(request), lineage=job.spec.lineage)
    return prepare(replace(job, spec=replace(job.spec, lineage=lineage)), run)


def map_job(request: MapRequest) -> MapJob:
    """Return what a map reads and what it will be, without a run; nothing is written.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, the model does not fit the cubes, or there is no look up to the day asked for.
    """
    plan = windowed(plan_for(request, until=request.until), request.window_days)
    model = open_map_model(plan.root, request.model)
    model.require_bands(plan.bands)
    states = plan.states()
    days = days_read(plan, states)
    lineage = describe_inputs(
        plan, request=asdict(request), weights_sha256=model.reference.weights_sha256, states=states
    )
    spec = MapSpec(
        collection=request.collection,
        title=request.title,
        start=str(days[0]),
        date=request.until or str(days[-1]),
        geobox=plan.product,
        classes=model.classes,
        lineage=lineage,
        area=request.area,
        accuracy=model.metrics,
    )
    return MapJob(plan, spec, f"{model.reference.name}/{model.reference.version}")
