"""Profiles scored against true or published ones, with photutils as it comes measured on the same cutouts beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.cutouts import Cutout
from storage.errors import StorageError
from storage.location import Location, resolve
from storage.sky import SkyReader
from tasks.errors import ConfigurationError, SourceError
from tasks.progress import report as report_progress
from tasks.sky.measuring import SOFT, measure, warm_up
from tasks.sky.methods import open_method
from tasks.sky.profile import Profile, unmeasured
from tasks.sky.profile_comparison import ComparisonRule, compare_all, match_names, plain, score
from tasks.sky.profile_table import COLUMNS, from_table
from tasks.sky.reference_profiles import read_references
from tasks.sky.workers import WorkerFailed, pool_of

PHOTUTILS = "photutils"
PROFILES_PARQUET = "profiles.parquet"
REPORT, PICTURE = "evaluation.json", "evaluation.png"
READERS = 4
"""States of a store that are open at once: a batch's rows name one, and lie together."""


def evaluate_product(
    product: str,
    truth: Path,
    *,
    rule: ComparisonRule,
    photutils: bool = True,
    warehouse: str | None = None,
    time_limit_s: float = 60.0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Return the scores of a product's profiles.

    Parameters
    ----------
    product : str
        Folder or Parquet file of profiles.
    truth : Path
        See `tasks.sky.reference_profiles.read_references`.
    rule : ComparisonRule
        What is compared.
    photutils : bool
        Whether the cutouts are measured by photutils as it comes, too.
    warehouse : str, optional
        Where the cutouts lie; by default the warehouse that the product lies in.
    time_limit_s : float
        For one object by photutils.
    out : Path, optional
        Folder for the report and a picture.

    Raises
    ------
    ConfigurationError
        Where product or truth cannot be read, or have no object in common.
    """
    references = read_references(truth)
    profiles = read_profiles(product)
    there = match_names(references, {profile.object_id for profile in profiles})
    if not there:
        some = ", ".join(sorted({reference.object_id for reference in references})[:3])
        raise ConfigurationError(f"{product} has no profile of an object of {truth} ({some}, ...)")
    absent = len(references) - len(there)
    notes = [f"{absent} reference profiles are of objects that the product does not have"] if absent else []
    references = there
    wanted = {reference.object_id for reference in references}
    measured = [profile for profile in profiles if profile.object_id in wanted]
    if photutils and not any(profile.method == PHOTUTILS for profile in measured):
        beside, said = _measure_photutils(measured, product, warehouse, time_limit_s)
        measured, notes = measured + beside, notes + said
    report = score(measured, references, rule=rule)
    report |= {"product": product, "truth": str(truth), "rule": plain(asdict(rule)), "notes": notes}
    if out is not None:
        from tasks.sky.profile_plots import draw_scores

        out.mkdir(parents=True, exist_ok=True)
        (out / PICTURE).write_bytes(draw_scores(compare_all(measured, references, rule=rule), report))
        (out / REPORT).write_text(json.dumps(report, indent=1))
    return report


def read_profiles(product: str) -> list[Profile]:
    """Return the profiles of a Parquet file, or of all Parquet files of the schema below a folder.

    Raises
    ------
    ConfigurationError
        Where there are none.
    """
    path = resolve(product).local_path if "://" in product else Path(product)
    if path is None or not path.exists():
        raise ConfigurationError(f"{product}: no such file or folder")
    whole = path / PROFILES_PARQUET
    files = [whole] if whole.is_file() else sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    names = [column.name for column in COLUMNS]
    found = []
    for file in files:
        table = pq.ParquetFile(file)
        if set(names) <= set(table.schema_arrow.names):
            rows = table.read(columns=names)
            ids = pc.cast(rows["object_id"], pa.string())
            found += from_table(rows.set_column(rows.schema.get_field_index("object_id"), "object_id", ids))
    if not found:
        raise ConfigurationError(f"{product}: no Parquet file of profiles in it")
    return list({(row.object_id, row.band, row.method): row for row in found}.values())


def describe_scores(report: Mapping[str, Any]) -> str:
    """Return the scores as a table of text."""
    lines = []
    for tool, found in report["references"].items():
        lines.append(f"against {tool}, mag")
        lines.append(f"  {'method':<12} {'n':>6} {'lost':>6} {'median RMS':>11} {'p90':>8} {'offset':>8} {'68 %':>6}")
        for method, scores in found["methods"].items():
            numbers = (scores["rms_median"], scores["rms_p90"], scores["offset_median"], scores["coverage68"])
            shown = [("-" if value is None else f"{value:.3f}") for value in numbers]
            lines.append(
                f"  {method:<12} {scores['n']:>6} {scores['lost']:>6.1%} {shown[0]:>11} {shown[1]:>8} {shown[2]:>8} {shown[3]:>6}"
            )
            for part in scores["by_signal"]:
                label = f"S/N {part['from']:g} to {part['to']:g}" if part["to"] else f"S/N above {part['from']:g}"
                lines.append(
                    f"    {label:<18} RMS {part['rms']:.3f}, offset {part['offset']:+.3f}, {part['radii']} radii"
                )
    for pair, found in report["between"].items():
        lines.append(f"between {pair}: median RMS {found['rms_median']:.3f} mag of {found['n']}")
    return "\n".join([*lines, *report.get("notes", ())])


def _measure_photutils(
    measured: Sequence[Profile], product: str, warehouse: str | None, time_limit_s: float
) -> tuple[list[Profile], list[str]]:
    root = resolve(warehouse) if warehouse else _warehouse_of(product)
    if root is None:
        return [], [f"photutils was not measured: {product} lies in no warehouse; name it with --warehouse"]
    method, pool = open_method(PHOTUTILS), pool_of(os.cpu_count() or 1, warm_up)
    wanted = list(dict.fromkeys((row.object_id, row.snapshot) for row in measured if row.snapshot))
    bands = tuple(dict.fromkeys(row.band for row in measured))
    readers_at = lru_cache(maxsize=READERS)(partial(readers_of, root))
    done: list[Profile] = []

    def one(asked: tuple[str, str]) -> tuple[Profile, ...]:
        object_id, snapshot = asked
        cutout = read_cutout(readers_at(snapshot), object_id)
        try:
            if cutout is None:
                raise ConfigurationError(f"no cutout of {object_id} in {root}")
            return pool.call(measure, method, cutout, SOFT * time_limit_s, limit_s=time_limit_s)
        except (SourceError, WorkerFailed, ConfigurationError) as error:
            lost = unmeasured(object_id, bands, state="failed", reason="bug", message=str(error))
            return tuple(replace(row, method=PHOTUTILS) for row in lost)

    try:
        with ThreadPoolExecutor(pool.size) as threads:
            for number, found in enumerate(threads.map(one, wanted), start=1):
                done += found
                report_progress("photutils", str(root), number, len(wanted))
    finally:
        pool.close()
    return done, []


def _warehouse_of(product: str) -> Location | None:
    path = Path(product).resolve()
    return next((resolve(str(parent)) for parent in path.parents if (parent / "sky").is_dir()), None)


def readers_of(root: Location, snapshot: str) -> list[SkyReader]:
    """Return a reader of each store that has a state."""
    found = []
    for survey in (root / "sky").list_folders():
        with suppress(StorageError):
            found.append(SkyReader(root / "sky" / survey, snapshot))
    return found


def read_cutout(readers: Sequence[SkyReader], object_id: str) -> Cutout | None:
    """Return an object's cutout from the first store that has it."""
    return next((reader.read(object_id) for reader in readers if object_id in reader), None)
