"""The galaxy diffusion model: scaling of flux, preconditioning and loss around a U-Net.

Karras et al. 2022 (EDM, arXiv 2206.00364): images at noise level sigma are clean + sigma x noise, and the network's input,
output and loss have about unit size at every level. Bands are mixed for it by a rotation that makes them independent: what
a galaxy has in all bands alike is much, its colour little, so that the preconditioning alone takes most of the noise out of
colours. The weight of a level follows how well it can be done (Karras et al. 2024, EDM2, arXiv 2312.02696, section 2.2).
Sampling is apart from it, in `models.samplers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.unet import FREQUENCIES, UNet, UNetConfig, turns_of

DARK, BRIGHT = 0.0, 5.5
"""Nanomaggies that ``clip`` makes -1 and 1 (Smith et al. 2022, arXiv 2111.01713)."""
KEPT_CONDITIONS = 1024
"""Conditions of training galaxies that a model keeps."""
_CLOSEST, _FARTHEST = 0.001, 0.999
_MOST_DETAIL = 4.0
_EVEN_SHARE = 0.2


@dataclass(frozen=True)
class DiffusionConfig:
    """What a galaxy diffusion model is of, and its size.

    Parameters
    ----------
    bands : tuple of str
        In the order of the images.
    pixels : int
        Side of the images that it was trained on; a multiple of `UNetConfig.divisor`.
    pixel_scale_arcsec : float
        Side of their pixels.
    scaling : str
        ``asinh``: asinh(flux / softening); ``clip``: 0 to 5.5 nanomaggies become -1 to 1, as published.
    softening : tuple of float
        Per band, nanomaggies.
    mixing : tuple of float
        Rows of a rotation, one after another: scaled bands to mixed ones; none for the bands as they are.
    sigma_data : tuple of float
        Root mean square of the scaled images, per mixed band.
    sigma_min, sigma_max : float
        Noise levels that it knows; at the highest nothing of an image is left.
    level_centre, level_spread : float
        Mean and standard deviation of the logarithm of four in five of the noise levels that are trained; the others lie evenly.
    conditions : tuple of str
        Quantities that may be asked for, e.g. magnitude, colour, size, redshift.
    condition_centre, condition_spread : tuple of float
        Mean and standard deviation of each.
    left_out : float
        Share of training galaxies whose condition is not told.
    patch, widths, depths, attended : int, tuple of int, tuple of int, int
        As in `UNetConfig`.

    Raises
    ------
    ValueError
        Where numbers per band or condition are not one for each, or sizes do not fit.
    """

    bands: tuple[str, ...] = ("g", "r", "z")
    pixels: int = 64
    pixel_scale_arcsec: float = 0.524
    scaling: Literal["asinh", "clip"] = "asinh"
    softening: tuple[float, ...] = (0.016, 0.02, 0.07)
    mixing: tuple[float, ...] = ()
    sigma_data: tuple[float, ...] = (1.0, 1.0, 1.0)
    sigma_min: float = 0.01
    sigma_max: float = 500.0
    level_centre: float = 0.0
    level_spread: float = 1.8
    conditions: tuple[str, ...] = ()
    condition_centre: tuple[float, ...] = ()
    condition_spread: tuple[float, ...] = ()
    left_out: float = 0.2
    patch: int = 4
    widths: tuple[int, ...] = (64, 128, 192)
    depths: tuple[int, ...] = (1, 1, 1)
    attended: int = 2

    def __post_init__(self) -> None:
        per_band = {"softening": self.softening, "sigma_data": self.sigma_data}
        wrong = [name for name, values in per_band.items() if len(values) != len(self.bands)]
        per_condition = {"condition_centre": self.condition_centre, "condition_spread": self.condition_spread}
        wrong += [name for name, values in per_condition.items() if len(values) != len(self.conditions)]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: one number for each of bands {', '.join(self.bands)} or conditions {', '.join(self.conditions)}"
            )
        positive = (*self.softening, *self.sigma_data, *self.condition_spread, self.sigma_min, self.level_spread)
        if min(positive) <= 0 or self.sigma_max <= self.sigma_min:
            raise ValueError("softening, sigma_data, spreads and sigma_min are above 0, sigma_max above sigma_min")
        if self.mixing and not _is_rotation(self.mixing, len(self.bands)):
            raise ValueError(f"mixing {self.mixing}: rows of a rotation of {len(self.bands)} bands are wanted")
        if self.scaling not in ("asinh", "clip"):
            raise ValueError(f"scaling {self.scaling!r}: there are asinh and clip")
        if self.pixels < 1 or self.pixels % self.network.divisor:
            raise ValueError(f"images of {self.pixels} pixels: take a multiple of {self.network.divisor}")

    @property
    def network(self) -> UNetConfig:
        """Return the size of the network."""
        return UNetConfig(
            len(self.bands), self.patch, self.widths, self.depths, self.attended, conditions=len(self.conditions)
        )


class GalaxyDiffusion(nn.Module):
    """Images of galaxies at any noise level to estimates of the clean ones.

    Parameters
    ----------
    config : DiffusionConfig
        What of, and its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    kept_conditions: Tensor

    def __init__(self, config: DiffusionConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = UNet(config.network, generator=generator)
        self.doubt = nn.Linear(2 * FREQUENCIES, 1)
        nn.init.zeros_(self.doubt.weight)
        nn.init.zeros_(self.doubt.bias)
        centre = torch.tensor(config.condition_centre).expand(KEPT_CONDITIONS, -1).clone()
        self.register_buffer("kept_conditions", centre)

    def denoise(self, noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean images; a `models.samplers.Denoiser`.

        Parameters
        ----------
        noisy : Tensor, shape (n, band, y, x)
            Scaled; both sides multiples of `UNetConfig.divisor`.
        sigma : Tensor, shape (n,)
            Noise level of each.
        condition : Tensor, shape (n, condition), optional
            What is asked for, in the units of the quantities; None for anything.

        Raises
        ------
        ValueError
            Where images or conditions are not of the model's shape.
        """
        self._require_fitting(noisy, condition)
        return self._mixed(self._denoised(self._mixed(noisy), sigma, condition, asked=None), back=True)

    def loss(self, batch: Mapping[str, Tensor], *, generator: torch.Generator) -> Tensor:
        """Return the mean over images and pixels of error^2 / doubt + log(doubt), the error that of the network's answer.

        Parameters
        ----------
        batch : mapping
            ``flux`` (n, band, y, x), nanomaggies per pixel, and where the model has conditions, ``conditions`` (n, condition).
        generator : torch.Generator
            Draws levels, noise, and whose condition is not told.
        """
        clean = self._mixed(self.to_scaled(batch["flux"].float()))
        condition = batch["conditions"] if self.config.conditions else None
        self._require_fitting(clean, condition)
        sigma = self.draw_levels(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        asked = torch.rand(len(clean), generator=generator, device=clean.device) >= self.config.left_out
        noisy = clean + sigma[:, None, None, None] * noise  # a rotation of noise is noise
        denoised = self._denoised(noisy, sigma, condition, asked=asked)
        error = ((denoised - clean) / _scales(self._spread(clean), sigma)[1]).square().mean(dim=(1, 2, 3))
        doubt = self.doubt(turns_of(_logarithm(sigma)))[:, 0]
        found: Tensor = (error * torch.exp(-doubt) + doubt).mean()
        return found

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Return noise levels to train at, shape (count,), on the generator's device, spread evenly over their quantiles.

        Most are log-normal, and some even in the logarithm: the brightness of an image is decided at levels so high that a
        log-normal all but leaves them out.
        """
        device, config = generator.device, self.config
        order = torch.randperm(count, generator=generator, device=device)
        place = (order + torch.rand(count, generator=generator, device=device)) / count
        even = config.sigma_min * (config.sigma_max / config.sigma_min) ** (place / _EVEN_SHARE)
        normal = torch.special.ndtri(((place - _EVEN_SHARE) / (1 - _EVEN_SHARE)).clamp(_CLOSEST, _FARTHEST))
        most = torch.exp(config.level_centre + config.level_spread * normal)
        return torch.where(place < _EVEN_SHARE, even, most).clamp(config.sigma_min, config.sigma_max)

    def to_scaled(self, flux: Tensor) -> Tensor:
        """Return the network's numbers: (..., band, y, x), nanomaggies per pixel of `pixel_scale_arcsec` -> the same shape."""
        return to_scaled(flux, self.config)

    def to_flux(self, scaled: Tensor) -> Tensor:
        """Return nanomaggies per pixel of `pixel_scale_arcsec`: the inverse of `to_scaled`, up to what that clips."""
        if self.config.scaling == "clip":
            return (scaled.clamp(-1, 1) + 1) / 2 * (BRIGHT - DARK) + DARK
        return torch.sinh(scaled) * _per_band(self.config.softening, scaled)

    def keep_conditions(self, conditions: Tensor) -> None:
        """Keep conditions of training galaxies, shape (`KEPT_CONDITIONS`, condition), for `draw_conditions`."""
        self.kept_conditions.copy_(conditions)

    def draw_conditions(self, count: int, *, generator: torch.Generator) -> Tensor | None:
        """Return conditions as training galaxies have them, shape (count, condition); None where the model has none."""
        if not self.config.conditions:
            return None
        rows = torch.randint(len(self.kept_conditions), (count,), generator=generator, device=generator.device)
        return self.kept_conditions[rows.to(self.kept_conditions.device)]

    def _mixed(self, images: Tensor, *, back: bool = False) -> Tensor:
        """Return mixed bands of scaled ones, or scaled bands of mixed ones, (n, band, y, x)."""
        if not self.config.mixing:
            return images
        bands = len(self.config.bands)
        rotation = images.new_tensor(self.config.mixing).view(bands, bands, 1, 1)
        # products and sums, since autocast would round a matrix product to bf16
        return ((rotation.transpose(0, 1) if back else rotation) * images[:, None]).sum(dim=2)

    def _denoised(self, noisy: Tensor, sigma: Tensor, condition: Tensor | None, *, asked: Tensor | None) -> Tensor:
        """Return the estimate of clean images of mixed bands."""
        spread = self._spread(noisy)
        skip, out, inside = _scales(spread, sigma)
        wanted = None
        if condition is not None:
            centre, width = (noisy.new_tensor(v) for v in (self.config.condition_centre, self.config.condition_spread))
            wanted = (condition - centre) / width
        answer = self.network(inside * noisy, details_of(noisy, sigma), _logarithm(sigma), wanted, asked=asked)
        return torch.addcmul(skip * noisy, out, answer)

    def _spread(self, like: Tensor) -> Tensor:
        return _per_band(self.config.sigma_data, like)

    def _require_fitting(self, images: Tensor, condition: Tensor | None) -> None:
        config = self.config
        if images.dim() != 4 or images.shape[1] != len(config.bands):
            raise ValueError(
                f"images of shape {tuple(images.shape)}: wanted are (n, {len(config.bands)}, y, x), bands {config.bands}"
            )
        if any(side % config.network.divisor for side in images.shape[-2:]):
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels: both sides are multiples of {config.network.divisor}"
            )
        if condition is not None and condition.shape != (len(images), len(config.conditions)):
            raise ValueError(
                f"conditions of shape {tuple(condition.shape)} for {len(images)} images: one row each of {config.conditions or 'nothing'}"
            )


def to_scaled(flux: Tensor, config: DiffusionConfig) -> Tensor:
    """Return flux (..., band, y, x), nanomaggies per pixel, on the scale of a config; the same shape."""
    if config.scaling == "clip":
        return 2 * (flux.clamp(DARK, BRIGHT) - DARK) / (BRIGHT - DARK) - 1
    return torch.asinh(flux / _per_band(config.softening, flux))


def _is_rotation(rows: tuple[float, ...], bands: int) -> bool:
    if len(rows) != bands**2:
        return False
    matrix = torch.tensor(rows, dtype=torch.float64).view(bands, bands)
    return bool(torch.allclose(matrix @ matrix.T, torch.eye(bands, dtype=torch.float64), atol=1e-6))


def details_of(noisy: Tensor, sigma: Tensor) -> Tensor:
    """Return what a pixel has over its neighbours, and they over a wider surrounding, in units of the noise level.

    Large numbers are drawn in to `_MOST_DETAIL`. Where light is smooth these are noise, and what to do about it is a matter
    of taking a share of them; the share depends on the place.

    Parameters
    ----------
    noisy : Tensor, shape (n, band, y, x)
    sigma : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, 2 band, y, x)
    """
    near = _smoothed(noisy)
    wide = _smoothed(_smoothed(near))
    details = torch.cat([noisy - near, near - wide], dim=1) / sigma[:, None, None, None]
    return details / (1 + (details / _MOST_DETAIL).square()).sqrt()


def _smoothed(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


def _scales(spread: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the input is multiplied by beside the network, the network's answer, and its input (EDM, table 1)."""
    level = sigma[:, None, None, None]
    total = (level.square() + spread.square()).sqrt()
    return (spread / total).square(), level * spread / total, 1 / total


def _logarithm(sigma: Tensor) -> Tensor:
    return sigma.log() / 4


def _per_band(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None, None]
