"""The forest: it learns, it equals scikit-learn's, and what is saved predicts as what was fitted, bit for bit."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.ensemble import ExtraTreesClassifier

from models.forest import ForestClassifier, ForestConfig, feature_names

BANDS = ("B04", "B08")
WIDTH = len(feature_names(BANDS))


def three_clouds(per_class: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian clouds of unit spread, four apart in the first two features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(3 * per_class, WIDTH)).astype(np.float32)
    labels = np.repeat([0, 1, 2], per_class)
    features[:, 0] += 4 * (labels == 1)
    features[:, 1] += 4 * (labels == 2)
    return features, labels


@pytest.fixture(scope="module")
def fitted() -> ForestClassifier:
    features, labels = three_clouds()
    return ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=20, seed=4)).fit(features, labels)


def test_separate_clouds_are_told_apart(fitted: ForestClassifier) -> None:
    features, labels = three_clouds(seed=1)
    probability = fitted.predict_proba(features)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    assert (probability.argmax(axis=1) == labels).mean() > 0.93  # Bayes: 0.97


def test_it_is_the_forest_of_scikit_learn(fitted: ForestClassifier) -> None:
    features, labels = three_clouds()
    reference = ExtraTreesClassifier(20, min_samples_leaf=3, max_features="sqrt", random_state=4).fit(features, labels)
    unseen, _ = three_clouds(seed=2)
    np.testing.assert_allclose(fitted.predict_proba(unseen), reference.predict_proba(unseen), atol=1e-6)


def test_what_is_loaded_predicts_bit_for_bit_what_was_fitted(fitted: ForestClassifier) -> None:
    tensors = load(save(fitted.to_tensors()))
    config = json.loads(json.dumps(fitted.to_config()))
    again = ForestClassifier.from_parts(tensors, config)
    unseen, _ = three_clouds(seed=3)
    np.testing.assert_array_equal(again.predict_proba(unseen), fitted.predict_proba(unseen))
    assert again.config == fitted.config
    assert again.to_config() == fitted.to_config()


def test_threads_and_repeats_change_nothing(fitted: ForestClassifier) -> None:
    features, labels = three_clouds()
    again = ForestClassifier(BANDS, (0, 1, 2), fitted.config).fit(features, labels, jobs=3)
    for name, tensor in fitted.to_tensors().items():
        np.testing.assert_array_equal(again.to_tensors()[name], tensor)
    unseen = np.tile(three_clouds(seed=3)[0], (20, 1))
    np.testing.assert_array_equal(again.predict_proba(unseen, jobs=2), fitted.predict_proba(unseen))


def test_a_class_without_a_pixel_keeps_its_column_at_zero() -> None:
    features, labels = three_clouds()
    two = labels != 1
    probability = (
        ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=5))
        .fit(features[two], labels[two])
        .predict_proba(features)
    )
    assert not probability[:, 1].any()
    assert (probability[labels == 2, 2] > 0.5).mean() > 0.9


def test_class_values_need_not_count_from_zero_nor_be_sorted() -> None:
    features, labels = three_clouds()
    values = np.array([30, 7, 100])[labels]
    probability = (
        ForestClassifier(BANDS, (30, 7, 100), ForestConfig(trees=10)).fit(features, values).predict_proba(features)
    )
    assert (probability.argmax(axis=1) == labels).mean() > 0.93


def test_weights_move_the_prior() -> None:
    features = np.zeros((100, WIDTH), np.float32)
    labels = np.repeat([0, 1], 50)
    weights = np.where(labels == 1, 3.0, 1.0)
    forest = ForestClassifier(BANDS, (0, 1), ForestConfig(trees=3)).fit(features, labels, weights=weights)
    np.testing.assert_allclose(forest.predict_proba(features[:1]), [[0.25, 0.75]])


def test_an_uneven_draw_is_shifted_back_to_the_prevalence() -> None:
    features = np.zeros((100, WIDTH), np.float32)
    forest = ForestClassifier(BANDS, (0, 1), ForestConfig(trees=3), stands_for=(9.0, 1.0)).fit(
        features, np.arange(100) % 2
    )
    np.testing.assert_allclose(forest.predict_proba(features[:1]), [[0.9, 0.1]])
    again = ForestClassifier.from_parts(forest.to_tensors(), json.loads(json.dumps(forest.to_config())))
    np.testing.assert_array_equal(again.predict_proba(features), forest.predict_proba(features))


def test_series_go_through_the_statistics(fitted: ForestClassifier) -> None:
    rng = np.random.default_rng(0)
    dates = np.datetime64("2020-01-01") + 10 * np.arange(30)
    probability = fitted.probabilities(rng.random((30, 2, 9), dtype=np.float32), np.ones((30, 9), bool), dates)
    assert probability.shape == (9, 3)


def test_wrong_input_is_refused(fitted: ForestClassifier) -> None:
    features, labels = three_clouds(per_class=5)
    with pytest.raises(ValueError, match="make 81 columns"):
        fitted.predict_proba(features[:, :3])
    with pytest.raises(ValueError, match="finite"):
        fitted.predict_proba(np.full((1, WIDTH), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"labels \[9\] are none"):
        fitted.fit(features, np.where(labels == 2, 9, labels))
    with pytest.raises(ValueError, match="no labelled pixel"):
        fitted.fit(features[:0], labels[:0])
    with pytest.raises(ValueError, match="not fitted"):
        ForestClassifier(BANDS, (0, 1)).to_tensors()


def test_another_kind_or_version_is_refused(fitted: ForestClassifier) -> None:
    with pytest.raises(ValueError, match="version '0'"):
        ForestClassifier.from_parts(fitted.to_tensors(), fitted.to_config() | {"version": "0"})
    with pytest.raises(ValueError, match="features"):
        ForestClassifier.from_parts(fitted.to_tensors(), fitted.to_config() | {"features": ["ndvi"]})


@pytest.mark.parametrize(
    ("name", "value"), [("left", 10**6), ("right", 0), ("left", -5), ("feature", 10**4), ("feature", -2), ("start", 3)]
)
def test_damaged_weights_are_refused_rather_than_followed(fitted: ForestClassifier, name: str, value: int) -> None:
    tensors = {key: array.copy() for key, array in fitted.to_tensors().items()}
    tensors[name][0] = value
    with pytest.raises(ValueError, match="damaged"):
        ForestClassifier.from_parts(tensors, fitted.to_config())


def test_missing_or_cut_weights_are_refused(fitted: ForestClassifier) -> None:
    tensors = fitted.to_tensors()
    with pytest.raises(ValueError, match="lack threshold"):
        ForestClassifier.from_parts({k: v for k, v in tensors.items() if k != "threshold"}, fitted.to_config())
    with pytest.raises(ValueError, match="damaged"):
        ForestClassifier.from_parts(tensors | {"right": tensors["right"][:-1]}, fitted.to_config())


def test_fitting_leaves_the_warning_filters_of_the_process_alone() -> None:
    features, labels = three_clouds()
    before = list(warnings.filters)
    forest = ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=20)).fit(features, labels, jobs=4)
    forest.predict_proba(features, jobs=4)
    assert list(warnings.filters) == before
