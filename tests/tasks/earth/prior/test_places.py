"""Generated places: the same from the same seed, in the shapes of cubes, each another."""

from __future__ import annotations

import numpy as np

from tasks.earth.prior.places import draw_place


def test_a_place_is_made_again_from_its_seed_and_differs_from_others() -> None:
    one, same, other = draw_place(5, pixels=32), draw_place(5, pixels=32), draw_place(6, pixels=32)
    assert np.array_equal(one.reflectance, same.reflectance)
    assert np.array_equal(one.classes, same.classes)
    assert len(one.dates) != len(other.dates) or not np.array_equal(one.dates, other.dates)


def test_a_place_holds_what_a_cube_holds() -> None:
    place = draw_place(7, pixels=48)
    times = len(place.dates)
    assert place.reflectance.shape == (times, 10, 48, 48)
    assert place.reflectance.dtype == np.uint16
    assert place.valid.shape == (times, 48, 48)
    assert (np.diff(place.dates) >= np.timedelta64(0, "D")).all()
    assert place.reflectance.min() >= 1
    assert 0.2 < place.valid.mean() < 0.95
    assert not (place.valid & ~place.clear).any()
    assert place.clear.sum() > place.valid.sum()


def test_canopy_is_where_trees_cover_half_of_the_pixel() -> None:
    place = draw_place(8, pixels=64)
    assert np.array_equal(place.classes > 0, place.tree_cover >= 50)
    assert 0.05 < (place.classes > 0).mean() < 0.6
