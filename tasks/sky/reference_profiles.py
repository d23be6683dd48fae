"""Profiles to be compared with: true ones of generated galaxies, or published ones as their tools write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.cutouts import AB_ZERO_POINT
from tasks.errors import ConfigurationError

TRUTH = "truth"
_NOT_MEASURED = 99.0
_FILE = re.compile(r"^(?P<id>.+)_(?P<band>[A-Za-z0-9]+)(?:\.(?P<tool>[a-z]+))?\.(?P<kind>csv|prof)$")
_RADIUS = ("radius_arcsec", "R_arcsec", "R")
_MU = ("mu", "SB_mag_arcsec2", "SB")
_ERROR = ("mu_error", "SB_e")


@dataclass(frozen=True)
class Reference:
    """A profile to be compared with.

    Parameters
    ----------
    object_id, band : str
        Whose.
    tool : str
        What measured it; `TRUTH` where it is known.
    radius_arcsec, mu : ndarray, shape (radius,)
        Rising semi-major axes; AB mag per arcsec^2, finite.
    mu_error : ndarray, shape (radius,)
        0 where none is given.
    """

    object_id: str
    band: str
    tool: str
    radius_arcsec: NDArray[np.float64] = field(repr=False)
    mu: NDArray[np.float64] = field(repr=False)
    mu_error: NDArray[np.float64] = field(repr=False)


def read_references(path: Path) -> tuple[Reference, ...]:
    """Return the profiles of a file or a folder.

    A table (Parquet, or CSV with ``object_id``) has ``object_id, band, radius_arcsec`` and ``mu`` or ``intensity``
    (nanomaggies per arcsec^2): lists, or a row for each radius. AutoProf's tables, and CSVs of radius and surface
    brightness, are named ``<object>_<band>.prof`` and ``<object>_<band>[.<tool>].csv``.

    Raises
    ------
    ConfigurationError
        Where there is nothing of that, naming the file.
    """
    if not path.exists():
        raise ConfigurationError(f"--truth {path}: no such file or folder")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in (".parquet", ".csv", ".prof")]
    found = tuple(reference for file in files for reference in _read_file(file) if reference.mu.size > 1)
    if not found:
        raise ConfigurationError(f"--truth {path}: no profile in it; wanted are Parquet, CSV or AutoProf's .prof")
    return found


def _read_file(file: Path) -> Iterator[Reference]:
    try:
        table = (
            pd.read_parquet(file)
            if file.suffix == ".parquet"
            else pd.read_csv(file, comment="#", dtype={"object_id": str})
        )
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{file}: not a table ({error})") from error
    if "object_id" in table:
        yield from _read_table(file, table)
        return
    named = _FILE.match(file.name)
    if named is None:
        raise ConfigurationError(
            f"{file}: it has no column object_id, so it should be named <object>_<band>.{file.suffix[1:]}"
        )
    tool = named["tool"] or ("autoprof" if named["kind"] == "prof" else "published")
    yield _reference(file, named["id"], named["band"], tool, {str(name): table[name].to_numpy() for name in table})


def _read_table(file: Path, table: pd.DataFrame) -> Iterator[Reference]:
    if "band" not in table:
        raise ConfigurationError(f"{file}: no column band")
    if "state" in table:
        table = table[table["state"] == "measured"]
    names = [name for name in table if name not in ("object_id", "band")]
    if len(table) and isinstance(table[_first(file, _RADIUS, names)].iloc[0], np.ndarray | list):
        for row in table.to_dict("records"):
            columns = {name: np.asarray(row[name], dtype=float) for name in names if np.ndim(row[name]) == 1}
            yield _reference(file, str(row["object_id"]), str(row["band"]), TRUTH, columns)
        return
    for (object_id, band), rows in table.groupby(["object_id", "band"], sort=False):
        columns = {name: rows[name].to_numpy() for name in names}
        yield _reference(file, str(object_id), str(band), TRUTH, columns)


def _reference(file: Path, object_id: str, band: str, tool: str, columns: dict[str, NDArray]) -> Reference:
    radius = np.asarray(columns[_first(file, _RADIUS, columns)], dtype=float)
    if not any(name in columns for name in _MU) and "intensity" in columns:
        intensity = np.asarray(columns["intensity"], dtype=float)
        mu = AB_ZERO_POINT - 2.5 * np.log10(np.where(intensity > 0, intensity, np.nan))
    else:
        mu = np.asarray(columns[_first(file, _MU, columns)], dtype=float)
    error_name = next((name for name in _ERROR if name in columns), None)
    error = np.zeros(mu.shape) if error_name is None else np.asarray(columns[error_name], dtype=float)
    good = np.isfinite(radius) & (radius > 0) & np.isfinite(mu) & (np.abs(mu) < _NOT_MEASURED)
    order = np.argsort(radius[good])
    error = np.where(np.isfinite(error), error, 0.0)
    return Reference(object_id, band, tool, radius[good][order], mu[good][order], error[good][order])


def _first(file: Path, names: tuple[str, ...], there: object) -> str:
    for name in names:
        if name in there:  # type: ignore[operator]
            return name
    raise ConfigurationError(f"{file}: no column {names[0]}")
