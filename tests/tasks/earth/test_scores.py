"""Confusion, ranking scores and reliability against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from storage.classes import CANOPY_CLASSES, CANOPY_OR_NOT
from tasks.earth.scores import (
    RankingScores,
    class_scores,
    confusion_matrix,
    f1_score,
    precision_recall,
    ranking_scores,
    reliability,
)


def test_confusion_has_the_map_in_rows() -> None:
    mapped = np.array([0, 0, 0, 2, 2, 1])
    reference = np.array([0, 2, 2, 2, 0, 1])
    np.testing.assert_array_equal(confusion_matrix(mapped, reference, (0, 1, 2)), [[1, 0, 2], [0, 1, 0], [1, 0, 1]])


def test_confusion_follows_the_order_of_the_classes_and_adds_weights() -> None:
    matrix = confusion_matrix(np.array([30, 7]), np.array([7, 7]), (30, 7), weights=np.array([2.0, 5.0]))
    np.testing.assert_array_equal(matrix, [[0, 2], [0, 5]])


def test_confusion_names_an_unknown_value() -> None:
    with pytest.raises(ValueError, match=r"\[255\]"):
        confusion_matrix(np.array([255]), np.array([0]), (0, 1))


def test_ranking_scores_of_a_small_ranking() -> None:
    # by falling score: positive, negative, positive, negative; precision 1 at recall 1/2, 2/3 at recall 1
    scores = ranking_scores(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1]))
    assert scores.pr_auc == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert scores.roc_auc == pytest.approx(3 / 4)
    assert scores.prevalence == 0.5


def test_weights_undo_a_balanced_subsample() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(40_000) < 0.05
    score = rng.normal(size=40_000) + 1.5 * positive
    kept = positive | (rng.random(40_000) < 0.2)
    weights = np.where(positive, 1.0, 5.0)[kept]
    whole = ranking_scores(positive, score)
    subsample = ranking_scores(positive[kept], score[kept], weights=weights)
    plain = ranking_scores(positive[kept], score[kept])
    assert whole.pr_auc is not None
    assert subsample.pr_auc == pytest.approx(whole.pr_auc, abs=0.03)
    assert plain.pr_auc is not None
    assert plain.pr_auc > whole.pr_auc + 0.15
    assert subsample.prevalence == pytest.approx(whole.prevalence, abs=0.003)


def test_scores_of_an_absent_class_are_none_not_a_number() -> None:
    assert ranking_scores(np.zeros(3, bool), np.arange(3.0)) == RankingScores(None, None, 0.0)


def test_reliability_finds_the_calibration_error_that_was_put_in() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(200_000)
    positive = rng.random(200_000) < truth
    honest = reliability(positive, truth)
    bold = reliability(positive, np.where(truth > 0.5, 0.95, 0.05))
    assert honest["expected_calibration_error"] < 0.005
    assert bold["expected_calibration_error"] == pytest.approx(0.2, abs=0.005)
    assert sum(honest["share"]) == pytest.approx(1)


def test_f1_of_counts_made_by_hand() -> None:
    positive = np.array([True, True, True, False, False])
    mapped = np.array([True, True, False, True, False])
    assert f1_score(positive, mapped) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f1_score(positive, mapped, weights=np.array([1.0, 1, 4, 1, 1])) == pytest.approx(4 / (4 + 1 + 4))
    assert f1_score(np.zeros(3, bool), np.zeros(3, bool)) is None


def test_the_curve_holds_the_average_precision() -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(20_000) < 0.2
    score = rng.normal(size=20_000) + positive
    curve = precision_recall(positive, score)
    assert np.all(np.diff(curve["recall"]) > 0)
    assert np.all(np.diff(curve["precision"]) <= 0)
    assert curve["precision"][-1] == pytest.approx(0.2, abs=0.01)
    area = np.trapezoid(curve["precision"], curve["recall"])
    assert area == pytest.approx(ranking_scores(positive, score).pr_auc, abs=0.02)
    assert precision_recall(np.ones(3, bool), np.arange(3.0)) == {"recall": [], "precision": []}


def test_a_perfect_ranking_has_precision_one_at_every_recall() -> None:
    positive = np.arange(100) >= 60
    assert set(precision_recall(positive, np.arange(100.0))["precision"]) == {1.0}


def test_scores_of_classes_and_of_canopy_as_a_whole() -> None:
    labels = np.array([0, 0, 1, 2, 2])
    probability = np.array([[0.9, 0.1, 0], [0.4, 0.5, 0.1], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7], [0.6, 0.1, 0.3]])
    found = class_scores(probability, labels, classes=CANOPY_CLASSES)
    assert found["overall_accuracy"] == pytest.approx(2 / 5)
    assert found["classes"]["conifer"]["f1"] == pytest.approx(2 / (2 + 1 + 1))
    # mapped as canopy: 1, 2, 3; canopy: 2, 3, 4
    assert found["canopy"]["f1"] == pytest.approx(4 / 6)
    assert found["canopy"]["prevalence"] == pytest.approx(0.6)
    # canopy 0.1 0.6 0.8 0.9 0.4: one of six pairs is the wrong way round
    assert found["canopy"]["roc_auc"] == pytest.approx(5 / 6)
    other = class_scores(probability, labels, classes=CANOPY_CLASSES, mapped=labels)
    assert other["canopy"]["f1"] == other["overall_accuracy"] == 1.0


def test_kinds_of_canopy_are_scored_among_pixels_that_are_canopy_in_both() -> None:
    labels = np.array([1, 1, 1, 2, 2, 0, 1])
    mapped = np.array([1, 1, 2, 2, 2, 1, 0])  # the last two are no matter of kind
    kinds = class_scores(np.eye(3)[mapped], labels, classes=CANOPY_CLASSES)["kinds"]
    assert kinds["broadleaved"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert kinds["conifer"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert "kinds" not in class_scores(np.eye(2)[labels % 2], labels % 2, classes=CANOPY_OR_NOT)
