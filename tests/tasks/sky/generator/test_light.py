"""Sersic laws on cells hold their light, cusp and all; small sources stay where they are put."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gamma, gammaincinv

from tasks.sky.generator.light import Ellipse, Grid, Sersic, add_points, sersic_b, sersic_share


def ellipse(*, x: float = 0.0, y: float = 0.0, ratio: float = 1.0, angle: float = 0.0) -> Ellipse:
    return Ellipse(*(torch.tensor([value]) for value in (x, y, ratio, angle)))


def law(index: float, radius: float, where: Ellipse) -> Sersic:
    return Sersic(torch.tensor([index]), torch.tensor([[radius]]), where)


@pytest.mark.parametrize("index", [0.6, 1.0, 2.5, 4.0, 6.0])
def test_half_of_the_light_lies_within_the_effective_radius(index: float) -> None:
    assert float(sersic_b(torch.tensor(index))) == pytest.approx(gammaincinv(2 * index, 0.5), rel=1e-3)
    assert float(sersic_share(torch.tensor(index), torch.tensor(1.0))) == pytest.approx(0.5, abs=1e-3)


def test_brightness_is_the_textbooks() -> None:
    n, radius = 4.0, 3.0
    b = gammaincinv(2 * n, 0.5)
    total = 2 * math.pi * n * radius**2 * math.exp(b) * b ** (-2 * n) * gamma(2 * n)
    expected = math.exp(-b * ((5.0 / radius) ** (1 / n) - 1)) / total
    found = law(n, radius, ellipse()).brightness(torch.tensor([[[25.0]]]))
    assert float(found) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.11, -0.05), (0.131, 0.131)])
def test_cells_hold_the_light_of_the_law(index: float, place: tuple[float, float]) -> None:
    """All of the light within a large circle, to 1 %, for a centre anywhere in a cell."""
    grid = Grid(241, 0.25)
    cells = law(index, 1.5, ellipse(x=place[0], y=place[1])).cells(grid)[0, 0]
    axis = grid.axis(cells.device)
    distance = torch.hypot(axis[None, :] - place[0], axis[:, None] - place[1])
    expected = float(sersic_share(torch.tensor(index), torch.tensor(29.0 / 1.5)))
    assert float(cells[distance < 29.0].sum()) == pytest.approx(expected, rel=0.01)


def test_cells_at_the_centre_are_those_of_a_grid_nine_times_finer() -> None:
    where = ellipse(x=0.07, y=-0.03, ratio=0.5, angle=0.6)
    coarse = law(4.0, 2.0, where).cells(Grid(31, 0.27))[0, 0]
    fine = law(4.0, 2.0, where).cells(Grid(279, 0.03))
    summed = torch.nn.functional.avg_pool2d(fine, 9)[0, 0] * 81
    assert torch.allclose(coarse, summed, rtol=0.01)


def test_the_major_axis_turns_from_up_to_the_left() -> None:
    major, minor = ellipse(angle=math.pi / 2).along(torch.tensor([[[-2.0]]]), torch.tensor([[[0.0]]]))
    assert float(major) == pytest.approx(2.0, abs=1e-5)
    assert float(minor) == pytest.approx(0.0, abs=1e-5)


def test_points_keep_flux_and_place() -> None:
    image = torch.zeros((2, 1, 16, 16))
    add_points(image, torch.tensor([1]), torch.tensor([[3.0]]), x=torch.tensor([6.3]), y=torch.tensor([9.8]))
    index = torch.arange(16.0)
    assert float(image[0].abs().sum()) == 0
    assert float(image[1].sum()) == pytest.approx(3.0, abs=1e-5)
    assert float((image[1, 0].sum(0) * index).sum() / 3) == pytest.approx(6.3, abs=1e-5)
    assert float((image[1, 0].sum(1) * index).sum() / 3) == pytest.approx(9.8, abs=1e-5)


def test_points_beyond_the_image_are_dropped() -> None:
    image = torch.zeros((1, 2, 8, 8))
    add_points(image, torch.tensor([0]), torch.ones((1, 2)), x=torch.tensor([30.0]), y=torch.tensor([4.0]))
    assert np.count_nonzero(image.numpy()) == 0
