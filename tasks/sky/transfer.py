"""Images of any kind as a survey would show them, and images between two: noise is added to a level, and taken away by a model.

SDEdit (Meng et al. 2022, arXiv 2108.01073), as Smith et al. 2022 (arXiv 2111.01713) made cartoons galaxies of a survey with
it: the higher the level, the more the model says and the less the image. On the way down the total flux of each band is held
within a stated range of the image's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.samplers import Denoiser, OnStep, sample
from tasks.errors import ConfigurationError
from tasks.sky.diffusion_jobs import GalaxyModel, SamplingRule, seeded_noise
from tasks.sky.inpainting_tiles import tiled

Mixing = Literal["spherical", "linear"]
_MOST_CORRECTION = 10.0


@dataclass(frozen=True)
class TransferRule:
    """How an image is made one of the survey's.

    Parameters
    ----------
    strength : float
        0 leaves the image, 1 leaves nothing of it; the noise level is that share of the way from the model's lowest to its
        highest, on the scale of `models.samplers.sigma_steps`.
    sampling : SamplingRule
    flux_tolerance : float
        By what share the total flux of a band may change; inf = it is free.
    seed : int
        Of the noise.
    """

    strength: float = 0.35
    sampling: SamplingRule = field(default_factory=SamplingRule)
    flux_tolerance: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigurationError(f"a strength of {self.strength:g}: 0 to 1 is expected")
        if not self.flux_tolerance > 0:
            raise ConfigurationError(f"a flux tolerance of {self.flux_tolerance:g}: above 0 is expected")


def transfer(
    model: GalaxyModel,
    flux: NDArray[np.float64],
    *,
    rule: TransferRule | None = None,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
) -> NDArray[np.float64]:
    """Return an image as the model's survey would show it.

    Parameters
    ----------
    model : GalaxyModel
        On `device`.
    flux : ndarray, shape (band, y, x)
        Nanomaggies per pixel of the model's scale, in the model's bands; any size from the model's own on.
    rule : TransferRule, optional
    device : torch.device, optional
        By default the CPU.
    on_step : callable, optional
        Hears of steps done.

    Returns
    -------
    ndarray, shape (band, y, x)
        Nanomaggies per pixel. At strength 0 the image itself.

    Raises
    ------
    ConfigurationError
        An image of other bands, smaller than the model's, or not finite.
    """
    rule = rule or TransferRule()
    _check(model, flux)
    if rule.strength == 0:
        return flux.copy()
    clean = model.to_scaled(torch.as_tensor(flux, dtype=torch.float32, device=device))[None]
    noise = _noise(rule.seed, clean, device)
    denoiser = flux_kept(_of_any_size(model, clean), model, flux, tolerance=rule.flux_tolerance)
    found = _reverse(denoiser, model, clean, noise, rule.strength, rule.sampling, seed=rule.seed, on_step=on_step)
    return found[0]


def interpolate(
    model: GalaxyModel,
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    *,
    frames: int = 7,
    strength: float = 0.4,
    mixing: Mixing = "spherical",
    sampling: SamplingRule | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
) -> NDArray[np.float64]:
    """Return images from one to another, shape (frame, band, y, x), the ends among them: both noised, mixed, and reversed.

    Parameters
    ----------
    model : GalaxyModel
        On `device`.
    first, last : ndarray, shape (band, y, x)
        As for `transfer`; of one size.
    frames : int
        How many, from `first` to `last`.
    strength : float
        As in `TransferRule`, above 0.
    mixing : str
        ``spherical``: the images are mixed linearly and their noises on a great circle, so that every mixture has the noise of
        the level. ``linear``: both linearly, as published; there is less noise halfway than the level says.
    sampling : SamplingRule, optional
    seed : int
        Of the two noises.

    Raises
    ------
    ConfigurationError
        Images of different sizes, other bands or smaller than the model's; fewer than two frames; a strength of 0.
    """
    for flux in (first, last):
        _check(model, flux)
    if first.shape != last.shape:
        raise ConfigurationError(f"images of shapes {first.shape} and {last.shape}: two of one size are wanted")
    if frames < 2:
        raise ConfigurationError(f"{frames} frames: 2 or more, the ends among them")
    ends = [model.to_scaled(torch.as_tensor(flux, dtype=torch.float32, device=device)) for flux in (first, last)]
    noises = [_noise(seed + index, end[None], device)[0] for index, end in enumerate(ends)]
    share = torch.linspace(0, 1, frames, device=device)[:, None, None, None]
    clean = (1 - share) * ends[0] + share * ends[1]
    noise = mix(noises[0], noises[1], share, mixing=mixing)
    denoiser = _of_any_size(model, clean)
    return _reverse(denoiser, model, clean, noise, strength, sampling or SamplingRule(), seed=seed, on_step=on_step)


def mix(first: Tensor, last: Tensor, share: Tensor, *, mixing: Mixing) -> Tensor:
    """Return mixtures of two independent noises: on the great circle through both each has the variance of either."""
    if mixing == "linear":
        return (1 - share) * first + share * last
    angle = share * (math.pi / 2)
    return angle.cos() * first + angle.sin() * last


def flux_kept(denoiser: Denoiser, model: GalaxyModel, flux: NDArray[np.float64], *, tolerance: float) -> Denoiser:
    """Return a denoiser whose estimates have the total flux of an image, per band, within a share of it.

    Bands of no positive total are left as they are: there is nothing to be kept.
    """
    totals = flux.sum(axis=(1, 2))

    def denoise(noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        estimate = denoiser(noisy, sigma, condition)
        made = model.to_flux(estimate)
        found = made.sum(dim=(-2, -1))
        aim = torch.as_tensor(totals, dtype=found.dtype, device=found.device)
        wanted = torch.minimum(torch.maximum(found, aim * (1 - tolerance)), aim * (1 + tolerance))
        factor = (wanted / found.clamp(min=1e-12)).clamp(1 / _MOST_CORRECTION, _MOST_CORRECTION)
        factor = torch.where((aim > 0) & (found > 0), factor, 1.0)[..., None, None]
        return torch.where(factor == 1.0, estimate, model.to_scaled(made * factor))

    return denoise


def _reverse(
    denoiser: Denoiser,
    model: GalaxyModel,
    clean: Tensor,
    noise: Tensor,
    strength: float,
    sampling: SamplingRule,
    *,
    seed: int,
    on_step: OnStep | None,
) -> NDArray[np.float64]:
    """Return images, in nanomaggies, that were noised to a level and are brought back."""
    levels = sampling.levels_from(model.config, strength)
    with torch.inference_mode():
        found = sample(
            denoiser,
            clean / levels[0].item() + noise,
            levels,
            sampler=sampling.sampler,
            generator=torch.Generator(clean.device).manual_seed(seed),
            on_step=on_step,
        )
        return model.to_flux(found).cpu().numpy().astype(np.float64)


def _of_any_size(model: GalaxyModel, images: Tensor) -> Denoiser:
    side = model.config.pixels
    if images.shape[-2:] == (side, side):
        return model.denoise
    return tiled(model.denoise, side=side, wanted=np.ones(images.shape[-2:], dtype=bool))


def _noise(seed: int, like: Tensor, device: torch.device | None) -> Tensor:
    return seeded_noise(torch.tensor([seed]), tuple(like.shape[1:]), device=device)


def _check(model: GalaxyModel, flux: NDArray[np.float64]) -> None:
    config = model.config
    if flux.ndim != 3 or flux.shape[0] != len(config.bands) or min(flux.shape[1:]) < config.pixels:
        raise ConfigurationError(
            f"an image of shape {flux.shape}: {len(config.bands)} bands ({', '.join(config.bands)}) of {config.pixels} "
            "pixels a side or more are wanted"
        )
    if not np.isfinite(flux).all():
        raise ConfigurationError(
            "an image with pixels that are not finite: fill them first (canopus inpaint --mask missing)"
        )
