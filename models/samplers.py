"""Samplers: from noise to images, plain functions of any denoiser ``(noisy, sigma, condition) -> estimate of the clean image``.

Noise is added and never scaled down (the variance-exploding form): an image at level sigma is clean + sigma x noise. A
model of another form is read as such a denoiser. Steps are levels from the highest to 0, `sigma_steps` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From noisy images (n, band, y, x), their noise levels (n,) and conditions (n, c) or None to estimates of the clean ones."""
Sampler = Literal["dpm", "heun", "ddim", "ancestral"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
Known = Callable[[Tensor, float, float], Tensor]
"""From images after a step, the level before it and the level after it to what they are made to be."""
OnStep = Callable[[int, int], None]
"""Hears of steps done and of how many there are."""


def sigma_steps(count: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return noise levels from `sigma_max` over `sigma_min` to 0, shape (count + 1,), float64.

    Karras et al. 2022 (EDM, arXiv 2206.00364), equation 5: equal steps of the level's `rho`-th root.

    Raises
    ------
    ValueError
        Where there is no step, or the levels are in no order.

    Examples
    --------
    >>> sigma_steps(3, sigma_min=1.0, sigma_max=9.0, rho=2.0).tolist()
    [9.0, 4.0, 1.0, 0.0]
    """
    if count < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"{count} steps from {sigma_max} to {sigma_min}: take one or more, 0 < sigma_min < sigma_max")
    place = torch.linspace(0, 1, count, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (high + place * (low - high)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def sample(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    *,
    sampler: Sampler = "dpm",
    condition: Tensor | None = None,
    guidance: float = 1.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    known: Known | None = None,
) -> Tensor:
    """Return images made from noise.

    Parameters
    ----------
    denoiser : callable
        See `Denoiser`.
    noise : Tensor, shape (n, band, y, x)
        Standard normal; the first level multiplies it.
    sigmas : Tensor, shape (steps + 1,)
        Falling noise levels, the last one 0, or above where images are wanted that are still noisy.
    sampler : str
        ``dpm``: DPM-Solver++ of second order, one evaluation a step (Lu et al. 2022, arXiv 2211.01095, algorithm 2).
        ``heun``: second order, two evaluations a step but for the last (Karras et al. 2022, algorithm 1, without churn).
        ``ddim``: first order (Song et al. 2021, arXiv 2010.02502, eta 0). ``ancestral``: a draw from the posterior at each
        step (Ho et al. 2020, arXiv 2006.11239).
    condition : Tensor, shape (n, c), optional
        What is asked of each image.
    guidance : float
        How far the estimate goes from the one without condition to the one with it; above 1 beyond it (Ho and Salimans 2022,
        arXiv 2207.12598), at twice the evaluations.
    generator : torch.Generator, optional
        Draws the noise of ``ancestral``.
    on_step : callable, optional
        Hears of each step.
    known : callable, optional
        Changes images after each step, as in-painting does.

    Raises
    ------
    ValueError
        Where there is no such sampler, the levels do not fall, or guidance is asked for without a condition.
    """
    levels = [float(level) for level in sigmas]
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler {sampler!r}; there are: {', '.join(SAMPLERS)}")
    if len(levels) < 2 or levels[-1] < 0 or any(after >= before for before, after in pairwise(levels)):
        raise ValueError(
            f"noise levels {levels[:3]} ... {levels[-1:]}: two or more are wanted, each below the one before"
        )
    if condition is None and guidance != 1.0:
        raise ValueError(f"guidance {guidance} without a condition: give a condition, or guidance 1")
    estimate = _Estimate(denoiser, condition, guidance)
    x, before = noise * levels[0], None
    for step, (sigma, after) in enumerate(pairwise(levels)):
        denoised = estimate(x, sigma)
        if sampler == "dpm":
            x, before = _dpm(x, denoised, sigma, after, before=before)
        elif sampler == "heun":
            x = _heun(x, denoised, sigma, after, estimate=estimate)
        elif sampler == "ddim":
            x = towards(x, denoised, sigma, after)
        else:
            x = posterior(x, denoised, sigma, after, generator=generator)
        if known is not None:
            x = known(x, sigma, after)
        if on_step is not None:
            on_step(step + 1, len(levels) - 1)
    return x


def towards(x: Tensor, denoised: Tensor, sigma: float, after: float) -> Tensor:
    """Return images moved on a straight line towards the estimate of the clean ones, from one noise level to another."""
    return denoised + (x - denoised) * (after / sigma)


def posterior(
    x: Tensor, denoised: Tensor, sigma: float, after: float, *, generator: torch.Generator | None = None
) -> Tensor:
    """Return draws of images at a lower noise level, given those at a higher one and the clean ones.

    With a = (after / sigma)^2 they are normal about a x + (1 - a) denoised with variance after^2 (1 - a).
    """
    share = (after / sigma) ** 2
    drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return denoised + (x - denoised) * share + drawn * (after * math.sqrt(1 - share))


class _Estimate:
    """A denoiser with its condition and guidance, for a level that all images share."""

    def __init__(self, denoiser: Denoiser, condition: Tensor | None, guidance: float) -> None:
        self.denoiser, self.condition, self.guidance = denoiser, condition, guidance

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        level = x.new_full((len(x),), sigma)
        found = self.denoiser(x, level, self.condition)
        if self.guidance == 1.0:
            return found
        return torch.lerp(self.denoiser(x, level, None), found, self.guidance)


_Step = tuple[Tensor, float]
"""An estimate and its level."""


def _dpm(x: Tensor, denoised: Tensor, sigma: float, after: float, *, before: _Step | None) -> tuple[Tensor, _Step]:
    """Return images after a step of the multistep method, and what the next step remembers."""
    kept = denoised, sigma
    if before is None or after == 0:
        return towards(x, denoised, sigma, after), kept
    old, above = before
    ratio = math.log(above / sigma) / math.log(sigma / after)
    return towards(x, denoised + (denoised - old) / (2 * ratio), sigma, after), kept


def _heun(x: Tensor, denoised: Tensor, sigma: float, after: float, *, estimate: _Estimate) -> Tensor:
    first = towards(x, denoised, sigma, after)
    if after == 0:
        return first
    slope = ((x - denoised) / sigma + (first - estimate(first, after)) / after) / 2
    return x + slope * (after - sigma)
