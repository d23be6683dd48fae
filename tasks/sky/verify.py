"""Check published profiles: every file readable, the same rows in each, the summary true."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.publish import Finding
from tasks.sky.hats_catalogue import has_position
from tasks.sky.profile_rows import NARROW
from tasks.sky.publish import HATS, SUMMARY, summarise_profiles


def check_profiles(folder: Path, item: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with a product of profiles in a local folder.

    Parameters
    ----------
    folder : Path
        Holds the assets under the names in the item.
    item : mapping
        STAC item of the product.
    """
    try:
        table = pq.read_table(folder / "profiles.parquet", columns=list(NARROW))
        summary = summarise_profiles(table)
    except (pa.ArrowException, OSError, KeyError) as error:
        return [Finding("profiles.parquet", f"unreadable: {error}")]
    expected = item["properties"]["canopus:summary"]
    findings = []
    if summary != expected:
        findings.append(Finding("profiles.parquet", "its counts or medians are not those in the item"))
    checks: dict[str, Callable[[], Iterator[str]]] = {
        SUMMARY: lambda: _check_summary(folder, expected),
        "profiles.fits": lambda: _check_keys(_fits_keys(folder), table),
        "profiles.vot": lambda: _check_keys(_votable_keys(folder), table),
    }
    if HATS in item["assets"]:
        checks[HATS] = lambda: _check_hats(folder, table)
    for file, check in checks.items():
        try:
            findings += [Finding(file, problem) for problem in check()]
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError) as error:
            findings.append(Finding(file, f"unreadable: {error}"))
    return findings


def _check_summary(folder: Path, expected: Mapping[str, Any]) -> Iterator[str]:
    if json.loads((folder / SUMMARY).read_text()) != expected:
        yield "is not the summary in the item"


def _check_keys(keys: list[tuple[str, str]], table: pa.Table) -> Iterator[str]:
    """Yield what is wrong with the objects and bands of a file that should have all rows."""
    if keys != _keys_of(table):
        yield f"its {len(keys)} rows are not the {table.num_rows} of profiles.parquet"


def _check_hats(folder: Path, table: pa.Table) -> Iterator[str]:
    files = sorted((folder / HATS / "dataset").rglob("Npix=*.parquet"))
    found = pa.concat_tables([pq.ParquetFile(path).read(columns=["object_id", "band"]) for path in files])
    if sorted(_keys_of(found)) != sorted(_keys_of(table.filter(has_position(table)))):
        yield f"its {found.num_rows} rows are not those of profiles.parquet that have a position"


def _keys_of(table: pa.Table) -> list[tuple[str, str]]:
    ids = pc.cast(table["object_id"], pa.string()).to_pylist()
    return list(zip(ids, table["band"].to_pylist(), strict=True))


def _fits_keys(folder: Path) -> list[tuple[str, str]]:
    from astropy.io import fits

    with fits.open(folder / "profiles.fits") as file:
        data = file["PROFILES"].data
        return _as_keys(data["object_id"], data["band"])


def _votable_keys(folder: Path) -> list[tuple[str, str]]:
    from astropy.io.votable import parse
    from astropy.io.votable.exceptions import VOWarning
    from astropy.units import UnitsWarning

    with warnings.catch_warnings():
        # the VO's list of units has no nanomaggies
        warnings.simplefilter("ignore", VOWarning)
        warnings.simplefilter("ignore", UnitsWarning)
        data = parse(folder / "profiles.vot").get_first_table().array
    return _as_keys(data["object_id"], data["band"])


def _as_keys(ids: np.ndarray, bands: np.ndarray) -> list[tuple[str, str]]:
    return list(zip(map(str, ids.tolist()), map(str, bands.tolist()), strict=True))
