"""The floors of a canopy evaluation: a forest on temporal statistics that has not seen what it answers for, and NDVI."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.forest import ForestClassifier, ForestConfig, temporal_statistics
from models.indices import INDICES
from storage.classes import LandClass
from storage.cube import SeriesBlock
from storage.export import Axis, Layer
from tasks.earth.floor import FloorSettings, draw_pixels, untrained_forest
from tasks.earth.label_report import TileSplit, explain_area, split_area
from tasks.earth.label_rules import LabelRules
from tasks.earth.label_splits import NO_FOLD, PARTS, blocked_folds
from tasks.earth.labels import open_labels
from tasks.earth.layers import LOOKS
from tasks.earth.mapping import MapPlan, count_looks, empty_layers, looks_at
from tasks.earth.training import series_in_folds

FOREST, NDVI = "forest", "mean_ndvi"
_AT_ONCE = 16_384

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FloorSource:
    """What the forest is trained on: what the model was trained on, so that the two can be compared.

    Parameters
    ----------
    labels : str
        Polygons or raster.
    rules : LabelRules
        How it is read.
    area : dict, optional
        GeoJSON geometry, EPSG:4326; by default the area that is scored.
    warehouse : str, optional
        URL; by default that of the model.
    until : str, optional
        Last day of the looks; by default that of the map.
    split : TileSplit, optional
        Only its train tiles are used; by default all labels.
    """

    labels: str
    rules: LabelRules
    area: dict[str, Any] | None = None
    warehouse: str | None = None
    until: str | None = None
    split: TileSplit | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Return whether it lies in another area or warehouse than what is scored."""
        return self.area is not None or self.warehouse is not None


def source_of_model(training: Mapping[str, Any], *, area: dict[str, Any], warehouse: str) -> FloorSource | None:
    """Return the labels that a canopy model says it was trained on; None where it says none, or they are not at hand.

    Parameters
    ----------
    training : mapping
        Its training.json.
    area, warehouse : dict, str
        What is scored: labels of the same place have no place of their own.
    """
    told = training.get("labels")
    if not isinstance(told, Mapping) or "path" not in told or not Path(told["path"]).exists():
        return None
    same = told["area"] == json.loads(json.dumps(area)) and told["warehouse"] == warehouse
    split = {**told["split"], "shares": tuple(told["split"]["shares"])}
    return FloorSource(
        labels=told["path"],
        rules=LabelRules(**told["rules"]),
        area=None if same else told["area"],
        warehouse=None if same else told["warehouse"],
        until=told["until"],
        split=TileSplit(**split),
    )


@dataclass(frozen=True)
class Forests:
    """Forests, and which of them answers for a pixel.

    Parameters
    ----------
    fitted : tuple of ForestClassifier
    fold : ndarray, shape (y, x), int8
        Of the staging grid: the number of the forest, which was not trained there.
    classes : tuple of LandClass
        In the order of their probabilities.
    trained_on : dict
        For the report, JSON types.
    """

    fitted: tuple[ForestClassifier, ...]
    fold: np.ndarray
    classes: tuple[LandClass, ...]
    trained_on: dict[str, Any]


def train_forests(
    plan: MapPlan,
    source: FloorSource,
    classes: tuple[LandClass, ...],
    *,
    folds: np.ndarray,
    usable: np.ndarray | None = None,
    config: ForestConfig | None = None,
    on_progress: Progress | None = None,
) -> tuple[tuple[ForestClassifier, ...], dict[str, int]]:
    """Return one forest per fold, trained on all other folds; or a single one where all pixels are of one fold.

    Parameters
    ----------
    plan : MapPlan
        Where the labels lie.
    source : FloorSource
        The labels.
    classes : tuple of LandClass
        Of the map.
    folds : ndarray, shape (y, x), int8
        Of the plan's staging grid.
    usable : ndarray, shape (y, x), bool, optional
        Where labels may be used.
    config : ForestConfig, optional
        How they are grown.
    on_progress : callable, optional
        Told of each region.

    Returns
    -------
    tuple of ForestClassifier, and the number of pixels drawn per class
    """
    labels = open_labels(source.labels, classes, source.rules)
    blocks = series_in_folds(plan, labels, folds, classes=classes, usable=usable, on_progress=on_progress)
    settings = FloorSettings(config or ForestConfig())
    jobs = os.cpu_count() or 1
    pixels = draw_pixels(blocks, bands=plan.bands, classes=classes, settings=settings, jobs=jobs)
    blank = untrained_forest(pixels, bands=plan.bands, classes=classes, config=settings.forest)
    numbers = np.unique(folds[folds != NO_FOLD])
    seen = [pixels.folds != fold for fold in numbers] if numbers.size > 1 else [np.ones(len(pixels.labels), bool)]
    fitted = tuple(blank.fit(pixels.features[own], pixels.labels[own], jobs=jobs) for own in seen)
    return fitted, {known.name: int((pixels.labels == known.value).sum()) for known in classes}


def forests_of(
    plan: MapPlan,
    source: FloorSource,
    classes: tuple[LandClass, ...],
    *,
    elsewhere: MapPlan | None,
    usable: np.ndarray | None,
    block: int,
    folds: int,
    config: ForestConfig | None = None,
    on_progress: Progress | None = None,
) -> Forests:
    """Return forests none of which answers for a pixel that it was trained on.

    Trained in another area, or on the part that is not held out, it is one forest; else there is one for each fold of
    blocks, trained on the others.

    Parameters
    ----------
    plan : MapPlan
        What is scored.
    source : FloorSource
        Labels to train on.
    classes : tuple of LandClass
        Of the map.
    elsewhere : MapPlan or None
        Where the labels lie, unless that is `plan`.
    usable : ndarray, shape (y, x), bool or None
        The part of `plan` that is not held out; None where nothing is.
    block, folds : int
        Of the cross-validation.
    config : ForestConfig, optional
        How they are grown.
    on_progress : callable, optional
        Told of each region.
    """
    shape = (int(plan.staging.shape[0]), int(plan.staging.shape[1]))
    own = np.zeros(shape, np.int8)
    given: dict[str, Any] = {"config": config, "on_progress": on_progress}
    if elsewhere is not None:
        there = np.zeros((int(elsewhere.staging.shape[0]), int(elsewhere.staging.shape[1])), np.int8)
        train = train_tiles(elsewhere, source, classes)
        fitted, drawn = train_forests(elsewhere, source, classes, folds=there, usable=train, **given)
        how = "another area" if train is None else "the train tiles of another area"
    elif usable is not None:
        fitted, drawn = train_forests(plan, source, classes, folds=own, usable=usable, **given)
        how = "the part of the area that is not held out"
    else:
        own = blocked_folds(shape, block_size=block, folds=folds, seed=0)
        fitted, drawn = train_forests(plan, source, classes, folds=own, **given)
        how = f"the other {folds - 1} of {folds} folds of {block} x {block} pixels, in turn"
    until = (elsewhere or plan).until
    trained_on = {
        "labels": source.labels,
        "rules": asdict(source.rules),
        "where": how,
        "until": str(until) if until is not None else None,
        "pixels": drawn,
    }
    return Forests(fitted, own, classes, trained_on)


def train_tiles(plan: MapPlan, source: FloorSource, classes: tuple[LandClass, ...]) -> np.ndarray | None:
    """Return which pixels of the staging grid are train tiles of the labels' split, (y, x) bool; None without one."""
    if source.split is None:
        return None
    known, _ = explain_area(plan, open_labels(source.labels, classes, source.rules))
    return split_area(known.classes, source.split) == PARTS.index("train")


def floor_layers(forests: int, classes: Sequence[LandClass]) -> tuple[Layer, ...]:
    """Return the layers that `fill_floors` fills, in memory only."""
    columns = Axis("column", tuple(range(forests * len(classes))))
    return (
        Layer(FOREST, "Probabilities of each forest", "float32", np.nan, axes=(columns,)),
        Layer(NDVI, "Mean NDVI of the valid looks", "float32", np.nan),
        *LOOKS,
    )


def fill_floors(
    block: SeriesBlock, *, forests: Forests, bands: Sequence[str], classes: Sequence[LandClass]
) -> dict[str, np.ndarray]:
    """Return what the floors say of a window of a cube: every forest's probabilities, and mean NDVI."""
    layers = empty_layers(floor_layers(len(forests.fitted), classes), block.valid.shape[1:])
    probability = layers[FOREST].reshape(len(forests.fitted) * len(classes), -1)
    ndvi = layers[NDVI].reshape(-1)
    jobs = os.cpu_count() or 1
    for looks in looks_at(block, at_once=_AT_ONCE):
        features = temporal_statistics(looks.reflectance, looks.valid, looks.dates, bands, jobs=jobs)
        found = [forest.predict_proba(features, jobs=jobs).T for forest in forests.fitted]
        probability[:, looks.pixels] = np.concatenate(found)
        ndvi[looks.pixels] = mean_ndvi(looks.reflectance, looks.valid, bands)
    count_looks(block, layers)
    return layers


def mean_ndvi(reflectance: np.ndarray, valid: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return the mean NDVI of each pixel's valid looks, (time, band, pixel) -> (pixel,); NaN without the bands."""
    index = INDICES["ndvi"]
    if not set(index.bands) <= set(bands):
        return np.full(valid.shape[1], np.nan, np.float32)
    values = index.formula(*(reflectance[:, list(bands).index(band)] for band in index.bands))
    counted = valid & np.isfinite(values)
    total = np.where(counted, values, 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / counted.sum(axis=0), dtype=np.float32)
