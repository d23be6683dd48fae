"""What a run of the sky would do: read only, in words and as plain data."""

from __future__ import annotations

import json
from typing import Any

from flows.config_sky import ProfilesConfig
from flows.profiles import to_request
from storage.errors import NotFound, StorageError
from storage.location import Location
from storage.sky import read_sky_state
from tasks.sky.extraction_plan import plan_extraction

_SHOWN = 20


def describe_extraction(config: ProfilesConfig) -> dict[str, Any]:
    """Return what an extraction of profiles would do: targets, batches, what is in the store, the run that goes on."""
    request = to_request(config)
    plan = plan_extraction(request)
    found = plan.targets
    lines = [
        f"{len(found.targets):,} targets of {found.rows:,} rows, in {plan.batches:,} batches",
        f"{plan.held:,} in the sky store already, {plan.bytes / 1e6:,.1f} MB to fetch, uncompressed",
    ]
    lines += [f"merged    {', '.join(merged.names)}" for merged in found.merged[:_SHOWN]]
    lines += [f"bad       row {row.row}: {row.reason}" for row in found.bad_rows[:_SHOWN]]
    if plan.run is not None:
        lines.append(f"goes on   {plan.run.id}, {plan.finished:,} batches finished")
    return {
        "targets": len(found.targets),
        "rows": found.rows,
        "merged": len(found.merged),
        "bad_rows": [{"row": row.row, "reason": row.reason} for row in found.bad_rows],
        "batches": plan.batches,
        "held": plan.held,
        "bytes": plan.bytes,
        "run": plan.run.id if plan.run else None,
        "finished": plan.finished,
        "lines": lines,
    }


def describe_stores(root: Location) -> list[dict[str, Any]]:
    """Return the sky stores of a warehouse: survey, objects, size, last batch."""
    return [_describe_store(root, survey) for survey in (root / "sky").list_folders()]


def describe_profiles(root: Location, products: list[str]) -> list[dict[str, Any]]:
    """Return those of some products that are profiles, with the number of objects and rows and what became of them."""
    described = []
    for product in products:
        folder = root / "products" / product
        try:
            summary = json.loads(folder.read_bytes("summary.json"))
        except (NotFound, ValueError):
            continue
        if folder.exists("profiles.parquet"):
            described.append({"product": product, **{name: summary[name] for name in ("objects", "rows", "states")}})
    return described


def store_in_words(store: dict[str, Any]) -> str:
    """Return what there is to say of a store in a line."""
    if "error" in store:
        return str(store["error"])
    size = f"{store['bytes'] / 1e6:,.1f} MB of planes, uncompressed"
    return f"{store['objects']:,} objects, {size}; last batch {store['last_batch'] or 'none'}, {store['written'][:16]}"


def profiles_in_words(found: dict[str, Any]) -> str:
    """Return what there is to say of a product of profiles in a line."""
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items() if count)
    return f"{found['objects']:,} objects, rows: {states}"


def _describe_store(root: Location, survey: str) -> dict[str, Any]:
    path = f"sky/{survey}"
    try:
        state = read_sky_state(root / path)
    except StorageError as error:
        return {"path": path, "survey": survey, "objects": 0, "bytes": 0, "last_batch": "", "error": str(error)}
    return {
        "path": path,
        "survey": survey,
        "snapshot": state.snapshot,
        "objects": state.objects,
        "bytes": state.bytes,
        "last_batch": state.last_batch,
        "written": state.written.isoformat(timespec="seconds"),
    }
