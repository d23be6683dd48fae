"""Which looks count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.validity import derive_valid


def test_only_clear_classes_count() -> None:
    classes = np.arange(12, dtype=np.uint8)[None]
    assert derive_valid(classes, dilation=0)[0].nonzero()[0].tolist() == [4, 5, 6]


def test_a_cloud_takes_its_neighbours_within_the_dilation() -> None:
    scl = np.full((9, 9), 4, dtype=np.uint8)
    scl[4, 4] = 9
    valid = derive_valid(scl, dilation=2)
    assert not valid[2:7, 2:7].any()
    assert valid.sum() == 81 - 25


def test_dates_do_not_leak_into_each_other() -> None:
    scl = np.full((3, 5, 5), 4, dtype=np.uint8)
    scl[1] = 9
    assert derive_valid(scl, dilation=2).all(axis=(1, 2)).tolist() == [True, False, True]


def test_no_data_is_not_valid_and_does_not_grow() -> None:
    scl = np.array([[0, 0, 4, 4, 4, 4, 9]], dtype=np.uint8)
    assert derive_valid(scl, dilation=2)[0].tolist() == [False, False, True, True, False, False, False]


@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_dilation_agrees_with_the_definition(dilation: int, seed: int) -> None:
    scl = np.random.default_rng(seed).choice(np.array([4, 9], dtype=np.uint8), size=(7, 8), p=[0.9, 0.1])
    masked = np.argwhere(scl == 9)
    for y, x in np.ndindex(scl.shape):
        near = any(max(abs(y - row), abs(x - column)) <= dilation for row, column in masked)
        assert derive_valid(scl, dilation=dilation)[y, x] == (not near)


@pytest.mark.parametrize("clear", [(1,), (4, 7)])
def test_other_masks_name_their_own_clear_values(clear: tuple[int, ...]) -> None:
    values = np.array([[0, 1, 4, 7]], dtype=np.uint8)
    assert derive_valid(values, clear, dilation=0).tolist() == [[value in clear for value in (0, 1, 4, 7)]]
