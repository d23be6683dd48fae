"""Samplers against closed forms: for Gaussian data the best denoiser is known, and so is what each sampler makes of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.samplers import SAMPLERS, Denoiser, posterior, sample, sigma_steps, towards

MEAN, SPREAD = 1.5, 0.7
SAMPLES = 40_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def gaussian(mean: float = MEAN, spread: float = SPREAD) -> Denoiser:
    """Return the best denoiser of data that are normal about `mean` with standard deviation `spread`."""

    def denoise(x: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        level = sigma[:, None, None, None].square()
        return (spread**2 * x + level * mean) / (spread**2 + level)

    return denoise


def exact_flow(noise: Tensor, sigma_max: float) -> Tensor:
    """Return where the probability flow takes noise: the distance from the mean shrinks with the total spread."""
    start = noise * sigma_max
    return MEAN + (start - MEAN) * SPREAD / math.hypot(SPREAD, sigma_max)


def steps(count: int) -> Tensor:
    return sigma_steps(count, sigma_min=0.002, sigma_max=80.0)


def largest_error(sampler: str, count: int) -> float:
    noise = drawn(64, 1, 1, 1)
    made = sample(gaussian(), noise, steps(count), sampler=sampler)  # type: ignore[arg-type]
    return float((made - exact_flow(noise, 80.0)).abs().max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gaussian_data_come_out_with_their_mean_and_variance(sampler: str) -> None:
    noise = drawn(SAMPLES, 1, 1, 1)
    made = sample(gaussian(), noise, steps(200), sampler=sampler, generator=seeded(1))  # type: ignore[arg-type]
    spread = float(made.std())
    # five standard errors, and what 200 steps leave of the discretisation
    assert abs(float(made.mean()) - MEAN) < 5 * SPREAD / math.sqrt(SAMPLES) + 0.01
    assert abs(spread - SPREAD) < 5 * SPREAD / math.sqrt(2 * SAMPLES) + 0.02


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm", 2), ("heun", 2)])
def test_the_error_falls_with_the_order_of_the_sampler(sampler: str, order: int) -> None:
    coarse, fine = largest_error(sampler, 40), largest_error(sampler, 160)
    assert order - 0.3 < math.log(coarse / fine, 4) < order + 0.7


def test_the_variance_of_ancestral_draws_is_that_of_its_recursion() -> None:
    """Each step draws from a known posterior about an estimate that is linear in x, so variances follow exactly."""
    levels = steps(12)
    mean, variance = 0.0, float(levels[0]) ** 2
    for sigma, after in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        gain, share = SPREAD**2 / (SPREAD**2 + sigma**2), (after / sigma) ** 2
        slope = gain + (1 - gain) * share
        mean = slope * mean + (1 - gain) * (1 - share) * MEAN
        variance = slope**2 * variance + after**2 * (1 - share)
    made = sample(gaussian(), drawn(SAMPLES, 1, 1, 1), levels, sampler="ancestral", generator=seeded(1))
    assert abs(float(made.mean()) - mean) < 5 * math.sqrt(variance / SAMPLES)
    assert abs(float(made.var()) / variance - 1) < 5 * math.sqrt(2 / SAMPLES)


def test_the_first_step_of_the_multistep_method_is_one_of_ddim() -> None:
    noise, levels = drawn(3, 2, 4, 4), torch.tensor([5.0, 2.0])
    torch.testing.assert_close(
        sample(gaussian(), noise, levels, sampler="dpm"), sample(gaussian(), noise, levels, sampler="ddim")
    )


def test_ddim_draws_what_the_posterior_is_about_with_its_noise_turned_along_the_way() -> None:
    """Equation 12 of Song et al. 2021 in the variance-exploding form: the same marginal at the lower level."""
    clean, noise = 2.0, drawn(SAMPLES, 1, 1, 1)
    x = clean + 3.0 * noise
    by_ddim = towards(x, torch.full_like(x, clean), 3.0, 1.0)
    by_posterior = posterior(x, torch.full_like(x, clean), 3.0, 1.0, generator=seeded(1))
    for found in (by_ddim, by_posterior):
        assert abs(float(found.mean()) - clean) < 5 / math.sqrt(SAMPLES)
        assert abs(float(found.std()) - 1.0) < 5 / math.sqrt(2 * SAMPLES)


def test_guidance_goes_beyond_the_condition() -> None:
    """Where the condition moves the mean, the guided estimate moves it as many times as far."""

    def denoise(x: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        told = 0.0 if condition is None else condition[:, :, None, None]
        return torch.zeros_like(x) + told

    noise, wanted = drawn(2, 1, 3, 3), torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    for guidance in (0.0, 1.0, 2.5):
        made = sample(denoise, noise, steps(4), condition=wanted, guidance=guidance)
        torch.testing.assert_close(made, (guidance * wanted)[:, :, None, None].expand_as(made))


def test_evaluations_are_one_a_step_and_twice_as_many_for_heun() -> None:
    for sampler, expected in (("dpm", 7), ("ddim", 7), ("ancestral", 7), ("heun", 13)):
        asked = []

        def counted(x: Tensor, sigma: Tensor, condition: Tensor | None, asked: list[float] = asked) -> Tensor:
            asked.append(float(sigma[0]))
            return gaussian()(x, sigma, condition)

        told: list[tuple[int, int]] = []
        sample(
            counted, drawn(1, 1, 1, 1), steps(7), sampler=sampler, on_step=lambda *step, told=told: told.append(step)
        )  # type: ignore[arg-type]
        assert len(asked) == expected
        assert told == [(number, 7) for number in range(1, 8)]


def test_what_is_known_is_put_in_after_each_step() -> None:
    seen = []

    def known(x: Tensor, sigma: float, after: float) -> Tensor:
        seen.append((sigma, after))
        return torch.full_like(x, 3.0) if after == 0 else x

    levels = steps(5)
    made = sample(gaussian(), drawn(1, 1, 2, 2), levels, known=known)
    assert (made == 3.0).all()
    assert seen == list(zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True))


def test_levels_fall_from_the_highest_to_nothing() -> None:
    levels = sigma_steps(18, sigma_min=0.002, sigma_max=80.0)
    assert len(levels) == 19
    assert (levels.diff() < 0).all()
    assert levels[0].item() == pytest.approx(80.0)
    assert levels[-2].item() == pytest.approx(0.002)
    assert levels[-1].item() == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sampler": "euler"}, "no sampler 'euler'"),
        ({"sigmas": torch.tensor([1.0, 1.0])}, "each below the one before"),
        ({"sigmas": torch.tensor([1.0])}, "two or more"),
        ({"guidance": 2.0}, "give a condition"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], words: str) -> None:
    arguments = {"sigmas": steps(3), **given}
    with pytest.raises(ValueError, match=words):
        sample(gaussian(), drawn(1, 1, 1, 1), arguments.pop("sigmas"), **arguments)  # type: ignore[arg-type]


def test_steps_in_no_order_are_refused() -> None:
    with pytest.raises(ValueError, match="take one or more"):
        sigma_steps(0, sigma_min=0.1, sigma_max=1.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        sigma_steps(3, sigma_min=1.0, sigma_max=1.0)
