"""What is in an image beside its galaxy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tasks.sky.generator.draws import Draws
from tasks.sky.generator.light import Grid
from tasks.sky.generator.prior import NoisePrior, SurroundingsPrior
from tasks.sky.generator.surroundings import (
    ALL_MASKED,
    draw_damage,
    draw_depth,
    draw_neighbours,
    draw_noise,
    draw_sky,
    draw_trails,
)

DRAWS = Draws(torch.arange(100, 140))
GRID = Grid(160, 0.25)
SIGMA = torch.full((40, 3), 0.002)
NOISE = NoisePrior(sigma=(0.002,), gain=(1e9,), correlation=0.14)


def median_light(galaxies_per_arcmin2: float) -> float:
    prior = SurroundingsPrior(galaxies_per_arcmin2=galaxies_per_arcmin2, companion=0.0, stars_per_arcmin2=0.1)
    return float(draw_neighbours(prior, DRAWS, grid=GRID).sum(dim=(1, 2, 3)).median())


def test_more_neighbours_give_more_light() -> None:
    assert median_light(80) > 3 * median_light(10) > 0


def test_no_neighbour_takes_light_away() -> None:
    cells = draw_neighbours(SurroundingsPrior(), DRAWS, grid=GRID)
    assert bool(cells.isfinite().all())
    # cubic weights dip a little below nought beside a star
    assert float(cells.min()) > -0.15 * float(cells.max())


def test_sky_is_a_plane_of_the_size_that_is_asked_for() -> None:
    plane = draw_sky(SurroundingsPrior(sky_offset=0.5, sky_gradient=0.2), DRAWS, sigma=SIGMA, pixels=32)
    assert float(plane.mean(dim=(-1, -2)).std()) / 0.002 == pytest.approx(0.5, rel=0.25)
    assert float(plane.diff(dim=-1).diff(dim=-1).abs().max()) < 1e-8


def test_trails_cross_the_share_of_bands_that_is_asked_for() -> None:
    trails = draw_trails(SurroundingsPrior(trail=0.3), DRAWS, sigma=SIGMA, fwhm_pixels=3 * torch.ones(40, 3), pixels=64)
    crossed = trails.amax(dim=(-1, -2)) > 3 * 0.002
    assert float(crossed.float().mean()) == pytest.approx(0.3, abs=0.1)
    assert float((trails[crossed] > 0.002).float().mean()) < 0.35


def test_lost_pixels_have_the_bits_of_their_band() -> None:
    damage = draw_damage(SurroundingsPrior(gap=1.0), DRAWS, grid=GRID, pixels=64, pixel_scale_arcsec=0.5)
    for band, bit in enumerate(ALL_MASKED):
        lost = ~damage.valid[:, band]
        assert bool(lost.any())
        assert bool((damage.maskbits[:, band][lost] & bit).bool().all())
        assert not bool((damage.maskbits[:, band][~lost] & bit).bool().any())


@pytest.mark.parametrize(("scale", "expected"), [(0.1, 0.65), (0.13, 0.57), (0.262, 0.14), (0.524, 0.035)])
def test_noise_is_correlated_as_far_as_a_native_pixel_goes(scale: float, expected: float) -> None:
    sigma = draw_depth(NOISE, DRAWS, pixel_scale_arcsec=scale)
    noise = draw_noise(NOISE, DRAWS, sigma=sigma, light=torch.zeros((40, 1, 96, 96)), pixel_scale_arcsec=scale)
    assert float(noise.std() / sigma.mean()) == pytest.approx(1.0, abs=0.03)
    for pair in ((noise[..., 1:], noise[..., :-1]), (noise[..., 1:, :], noise[..., :-1, :])):
        assert float((pair[0] * pair[1]).mean() / noise.var()) == pytest.approx(expected, abs=0.03)


def test_noise_of_light_follows_the_gain() -> None:
    prior = replace(NOISE, gain=(300.0,), correlation=0.0, sigma=(1e-6,))
    light = torch.full((40, 1, 64, 64), 12.0)
    noise = draw_noise(prior, DRAWS, sigma=torch.full((40, 1), 1e-6), light=light, pixel_scale_arcsec=0.262)
    assert float(noise.var()) == pytest.approx(12 / 300, rel=0.03)
