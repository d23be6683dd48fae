"""A sky store of the warehouse as a source: its cutouts are measured where they lie, and nothing is written again."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from storage.cutouts import Cutout
from storage.errors import NotFound
from storage.location import Location, resolve
from storage.sky import SkyReader
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target, TargetList, digest_of, separation_arcsec

KIND = "store:"
_SAME_ARCSEC = 1.0
"""An object of the same id that lies farther off is another one."""


class StoreSource:
    """Gives the cutouts of one state of a sky store.

    Parameters
    ----------
    where : str
        ``NAME``, the folder under ``sky/``, or ``NAME@SNAPSHOT``; without a snapshot its newest state.
    bands : tuple of str
        Empty = those that an object has.
    options : SourceOptions
        Its warehouse; no size, pixel scale or zero point, since pixels stay as they are.

    Raises
    ------
    ConfigurationError
        Where there is no such store or state, or it is asked for other pixels.
    """

    def __init__(self, where: str, *, bands: tuple[str, ...], options: SourceOptions) -> None:
        asked = {
            "size": options.size_pixels,
            "pixel scale": options.pixel_scale_arcsec,
            "zero point": options.zero_points or None,
        }
        given = [name for name, value in asked.items() if value is not None]
        if given:
            raise ConfigurationError(
                f"{KIND}{where}: its cutouts are measured as they are; give no {' and no '.join(given)}"
            )
        self.name, _, snapshot = where.partition("@")
        self.reader = _open(resolve(options.warehouse), self.name, snapshot)
        self.bands = bands or _bands_of(self.reader.catalogue)
        self._chosen = bands

    def holds(self, target: Target) -> bool:
        """Return whether the store has the object of a target's id, at its position where both say one."""
        return not self._lack(target)

    def fetch(self, target: Target, *, deadline: float | None = None) -> Cutout:
        """Return a target's cutout as it lies in the store, in the bands that are asked for.

        Raises
        ------
        SourceRejected
            With reason ``no-data`` where the store has none of that id there, or in none of those bands.
        """
        if lack := self._lack(target):
            raise SourceRejected(f"{target.object_id}: {lack}", reason="no-data")
        cutout = self.reader.read(target.object_id)
        wanted = [cutout.band_names.index(name) for name in self._chosen if name in cutout.band_names]
        if self._chosen and not wanted:
            raise SourceRejected(
                f"{target.object_id}: store {self.name} has it in {', '.join(cutout.band_names)} alone",
                reason="no-data",
            )
        return _in_bands(cutout, wanted) if self._chosen else cutout

    def _lack(self, target: Target) -> str:
        if target.object_id not in self.reader:
            return f"store {self.name} has no object of that id"
        record = self.reader.record(target.object_id)
        own = replace(target, ra=_number(record["ra"]), dec=_number(record["dec"]))
        if (apart := separation_arcsec(target, own)) > _SAME_ARCSEC:
            return f"store {self.name} has an object of that id {apart:,.1f} arcsec away"
        return ""


def targets_of_store(source: StoreSource) -> TargetList:
    """Return every object of a store as a target, in the order in which they came.

    Raises
    ------
    ConfigurationError
        Where the store is empty.
    """
    table, ids = source.reader.catalogue, source.reader.ids
    if not ids:
        raise ConfigurationError(f"{source.reader.location}: the store holds no object")
    sides = table[["rows", "columns"]].max(axis=1)
    targets = tuple(
        Target(name, float(ra), float(dec), (name,), size_pixels=int(side))
        for name, ra, dec, side in zip(ids, table["ra"], table["dec"], sides, strict=True)
    )
    return TargetList(
        targets,
        integer_ids=pd.api.types.is_integer_dtype(table["object_id"]),
        bad_rows=(),
        merged=(),
        rows=len(targets),
        digest=digest_of(targets),
    )


def pin_store(source: str, warehouse: str) -> str:
    """Return a source with the newest state of its store, so that a run reads the same one whenever it goes on; others as they are.

    Raises
    ------
    ConfigurationError
        Where there is no such store.
    """
    if not source.startswith(KIND) or "@" in source:
        return source
    return f"{source}@{_open(resolve(warehouse), source.removeprefix(KIND), '').snapshot}"


def _open(root: Location, name: str, snapshot: str) -> SkyReader:
    stores = root / "sky"
    if name not in stores.list_folders():
        there = ", ".join(stores.list_folders()) or "none"
        raise ConfigurationError(f"{stores} has no store {name!r}; there is {there}")
    try:
        return SkyReader(stores / name, snapshot or None)
    except NotFound as error:
        raise ConfigurationError(f"{KIND}{name}: {error}") from error


def _bands_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the bands of every object, empty where they differ."""
    found = table["bands"].unique()
    return tuple(str(found[0]).split(",")) if len(found) == 1 else ()


def _in_bands(cutout: Cutout, wanted: list[int]) -> Cutout:
    planes = {name: getattr(cutout, name)[wanted] for name in ("flux", "valid", "ivar", "maskbits")}
    return replace(cutout, bands=tuple(cutout.bands[index] for index in wanted), **planes)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
