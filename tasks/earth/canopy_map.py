"""A map from request to product: freeze what is read, classify region by region, publish. No Prefect here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from storage.cube import CubeState, tag_snapshot
from storage.location import Location, resolve
from storage.manifest import Run, content_hash, start_run
from storage.publish import Receipt
from storage.regions import Region, region_key
from tasks.earth.classifier_files import LoadedClassifier, load_classifier
from tasks.earth.mapping import MapPlan, map_region, plan_map, regions_by_tile
from tasks.earth.product import (
    InputScene,
    Lineage,
    MapSpec,
    create_staging,
    find_map,
    publish_map,
    staged_regions_done,
    write_staged_region,
)
from tasks.errors import ConfigurationError

STAGING = "staging"

Progress = Callable[[str, int, int], None]


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

    @property
    def config_hash(self) -> str:
        """Return the hash of what shapes the map; where the warehouse lies does not."""
        return content_hash({name: value for name, value in asdict(self).items() if name != "warehouse"})


@dataclass(frozen=True)
class PreparedMap:
    """A map, ready to be made.

    Parameters
    ----------
    request : MapRequest
        As asked.
    plan : MapPlan
        Cubes at their snapshots, and grids.
    spec : MapSpec
        What the product will say of itself.
    present : Receipt or None
        Where the same map is published already.
    """

    request: MapRequest
    plan: MapPlan
    spec: MapSpec
    run: Run
    present: Receipt | None

    @property
    def staging(self) -> Location:
        """Return where regions are gathered; the same for the same product, so that a rerun goes on."""
        return resolve(self.request.warehouse) / STAGING / self.spec.key.item_id

    def groups(self) -> list[tuple[str, list[Region]]]:
        """Return what is left to map, by cells of 1024 pixels."""
        return list(regions_by_tile(self.plan, staged_regions_done(self.staging)))


def prepare_map(request: MapRequest) -> PreparedMap:
    """Freeze the inputs of a map in a run's manifest, and lay out its staging place.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, the model does not fit the cubes, or there is no look up to the day asked for.
    """
    until = np.datetime64(request.until, "D") if request.until else None
    plan = plan_map(
        request.warehouse,
        request.area,
        crs=request.crs,
        resolution=request.resolution,
        until=until,
        allow_unmasked=request.allow_unmasked,
    )
    model = load_classifier(plan.root, request.model)
    _require_bands(model, plan)
    states = plan.states()
    manifest = {
        "request": asdict(request),
        "config_hash": request.config_hash,
        "weights_sha256": model.weights_sha256,
        "software": {"canopus": version("canopus")},
        "snapshots": {cube.path: cube.snapshot for cube in plan.cubes},
        "regions": [region_key(region) for region in plan.regions],
    }
    run = start_run(plan.root, "map", manifest)
    spec = _spec(request, plan, model, states, run)
    present = find_map(plan.root, spec)
    prepared = PreparedMap(request, plan, spec, run, present)
    if present is None:
        create_staging(prepared.staging, plan.staging, spec.classes)
    return prepared


def map_regions(prepared: PreparedMap, name: str, regions: list[Region], on_progress: Progress | None = None) -> int:
    """Classify some regions and stage them; return how many."""
    model = load_classifier(prepared.plan.root, prepared.request.model)
    for count, region in enumerate(regions, start=1):
        layers = map_region(prepared.plan, model.classifier, prepared.spec.classes, region)
        write_staged_region(prepared.staging, region, layers)
        if on_progress is not None:
            on_progress(name, count, len(regions))
    return len(regions)


def publish_prepared(prepared: PreparedMap) -> Receipt:
    """Publish what is staged, name the snapshots it was made from, and clear the staging place."""
    root = prepared.plan.root
    receipt = prepared.present or publish_map(root, prepared.spec, prepared.staging)
    for cube in prepared.plan.cubes:
        tag_snapshot(root / cube.path, cube.snapshot, receipt.key.item_id)
    prepared.staging.delete_tree("")
    return receipt


def _require_bands(model: LoadedClassifier, plan: MapPlan) -> None:
    if tuple(model.classifier.bands) != tuple(plan.bands):
        raise ConfigurationError(
            f"the model was trained on {', '.join(model.classifier.bands)}, the cubes hold {', '.join(plan.bands)}; "
            "train one on these cubes"
        )


def _spec(
    request: MapRequest, plan: MapPlan, model: LoadedClassifier, states: dict[str, CubeState], run: Run
) -> MapSpec:
    days = np.concatenate([_days(state, plan.until) for state in states.values()])
    if days.size == 0:
        raise ConfigurationError(f"no look at the area up to {request.until}; ingest earlier dates first")
    lineage = Lineage(
        inputs=_inputs(states, plan.until),
        snapshots={cube.path: cube.snapshot for cube in plan.cubes},
        weights_sha256=model.weights_sha256,
        config_hash=request.config_hash,
        software={"canopus": version("canopus")},
        run_id=run.id,
        created=datetime.now(UTC),
    )
    return MapSpec(
        collection=request.collection,
        title=request.title,
        start=str(days.min()),
        date=request.until or str(days.max()),
        geobox=plan.product,
        classes=model.classes,
        lineage=lineage,
        area=request.area,
        accuracy=model.metrics,
    )


def _days(state: CubeState, until: np.datetime64 | None) -> np.ndarray:
    days = state.times.astype("datetime64[D]")
    return days if until is None else days[days <= until]


def _inputs(states: dict[str, CubeState], until: np.datetime64 | None) -> tuple[InputScene, ...]:
    used = {}
    for state in states.values():
        for record in state.current_records().values():
            if record["state"] == "used" and (until is None or np.datetime64(record["solar_day"]) <= until):
                source = record["source"]
                used[record["scene"]] = source["href"] or next(iter(source["assets"].values()))["href"]
    return tuple(InputScene(scene, href) for scene, href in sorted(used.items()))
