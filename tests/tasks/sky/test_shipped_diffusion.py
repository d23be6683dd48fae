"""The diffusion model that comes with the package: its size, what it says of itself, and that it follows what is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.diffusion import GalaxyDiffusion
from models.samplers import sample, sigma_steps
from storage.location import resolve
from tasks.earth.model_folders import SHIPPED
from tasks.sky.diffusion_models import open_diffusion

NAME = "galaxy-diffusion-small"
LARGEST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> GalaxyDiffusion:
    found = open_diffusion(resolve(tmp_path_factory.mktemp("warehouse")), NAME)
    assert isinstance(found, GalaxyDiffusion)
    return found


def test_it_is_small_and_says_how_much_it_has_seen() -> None:
    folder = Path(SHIPPED) / NAME
    assert (folder / "weights.safetensors").stat().st_size <= LARGEST_BYTES
    assert "galaxies seen" in (folder / "card.md").read_text()


def test_it_is_of_the_survey_at_half_its_resolution(shipped: GalaxyDiffusion) -> None:
    config = shipped.config
    assert (config.bands, config.pixels, config.pixel_scale_arcsec) == (("g", "r", "z"), 64, 0.524)
    assert config.conditions == ("magnitude", "colour", "size")


def test_what_is_asked_for_is_made(shipped: GalaxyDiffusion) -> None:
    """Galaxies of three magnitudes and two colours, at one size: flux and colour of the image come out in that order."""
    magnitude, colour = np.meshgrid([14.0, 15.5, 17.0], [0.45, 0.85], indexing="ij")
    rows = np.stack([magnitude.ravel(), colour.ravel(), np.full(6, 0.9)], axis=1).repeat(4, axis=0)
    config, generator = shipped.config, torch.Generator().manual_seed(0)
    noise = torch.randn(len(rows), 3, 64, 64, generator=generator)
    levels = sigma_steps(12, sigma_min=config.sigma_min, sigma_max=config.sigma_max)
    with torch.inference_mode():
        made = sample(shipped.denoise, noise, levels, condition=torch.tensor(rows, dtype=torch.float32))
        flux = shipped.to_flux(made).double().sum(dim=(2, 3)).view(3, 2, 4, 3).numpy()
    assert np.isfinite(flux).all()
    found = 22.5 - 2.5 * np.log10(np.median(flux, axis=2))  # (magnitude, colour, band)
    assert np.abs(found[..., 1] - magnitude).max() < 0.75
    assert (found[:, 1, 0] - found[:, 1, 1] > found[:, 0, 0] - found[:, 0, 1] + 0.15).all()
