"""The first classifier, and the floor under every later one: a forest on the statistics of a pixel's series.

Extremely randomised trees of scikit-learn. Fitted trees are kept as plain arrays, so a model is saved as tensors and
a dictionary, never as pickled code, and a loaded model predicts bit for bit what the fitted one did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from models.temporal_statistics import feature_names, temporal_statistics

__all__ = ["VERSION", "ForestClassifier", "ForestConfig", "ForestNodes", "feature_names", "temporal_statistics"]

VERSION = "1"
"""Raised whenever the same series and the same tensors would give another probability."""

KIND = "forest"
_ROWS = 8192  # per call into a tree: its scratch stays in cache
_LEAF = -1


@dataclass(frozen=True)
class ForestConfig:
    """How a forest is grown.

    Parameters
    ----------
    trees : int
        Number of trees.
    min_leaf : int
        Least pixels in a leaf.
    max_features : str or float
        Features tried at each split: ``"sqrt"``, or a share of all.
    seed : int
        Of the trees' random numbers.
    """

    trees: int = 100
    min_leaf: int = 3
    max_features: str | float = "sqrt"
    seed: int = 0


@dataclass(frozen=True)
class ForestNodes:
    """All trees' nodes, one after the other; children count from the start of their tree.

    Parameters
    ----------
    start : ndarray, shape (trees + 1,), int64
        Where each tree begins.
    left, right : ndarray, shape (nodes,), int32
        Children; -1 in a leaf.
    feature : ndarray, shape (nodes,), int32
        What a node splits on.
    threshold : ndarray, shape (nodes,), float64
        Left where the feature is at most this.
    probability : ndarray, shape (nodes, K), float32
        Shares of the classes.
    """

    start: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    probability: np.ndarray


_NODE_TYPES = {
    "start": np.int64,
    "left": np.int32,
    "right": np.int32,
    "feature": np.int32,
    "threshold": np.float64,
    "probability": np.float32,
}


@dataclass(frozen=True)
class ForestClassifier:
    """A forest over `temporal_statistics`; make one, then `fit` it, or read it back with `from_parts`.

    Parameters
    ----------
    bands : tuple of str
        Bands of the series it reads, in order.
    classes : tuple of int
        Class values; column k of a probability belongs to ``classes[k]``.
    config : ForestConfig
        How it is grown.
    stands_for : tuple of float
        How many pixels one of each class stood for in the fit, where classes were drawn unevenly: probabilities are
        shifted back to that prevalence. Empty for an even draw. (Weights in the fit would not do: where one pixel of
        a frequent class stands for many, leaves without it call its neighbourhood pure.)
    nodes : ForestNodes, optional
        The grown trees; None before `fit`.
    """

    bands: tuple[str, ...]
    classes: tuple[int, ...]
    config: ForestConfig = ForestConfig()
    stands_for: tuple[float, ...] = ()
    nodes: ForestNodes | None = None

    def fit(
        self, features: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None, jobs: int = 1
    ) -> ForestClassifier:
        """Return the forest grown on these pixels.

        Parameters
        ----------
        features : ndarray, shape (N, F), float32
            As `temporal_statistics` gives them.
        labels : ndarray, shape (N,), int
            Class values; a class without a pixel gets probability 0.
        weights : ndarray, shape (N,), optional
            How much each pixel counts.
        jobs : int
            Threads; the result does not depend on it.

        Raises
        ------
        ValueError
            Where features are of another width or not finite, or a label is none of `classes`.
        """
        features = self._checked(features)
        columns = self._columns(labels)
        seeds = np.random.RandomState(self.config.seed).randint(np.iinfo(np.int32).max, size=self.config.trees)

        def grow(seed: int) -> dict[str, np.ndarray]:
            return _grow_tree(features, columns, weights, self.config, seed)

        with ThreadPoolExecutor(jobs) as pool:
            trees = list(pool.map(grow, seeds.tolist()))
        present = np.unique(columns)
        return replace(self, nodes=_joined(trees, present, len(self.classes)))

    def predict_proba(self, features: np.ndarray, *, jobs: int = 1) -> np.ndarray:
        """Return the probability of each class: the mean over trees, shifted by `stands_for`.

        Parameters
        ----------
        features : ndarray, shape (N, F), float32
            As `temporal_statistics` gives them.
        jobs : int
            Threads; the result does not depend on it.

        Returns
        -------
        ndarray, shape (N, K), float32
            In the order of `classes`; rows add up to 1.
        """
        features = self._checked(features)
        trees = self._trees
        probability = np.empty((len(features), len(self.classes)), np.float32)

        def fill(start: int) -> None:
            rows = features[start : start + _ROWS]
            total = np.zeros((len(rows), len(self.classes)))
            for tree in trees:  # in this order always: a sum in another order rounds differently
                total += tree.predict(rows).reshape(total.shape)
            probability[start : start + _ROWS] = self._shifted(total / len(trees))

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(fill, range(0, len(features), _ROWS)))
        return probability

    def probabilities(
        self, reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, *, jobs: int = 1
    ) -> np.ndarray:
        """Return class probabilities (N, K) of series; arguments as in `temporal_statistics`, bands as in `bands`."""
        return self.predict_proba(temporal_statistics(reflectance, valid, dates, self.bands, jobs=jobs), jobs=jobs)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return the grown trees as named arrays.

        Raises
        ------
        ValueError
            Where it was not fitted.
        """
        nodes = self._grown
        return {field.name: getattr(nodes, field.name) for field in fields(nodes)}

    def to_config(self) -> dict[str, Any]:
        """Return everything else that `from_parts` needs, ready for JSON."""
        return {
            "kind": KIND,
            "version": VERSION,
            "bands": list(self.bands),
            "classes": list(self.classes),
            "stands_for": list(self.stands_for),
            "features": list(feature_names(self.bands)),
            "hyper_parameters": asdict(self.config),
        }

    @classmethod
    def from_parts(cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> ForestClassifier:
        """Return the forest that `to_tensors` and `to_config` took apart.

        Raises
        ------
        ValueError
            Where the two are of another kind or version, or contradict each other.
        """
        if config.get("kind") != KIND or config.get("version") != VERSION:
            raise ValueError(
                f"the model is of kind {config.get('kind')!r}, version {config.get('version')!r}; "
                f"this code reads {KIND!r}, version {VERSION!r}: train it again, or use the code that wrote it"
            )
        forest = cls(
            bands=tuple(config["bands"]),
            classes=tuple(config["classes"]),
            config=ForestConfig(**config["hyper_parameters"]),
            stands_for=tuple(config["stands_for"]),
        )
        if tuple(config["features"]) != feature_names(forest.bands):
            raise ValueError(f"the model's features are not those of bands {', '.join(forest.bands)}")
        missing = _NODE_TYPES.keys() - tensors.keys()
        if missing:
            raise ValueError(f"the model's weights lack {', '.join(sorted(missing))}")
        nodes = ForestNodes(**{name: np.asarray(tensors[name], kind) for name, kind in _NODE_TYPES.items()})
        _check_nodes(nodes, features=len(config["features"]), classes=len(forest.classes))
        return replace(forest, nodes=nodes)

    def _shifted(self, probability: np.ndarray) -> np.ndarray:
        """Return probabilities at the prevalence that the classes have outside the draw (Bayes' rule)."""
        if not self.stands_for:
            return probability
        joint = probability * np.asarray(self.stands_for)
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    @property
    def _grown(self) -> ForestNodes:
        if self.nodes is None:
            raise ValueError("the forest is not fitted yet")
        return self.nodes

    @cached_property
    def _trees(self) -> list[Any]:
        nodes = self._grown
        bounds = zip(nodes.start[:-1], nodes.start[1:], strict=True)
        width = len(feature_names(self.bands))
        return [_rebuilt_tree(nodes, slice(int(begin), int(end)), features=width) for begin, end in bounds]

    def _checked(self, features: np.ndarray) -> np.ndarray:
        width = len(feature_names(self.bands))
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(
                f"features of shape {features.shape}, but bands {', '.join(self.bands)} make {width} columns"
            )
        features = np.ascontiguousarray(features, dtype=np.float32)
        if not np.isfinite(features).all():
            raise ValueError("features must be finite")
        return features

    def _columns(self, labels: np.ndarray) -> np.ndarray:
        known = np.isin(labels, self.classes)
        if not known.all():
            unknown = sorted({int(value) for value in labels[~known]})
            raise ValueError(f"labels {unknown} are none of the classes {list(self.classes)}")
        if not labels.size:
            raise ValueError("there is no labelled pixel to fit")
        order = np.argsort(self.classes)
        return np.asarray(order[np.searchsorted(np.asarray(self.classes)[order], labels)])


def _grow_tree(
    features: np.ndarray, columns: np.ndarray, weights: np.ndarray | None, config: ForestConfig, seed: int
) -> dict[str, np.ndarray]:
    # One tree at a time, not sklearn.ensemble: its threads rewrite the process's warning filters while others run.
    from sklearn.tree import ExtraTreeClassifier

    tree = ExtraTreeClassifier(
        min_samples_leaf=config.min_leaf, max_features=config.max_features, random_state=seed
    ).fit(features, columns, sample_weight=weights)
    state = tree.tree_.__getstate__()
    nodes, values = state["nodes"], state["values"][:, 0, :]
    leaf = nodes["left_child"] == _LEAF
    return {
        "left": nodes["left_child"],
        "right": nodes["right_child"],
        "feature": np.where(leaf, 0, nodes["feature"]),
        "threshold": np.where(leaf, 0, nodes["threshold"]),
        "probability": values / values.sum(axis=1, keepdims=True),
    }


def _joined(trees: Sequence[Mapping[str, np.ndarray]], present: np.ndarray, classes: int) -> ForestNodes:
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    probability = np.zeros((len(joined["left"]), classes))
    probability[:, present] = joined["probability"]
    joined["probability"] = probability
    joined["start"] = np.cumsum([0, *(len(tree["left"]) for tree in trees)])
    return ForestNodes(**{name: np.ascontiguousarray(joined[name], kind) for name, kind in _NODE_TYPES.items()})


def _rebuilt_tree(nodes: ForestNodes, rows: slice, *, features: int) -> Any:
    from sklearn.tree._tree import NODE_DTYPE, Tree

    table = np.zeros(rows.stop - rows.start, NODE_DTYPE)
    table["left_child"], table["right_child"] = nodes.left[rows], nodes.right[rows]
    leaf = nodes.left[rows] == _LEAF
    table["feature"] = np.where(leaf, -2, nodes.feature[rows])
    table["threshold"] = np.where(leaf, -2.0, nodes.threshold[rows])
    values = np.ascontiguousarray(nodes.probability[rows, None, :], np.float64)
    tree = Tree(features, np.array([values.shape[2]], np.intp), 1)
    depth = math.ceil(math.log2(len(table) + 1))  # descriptive only
    tree.__setstate__({"max_depth": depth, "node_count": len(table), "nodes": table, "values": values})
    return tree


def _check_nodes(nodes: ForestNodes, *, features: int, classes: int) -> None:
    """Refuse arrays that would send a tree out of its memory: they may come from a file that somebody else wrote."""
    if not (_shapes_fit(nodes, classes) and _children_descend(nodes) and _in_range(nodes.feature, features)):
        raise ValueError("the model's weights are damaged: children, features or shapes do not make trees")


def _shapes_fit(nodes: ForestNodes, classes: int) -> bool:
    count = len(nodes.left)
    starts_fit = nodes.start.ndim == 1 and nodes.start.size > 1 and nodes.start[0] == 0 and nodes.start[-1] == count
    columns = (nodes.left, nodes.right, nodes.feature, nodes.threshold)
    return (
        bool(starts_fit and (np.diff(nodes.start) > 0).all())
        and all(column.shape == (count,) for column in columns)
        and nodes.probability.shape == (count, classes)
    )


def _children_descend(nodes: ForestNodes) -> bool:
    """Return whether each node is a leaf or has both children further down its own tree: no way out, no circle."""
    sizes = np.diff(nodes.start)
    own = np.arange(len(nodes.left)) - np.repeat(nodes.start[:-1], sizes)
    size = np.repeat(sizes, sizes)
    leaf = (nodes.left == _LEAF) & (nodes.right == _LEAF)
    return all(bool((leaf | ((child > own) & (child < size))).all()) for child in (nodes.left, nodes.right))


def _in_range(values: np.ndarray, stop: int) -> bool:
    return bool(((values >= 0) & (values < stop)).all())
