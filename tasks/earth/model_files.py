"""Networks at rest: settings, the meaning of their numbers and their weights in the folder of a model (`model_folders`).

``config.json`` holds the kind, the settings that make the model, and names, units and scaling of what goes in and comes
out, so that the numbers are physical whoever reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.registry import KINDS, UnknownKind, build, kind_of, make_config
from storage.classes import LandClass
from storage.errors import SchemaMismatch
from storage.location import Location
from tasks.earth.model_folders import ModelParts, ModelReference, read_parts, save_parts
from tasks.errors import ConfigurationError

FORMAT = 1
"""Of what `save_network` writes; another one is refused."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, ready to use.

    Parameters
    ----------
    reference : ModelReference
        Which one it is.
    model : nn.Module
        In eval mode, float32; on the CPU where it was loaded.
    kind : str
        Name in `models.registry.KINDS`.
    config : dict
        Settings that make the model, JSON types.
    metrics, training : dict
        Scores on held-out data; data, settings and software of the training.
    legend : tuple of LandClass
        In the order of its probabilities, where the network classifies.
    """

    reference: ModelReference
    model: nn.Module
    kind: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    training: dict[str, Any]
    legend: tuple[LandClass, ...] = ()

    def to(self, device: torch.device) -> LoadedNetwork:
        """Return it with its model on a device; the model itself is moved."""
        return replace(self, model=self.model.to(device))


def save_network(
    warehouse: Location,
    name: str,
    model: nn.Module,
    *,
    kind: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
    card: str,
    legend: Sequence[LandClass] = (),
) -> ModelReference:
    """Save a network; the same one again is no work.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Letters, digits, dots, dashes and underscores.
    model : nn.Module
        On any device; it has its settings as `config`.
    kind : str
        Name in `models.registry.KINDS`.
    config : mapping
        JSON types: settings that make such a model, e.g. ``dataclasses.asdict(model.config)``.
    metrics, training : mapping
        JSON types: scores on held-out data; data, settings and software of the training.
    card : str
        Markdown, without a title: what the model is, what it was trained on, what it scores and what it cannot do.
    legend : sequence of LandClass
        Of a network that classifies, in the order of its probabilities.

    Raises
    ------
    ConfigurationError
        Where the name cannot be a folder's, or kind and settings do not make this model.
    """
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    try:
        expected = make_config(kind, settings)
    except UnknownKind as error:
        raise ConfigurationError(str(error)) from error
    if expected != model.config:
        raise ConfigurationError(f"the settings make {expected}, and the model is of {model.config}")
    content: dict[str, Any] = {
        "kind": kind,
        "format": FORMAT,
        "settings": settings,
        "numbers": kind_of(kind).numbers,
    }
    if legend:
        content["legend"] = [asdict(known) for known in legend]
    parts = ModelParts(save(weights), content, dict(metrics), dict(training), card)
    return save_parts(warehouse, name, parts)


def load_network(warehouse: Location, name: str, version: str | None = None) -> LoadedNetwork:
    """Return a saved network; one that the warehouse does not have is looked for among the shipped ones.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Name, or ``name/version``.
    version : str, optional
        By default the one saved last.

    Raises
    ------
    NotFound
        Where there is no such model; the message lists those that are there.
    ConfigurationError
        Where the model is no network.
    SchemaMismatch
        Where its files are damaged, or written by another version of the code.
    """
    reference, parts = read_parts(warehouse, name, version)
    kind = str(parts.config.get("kind"))
    if kind not in KINDS:
        raise ConfigurationError(f"model {name} is a {kind}; wanted is a network: {', '.join(KINDS)}")
    try:
        model = _rebuild(kind, parts)
        legend = tuple(LandClass(**entry) for entry in parts.config.get("legend", ()))
    except (SafetensorError, UnknownKind, KeyError, TypeError, ValueError) as error:
        raise SchemaMismatch(f"{reference.url}: {error}") from error
    return LoadedNetwork(reference, model, kind, parts.config["settings"], parts.metrics, parts.training, legend)


def _rebuild(kind: str, parts: ModelParts) -> nn.Module:
    """Return the model that a config and its weights make."""
    config, weights = parts.config, load(parts.weights)
    if config.get("format") != FORMAT or config.get("numbers") != kind_of(kind).numbers:
        raise ValueError(
            f"format {config.get('format')!r}, or the meaning of its numbers, is not what this code reads "
            f"(format {FORMAT}): train it again, or use the code that wrote it"
        )
    model = build(kind, config["settings"])
    if difference := _difference(weights, model.state_dict()):
        raise ValueError(f"the weights are not those of its settings: {difference}")
    model.load_state_dict(weights)
    return model.eval()


def _difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return in what weights differ from those that are expected, in words; nothing where they do not."""
    words = [f"{name} is missing" for name in expected if name not in found]
    words += [f"{name} is unknown" for name in sorted(found) if name not in expected]
    words += [
        f"{name} has shape {tuple(found[name].shape)} and not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and tensor.shape != found[name].shape
    ]
    more = f"; and {len(words) - 5} more" if len(words) > 5 else ""
    return "; ".join(words[:5]) + more
