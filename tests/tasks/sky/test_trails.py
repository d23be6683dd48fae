"""Satellite trails: drawn ones are found where they lie, on real galaxies too, and nothing else is taken for one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sky_cases import sersic_cutout

from storage.cutouts import Cutout
from tasks.sky.cutout_files import read_cutout
from tasks.sky.generator import BENCH_FULL, draw, to_cutout
from tasks.sky.noise import robust_scatter
from tasks.sky.trails import Trail, across, find_trails, trail_mask

REAL = ("decals_dr3_a", "decals_dr3_b", "decals_dr3_d", "decals_59.1067_-30.4848_img_ivar")


def with_trail(
    cutout: Cutout, band: int, *, angle_deg: float, offset: float, fwhm_arcsec: float, peak: float
) -> tuple[Cutout, np.ndarray]:
    """Return a cutout with a trail of a peak in units of the noise of one pixel, and the trail's light, (y, x)."""
    plane = cutout.flux[band]
    noise = robust_scatter(plane[:, 2:] - plane[:, :-2]) / math.sqrt(2)
    width = fwhm_arcsec / 2.3548 / cutout.pixel_scale_arcsec
    apart = across(cutout.shape, math.radians(angle_deg)) - offset * min(cutout.shape)
    light = (peak * noise * np.exp(-0.5 * (apart / width) ** 2)).astype(np.float32)
    flux = cutout.flux.copy()
    flux[band] += light
    return replace(cutout, flux=flux), light


def is_at(trail: Trail, band: int, angle_deg: float) -> bool:
    return trail.band == band and abs((trail.angle_deg - angle_deg + 90) % 180 - 90) < 3


@pytest.mark.parametrize(("angle", "offset"), [(0.0, 0.1), (35.0, -0.3), (90.0, 0.25), (137.0, 0.0), (178.0, -0.2)])
def test_a_trail_is_found_where_it_lies_and_its_mask_holds_its_light(angle: float, offset: float) -> None:
    cutout, light = with_trail(sersic_cutout(side=96), 1, angle_deg=angle, offset=offset, fwhm_arcsec=1.6, peak=4)
    (trail,) = find_trails(cutout)
    assert is_at(trail, 1, angle)
    mask = trail_mask(cutout)
    assert not mask[[0, 2]].any()
    assert light[mask[1]].sum() > 0.95 * light.sum()
    assert mask[1].mean() < 0.25


def test_two_trails_in_one_band_are_two() -> None:
    cutout, _ = with_trail(sersic_cutout(side=96), 0, angle_deg=20, offset=0.2, fwhm_arcsec=1.6, peak=10)
    cutout, _ = with_trail(cutout, 0, angle_deg=110, offset=-0.1, fwhm_arcsec=1.6, peak=6)
    found = find_trails(cutout)
    assert len(found) == 2
    assert {round(trail.angle_deg / 10) for trail in found} == {2, 11}


def test_a_line_in_every_band_is_a_spike_and_no_trail() -> None:
    cutout = sersic_cutout(side=96)
    for band in range(3):
        cutout, _ = with_trail(cutout, band, angle_deg=60, offset=0.1, fwhm_arcsec=1.6, peak=8)
    assert find_trails(cutout) == ()


def test_an_edge_on_galaxy_is_no_trail_in_one_band_either() -> None:
    galaxy = sersic_cutout(side=160, bands=("r",), ratio=0.12, half_light=5.0, magnitude=15.5, index=1.0)
    assert find_trails(galaxy) == ()


def test_missing_data_does_not_hide_a_trail() -> None:
    cutout, _ = with_trail(sersic_cutout(side=96), 0, angle_deg=35, offset=0.1, fwhm_arcsec=1.6, peak=6)
    valid = cutout.valid.copy()
    valid[:, :, :30] = False
    flux = np.where(valid, cutout.flux, np.float32(np.nan))
    (trail,) = find_trails(replace(cutout, flux=flux, valid=valid))
    assert is_at(trail, 0, 35)


def test_an_image_without_data_or_of_one_value_has_none() -> None:
    cutout = sersic_cutout(side=48)
    assert find_trails(replace(cutout, valid=np.zeros_like(cutout.valid))) == ()
    assert find_trails(replace(cutout, flux=np.ones_like(cutout.flux))) == ()


@pytest.mark.slow
def test_generated_galaxies_have_few_false_alarms() -> None:
    prior = replace(BENCH_FULL, surroundings=replace(BENCH_FULL.surroundings, trail=0.0))
    drawn = draw(40, prior, generator=torch.Generator().manual_seed(11), pixels=64, pixel_scale_arcsec=0.524)
    alarms = sum(len(find_trails(to_cutout(drawn, index))) for index in range(40))
    assert alarms <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_on_real_galaxies_drawn_trails_are_found_and_no_others(shared_data: Path, name: str) -> None:
    cutout = read_cutout(shared_data / "galaxies" / "legacy_grz_cutouts" / f"{name}.fits")
    assert find_trails(cutout) == ()
    rng = np.random.default_rng(5)
    for _ in range(3):
        band, angle = int(rng.integers(3)), float(rng.uniform(0, 180))
        spoilt, light = with_trail(
            cutout, band, angle_deg=angle, offset=float(rng.uniform(-0.3, 0.3)), fwhm_arcsec=1.8, peak=12
        )
        found = find_trails(spoilt)
        assert [is_at(trail, band, angle) for trail in found] == [True]
        assert light[found[0].mask(cutout.shape)].sum() > 0.9 * light.sum()
