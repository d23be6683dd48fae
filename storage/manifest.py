"""What a run was asked to do and what became of it: ``runs/<run id>/`` in the warehouse."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from storage.errors import NotFound
from storage.location import Location

MANIFEST = "manifest.json"
REGIONS = "regions.parquet"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Run:
    """One run.

    Parameters
    ----------
    location : Location
        ``<warehouse>/runs/<run id>``.
    id : str
        Kind and time of the start, unique in the warehouse.
    """

    location: Location
    id: str

    def write_regions(self, rows: Iterable[Any]) -> None:
        """Replace the table of regions: one row for each scene and tile, or object, with state and reason."""
        table = pd.DataFrame([row if isinstance(row, Mapping) else asdict(row) for row in rows])
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        self.location.write_bytes(REGIONS, buffer.getvalue())

    def read_regions(self) -> pd.DataFrame:
        """Return the table of regions; empty where the run was killed before it wrote one."""
        try:
            return pd.read_parquet(io.BytesIO(self.location.read_bytes(REGIONS)))
        except NotFound:
            return pd.DataFrame()

    def read_manifest(self) -> dict[str, Any]:
        """Return the inputs as they were frozen at the start."""
        manifest: dict[str, Any] = json.loads(self.location.read_bytes(MANIFEST))
        return manifest

    def append_log(self, *events: Mapping[str, Any]) -> None:
        """Add lines to ``log.jsonl``, each with the time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            before = self.location.read_bytes(LOG)
        except NotFound:
            before = b""
        lines = "".join(json.dumps({"time": now, "run": self.id, **event}, default=str) + "\n" for event in events)
        self.location.write_bytes(LOG, before + lines.encode())


def start_run(warehouse: Location, kind: str, manifest: Mapping[str, Any]) -> Run:
    """Freeze a run's inputs: write its manifest before any work starts.

    Parameters
    ----------
    warehouse : Location
        Root.
    kind : str
        Such as ``ingest`` or ``map``; the first part of the run's id.
    manifest : mapping
        Inputs: scenes, regions, configuration and its hash, versions. Nothing secret.
    """
    begun = datetime.now(UTC)
    digest = hashlib.sha256(f"{begun.isoformat()}{json.dumps(manifest, sort_keys=True, default=str)}".encode())
    run_id = f"{kind}-{begun:%Y%m%dT%H%M%S}-{digest.hexdigest()[:6]}"
    content = {"run": run_id, "kind": kind, "started": begun.isoformat(timespec="seconds"), **manifest}
    run = Run(warehouse / "runs" / run_id, run_id)
    run.location.write_bytes(MANIFEST, json.dumps(content, indent=1, sort_keys=True, default=str).encode())
    return run


def find_run(warehouse: Location, run_id: str, *, kind: str | tuple[str, ...] = ()) -> Run:
    """Return a run by its id, or by the start of it where only one fits; ``latest`` names the newest of a kind.

    Parameters
    ----------
    warehouse : Location
        Root.
    run_id : str
        Id, start of an id, or ``latest``.
    kind : str or tuple of str
        Such as ``ingest``: the only kinds of runs that are looked at. By default all.

    Raises
    ------
    NotFound
        Where none or several fit; the message lists what there is.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    starts = tuple(f"{each}-" for each in kinds) or ("",)
    known = [name for name in list_runs(warehouse) if name.startswith(starts)]
    fitting = known[-1:] if run_id == "latest" else [name for name in known if name == run_id]
    fitting = fitting or [name for name in known if name.startswith(run_id)]
    if len(fitting) != 1:
        what = "no run" if not fitting else f"{len(fitting)} runs"
        shown = ", ".join(known[-8:]) or "none"
        raise NotFound(f"{warehouse}: {what} named {run_id!r}; the last ones are {shown}")
    return Run(warehouse / "runs" / fitting[0], fitting[0])


def list_runs(warehouse: Location) -> list[str]:
    """Return the ids of all runs, the newest last."""
    return sorted((warehouse / "runs").list_folders(), key=_start_of)


def _start_of(run_id: str) -> list[str]:
    # a kind may hold dashes; time and digest come last
    return run_id.rsplit("-", 2)[1:]


def content_hash(content: Any) -> str:
    """Return the SHA-256 of plain data as hexadecimal, the same for the same content whatever the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
