"""Real cutouts to train on: the middle of each object of a sky store that is whole, binned by whole factors."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from storage.cutouts import Cutout
from storage.location import resolve
from storage.sky import SkyReader
from tasks.errors import ConfigurationError
from tasks.sky.galaxy_pool import Pool, Progress

HELD_OUT_SHARE = 1 / 32
_SAME_SCALE = 0.02
"""Relative difference of pixel scales that counts as none."""


@dataclass(frozen=True)
class StoreChoice:
    """Which cutouts of a sky store are trained on.

    Parameters
    ----------
    store : str
        URL: ``sky/<survey>`` of a warehouse.
    bands : tuple of str
        An object without one of them is passed over.
    pixels : int
        Side of the images.
    binned : int
        Pixels of a store, to a side, that are summed into one of an image.
    galaxies : int
        At most, evenly over the store.
    conditions : str or None
        CSV or Parquet with ``object_id`` and a column for each quantity that may be asked for; an object without a number in
        each is passed over.
    """

    store: str
    bands: tuple[str, ...] = ("g", "r", "z")
    pixels: int = 128
    binned: int = 1
    galaxies: int = 50_000
    conditions: str | None = None

    def __post_init__(self) -> None:
        if min(self.pixels, self.binned, self.galaxies) < 1 or not self.bands:
            raise ConfigurationError(
                f"{self}: pixels, binning and number of galaxies are at least 1, and there is a band"
            )


def read_cutouts(choice: StoreChoice, on_progress: Progress | None = None) -> tuple[Pool, Pool, dict[str, Any]]:
    """Return cutouts to train on, cutouts held out, and what they were, in JSON types.

    A hash of its id says whether an object is held out, so it stays so as the store grows.

    Parameters
    ----------
    choice : StoreChoice
        Which ones.
    on_progress : callable, optional
        Hears how many were read.

    Raises
    ------
    NotFound
        Where there is no store.
    ConfigurationError
        Where too few cutouts are whole, or the table of conditions is none.
    """
    reader = SkyReader(resolve(choice.store))
    ids = sorted(reader.ids, key=_place)[: choice.galaxies]
    scale = float(reader.catalogue["pixel_scale_arcsec"].median())
    asked, names = _conditions(choice.conditions)
    images: dict[str, np.ndarray] = {}
    told: list[np.ndarray] = []
    passed_over: dict[str, int] = {}
    for count, name in enumerate(ids, start=1):
        found = _middle(reader.read(name), choice, scale)
        wanted = asked.get(name) if names else np.empty(0, dtype=np.float32)
        if isinstance(found, np.ndarray) and wanted is not None:
            images[name] = found
            told.append(wanted)
        else:
            reason = found if isinstance(found, str) else "no conditions"
            passed_over[reason] = passed_over.get(reason, 0) + 1
        if on_progress is not None:
            on_progress("cutouts", count, len(ids), f"{count:,} cutouts read")
    held = np.array([_place(name) < HELD_OUT_SHARE for name in images], dtype=bool)
    if held.all() or not held.any():
        reasons = ", ".join(f"{number} {reason}" for reason, number in passed_over.items()) or "the store has no more"
        raise ConfigurationError(
            f"{choice.store}: {len(images)} whole cutouts of {choice.pixels * choice.binned} pixels in {'+'.join(choice.bands)} "
            f"are too few to train on some and hold out others ({reasons})"
        )
    flux, conditions = np.stack(list(images.values())), np.stack(told)
    pixel = round(scale * choice.binned, 6)
    train, held_out = (Pool(flux[part], conditions[part], names, choice.bands, pixel) for part in (~held, held))
    facts = {**asdict(choice), "snapshot": reader.snapshot, "used": len(train.flux), "passed_over": passed_over}
    return train, held_out, facts | {"pixel_scale_arcsec": pixel}


def _place(name: str) -> float:
    """Return where an object stands in an order that has nothing to do with its name, 0 to 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _middle(cutout: Cutout, choice: StoreChoice, scale: float) -> np.ndarray | str:
    """Return the middle of a cutout, nanomaggies, float16; or why it is passed over."""
    side = choice.pixels * choice.binned
    if missing := [band for band in choice.bands if band not in cutout.band_names]:
        return f"without band {missing[0]}"
    if min(cutout.shape) < side:
        return "too small"
    if abs(cutout.pixel_scale_arcsec / scale - 1) > _SAME_SCALE:
        return "of another pixel scale"
    rows, columns = ((length - side) // 2 for length in cutout.shape)
    part = slice(rows, rows + side), slice(columns, columns + side)
    planes = []
    for band in map(cutout.band_names.index, choice.bands):
        if not cutout.bands[band].calibrated:
            return "not calibrated"
        plane = cutout.flux[band][part].astype(np.float64) * cutout.nanomaggies_per_unit(band)
        if not (cutout.valid[band][part].all() and np.isfinite(plane).all()):
            return "with pixels without data"
        planes.append(plane.reshape(choice.pixels, choice.binned, choice.pixels, choice.binned).sum(axis=(1, 3)))
    return np.stack(planes).astype(np.float16)


def _conditions(path: str | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return conditions by object id, and their names."""
    if path is None:
        return {}, ()
    folder, _, name = path.rpartition("/")
    held = io.BytesIO(resolve(folder or ".").read_bytes(name))
    table = pd.read_parquet(held) if name.endswith(".parquet") else pd.read_csv(held)
    names = tuple(column for column in table.columns if column != "object_id")
    if "object_id" not in table.columns or not names:
        raise ConfigurationError(f"{path}: wanted are a column object_id and one or more of numbers")
    values = _numbers(table, names, path)
    known = np.isfinite(values).all(axis=1)
    ids = table["object_id"].astype(str)
    return {key: row for key, row, there in zip(ids, values, known, strict=True) if there}, names


def _numbers(table: pd.DataFrame, names: Sequence[str], path: str) -> np.ndarray:
    try:
        return table[list(names)].to_numpy(dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: a column other than object_id is no number ({error})") from error
