"""Models in a warehouse: ``models/<name>/<version>/`` with weights, config, card, metrics and training.

Tensors as safetensors and everything else as JSON, so that loading runs no code. The version is a hash of weights and
config: the same training gives the same version, and saving it again changes nothing. ``config.json`` is written
last; a version without it does not exist yet. ``models/<name>/latest.json`` names the version saved last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.forest import ForestClassifier
from storage.classes import LandClass
from storage.errors import NotFound, SchemaMismatch
from storage.location import Location
from tasks.errors import ConfigurationError

MODELS = "models"
WEIGHTS, CONFIG, CARD, METRICS, TRAINING = (
    "weights.safetensors",
    "config.json",
    "card.md",
    "metrics.json",
    "training.json",
)
LATEST = "latest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelReference:
    """Where a model lies, and which one it is.

    Parameters
    ----------
    name, version : str
        The version is 12 hexadecimal digits.
    url : str
        Of its folder.
    weights_sha256 : str
        Of ``weights.safetensors``.
    """

    name: str
    version: str
    url: str
    weights_sha256: str


@dataclass(frozen=True)
class LoadedModel:
    """A model, ready to use.

    Parameters
    ----------
    reference : ModelReference
        Which one it is.
    classifier : ForestClassifier
        Predicts.
    classes : tuple of LandClass
        In the order of its probabilities.
    metrics : dict
        Scores against held-out labels.
    """

    reference: ModelReference
    classifier: ForestClassifier
    classes: tuple[LandClass, ...]
    metrics: dict[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Return the hash of the weights."""
        return self.reference.weights_sha256


def save_model(
    warehouse: Location,
    name: str,
    classifier: ForestClassifier,
    *,
    classes: Sequence[LandClass],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
) -> ModelReference:
    """Save a fitted classifier; the same one again is no work.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Letters, digits, dots, dashes and underscores.
    classifier : ForestClassifier
        Fitted.
    classes : sequence of LandClass
        In the order of its probabilities.
    metrics, training : mapping
        JSON types: scores against held-out labels; data, settings and software of the training.

    Raises
    ------
    ConfigurationError
        Where the name cannot be a folder's.
    """
    _require_name(name)
    weights = save(classifier.to_tensors())
    digest = hashlib.sha256(weights).hexdigest()
    config = {**classifier.to_config(), "legend": [asdict(known) for known in classes], "weights_sha256": digest}
    version = hashlib.sha256(_json(config)).hexdigest()[:12]
    folder = warehouse / MODELS / name / version
    reference = ModelReference(name, version, str(folder), digest)
    if not folder.exists(CONFIG):
        folder.write_bytes(WEIGHTS, weights)
        folder.write_bytes(METRICS, _json(metrics))
        folder.write_bytes(TRAINING, _json(training))
        folder.write_bytes(CARD, model_card(reference, config, metrics, training).encode())
        folder.write_bytes(CONFIG, _json(config))
    (warehouse / MODELS / name).write_bytes(LATEST, _json({"version": version}))
    return reference


def load_model(warehouse: Location, name: str, version: str | None = None) -> LoadedModel:
    """Return a saved model.

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
    SchemaMismatch
        Where its files are damaged, or written by another version of the code.
    """
    if version is None and "/" in name:
        name, version = name.split("/", 1)
    _require_name(name)
    folder = warehouse / MODELS / name / _version(warehouse, name, version)
    config = _read_json(folder, CONFIG)
    weights = folder.read_bytes(WEIGHTS)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != config.get("weights_sha256"):
        raise SchemaMismatch(f"{folder / WEIGHTS}: its sha256 is not the one in {CONFIG}; copy the model again")
    try:
        classifier = ForestClassifier.from_parts(load(weights), config)
        classes = tuple(LandClass(**entry) for entry in config["legend"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SchemaMismatch(f"{folder}: {error}") from error
    return LoadedModel(
        ModelReference(name, folder.name, str(folder), digest), classifier, classes, _read_json(folder, METRICS)
    )


def list_models(warehouse: Location) -> dict[str, list[str]]:
    """Return the versions of every model in a warehouse, sorted by name; unfinished ones are left out."""
    names = warehouse.list_folders(MODELS)
    return {name: found for name in names if (found := _versions(warehouse, name))}


def model_card(
    reference: ModelReference, config: Mapping[str, Any], metrics: Mapping[str, Any], training: Mapping[str, Any]
) -> str:
    """Return the card: what the model is, what it was made from, how well it does and what it cannot do."""
    names = [entry["name"] for entry in config["legend"]]
    scores = [*metrics.get("classes", {}).items(), *([("canopy", metrics["canopy"])] if "canopy" in metrics else [])]
    rows = [
        f"| {name} | {_number(s['pr_auc'])} | {_number(s['roc_auc'])} | {_number(s['prevalence'])} |"
        for name, s in scores
    ]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in training.items()]
    return "\n".join(
        [
            f"# {reference.name}, version {reference.version}",
            "",
            f"A forest of {config['hyper_parameters']['trees']} trees on temporal statistics of Sentinel-2 series "
            f"({', '.join(config['bands'])}); classes {', '.join(names)}.",
            "",
            "## Scores against held-out labels",
            "",
            metrics.get("evaluation", ""),
            "",
            "| class | PR-AUC | ROC-AUC | prevalence |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "## Training",
            "",
            *facts,
            "",
            "## Limits",
            "",
            "Each pixel is judged alone, from its own valid looks. Scores describe the labels, not the whole map, and hold "
            "for places and years like those of the training; areas need a probability sample (`canopus sample`).",
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a model: take letters, digits, dots, dashes and underscores"
        )


def _version(warehouse: Location, name: str, version: str | None) -> str:
    present = _versions(warehouse, name)
    if version is not None:
        if version in present:
            return version
        raise NotFound(f"model {name} has no version {version}; it has {', '.join(present) or 'none'}")
    if not present:
        known = ", ".join(list_models(warehouse)) or "none"
        raise NotFound(f"no model {name!r} in {warehouse}; there are: {known}. Train one with `canopus train`")
    try:
        latest = str(_read_json(warehouse / MODELS / name, LATEST)["version"])
    except NotFound:
        latest = ""
    if latest in present:
        return latest
    if len(present) == 1:
        return present[0]
    raise NotFound(f"model {name} has versions {', '.join(present)} and none is marked as the latest: name one of them")


def _versions(warehouse: Location, name: str) -> list[str]:
    folder = warehouse / MODELS / name
    return [version for version in folder.list_folders() if (folder / version).exists(CONFIG)]


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_json(folder: Location, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(folder.read_bytes(name))
    except json.JSONDecodeError as error:
        raise SchemaMismatch(f"{folder / name}: not JSON ({error})") from error
    return content
