"""What a run would do, and what a warehouse holds: read only, in words and as plain data."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np

from flows.config import ForecastConfig, IngestConfig, MapConfig
from flows.forecast import to_request as to_forecast_request
from flows.ingest import to_request
from storage.cube import read_state
from storage.errors import StorageError
from storage.location import Location, resolve
from storage.manifest import MANIFEST, Run
from storage.regions import region_key
from tasks.earth.forecast_map import plan_forecast
from tasks.earth.grid import read_area
from tasks.earth.ingest import TileJob, plan_job
from tasks.earth.mapping import MapPlan, plan_map
from tasks.earth.plan import DatePlan
from tasks.earth.request import prepare_ingest

_RUNS_SHOWN = 10


def describe_plan(config: IngestConfig) -> dict[str, Any]:
    """Return what an ingest would do for each tile: dates and scenes that are new, skipped or redone, with bytes."""
    prepared = prepare_ingest(to_request(config))
    tiles = [_describe_tile(job, plan_job(job)) for job in prepared.jobs]
    total = sum(tile["bytes"] for tile in tiles)
    lines = [line for tile in tiles for line in tile.pop("lines")]
    lines += [f"rejected  {row.scene}: {row.message}" for row in prepared.rejected]
    lines += [f"note      {note}" for note in prepared.notes]
    lines.append(f"{total / 1e6:.1f} MB to write, uncompressed")
    return {
        "tiles": tiles,
        "bytes": total,
        "rejected": [row.scene for row in prepared.rejected],
        "notes": list(prepared.notes),
        "lines": lines,
    }


def describe_map(config: MapConfig) -> dict[str, Any]:
    """Return which cubes a map would read and which regions it would fill."""
    return _describe_area(
        plan_map(config.warehouse, read_area(config.aoi), crs=config.crs, resolution=config.resolution)
    )


def describe_forecast(config: ForecastConfig) -> dict[str, Any]:
    """Return which cubes a forecast would read, from when it would be made and for which days."""
    plan, asked, _ = plan_forecast(to_forecast_request(config))
    described = _describe_area(plan)
    values = sum(math.prod(layer.leading) for layer in asked.layers)
    size = values * 2 * int(np.prod(plan.product.shape))
    words = asked.in_words()
    lines = [
        f"forecasts {', '.join(words['targets'])} from {words['origin']} with {asked.model}",
        f"quantiles {', '.join(f'{level:g}' for level in asked.quantiles)} of {', '.join(asked.bands + asked.indices)}",
        f"{size / 1e6:.1f} MB to write, uncompressed and without overviews",
    ]
    return {**described, **words, "bytes": size, "lines": described["lines"] + lines}


def _describe_area(plan: MapPlan) -> dict[str, Any]:
    rows, columns = plan.product.shape
    lines = [f"{rows} x {columns} pixels in {plan.product.crs}, {len(plan.regions)} regions"]
    lines += [f"reads     {cube.path} at {cube.snapshot}" for cube in plan.cubes]
    return {
        "shape": [int(rows), int(columns)],
        "crs": str(plan.product.crs),
        "cubes": {cube.path: cube.snapshot for cube in plan.cubes},
        "regions": [region_key(region) for region in plan.regions],
        "lines": lines,
    }


def describe_warehouse(url: str) -> dict[str, Any]:
    """Return the cubes, models, products and last runs of a warehouse."""
    root = resolve(url)
    cubes = [
        _describe_cube(root, grid, tile) for grid in (root / "earth").list_folders() for tile in _tiles(root, grid)
    ]
    models = [f"{name}/{version}" for name in _folders(root, "models") for version in _folders(root, f"models/{name}")]
    products = [
        f"{collection}/{item}"
        for collection in _folders(root, "products")
        for item in _folders(root, f"products/{collection}")
    ]
    runs = [_describe_run(root, name) for name in _last_runs(root)]
    lines = [f"{root}"]
    lines += [f"cube     {cube['path']}  {cube['dates']} dates, {cube['first']} to {cube['last']}" for cube in cubes]
    lines += [f"model    {model}" for model in models]
    lines += [f"product  {product}" for product in products]
    lines += [f"run      {run['run']}  {run['states']}" for run in runs]
    return {"cubes": cubes, "models": models, "products": products, "runs": runs, "lines": lines}


def _describe_tile(job: TileJob, plans: tuple[DatePlan, ...]) -> dict[str, Any]:
    actions = Counter(plan.action for plan in plans)
    per_pixel = 2 * len(job.bands) + 1
    size = sum(per_pixel * _pixels(plan) for plan in plans if plan.action != "skip")
    counts = ", ".join(f"{actions.get(action, 0)} {action}" for action in ("new", "skip", "recompute"))
    lines = [f"{job.tile.path}: {counts} dates, {size / 1e6:.1f} MB"]
    lines += [
        f"  {plan.action:<9} {plan.day} {plan.platform}  {len(plan.scenes)} scene(s)  {plan.why}"
        for plan in plans
        if plan.action != "skip"
    ]
    dates = [
        {
            "day": plan.day,
            "platform": plan.platform,
            "action": plan.action,
            "scenes": [scene.id for scene in plan.scenes],
        }
        for plan in plans
    ]
    return {"tile": job.tile.path, "actions": dict(actions), "bytes": size, "dates": dates, "lines": lines}


def _pixels(plan: DatePlan) -> int:
    top, bottom, left, right = plan.window
    return (bottom - top) * (right - left)


def _folders(root: Location, prefix: str) -> list[str]:
    return [name for name in (root / prefix).list_folders() if not name.startswith(".")]


def _tiles(root: Location, grid: str) -> list[str]:
    return _folders(root, f"earth/{grid}")


def _describe_cube(root: Location, grid: str, tile: str) -> dict[str, Any]:
    path = f"earth/{grid}/{tile}"
    try:
        state = read_state(root / path)
    except StorageError as error:
        return {"path": path, "dates": 0, "first": "-", "last": str(error)}
    days = sorted(str(time)[:10] for time in state.times)
    return {
        "path": path,
        "snapshot": state.snapshot,
        "dates": len(days),
        "first": days[0] if days else "-",
        "last": days[-1] if days else "-",
    }


def _last_runs(root: Location) -> list[str]:
    return sorted(_folders(root, "runs"), key=lambda name: name.split("-", 1)[-1])[-_RUNS_SHOWN:]


def _describe_run(root: Location, name: str) -> dict[str, Any]:
    run = Run(root / "runs" / name, name)
    table = run.read_regions()
    states = table["state"].value_counts().to_dict() if "state" in table else {}
    started = json.loads(run.location.read_bytes(MANIFEST)).get("started", "")
    words = ", ".join(f"{count} {state}" for state, count in states.items()) or "no table: under way, or cut off"
    return {"run": name, "started": started, "states": words}
