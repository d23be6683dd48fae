"""Generated places as a canopy model reads them: drawn by processes side by side, and kept in pieces under ``pools/``.

A piece is a pure function of EarthPT's weights, the months that it is asked about and a number, so that interrupted work goes
on, and more places later take the first ones as they are. Processes that draw also read, but where there is a GPU: then the one
that trains reads there what the others draw.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from safetensors.torch import load, save

from models.canopy import CanopyConfig, CanopyNet
from models.indices import BANDS
from storage.classes import NO_CANOPY, LandClass
from storage.location import Location
from tasks.earth.canopy_cells import TRAIN, VALIDATION, Cell, Progress
from tasks.earth.canopy_features import grid_features
from tasks.earth.prior.places import GeneratedPlace, draw_place
from tasks.earth.series_batches import device_of
from tasks.pools import missing_pieces, pool_folder
from tasks.side_by_side import side_by_side

PLACE = 160
"""Pixels on a side of a generated place."""
_VERSION = 2
"""Of places and of how they are read."""
_LEAST_DATES = 12


@dataclass(frozen=True)
class ReadPlace:
    """A generated place as features: with all bands and looks, and, every second place, again with fewer.

    Parameters
    ----------
    features : tuple of ndarray, shape (feature, y, x), float16
    looks : tuple of int
        Valid ones that each was made from.
    classes, tree_cover : ndarray, shape (y, x), uint8
        As in `GeneratedPlace`.
    """

    features: tuple[np.ndarray, ...]
    looks: tuple[int, ...]
    classes: np.ndarray
    tree_cover: np.ndarray

    def to_bytes(self) -> bytes:
        """Return it as a file, .npz."""
        buffer = io.BytesIO()
        features: dict[str, Any] = {f"features_{number}": one for number, one in enumerate(self.features)}
        truth: dict[str, Any] = {"classes": self.classes, "tree_cover": self.tree_cover}
        np.savez(buffer, looks=np.array(self.looks), **truth, **features)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> ReadPlace:
        """Return what a file holds."""
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            looks = tuple(int(count) for count in found["looks"])
            features = tuple(found[f"features_{number}"] for number in range(len(looks)))
            return cls(features, looks, found["classes"], found["tree_cover"])


def read_place(model: CanopyNet, place: GeneratedPlace, number: int) -> ReadPlace:
    """Return a place as features; `number` is the seed that it was drawn from, and says which looks are left out."""
    whole = grid_features(model, place.reflectance, place.valid, place.dates, bands=BANDS)
    features, looks = [whole.astype(np.float16)], [int(place.valid.sum())]
    if number % 2:
        rng = np.random.default_rng(number)
        bands = _fewer_bands(rng)
        kept = rng.random(len(place.dates)) > rng.choice([0.0, 0.3, 0.6])
        if kept.sum() < _LEAST_DATES:
            kept[:] = True
        columns = [BANDS.index(band) for band in bands]
        thin = np.ascontiguousarray(place.reflectance[kept][:, columns])
        fewer = grid_features(model, thin, place.valid[kept], place.dates[kept], bands=bands)
        features.append(fewer.astype(np.float16))
        looks.append(int(place.valid[kept].sum()))
    return ReadPlace(tuple(features), tuple(looks), place.classes, place.tree_cover)


def cells_of_place(place: ReadPlace, *, halo: int, classes: Sequence[LandClass], part: int) -> list[Cell]:
    """Return a place as cells of one part, the outermost pixels without labels."""
    labels = _labels(place.classes, classes)
    labels, cover = (one[halo : one.shape[0] - halo, halo : one.shape[1] - halo] for one in (labels, place.tree_cover))
    parts = np.full(labels.shape, part, np.int8)
    return [
        Cell(found, labels, parts, looks, cover=cover) for found, looks in zip(place.features, place.looks, strict=True)
    ]


def place_cells(
    warehouse: Location,
    model: CanopyNet,
    *,
    places: int,
    held_out: int,
    classes: Sequence[LandClass],
    processes: int | None = None,
    on_progress: Progress | None = None,
) -> list[Cell]:
    """Return the first generated places as cells; those that are not kept in the warehouse yet are drawn, read and kept.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    model : CanopyNet
        In eval mode; on a GPU it reads there.
    places : int
        How many.
    held_out : int
        How many of them, the first ones, are for validation.
    classes : sequence of LandClass
        In the order of the labels' positions.
    processes : int, optional
        That draw, and without a GPU read; by default one for each CPU.
    on_progress : callable, optional
        Hears how many are there.
    """
    weights = save({name: tensor.cpu().contiguous() for name, tensor in model.backbone.state_dict().items()})
    told = {
        "backbone": hashlib.sha256(weights).hexdigest(),
        "months": model.config.months,
        "pixels": PLACE,
        "version": _VERSION,
    }
    folder = pool_folder(warehouse, "places", told)
    numbers = {_name(number): number for number in range(places)}
    missing = [numbers[name] for name in missing_pieces(folder, tuple(numbers))]
    if device_of(model).type == "cpu":
        kept = _read_apart(folder, model.config, weights, missing, processes)
    else:
        kept = _read_here(folder, model, missing, processes)
    for done, _ in enumerate(kept, start=places - len(missing) + 1):
        if on_progress is not None:
            on_progress("places", done, places)
    cells = []
    for number in range(places):
        place = ReadPlace.from_bytes(folder.read_bytes(_name(number)))
        part = VALIDATION if number < held_out else TRAIN
        cells += cells_of_place(place, halo=model.halo, classes=classes, part=part)
    return cells


@dataclass(frozen=True)
class _Wanted:
    """A place that another process draws, reads and keeps in a folder."""

    folder: Location
    number: int
    pixels: int
    config: CanopyConfig
    weights: bytes


def _read_apart(
    folder: Location, config: CanopyConfig, weights: bytes, numbers: Sequence[int], processes: int | None
) -> Iterator[int]:
    """Draw, read and keep places in processes of one thread; yield the number of each that is kept."""
    wanted = [_Wanted(folder, number, PLACE, config, weights) for number in numbers]
    yield from side_by_side(_draw_and_read, wanted, processes=processes)


def _draw_and_read(wanted: _Wanted) -> int:
    model = CanopyNet(wanted.config).eval()
    model.backbone.load_state_dict(load(wanted.weights))
    place = draw_place(wanted.number, pixels=wanted.pixels)
    wanted.folder.write_bytes(_name(wanted.number), read_place(model, place, wanted.number).to_bytes())
    return wanted.number


def _read_here(folder: Location, model: CanopyNet, numbers: Sequence[int], processes: int | None) -> Iterator[int]:
    """Read and keep, in this process, places that others draw; yield the number of each that is kept."""
    drawing = partial(_draw, pixels=PLACE)
    for number, place in side_by_side(drawing, numbers, processes=processes):
        folder.write_bytes(_name(number), read_place(model, place, number).to_bytes())
        yield number


def _draw(number: int, *, pixels: int) -> tuple[int, GeneratedPlace]:
    return number, draw_place(number, pixels=pixels)


def _name(number: int) -> str:
    return f"{number:06d}.npz"


def _fewer_bands(rng: np.random.Generator) -> tuple[str, ...]:
    """Return the bands of 10 m, red and near infrared alone, or some drawn ones with these two among them."""
    kind = int(rng.integers(3))
    some = tuple(band for band in BANDS if band in ("B04", "B08") or rng.random() < 0.5)
    return (("B02", "B03", "B04", "B08"), ("B04", "B08"), some)[kind]


def _labels(truth: np.ndarray, classes: Sequence[LandClass]) -> np.ndarray:
    """Return positions of the classes of a place; all canopy is one class where the classes do not tell its kind."""
    names = [one.name for one in classes]
    own = {0: NO_CANOPY, 1: "broadleaved", 2: "conifer"}
    other = next((name for name in names if name != NO_CANOPY), NO_CANOPY)
    table = np.array([names.index(name if name in names else other) for name in own.values()], np.int8)
    return np.asarray(table[truth])
