"""Galaxies with structure: their totals, sizes, colours, and what each part does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tasks.sky.generator import BENCH_FULL, KINDS, Galaxies, StructurePrior, draw

FIELD = {"pixels": 128, "pixel_scale_arcsec": 0.54}


def plain(structure: StructurePrior, count: int = 16, seed: int = 1) -> Galaxies:
    prior = replace(BENCH_FULL, surroundings=None, structure=structure, centre_scatter_pixels=0.5)
    return draw(count, prior, generator=torch.Generator().manual_seed(seed), **FIELD)


def only(kind: str) -> StructurePrior:
    return StructurePrior(kinds=tuple(float(name == kind) for name in KINDS))


@pytest.fixture(scope="module")
def mixed() -> Galaxies:
    return plain(StructurePrior(), count=64)


def test_total_flux_is_that_of_the_images(mixed: Galaxies) -> None:
    """Of galaxies of which the field of 69 arcsec holds nearly all; laws of high index run far beyond it."""
    small = (mixed.truth.radius_arcsec < 6) & (mixed.truth.kind != KINDS.index("elliptical"))
    ratio = mixed.clean[small].sum(dim=(-1, -2)) / mixed.truth.flux[small]
    assert int(small.sum()) > 12
    assert ratio.flatten().numpy() == pytest.approx(1.0, abs=0.03)


def test_images_hold_half_of_the_light_within_the_sizes_of_the_list(mixed: Galaxies) -> None:
    """Circles of the petrosian half-light radii that were drawn: 5.5 arcsec in the median, half of them from 3.9 to 7.7."""
    axis = (torch.arange(128) - 63.5) * 0.54
    distance = torch.hypot(axis[:, None], axis[None, :]).flatten()
    order = distance.argsort()
    grown = mixed.clean[:, 1].flatten(1)[:, order].cumsum(dim=1)
    half = distance[order][(grown < 0.5 * grown[:, -1:]).sum(dim=1)]
    low, middle, high = torch.quantile(half, torch.tensor([0.25, 0.5, 0.75])).tolist()
    assert 4.6 < middle < 7.2
    assert 3.3 < low < 5.2
    assert 6.2 < high < 10.5


def test_kinds_come_in_their_shares(mixed: Galaxies) -> None:
    count = torch.bincount(mixed.truth.kind, minlength=4) / len(mixed)
    assert count.numpy() == pytest.approx(StructurePrior().kinds, abs=0.12)


def test_ellipticals_are_red_and_irregulars_blue() -> None:
    colours = []
    for kind in ("elliptical", "spiral", "irregular"):
        flux = plain(only(kind)).truth.flux
        colours.append(float((2.5 * (flux[:, 1] / flux[:, 0]).log10()).median()))
    assert colours[0] > colours[1] + 0.1 > colours[2] + 0.15
    assert 0.7 < colours[0] < 0.9
    assert 0.2 < colours[2] < 0.6


def test_galaxies_grow_bluer_outwards() -> None:
    galaxies = plain(only("spiral"), count=24)
    axis = torch.arange(128) - 63.5
    distance = torch.hypot(axis[:, None], axis[None, :]) * 0.54 / galaxies.truth.radius_arcsec[:, None, None]
    ring = [
        (galaxies.clean * zone[:, None]).sum(dim=(-1, -2)) for zone in (distance < 0.3, (distance > 1) & (distance < 2))
    ]
    colour = [2.5 * (flux[:, 1] / flux[:, 0]).log10() for flux in ring]
    assert float((colour[0] - colour[1]).nanmedian()) > 0.05


def test_spirals_have_arms_and_ellipticals_none() -> None:
    """What a galaxy has of its mirror image's light in other places."""
    contrast = []
    for kind in ("spiral", "elliptical"):
        galaxies = plain(only(kind), count=24)
        face_on = galaxies.truth.axis_ratio > 0.5
        image = galaxies.clean[face_on, 0]
        odd = (image - image.flip(1, 2)).abs().sum(dim=(1, 2)) / image.sum(dim=(1, 2))
        contrast.append(float(odd.median()))
    assert contrast[0] > 2 * contrast[1]


def test_bars_are_drawn_where_they_are_asked_for() -> None:
    kinds = only("lenticular").kinds
    barred, without = (plain(StructurePrior(kinds=kinds, barred=share, ringed=0.0)) for share in (1.0, 0.0))
    assert torch.equal(barred.truth.seed, without.truth.seed)
    axis = (torch.arange(128) - 63.5) * 0.54
    inner = torch.hypot(axis[:, None], axis[None, :]) < 4
    light = [(one.clean[:, 1] * inner).sum(dim=(1, 2)) / one.truth.flux[:, 1] for one in (barred, without)]
    assert float((light[0] - light[1]).median()) > 0.01


def test_nothing_is_fainter_than_the_limit(mixed: Galaxies) -> None:
    magnitude = 22.5 - 2.5 * mixed.truth.flux[:, 1].log10()
    assert float(magnitude.max()) < BENCH_FULL.structure.faintest + 0.7
    assert 14.0 < float(magnitude.median()) < 16.5
