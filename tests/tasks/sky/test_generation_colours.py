"""Colours for comparison: one stretch, whatever an image holds; fewer than three bands are grey."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generation_cases import corrupted, drawn

from tasks.sky.generation_colours import colour_images

NOISE = np.array([0.004, 0.005, 0.018])


def test_a_brighter_set_looks_brighter() -> None:
    galaxies = drawn(60, 42)[:10]
    plain, brighter = (colour_images(one, NOISE) for one in (galaxies, corrupted(galaxies, "flux", 1.0)))
    assert plain.shape == (10, 64, 64, 3)
    assert brighter.mean() > 1.1 * plain.mean()


def test_a_picture_does_not_depend_on_the_others() -> None:
    galaxies = drawn(60, 42)
    np.testing.assert_array_equal(colour_images(galaxies[:3], NOISE)[1], colour_images(galaxies[1:2], NOISE)[0])


@pytest.mark.parametrize("bands", [("r",), ("g", "r")])
def test_fewer_than_three_bands_are_grey(bands: tuple[str, ...]) -> None:
    galaxies = replace(drawn(60, 42), images=drawn(60, 42).images[:3, : len(bands)], bands=bands)
    found = colour_images(galaxies, NOISE[: len(bands)])
    assert (found[..., 0] == found[..., 2]).all()
