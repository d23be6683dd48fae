"""Scores of predictions against held-out labels: they describe those labels, not the whole map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storage.classes import NO_CANOPY, NO_CLASS, LandClass

CURVE_POINTS = 101


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


def class_scores(
    probability: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[LandClass],
    mapped: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the scores of probabilities against labels as JSON types.

    Parameters
    ----------
    probability : ndarray, shape (N, K)
        In the order of `classes`.
    labels : ndarray, shape (N,)
        Class values.
    classes : sequence of LandClass
        Classes of the map; where one is called ``"none"``, the others together are scored as ``"canopy"``.
    mapped : ndarray, shape (N,), optional
        The map's class values; by default the most probable class.
    weights : ndarray, shape (N,), optional
        What each pixel stands for.

    Returns
    -------
    dict
        ``overall_accuracy``; ``confusion``; ``classes`` and, where there is ``"none"``, ``canopy``: ROC-AUC, PR-AUC,
        prevalence, F1 at the map's class, and expected calibration error; with two kinds of canopy or more, ``kinds``: F1 of
        each among pixels that are canopy in the labels and on the map.
    """
    values = [known.value for known in classes]
    if mapped is None:
        mapped = np.asarray(values)[probability.argmax(axis=1)]
    matrix = confusion_matrix(mapped, labels, values, weights=weights)
    found: dict[str, Any] = {
        "overall_accuracy": float(np.trace(matrix) / matrix.sum()),
        "confusion": {"rows": "map", "columns": "reference", "matrix": matrix.round(1).tolist()},
        "classes": {
            known.name: _one_class(
                labels == known.value, probability[:, k], mapped=mapped == known.value, weights=weights
            )
            for k, known in enumerate(classes)
        },
    }
    place = canopy_of(classes)
    if place is not None:
        none, column = place
        canopy = 1 - probability[:, column].astype(float)
        found["canopy"] = _one_class(labels != none, canopy, mapped=mapped != none, weights=weights)
        kinds = [known for known in classes if known.value != none]
        both = (labels != none) & (mapped != none)
        if len(kinds) > 1:
            own = None if weights is None else weights[both]
            found["kinds"] = {
                known.name: f1_score(labels[both] == known.value, mapped[both] == known.value, weights=own)
                for known in kinds
            }
    return found


def canopy_of(classes: Sequence[LandClass]) -> tuple[int, int] | None:
    """Return value and column of the class that is not canopy, None where there is none."""
    return next(((known.value, k) for k, known in enumerate(classes) if known.name == NO_CANOPY), None)


def has_kinds(classes: Sequence[LandClass]) -> bool:
    """Return whether several classes are canopy."""
    return canopy_of(classes) is not None and len(classes) > 2


def kinds_together(
    values: np.ndarray, probability: np.ndarray, classes: Sequence[LandClass]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a map and its probabilities (class, ...) with the kinds of canopy together, as `CANOPY_OR_NOT` numbers them."""
    place = canopy_of(classes)
    assert place is not None
    none, column = place
    together = np.where(values == NO_CLASS, NO_CLASS, values != none).astype(np.uint8)
    return together, np.stack([probability[column], 1 - probability[column]])


def f1_score(positive: np.ndarray, mapped: np.ndarray, *, weights: np.ndarray | None = None) -> float | None:
    """Return 2 TP / (2 TP + FP + FN); None where the class is neither in the reference nor on the map."""
    weight = np.ones(len(positive)) if weights is None else weights
    both = float(weight[positive & mapped].sum())
    total = float(weight[positive].sum() + weight[mapped].sum())
    return 2 * both / total if total else None


def precision_recall(positive: np.ndarray, score: np.ndarray) -> dict[str, list[float]]:
    """Return the precision at each hundredth of recall, the best at or beyond it; empty where a class is absent."""
    from sklearn.metrics import precision_recall_curve

    if not 0 < positive.mean() < 1:
        return {"recall": [], "precision": []}
    precision, recall, _ = precision_recall_curve(positive, score)  # by falling recall
    best = np.maximum.accumulate(precision[:-1])[::-1]
    wanted = np.linspace(0, 1, CURVE_POINTS)
    at = np.searchsorted(recall[:-1][::-1], wanted - 1e-12)
    return {"recall": wanted.tolist(), "precision": best[np.minimum(at, len(best) - 1)].tolist()}


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


def _one_class(
    positive: np.ndarray, probability: np.ndarray, *, mapped: np.ndarray, weights: np.ndarray | None
) -> dict[str, float | None]:
    error = reliability(positive, probability, weights=weights)["expected_calibration_error"]
    ranked = asdict(ranking_scores(positive, probability, weights=weights))
    return ranked | {"f1": f1_score(positive, mapped, weights=weights), "expected_calibration_error": error}


def _positions(values: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    known = np.isin(values, classes)
    if not known.all():
        unknown = sorted({int(value) for value in values[~known]})
        raise ValueError(f"values {unknown} are none of the classes {list(classes)}")
    order = np.argsort(classes)
    return np.asarray(order[np.searchsorted(np.asarray(classes)[order], values)])
