"""Models of galaxies whose every answer is known: Gaussian images, denoised in closed form; and small networks."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.diffusion import DiffusionConfig, GalaxyDiffusion
from storage.cutouts import BandFacts, Cutout
from storage.location import resolve
from tasks.earth.model_files import save_network
from tasks.sky.diffusion_jobs import Weights, pin_weights

TINY = DiffusionConfig(pixels=16, widths=(16, 16), depths=(1, 1), attended=1)
"""A network of seconds."""


class GaussianModel:
    """Images that are stationary Gaussian fields on a torus: smooth light and white noise, equal in all bands' statistics.

    Parameters
    ----------
    length : float
        Of the smooth light's correlation, pixels.
    smooth, noise : float
        Variance of the smooth light and of the noise of a pixel.
    shared : float
        Correlation of the smooth light between bands.
    unit : float
        Nanomaggies of 1.
    """

    def __init__(
        self,
        *,
        bands: tuple[str, ...] = ("g", "r", "z"),
        pixels: int = 16,
        pixel_scale_arcsec: float = 0.524,
        length: float = 3.0,
        smooth: float = 1.0,
        noise: float = 0.05,
        shared: float = 0.8,
        unit: float = 0.01,
    ) -> None:
        each = (1.0,) * len(bands)
        self.config = DiffusionConfig(
            bands=bands,
            pixels=pixels,
            pixel_scale_arcsec=pixel_scale_arcsec,
            softening=each,
            sigma_data=each,
            sigma_max=60.0,
        )
        self.length, self.smooth, self.noise, self.unit = length, smooth, noise, unit
        between = shared * np.ones((len(bands), len(bands))) + (1 - shared) * np.eye(len(bands))
        self.between = torch.as_tensor(between)

    def power(self, rows: int, columns: int) -> Tensor:
        """Return the power of the smooth light, shape (y, x), float64: its mean is its variance."""
        y, x = torch.fft.fftfreq(rows).double(), torch.fft.fftfreq(columns).double()
        shape = torch.exp(-2 * (math.pi * self.length) ** 2 * (y[:, None] ** 2 + x[None, :] ** 2))
        return self.smooth * shape / shape.mean()

    def covariance(self, pixels: int) -> Tensor:
        """Return the covariance of all numbers of an image, shape (band y x, band y x), float64."""
        lag = torch.fft.ifft2(self.power(pixels, pixels)).real
        index = torch.arange(pixels)
        shift = (index[:, None] - index[None, :]) % pixels
        space = lag[shift[:, None, :, None], shift[None, :, None, :]].reshape(pixels**2, pixels**2)
        return torch.kron(self.between, space) + self.noise * torch.eye(len(self.config.bands) * pixels**2).double()

    def draw(self, count: int, rows: int, columns: int, *, generator: torch.Generator) -> Tensor:
        """Return scaled images, shape (n, band, y, x)."""
        shape = (count, len(self.config.bands), rows, columns)
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        mixed = torch.einsum("ab,nbyx->nayx", torch.linalg.cholesky(self.between), white)
        light = torch.fft.ifft2(torch.fft.fft2(mixed) * self.power(rows, columns).sqrt()).real
        grain = math.sqrt(self.noise) * torch.randn(shape, generator=generator, dtype=torch.float64)
        return (light + grain).float()

    def denoise(self, noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the posterior mean, exactly."""
        values, vectors = torch.linalg.eigh(self.between)
        power = values[:, None, None] * self.power(*noisy.shape[-2:]) + self.noise
        share = power / (power + sigma.double()[:, None, None, None] ** 2)
        mixed = torch.fft.fft2(torch.einsum("ba,nbyx->nayx", vectors, noisy.double()))
        found = torch.fft.ifft2(mixed * share).real
        return torch.einsum("ba,nayx->nbyx", vectors, found).to(noisy.dtype)

    def to_scaled(self, flux: Tensor) -> Tensor:
        """Return flux in units of `unit`."""
        return flux / self.unit

    def to_flux(self, scaled: Tensor) -> Tensor:
        """Return nanomaggies."""
        return scaled * self.unit

    def draw_conditions(self, count: int, *, generator: torch.Generator) -> Tensor | None:
        """Return None: there is nothing to ask for."""
        return None


def gaussian_cutout(model: GaussianModel, rows: int, columns: int, *, seed: int = 0, factor: int = 1) -> Cutout:
    """Return a draw of a model as a cutout; `factor` pixels a side make one of the model's, noise is drawn in each."""
    generator = torch.Generator().manual_seed(seed)
    scaled = model.draw(1, rows, columns, generator=generator)[0]
    flux = np.kron(model.to_flux(scaled).numpy(), np.ones((factor, factor))) / factor**2
    return plain_cutout(flux.astype(np.float32), model.config.bands, model.config.pixel_scale_arcsec / factor)


def plain_cutout(flux: np.ndarray, bands: tuple[str, ...], scale: float, *, name: str = "object") -> Cutout:
    """Return an image in nanomaggies of which nothing else is known."""
    nothing = np.zeros_like(flux)
    return Cutout(
        object_id=name,
        ra=math.nan,
        dec=math.nan,
        bands=tuple(BandFacts(band) for band in bands),
        flux=flux,
        valid=np.isfinite(flux),
        ivar=nothing,
        maskbits=nothing.astype(np.int32),
        segmentation=nothing[0].astype(np.int32),
        wcs="",
        pixel_scale_arcsec=scale,
    )


def save_model(warehouse: Path, config: DiffusionConfig = TINY, name: str = "tiny") -> Weights:
    """Save a small network with first weights, every one of them drawn, so that it says something; return which it is."""
    generator = torch.Generator().manual_seed(1)
    model = GalaxyDiffusion(config, generator=generator)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.02 * torch.randn(weights.shape, generator=generator))
    return save_trained(warehouse, model, name)


def save_trained(warehouse: Path, model: GalaxyDiffusion, name: str) -> Weights:
    """Save a model in a warehouse, and return which it is."""
    told: dict[str, Any] = {"metrics": {}, "training": {}, "card": "For tests."}
    save_network(resolve(warehouse), name, model, kind="galaxy-diffusion", config=asdict(model.config), **told)
    return pin_weights(str(warehouse), name)
