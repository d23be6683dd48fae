"""A canopy model at work: from the looks at a window to features, and from features among neighbours to a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from models.canopy import CanopyNet
from models.indices import BANDS
from models.registry import CANOPY as _KIND
from storage.classes import LandClass
from storage.cube import SeriesBlock
from storage.export import Axis, Layer
from tasks.earth.canopy_features import grid_features
from tasks.earth.layers import CLEAR_COUNT, LOOKS, PROBABILITY_SCALE, map_layers
from tasks.earth.mapping import AmongNeighbours, count_looks, decide, empty_layers
from tasks.earth.model_files import LoadedNetwork
from tasks.earth.model_folders import ModelReference
from tasks.earth.series_batches import device_of
from tasks.errors import ConfigurationError

CANOPY = _KIND.name
FEATURES = "features"


@dataclass(frozen=True)
class CanopyClassifier:
    """A saved canopy model that classifies cubes.

    Parameters
    ----------
    network : LoadedNetwork
        Of kind ``canopy``.
    """

    network: LoadedNetwork

    @property
    def model(self) -> CanopyNet:
        """Return the network, in eval mode."""
        assert isinstance(self.network.model, CanopyNet)
        return self.network.model

    @property
    def reference(self) -> ModelReference:
        """Return which one it is."""
        return self.network.reference

    @property
    def classes(self) -> tuple[LandClass, ...]:
        """Return the classes, in the order of its probabilities."""
        return self.network.legend

    @property
    def metrics(self) -> dict[str, Any]:
        """Return its scores against held-out labels."""
        return self.network.metrics

    def require_bands(self, bands: Sequence[str]) -> None:
        """Check that the network knows what the cubes hold; it works with any of its bands.

        Raises
        ------
        ConfigurationError
            Where a band is not known, or red and near infrared are not both there.
        """
        unknown = [band for band in bands if band not in BANDS]
        missing = [band for band in ("B04", "B08") if band not in bands]
        if unknown or missing:
            said = f"hold {', '.join(unknown)}" if unknown else f"lack {', '.join(missing)}"
            raise ConfigurationError(f"model {self.reference.name} takes {', '.join(BANDS)}, the cubes {said}")

    def filling(self, bands: Sequence[str]) -> AmongNeighbours:
        """Return how it fills a region of a map from cubes of these bands."""
        return AmongNeighbours(
            halo=self.model.halo,
            layers=feature_layers(self.model),
            each=partial(features_of_block, model=self.model, bands=tuple(bands)),
            finish=partial(classify_features, model=self.model, classes=self.classes),
        )


def feature_layers(model: CanopyNet) -> tuple[Layer, ...]:
    """Return what stands between looks and classes: ``features`` (feature, y, x) float32, and `LOOKS`."""
    numbers = Axis("feature", tuple(range(model.config.features)))
    return (Layer(FEATURES, "Features of the series", "float32", 0.0, axes=(numbers,)), *LOOKS)


def features_of_block(block: SeriesBlock, *, model: CanopyNet, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the features of a block of series, zeros where there is no valid look."""
    layers = empty_layers(feature_layers(model), block.valid.shape[1:])
    if len(block.times):
        dates = block.times.astype("datetime64[D]")
        layers[FEATURES] = grid_features(model, block.reflectance, block.valid, dates, bands=bands)
    count_looks(block, layers)
    return layers


def classify_features(
    found: dict[str, np.ndarray], *, model: CanopyNet, classes: tuple[LandClass, ...]
) -> dict[str, np.ndarray]:
    """Return the layers of a map inside the halo of features."""
    halo = model.halo
    inner = slice(halo, found[CLEAR_COUNT].shape[0] - halo), slice(halo, found[CLEAR_COUNT].shape[1] - halo)
    looks = {layer.name: found[layer.name][inner] for layer in LOOKS}
    layers = empty_layers(map_layers(classes), looks[CLEAR_COUNT].shape) | looks
    with torch.inference_mode():
        grid = torch.from_numpy(found[FEATURES])[None].to(device_of(model))
        probability = model.logits(grid)[0].softmax(dim=0).cpu().numpy()
    seen = looks[CLEAR_COUNT] > 0
    layers["probability"][:, seen] = np.round(probability[:, seen] / PROBABILITY_SCALE).astype(np.uint16)
    decide(layers, classes)
    return layers
