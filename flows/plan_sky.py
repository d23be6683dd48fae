"""What a run of the sky would do: read only, in words and as plain data."""

from __future__ import annotations

from typing import Any

from flows.config_sky import ProfilesConfig
from flows.profiles import to_request
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
