"""What a run would do, and what a warehouse holds: read only, in words and as plain data."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flows.backfill import days_of
from flows.change import to_request as to_change_request
from flows.config import BackfillConfig, ChangeConfig, ForecastConfig, IngestConfig, MapConfig, PipelineConfig
from flows.forecast import to_request as to_forecast_request
from flows.infer import to_request as to_map_request
from flows.ingest import to_request
from flows.plan_sky import describe_profiles, describe_stores, profiles_in_words, store_in_words
from storage.cube import read_state
from storage.errors import StorageError
from storage.location import Location, resolve
from storage.manifest import Run, list_runs
from storage.regions import region_key
from storage.sweep import abandoned, cubes_of, limit_of, stores_of, sweep_cube
from tasks.earth.backfill import plan_backfill
from tasks.earth.change_map import plan_change
from tasks.earth.forecast_map import plan_forecast
from tasks.earth.grid import read_area
from tasks.earth.ingest import TileJob, plan_job
from tasks.earth.mapping import MapPlan, plan_map
from tasks.earth.plan import DatePlan
from tasks.earth.request import prepare_ingest
from tasks.errors import ConfigurationError, UsageError

_RUNS_SHOWN = 10


def describe_plan(config: IngestConfig) -> dict[str, Any]:
    """Return what an ingest would do for each tile: dates and scenes that are new, skipped or redone, with bytes."""
    prepared = prepare_ingest(to_request(config))
    tiles = [_describe_tile(job, _asked_for(job, plan_job(job))) for job in prepared.jobs]
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


def describe_backfill(config: BackfillConfig) -> dict[str, Any]:
    """Return which maps of a period are published and which are missing."""
    days = plan_backfill(to_map_request(config.map), days_of(config))
    counts = Counter(day.state for day in days)
    lines = [f"{day.day}  {day.state:<9}  {day.item or day.note}" for day in days]
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
    return {"days": [asdict(day) for day in days], "counts": dict(counts), "lines": lines}


def describe_change(config: ChangeConfig) -> dict[str, Any]:
    """Return which maps and cubes change would be found in."""
    plan, maps = plan_change(to_change_request(config))
    described = _describe_area(plan)
    lines = [f"map       {found.date}  {found.item_id}, looks from {found.start}" for found in maps]
    return {**described, "maps": [found.item_id for found in maps], "lines": described["lines"] + lines}


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


def describe_pipeline(config: PipelineConfig) -> dict[str, Any]:
    """Return what the main job would do: the ingest's plan, what is trained, and what is mapped as far as it is known."""
    steps: dict[str, Any] = {}
    lines = []
    settings = config.simulate
    if settings is not None and not Path(settings.folder, "catalog.json").is_file():
        steps["simulate"] = settings.folder
        lines.append(
            f"simulate  {settings.folder}: {settings.size_km:g} km, {settings.years:g} years; then ingest all of it"
        )
    else:
        steps["ingest"] = describe_plan(config.ingest)
        lines += steps["ingest"].pop("lines")
    if config.train is not None:
        steps["train"] = config.train.name
        learned = config.train.labels.path if config.train.labels else "generated places"
        lines.append(f"train     {config.train.name} on {learned}")
    try:
        steps["map"] = describe_map(config.map)
        lines += [f"map       {line}" for line in steps["map"].pop("lines")]
    except ConfigurationError:
        steps["map"] = {"cubes": {}}
        lines.append("map       what the ingest brings in; no cube stands yet")
    lines.append(f"publish   {resolve(config.map.warehouse) / 'products' / config.map.collection}")
    return {**steps, "lines": lines}


def sweep(url: str, *, days: float, delete: bool, cache: str | None = None) -> dict[str, Any]:
    """Return what nothing refers to any more and is older than some days, having deleted it if asked to.

    With the folder of a cache, also the services' answers that were not asked for in that time.

    Raises
    ------
    UsageError
        Where the limit is so short, on an object store, that a writer at work could lose what it has not committed.
    """
    root = resolve(url)
    if days < 0 or (root.local_path is None and days < 1):
        raise UsageError(f"--older-than {days:g}: at least 1 day on an object store, since others may be writing")
    limit = limit_of(days)
    cubes = [sweep_cube(root, path, limit, delete=delete) for path in stores_of(root)]
    folders = sorted(abandoned(root, limit))
    for folder in folders if delete else ():
        root.delete_tree(folder)
    verb = "deleted" if delete else "would go"
    lines = [
        f"{cube.path}: {cube.states} old states {verb}, the newest and {len(cube.kept)} named by products stay"
        for cube in cubes
    ]
    lines += [f"{folder}: left behind by a killed run, {verb}" for folder in folders]
    if delete:
        lines.append(f"{sum(cube.bytes for cube in cubes) / 1e6:.1f} MB of cubes freed")
    found = {"deleted": delete, "cubes": [asdict(cube) for cube in cubes], "folders": folders, "lines": lines}
    if cache is not None:
        from tasks.sky.answers import prune_answers

        pruned = prune_answers(Path(cache).expanduser(), limit, delete=delete)
        lines.append(f"{pruned.folder}: {pruned.answers:,} answers of {pruned.bytes / 1e6:,.1f} MB {verb}")
        found["cache"] = asdict(pruned)
    return found


def describe_warehouse(url: str) -> dict[str, Any]:
    """Return the cubes, sky stores, models, products and last runs of a warehouse, the newest run first."""
    root = resolve(url)
    cubes = [_describe_cube(root, path) for path in cubes_of(root)]
    models = [f"{name}/{version}" for name in _folders(root, "models") for version in _folders(root, f"models/{name}")]
    products = [
        f"{collection}/{item}"
        for collection in _folders(root, "products")
        for item in _folders(root, f"products/{collection}")
    ]
    stores, profiles = describe_stores(root), describe_profiles(root, products)
    runs = [_describe_run(root, name) for name in reversed(list_runs(root)[-_RUNS_SHOWN:])]
    lines = [f"{root}"]
    lines += [f"cube     {cube['path']}  {cube['dates']} dates, {cube['first']} to {cube['last']}" for cube in cubes]
    lines += [f"sky      {store['path']}  {store_in_words(store)}" for store in stores]
    lines += [f"model    {model}" for model in models]
    said = {found["product"]: f"  {profiles_in_words(found)}" for found in profiles}
    lines += [f"product  {product}{said.get(product, '')}" for product in products]
    lines += [f"run      {run['run']}  {run['states']}" for run in runs]
    return {
        "cubes": cubes,
        "sky": stores,
        "models": models,
        "products": products,
        "profiles": profiles,
        "runs": runs,
        "lines": lines,
    }


def _asked_for(job: TileJob, plans: tuple[DatePlan, ...]) -> tuple[DatePlan, ...]:
    """Leave out dates that stand in the cube and that the search did not ask about."""
    offered = {scene.id for scene in job.scenes}
    return tuple(
        plan
        for plan in plans
        if plan.action != "skip" or offered & {*(scene.id for scene in plan.scenes), *plan.superseded}
    )


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


def _describe_cube(root: Location, path: str) -> dict[str, Any]:
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


def _describe_run(root: Location, name: str) -> dict[str, Any]:
    run = Run(root / "runs" / name, name)
    try:
        started = run.read_manifest().get("started", "")
    except (StorageError, ValueError):
        return {"run": name, "started": "", "counts": {}, "states": "no manifest: cut off before it began"}
    table = run.read_regions()
    counts = table["state"].value_counts().to_dict() if "state" in table else {}
    words = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no table: under way, or cut off"
    return {"run": name, "started": started, "counts": counts, "states": words}
