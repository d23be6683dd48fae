"""Models at rest, whatever they are: ``models/<name>/<version>/`` with weights, config, card, metrics and training.

Tensors as safetensors and everything else as JSON, so that loading runs no code. The version is a hash of weights and
config: the same training gives the same version, and saving it again changes nothing. ``config.json`` is written
last; a version without it does not exist yet. ``models/<name>/latest.json`` names the version saved last.

Some models are shipped: the same files, in ``models/weights/<name>/`` of the package. A name that the warehouse does
not have is looked for there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from storage.errors import NotFound, SchemaMismatch
from storage.location import Location, resolve
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
SHIPPED = Path(str(files("models"))) / "weights"
"""Where models lie that come with the package."""
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
class ModelParts:
    """What a model is made of, as it is stored.

    Parameters
    ----------
    weights : bytes
        Of ``weights.safetensors``.
    config : dict
        JSON types: all that turns the weights into a model again; ``kind`` says of which kind.
    metrics, training : dict
        JSON types: scores on held-out data; data, settings and software of the training.
    card : str
        Markdown: what the model is, what it was made from, how well it does and what it cannot do.
    """

    weights: bytes
    config: dict[str, Any]
    metrics: dict[str, Any]
    training: dict[str, Any]
    card: str


def save_parts(warehouse: Location, name: str, parts: ModelParts) -> ModelReference:
    """Save a model; the same one again is no work.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Letters, digits, dots, dashes and underscores.
    parts : ModelParts
        The card is put below a title with name and version.

    Raises
    ------
    ConfigurationError
        Where the name cannot be a folder's.
    """
    require_name(name)
    digest = hashlib.sha256(parts.weights).hexdigest()
    config = {**parts.config, "weights_sha256": digest}
    version = _version_of(config)
    folder = warehouse / MODELS / name / version
    if not folder.exists(CONFIG):
        folder.write_bytes(WEIGHTS, parts.weights)
        folder.write_bytes(METRICS, _json(parts.metrics))
        folder.write_bytes(TRAINING, _json(parts.training))
        folder.write_bytes(CARD, f"# {name}, version {version}\n\n{parts.card.strip()}\n".encode())
        folder.write_bytes(CONFIG, _json(config))
    (warehouse / MODELS / name).write_bytes(LATEST, _json({"version": version}))
    return ModelReference(name, version, str(folder), digest)


def read_parts(warehouse: Location, name: str, version: str | None = None) -> tuple[ModelReference, ModelParts]:
    """Return a saved model, or a shipped one, taken apart.

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
        Where its files are damaged.
    """
    name, folder, version = _find(warehouse, name, version)
    config = _read_json(folder, CONFIG)
    weights = folder.read_bytes(WEIGHTS)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != config.get("weights_sha256"):
        raise SchemaMismatch(f"{folder / WEIGHTS}: its sha256 is not the one in {CONFIG}; copy the model again")
    metrics, training = _read_json(folder, METRICS), _read_json(folder, TRAINING)
    card = folder.read_bytes(CARD).decode()
    return ModelReference(name, version, str(folder), digest), ModelParts(weights, config, metrics, training, card)


def copy_model(warehouse: Location, name: str, out: Location) -> ModelReference:
    """Copy a model's files into a folder, ``config.json`` last: how a model comes to be shipped.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    name : str
        Name, or ``name/version``.
    out : Location
        Folder; its last name is what a shipped model is called.

    Raises
    ------
    NotFound, SchemaMismatch
        As `read_parts`.
    """
    reference, _ = read_parts(warehouse, name)
    source = resolve(reference.url)
    # without its config the copy does not exist, should this be cut off
    out.delete(CONFIG)
    for part in (WEIGHTS, METRICS, TRAINING, CARD, CONFIG):
        out.write_bytes(part, source.read_bytes(part))
    return reference


def list_models(warehouse: Location) -> dict[str, list[str]]:
    """Return the versions of every model in a warehouse, sorted by name; unfinished ones are left out."""
    names = warehouse.list_folders(MODELS)
    return {name: found for name in names if (found := _versions(warehouse, name))}


def list_shipped() -> dict[str, str]:
    """Return the version of every model that comes with the package, sorted by name."""
    root = resolve(SHIPPED)
    return {
        name: _version_of(_read_json(root / name, CONFIG))
        for name in root.list_folders()
        if (root / name).exists(CONFIG)
    }


def require_name(name: str) -> None:
    """Check that a name can be a model's.

    Raises
    ------
    ConfigurationError
        Where it cannot be a folder's.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a model: take letters, digits, dots, dashes and underscores"
        )


def _find(warehouse: Location, name: str, version: str | None) -> tuple[str, Location, str]:
    """Return name, folder and version of a model of the warehouse, or else of a shipped one."""
    if version is None and "/" in name:
        name, version = name.split("/", 1)
    require_name(name)
    present, shipped = _versions(warehouse, name), list_shipped()
    wanted = version if version is not None or present else shipped.get(name)
    if wanted is not None and wanted not in present and wanted == shipped.get(name):
        return name, resolve(SHIPPED) / name, wanted
    if version is None:
        version = _latest(warehouse, name, present)
    if version not in present:
        held = [*present, *([f"{shipped[name]} (shipped)"] if name in shipped else [])]
        raise NotFound(f"model {name} has no version {version}; it has {', '.join(held) or 'none'}")
    return name, warehouse / MODELS / name / version, version


def _latest(warehouse: Location, name: str, present: list[str]) -> str:
    if not present:
        known, shipped = (", ".join(names) for names in (list_models(warehouse), list_shipped()))
        held = f"there are: {known}" if known else "it holds none"
        raise NotFound(
            f"no model {name!r} in {warehouse}; {held}; shipped with canopus: {shipped or 'none'}. "
            "Train one with `canopus train`"
        )
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


def _version_of(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(config)).hexdigest()[:12]


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_json(folder: Location, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(folder.read_bytes(name))
    except json.JSONDecodeError as error:
        raise SchemaMismatch(f"{folder / name}: not JSON ({error})") from error
    return content
