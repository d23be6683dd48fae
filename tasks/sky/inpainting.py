"""Holes of images filled by a diffusion model, given all that is known around them.

The sampler is RePaint's (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1): after each step known pixels are put back at
the step's noise level, and every few steps are gone through several times, noise added in between, so that what is drawn
fits what is known. An image of other pixels than the model's is brought to those, filled, and brought back; what the model
cannot know, noise finer than its pixels and as deep as this image's, is carried on from the surroundings. Known pixels come
out bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.samplers import Denoiser, OnStep, sample, sigma_steps
from storage.cutouts import Cutout
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.diffusion_jobs import GalaxyModel, ModelConfig
from tasks.sky.inpainting_tiles import tiled
from tasks.sky.noise import robust_scatter
from tasks.sky.noise_texture import draw_texture, measure_texture
from tasks.sky.resampling import PixelGrids

_LEAST_KNOWN = 0.8
"""Share of a model pixel that is known where it counts as known."""
_HIGHEST = 30.0
"""Noise level at which in-painting starts at most: known pixels say the rest."""
_REACH_MODEL_PIXELS = 3.0
_LEAST_REACH = 6
_COARSEST = 3.0
"""Pixels of an image at most this many times as large as the model's."""


@dataclass(frozen=True)
class InpaintRule:
    """How holes are filled.

    Parameters
    ----------
    draws : int
        Fillings of each image.
    steps : int
        Noise levels.
    resamplings : int
        How often each stretch of steps is gone through; 1 = never back.
    jump : int
        Steps of a stretch.
    smoothing : float
        Noise level, in units of the image's own noise, at which a filling is smoothed before noise as the image has it takes
        the place of the model's; 0 = the model's noise stays, for images of the model's pixels and depth.
    seed : int
        Of the draws.
    """

    draws: int = 16
    steps: int = 25
    resamplings: int = 4
    jump: int = 1
    smoothing: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.draws, self.steps, self.resamplings, self.jump) < 1 or self.smoothing < 0:
            raise ConfigurationError(
                f"draws {self.draws}, steps {self.steps}, resamplings {self.resamplings}, jump {self.jump}: 1 or more "
                f"each, and smoothing {self.smoothing} not below 0"
            )


@dataclass(frozen=True)
class Inpainted:
    """An image with its holes filled.

    Parameters
    ----------
    before : Cutout
        As it came.
    mask : ndarray, shape (band, y, x), bool
        The holes.
    draws : ndarray, shape (draw, pixel), float32
        What each draw has in the holes, in the order of ``flux[mask]`` and the cutout's unit.
    """

    before: Cutout
    mask: NDArray[np.bool_]
    draws: NDArray[np.float32]

    def filled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the image with some values in its holes, (band, y, x): known pixels bit for bit."""
        flux = self.before.flux.copy()
        flux[self.mask] = values
        return flux

    @property
    def mean(self) -> NDArray[np.float32]:
        """Return the image with the mean of the draws in its holes, (band, y, x)."""
        return self.filled(self.draws.mean(axis=0, dtype=np.float64).astype(np.float32))

    @property
    def spread(self) -> NDArray[np.float32]:
        """Return the standard deviation of the draws, (band, y, x): 0 where known, NaN in the holes of a single draw."""
        spread = np.zeros(self.mask.shape, dtype=np.float32)
        one = len(self.draws) == 1
        spread[self.mask] = np.nan if one else self.draws.std(axis=0, ddof=1, dtype=np.float64)
        return spread

    @property
    def cutout(self) -> Cutout:
        """Return the cutout with the first draw in its holes, valid there, its variance that of the draws."""
        variance = np.nan_to_num(self.spread[self.mask].astype(np.float64) ** 2)
        ivar = self.before.ivar.copy()
        ivar[self.mask] = np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0)
        return replace(
            self.before,
            flux=self.filled(self.draws[0]),
            valid=self.before.valid | self.mask,
            ivar=ivar,
            notes=(*self.before.notes, f"{int(self.mask.sum())} pixels are filled by a model"),
        )


def inpaint(
    model: GalaxyModel,
    cutout: Cutout,
    mask: NDArray[np.bool_],
    *,
    rule: InpaintRule | None = None,
    device: torch.device | None = None,
    on_step: OnStep | None = None,
) -> Inpainted:
    """Return an image with what a mask marks filled.

    Parameters
    ----------
    model : GalaxyModel
        Of the cutout's bands, in any order; on `device`.
    cutout : Cutout
        Of any size, in nanomaggies or counts of known zero point. What is not valid is not leant on; where the mask leaves it
        out it stays as it is.
    mask : ndarray, shape (band, y, x) or (y, x), bool
        True where pixels are to be filled.
    rule : InpaintRule, optional
    device : torch.device, optional
        By default the CPU.
    on_step : callable, optional
        Hears of steps done.

    Raises
    ------
    SourceRejected
        Bands that the model does not know, flux of no zero point, nothing known, or pixels much larger than the model's.
    ConfigurationError
        A mask of another shape, or that marks nothing, everything, or a band that the model does not know.
    """
    rule = rule or InpaintRule()
    mask, order = _checked_mask(mask, cutout), band_order(model.config, cutout)
    if strange := [name for band, name in enumerate(cutout.band_names) if mask[band].any() and band not in order]:
        raise ConfigurationError(
            f"the mask of {cutout.object_id} marks pixels in {', '.join(strange)}, a band that the model does not know"
        )
    known = cutout.valid & np.isfinite(cutout.flux) & ~mask
    if not known.any():
        raise SourceRejected(f"{cutout.object_id}: no pixel is known outside the mask")
    unit = np.array([cutout.nanomaggies_per_unit(band) for band in order])[:, None, None]
    flux, seen = cutout.flux[order].astype(np.float64) * unit, known[order]
    grids = _grids(model.config, cutout)
    coarse, share = grids.to_model(flux, seen)
    clean = model.to_scaled(torch.as_tensor(coarse, dtype=torch.float32, device=device))
    fixed = torch.as_tensor(share >= _LEAST_KNOWN, device=device)
    holes = grids.to_model(np.zeros_like(flux), mask[order])[1] > 0
    denoiser = tiled(model.denoise, side=model.config.pixels, wanted=np.asarray(holes.any(axis=0)))
    generator = torch.Generator(device or "cpu").manual_seed(rule.seed)
    levels = levels_of(model.config, rule.steps)
    with torch.inference_mode():
        drawn = draw_unknown(denoiser, clean, fixed, levels, rule=rule, generator=generator, on_step=on_step)
        level = rule.smoothing * noise_of(clean.cpu().numpy(), share >= _LEAST_KNOWN)
        smooth = _smoothed(model, denoiser, drawn, level, generator=generator)
        estimates = model.to_flux(smooth).cpu().numpy().astype(np.float64)
    rng = np.random.default_rng(rule.seed)
    reach = max(_LEAST_REACH, round(_REACH_MODEL_PIXELS * grids.ratio))
    fills: dict[int, NDArray[np.float32]] = {}
    for row, band in enumerate(order):
        if mask[band].any():
            finer = (grids.to_image(estimate[row]) for estimate in estimates)
            drawn_band = _fill_band(flux[row], seen[row], mask[band], finer, reach=reach, rng=rng)
            fills[band] = (drawn_band / unit[row]).astype(np.float32)
    return Inpainted(cutout, mask, np.concatenate([fills[band] for band in sorted(fills)], axis=1))


def draw_unknown(
    denoiser: Denoiser,
    clean: Tensor,
    known: Tensor,
    sigmas: Tensor,
    *,
    rule: InpaintRule,
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """Return draws of an image given some of its pixels, shape (draw, band, y, x); known pixels as they are.

    Parameters
    ----------
    denoiser : callable
        See `models.samplers.Denoiser`.
    clean : Tensor, shape (band, y, x)
        The image, scaled; what is not known may be anything finite.
    known : Tensor, shape (band, y, x), bool
    sigmas : Tensor, shape (steps + 1,)
        Falling noise levels, the last one 0.
    rule : InpaintRule
        Draws, resamplings and jump.
    """

    def put_back(x: Tensor, _: float, level: float) -> Tensor:
        return torch.where(known, clean + level * _normal_like(x, generator), x)

    levels = [float(level) for level in sigmas]
    stretches = list(pairwise([*range(0, len(levels) - 1, rule.jump), len(levels) - 1]))
    total = rule.resamplings * (len(levels) - 1)
    x = levels[0] * _normal_like(clean.expand(rule.draws, *clean.shape), generator)
    x, done = put_back(x, levels[0], levels[0]), 0
    for first, last in stretches:
        high, low = levels[first], levels[last]
        for time in range(rule.resamplings):
            if time > 0:
                x = x + (high**2 - low**2) ** 0.5 * _normal_like(x, generator)
            x = sample(
                denoiser, x / high, sigmas[first : last + 1], sampler="ancestral", generator=generator, known=put_back
            )
            done += last - first
            if on_step is not None:
                on_step(done, total)
    return x


def levels_of(config: ModelConfig, steps: int) -> Tensor:
    """Return noise levels for a model where something is known of the image already."""
    return sigma_steps(steps, sigma_min=config.sigma_min, sigma_max=min(config.sigma_max, _HIGHEST))


def noise_of(image: NDArray[np.floating], known: NDArray[np.bool_]) -> float:
    """Return the noise of a pixel, the median over bands: by differences of pixels two apart, which galaxies hardly change."""
    found = [
        robust_scatter((plane[:, 2:] - plane[:, :-2])[good[:, 2:] & good[:, :-2]]) / math.sqrt(2)
        for plane, good in zip(image, known, strict=True)
    ]
    return float(np.median(found))


def band_order(config: ModelConfig, cutout: Cutout) -> list[int]:
    """Return which band of a cutout is each of a model's.

    Raises
    ------
    SourceRejected
        Where a band is missing, or its flux has no known zero point.
    """
    missing = [name for name in config.bands if name not in cutout.band_names]
    if missing:
        raise SourceRejected(
            f"{cutout.object_id} has bands {', '.join(cutout.band_names)}; the model is of {', '.join(config.bands)}: "
            f"{', '.join(missing)} missing"
        )
    order = [cutout.band_names.index(name) for name in config.bands]
    unknown = [cutout.band_names[band] for band in order if not cutout.bands[band].calibrated]
    if unknown:
        raise SourceRejected(
            f"{cutout.object_id}: no zero point of {', '.join(unknown)} is known; "
            "the model counts in nanomaggies: give it (--zero-point)"
        )
    return order


def _checked_mask(mask: NDArray[np.bool_], cutout: Cutout) -> NDArray[np.bool_]:
    shape = cutout.flux.shape
    if mask.shape not in (shape, shape[1:]):
        raise ConfigurationError(
            f"a mask of shape {mask.shape} for an image of {shape}: (band, y, x) or (y, x) of the same pixels is wanted"
        )
    whole = np.broadcast_to(mask, shape).astype(bool)
    if not whole.any():
        raise ConfigurationError(f"the mask of {cutout.object_id} marks no pixel: there is nothing to fill")
    if whole.all():
        raise ConfigurationError(f"the mask of {cutout.object_id} marks every pixel: nothing is known to fill it from")
    return whole


def _grids(config: ModelConfig, cutout: Cutout) -> PixelGrids:
    scale = cutout.pixel_scale_arcsec
    if not scale <= _COARSEST * config.pixel_scale_arcsec:
        raise SourceRejected(
            f"{cutout.object_id}: pixels of {scale:.4g} arcsec; the model's are {config.pixel_scale_arcsec:g}, "
            f"and at most {_COARSEST:g} times as large ones can be filled"
        )
    return PixelGrids.around(
        cutout.shape, scale_arcsec=scale, model_scale_arcsec=config.pixel_scale_arcsec, least=config.pixels
    )


def _smoothed(
    model: GalaxyModel, denoiser: Denoiser, drawn: Tensor, level: float, *, generator: torch.Generator
) -> Tensor:
    """Return images without noise as far as it lies below a level: what the denoiser makes of them at that level.

    Where an image is so bright that the scale is compressed, noise lies lower on it, and structure would go with it: there
    images stay as they are.
    """
    if level == 0:
        return drawn
    noisy = drawn + level * _normal_like(drawn, generator)
    smooth = denoiser(noisy, drawn.new_full((len(drawn),), level), None)
    share = (_slope(model, torch.zeros_like(smooth)) / _slope(model, smooth)).square().clamp(max=1.0)
    return torch.lerp(drawn, smooth, share.nan_to_num(1.0))


def _slope(model: GalaxyModel, scaled: Tensor) -> Tensor:
    """Return how much flux a step on the model's scale is."""
    step = 1e-2
    return model.to_flux(scaled + step) - model.to_flux(scaled - step)


def _fill_band(
    flux: NDArray[np.float64],
    known: NDArray[np.bool_],
    hole: NDArray[np.bool_],
    estimates: Iterable[NDArray[np.float64]],
    *,
    reach: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return a filling of a band's hole for each estimate, (draw, pixel): the estimate, and a draw of what it leaves."""
    texture, fills = None, []
    for estimate in estimates:
        rest = np.where(known, flux - estimate, 0.0)
        texture = texture or measure_texture(rest, estimate, known, reach=reach)
        fills.append((estimate + draw_texture(texture, rest, known, rng))[hole])
    return np.stack(fills)


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
