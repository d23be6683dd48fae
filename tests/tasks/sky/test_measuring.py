"""Many cutouts at once in a process: the same as one by one, and what one of them costs the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sky_folder_cases import galaxy
from sky_methods import BadlyBehaved, BadlyBehavedTogether, import_methods

from storage.cutouts import Cutout
from tasks.sky.measuring import PIECE_BYTES, Outcome, measure_cutouts, pieces_of
from tasks.sky.prepare import prepare_cutout
from tasks.sky.workers import WorkerPool

LIMIT_S = 30.0


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(1, import_methods)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def cutouts() -> list[Cutout]:
    return [prepare_cutout(galaxy(number)) for number in (0, 3, 6)]


def methods_of(outcomes: list[Outcome]) -> list[str]:
    return [outcome.profiles[0].method if outcome.profiles else str(outcome.error) for outcome in outcomes]


@given(st.lists(st.integers(0, 2 * PIECE_BYTES), max_size=60), st.integers(1, 9), st.integers(1, 12))
def test_pieces_hold_every_cutout_once_and_no_more_than_they_may(sizes: list[int], workers: int, together: int) -> None:
    pieces = list(pieces_of(sizes, BadlyBehavedTogether(together=together), workers=workers))
    assert [number for piece in pieces for number in range(len(sizes))[piece]] == list(range(len(sizes)))
    for piece in pieces:
        held = sizes[piece]
        assert 0 < len(held) <= together
        assert len(held) == 1 or sum(held) <= PIECE_BYTES
        assert len(held) <= max(1, len(sizes) // workers)


def test_a_method_of_single_cutouts_has_them_alone() -> None:
    assert list(pieces_of([1, 1, 1], BadlyBehaved(), workers=1)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(pieces_of([1, 1, 1], BadlyBehavedTogether(), workers=1)) == [slice(0, 3)]


def test_at_once_is_as_one_by_one_and_each_has_its_share_of_the_time(pool: WorkerPool, cutouts: list[Cutout]) -> None:
    method = BadlyBehavedTogether({"g0003": "refuse"})
    found = measure_cutouts(pool, method, cutouts, limits_s=[LIMIT_S] * 3)
    assert methods_of(found) == ["together", "nothing here", "together"]
    assert len({outcome.seconds for outcome in found}) == 1
    assert found[0].seconds > 0
    for outcome, cutout in zip(found, cutouts, strict=True):
        (alone,) = measure_cutouts(pool, method, [cutout], limits_s=[LIMIT_S])
        for profile, other in zip(outcome.profiles, alone.profiles, strict=True):
            assert profile.mu.tolist() == other.mu.tolist()


@pytest.mark.parametrize(
    ("kind", "message", "limit_s"),
    [("raise", "a bug of ours", LIMIT_S), ("crash", "signal 11", LIMIT_S), ("hang", "not done", 2.0)],
)
def test_one_that_behaves_badly_costs_no_other(
    pool: WorkerPool, cutouts: list[Cutout], kind: str, message: str, limit_s: float
) -> None:
    found = measure_cutouts(pool, BadlyBehavedTogether({"g0003": kind}), cutouts, limits_s=[limit_s] * 3)
    assert [bool(outcome.profiles) for outcome in found] == [True, False, True]
    assert message in str(found[1].error)


def test_another_method_looks_at_what_is_unsure_and_where_it_has_nothing_the_answer_stands(
    pool: WorkerPool, cutouts: list[Cutout]
) -> None:
    method = BadlyBehavedTogether(unsure=("g0000", "g0003"), other=BadlyBehaved({"g0003": "refuse"}))
    found = measure_cutouts(pool, method, cutouts, limits_s=[LIMIT_S] * 3)
    assert methods_of(found) == ["isophote", "together", "together"]
    assert found[0].seconds > found[2].seconds
    broken = replace(method, other=BadlyBehaved({"g0003": "raise"}))
    assert "a bug of ours" in methods_of(measure_cutouts(pool, broken, cutouts, limits_s=[LIMIT_S] * 3))[1]
