"""Shapes of isophotes: of images whose ellipses are known, with stars on them, and of noise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.isophote_shapes import _stretched, fit_shapes
from models.polar import Ellipses, Images, Pyramid, Sky

SIDE = 160
MIDDLE = 79.5


def image(*, ratio: float, angle: float, noise: float = 0.0) -> Tensor:
    """Return an exponential disc whose isophotes all have one shape."""
    rows, columns = torch.meshgrid(torch.arange(SIDE) - MIDDLE, torch.arange(SIDE) - MIDDLE, indexing="ij")
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = -columns * math.sin(angle) + rows * math.cos(angle)
    radius = (along.square() + (across / ratio).square()).sqrt()
    return 2000 * torch.exp(-radius / 10) + noise * torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def fitted(flux: Tensor, start: tuple[float, float] = (0.0, 0.0)) -> tuple[Tensor, Tensor, Tensor]:
    """Return radii, shapes and trust of one image, begun from one ellipse."""
    flux = flux[None, None]
    images = Images.of(
        flux,
        torch.ones_like(flux),
        torch.ones_like(flux, dtype=torch.bool),
        shape=torch.tensor([[SIDE, SIDE]]),
        fwhm=torch.tensor([[3.0]]),
    )
    nothing = torch.zeros(1, 1)
    pyramid = Pyramid(images, Sky(nothing, nothing + 0.01, nothing + 1))
    ellipses = Ellipses(torch.tensor([[MIDDLE, MIDDLE]]), torch.tensor([start]))
    shapes, trust = fit_shapes(pyramid, ellipses)
    return pyramid.polar(ellipses).radius[0], shapes[0], trust[0]


def expected(ratio: float, angle: float) -> Tensor:
    return (1 - ratio) * torch.tensor([math.cos(2 * angle), math.sin(2 * angle)])


@pytest.mark.parametrize(("ratio", "angle"), [(0.85, 0.4), (0.6, 1.2), (0.45, 2.5)])
def test_a_known_shape_is_found_at_every_radius_from_half_its_flattening(ratio: float, angle: float) -> None:
    start = expected(ratio, angle) / 2
    radius, shapes, trust = fitted(image(ratio=ratio, angle=angle), (float(start[0]), float(start[1])))
    inside = (radius > 4) & (radius < 50)
    assert (shapes[inside] - expected(ratio, angle)).norm(dim=-1).max() < 0.05
    assert trust[inside].min() > 0.5


def test_a_shape_that_changes_with_radius_is_followed() -> None:
    rows, columns = torch.meshgrid(torch.arange(SIDE) - MIDDLE, torch.arange(SIDE) - MIDDLE, indexing="ij")
    bar = 4000 * torch.exp(-(columns.square() + (rows / 0.4).square()).sqrt() / 3)
    disc = 100 * torch.exp(-(columns.square() + rows.square()).sqrt() / 25)
    radius, shapes, _ = fitted(bar + disc)
    inner, outer = (radius > 5) & (radius < 9), (radius > 45) & (radius < 65)
    assert shapes[inner, 0].median() > 0.45
    assert shapes[outer].norm(dim=-1).max() < 0.08


def test_a_star_does_not_bend_them() -> None:
    flux = image(ratio=0.7, angle=0.3, noise=1.0)
    plain = fitted(flux)[1]
    rows, columns = torch.meshgrid(torch.arange(SIDE) - 100.0, torch.arange(SIDE) - 110.0, indexing="ij")
    radius, starred, _ = fitted(flux + 3000 * torch.exp(-(rows.square() + columns.square()) / 8))
    inside = (radius > 4) & (radius < 60)
    assert (starred - plain)[inside].norm(dim=-1).max() < 0.06


def test_noise_leaves_the_one_ellipse() -> None:
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    _, shapes, trust = fitted(noise, start=(0.3, 0.1))
    assert (shapes - torch.tensor([0.3, 0.1])).norm(dim=-1).median() < 0.1
    assert trust.median() < 0.1


@given(st.floats(0.2, 0.95), st.floats(0.0, 3.1))
def test_no_harmonic_changes_no_shape(ratio: float, angle: float) -> None:
    shape = expected(ratio, angle)
    zero = torch.tensor(0.0)
    assert torch.allclose(_stretched(shape, zero, zero), shape, atol=2e-4)


def test_a_harmonic_about_a_circle_is_an_ellipse_along_its_crest() -> None:
    found = _stretched(torch.zeros(2), torch.tensor(0.0), torch.tensor(0.05))
    assert torch.atan2(found[1], found[0]) / 2 == pytest.approx(math.pi / 4)
    assert found.norm() == pytest.approx(1 - math.sqrt(0.9 / 1.1), abs=1e-5)
