"""Cells: small squares of ground with what a canopy model reads of them and what is known of their pixels.

Cells come from the cubes and labels of an area, or are generated (`canopy_places`). Batches are patches drawn from cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from models.canopy import UNKNOWN, CanopyNet, LabelledGrid, LabelledSeries, SeriesPart, cover_levels
from models.earthpt import to_channels
from storage.classes import LandClass
from storage.regions import Region
from tasks.earth.canopy_classifier import FEATURES, feature_layers, features_of_block
from tasks.earth.canopy_features import LOOKS, grid_features
from tasks.earth.layers import CLEAR_COUNT
from tasks.earth.mapping import AmongNeighbours, MapPlan, gather_region, overlap, to_physical
from tasks.earth.series_batches import TOKENS_AT_ONCE, RegionSeries, batches_of

CELL = 64
"""Pixels on a side of a cell of an area."""
TRAIN, VALIDATION = 0, 1

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class WindowSeries:
    """The looks at a window of one cube.

    Parameters
    ----------
    reflectance : ndarray, shape (time, band, y, x), uint16
    valid : ndarray, shape (time, y, x), bool
    dates : ndarray, shape (time,), datetime64[D]
    bands : tuple of str
    """

    reflectance: np.ndarray
    valid: np.ndarray
    dates: np.ndarray
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A square of ground, read as features.

    Parameters
    ----------
    features : ndarray, shape (feature, y, x), float16
        With a halo around the labels.
    labels : ndarray, shape (y, x), int8
        Position of the class; `UNKNOWN` where nothing is known, `LEFT` where the head that training began with is followed.
    part : ndarray, shape (y, x), int8
        `TRAIN`, `VALIDATION`, or neither.
    looks : int
        Valid looks that it was made from.
    series : WindowSeries, optional
        Those looks, for training that changes how they are read.
    cover : ndarray, shape (y, x), uint8, optional
        Tree cover in percent, where labels come with it.
    """

    features: np.ndarray
    labels: np.ndarray
    part: np.ndarray
    looks: int
    series: WindowSeries | None = None
    cover: np.ndarray | None = None

    @property
    def halo(self) -> int:
        """Return the pixels around the labels."""
        return (self.features.shape[1] - self.labels.shape[0]) // 2

    def of(self, part: int) -> np.ndarray:
        """Return the labels of one part, `UNKNOWN` elsewhere."""
        return np.where(self.part == part, self.labels, np.int8(UNKNOWN))


def cells_of(
    plan: MapPlan,
    known: np.ndarray,
    part: np.ndarray,
    *,
    classes: Sequence[LandClass],
    pixels: int,
    seed: int,
) -> list[Region]:
    """Return which cells of an area are read: drawn until they hold so many labelled pixels, rare classes first.

    Parameters
    ----------
    plan : MapPlan
        Grid.
    known : ndarray, shape (y, x), uint8
        Class values on the staging grid.
    part : ndarray, shape (y, x), int8
        Split of it; pixels in neither part do not count.
    classes : sequence of LandClass
    pixels : int
        Labelled ones, about.
    seed : int
    """
    rows, columns = known.shape
    used = (part == TRAIN) | (part == VALIDATION)
    regions = [
        {"y": slice(y, min(y + CELL, rows)), "x": slice(x, min(x + CELL, columns))}
        for y in range(0, rows, CELL)
        for x in range(0, columns, CELL)
    ]
    counts = np.array(
        [[(used & (known == one.value))[region["y"], region["x"]].sum() for one in classes] for region in regions]
    )
    total = counts.sum(axis=0).clip(min=1)
    # each cell's key: an even draw, moved forward by how much of rare classes it holds
    weight = (counts / total).sum(axis=1)
    key = np.random.default_rng(seed).exponential(size=len(regions)) / np.maximum(weight, 1e-12)
    order = [number for number in np.argsort(key) if counts[number].sum()]
    held = counts[order].sum(axis=1).cumsum()
    return [regions[number] for number in order[: int(np.searchsorted(held, pixels)) + 1]]


def read_cells(
    plan: MapPlan,
    regions: Sequence[Region],
    known: np.ndarray,
    part: np.ndarray,
    *,
    model: CanopyNet,
    classes: Sequence[LandClass],
    keep_series: bool = False,
    on_progress: Progress | None = None,
) -> list[Cell]:
    """Return cells of an area as features, and as looks too where those are to be kept."""
    reading = AmongNeighbours(
        halo=model.halo,
        layers=feature_layers(model),
        each=partial(features_of_block, model=model, bands=plan.bands),
        finish=dict,
    )
    cells = []
    for count, region in enumerate(regions, start=1):
        found = gather_region(plan, region, reading)
        seen = found[CLEAR_COUNT]
        place = region["y"], region["x"]
        inner = tuple(slice(model.halo, size - model.halo) for size in seen.shape)
        labels = np.where(seen[inner] > 0, positions(known[place], classes), np.int8(UNKNOWN))
        series = _series_of(plan, region, model.halo) if keep_series else None
        cells.append(Cell(found[FEATURES].astype(np.float16), labels, part[place], int(seen[inner].sum()), series))
        if on_progress is not None:
            on_progress("series", count, len(regions))
    return cells


def reread(model: CanopyNet, cell: Cell) -> Cell:
    """Return a cell with the features that a model makes of its looks."""
    assert cell.series is not None
    held = cell.series
    features = grid_features(model, held.reflectance, held.valid, held.dates, bands=held.bands)
    return replace(cell, features=features.astype(np.float16))


def _series_of(plan: MapPlan, region: Region, halo: int) -> WindowSeries | None:
    """Return the looks at a region and its halo from the first cube in the plan's own CRS that holds some of it.

    What lies in another cube has no valid look: there are few such pixels, and all of them in the halo or outside the area.
    """
    geobox = plan.staging[region["y"], region["x"]]
    wide = geobox.pad(halo) if halo else geobox
    for cube in plan.cubes:
        window = overlap(cube.tile.geobox, wide) if cube.tile.geobox.crs == wide.crs else None
        if window is None:
            continue
        block, own = plan.read(cube, window), cube.tile.geobox
        row = round((own.affine.f - wide.affine.f) / wide.affine.e) + window["y"].start
        column = round((own.affine.c - wide.affine.c) / wide.affine.a) + window["x"].start
        missing = [
            (start, size - start - held)
            for start, size, held in zip((row, column), wide.shape, block.valid.shape[1:], strict=True)
        ]
        reflectance = np.pad(block.reflectance, [(0, 0), (0, 0), *missing])
        valid = np.pad(block.valid, [(0, 0), *missing])
        return WindowSeries(reflectance, valid, block.times.astype("datetime64[D]"), plan.bands)
    return None


def positions(values: np.ndarray, classes: Sequence[LandClass]) -> np.ndarray:
    """Return the position of each class value, int8, `UNKNOWN` for a value that is none."""
    table = np.full(256, UNKNOWN, np.int8)
    for number, one in enumerate(classes):
        table[one.value] = number
    return np.asarray(table[values])


@dataclass(frozen=True)
class GridBatches:
    """Patches drawn from cells, turned and mirrored, as float16; a cell that holds more labels to train on is drawn more often.

    Parameters
    ----------
    cells : tuple of Cell
        With labels to train on.
    size : int
        Pixels on a side of the labels of a patch.
    count : int
        Patches in a batch.
    seed : int
    """

    cells: tuple[Cell, ...]
    size: int
    count: int
    seed: int

    def at(self, position: int) -> LabelledGrid:
        """Return the batch at a position."""
        rng = np.random.default_rng((self.seed, position))
        numbers = rng.choice(len(self.cells), self.count, p=self._shares)
        features, labels, covers = zip(*(self._patch(self.cells[number], rng) for number in numbers), strict=True)
        if not any(cell.cover is not None for cell in self.cells):
            return LabelledGrid(torch.stack(features), torch.stack(labels))
        return LabelledGrid(torch.stack(features), torch.stack(labels), torch.stack(covers))

    def tokens(self, batch: LabelledGrid) -> int:
        """Return the labelled pixels of a batch."""
        return int((batch.labels >= 0).sum())

    @cached_property
    def _shares(self) -> np.ndarray:
        return _shares(self.cells)

    def _patch(self, cell: Cell, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        known = cell.of(TRAIN)
        top, left = _corner(known, self.size, rng)
        wide = self.size + 2 * cell.halo
        features = cell.features[:, top : top + wide, left : left + wide]
        inner = np.s_[top : top + self.size, left : left + self.size]
        labels = known[inner].astype(np.int64)
        features = _padded(features, (wide, wide), 0.0)
        cover = np.where(labels >= 0, _levels(cell, inner), UNKNOWN)
        labels, cover = (_padded(one, (self.size, self.size), UNKNOWN) for one in (labels, cover))
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        grids = [np.rot90(one, turns, axes=(-2, -1)) for one in (features, labels, cover)]
        first, second, third = (torch.from_numpy((one[..., ::-1] if mirrored else one).copy()) for one in grids)
        return first, second, third


@dataclass(frozen=True)
class SeriesBatches:
    """Patches drawn from cells, as looks.

    Parameters
    ----------
    cells : tuple of Cell
        With looks, and labels to train on.
    size : int
        Pixels on a side of the labels of a patch.
    seed : int
    """

    cells: tuple[Cell, ...]
    size: int
    seed: int

    def at(self, position: int) -> LabelledSeries:
        """Return the batch at a position: one patch."""
        rng = np.random.default_rng((self.seed, position))
        cell = self.cells[rng.choice(len(self.cells), 1, p=self._shares)[0]]
        held = cell.series
        assert held is not None
        known = cell.of(TRAIN)
        top, left = _corner(known, self.size, rng)
        wide, size = self.size + 2 * cell.halo, self.size
        window = np.s_[top : top + wide, left : left + wide]
        valid = held.valid[(slice(None), *window)]
        rows, columns = valid.shape[1:]
        stored = held.reflectance[(slice(None), slice(None), *window)].reshape(len(held.dates), len(held.bands), -1)
        series = RegionSeries(to_physical(stored), valid.reshape(len(held.dates), -1), held.dates, held.bands)
        parts = [
            SeriesPart(
                torch.from_numpy(batch.pixels),
                to_channels(batch.tokens.values),
                batch.tokens.position[..., 0],
                batch.tokens.valid,
            )
            for batch in batches_of(series, looks=LOOKS, tokens=TOKENS_AT_ONCE)
        ]
        labels = known[top : top + size, left : left + size]
        return LabelledSeries(tuple(parts), (rows, columns), torch.from_numpy(labels.astype(np.int64))[None])

    def tokens(self, batch: LabelledSeries) -> int:
        """Return the looks of a batch."""
        return sum(int(part.valid.sum()) for part in batch.parts)

    @cached_property
    def _shares(self) -> np.ndarray:
        return _shares(self.cells)


def _shares(cells: Sequence[Cell]) -> np.ndarray:
    """Return how often each cell is drawn: by the root of how many labels it has to train on."""
    weight = np.sqrt([float((cell.of(TRAIN) != UNKNOWN).sum()) for cell in cells])
    return np.asarray(weight / weight.sum())


def _levels(cell: Cell, window: tuple[slice, slice]) -> np.ndarray:
    """Return the level of tree cover of a window of a cell, int64, `UNKNOWN` where labels come without."""
    if cell.cover is None:
        return np.full(cell.labels[window].shape, UNKNOWN, np.int64)
    return cover_levels(torch.from_numpy(np.ascontiguousarray(cell.cover[window]))).numpy()


def _corner(labels: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the upper left of a patch that holds a drawn labelled pixel, anywhere in it."""
    known = np.flatnonzero(labels.ravel() != UNKNOWN)
    pixel = divmod(int(known[rng.integers(known.size)]), labels.shape[1])
    top, left = (
        int(np.clip(at - rng.integers(size), 0, max(extent - size, 0)))
        for at, extent in zip(pixel, labels.shape, strict=True)
    )
    return top, left


def _padded(values: np.ndarray, size: tuple[int, int], fill: float) -> np.ndarray:
    """Return values (..., y, x) grown to a size at the lower right."""
    if values.shape[-2:] == size:
        return values
    missing = [(0, 0)] * (values.ndim - 2) + [(0, size[0] - values.shape[-2]), (0, size[1] - values.shape[-1])]
    return np.pad(values, missing, constant_values=fill)
