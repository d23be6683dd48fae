"""Models that classify the cubes of an area, whatever they are: opened by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from models.forest import KIND as FOREST
from storage.classes import LandClass
from storage.location import Location
from tasks.earth.canopy_classifier import CANOPY, CanopyClassifier
from tasks.earth.classifier_files import load_classifier
from tasks.earth.mapping import Filling
from tasks.earth.model_files import load_network
from tasks.earth.model_folders import ModelReference, read_parts
from tasks.earth.processes import choose_device
from tasks.errors import ConfigurationError


class MapModel(Protocol):
    """What a map asks of a model."""

    @property
    def reference(self) -> ModelReference:
        """Return which one it is."""
        ...

    @property
    def classes(self) -> tuple[LandClass, ...]:
        """Return the classes, in the order of its probabilities."""
        ...

    @property
    def metrics(self) -> dict[str, Any]:
        """Return its scores against held-out labels."""
        ...

    def require_bands(self, bands: Sequence[str]) -> None:
        """Raise `ConfigurationError` where it cannot work with what cubes hold."""
        ...

    def filling(self, bands: Sequence[str]) -> Filling:
        """Return how it fills a region of a map from cubes of these bands."""
        ...


def open_map_model(warehouse: Location, name: str) -> MapModel:
    """Return a model that classifies, by ``name`` or ``name/version``; a network stands on a GPU where there is one.

    Raises
    ------
    NotFound
        Where there is no such model; the message lists those that are there.
    ConfigurationError
        Where it does not classify.
    SchemaMismatch
        Where its files are damaged.
    """
    reference, parts = read_parts(warehouse, name)
    kind = parts.config.get("kind")
    if kind == CANOPY:
        network = load_network(warehouse, f"{reference.name}/{reference.version}")
        return CanopyClassifier(network.to(choose_device()))
    if kind != FOREST:
        raise ConfigurationError(
            f"model {reference.name} is of kind {kind}, which makes no map: name one that does, such as canopy-distilled, "
            "or put a canopy head on an EarthPT with `canopus train canopy`"
        )
    return load_classifier(warehouse, f"{reference.name}/{reference.version}")
