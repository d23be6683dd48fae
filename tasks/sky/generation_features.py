"""Features of galaxies for FID and KID: those of a network of galaxies, or Inception's from a file that the user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.galaxy_features import GalaxyFeatures
from models.inception import InceptionFileError, load_inception
from storage.location import Location
from tasks.earth.model_files import load_network
from tasks.errors import ConfigurationError
from tasks.progress import report
from tasks.sky.generation_colours import colour_images
from tasks.sky.generation_sets import GalaxySet

SHIPPED = "galaxy-features-small"
_BATCH = 100
_SAME_SCALE = 0.01


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that describes galaxies.

    Parameters
    ----------
    network : nn.Module
        Flux (n, band, y, x) in nanomaggies per pixel, or colours, to features (n, feature).
    name : str
        Which weights.
    bands : tuple of str
        That it takes; empty for any.
    pixel_scale_arcsec : float
        That it takes; 0 for any.
    sees_colours : bool
        Whether it takes red, green and blue from 0 to 1 (n, 3, y, x), on the stretch of the report's pictures.
    """

    network: nn.Module
    name: str
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    sees_colours: bool = False

    def refusal(self, galaxies: GalaxySet) -> str:
        """Return why it cannot describe some galaxies, or nothing."""
        if self.bands and galaxies.bands != self.bands:
            return f"{self.name} takes bands {', '.join(self.bands)}, and these are {', '.join(galaxies.bands)}"
        own = self.pixel_scale_arcsec
        if own and abs(galaxies.pixel_scale_arcsec / own - 1) > _SAME_SCALE:
            return f"{self.name} takes pixels of {own:g} arcsec, and these have {galaxies.pixel_scale_arcsec:g}"
        return ""


def open_features(warehouse: Location, name: str = SHIPPED) -> FeatureNetwork:
    """Return a network of features of the warehouse, or the shipped one.

    Raises
    ------
    ConfigurationError
        Where the model is of another kind.
    NotFound
        Where there is none.
    """
    loaded = load_network(warehouse, name)
    if not isinstance(loaded.model, GalaxyFeatures):
        raise ConfigurationError(
            f"model {name} is a {loaded.kind}, not galaxy-features: train one with `canopus train features`"
        )
    config = loaded.model.config
    label = f"{loaded.reference.name}/{loaded.reference.version}"
    return FeatureNetwork(loaded.model, label, config.bands, config.pixel_scale_arcsec)


def open_inception(path: str | Path) -> FeatureNetwork:
    """Return Inception with the weights of a file that the user has.

    Raises
    ------
    ConfigurationError
        Where there is no such file, or it holds other weights.
    """
    try:
        network = load_inception(Path(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"--inception {path}: {error.strerror}; nothing is downloaded, so name a file"
        ) from error
    except InceptionFileError as error:
        raise ConfigurationError(
            f"--inception {path}: {error}; wanted is pt_inception-2015-12-05, as pytorch-fid has it"
        ) from error
    return FeatureNetwork(network, f"Inception ({Path(path).name})", (), 0.0, sees_colours=True)


@torch.inference_mode()
def features_of(galaxies: GalaxySet, network: FeatureNetwork, noise: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return features, shape (n, feature).

    Parameters
    ----------
    galaxies : GalaxySet
        Images.
    network : FeatureNetwork
        Describes them.
    noise : ndarray, shape (band,)
        Of the real galaxies' pixels, nanomaggies: colours are stretched by it, one way for all sets.

    Raises
    ------
    ConfigurationError
        Where the network takes other images.
    """
    refusal = network.refusal(galaxies)
    if refusal:
        raise ConfigurationError(refusal)
    found = []
    for start in range(0, len(galaxies), _BATCH):
        part = galaxies[start : start + _BATCH]
        if network.sees_colours:
            seen = torch.from_numpy(colour_images(part, noise)).permute(0, 3, 1, 2).float() / 255
        else:
            seen = torch.from_numpy(np.ascontiguousarray(part.images))
        found.append(network.network(seen).double().numpy())
        report("features", galaxies.origin, min(start + _BATCH, len(galaxies)), len(galaxies))
    return np.concatenate(found)
