"""A small network that describes galaxies: trained to tell what is true of generated ones, used for the numbers before its answer.

FID and KID compare sets of images by such numbers. Inception's were learned from photographs of everyday things; these
know flux, colour, size and shape. Beside them stand a few fixed numbers of how pixels differ from their neighbours, which
follow noise and blur.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS = 4
TEXTURES = 3
"""Fixed numbers of each band."""
_SPREADS = 2
"""What is pooled of a channel: mean and spread."""
_FLOOR, _LEAST = 1e-6, 1e-12


@dataclass(frozen=True)
class GalaxyFeaturesConfig:
    """A network of features.

    Parameters
    ----------
    bands : tuple of str
        Of the images, in order.
    pixel_scale_arcsec : float
        Of the images; any side of 32 pixels and more is taken.
    softening : tuple of float
        Nanomaggies per pixel and band where asinh turns from linear to logarithmic.
    width : int
        Channels of the first stage.
    features : int
        How many learned numbers describe a galaxy.
    quantities : tuple of str
        What it is trained to tell, beside the kind of galaxy.

    Raises
    ------
    ValueError
        Where bands and softenings are not as many, or a size is not positive.
    """

    bands: tuple[str, ...] = ("g", "r", "z")
    pixel_scale_arcsec: float = 0.524
    softening: tuple[float, ...] = (0.004, 0.005, 0.018)
    width: int = 32
    features: int = 96
    quantities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.bands) != len(self.softening) or not self.bands or min(self.softening) <= 0:
            raise ValueError(f"{len(self.bands)} bands with {len(self.softening)} softenings: one above 0 for each")
        if self.width < 1 or self.features < 1 or self.pixel_scale_arcsec <= 0:
            raise ValueError(f"{self}: width, features and pixel scale are above 0")


@dataclass(frozen=True)
class DescribedGalaxies:
    """Images and what is true of them.

    Parameters
    ----------
    flux : Tensor, shape (B, band, Y, X)
        Nanomaggies per pixel.
    quantities : Tensor, shape (B, Q)
        Each of mean 0 and standard deviation 1 over the training set.
    kind : Tensor, shape (B,), int64
        0 to `KINDS` - 1.
    """

    flux: Tensor
    quantities: Tensor
    kind: Tensor

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.flux)

    def to(self, device: torch.device) -> DescribedGalaxies:
        """Return the same on another device."""
        return DescribedGalaxies(self.flux.to(device), self.quantities.to(device), self.kind.to(device))


class GalaxyFeatures(nn.Module):
    """Convolutions over asinh flux, pooled over the image; called with flux it gives features.

    It fits where torchmetrics takes ``feature=``: ``num_features`` says how many numbers a galaxy gets.
    """

    softening: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, config: GalaxyFeaturesConfig) -> None:
        super().__init__()
        self.config = config
        width, bands = config.width, len(config.bands)
        self.num_features = config.features + TEXTURES * bands
        self.stem = nn.Conv2d(4 * bands, width, 3, padding=1)
        self.stages = nn.ModuleList([_stage(width, width), _stage(width, 2 * width), _stage(2 * width, 3 * width)])
        self.mixed = nn.Sequential(nn.Conv2d(3 * width, 4 * width, 3, padding=1), nn.SiLU())
        self.described = nn.Linear(4 * width * _SPREADS, config.features)
        self.quantities = nn.Linear(config.features, len(config.quantities))
        self.kind = nn.Linear(config.features, KINDS)
        self.register_buffer("centre", torch.zeros(self.num_features))
        self.register_buffer("spread", torch.ones(self.num_features))
        self.register_buffer("softening", torch.tensor(config.softening)[:, None, None], persistent=False)

    def forward(self, flux: Tensor) -> Tensor:
        """(B, band, Y, X) nanomaggies per pixel -> (B, num_features), each of unit variance once `standardise` was called."""
        return (torch.cat([self.describe(flux), self.texture(flux)], dim=1) - self.centre) / self.spread

    def texture(self, flux: Tensor) -> Tensor:
        """(B, band, Y, X) -> (B, 3 band): logarithms of usual differences of pixels one and two apart, and of the sharpest edges."""
        near, far = (self._differences(flux, step).median(dim=-1).values for step in (1, 2))
        sharp = self._differences(flux, 1).quantile(0.99, dim=-1)
        return torch.cat([(each + _FLOOR).log() for each in (near, far, sharp)], dim=1)

    def _differences(self, flux: Tensor, step: int) -> Tensor:
        rows = flux[..., step:, :] - flux[..., :-step, :]
        columns = flux[..., step:] - flux[..., :-step]
        return (
            torch.cat([rows.flatten(2), columns.flatten(2)], dim=2).abs() / self.softening[:, :, 0]
        )  # (B, band, pair)

    def describe(self, flux: Tensor) -> Tensor:
        """(B, band, Y, X) nanomaggies per pixel -> (B, features) as the answers are made from."""
        scaled = torch.asinh(flux / self.softening) / 3
        x = functional.silu(self.stem(functional.pixel_unshuffle(scaled, 2)))  # (B, width, Y/2, X/2)
        for stage in self.stages:
            x = stage(x)
        x = self.mixed(x).flatten(2)  # (B, 4 width, Y/16 X/16)
        spread = (x.var(dim=-1, unbiased=False) + _FLOOR).sqrt()
        described: Tensor = self.described(torch.cat([x.mean(dim=-1), spread], dim=1))
        return described

    @torch.no_grad()
    def standardise(self, flux: Tensor) -> None:
        """Take mean and spread of the features from some galaxies: no feature then rules a distance by its unit alone."""
        found = torch.cat([self.describe(flux), self.texture(flux)], dim=1)
        self.centre.copy_(found.mean(dim=0))
        self.spread.copy_(found.std(dim=0).clamp(min=_LEAST))

    def loss(self, batch: DescribedGalaxies, *, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of quantities plus the cross-entropy of kinds."""
        features = functional.silu(self.describe(batch.flux))
        error = functional.mse_loss(self.quantities(features), batch.quantities)
        return error + 0.3 * functional.cross_entropy(self.kind(features), batch.kind)

    def answers(self, flux: Tensor) -> tuple[Tensor, Tensor]:
        """Return quantities (B, Q), standardised, and logits of kinds (B, KINDS)."""
        features = functional.silu(self.describe(flux))
        return self.quantities(features), self.kind(features)


def _stage(channels: int, out: int) -> nn.Module:
    """Return two convolutions, the second to half the side; no norm, which would take the flux away."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(channels, out, 3, stride=2, padding=1),
        nn.SiLU(),
    )
