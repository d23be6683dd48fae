"""Kinds of networks: settings make the same model again, and what cannot be is named."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

from models.canopy import CanopyConfig, CanopyNet
from models.ddpm_published import PublishedDDPM, PublishedDDPMConfig
from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.earthpt import EarthPT, EarthPTConfig, from_channels, to_channels
from models.earthpt_published import ALPHABETICAL_BANDS, PublishedEarthPT, PublishedEarthPTConfig
from models.galaxy_features import GalaxyFeatures, GalaxyFeaturesConfig
from models.pix2prof import Pix2Prof, Pix2ProfConfig
from models.profile_network import ProfileNet, ProfileNetConfig
from models.registry import KINDS, UnknownKind, build, kind_of, make_config

SMALL: dict[str, Any] = {
    "earthpt": EarthPTConfig(layers=1, heads=2, width=16, pointers=2),
    "earthpt-published": PublishedEarthPTConfig(1, 2, 16, 8, bands=ALPHABETICAL_BANDS),
    "canopy": CanopyConfig(classes=(0, 5), layers=1, heads=2, width=16, pointers=2, months=3, hidden=4, reach=1),
    "pix2prof": Pix2ProfConfig(width=4, layers=2),
    "profile-net": ProfileNetConfig(channels=8, depth=1, width=16, layers=1, heads=2),
    "ddpm-published": PublishedDDPMConfig(width=8, multipliers=(1, 2), timesteps=4),
    "galaxy-diffusion": DiffusionConfig(pixels=16, widths=(16,), depths=(1,), attended=0),
    "galaxy-features": GalaxyFeaturesConfig(width=4, features=8, quantities=("magnitude_r",)),
}
TYPES = {"earthpt": EarthPT, "earthpt-published": PublishedEarthPT, "canopy": CanopyNet, "pix2prof": Pix2Prof}
TYPES |= {"galaxy-diffusion": GalaxyDiffusion, "ddpm-published": PublishedDDPM}
TYPES |= {"galaxy-features": GalaxyFeatures, "profile-net": ProfileNet}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_go_through_json_and_make_the_same_model(kind: str) -> None:
    settings = json.loads(json.dumps(asdict(SMALL[kind])))
    assert make_config(kind, settings) == SMALL[kind]
    model, again = build(kind, settings), kind_of(kind).construct(SMALL[kind])
    assert type(model) is TYPES[kind]
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in again.state_dict().items()
    }


def test_what_is_not_named_has_its_default() -> None:
    assert make_config("earthpt", {"layers": 2}) == EarthPTConfig(layers=2)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("forest", {}, "no network of kind 'forest'; there are: earthpt, earthpt-published"),
        ("earthpt", {"depth": 3}, "earthpt has no setting depth; there are: layers, heads"),
        ("earthpt", {"layers": "3"}, "layers = '3'"),
        ("earthpt", {"layers": 2.5}, r"layers = 2\.5"),
        ("earthpt", {"layers": True}, "layers = True"),
        ("earthpt", {"band_dropout": None}, "band_dropout = None"),
        ("earthpt", {"width": 65}, "width 65 is not a multiple of 4 heads"),
        ("earthpt-published", {"bands": ["B02"]}, "expected B02, B03"),
        ("earthpt-published", {"heads": 0}, "make no model"),
        ("pix2prof", {"layers": 0}, "layers are at least 1"),
    ],
)
def test_what_cannot_be_is_named(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownKind, match=message):
        build(kind, settings)


def test_the_numbers_of_a_kind_say_how_its_outputs_become_physical() -> None:
    """The file alone is enough: scale and offset, applied by hand, give what the code gives."""
    numbers = json.loads(json.dumps(KINDS["earthpt"].numbers))
    values = torch.rand((7, 10), generator=torch.Generator().manual_seed(0)) * 1.2 - 0.95
    channels = to_channels(values)
    outputs = numbers["outputs"]
    by_hand = channels * torch.tensor(outputs["scale"]) + torch.tensor(outputs["offset"])
    torch.testing.assert_close(by_hand, from_channels(channels))
    reflectance = values * numbers["inputs"]["scale"] + numbers["inputs"]["offset"]
    torch.testing.assert_close(by_hand[:, :10], reflectance)
    assert outputs["channels"][:2] == ["B02", "B03"]
    assert outputs["channels"][10] == "ndvi"
