"""Training region by region: even draws, honest folds, scores that keep the prevalence of the labels."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from models.forest import ForestClassifier, ForestConfig, feature_names, temporal_statistics
from storage.classes import CANOPY_CLASSES, NO_CLASS
from tasks.earth.floor import (
    FloorSettings,
    LabelledBlock,
    LabelledPixels,
    cross_validate,
    draw_pixels,
    repeat_cross_validation,
    train_forest,
)
from tasks.errors import ConfigurationError

BANDS = ("B04", "B08")
DATES = np.datetime64("2021-01-05") + 12 * np.arange(30)
SETTINGS = FloorSettings(ForestConfig(trees=20), pixels=600, least_per_class=60)


def block(seed: int, pixels: int = 400) -> LabelledBlock:
    """Return series of three classes that differ in near infrared and its season; a tenth is unlabelled."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2], pixels, p=[0.8, 0.15, 0.05]).astype(np.uint8)
    season = -np.cos(2 * np.pi * (DATES - DATES.astype("datetime64[Y]")).astype(int) / 365.25)
    nir = np.array([0.20, 0.26, 0.26])[labels] + np.array([0.03, 0.10, 0.02])[labels] * season[:, None]
    reflectance = np.stack([np.full_like(nir, 0.06), nir], axis=1) + rng.normal(0, 0.03, (30, 2, pixels))
    labels[rng.random(pixels) < 0.1] = NO_CLASS
    valid = rng.random((30, pixels)) < 0.6
    return LabelledBlock(
        reflectance.astype(np.float32), valid, DATES, labels, rng.integers(0, 4, pixels).astype(np.int8)
    )


def blocks(count: int = 5) -> Iterator[LabelledBlock]:
    yield from (block(seed) for seed in range(count))


def labelled(count: int = 5) -> np.ndarray:
    return np.concatenate([part.labels for part in blocks(count)])


def draw(settings: FloorSettings = SETTINGS) -> LabelledPixels:
    return draw_pixels(blocks(), bands=BANDS, classes=CANOPY_CLASSES, settings=settings)


def test_classes_are_drawn_as_labelled_and_rare_ones_a_little_more() -> None:
    pixels = draw()
    available = np.array([(labelled() == value).sum() for value in (0, 1, 2)])
    drawn = np.bincount(pixels.labels, minlength=3)
    np.testing.assert_array_equal(drawn, np.maximum(60, np.round(600 * available / available.sum())))
    assert drawn[2] == 60
    weights = np.bincount(pixels.labels, pixels.weights)
    np.testing.assert_allclose(weights, available)


def test_the_draw_is_even_over_blocks() -> None:
    """Each block holds a fifth of the pixels, and so a fifth of the draw, whichever came first."""
    origin = np.zeros(5)
    for seed in range(30):
        settings = FloorSettings(pixels=150, least_per_class=0, seed=seed)
        parts = [
            LabelledBlock(b.reflectance, b.valid, b.dates, b.labels, np.full(400, n, np.int8))
            for n, b in enumerate(blocks())
        ]
        folds = draw_pixels(parts, bands=BANDS, classes=CANOPY_CLASSES, settings=settings).folds
        origin += np.bincount(folds, minlength=5)
    np.testing.assert_allclose(origin / origin.sum(), 0.2, atol=0.03)


def test_features_belong_to_the_pixels_drawn() -> None:
    one = block(0)
    pixels = draw_pixels([one], bands=BANDS, classes=CANOPY_CLASSES, settings=FloorSettings(pixels=10**6))
    everything = temporal_statistics(one.reflectance, one.valid, one.dates, BANDS)
    expected = np.concatenate([everything[one.labels == value] for value in (0, 1, 2)])
    np.testing.assert_array_equal(pixels.features, expected)
    assert (pixels.weights == 1).all()


def test_a_block_as_stored_gives_the_same_features_as_a_physical_one() -> None:
    one = block(0)
    stored = np.clip(np.round(one.reflectance * 10_000), 1, 65535).astype(np.uint16)
    stored[3, 1, 7] = 0
    physical = stored.astype(np.float32) * np.float32(1e-4)
    physical[3, 1, 7] = np.nan
    from_cube = LabelledBlock(stored, one.valid, DATES, one.labels, one.folds)
    plain = LabelledBlock(physical, one.valid, DATES, one.labels, one.folds)
    a, b = (draw_pixels([x], bands=BANDS, classes=CANOPY_CLASSES, settings=SETTINGS) for x in (from_cube, plain))
    np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(a.folds, b.folds)


def test_training_twice_gives_the_same_weights_and_scores() -> None:
    one, two = (train_forest(blocks(), bands=BANDS, classes=CANOPY_CLASSES, settings=SETTINGS, jobs=j) for j in (1, 2))
    for name, tensor in one.classifier.to_tensors().items():
        np.testing.assert_array_equal(tensor, two.classifier.to_tensors()[name])
    assert one.metrics == two.metrics
    json.dumps([one.metrics, one.training], allow_nan=False)


def test_scores_are_those_of_labels_at_their_prevalence() -> None:
    """Capped and weighted, they agree with scores of every labelled pixel."""
    capped = train_forest(
        blocks(12), bands=BANDS, classes=CANOPY_CLASSES, settings=FloorSettings(ForestConfig(trees=40), 600, 400)
    )
    whole = train_forest(
        blocks(12), bands=BANDS, classes=CANOPY_CLASSES, settings=FloorSettings(ForestConfig(trees=40), 10**6)
    )
    assert whole.training["pixels_used"]["none"] > 3 * capped.training["pixels_used"]["none"]
    assert capped.training["pixels_labelled"] == whole.training["pixels_labelled"]
    share = (labelled(12) == 0).sum() / (labelled(12) != NO_CLASS).sum()
    for found in (capped, whole):
        assert found.metrics["classes"]["none"]["prevalence"] == pytest.approx(share)
        assert found.metrics["canopy"]["prevalence"] == pytest.approx(1 - share)
    assert capped.metrics["canopy"]["pr_auc"] == pytest.approx(whole.metrics["canopy"]["pr_auc"], abs=0.04)
    assert capped.metrics["overall_accuracy"] == pytest.approx(whole.metrics["overall_accuracy"], abs=0.03)
    assert sum(map(sum, capped.metrics["confusion"]["matrix"])) == pytest.approx(
        (labelled(12) != NO_CLASS).sum(), rel=1e-3
    )


def test_probabilities_keep_the_prevalence_despite_an_uneven_draw() -> None:
    even = FloorSettings(ForestConfig(trees=40), pixels=0, least_per_class=150)
    found = train_forest(blocks(12), bands=BANDS, classes=CANOPY_CLASSES, settings=even)
    assert set(found.training["pixels_used"].values()) == {150}
    fresh = block(99, pixels=4000)
    probability = found.classifier.probabilities(fresh.reflectance, fresh.valid, fresh.dates)
    assert probability[:, 0].mean() == pytest.approx(0.8, abs=0.06)
    known = fresh.labels != NO_CLASS
    assert average_precision_score(fresh.labels[known] != 0, 1 - probability[known, 0]) > 0.9


def test_held_out_folds_are_never_trained_on() -> None:
    """Labels are pure noise but each fold repeats one pixel: only a leak could predict them."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(40, len(feature_names(BANDS)))), 10, axis=0).astype(np.float32)
    labels = np.repeat(rng.integers(0, 2, 40), 10).astype(np.uint8)
    classifier = ForestClassifier(BANDS, (0, 1), ForestConfig(trees=30))
    by_block = LabelledPixels(features, labels, np.repeat(np.arange(40), 10).astype(np.int8) % 5, np.ones(400))
    leaky = LabelledPixels(features, labels, np.tile(np.arange(5), 80).astype(np.int8), np.ones(400))
    honest = (cross_validate(classifier, by_block).argmax(axis=1) == labels).mean()
    assert honest < 0.7
    assert (cross_validate(classifier, leaky).argmax(axis=1) == labels).mean() > 0.95


def test_pixels_in_gaps_are_not_scored() -> None:
    pixels = draw()
    gap = pixels.folds == 0
    with_gap = LabelledPixels(
        pixels.features, pixels.labels, np.where(gap, -1, pixels.folds).astype(np.int8), pixels.weights
    )
    probability = cross_validate(ForestClassifier(BANDS, (0, 1, 2), SETTINGS.forest), with_gap)
    assert np.isnan(probability[gap]).all()
    assert np.isfinite(probability[~gap]).all()


def test_what_cannot_be_trained_says_what_to_do() -> None:
    one = block(0)
    without = LabelledBlock(one.reflectance, one.valid, DATES, np.where(one.labels == 2, 255, one.labels), one.folds)
    with pytest.raises(ConfigurationError, match="class conifer has no labelled pixel"):
        train_forest([without], bands=BANDS, classes=CANOPY_CLASSES)
    cloudy = LabelledBlock(one.reflectance, np.zeros_like(one.valid), DATES, one.labels, one.folds)
    with pytest.raises(ConfigurationError, match="3 valid looks"):
        train_forest([cloudy], bands=BANDS, classes=CANOPY_CLASSES)
    one_fold = LabelledBlock(one.reflectance, one.valid, DATES, one.labels, np.zeros_like(one.folds))
    with pytest.raises(ConfigurationError, match="smaller blocks"):
        train_forest([one_fold], bands=BANDS, classes=CANOPY_CLASSES)


def test_repeated_splits_score_cells_of_pixels_once() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 2, (20, 20)).astype(np.uint8)
    labels = cells.repeat(2, axis=0).repeat(2, axis=1)
    features = rng.normal(size=(1600, len(feature_names(BANDS)))).astype(np.float32)
    features[:, :10] += 0.4 * labels.ravel()[:, None]
    classifier = ForestClassifier(BANDS, (0, 1), ForestConfig(trees=10))
    by_cell = repeat_cross_validation(features, labels, classifier, value=1, seeds=(0, 1, 2), block_size=8, cell=2)
    by_pixel = repeat_cross_validation(features, labels, classifier, value=1, seeds=(0, 1, 2), block_size=8)
    assert len(by_cell.per_seed) == 3
    assert by_cell.per_seed[0].prevalence == pytest.approx(cells.mean())
    assert by_cell.pr_auc.mean() > by_pixel.pr_auc.mean()  # four noisy pixels say more than one
    assert len(set(by_cell.pr_auc)) == 3
