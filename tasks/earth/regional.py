"""A product of an area from request to publication: freeze what is read, fill region by region, publish. No Prefect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from storage.cube import CubeState
from storage.location import Location
from storage.manifest import Run, content_hash, start_run
from storage.publish import Receipt, find_product
from storage.regions import Region, region_key
from storage.repository import tag_snapshot
from storage.sweep import STAGING
from tasks.earth.mapping import Filling, MapPlan, fill_region, regions_by_tile
from tasks.earth.product import (
    InputScene,
    Lineage,
    Raster,
    RasterProduct,
    Sources,
    publish_staged,
)
from tasks.earth.staging import create_staging, mark_blank_region, staged_regions_done, write_staged_region
from tasks.errors import NoLooks

Progress = Callable[[str, int, int], None]


class Job(Protocol):
    """What one kind of product asks and answers; small, for it travels to workers."""

    @property
    def plan(self) -> MapPlan:
        """Return cubes at their snapshots, and grids."""
        ...

    @property
    def product(self) -> RasterProduct:
        """Return what is published."""
        ...

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Return the COGs of the product."""
        ...

    def open(self) -> Filling:
        """Load the model, and return what fills a region from the looks at it."""
        ...

    def write(self, folder: Path, sources: Sources) -> dict[str, Any]:
        """Write all assets into a local folder and return the STAC item."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A product, ready to be made.

    Parameters
    ----------
    job : Job
        What is made.
    run : Run
        Holds the manifest.
    present : Receipt or None
        Where the same product is published already.
    """

    job: Job
    run: Run
    present: Receipt | None

    @property
    def root(self) -> Location:
        """Return the warehouse."""
        return self.job.plan.root

    @property
    def staging(self) -> Location:
        """Return where regions are gathered; the same for the same product, so that a rerun goes on."""
        return self.root / STAGING / self.job.product.key.item_id

    def groups(self) -> list[tuple[str, list[Region]]]:
        """Return what is left to fill, by cells of 1024 pixels."""
        return list(regions_by_tile(self.job.plan, staged_regions_done(self.staging)))


def describe_inputs(
    plan: MapPlan, *, request: Mapping[str, Any], weights_sha256: str, states: Mapping[str, CubeState]
) -> Lineage:
    """Return what a product will say of its making, before there is a run; nothing is written.

    Parameters
    ----------
    plan : MapPlan
        Cubes and grids.
    request : mapping
        What shapes the product, in JSON types; where the warehouse lies does not.
    weights_sha256 : str
        Of the model.
    states : mapping of str to CubeState
        From `MapPlan.states`.
    """
    return Lineage(
        inputs=_inputs(states, plan),
        snapshots={cube.path: cube.snapshot for cube in plan.cubes},
        weights_sha256=weights_sha256,
        config_hash=content_hash({name: value for name, value in request.items() if name != "warehouse"}),
        software={"canopus": version("canopus")},
        run_id="",
        created=datetime.now(UTC),
        # a cube that gave nothing does not tell two products apart: it may have come later
        looks={
            path: _looks_digest(state, plan) for path, state in sorted(states.items()) if _records_read(state, plan)
        },
    )


def freeze_inputs(
    plan: MapPlan, kind: str, *, request: Mapping[str, Any], weights_sha256: str, states: Mapping[str, CubeState]
) -> tuple[Run, Lineage]:
    """Write what is read into a run's manifest, and return the run and what the product will say of its making.

    Parameters
    ----------
    plan : MapPlan
        Cubes and grids.
    kind : str
        Of the run.
    request, weights_sha256, states
        As in `describe_inputs`.
    """
    lineage = describe_inputs(plan, request=request, weights_sha256=weights_sha256, states=states)
    return record_inputs(plan, kind, request=request, lineage=lineage)


def record_inputs(plan: MapPlan, kind: str, *, request: Mapping[str, Any], lineage: Lineage) -> tuple[Run, Lineage]:
    """Write what is read into a run's manifest, and return the run and the lineage that names it."""
    manifest = {
        "request": dict(request),
        "config_hash": lineage.config_hash,
        "weights_sha256": lineage.weights_sha256,
        "software": dict(lineage.software),
        "snapshots": dict(lineage.snapshots),
        "looks": dict(lineage.looks),
        "regions": [region_key(region) for region in plan.regions],
    }
    run = start_run(plan.root, kind, manifest)
    return run, replace(lineage, run_id=run.id)


def days_read(plan: MapPlan, states: Mapping[str, CubeState]) -> np.ndarray:
    """Return the days of the looks that are read, datetime64[D].

    Raises
    ------
    NoLooks
        Where there are none.
    """
    days = np.concatenate([state.times.astype("datetime64[D]") for state in states.values()])
    days = days[plan.reads(days)]
    if days.size == 0:
        since = "" if plan.first is None else f" from {plan.first}"
        raise NoLooks(f"no look at the area{since} up to {plan.until}; ingest those dates first")
    return np.unique(days)


def prepare(job: Job, run: Run) -> Prepared:
    """Find the product, or lay out its staging place."""
    present = find_product(job.plan.root, job.product.key)
    prepared = Prepared(job, run, present)
    if present is None:
        create_staging(prepared.staging, job.plan.staging, job.product.layers)
        for region in job.plan.blank_regions:
            mark_blank_region(prepared.staging, region)
    return prepared


def fill_regions(prepared: Prepared, name: str, regions: list[Region], on_progress: Progress | None = None) -> int:
    """Fill some regions and stage them; return how many."""
    job = prepared.job
    fill = job.open()
    for count, region in enumerate(regions, start=1):
        layers = fill_region(job.plan, region, job.product.layers, fill)
        write_staged_region(prepared.staging, region, layers)
        if on_progress is not None:
            on_progress(name, count, len(regions))
    return len(regions)


def publish_prepared(prepared: Prepared, properties: Mapping[str, Any] | None = None) -> Receipt:
    """Publish what is staged, name the snapshots it was made from, and clear the staging place.

    Parameters
    ----------
    prepared : Prepared
        Every region filled.
    properties : mapping, optional
        What the item says beside what the job says, in JSON types.
    """
    job = prepared.job
    receipt = prepared.present or publish_staged(
        prepared.root, job.product, prepared.staging, rasters=job.rasters, write=job.write, properties=properties
    )
    # a product that was there may have been made from an older state of the same looks
    for path, snapshot in receipt.item["properties"]["canopus:snapshots"].items():
        tag_snapshot(prepared.root / path, snapshot, receipt.key.item_id)
    prepared.staging.delete_tree("")
    state = "filled" if receipt.state == "published" else "skipped"
    prepared.run.write_regions({"region": region_key(region), "state": state} for region in job.plan.regions)
    prepared.run.append_log({"event": receipt.state, "item": receipt.item_url})
    return receipt


def _records_read(state: CubeState, plan: MapPlan) -> list[dict[str, Any]]:
    """Return the scene records in force whose date the plan reads."""
    days = state.times.astype("datetime64[D]")
    used = [record for record in state.current_records().values() if record["state"] == "used"]
    return [record for record in used if plan.reads(days[record["entry"]])]


def _inputs(states: Mapping[str, CubeState], plan: MapPlan) -> tuple[InputScene, ...]:
    used = {}
    for state in states.values():
        for record in _records_read(state, plan):
            source = record["source"]
            used[record["scene"]] = source["href"] or next(iter(source["assets"].values()))["href"]
    return tuple(InputScene(scene, href) for scene, href in sorted(used.items()))


_LOOK = ("scene", "signature", "window", "offset_dn", "mask", "resampling")
"""Of a scene's record: what decides its pixels in the cube."""


def _looks_digest(state: CubeState, plan: MapPlan) -> str:
    """Return a digest of what is read of a cube: the same for the same pixels, whenever and in what order they came."""
    rows = [
        [str(state.times[record["entry"]]), *(record.get(name) for name in _LOOK)]
        for record in _records_read(state, plan)
    ]
    rule = state.schema.mask
    return content_hash(
        {
            "bands": state.schema.bands,
            "unmasked": plan.allow_unmasked,
            "mask": [rule.asset, rule.clear, rule.dilation],
            "looks": sorted(rows, key=lambda row: str(row[:2])),
        }
    )
