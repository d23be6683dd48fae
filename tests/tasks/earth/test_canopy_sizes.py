"""Width and area of canopy at each pixel, and scores by them, against shapes drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.earth.canopy_sizes import AREAS, WIDTHS, area_classes, size_scores, width_classes


def shapes() -> np.ndarray:
    """Return a hedge of one pixel, a diagonal one, belts of two and three, and a wood of six with a hedge at its side."""
    canopy = np.zeros((40, 60), bool)
    canopy[2, 5:25] = True
    canopy[np.arange(6, 16), np.arange(5, 15)] = True
    canopy[18:20, 5:25] = True
    canopy[22:25, 5:25] = True
    canopy[30:36, 5:11] = True
    canopy[33, 11:20] = True
    return canopy


def test_widths_are_those_drawn() -> None:
    width = width_classes(shapes())
    assert set(width[2, 5:25]) == {WIDTHS.index("1")}
    assert set(width[np.arange(6, 16), np.arange(5, 15)]) == {WIDTHS.index("1")}
    assert set(width[18:20, 5:25].ravel()) == {WIDTHS.index("2")}
    assert set(width[22:25, 5:25].ravel()) == {WIDTHS.index("3")}
    assert set(width[30:36, 5:11].ravel()) == {WIDTHS.index("4+")}
    assert set(width[33, 11:20]) == {WIDTHS.index("1")}
    np.testing.assert_array_equal(width < 0, ~shapes())


def test_the_edge_of_the_map_makes_no_hedge_of_a_wood() -> None:
    canopy = np.zeros((20, 20), bool)
    canopy[:1] = True
    assert set(width_classes(canopy)[0]) == {WIDTHS.index("4+")}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.3, 0.95))
def test_a_pixel_is_as_wide_as_the_largest_square_that_holds_it(seed: int, share: float) -> None:
    canopy = np.pad(np.random.default_rng(seed).random((12, 14)) < share, 4)
    width = width_classes(canopy)
    for side in (2, 3, 4):
        held = np.zeros(canopy.shape, bool)
        for row in range(canopy.shape[0] - side + 1):
            for column in range(canopy.shape[1] - side + 1):
                square = slice(row, row + side), slice(column, column + side)
                if canopy[square].all():
                    held[square] = True
        np.testing.assert_array_equal(width >= side - 1, held)


def test_areas_are_those_of_connected_canopy_by_edges_and_corners() -> None:
    canopy = np.zeros((30, 60), bool)
    canopy[1:4, 1:4] = True  # 0.09 ha
    canopy[1:3, 10:15] = True  # 0.1 ha
    canopy[10:16, 10:15] = True  # 0.3 ha, and a corner that touches makes it 0.31
    canopy[16, 15] = True
    canopy[5:25, 40:50] = True  # 2 ha
    area = area_classes(canopy, pixel_area_m2=100)
    assert AREAS[area[2, 2]] == "<0.1"
    assert AREAS[area[1, 10]] == "0.1-0.5"
    assert area[16, 15] == area[10, 10] == AREAS.index("0.1-0.5")
    assert AREAS[area[5, 40]] == ">2"
    np.testing.assert_array_equal(area < 0, ~canopy)
    assert AREAS[area_classes(canopy, pixel_area_m2=20)[5, 40]] == "0.1-0.5"


def test_scores_of_a_size_leave_the_other_sizes_out() -> None:
    sizes = np.array([0, 0, 3, 3, -1, -1, -1, -1])
    canopy = sizes >= 0
    probability = np.array([0.2, 0.6, 0.9, 0.8, 0.5, 0.1, 0.1, 0.1])
    found = size_scores(sizes, canopy, names=WIDTHS, scores={"model": (probability, probability > 0.5)})
    assert found["1"]["pixels"] == 2
    assert found["1"]["prevalence"] == pytest.approx(2 / 6)
    assert found["1"]["model"]["recall"] == 0.5
    assert found["1"]["model"]["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["4+"]["model"] == {"recall": 1.0, "pr_auc": pytest.approx(1.0)}
    assert found["2"] == {"pixels": 0, "prevalence": 0.0, "model": {"recall": None, "pr_auc": None}}
