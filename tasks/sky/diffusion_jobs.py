"""What the jobs of a diffusion model share: which weights, on which device, how it samples, which model is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.samplers import SAMPLERS, Sampler, sigma_steps
from storage.location import resolve
from tasks.earth.model_folders import read_parts
from tasks.earth.processes import team
from tasks.errors import ConfigurationError, UsageError
from tasks.sky.diffusion_models import open_diffusion


class ModelConfig(Protocol):
    """What jobs ask of what a model says of itself."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Return the bands, in the order of its images."""

    @property
    def pixels(self) -> int:
        """Return the side of its images."""

    @property
    def pixel_scale_arcsec(self) -> float:
        """Return the side of its pixels."""

    @property
    def sigma_min(self) -> float:
        """Return the lowest noise level that it knows."""

    @property
    def sigma_max(self) -> float:
        """Return the highest one."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return what may be asked for."""


class GalaxyModel(Protocol):
    """What jobs ask of a model: those of `tasks.sky.diffusion_models.open_diffusion` have it."""

    @property
    def config(self) -> ModelConfig:
        """Return what the model is of."""

    def denoise(self, noisy: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean images."""

    def to_scaled(self, flux: Tensor) -> Tensor:
        """Return the model's numbers from nanomaggies per pixel."""

    def to_flux(self, scaled: Tensor) -> Tensor:
        """Return nanomaggies per pixel from the model's numbers."""

    def draw_conditions(self, count: int, *, generator: torch.Generator) -> Tensor | None:
        """Return conditions as training galaxies have them; None where the model has none."""


@dataclass(frozen=True)
class Weights:
    """Which model.

    Parameters
    ----------
    warehouse : str
        URL; a name that it does not have is looked for among those that are shipped.
    model : str
        ``name/version``: see `pin_weights`.
    sha256 : str
        Of its weights.
    """

    warehouse: str
    model: str
    sha256: str

    def open(self, device: str | None) -> tuple[GalaxyModel, torch.device]:
        """Return the model, and the device that it is on: ``cpu``, ``cuda``, or None for a GPU where there is one.

        Raises
        ------
        ConfigurationError
            Where it is another kind of model, or there is no such device.
        """
        with team("none", device) as alone:
            return open_diffusion(resolve(self.warehouse), self.model).to(alone.device), alone.device


def pin_weights(warehouse: str, model: str) -> Weights:
    """Return a model with its version and digest, so that work that goes on later takes the same one.

    Raises
    ------
    NotFound
        Where there is no such model.
    """
    reference, _ = read_parts(resolve(warehouse), model)
    return Weights(resolve(warehouse).url, f"{reference.name}/{reference.version}", reference.weights_sha256)


@dataclass(frozen=True)
class SamplingRule:
    """How images are made from noise.

    Parameters
    ----------
    sampler : str
        One of `models.samplers.SAMPLERS`.
    steps : int
        Noise levels.
    guidance : float
        How far conditions are followed; 1 as the model has learned them.
    """

    sampler: Sampler = "dpm"
    steps: int = 20
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"--sampler {self.sampler}: one of {', '.join(SAMPLERS)}")
        if self.steps < 1 or self.guidance < 0:
            raise UsageError(f"--steps {self.steps}, --guidance {self.guidance:g}: 1 or more, and not below 0")

    def levels(self, config: ModelConfig) -> Tensor:
        """Return the noise levels for a model, down to 0."""
        return sigma_steps(self.steps, sigma_min=config.sigma_min, sigma_max=config.sigma_max)

    def levels_from(self, config: ModelConfig, strength: float) -> Tensor:
        """Return noise levels that begin at a share of the way from the lowest to the highest, 0 to 1.

        Raises
        ------
        ConfigurationError
            Where the strength is not above 0 and at most 1.
        """
        if not 0 < strength <= 1:
            raise ConfigurationError(f"a strength of {strength:g}: above 0 and at most 1 is expected")
        low, high = config.sigma_min ** (1 / _RHO), config.sigma_max ** (1 / _RHO)
        highest = (low + strength * (high - low)) ** _RHO
        return sigma_steps(self.steps, sigma_min=config.sigma_min, sigma_max=highest)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


_RHO = 7.0


def seeded_noise(seeds: Tensor, shape: tuple[int, ...], *, device: torch.device | None = None) -> Tensor:
    """Return standard normal noise for each seed, shape (seed, *shape): the same whatever batch it is drawn in."""
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(drawn).to(device)
