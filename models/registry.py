"""Every kind of network that can be saved: how a config becomes a model, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from models.canopy import CanopyConfig, CanopyNet
from models.ddpm_published import BRIGHT as DDPM_BRIGHT
from models.ddpm_published import DARK as DDPM_DARK
from models.ddpm_published import PublishedDDPM, PublishedDDPMConfig
from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.earthpt import OUTPUTS, QUANTILES, EarthPT, EarthPTConfig, from_channels
from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from models.galaxy_features import GalaxyFeatures, GalaxyFeaturesConfig
from models.indices import BANDS
from models.pix2prof import BRIGHT, CLIPPED_AT, DARK, Pix2Prof, Pix2ProfConfig
from models.profile_network import QUANTILES as PROFILE_QUANTILES
from models.profile_network import ProfileNet, ProfileNetConfig
from models.tokens import EPOCH, HALF_RANGE

UNITS_OF_POSITION = f"days since {EPOCH}"


class UnknownKind(ValueError):
    """No network of that kind, or none with such settings."""


@dataclass(frozen=True)
class Kind:
    """One kind of network.

    Parameters
    ----------
    name, title : str
        For configs and the command line, and for cards.
    config : type
        Frozen dataclass of its settings.
    construct : callable
        From such settings to a model with first weights.
    numbers : mapping
        JSON types: names and units of what goes in and comes out, and the way from the network's numbers to physical ones.
    layout : str or None
        Published layout in `models.published` that its weights can be written in.
    """

    name: str
    title: str
    config: type
    construct: Callable[[Any], nn.Module]
    numbers: Mapping[str, Any]
    layout: str | None = None


def _reflectance() -> dict[str, Any]:
    """Return how reflectance goes in and comes out of tokens: reflectance = scale x value + offset."""
    unit = HALF_RANGE / 10_000
    return {"channels": list(BANDS), "quantity": "surface reflectance", "units": "1", "scale": unit, "offset": unit}


def _earthpt_outputs() -> dict[str, Any]:
    zero = torch.zeros(len(OUTPUTS), dtype=torch.float64)
    offset = from_channels(zero)
    scale = from_channels(zero + 1) - offset
    return {
        "channels": list(OUTPUTS),
        "quantity": "surface reflectance, then indices",
        "units": "1",
        "scale": [round(value, 9) for value in scale.tolist()],
        "offset": [round(value, 9) for value in offset.tolist()],
        "quantiles": list(QUANTILES),
    }


EARTHPT = Kind(
    "earthpt",
    "EarthPT: any-horizon quantile forecasts of irregular series",
    EarthPTConfig,
    EarthPT,
    {"inputs": _reflectance(), "outputs": _earthpt_outputs(), "position": UNITS_OF_POSITION},
)
PUBLISHED = Kind(
    "earthpt-published",
    "EarthPT as published (Smith et al. 2023, arXiv 2309.07207)",
    PublishedEarthPTConfig,
    PublishedEarthPT,
    {"inputs": _reflectance(), "outputs": _reflectance(), "position": UNITS_OF_POSITION},
    layout="earthpt",
)
CANOPY = Kind(
    "canopy",
    "Canopy: classes of pixels through EarthPT (Dargana, arXiv 2504.17321)",
    CanopyConfig,
    CanopyNet,
    {"inputs": _reflectance(), "outputs": {"quantity": "logits of classes"}, "position": UNITS_OF_POSITION},
)
PIX2PROF = Kind(
    "pix2prof",
    "Pix2Prof as published (Smith et al. 2021, arXiv 2010.00622)",
    Pix2ProfConfig,
    Pix2Prof,
    {
        "inputs": {
            "quantity": "flux of a pixel in one band",
            "units": "nmgy",
            "clipped_at_quantile": CLIPPED_AT,
            "scale": BRIGHT - DARK,
            "offset": DARK,
        },
        "outputs": {"quantity": "surface brightness", "units": "mag.arcsec**-2", "scale": 1.0, "offset": 0.0},
        "position": "number of the radial sample of the profiles that it was trained on",
    },
    layout="pix2prof",
)
GALAXY_FEATURES = Kind(
    "galaxy-features",
    "Features of galaxies, for FID and KID",
    GalaxyFeaturesConfig,
    GalaxyFeatures,
    {"inputs": {"quantity": "flux of a pixel", "units": "nmgy"}, "outputs": {"quantity": "features"}},
)
GALAXY_DIFFUSION = Kind(
    "galaxy-diffusion",
    "Galaxy diffusion: images of galaxies from noise",
    DiffusionConfig,
    GalaxyDiffusion,
    {
        "inputs": {"quantity": "flux of a pixel, scaled as the settings say, and noise", "units": "1"},
        "outputs": {"quantity": "flux of a pixel, scaled as the settings say", "units": "1", "unscaled_units": "nmgy"},
        "conditions": {
            "magnitude": "AB magnitude in r",
            "colour": "g - r, mag",
            "size": "log10 of the half-light semi-major axis in arcsec",
        },
    },
)
PROFILE_NET = Kind(
    "profile-net",
    "Pix2Prof by default: profiles of galaxies from cells along ellipses",
    ProfileNetConfig,
    ProfileNet,
    {
        "inputs": {"quantity": "flux of a pixel over the noise of a pixel, one band or several", "units": "1"},
        "outputs": {
            "quantity": "mean flux of a pixel along an ellipse over the noise of a pixel",
            "units": "1",
            "quantiles": list(PROFILE_QUANTILES),
        },
        "position": "semi-major axis, log-spaced from half a pixel to the farthest corner",
    },
)
DDPM = Kind(
    "ddpm-published",
    "Galaxy DDPM as published (Smith et al. 2022, arXiv 2111.01713)",
    PublishedDDPMConfig,
    PublishedDDPM,
    {
        "inputs": {
            "quantity": "flux of a pixel, scaled, and noise",
            "units": "nmgy",
            "clipped_to": [DDPM_DARK, DDPM_BRIGHT],
        },
        "outputs": {"quantity": "noise", "units": "1"},
    },
    layout="ddpm",
)
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (EARTHPT, PUBLISHED, CANOPY, PIX2PROF, PROFILE_NET, GALAXY_FEATURES, GALAXY_DIFFUSION, DDPM)
}
"""Every kind by the name that configs use."""


def kind_of(name: str) -> Kind:
    """Return a kind by name.

    Raises
    ------
    UnknownKind
        Where there is none; the message lists those that are there.
    """
    if name not in KINDS:
        raise UnknownKind(f"no network of kind {name!r}; there are: {', '.join(KINDS)}")
    return KINDS[name]


def make_config(name: str, settings: Mapping[str, Any]) -> Any:
    """Return the config of a kind from JSON types; what is not named has its default.

    Raises
    ------
    UnknownKind
        Where the kind or a setting is not known, or a value is of another type than its default.
    """
    kind = kind_of(name)
    defaults = {field.name: field.default for field in fields(kind.config)}
    unknown = [key for key in settings if key not in defaults]
    if unknown:
        raise UnknownKind(f"{name} has no setting {', '.join(unknown)}; there are: {', '.join(defaults)}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    wrong = [f"{key} = {value!r}" for key, value in given.items() if not _fits(value, defaults[key])]
    if wrong:
        raise UnknownKind(f"settings of {name} that are of another type than their defaults: {', '.join(wrong)}")
    try:
        return kind.config(**given)
    except ValueError as error:
        raise UnknownKind(f"settings of {name}: {error}") from error


def build(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Return a model of a kind, with first weights.

    Raises
    ------
    UnknownKind
        As `make_config`; and where the settings make no model.
    """
    config = make_config(name, settings)
    try:
        return kind_of(name).construct(config)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UnknownKind(f"settings of {name} make no model: {error}") from error


def _fits(value: Any, default: Any) -> bool:
    """Return whether a value is of the type of a default; whole numbers are floats too, truth values no numbers."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))
