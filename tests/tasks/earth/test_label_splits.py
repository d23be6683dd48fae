"""Splits that keep neighbours together, and give every part its share of every class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import minimum_filter

from storage.classes import NO_CLASS
from tasks.earth.label_splits import NO_FOLD, blocked_folds, blocked_split
from tasks.errors import ConfigurationError


def test_folds_keep_blocks_whole_and_share_them_out() -> None:
    folds = blocked_folds((100, 70), block_size=20, folds=5, seed=3)
    assert folds.shape == (100, 70)
    for row in range(0, 100, 20):
        for column in range(0, 70, 20):
            assert np.unique(folds[row : row + 20, column : column + 20]).size == 1
    assert np.bincount(folds[::20, ::20].ravel()).tolist() == [4, 4, 4, 4, 4]
    np.testing.assert_array_equal(folds, blocked_folds((100, 70), block_size=20, folds=5, seed=3))
    assert (folds != blocked_folds((100, 70), block_size=20, folds=5, seed=4)).any()


def test_a_gap_keeps_folds_apart() -> None:
    folds = blocked_folds((60, 60), block_size=20, folds=3, seed=0, gap=2)
    for fold in range(3):
        near = minimum_filter((folds != fold).astype(np.uint8), 5, mode="constant", cval=1) == 0
        assert not ((folds != fold) & (folds >= 0) & near).any()
    assert (folds[8:12, 8:12] >= 0).all()


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="smaller blocks"):
        blocked_folds((10, 10), block_size=20, folds=2, seed=0)


def speckled(seed: int, shape: tuple[int, int] = (160, 240)) -> np.ndarray:
    """Return labels in which class 2 is rare and a quarter is unknown."""
    random = np.random.default_rng(seed)
    labels = np.where(random.random(shape) < 0.2, 1, 0).astype(np.uint8)
    labels[:, : shape[1] // 4] = NO_CLASS
    for row, column in zip(random.integers(0, shape[0], 6), random.integers(shape[1] // 4, shape[1], 6), strict=True):
        labels[row : row + 4, column : column + 4] = 2
    return labels


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_part_holds_every_class_that_three_blocks_hold(seed: int) -> None:
    labels = speckled(seed)
    split = blocked_split(labels.shape, block_size=20, seed=seed, labels=labels)
    blocks = {(row // 20, column // 20) for row, column in np.argwhere(labels == 2)}
    for part in range(3):
        assert ((split == part) & (labels == 1)).any()
        assert ((split == part) & (labels == 2)).any() or len(blocks) < 3


def test_parts_get_their_shares_of_the_labels() -> None:
    labels = speckled(3, (800, 800))
    split = blocked_split(labels.shape, block_size=20, shares=(0.6, 0.1, 0.3), seed=1, labels=labels)
    known = labels != NO_CLASS
    shares = [float((known & (split == part)).sum() / known.sum()) for part in range(3)]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.01)
    # blocks without labels are shared out as well
    blank = [float((~known & (split == part)).sum() / (~known).sum()) for part in range(3)]
    assert blank == pytest.approx([0.6, 0.1, 0.3], abs=0.02)


def test_the_split_is_of_whole_blocks_and_of_the_seed_alone() -> None:
    labels = speckled(5)
    split = blocked_split(labels.shape, block_size=20, seed=2, labels=labels)
    blocks = split.reshape(8, 20, 12, 20)
    assert (blocks == blocks[:, :1, :, :1]).all()
    np.testing.assert_array_equal(split, blocked_split(labels.shape, block_size=20, seed=2, labels=labels))
    assert (split != blocked_split(labels.shape, block_size=20, seed=3, labels=labels)).any()
    assert set(np.unique(blocked_split((70, 90), block_size=20, seed=0))) == {0, 1, 2}


def test_a_gap_lies_between_the_parts() -> None:
    labels = speckled(7)
    split = blocked_split(labels.shape, block_size=20, gap=3, seed=2, labels=labels)
    for part in range(3):
        near = minimum_filter((split != part).astype(np.uint8), 7, mode="constant", cval=1) == 0
        assert not ((split != part) & (split != NO_FOLD) & near).any()
    whole = blocked_split(labels.shape, block_size=20, seed=2, labels=labels)
    np.testing.assert_array_equal(split[split != NO_FOLD], whole[split != NO_FOLD])


def test_splits_that_cannot_be_say_why() -> None:
    labels = np.full((60, 60), NO_CLASS, np.uint8)
    labels[:20, :40] = 1
    with pytest.raises(ConfigurationError, match="2 of 3 x 3 blocks of 20 pixels hold labels"):
        blocked_split((60, 60), block_size=20, labels=labels)
    with pytest.raises(ConfigurationError, match="above 0"):
        blocked_split((60, 60), block_size=20, shares=(1.0, 0.0, 0.5))
