"""Lists of objects to measure: from a file or a query to targets, each position once, bad rows listed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.target_columns import Column, ColumnNames, Row, recognise, rows_of

QUERY_SERVICES = ("sdss", "vizier", "ned")


@dataclass(frozen=True)
class Target:
    """One object to measure.

    Parameters
    ----------
    object_id : str
        Unique in its list.
    ra, dec : float
        ICRS degrees; NaN only for a local image without a WCS.
    names : tuple of str
        Every id that the list has for this position, the object's own first.
    redshift, ebv : float
        As the list has them; NaN = not given.
    size_pixels : int, optional
        Side of the image that the list asks for.
    file : str
        Image of the object in a local folder, ``name.fits`` or ``name.fits[EXTNAME]``; empty = look for its id.
    """

    object_id: str
    ra: float
    dec: float
    names: tuple[str, ...] = ()
    redshift: float = math.nan
    ebv: float = math.nan
    size_pixels: int | None = None
    file: str = ""


@dataclass(frozen=True)
class BadRow:
    """A row of a list that gives no target; `row` counts rows of data from 1."""

    row: int
    reason: str


@dataclass(frozen=True)
class Merged:
    """Rows of one position: `object_id` is the first one's, `separation_arcsec` the farthest from it."""

    object_id: str
    names: tuple[str, ...]
    rows: tuple[int, ...]
    separation_arcsec: float


@dataclass(frozen=True)
class TargetList:
    """What a list gave.

    Parameters
    ----------
    targets : tuple of Target
        In the list's order, each position once.
    integer_ids : bool
        Whether every id is a whole number of 64 bits, to be published as such.
    bad_rows : tuple of BadRow
    merged : tuple of Merged
    rows : int
        Rows of data in the list: every one is a target, merged into one, or bad.
    digest : str
        SHA-256 of the targets: equal for equal lists, whatever file they came from.
    notes : tuple of str
        How columns and ids were read, where there was a choice.
    """

    targets: tuple[Target, ...]
    integer_ids: bool
    bad_rows: tuple[BadRow, ...]
    merged: tuple[Merged, ...]
    rows: int
    digest: str
    notes: tuple[str, ...] = ()


def read_targets(
    where: str | Path, *, merge_radius_arcsec: float = 1.0, columns: ColumnNames | None = None
) -> TargetList:
    """Return the targets of a file or a query.

    The first row of a position leads: its id is the object's, and what it does not say (redshift, E(B-V), size, file)
    comes from the next row that does. Rows are of one position where each lies within the radius of another one of
    them. A row without an id is named after its position; an id that comes again at another position is a bad row.

    Parameters
    ----------
    where : str or Path
        A CSV (also whitespace, tab, ECSV, ``.gz``), Parquet, FITS or VOTable file; or ``sdss:SELECT ...``,
        ``sdss:RA,DEC,RADIUS_ARCSEC``, ``vizier:CATALOGUE[:COLUMN=CONDITION;...]``, ``ned:NAME[;NAME...]``.
    merge_radius_arcsec : float
        0 merges equal positions only.
    columns : ColumnNames, optional
        Names of columns that are not to be guessed.

    Raises
    ------
    ConfigurationError
        A file that is not there or cannot be read as a table, an empty one, no recognisable columns, ids whose digits
        are lost already.
    SourceUnavailable, SourceRejected
        A query whose service fails or refuses.
    """
    if merge_radius_arcsec < 0 or not math.isfinite(merge_radius_arcsec):
        raise ConfigurationError(f"a merging radius of {merge_radius_arcsec} arcsec: 0 or more is expected")
    table, refused = _table(where)
    return targets_of_table(
        table, where=str(where), merge_radius_arcsec=merge_radius_arcsec, columns=columns, refused=refused
    )


def targets_of_table(
    table: Sequence[Column],
    *,
    where: str,
    merge_radius_arcsec: float = 1.0,
    columns: ColumnNames | None = None,
    refused: Mapping[int, str] | None = None,
) -> TargetList:
    """Return the targets of a table in memory.

    Parameters
    ----------
    where : str
        Its name in messages.
    refused : mapping of int to str
        Why rows are empty, by their numbers from 1.

    Raises
    ------
    ConfigurationError
    """
    roles = recognise(table, columns or ColumnNames(), where=where)
    good, bad, notes = rows_of(table, roles, where=where)
    total = len(table[0].missing)
    if not total:
        raise ConfigurationError(f"{where} holds no rows")
    groups = group_positions([row.ra for row in good], [row.dec for row in good], radius_arcsec=merge_radius_arcsec)
    targets, merged, again = _merge(good, groups)
    known = refused or {}
    empty = [BadRow(row, known.get(row, reason)) for row, reason in bad]
    bad_rows = tuple(sorted(empty + again, key=lambda found: found.row))
    integer_ids = roles.identifier is not None and all(row.integer_id for row in good)
    return TargetList(tuple(targets), integer_ids, bad_rows, tuple(merged), total, digest_of(targets), tuple(notes))


def group_positions(ra: Sequence[float], dec: Sequence[float], *, radius_arcsec: float) -> list[list[int]]:
    """Return the numbers of the positions that lie together, groups and members in the order of the list.

    Positions are of one group where a chain of steps of up to the radius joins them; RA wraps at 360 and the poles are
    points.

    Examples
    --------
    >>> group_positions([0.0, 359.9999, 10.0], [0.0, 0.0, 0.0], radius_arcsec=1.0)
    [[0, 1], [2]]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    if not len(ra):
        return []
    vectors = _unit_vectors(np.asarray(ra, dtype=float), np.asarray(dec, dtype=float))
    chord = 2.0 * math.sin(math.radians(radius_arcsec / 3600.0) / 2.0)
    pairs = KDTree(vectors).query_pairs(chord, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vectors), len(vectors)))
    _, labels = connected_components(links, directed=False)
    groups: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        groups.setdefault(int(label), []).append(number)
    return list(groups.values())


def require_position(target: Target) -> None:
    """Refuse a target that a survey cannot be asked for.

    Raises
    ------
    SourceRejected
    """
    if not (math.isfinite(target.ra) and math.isfinite(target.dec)):
        raise SourceRejected(f"{target.object_id} has no position", reason="invalid-input")


def digest_of(targets: Sequence[Target]) -> str:
    """Return the SHA-256 of targets: every field, in order."""
    hashed = hashlib.sha256()
    for target in targets:
        facts = [target.object_id, target.ra, target.dec, target.names, target.redshift, target.ebv]
        hashed.update((json.dumps([*facts, target.size_pixels, target.file]) + "\n").encode())
    return hashed.hexdigest()


def position_name(ra: float, dec: float) -> str:
    """Return the name of a position, cut and not rounded, as the IAU has it.

    Examples
    --------
    >>> position_name(150.470618, -0.125157)
    'J100152.94-000730.5'
    """
    hours = math.floor(ra / 15.0 * 360_000.0 + 1e-6)  # hundredths of a second
    degrees = math.floor(abs(dec) * 36_000.0 + 1e-6)  # tenths of an arcsecond
    sign = "-" if dec < 0 else "+"
    return (
        f"J{hours // 360_000:02d}{hours // 6000 % 60:02d}{hours % 6000 / 100:05.2f}"
        f"{sign}{degrees // 36_000:02d}{degrees // 600 % 60:02d}{degrees % 600 / 10:04.1f}"
    )


def _table(where: str | Path) -> tuple[list[Column], Mapping[int, str]]:
    """Return the columns of a list, and why rows of it are empty where that is known."""
    service, colon, request = str(where).partition(":")
    if colon and service.lower() in QUERY_SERVICES and not isinstance(where, Path):
        from tasks.sky.target_queries import query_table

        answer = query_table(service.lower(), request)
        return answer.columns, answer.refused
    from tasks.sky.target_files import read_table

    return read_table(Path(where)), {}


def _unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    longitude, latitude = np.radians(ra % 360.0), np.radians(dec)
    return np.column_stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    )


def _merge(rows: Sequence[Row], groups: Sequence[Sequence[int]]) -> tuple[list[Target], list[Merged], list[BadRow]]:
    targets, merged, again = [], [], []
    taken: dict[str, Row] = {}
    for group in groups:
        members = [rows[number] for number in group]
        lead = members[0]
        name = lead.identifier or position_name(lead.ra, lead.dec)
        names = tuple(dict.fromkeys([name, *(row.identifier for row in members if row.identifier)]))
        if name in taken:
            first = taken[name]
            away = f"{separation_arcsec(first, lead):.1f} arcsec away"
            again += [BadRow(row.number, f"its id {name} is that of row {first.number}, {away}") for row in members]
            continue
        taken[name] = lead
        targets.append(_target(name, names, members))
        if len(members) > 1:
            far = max(separation_arcsec(lead, row) for row in members)
            merged.append(Merged(name, names, tuple(row.number for row in members), far))
    return targets, merged, again


def _target(name: str, names: tuple[str, ...], members: Sequence[Row]) -> Target:
    return Target(
        object_id=name,
        ra=members[0].ra,
        dec=members[0].dec,
        names=names,
        redshift=next((row.redshift for row in members if math.isfinite(row.redshift)), math.nan),
        ebv=next((row.ebv for row in members if math.isfinite(row.ebv)), math.nan),
        size_pixels=next((row.size_pixels for row in members if row.size_pixels), None),
        file=next((row.file for row in members if row.file), ""),
    )


def separation_arcsec(a: Row | Target, b: Row | Target) -> float:
    """Return how far two positions lie apart, NaN where one is not known."""
    first, second = _unit_vectors(np.array([a.ra, b.ra]), np.array([a.dec, b.dec]))
    return math.degrees(2.0 * math.asin(np.minimum(np.linalg.norm(first - second) / 2.0, 1.0))) * 3600.0
