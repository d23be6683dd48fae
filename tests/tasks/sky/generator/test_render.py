"""Batches of galaxies: against GalSim, whatever the split, and with the noise that they say they have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.errors import ConfigurationError
from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, Galaxies, PsfImages, draw, draw_galaxies, true_profile


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_galsim(galaxies: Galaxies, index: int) -> np.ndarray:
    """Return a galaxy of `BENCH_SIMPLE` as GalSim draws it."""
    import galsim

    truth, pixels = galaxies.truth, galaxies.clean.shape[-1]
    ratio = float(truth.axis_ratio[index])
    fine = galsim.GSParams(maximum_fft_size=16384, folding_threshold=1e-4, maxk_threshold=1e-4, kvalue_accuracy=1e-6)
    sersic = galsim.Sersic(
        n=float(truth.sersic_index[index]),
        half_light_radius=float(truth.radius_arcsec[index]) * ratio**0.5,
        flux=float(truth.flux[index, 0]),
        gsparams=fine,
    ).shear(q=ratio, beta=(float(truth.position_angle_deg[index]) + 90) * galsim.degrees)
    image = galsim.ImageF(pixels, pixels, scale=galaxies.pixel_scale_arcsec)
    centre = galsim.PositionD(float(truth.centre_x[index]) + 1, float(truth.centre_y[index]) + 1)
    return galsim.Convolve(sersic, galsim.Moffat(beta=3.5, fwhm=1.2)).drawImage(image, center=centre).array


@pytest.mark.parametrize(("count", "pixels", "scale"), [(4, 256, 0.262), (8, 64, 0.524)])
def test_single_galaxies_are_those_of_galsim(count: int, pixels: int, scale: float) -> None:
    galaxies = draw(count, BENCH_SIMPLE, generator=seeded(3), pixels=pixels, pixel_scale_arcsec=scale)
    assert {2.5, 4.0} <= set(galaxies.truth.sersic_index.tolist())
    theirs = np.stack([by_galsim(galaxies, index) for index in range(count)])[:, None]
    ours = galaxies.clean.numpy()
    apart = np.abs(ours - theirs).max(axis=(1, 2, 3)) / theirs.max(axis=(1, 2, 3))
    assert apart.max() <= 0.01
    radii = torch.tensor(np.geomspace(1, 0.42 * pixels, 20) * scale, dtype=torch.float32).expand(count, 1, 20)
    other = replace(galaxies, clean=torch.tensor(theirs))
    off = 2.5 * (true_profile(galaxies, radii) / true_profile(other, radii)).log10().abs()
    assert float(off.nan_to_num(0).max()) <= 0.01
    assert int(off.isfinite().sum()) >= count * 15


def test_one_generator_gives_the_same_galaxies_however_they_are_split() -> None:
    def parts(*sizes: int) -> torch.Tensor:
        generator = seeded(8)
        drawn = [draw(n, BENCH_FULL, generator=generator, pixels=32, pixel_scale_arcsec=0.5) for n in sizes]
        return torch.cat([galaxies.flux for galaxies in drawn])

    once = parts(9)
    assert torch.allclose(once, parts(4, 5), rtol=1e-3, atol=1e-4)
    assert torch.equal(once, parts(9))


def test_a_seed_gives_its_galaxy_again() -> None:
    galaxies = draw(5, BENCH_FULL, generator=seeded(2), pixels=32, pixel_scale_arcsec=0.4)
    again = draw_galaxies(galaxies.truth.seed[3:4], BENCH_FULL, pixels=32, pixel_scale_arcsec=0.4)
    assert torch.allclose(again.flux[0], galaxies.flux[3], rtol=1e-3, atol=1e-4)


def test_a_galaxy_is_the_same_at_another_pixel_scale() -> None:
    seeds = torch.arange(60, 72)
    fine = draw_galaxies(seeds, BENCH_FULL, pixels=128, pixel_scale_arcsec=0.25)
    coarse = draw_galaxies(seeds, replace(BENCH_FULL, centre_scatter_pixels=1.0), pixels=64, pixel_scale_arcsec=0.5)
    gathered = torch.nn.functional.avg_pool2d(fine.clean, 2) * 4
    peak = gathered.amax(dim=(-1, -2), keepdim=True)
    assert float(((gathered - coarse.clean) / peak).abs().max()) < 0.02
    assert torch.allclose(fine.truth.flux, coarse.truth.flux, rtol=0.03)


def test_light_is_carried_in_and_never_around_the_edge() -> None:
    """A small galaxy near the left edge leaves the right one dark."""
    prior = replace(BENCH_SIMPLE, centre_scatter_pixels=24.0)
    galaxies = draw(20, prior, generator=seeded(4), pixels=64, pixel_scale_arcsec=0.8)
    left = int(galaxies.truth.centre_x.argmin())
    row = int(galaxies.truth.centre_y[left].round())
    assert float(galaxies.truth.centre_x[left]) < 16
    brightness = galaxies.clean[left, 0, row]
    shown = brightness[20:][brightness[20:] > 1e-5 * brightness.max()]
    assert bool((shown.diff() < 0).all())
    assert float(brightness[-1]) < 1e-5 * float(brightness.max())


def test_noise_is_what_the_inverse_variance_says() -> None:
    galaxies = draw(6, BENCH_SIMPLE, generator=seeded(5), pixels=128, pixel_scale_arcsec=0.262)
    pull = (galaxies.flux - galaxies.clean) / (1 / galaxies.ivar + galaxies.clean / 300).sqrt()
    assert float(pull.std()) == pytest.approx(1.0, abs=0.01)
    assert float(galaxies.ivar[0, 0, 0, 0]) ** -0.5 == pytest.approx(0.00658, rel=1e-4)


def test_bench_simple_is_drawn_within_its_figures() -> None:
    truth = draw(64, BENCH_SIMPLE, generator=seeded(6), pixels=16).truth
    magnitude = 22.5 - 2.5 * truth.flux.log10()
    assert 15 <= float(magnitude.min()) < float(magnitude.max()) <= 18
    assert 3 <= float(truth.radius_arcsec.min()) < float(truth.radius_arcsec.max()) <= 8
    assert 0.35 <= float(truth.axis_ratio.min()) < float(truth.axis_ratio.max()) <= 0.95
    assert set(truth.sersic_index.tolist()) == {1.0, 1.5, 2.5, 4.0}


def test_sizes_and_scales_are_drawn_for_a_batch() -> None:
    generator = seeded(7)
    drawn = [draw(1, BENCH_FULL, generator=generator) for _ in range(6)]
    sides = {galaxies.flux.shape[-1] for galaxies in drawn}
    assert sides <= set(BENCH_FULL.pixels)
    assert len(sides) > 2
    assert all(0.1 <= galaxies.pixel_scale_arcsec <= 1.0 for galaxies in drawn)


@pytest.mark.parametrize("scale", [0.1, 0.262, 1.0])
def test_all_that_comes_out_is_finite_and_lost_pixels_hold_nothing(scale: float) -> None:
    prior = replace(BENCH_FULL, surroundings=replace(BENCH_FULL.surroundings, gap=1.0, trail=0.5, companion=0.5))
    galaxies = draw(8, prior, generator=seeded(9), pixels=32, pixel_scale_arcsec=scale)
    for array in (galaxies.flux, galaxies.clean, galaxies.ivar, galaxies.psf, galaxies.truth.flux):
        assert bool(array.isfinite().all())
    lost = ~galaxies.valid
    assert 0 < int(lost.sum()) < lost.numel() / 2
    assert float(galaxies.flux[lost].abs().max()) == 0
    assert float(galaxies.ivar[lost].max()) == 0
    assert bool((galaxies.maskbits[lost] > 0).all())
    assert float(galaxies.clean.min()) > -1e-3 * float(galaxies.clean.max())


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="an image of 4 pixels"):
        draw(1, BENCH_SIMPLE, generator=seeded(0), pixels=4)
    with pytest.raises(ConfigurationError, match="point spread functions are of 3 bands, the galaxies of 1"):
        draw(1, BENCH_SIMPLE, generator=seeded(0), psf_images=PsfImages(torch.ones((1, 3, 5, 5)) / 25))
