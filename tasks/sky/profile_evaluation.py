"""Profiles scored against true or published ones, with photutils as it comes measured on the same cutouts beside them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.cutouts import Cutout
from storage.errors import StorageError
from storage.location import Location, resolve
from storage.sky import SkyReader
from tasks.errors import ConfigurationError, SourceError
from tasks.progress import report as report_progress
from tasks.sky.extraction import SOFT, measure, warm_up
from tasks.sky.methods import open_method
from tasks.sky.photometry import POGSON
from tasks.sky.profile import Profile, unmeasured
from tasks.sky.profile_table import COLUMNS, from_table
from tasks.sky.reference_profiles import Reference, read_references
from tasks.sky.workers import WorkerFailed, pool_of

RADII = 40
"""Log-spaced radii at which two profiles are compared."""
SIGNAL_BINS = (3.0, 5.0, 10.0, 30.0, 100.0, math.inf)
PHOTUTILS = "photutils"
PROFILES_PARQUET = "profiles.parquet"
REPORT, PICTURE = "evaluation.json", "evaluation.png"
READERS = 4
"""States of a store that are open at once: a batch's rows name one, and lie together."""
_FEWEST = 3


@dataclass(frozen=True)
class ComparisonRule:
    """Over which radii profiles are compared: those that both have, and

    Parameters
    ----------
    first_arcsec, last_arcsec : float
        Within these.
    signal : float
        Where both have at least this signal to noise; a reference without errors everywhere.
    """

    first_arcsec: float = 0.0
    last_arcsec: float = math.inf
    signal: float = 3.0


@dataclass(frozen=True)
class Comparison:
    """One profile beside its reference.

    Parameters
    ----------
    radius_arcsec, difference : ndarray, shape (RADII,)
        Where; measured minus reference, mag.
    signal : ndarray, shape (RADII,)
        Intensity by its error, as measured; NaN where no error is stated.
    sigma : ndarray, shape (RADII,)
        Error of the difference as both state theirs, mag; NaN where one states none.
    """

    object_id: str
    band: str
    radius_arcsec: NDArray[np.float64]
    difference: NDArray[np.float64]
    signal: NDArray[np.float64]
    sigma: NDArray[np.float64]

    @property
    def rms(self) -> float:
        """Return the root of the mean square difference, mag."""
        return float(np.sqrt(np.mean(self.difference**2)))

    @property
    def offset(self) -> float:
        """Return the median difference, mag."""
        return float(np.median(self.difference))


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
    report |= {"product": product, "truth": str(truth), "rule": _plain(asdict(rule)), "notes": notes}
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


def match_names(references: Sequence[Reference], known: set[str]) -> tuple[Reference, ...]:
    """Return those references whose object is known, under its known name.

    Where a file's name goes on (``NAME_img_ivar``), or the object's does (``NAME_2000``), the one that begins alike is meant,
    if there is but one.
    """
    found = []
    for reference in references:
        name = reference.object_id
        alike = [each for each in known if each.startswith(f"{name}_") or name.startswith(f"{each}_")]
        matching = [name] if name in known else alike
        if len(matching) == 1:
            found.append(replace(reference, object_id=matching[0]))
    return tuple(found)


def compare(profile: Profile, reference: Reference, *, rule: ComparisonRule) -> Comparison | None:
    """Return a profile beside its reference, interpolated in the logarithm of the radius; None without common radii.

    A profile that states no errors at all is compared to its end.
    """
    good, signal = np.isfinite(profile.mu), np.full(profile.mu.size, np.nan)
    if np.isfinite(profile.intensity_error).any():
        good &= np.isfinite(profile.intensity_error) & (profile.intensity_error > 0)
        signal = np.where(good, profile.intensity / np.where(good, profile.intensity_error, 1.0), 0.0)
        good &= _until_last(signal >= rule.signal)
    known = _until_last(reference.mu_error <= POGSON / rule.signal)
    if good.sum() < _FEWEST or known.sum() < _FEWEST:
        return None
    radius, theirs = profile.radius_arcsec[good], reference.radius_arcsec[known]
    first = max(radius[0], theirs[0], rule.first_arcsec)
    last = min(radius[-1], theirs[-1], rule.last_arcsec)
    if not first < last:
        return None
    at = np.geomspace(first, last, RADII)
    mine = [np.interp(np.log(at), np.log(radius), values[good]) for values in (profile.mu, profile.mu_error, signal)]
    other = [np.interp(np.log(at), np.log(theirs), values[known]) for values in (reference.mu, reference.mu_error)]
    sigma = np.hypot(mine[1], other[1])
    return Comparison(profile.object_id, profile.band, at, mine[0] - other[0], mine[2], sigma)


def compare_all(
    profiles: Iterable[Profile], references: Sequence[Reference], *, rule: ComparisonRule
) -> dict[str, dict[str, list[Comparison | None]]]:
    """Return, by the references' tool and then by method, a comparison for each reference; None where it is lost."""
    methods: dict[str, dict[tuple[str, str], Profile]] = {}
    for profile in profiles:
        if profile.method:
            methods.setdefault(profile.method, {})[profile.object_id, profile.band] = profile
    return {
        tool: {
            method: [_compared(found, reference, rule) for reference in references if reference.tool == tool]
            for method, found in methods.items()
        }
        for tool in dict.fromkeys(reference.tool for reference in references)
    }


def _compared(
    found: Mapping[tuple[str, str], Profile], reference: Reference, rule: ComparisonRule
) -> Comparison | None:
    profile = found.get((reference.object_id, reference.band))
    return compare(profile, reference, rule=rule) if profile is not None and profile.state == "measured" else None


def score(profiles: Iterable[Profile], references: Sequence[Reference], *, rule: ComparisonRule) -> dict[str, Any]:
    """Return scores as plain data.

    ``methods`` are those against the first tool of the references; ``references`` has each tool, and ``between`` the
    tools' own differences from each other.
    """
    compared = compare_all(profiles, references, rule=rule)
    scores = {tool: {method: _score(found) for method, found in by.items()} for tool, by in compared.items()}
    galaxies = {
        tool: {
            method: {f"{one.object_id} {one.band}": {"rms": one.rms, "offset": one.offset} for one in found if one}
            for method, found in by.items()
        }
        for tool, by in compared.items()
    }
    first = next(iter(scores))
    return _plain(
        {
            "methods": scores[first],
            "references": {tool: {"methods": found} for tool, found in scores.items()},
            "between": _between(references, rule),
            "galaxies": galaxies,
        }
    )


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


def _score(found: Sequence[Comparison | None]) -> dict[str, Any]:
    there = [one for one in found if one is not None]
    scores: dict[str, Any] = {"n": len(found), "lost": 1 - len(there) / len(found)}
    rms = np.array([one.rms for one in there])
    stated = [one for one in there if np.isfinite(one.sigma).all()]
    inside = np.concatenate([np.abs(one.difference) <= one.sigma for one in stated]) if stated else np.empty(0)
    scores |= {
        "rms_median": float(np.median(rms)) if there else None,
        "rms_p90": float(np.percentile(rms, 90)) if there else None,
        "offset_median": float(np.median([one.offset for one in there])) if there else None,
        "coverage68": float(inside.mean()) if stated else None,
        "by_signal": list(_by_signal(there)),
    }
    return scores


def _by_signal(there: Sequence[Comparison]) -> Iterable[dict[str, Any]]:
    if not there:
        return
    signal, difference, sigma = (
        np.concatenate([getattr(one, name) for one in there]) for name in ("signal", "difference", "sigma")
    )
    for low, high in pairwise(SIGNAL_BINS):
        inside = (signal >= low) & (signal < high)
        if inside.any():
            part = difference[inside]
            yield {
                "from": low,
                "to": high if math.isfinite(high) else None,
                "radii": int(inside.sum()),
                "rms": float(np.sqrt(np.mean(part**2))),
                "offset": float(np.median(part)),
                "coverage68": float((np.abs(part) <= sigma[inside]).mean()),
            }


def _between(references: Sequence[Reference], rule: ComparisonRule) -> dict[str, Any]:
    """Return how far the references of two tools lie from each other, as if one were the measured one."""
    tools = list(dict.fromkeys(reference.tool for reference in references))
    found: dict[str, Any] = {}
    for index, one in enumerate(tools):
        for other in tools[index + 1 :]:
            theirs = {(each.object_id, each.band): each for each in references if each.tool == other}
            pairs = [(each, theirs.get((each.object_id, each.band))) for each in references if each.tool == one]
            compared = [compare(_as_profile(each), match, rule=rule) for each, match in pairs if match is not None]
            there = [comparison for comparison in compared if comparison is not None]
            if there:
                found[f"{one} and {other}"] = {
                    "n": len(there),
                    "rms_median": float(np.median([comparison.rms for comparison in there])),
                    "galaxies": {f"{comparison.object_id} {comparison.band}": comparison.rms for comparison in there},
                }
    return found


def _as_profile(reference: Reference) -> Profile:
    intensity = 10 ** (-0.4 * reference.mu)
    error = np.maximum(reference.mu_error, 1e-6)
    return Profile(
        reference.object_id,
        reference.band,
        radius_arcsec=reference.radius_arcsec,
        intensity=intensity,
        intensity_error=intensity * error / POGSON,
        mu=reference.mu,
        mu_error=error,
    )


def _until_last(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is good up to the first two that are not: single dips are forgiven, what comes after is not counted."""
    bad = ~good
    both = np.flatnonzero(bad[:-1] & bad[1:])
    end = both[0] if both.size else good.size
    return good & (np.arange(good.size) < end)


def _measure_photutils(
    measured: Sequence[Profile], product: str, warehouse: str | None, time_limit_s: float
) -> tuple[list[Profile], list[str]]:
    root = resolve(warehouse) if warehouse else _warehouse_of(product)
    if root is None:
        return [], [f"photutils was not measured: {product} lies in no warehouse; name it with --warehouse"]
    method, pool = open_method(PHOTUTILS), pool_of(os.cpu_count() or 1, warm_up)
    wanted = list(dict.fromkeys((row.object_id, row.snapshot) for row in measured if row.snapshot))
    bands = tuple(dict.fromkeys(row.band for row in measured))
    readers_at = lru_cache(maxsize=READERS)(partial(_readers, root))
    done: list[Profile] = []

    def one(asked: tuple[str, str]) -> tuple[Profile, ...]:
        object_id, snapshot = asked
        cutout = _read(readers_at(snapshot), object_id)
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


def _readers(root: Location, snapshot: str) -> list[SkyReader]:
    """Return a reader of each store that has a state."""
    found = []
    for survey in (root / "sky").list_folders():
        with suppress(StorageError):
            found.append(SkyReader(root / "sky" / survey, snapshot))
    return found


def _read(readers: Sequence[SkyReader], object_id: str) -> Cutout | None:
    return next((reader.read(object_id) for reader in readers if object_id in reader), None)


def _plain(value: Any) -> Any:
    """Return plain data without infinities and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
