"""True profiles against closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, draw, evaluation_radii, signal_to_noise, true_profile
from tasks.sky.generator.light import Ellipse, Sersic


def test_the_profile_far_out_is_that_of_the_law() -> None:
    prior = replace(BENCH_SIMPLE, sersic_index=(1.0,), effective_radius_arcsec=(6.0, 8.0), axis_ratio=(0.8, 0.95))
    galaxies = draw(6, prior, generator=torch.Generator().manual_seed(1), pixels=192)
    truth = galaxies.truth
    radii = torch.linspace(5.0, 20.0, 12).expand(6, 1, 12)
    zero = torch.zeros(6)
    law = Sersic(truth.sersic_index, truth.radius_arcsec[:, None], Ellipse(zero, zero, truth.axis_ratio, zero))
    expected = law.brightness(radii.square())[:, 0] * truth.flux[:, :, None]
    found = true_profile(galaxies, radii)
    shown = found.isfinite()
    # the point spread function moves an exponential outwards by a hundredth or two
    assert torch.allclose(found[shown], expected[shown], rtol=0.03)
    assert int(shown.sum()) > 50


def test_a_profile_off_the_image_is_not_known() -> None:
    galaxies = draw(2, BENCH_SIMPLE, generator=torch.Generator().manual_seed(2), pixels=32)
    radii = torch.tensor([0.5, 300.0, torch.nan]).expand(2, 1, 3)
    assert true_profile(galaxies, radii).isfinite()[0, 0].tolist() == [True, False, False]


def test_radii_run_from_a_pixel_to_a_signal_of_three() -> None:
    prior = replace(BENCH_SIMPLE, magnitude=(18.0, 19.0), effective_radius_arcsec=(2.0, 3.0), sersic_index=(1.0,))
    galaxies = draw(8, prior, generator=torch.Generator().manual_seed(3))
    radii = evaluation_radii(galaxies)
    assert radii.shape == (8, 1, 40)
    assert radii[..., 0].numpy() == pytest.approx(0.262)
    ratio = radii[..., 1:] / radii[..., :-1]
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3)
    last = signal_to_noise(galaxies, radii)[..., -1]
    assert bool(((last >= 2.99) & (last < 3.5)).all())


def test_radii_end_within_the_image() -> None:
    galaxies = draw(8, BENCH_FULL, generator=torch.Generator().manual_seed(4), pixels=32, pixel_scale_arcsec=0.3)
    radii = evaluation_radii(galaxies)
    assert bool(true_profile(galaxies, radii)[radii.isfinite()].isfinite().all())
    assert float(radii.nan_to_num(0).max()) < 32 * 0.3


def test_a_galaxy_too_faint_has_no_radii() -> None:
    prior = replace(BENCH_SIMPLE, magnitude=(29.0, 30.0))
    galaxies = draw(2, prior, generator=torch.Generator().manual_seed(5), pixels=64)
    assert bool(evaluation_radii(galaxies).isnan().all())
