"""Distances between two sets of galaxies: pure functions of what was measured of each, with bootstrap intervals.

Every metric is a number that is 0 for equal distributions and infinitely many galaxies, and above 0 for finitely many: it
says something only beside its floor, the same metric between two disjoint sets of real galaxies of equal number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tasks.errors import ConfigurationError

Values = NDArray[np.float64]
Statistic = Callable[[Values, Values], float]

FEWEST_FOR_FID = 2000
"""Images below which an FID is mostly its bias."""
RESAMPLES = 200
LEVEL = 0.95
_ROWS = 512
_DIRECTIONS = 16
_SHARES = (0.25, 1 / 3, 0.5, 0.75, 1.0)
_DRAWS = 3


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval.

    Parameters
    ----------
    value : float
        Of the sets as they are.
    low, high : float
        Of 95 %: quantiles of the bootstrap about its own mean, laid round the value. Drawing with replacement adds the bias of a
        finite set once more, and this takes that off.
    """

    value: float
    low: float
    high: float


def wasserstein(one: Values, other: Values) -> float:
    """Return the Wasserstein-1 distance of two samples, in their unit.

    Parameters
    ----------
    one, other : ndarray, shape (n,)
        Finite, as many of each.

    Examples
    --------
    >>> wasserstein(np.array([0.0, 1.0, 2.0]), np.array([2.5, 0.5, 1.5]))
    0.5
    """
    return float(np.abs(np.sort(one) - np.sort(other)).mean())


def sum_of_wassersteins(one: Values, other: Values) -> float:
    """Return the sum over columns of the Wasserstein-1 distance, both shape (n, quantity).

    Of the six quantities of `tasks.sky.synthetic_distance` it is the Synthetic Galaxy Distance.
    """
    return float(np.abs(np.sort(one, axis=0) - np.sort(other, axis=0)).mean(axis=0).sum())


def mean_of_wassersteins(one: Values, other: Values) -> float:
    """Return the mean over columns of the Wasserstein-1 distance, both shape (n, quantity)."""
    return sum_of_wassersteins(one, other) / one.shape[1]


def sliced_wasserstein(one: Values, other: Values) -> float:
    """Return the mean over 16 directions of the Wasserstein-1 distance of two samples of a plane, both shape (n, 2)."""
    angle = np.pi * (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
    directions = np.stack([np.cos(angle), np.sin(angle)])
    return mean_of_wassersteins(one @ directions, other @ directions)


def frechet_distance(one: Values, other: Values) -> float:
    """Return the squared Frechet distance of the Gaussians that two samples have mean and covariance of.

    Parameters
    ----------
    one, other : ndarray, shape (n, feature)
        More than two of each.

    References
    ----------
    Heusel et al. 2017, arXiv 1706.08500, equation 6: ``|m - w|^2 + tr(S + T - 2 (S T)^(1/2))``.
    """
    covariances = [np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (one, other)]
    values, vectors = np.linalg.eigh(covariances[0])
    # the trace of the root of S T is that of the root of S^(1/2) T S^(1/2), which is symmetric
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ covariances[1] @ root)
    apart = one.mean(axis=0) - other.mean(axis=0)
    traces = np.trace(covariances[0]) + np.trace(covariances[1])
    return float(apart @ apart + traces - 2 * np.sqrt(np.clip(cross, 0, None)).sum())


def extrapolated_frechet(one: Values, other: Values, *, generator: np.random.Generator) -> float:
    """Return the Frechet distance of infinitely many galaxies, from a line through those of fewer against 1/n.

    NaN where a quarter of the sample is fewer than twice the features: the bias is no line then.

    References
    ----------
    Chong and Forsyth 2020, arXiv 1911.07023, section 3.
    """
    count, features = one.shape
    if count * _SHARES[0] < 2 * features:
        return float("nan")
    sizes, found = [], []
    for share in _SHARES:
        size = round(share * count)
        for _ in range(1 if share == 1 else _DRAWS):
            rows = [generator.permutation(count)[:size] for _ in range(2)]
            sizes.append(size)
            found.append(frechet_distance(one[rows[0]], other[rows[1]]))
    return float(np.polyfit(1 / np.array(sizes), found, 1)[1])


def kernel_distance(one: Values, other: Values) -> float:
    """Return the squared maximum mean discrepancy under a cubic kernel, without bias: it may be below 0.

    Parameters
    ----------
    one, other : ndarray, shape (n, feature)
        Two or more of each.

    References
    ----------
    Binkowski et al. 2018, arXiv 1801.01401, section 4: the Kernel Inception Distance, of all images in place of blocks of them.
    """
    return float(_weighted_discrepancies(one, other, np.ones((len(one), 1)), np.ones((len(other), 1)))[0])


def bootstrap(
    statistic: Statistic,
    one: Values,
    other: Values,
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a statistic of two samples with its interval.

    Parameters
    ----------
    statistic : callable
        Of two samples, each (n, ...).
    one, other : ndarray
        First axis: galaxies.
    generator : numpy Generator
        Of the resampling.
    resamples : int
        How many.
    """
    found = []
    with _one_thread():
        for _ in range(resamples):
            rows = [generator.integers(len(sample), size=len(sample)) for sample in (one, other)]
            found.append(statistic(one[rows[0]], other[rows[1]]))
    return around(statistic(one, other), np.array(found))


def bootstrap_kernel_distance(
    one: Values, other: Values, *, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Estimate:
    """Return `kernel_distance` with its interval, from counts of each galaxy; a galaxy makes no pair with itself."""
    counts = [
        np.stack([np.ones(len(sample)), *(_counts(len(sample), generator) for _ in range(resamples))], axis=1)
        for sample in (one, other)
    ]
    found = _weighted_discrepancies(one, other, *counts)
    return around(float(found[0]), found[1:])


def difference(
    statistic: Statistic,
    real: Values,
    one: Values,
    other: Values,
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return by how much `one` lies farther from real galaxies than `other`, two sets made of the same noise row by row.

    Each resample draws the real galaxies, and the rows of both sets, once, so that what they share cancels.
    """
    found = []
    for _ in range(resamples):
        drawn = real[generator.integers(len(real), size=len(real))]
        rows = generator.integers(len(one), size=len(one))
        found.append(statistic(drawn, one[rows]) - statistic(drawn, other[rows]))
    return around(statistic(real, one) - statistic(real, other), np.array(found))


def kernel_difference(
    real: Values, one: Values, other: Values, *, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Estimate:
    """Return `difference` of kernel distances."""
    counts = np.stack([np.ones(len(real)), *(_counts(len(real), generator) for _ in range(resamples))], axis=1)
    rows = np.stack([np.ones(len(one)), *(_counts(len(one), generator) for _ in range(resamples))], axis=1)
    found = _weighted_discrepancies(real, one, counts, rows) - _weighted_discrepancies(real, other, counts, rows)
    return around(float(found[0]), found[1:])


def around(value: float, resampled: Values) -> Estimate:
    """Return a value with the quantiles of what resampling gave, about its mean."""
    spread = np.quantile(resampled - resampled.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(value + spread[0]), float(value + spread[1]))


@dataclass(frozen=True)
class Memory:
    """How near generated galaxies lie to those that were trained on.

    Parameters
    ----------
    share : Estimate
        Of the generated that are nearer to the training set than to as many galaxies that were not trained on; half where
        nothing is memorised. Ties count half.
    close : Estimate
        Share of the generated that are nearer to a training galaxy than all but one in a hundred of the held-out ones
        are; 0.01 where nothing is memorised.
    nearest : ndarray, shape (generated,)
        Row of the nearest training galaxy.
    """

    share: Estimate
    close: Estimate
    nearest: NDArray[np.int64]


def memorisation(
    generated: NDArray[np.floating], train: NDArray[np.floating], held_out: NDArray[np.floating]
) -> Memory:
    """Return how near generated galaxies lie to training ones, each also turned and mirrored.

    Parameters
    ----------
    generated, train, held_out : ndarray, shape (n, band, y, x)
        Square images as `tasks.sky.generation_sets.thumbnails` gives them; as many of train and of held-out.

    Raises
    ------
    ConfigurationError
        Where train and held-out are not as many.
    """
    if len(train) != len(held_out):
        raise ConfigurationError(
            f"{len(train)} training galaxies and {len(held_out)} held-out ones: a fair test needs as many of each"
        )
    to_train, nearest = _nearest(generated, train)
    to_held_out, _ = _nearest(generated, held_out)
    usual, _ = _nearest(held_out, train)
    nearer = np.where(to_train == to_held_out, 0.5, to_train < to_held_out)
    close = (to_train < np.quantile(usual, 0.01)).astype(float)
    return Memory(_share(nearer), _share(close), nearest)


def area_under_curve(real_scores: Values, generated_scores: Values) -> float:
    """Return how often a generated galaxy scores above a real one; ties count half.

    Examples
    --------
    >>> area_under_curve(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([real_scores, generated_scores]))
    real, generated = len(real_scores), len(generated_scores)
    return float((ranks[real:].sum() - generated * (generated + 1) / 2) / (real * generated))


def classifier_scores(real: Values, generated: Values, *, seed: int, folds: int = 5) -> tuple[Values, Values]:
    """Return for each galaxy how likely boosted trees that were trained on the other folds call it generated.

    Parameters
    ----------
    real, generated : ndarray, shape (n, quantity)
        What they are told of each; NaN where a quantity could not be measured.
    seed : int
        Of folds and trees.
    folds : int
        Parts, each judged by what was learned from the others.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    told = np.concatenate([real, generated])
    label = np.repeat([0, 1], [len(real), len(generated)])
    scores = np.empty(len(told))
    with _one_thread():
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(told, label):
            trees = HistGradientBoostingClassifier(max_iter=80, max_leaf_nodes=15, learning_rate=0.1, random_state=seed)
            scores[test] = trees.fit(told[train], label[train]).predict_proba(told[test])[:, 1]
    return scores[: len(real)], scores[len(real) :]


def _one_thread() -> AbstractContextManager[object]:
    """Keep small matrices and trees on one thread: on a busy machine threads that wait for each other cost more than one alone."""
    from threadpoolctl import threadpool_limits

    return cast(AbstractContextManager[object], threadpool_limits(limits=1))


def _weighted_discrepancies(one: Values, other: Values, counts: Values, other_counts: Values) -> Values:
    """Return the discrepancy for each column of counts, shape (n, resample)."""
    within = [_mean_kernel(sample, weight) for sample, weight in ((one, counts), (other, other_counts))]
    summed = np.zeros(counts.shape[1])
    for start in range(0, len(one), _ROWS):
        rows = slice(start, start + _ROWS)
        summed += (counts[rows] * (_kernel(one[rows], other) @ other_counts)).sum(axis=0)
    between = summed / (counts.sum(axis=0) * other_counts.sum(axis=0))
    return within[0] + within[1] - 2 * between


def _mean_kernel(sample: Values, counts: Values) -> Values:
    """Return the mean kernel of pairs of different galaxies for each column of counts."""
    summed = np.zeros(counts.shape[1])
    for start in range(0, len(sample), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = _kernel(sample[rows], sample)
        kernel[np.arange(len(kernel)), start + np.arange(len(kernel))] = 0.0
        summed += (counts[rows] * (kernel @ counts)).sum(axis=0)
    return summed / (counts.sum(axis=0) ** 2 - (counts**2).sum(axis=0))


def _kernel(one: Values, other: Values) -> Values:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _counts(size: int, generator: np.random.Generator) -> Values:
    return np.bincount(generator.integers(size, size=size), minlength=size).astype(float)


def _nearest(
    images: NDArray[np.floating], others: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return squared distance and row of the nearest of the others to each image, whichever way it is turned."""
    flat = others.reshape(len(others), -1).astype(np.float32)
    squares = (flat**2).sum(axis=1)
    best = np.full(len(images), np.inf, dtype=np.float32)
    row = np.zeros(len(images), dtype=np.int64)
    for start in range(0, len(images), _ROWS):
        part = slice(start, start + _ROWS)
        for turned in _turned(images[part]):
            asked = turned.reshape(len(turned), -1).astype(np.float32)
            far = (asked**2).sum(axis=1)[:, None] + squares - 2 * (asked @ flat.T)
            found = far.argmin(axis=1)
            least = far[np.arange(len(far)), found]
            better = least < best[part]
            best[part] = np.where(better, least, best[part])
            row[part] = np.where(better, found, row[part])
    return np.maximum(best, 0), row


def _turned(images: NDArray[np.floating]) -> Sequence[NDArray[np.floating]]:
    return [np.rot90(way, turns, (-2, -1)) for way in (images, images[..., ::-1]) for turns in range(4)]


def _share(claims: Values) -> Estimate:
    """Return a share with the interval of Wilson (1927)."""
    z, n, share = 1.959964, len(claims), float(claims.mean())
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, float(middle - half), float(middle + half))
