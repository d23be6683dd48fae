"""Diffusion of galaxies as published: a U-Net that tells the noise of an image, and 1000 steps back from noise.

Smith, Geach, Jackson, Arora, Stone and Courteau 2022, MNRAS 511, 1808, arXiv 2111.01713, after Ho et al. 2020, arXiv
2006.11239, with the cosine schedule of Nichol and Dhariwal 2021, arXiv 2102.09672. Module names are those of the published files.

Images are g, r, z in nanomaggies per pixel, clipped to 0 to 5.5 and scaled to -1 to 1. The features of full resolution that
the way down leaves behind are never used on the way up, as in the original.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.samplers import OnStep

DARK, BRIGHT = 0.0, 5.5
"""Nanomaggies that become -1 and 1: constants of the published weights."""
_HEADS, _HEAD = 4, 32
_GROUPS = 8
_OFFSET = 0.008
_LARGEST_BETA = 0.999


@dataclass(frozen=True)
class PublishedDDPMConfig:
    """Size of a published model; the defaults are the published ones.

    Parameters
    ----------
    width : int
        Channels at full resolution, a multiple of 8.
    multipliers : tuple of int
        Of each level's channels; each level has half the resolution of the one before.
    timesteps : int
        Steps of the diffusion.
    bands : tuple of str
        In the order of the images.
    pixels : int
        Side of the images that it was trained on.
    pixel_scale_arcsec : float
        Side of their pixels.

    Raises
    ------
    ValueError
        Where the sizes make no network.
    """

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    timesteps: int = 1000
    bands: tuple[str, ...] = ("g", "r", "z")
    pixels: int = 256
    pixel_scale_arcsec: float = 0.262

    def __post_init__(self) -> None:
        if self.width < _GROUPS or self.width % _GROUPS or len(self.multipliers) < 2 or min(self.multipliers) < 1:
            raise ValueError(f"{self}: width is a multiple of {_GROUPS}, and there are two multipliers or more")
        if self.timesteps < 2 or not self.bands:
            raise ValueError(f"{self}: there are two steps or more, and a band")

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return what may be asked for: nothing."""
        return ()

    @property
    def divisor(self) -> int:
        """Return what the side of an image is a multiple of."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def sigma_min(self) -> float:
        """Return the lowest noise level over the share of the image that is left."""
        return self._level(0)

    @property
    def sigma_max(self) -> float:
        """Return the highest noise level over the share of the image that is left."""
        return self._level(-1)

    def _level(self, step: int) -> float:
        kept = torch.cumprod(1 - cosine_betas(self.timesteps), 0)[step].item()
        return math.sqrt((1 - kept) / kept)


class Block(nn.Module):
    """Convolution, norm, Mish."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(_GROUPS, out), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, out, Y, X)."""
        found: Tensor = self.block(x)
        return found


class ResnetBlock(nn.Module):
    """Two blocks beside the identity, or a 1 x 1 convolution; the step is added between them."""

    def __init__(self, channels: int, out: int, told: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(told, out))
        self.block1, self.block2 = Block(channels, out), Block(out, out)
        self.res_conv = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(B, C, Y, X) and (B, told) -> (B, out, Y, X)."""
        inner = self.block1(x) + self.mlp(told)[:, :, None, None]
        found: Tensor = self.block2(inner) + self.res_conv(x)
        return found


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of pixels: keys are weighed over all pixels, queries as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * _HEADS * _HEAD, 1, bias=False)
        self.to_out = nn.Conv2d(_HEADS * _HEAD, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, Y, X)."""
        q, k, v = self.to_qkv(x).flatten(2).unflatten(1, (3, _HEADS, _HEAD)).unbind(dim=1)  # (B, H, D, Y X)
        context = k.softmax(dim=-1) @ v.transpose(2, 3)  # (B, H, D, D)
        mixed = context.transpose(2, 3) @ q  # (B, H, D, Y X)
        found: Tensor = self.to_out(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))
        return found


class Rezero(nn.Module):
    """A module times a learnt number that begins as 0."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.g = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """As the module within."""
        found: Tensor = self.fn(x) * self.g
        return found


class Residual(nn.Module):
    """A module beside the identity."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """As the module within."""
        found: Tensor = self.fn(x) + x
        return found


class Resampling(nn.Module):
    """A convolution that halves or doubles the resolution."""

    def __init__(self, channels: int, *, finer: bool) -> None:
        super().__init__()
        self.conv: nn.Module = (
            nn.ConvTranspose2d(channels, channels, 4, 2, 1) if finer else nn.Conv2d(channels, channels, 3, 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, 2 Y, 2 X) or (B, C, Y / 2, X / 2)."""
        found: Tensor = self.conv(x)
        return found


class PublishedUNet(nn.Module):
    """Noisy images (B, band, Y, X) and steps (B,) to their noise."""

    def __init__(self, config: PublishedDDPMConfig) -> None:
        super().__init__()
        told, channels = config.width, len(config.bands)
        widths = [channels, *(config.width * multiplier for multiplier in config.multipliers)]
        self.mlp = nn.Sequential(nn.Linear(told, 4 * told), nn.Mish(), nn.Linear(4 * told, told))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        levels = len(config.multipliers)
        for number, (before, width) in enumerate(pairwise(widths)):
            end = Resampling(width, finer=False) if number + 1 < levels else nn.Identity()
            self.downs.append(_level(before, width, told, end))
        deepest = widths[-1]
        self.mid_block1, self.mid_block2 = ResnetBlock(deepest, deepest, told), ResnetBlock(deepest, deepest, told)
        self.mid_attn = Residual(Rezero(LinearAttention(deepest)))
        for before, width in reversed(list(pairwise(widths[1:]))):
            self.ups.append(_level(2 * width, before, told, Resampling(before, finer=True)))
        self.final_conv = nn.Sequential(Block(config.width, config.width), nn.Conv2d(config.width, channels, 1))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Return the noise in images, (B, band, Y, X); steps (B,) from 0, fractions too."""
        told = self.mlp(_waves(step, self.mlp[0].in_features))  # type: ignore[arg-type]
        kept = []
        for level in self.downs:
            first, second, attention, coarser = cast(nn.ModuleList, level)
            x = attention(second(first(x, told), told))
            kept.append(x)
            x = coarser(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, told)), told)
        for level in self.ups:
            first, second, attention, finer = cast(nn.ModuleList, level)
            x = finer(attention(second(first(torch.cat([x, kept.pop()], dim=1), told), told)))
        found: Tensor = self.final_conv(x)
        return found


class PublishedDDPM(nn.Module):
    """The published model with its schedule; its buffers lie in the file beside the weights.

    Parameters
    ----------
    config : PublishedDDPMConfig
        Its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    log_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor

    def __init__(self, config: PublishedDDPMConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.denoise_fn = PublishedUNet(config)
        for name, values in _schedule(config.timesteps).items():
            self.register_buffer(name, values.float())
        _initialise(self, generator or torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Return the noise in images at some steps: (B, band, Y, X), (B,) -> (B, band, Y, X)."""
        found: Tensor = self.denoise_fn(x, step)
        return found

    def add_noise(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Return images at some steps, (B, band, Y, X): clean ones, scaled down, and noise."""
        return _at(self.sqrt_alphas_cumprod, step) * clean + _at(self.sqrt_one_minus_alphas_cumprod, step) * noise

    def clean_of(self, x: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Return the clean images that noise was added to, clipped to what images can be."""
        found = _at(self.sqrt_recip_alphas_cumprod, step) * x - _at(self.sqrt_recipm1_alphas_cumprod, step) * noise
        return found.clamp(-1, 1)

    def step_back(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, band, Y, X) and logarithm of the variance (B, 1, 1, 1) of images one step before."""
        clean = self.clean_of(x, step, self(x, step))
        mean = _at(self.posterior_mean_coef1, step) * clean + _at(self.posterior_mean_coef2, step) * x
        return mean, _at(self.posterior_log_variance_clipped, step)

    def loss(self, batch: Mapping[str, Tensor], *, generator: torch.Generator) -> Tensor:
        """Return the mean absolute error of the noise, at steps that are drawn evenly.

        Parameters
        ----------
        batch : mapping
            ``flux`` (B, band, Y, X), nanomaggies per pixel.
        generator : torch.Generator
            Draws steps and noise.
        """
        clean = self.to_scaled(batch["flux"].float())
        step = torch.randint(self.config.timesteps, (len(clean),), generator=generator, device=clean.device)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        return functional.l1_loss(self(self.add_noise(clean, step, noise), step), noise)

    def sample_as_published(
        self, noise: Tensor, *, generator: torch.Generator | None = None, on_step: OnStep | None = None
    ) -> Tensor:
        """Return images by as many draws as there are steps.

        Parameters
        ----------
        noise : Tensor, shape (n, band, Y, X)
            Standard normal: the images at the last step.
        generator : torch.Generator, optional
            Draws the noise of each step.
        on_step : callable, optional
            Hears of each step.
        """
        x, steps = noise, self.config.timesteps
        for step in reversed(range(steps)):
            mean, log_variance = self.step_back(x, torch.full((len(x),), step, device=x.device))
            drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) if step else 0.0
            x = mean + (0.5 * log_variance).exp() * drawn
            if on_step is not None:
                on_step(steps - step, steps)
        return x

    def denoise(self, noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean images; a `models.samplers.Denoiser`.

        Noisy images here are clean + sigma x noise; scaled down by sqrt(1 + sigma^2) they are what the network knows at the step
        of that level, between two steps a fraction.

        Raises
        ------
        ValueError
            Where images are not of the model's shape, or a condition is given.
        """
        config = self.config
        if condition is not None or noisy.dim() != 4 or noisy.shape[1] != len(config.bands):
            raise ValueError(
                f"images of shape {tuple(noisy.shape)}: wanted are (n, {len(config.bands)}, y, x), bands {config.bands}; "
                "it knows no conditions"
            )
        if any(side % config.divisor for side in noisy.shape[-2:]):
            raise ValueError(
                f"images of {tuple(noisy.shape[-2:])} pixels: both sides are multiples of {config.divisor}"
            )
        level = sigma[:, None, None, None]
        noise = self(noisy / (1 + level.square()).sqrt(), self.step_of(sigma))
        return (noisy - level * noise).clamp(-1, 1)

    def step_of(self, sigma: Tensor) -> Tensor:
        """Return the step, a fraction between two, at which noise over what is left of the image is `sigma`: (n,) -> (n,)."""
        # sqrt((1 - kept) / kept), by which images go from one form to the other
        levels = self.sqrt_recipm1_alphas_cumprod.log()
        wanted = sigma.log().clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        return above - 1 + (wanted - low) / (high - low)

    def to_scaled(self, flux: Tensor) -> Tensor:
        """Return the network's numbers, -1 to 1, of nanomaggies per pixel."""
        return 2 * (flux.clamp(DARK, BRIGHT) - DARK) / (BRIGHT - DARK) - 1

    def to_flux(self, scaled: Tensor) -> Tensor:
        """Return nanomaggies per pixel, 0 to 5.5, of the network's numbers."""
        return (scaled.clamp(-1, 1) + 1) / 2 * (BRIGHT - DARK) + DARK

    def draw_conditions(self, count: int, *, generator: torch.Generator) -> None:
        """Return no conditions: it knows none."""

    def to_config(self) -> dict[str, Any]:
        """Return its settings, ready for JSON."""
        return asdict(self.config)


def cosine_betas(timesteps: int) -> Tensor:
    """Return the share of noise that each step adds, shape (timesteps,), float64 (Nichol and Dhariwal 2021, equation 17).

    Time runs from 0 to 1 over one step more than there are, as in the published files.
    """
    time = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    kept = torch.cos((time + _OFFSET) / (1 + _OFFSET) * math.pi / 2).square()
    return (1 - kept[1:] / kept[:-1]).clamp(0, _LARGEST_BETA)


def _schedule(timesteps: int) -> dict[str, Tensor]:
    """Return all that the published files hold of a schedule, float64 (Ho et al. 2020, equations 4 to 7)."""
    betas = cosine_betas(timesteps)
    kept = torch.cumprod(1 - betas, 0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    variance = betas * (1 - before) / (1 - kept)
    return {
        "betas": betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": kept.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - kept),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - kept),
    }


def _at(values: Tensor, step: Tensor) -> Tensor:
    return values[step][:, None, None, None]


def _waves(step: Tensor, width: int) -> Tensor:
    """Return sines and cosines of a step: (B,) -> (B, width)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=step.device) * (-math.log(10_000) / (half - 1)))
    angle = step[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _level(channels: int, out: int, told: int, end: nn.Module) -> nn.ModuleList:
    blocks = [ResnetBlock(channels, out, told), ResnetBlock(out, out, told)]
    return nn.ModuleList([*blocks, Residual(Rezero(LinearAttention(out))), end])


def _initialise(model: PublishedDDPM, generator: torch.Generator) -> None:
    """Draw weights and biases evenly within the bounds that torch takes by itself."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
