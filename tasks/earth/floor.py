"""Train the floor classifier, region by region, and score it on blocks that it has not seen."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.forest import ForestClassifier, ForestConfig, temporal_statistics
from storage.classes import LandClass
from tasks.earth.label_splits import NO_FOLD, blocked_folds
from tasks.earth.mapping import to_physical
from tasks.earth.scores import RankingScores, class_scores, ranking_scores
from tasks.errors import ConfigurationError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FloorSettings:
    """How the floor is trained.

    Parameters
    ----------
    forest : ForestConfig
        How the forest is grown.
    pixels : int
        Most pixels to train on, drawn evenly over all blocks, of each class in proportion to its labels: what is hard
        lies among the many, and a draw of equal classes would leave it out.
    least_per_class : int
        Of a rare class so many all the same; probabilities and scores are shifted back to the prevalence of the labels.
    min_looks : int
        Pixels with fewer valid looks are left out.
    seed : int
        Of the draw.
    """

    forest: ForestConfig = field(default_factory=ForestConfig)
    pixels: int = 20_000
    least_per_class: int = 1_000
    min_looks: int = 3
    seed: int = 0


@dataclass(frozen=True)
class LabelledBlock:
    """Series of the pixels of a region, and what is known of them.

    Parameters
    ----------
    reflectance : ndarray, shape (T, B, N)
        float32 reflectance 0-1, NaN where missing; or uint16 as stored (x 10,000, 0 = no data).
    valid : ndarray, shape (T, N), bool
        Where a look is clear.
    dates : ndarray, shape (T,), datetime64
        Days.
    labels : ndarray, shape (N,), uint8
        Class values; anything else is unlabelled.
    folds : ndarray, shape (N,), int8
        Fold that holds a pixel out; -1 where none does: such pixels are trained on in the end, never scored.
    """

    reflectance: np.ndarray
    valid: np.ndarray
    dates: np.ndarray
    labels: np.ndarray
    folds: np.ndarray


@dataclass(frozen=True)
class LabelledPixels:
    """Pixels to train on.

    Parameters
    ----------
    features : ndarray, shape (N, F), float32
        As `temporal_statistics` gives them.
    labels : ndarray, shape (N,), uint8
        Class values.
    folds : ndarray, shape (N,), int8
        As in `LabelledBlock`.
    weights : ndarray, shape (N,), float64
        Labelled pixels that each stands for.
    """

    features: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class TrainedFloor:
    """A classifier with its scores and where they come from.

    Parameters
    ----------
    classifier : ForestClassifier
        Fitted on every pixel drawn.
    metrics : dict
        Scores of the cross-validation, JSON types.
    training : dict
        Numbers of pixels and settings, JSON types.
    """

    classifier: ForestClassifier
    metrics: dict[str, Any]
    training: dict[str, Any]


def train_forest(
    blocks: Iterable[LabelledBlock],
    *,
    bands: Sequence[str],
    classes: Sequence[LandClass],
    settings: FloorSettings | None = None,
    jobs: int = 1,
) -> TrainedFloor:
    """Return the floor trained on all blocks, with the scores of its cross-validation.

    Blocks are looked at one after the other; only the features of the pixels drawn are kept.

    Parameters
    ----------
    blocks : iterable of LabelledBlock
        Regions, in an order that does not change between runs.
    bands : sequence of str
        Bands of the series.
    classes : sequence of LandClass
        Classes of the map.
    settings : FloorSettings, optional
        How to train.
    jobs : int
        Threads; the result does not depend on it.

    Raises
    ------
    ConfigurationError
        Where a class has no labelled pixel with enough looks, or all of them lie in one fold.
    """
    settings = settings or FloorSettings()
    pixels = draw_pixels(blocks, bands=bands, classes=classes, settings=settings, jobs=jobs)
    blank = untrained_forest(pixels, bands=bands, classes=classes, config=settings.forest)
    probability = cross_validate(blank, pixels, jobs=jobs)
    scored = pixels.folds != NO_FOLD
    metrics = class_scores(probability[scored], pixels.labels[scored], classes=classes, weights=pixels.weights[scored])
    log.info("trained on %d pixels of %d features", *pixels.features.shape)
    return TrainedFloor(
        classifier=blank.fit(pixels.features, pixels.labels, jobs=jobs),
        metrics={"evaluation": _evaluation(pixels), **metrics},
        training=_training(pixels, classes, settings),
    )


def draw_pixels(
    blocks: Iterable[LabelledBlock],
    *,
    bands: Sequence[str],
    classes: Sequence[LandClass],
    settings: FloorSettings,
    jobs: int = 1,
) -> LabelledPixels:
    """Return up to `pixels` pixels, each labelled pixel as likely as any other of its class.

    Raises
    ------
    ConfigurationError
        Where a class has no labelled pixel with enough looks.
    """
    draws = {known.value: _Draw(max(settings.pixels, settings.least_per_class)) for known in classes}
    for number, block in enumerate(blocks):
        keys = np.random.default_rng([settings.seed, number]).random(block.labels.size)
        usable = block.valid.sum(axis=0) >= settings.min_looks
        chosen = {
            value: draw.admit(np.flatnonzero(usable & (block.labels == value)), keys) for value, draw in draws.items()
        }
        pixels = np.concatenate(list(chosen.values()))
        features = _features(block, pixels, bands, jobs)
        for value, part in _split(features, chosen):
            draws[value].keep(keys[chosen[value]], part, block.folds[chosen[value]])
    empty = [known.name for known in classes if not draws[known.value].seen]
    if empty:
        raise ConfigurationError(
            f"class {', '.join(empty)} has no labelled pixel with {settings.min_looks} valid looks: check that the labels "
            "lie in the area, how their values map to classes, and whether the margin leaves any of them"
        )
    labelled = sum(draw.seen for draw in draws.values())
    for draw in draws.values():
        draw.trim(max(settings.least_per_class, round(settings.pixels * draw.seen / labelled)))
    return LabelledPixels(
        features=np.concatenate([draw.features for draw in draws.values()]),
        labels=np.concatenate([np.full(len(draw.keys), value, np.uint8) for value, draw in draws.items()]),
        folds=np.concatenate([draw.folds for draw in draws.values()]),
        weights=np.concatenate([np.full(len(draw.keys), draw.seen / len(draw.keys)) for draw in draws.values()]),
    )


def untrained_forest(
    pixels: LabelledPixels, *, bands: Sequence[str], classes: Sequence[LandClass], config: ForestConfig
) -> ForestClassifier:
    """Return the forest that is to be fitted on drawn pixels: its probabilities are shifted back to their prevalence."""
    values = tuple(known.value for known in classes)
    weights = np.array([pixels.weights[pixels.labels == value][0] for value in values])
    even = np.ptp(weights) == 0
    return ForestClassifier(
        tuple(bands), values, config, stands_for=() if even else tuple((weights / weights.max()).tolist())
    )


def cross_validate(classifier: ForestClassifier, pixels: LabelledPixels, *, jobs: int = 1) -> np.ndarray:
    """Return for each pixel the probabilities of a forest that was not trained on its fold, NaN where it has none.

    Parameters
    ----------
    classifier : ForestClassifier
        Need not be fitted.
    pixels : LabelledPixels
        With their folds.
    jobs : int
        Threads.

    Returns
    -------
    ndarray, shape (N, K), float32

    Raises
    ------
    ConfigurationError
        Where all pixels lie in one fold.
    """
    folds = np.unique(pixels.folds[pixels.folds != NO_FOLD])
    if folds.size < 2:
        raise ConfigurationError(
            "all labelled pixels lie in one block, so none can be held out: take smaller blocks or more labels"
        )
    probability = np.full((len(pixels.labels), len(classifier.classes)), np.nan, np.float32)
    for fold in folds:
        held = pixels.folds == fold
        seen = ~held & (pixels.folds != NO_FOLD)
        fitted = classifier.fit(pixels.features[seen], pixels.labels[seen], jobs=jobs)
        probability[held] = fitted.predict_proba(pixels.features[held], jobs=jobs)
    return probability


@dataclass(frozen=True)
class RepeatedScores:
    """Scores of one class over several splits.

    Parameters
    ----------
    per_seed : tuple of RankingScores
        One per split.
    """

    per_seed: tuple[RankingScores, ...]

    @property
    def pr_auc(self) -> np.ndarray:
        """Return PR-AUC of each split."""
        return np.array([scores.pr_auc for scores in self.per_seed], float)

    @property
    def roc_auc(self) -> np.ndarray:
        """Return ROC-AUC of each split."""
        return np.array([scores.roc_auc for scores in self.per_seed], float)


def repeat_cross_validation(
    features: np.ndarray,
    labels: np.ndarray,
    classifier: ForestClassifier,
    *,
    value: int,
    seeds: Sequence[int],
    block_size: int,
    folds: int = 5,
    cell: int = 1,
    jobs: int = 1,
) -> RepeatedScores:
    """Return how well one class is ranked, over several blocked splits of a small area.

    Parameters
    ----------
    features : ndarray, shape (y * x, F)
        Of every pixel of the area, row by row.
    labels : ndarray, shape (y, x)
        Class values, all known.
    classifier : ForestClassifier
        How to grow; its seed is that of the split.
    value : int
        The class that is scored against all others.
    seeds : sequence of int
        One split and one forest each.
    block_size : int
        Pixels on a side of a block.
    folds : int
        Pooled into one score per seed.
    cell : int
        Pixels on a side of a label's cell: their mean probability is scored once.
    jobs : int
        Threads.
    """
    flat = labels.ravel()
    per_seed = []
    for seed in seeds:
        split = blocked_folds((labels.shape[0], labels.shape[1]), block_size=block_size, folds=folds, seed=seed).ravel()
        seeded = replace(classifier, config=replace(classifier.config, seed=seed))
        pixels = LabelledPixels(features, flat, split, np.ones(flat.size))
        probability = cross_validate(seeded, pixels, jobs=jobs)[:, classifier.classes.index(value)]
        score = _cell_means(probability.reshape(labels.shape), cell)
        per_seed.append(ranking_scores((labels[::cell, ::cell] == value).ravel(), score.ravel()))
    return RepeatedScores(tuple(per_seed))


class _Draw:
    """An even draw from a stream: every pixel gets a random key, and the smallest keys stay."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen = 0
        self.keys = np.empty(0)
        self.features = np.empty((0, 0), np.float32)
        self.folds = np.empty(0, np.int8)

    def admit(self, pixels: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return which of these pixels have a chance, before their features are made."""
        self.seen += pixels.size
        limit = self.keys.max() if len(self.keys) == self.size else np.inf
        below = pixels[keys[pixels] < limit]
        return np.sort(below[np.argsort(keys[below])[: self.size]])

    def keep(self, keys: np.ndarray, features: np.ndarray, folds: np.ndarray) -> None:
        """Take pixels in and drop those with the largest keys."""
        if not len(keys):
            return
        held = self.features if len(self.keys) else features[:0]
        self.keys = np.concatenate([self.keys, keys])
        self.features = np.concatenate([held, features])
        self.folds = np.concatenate([self.folds, folds])
        self.trim(self.size)

    def trim(self, size: int) -> None:
        """Keep the smallest keys, in the order in which they came."""
        smallest = np.sort(np.argsort(self.keys)[:size])
        self.keys, self.features, self.folds = self.keys[smallest], self.features[smallest], self.folds[smallest]


def _features(block: LabelledBlock, pixels: np.ndarray, bands: Sequence[str], jobs: int) -> np.ndarray:
    reflectance = block.reflectance[:, :, pixels]
    if reflectance.dtype == np.uint16:
        reflectance = to_physical(reflectance)
    return temporal_statistics(reflectance, block.valid[:, pixels], block.dates, bands, jobs=jobs)


def _split(features: np.ndarray, chosen: Mapping[int, np.ndarray]) -> Iterable[tuple[int, np.ndarray]]:
    start = 0
    for value, pixels in chosen.items():
        yield value, features[start : start + pixels.size]
        start += pixels.size


def _cell_means(values: np.ndarray, cell: int) -> np.ndarray:
    rows, columns = values.shape
    return np.asarray(values.reshape(rows // cell, cell, columns // cell, cell).mean(axis=(1, 3)))


def _evaluation(pixels: LabelledPixels) -> str:
    folds = np.unique(pixels.folds[pixels.folds != NO_FOLD]).size
    return f"pooled {folds}-fold cross-validation over spatial blocks; pixels weighted to the prevalence of the labels"


def _training(pixels: LabelledPixels, classes: Sequence[LandClass], settings: FloorSettings) -> dict[str, Any]:
    own = {known.name: pixels.labels == known.value for known in classes}
    return {
        "pixels_used": {name: int(mask.sum()) for name, mask in own.items()},
        "pixels_labelled": {name: round(float(pixels.weights[mask].sum())) for name, mask in own.items()},
        "features": int(pixels.features.shape[1]),
        "pixels_at_most": settings.pixels,
        "least_per_class": settings.least_per_class,
        "min_looks": settings.min_looks,
        "seed": settings.seed,
    }
