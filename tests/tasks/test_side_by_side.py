"""Work of several processes: all of it is done, elsewhere, and what fails is heard of."""

from __future__ import annotations

import math
import os

import pytest

from tasks.side_by_side import side_by_side


def test_every_item_is_worked_on_once_whatever_the_order() -> None:
    assert sorted(side_by_side(math.isqrt, [n * n for n in range(40)], processes=2)) == list(range(40))


def test_one_item_or_one_process_needs_no_other_process() -> None:
    assert list(side_by_side(_process_of, [0])) == [os.getpid()]
    assert set(side_by_side(_process_of, range(3), processes=1)) == {os.getpid()}
    assert list(side_by_side(_process_of, [])) == []


def test_several_items_are_worked_on_elsewhere() -> None:
    assert os.getpid() not in set(side_by_side(_process_of, range(4), processes=2))


def test_an_error_of_an_item_is_raised() -> None:
    with pytest.raises(ValueError, match="nonnegative"):
        list(side_by_side(math.isqrt, [4, -1], processes=2))


def _process_of(_: int) -> int:
    return os.getpid()
