"""What a run will do: pure decisions from the scenes offered and the scenes held."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from ingest_cases import BANDS, a_scene, grid

from storage.cube import CubeState
from storage.schema import CubeSchema
from tasks.earth.plan import Window, choose_versions, plan_tile
from tasks.earth.scenes import Scene

WINDOW = (256, 512, 256, 512)


def held(*scenes: Scene, window: Window = WINDOW, state: str = "used", entry: int | None = 0) -> list[dict[str, Any]]:
    """Return the rows of the scene table for scenes of one date."""
    return [
        {
            "scene": scene.id,
            "signature": scene.signature,
            "solar_day": scene.solar_day,
            "platform": scene.platform,
            "window": list(window),
            "state": state,
            "entry": entry,
            "source": scene.to_json(),
        }
        for scene in scenes
    ]


def cube(*records: list[dict[str, Any]]) -> CubeState:
    rows = [row for part in records for row in part]
    return CubeState("snapshot", CubeSchema(grid(), BANDS), np.array([], dtype="datetime64[us]"), rows)


def versions() -> tuple[Scene, Scene]:
    old = a_scene("old", baseline="03.00")
    return old, a_scene("new", baseline="05.00")


def test_the_newest_baseline_of_a_datatake_counts() -> None:
    old, new = versions()
    assert choose_versions([old, new]) == ((new,), {"old": "new"})
    assert choose_versions([new, old]) == ((new,), {"old": "new"})


def test_at_the_same_baseline_the_newest_generation_counts_whatever_its_format() -> None:
    first = a_scene("a", generation_time="2021-05-01T14:00:00.000Z")
    second = a_scene("b", generation_time="20210501T140001")
    assert choose_versions([first, second]) == ((second,), {"a": "b"})


def test_both_halves_of_a_split_datatake_count() -> None:
    halves = [a_scene("a", datastrip="20210501T105620"), a_scene("b", datastrip="20210501T105902")]
    assert choose_versions(halves) == (tuple(halves), {})


def test_the_best_scene_comes_first_newest_baseline_then_smaller_id() -> None:
    scenes = [
        a_scene("c", tile="30UXC", baseline="03.00"),
        a_scene("b", tile="30UXD", baseline="05.00"),
        a_scene("a", tile="30UYC", baseline="05.00"),
        a_scene("d", tile="30UYD", baseline="10.00"),
    ]
    for order in itertools.permutations(scenes):
        assert [scene.id for scene in choose_versions(order)[0]] == ["d", "a", "b", "c"]


def test_without_a_cube_every_date_is_new_and_oldest_first() -> None:
    scenes = [a_scene("b", "2021-05-06"), a_scene("a", "2021-05-01")]
    plans = plan_tile(None, scenes, WINDOW)
    assert [(plan.day, plan.action, plan.index) for plan in plans] == [
        ("2021-05-01", "new", None),
        ("2021-05-06", "new", None),
    ]
    assert all(plan.window == WINDOW for plan in plans)


def test_two_satellites_on_one_day_are_two_dates() -> None:
    plans = plan_tile(None, [a_scene("a"), a_scene("b", platform="sentinel-2b")], WINDOW)
    assert [plan.platform for plan in plans] == ["sentinel-2a", "sentinel-2b"]


def test_tiles_of_one_overpass_are_one_date() -> None:
    (plan,) = plan_tile(None, [a_scene("a", tile="30UXC"), a_scene("b", tile="30UXD")], WINDOW)
    assert [scene.id for scene in plan.scenes] == ["a", "b"]


def test_what_is_held_is_skipped_even_if_the_catalogue_lists_it_no_more() -> None:
    scene = a_scene()
    for offered in ([scene], []):
        (plan,) = plan_tile(cube(held(scene)), offered, WINDOW)
        assert (plan.action, plan.index) == ("skip", 0)


def test_a_late_item_recomputes_its_own_date_only() -> None:
    first, other, late = a_scene("a"), a_scene("b", "2021-05-06"), a_scene("late", tile="30UXD")
    state = cube(held(first, entry=0), held(other, entry=1))
    plans = plan_tile(state, [first, other, late], WINDOW)
    assert [(plan.action, plan.index) for plan in plans] == [("recompute", 0), ("skip", 1)]
    assert plans[0].why == "new or replaced: late"
    assert [scene.id for scene in plans[0].scenes] == ["a", "late"]


def test_a_scene_that_was_replaced_in_place_is_recomputed() -> None:
    before, after = a_scene("a"), a_scene("a", generation_time="2022-01-01T00:00:00Z")
    (plan,) = plan_tile(cube(held(before)), [after], WINDOW)
    assert (plan.action, plan.index, plan.scenes) == ("recompute", 0, (after,))


def test_a_new_baseline_recomputes_and_the_old_one_arriving_late_does_not() -> None:
    old, new = versions()
    (plan,) = plan_tile(cube(held(old)), [new], WINDOW)
    assert (plan.action, plan.scenes, plan.superseded) == ("recompute", (new,), {"old": "new"})
    (plan,) = plan_tile(cube(held(new)), [old, new], WINDOW)
    assert (plan.action, plan.scenes, plan.superseded) == ("skip", (new,), {"old": "new"})


def test_a_superseded_scene_that_is_held_does_not_come_back() -> None:
    old, new = versions()
    state = cube(held(new), held(old, state="superseded"))
    (plan,) = plan_tile(state, [], WINDOW)
    assert (plan.action, plan.scenes) == ("skip", (new,))


def test_a_larger_area_recomputes_every_date_on_the_union() -> None:
    first, other = a_scene("a"), a_scene("b", "2021-05-06")
    state = cube(held(first, entry=0), held(other, entry=1))
    plans = plan_tile(state, [first, other], (512, 768, 256, 512))
    assert {(plan.action, plan.why, plan.window) for plan in plans} == {
        ("recompute", "the area grew", (256, 768, 256, 512))
    }


def test_a_smaller_area_is_covered_already() -> None:
    (plan,) = plan_tile(cube(held(a_scene(), window=(0, 1024, 0, 1024))), [a_scene()], WINDOW)
    assert (plan.action, plan.window) == ("skip", (0, 1024, 0, 1024))


def test_a_date_that_was_left_at_the_smaller_area_is_recomputed_alone() -> None:
    """A run that was killed while the area grew leaves some dates at the old window."""
    first, other = a_scene("a"), a_scene("b", "2021-05-06")
    large = (256, 768, 256, 512)
    state = cube(held(first, entry=0, window=large), held(other, entry=1))
    plans = plan_tile(state, [first, other], WINDOW)
    assert [(plan.action, plan.window) for plan in plans] == [("skip", large), ("recompute", large)]


def test_an_empty_scene_is_not_read_again_and_gives_its_date_no_index() -> None:
    (plan,) = plan_tile(cube(held(a_scene(), state="empty", entry=None)), [a_scene()], WINDOW)
    assert (plan.action, plan.index) == ("skip", None)


def test_the_last_row_of_a_scene_is_the_one_that_counts() -> None:
    before, after = a_scene("a"), a_scene("a", generation_time="2022-01-01T00:00:00Z")
    (plan,) = plan_tile(cube(held(before), held(after)), [after], WINDOW)
    assert plan.action == "skip"


@given(st.data())
def test_the_plan_depends_on_no_order(data: st.DataObject) -> None:
    draw = st.builds(
        lambda day, tile, strip, baseline, hour: a_scene(
            f"{day}-{tile}-{strip}-{baseline}-{hour}",
            f"2021-05-0{day}",
            tile=tile,
            datastrip=strip,
            baseline=baseline,
            generation_time=f"2021-06-01T{hour:02d}:00:00Z",
        ),
        st.integers(1, 2),
        st.sampled_from(["30UXC", "30UXD"]),
        st.sampled_from(["", "20210501T105620"]),
        st.sampled_from(["00.00", "03.00", "05.00"]),
        st.integers(0, 2),
    )
    scenes = data.draw(st.lists(draw, max_size=10, unique_by=lambda scene: scene.id))
    shuffled = data.draw(st.permutations(scenes))
    plans = plan_tile(None, scenes, WINDOW)
    assert plans == plan_tile(None, shuffled, WINDOW)
    for plan in plans:
        assert len({scene.key for scene in plan.scenes}) == len(plan.scenes)
    counted = [scene.id for plan in plans for scene in plan.scenes]
    replaced = [old for plan in plans for old in plan.superseded]
    assert sorted(counted + replaced) == sorted(scene.id for scene in scenes)
