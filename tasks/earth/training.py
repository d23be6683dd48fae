"""Labelled series for training: cubes and labels cut into regions, with a spatially blocked split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from models.forest import ForestConfig
from storage.classes import NO_CLASS, LandClass
from storage.regions import Region
from tasks.earth.classifier_files import save_classifier
from tasks.earth.floor import FloorSettings, LabelledBlock, train_forest
from tasks.earth.label_splits import blocked_folds
from tasks.earth.labels import LabelRules, LabelSource, open_labels, require_two_classes
from tasks.earth.mapping import MapPlan, overlap, plan_for
from tasks.earth.model_folders import ModelReference

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FloorRequest:
    """What the floor is trained on.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    labels : str
        File of polygons, or raster.
    rules : LabelRules
        How it is read.
    classes : tuple of LandClass
        Of the map to come.
    name : str
        Of the model.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    until : str or None
        Last day of the series.
    allow_unmasked : bool
        Whether looks without a mask count.
    trees, seed : int
        Of the forest.
    split : Split
        What is held out in turn.
    """

    warehouse: str
    area: dict[str, Any]
    labels: str
    rules: LabelRules
    classes: tuple[LandClass, ...]
    name: str
    crs: str | None
    resolution: float
    until: str | None
    allow_unmasked: bool
    trees: int
    seed: int
    split: Split


@dataclass(frozen=True)
class TrainedModel:
    """A saved model and its scores on held-out blocks."""

    reference: ModelReference
    metrics: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class Split:
    """The spatially blocked split: blocks of `block` pixels, `folds` of them in turn held out, drawn with `seed`."""

    block: int
    folds: int
    seed: int


def train_floor(request: FloorRequest, on_progress: Progress | None = None) -> TrainedModel:
    """Train the floor on the labelled pixels of an area, score it on held-out blocks, and save it.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, or the labels do not fit it.
    """
    plan = plan_for(request, until=request.until)
    labels = open_labels(request.labels, request.classes, request.rules)
    settings = FloorSettings(ForestConfig(trees=request.trees, seed=request.seed), seed=request.seed)
    blocks = labelled_series(plan, labels, request.split, request.classes, on_progress)
    jobs = os.cpu_count() or 1
    trained = train_forest(blocks, bands=plan.bands, classes=request.classes, settings=settings, jobs=jobs)
    training = trained.training | {
        "labels": os.path.basename(request.labels),
        "snapshots": {cube.path: cube.snapshot for cube in plan.cubes},
        "until": request.until,
        "split": asdict(request.split),
        "software": {"canopus": version("canopus")},
    }
    reference = save_classifier(
        plan.root, request.name, trained.classifier, classes=request.classes, metrics=trained.metrics, training=training
    )
    return TrainedModel(reference, trained.metrics, training)


def labelled_series(
    plan: MapPlan,
    labels: LabelSource,
    split: Split,
    classes: tuple[LandClass, ...],
    on_progress: Progress | None = None,
) -> Iterator[LabelledBlock]:
    """Yield the labelled pixels of an area, a region at a time; only cubes in the plan's own CRS are read.

    Raises
    ------
    ConfigurationError
        Where no label lies in the area, or fewer than two classes are labelled.
    """
    rows, columns = (int(size) for size in plan.staging.shape)
    folds = blocked_folds((rows, columns), block_size=split.block, folds=split.folds, seed=split.seed)
    yield from series_in_folds(plan, labels, folds, classes=classes, on_progress=on_progress)


def series_in_folds(
    plan: MapPlan,
    labels: LabelSource,
    folds: np.ndarray,
    *,
    classes: tuple[LandClass, ...],
    usable: np.ndarray | None = None,
    on_progress: Progress | None = None,
) -> Iterator[LabelledBlock]:
    """Yield the labelled pixels of an area with the folds of a split of one's own; as `labelled_series` otherwise.

    Parameters
    ----------
    plan : MapPlan
        Cubes and grid.
    labels : LabelSource
        What is known.
    folds : ndarray, shape (y, x), int8
        Of the whole staging grid.
    classes : tuple of LandClass
        For the message of an error.
    usable : ndarray, shape (y, x), bool, optional
        Where labels may be used; by default everywhere.
    on_progress : callable, optional
        Told of each region.

    Raises
    ------
    ConfigurationError
        Where no label lies in the area, or fewer than two classes are labelled.
    """
    labels.require_overlap([plan.product])
    found: set[int] = set()
    for count, region in enumerate(plan.regions, start=1):
        place = region["y"], region["x"]
        known = _labels_in(plan, labels, region)
        if usable is not None:
            known[~usable[place]] = NO_CLASS
        found |= set(np.unique(known).tolist()) - {NO_CLASS}
        if (known != NO_CLASS).any():
            yield from _series_of(plan, region, known, folds[place])
        if on_progress is not None:
            on_progress("labels", count, len(plan.regions))
    require_two_classes(found, classes)


def _labels_in(plan: MapPlan, labels: LabelSource, region: Region) -> np.ndarray:
    known = labels.on(plan.staging[region["y"], region["x"]])
    known[~plan.inside(region)] = NO_CLASS
    return known


def _series_of(plan: MapPlan, region: Region, labels: np.ndarray, folds: np.ndarray) -> Iterator[LabelledBlock]:
    target = plan.staging[region["y"], region["x"]]
    for cube in plan.cubes:
        if cube.tile.geobox.crs != target.crs:
            continue
        window = overlap(cube.tile.geobox, target)
        if window is None:
            continue
        row = round((cube.tile.geobox.affine.f - target.affine.f) / target.affine.e) + window["y"].start
        column = round((cube.tile.geobox.affine.c - target.affine.c) / target.affine.a) + window["x"].start
        part = (
            slice(row, row + window["y"].stop - window["y"].start),
            slice(column, column + window["x"].stop - window["x"].start),
        )
        block = plan.read(cube, window)
        times, bands = block.reflectance.shape[:2]
        pixels = np.flatnonzero((labels[part] != NO_CLASS).ravel() & block.valid.any(axis=0).ravel())
        if pixels.size:
            yield LabelledBlock(
                block.reflectance.reshape(times, bands, -1)[:, :, pixels],
                block.valid.reshape(times, -1)[:, pixels],
                block.times.astype("datetime64[D]"),
                labels[part].ravel()[pixels],
                folds[part].ravel()[pixels],
            )
