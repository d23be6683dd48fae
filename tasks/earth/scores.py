"""Scores of predictions against held-out labels: they describe those labels, not the whole map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RankingScores:
    """How well a probability ranks one class above the rest.

    Parameters
    ----------
    roc_auc : float or None
        Area under the ROC curve; None where the class, or everything else, is absent.
    pr_auc : float or None
        Average precision (no interpolation); a random ranking scores `prevalence`.
    prevalence : float
        Weighted share of the class in the reference.
    """

    roc_auc: float | None
    pr_auc: float | None
    prevalence: float


def confusion_matrix(
    mapped: np.ndarray, reference: np.ndarray, classes: Sequence[int], *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return counts (or sums of weights), map in rows and reference in columns.

    Parameters
    ----------
    mapped, reference : ndarray, shape (N,), int
        Class values.
    classes : sequence of int
        Order of rows and columns.
    weights : ndarray, shape (N,), optional
        What each pixel stands for.

    Returns
    -------
    ndarray, shape (K, K), float64

    Raises
    ------
    ValueError
        Where a value is none of `classes`.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), (0, 1))
    array([[1., 0.],
           [1., 1.]])
    """
    rows, columns = _positions(mapped, classes), _positions(reference, classes)
    matrix = np.zeros((len(classes), len(classes)))
    np.add.at(matrix, (rows, columns), 1.0 if weights is None else weights)
    return matrix


def ranking_scores(positive: np.ndarray, score: np.ndarray, *, weights: np.ndarray | None = None) -> RankingScores:
    """Return ROC-AUC, PR-AUC and prevalence.

    Parameters
    ----------
    positive : ndarray, shape (N,), bool
        Where the reference is the class.
    score : ndarray, shape (N,)
        Probability, or anything that ranks alike.
    weights : ndarray, shape (N,), optional
        What each pixel stands for; PR-AUC moves with prevalence, so a balanced subsample needs them.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    prevalence = float(np.average(positive, weights=weights)) if positive.size else math.nan
    if not 0 < prevalence < 1:
        return RankingScores(None, None, prevalence)
    return RankingScores(
        roc_auc=float(roc_auc_score(positive, score, sample_weight=weights)),
        pr_auc=float(average_precision_score(positive, score, sample_weight=weights)),
        prevalence=prevalence,
    )


def reliability(
    positive: np.ndarray, probability: np.ndarray, *, bins: int = 10, weights: np.ndarray | None = None
) -> dict[str, Any]:
    """Return mean probability against observed share in equal bins, and the expected calibration error.

    Parameters
    ----------
    positive : ndarray, shape (N,), bool
        Where the reference is the class.
    probability : ndarray, shape (N,)
        Of the class, 0-1.
    bins : int
        Of equal width; empty ones are left out.
    weights : ndarray, shape (N,), optional
        What each pixel stands for.
    """
    weight = np.ones(len(positive)) if weights is None else weights
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    total = np.bincount(bin_of, weight, bins)
    filled = total > 0
    predicted = np.bincount(bin_of, weight * probability, bins)[filled] / total[filled]
    observed = np.bincount(bin_of, weight * positive, bins)[filled] / total[filled]
    share = total[filled] / total.sum()
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "share": share.tolist(),
        "expected_calibration_error": float((share * np.abs(predicted - observed)).sum()),
    }


def _positions(values: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    known = np.isin(values, classes)
    if not known.all():
        unknown = sorted({int(value) for value in values[~known]})
        raise ValueError(f"values {unknown} are none of the classes {list(classes)}")
    order = np.argsort(classes)
    return np.asarray(order[np.searchsorted(np.asarray(classes)[order], values)])
