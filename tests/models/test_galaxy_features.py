"""The network of features: shapes, units, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from models.galaxy_features import DescribedGalaxies, GalaxyFeatures, GalaxyFeaturesConfig
from models.training import TrainConfig, fit

SMALL = GalaxyFeaturesConfig(width=8, features=12, quantities=("magnitude_r", "slope"))


class Discs:
    """Round discs whose flux and width are told."""

    def at(self, position: int) -> DescribedGalaxies:
        generator = torch.Generator().manual_seed(position)
        quantities = torch.randn(16, 2, generator=generator)
        width = 3 * (0.3 * quantities[:, 1]).exp()
        place = torch.arange(32) - 15.5
        radius = (place[:, None] ** 2 + place**2).sqrt()
        light = torch.exp(-radius / width[:, None, None]) / width[:, None, None] ** 2
        flux = (0.5 * quantities[:, 0]).exp()[:, None, None] * light
        return DescribedGalaxies(
            flux[:, None].expand(-1, 3, -1, -1) * 2, quantities, torch.zeros(16, dtype=torch.int64)
        )

    def tokens(self, batch: DescribedGalaxies) -> int:
        return len(batch)


def test_it_learns_flux_and_then_width() -> None:
    torch.manual_seed(3)
    model = GalaxyFeatures(SMALL)
    fit(model, Discs(), TrainConfig(steps=50, learning_rate=5e-3, warmup_steps=10, weight_decay=0.0))
    held_out = Discs().at(10_000)
    with torch.no_grad():
        told, _ = model.answers(held_out.flux)
    left = (told - held_out.quantities).square().mean(dim=0)
    # of a variance of 1 each
    assert left[0] < 0.5
    assert left[1] < 0.95


@pytest.mark.parametrize("side", [32, 64, 66])
def test_any_even_side_gives_as_many_features(side: int) -> None:
    model = GalaxyFeatures(SMALL)
    assert model(torch.zeros(2, 3, side, side)).shape == (2, model.num_features)


def test_textures_follow_noise_and_blur() -> None:
    """Twice the noise is log 2 more in all of them; what is smooth has less between neighbours than between pixels two apart."""
    model = GalaxyFeatures(SMALL)
    noise = 10 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain, twice = model.texture(noise), model.texture(2 * noise)
    torch.testing.assert_close(twice - plain, torch.full((4, 9), math.log(2)), atol=1e-3, rtol=0)
    smooth = model.texture(torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1))
    assert ((smooth[:, 3:6] - smooth[:, :3]) > 0.2).all()
    assert ((plain[:, 3:6] - plain[:, :3]).abs() < 0.1).all()


def test_standard_features_have_mean_zero_and_unit_spread() -> None:
    torch.manual_seed(4)
    model = GalaxyFeatures(SMALL).double()
    flux = Discs().at(0).flux.double()
    model.standardise(flux)
    features = model(flux)
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(21).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(features.std(dim=0), torch.ones(21).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "settings", [{"bands": ("g",)}, {"softening": (0.1, 0.0, 0.1)}, {"width": 0}, {"pixel_scale_arcsec": 0.0}]
)
def test_settings_that_make_no_network_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        GalaxyFeaturesConfig(**settings)  # type: ignore[arg-type]
