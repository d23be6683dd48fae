"""The end of a bulk extraction: the run's table, counts, medians, index page, product."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.location import resolve
from storage.manifest import REGIONS, Run
from storage.publish import Receipt
from tasks.sky.extraction_plan import ObjectRow, Prepared, count_states, read_objects, write_table
from tasks.sky.publish import publish_profiles
from tasks.sky.qa_pages import INDEX, PAGES, write_index_page


@dataclass(frozen=True)
class Extracted:
    """How a bulk extraction ended.

    Parameters
    ----------
    run : Run
        Where it lies.
    counts : dict of str to int
        Objects per state.
    reasons : dict of str to int
        Objects per ``state: reason`` of those that were not measured.
    medians : dict of str to dict
        By band, of what was measured.
    rows : tuple of ObjectRow
        One for each object, in the order of the list.
    products : tuple of str
        URLs of what was published.
    failures : tuple of str
        One line for each object that failed or was rejected, and each row of the list that is no target.
    notes : tuple of str
        What the user should know.
    details : dict
        More, for the command line.
    pictures : tuple of str
        URLs of the batches' galleries.
    """

    run: Run
    counts: dict[str, int]
    reasons: dict[str, int]
    medians: dict[str, dict[str, float]]
    rows: tuple[ObjectRow, ...] = field(repr=False)
    products: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


def finish_extraction(prepared: Prepared) -> Extracted:
    """Write the table and the index page of a run whose batches are done, and publish its profiles."""
    run, request = prepared.run, prepared.request
    rows = list(read_rows(prepared))
    write_table(run.location, REGIONS, pa.Table.from_pylist([asdict(row) for row in rows]))
    counts = count_states(rows)
    reasons = Counter(f"{row.state}: {row.reason}" for row in rows if row.state != "measured")
    pages = {}
    if request.pages:
        write_index_page(run, rows, title=request.title, notes=prepared.notes)
        pages = {"pages": f"{run.location / PAGES / INDEX}"}
    lost = [row for row in rows if row.state in ("failed", "rejected")]
    failures = [f"{row.object_id} [{row.reason}] {row.message}" for row in lost]
    failures += [f"target list [invalid-input] {row}" for row in prepared.bad_rows]
    receipt = _publish(prepared)
    run.append_log({"event": "finished", "counts": counts, "reasons": dict(reasons), "product": receipt.item_url})
    return Extracted(
        run,
        counts,
        dict(reasons),
        _medians(receipt),
        tuple(rows),
        products=(receipt.item_url,),
        failures=tuple(failures),
        notes=prepared.notes,
        details={"product": receipt.item_url, **pages},
        pictures=tuple(_galleries(run)),
    )


def _publish(prepared: Prepared) -> Receipt:
    run, request, manifest = prepared.run, prepared.request, prepared.run.read_manifest()
    facts = {
        "created": manifest["started"],
        "run_id": run.id,
        "config_hash": manifest["config_hash"],
        "software": manifest["software"],
        "inputs": [{"title": "run", "href": f"{run.location}"}],
        "snapshots": _snapshots(prepared),
        "description": f"{request.source}, {request.method}, {request.geometry} geometry; targets {request.targets}",
    }
    return publish_profiles(
        resolve(request.warehouse),
        [run.location / f"profiles/{index:05d}.parquet" for index in range(prepared.batches)],
        collection=request.collection,
        title=request.title,
        integer_ids=manifest["integer_ids"],
        facts=facts,
    )


def read_rows(prepared: Prepared) -> Iterator[ObjectRow]:
    """Yield the row of each object, in the order of the list."""
    for index in range(prepared.batches):
        rows = read_objects(prepared.run, index)
        assert rows is not None, f"batch {index} is not finished"
        yield from rows


def _snapshots(prepared: Prepared) -> dict[str, str]:
    """Return the newest state of the store that was read: it holds what all batches read."""
    for index in reversed(range(prepared.batches)):
        data = prepared.run.location.read_bytes(f"profiles/{index:05d}.parquet")
        read = [name for name in pq.read_table(io.BytesIO(data), columns=["snapshot"])["snapshot"].to_pylist() if name]
        if read:
            return {f"sky/{prepared.request.open_source().name}": read[-1]}
    return {}


def _medians(receipt: Receipt) -> dict[str, dict[str, float]]:
    summary = receipt.item["properties"]["canopus:summary"]["medians"]
    return {band: {name: each["median"] for name, each in found.items()} for band, found in summary.items()}


def _galleries(run: Run) -> Iterator[str]:
    for name in run.location.list_names(f"{PAGES}/"):
        if name.endswith(".gallery.png"):
            yield f"{run.location / name}"
