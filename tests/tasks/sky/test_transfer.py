"""Transfer and interpolation: total flux within the stated range, the level that strength says, noise of that level in mixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from galaxy_models import GaussianModel

from tasks.errors import ConfigurationError, UsageError
from tasks.sky.diffusion_jobs import SamplingRule
from tasks.sky.transfer import TransferRule, interpolate, mix, transfer

MODEL = GaussianModel(bands=("g", "r", "z"))


def light(side: int = 16, peak: float = 0.4) -> np.ndarray:
    y, x = np.indices((side, side)) - (side - 1) / 2
    blob = np.exp(-0.5 * (x**2 + y**2) / 2.5**2)
    return np.stack([peak * blob, 1.5 * peak * blob, 2 * peak * blob])


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("tolerance", [0.01, 0.1])
def test_total_flux_stays_within_the_stated_range(strength: float, tolerance: float) -> None:
    flux = light()
    rule = TransferRule(strength, SamplingRule(steps=6), flux_tolerance=tolerance)
    ratio = transfer(MODEL, flux, rule=rule).sum(axis=(1, 2)) / flux.sum(axis=(1, 2))
    assert np.abs(ratio - 1).max() <= tolerance + 1e-3


def test_no_strength_leaves_the_image_and_more_leaves_less() -> None:
    flux = light()
    assert np.array_equal(transfer(MODEL, flux, rule=TransferRule(0.0)), flux)
    apart = [np.abs(transfer(MODEL, flux, rule=TransferRule(strength)) - flux).mean() for strength in (0.05, 0.4, 0.7)]
    assert apart == sorted(apart)


def test_full_strength_draws_from_the_model_whatever_the_image() -> None:
    free = [
        transfer(MODEL, sign * light(peak=0.01), rule=TransferRule(1.0, SamplingRule(steps=20), np.inf)) / MODEL.unit
        for sign in (1, -1)
    ]
    # what is left of the image is its share of the highest level
    assert np.abs(free[0] - free[1]).max() < 0.5 * free[0].std()
    assert 0.4 < free[0].var() / (MODEL.smooth + MODEL.noise) < 2.0


def test_a_larger_image_is_done_in_tiles() -> None:
    flux = np.pad(light(), ((0, 0), (8, 10), (3, 5)))
    made = transfer(MODEL, flux, rule=TransferRule(0.3, SamplingRule(steps=5)))
    assert made.shape == flux.shape
    assert np.abs(made.sum(axis=(1, 2)) / flux.sum(axis=(1, 2)) - 1).max() < 0.051


@pytest.mark.parametrize(("mixing", "variance"), [("spherical", 1.0), ("linear", 0.5)])
def test_spherical_mixtures_have_the_variance_of_their_ends(mixing, variance: float) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(1)
    first, last = torch.randn((2, 3, 64, 64), generator=generator)
    half = mix(first, last, torch.tensor(0.5), mixing=mixing)
    assert half.var().item() == pytest.approx(variance, rel=0.03)
    for share, end in ((0.0, first), (1.0, last)):
        torch.testing.assert_close(mix(first, last, torch.tensor(share), mixing=mixing), end, atol=1e-6, rtol=1e-5)


def test_frames_go_from_one_image_to_the_other() -> None:
    first, last = light(), light()[:, ::-1] * 0.2 + 0.05
    frames = interpolate(MODEL, first, last, frames=5, strength=0.15, sampling=SamplingRule(steps=6))
    assert frames.shape == (5, *first.shape)
    to_first = [np.abs(frame - first).mean() for frame in frames]
    to_last = [np.abs(frame - last).mean() for frame in frames]
    assert to_first == sorted(to_first)
    assert to_last == sorted(to_last, reverse=True)


def test_the_same_seed_gives_the_same_frames() -> None:
    made = [
        interpolate(MODEL, light(), light(peak=0.1), frames=2, sampling=SamplingRule(steps=3), seed=seed)
        for seed in (4, 4, 5)
    ]
    assert np.array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2])


@pytest.mark.parametrize(
    ("flux", "message"),
    [
        (light()[:2], "3 bands"),
        (light(8), "16 pixels a side or more"),
        (np.full((3, 16, 16), np.nan), "not finite"),
    ],
)
def test_an_image_that_does_not_fit_the_model_says_why(flux: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        transfer(MODEL, flux)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"strength of 1\.5"):
        TransferRule(1.5)
    with pytest.raises(ConfigurationError, match="flux tolerance of 0"):
        TransferRule(0.5, flux_tolerance=0.0)
    with pytest.raises(ConfigurationError, match="1 frames"):
        interpolate(MODEL, light(), light(), frames=1)
    with pytest.raises(ConfigurationError, match="strength of 0"):
        interpolate(MODEL, light(), light(), strength=0.0)
    with pytest.raises(ConfigurationError, match="two of one size"):
        interpolate(MODEL, light(), light(20))
    with pytest.raises(UsageError, match="--sampler euler"):
        SamplingRule("euler")  # type: ignore[arg-type]
