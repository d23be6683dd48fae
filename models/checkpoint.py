"""Where training stands, at rest: a few named states as safetensors, and everything else as one JSON that is written last.

A checkpoint is the folder of its step. Without ``checkpoint.json`` it does not exist yet; with one whose hashes do not fit
its files it is damaged, and the one before is taken. Reading runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.training import TrainConfig, TrainState

INDEX = "checkpoint.json"
KEPT = 2
_FORMAT = 1
_SUFFIX = ".safetensors"


class Folder(Protocol):
    """Where checkpoints lie; a folder or an object store's prefix. Writing a name is whole or not at all."""

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        ...

    def read_bytes(self, name: str) -> bytes:
        """Return a whole file; `FileNotFoundError` where there is none."""
        ...

    def list_folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders here."""
        ...

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder."""
        ...


class CheckpointError(ValueError):
    """A checkpoint is damaged, or not of what is being trained."""


@dataclass(frozen=True)
class Subject:
    """What is trained, and how: what a checkpoint must agree with to be gone on from.

    Parameters
    ----------
    train : TrainConfig
        How.
    kind : str
        Of model.
    config : mapping
        Of the model, JSON types.
    data : mapping
        What batches are drawn from, JSON types.
    """

    train: TrainConfig
    kind: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


@dataclass(frozen=True)
class Checkpoint:
    """Where training stands, and what goes with it.

    Parameters
    ----------
    state : TrainState
        Weights, average, optimiser and position.
    best : dict of str to Tensor
        Weights that held-out data liked most so far; empty where nothing is held out.
    notes : dict
        What the trainer keeps beside: sums of time and energy, the best score. JSON types.
    passed_over : tuple of str
        Newer checkpoints that are damaged, one line each.
    """

    state: TrainState
    best: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()


def save_checkpoint(folder: Folder, checkpoint: Checkpoint, subject: Subject) -> str:
    """Write a checkpoint, then remove all but the last two; return the name of its folder.

    Parameters
    ----------
    folder : Folder
        Where the checkpoints of one run lie.
    checkpoint : Checkpoint
        What is written.
    subject : Subject
        What is trained.
    """
    state = checkpoint.state
    name = f"{state.step:08d}"
    moments, groups = _flatten(state.optimiser)
    states = {"model": state.model, "ema": state.ema, "optimiser": moments, "best": checkpoint.best}
    files = {part: save({key: _at_rest(tensor) for key, tensor in tensors.items()}) for part, tensors in states.items()}
    for part, data in files.items():
        folder.write_bytes(f"{name}/{part}{_SUFFIX}", data)
    index = {
        "format": _FORMAT,
        "subject": subject.to_json(),
        "step": state.step,
        "position": state.position,
        "elapsed_s": state.elapsed_s,
        "optimiser": groups,
        "notes": checkpoint.notes,
        "sha256": {part: hashlib.sha256(data).hexdigest() for part, data in files.items()},
    }
    folder.write_bytes(
        f"{name}/{INDEX}", (json.dumps({"sha256": _hash(index), "index": index}, indent=1) + "\n").encode()
    )
    for old in _names(folder)[:-KEPT]:
        folder.delete_tree(old)
    return name


def load_checkpoint(folder: Folder, subject: Subject) -> Checkpoint | None:
    """Return the newest checkpoint that is whole; None where there is none.

    Parameters
    ----------
    folder : Folder
        Where the checkpoints of one run lie.
    subject : Subject
        What is to be trained.

    Raises
    ------
    CheckpointError
        Where it is of something else, naming what differs; or where all of them are damaged.
    """
    damaged: list[str] = []
    for name in reversed(_names(folder)):
        try:
            index, states = _read(folder, name)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        _require_same(index["subject"], subject.to_json(), name)
        state = TrainState(
            states["model"],
            states["ema"],
            _unflatten(states["optimiser"], index["optimiser"]),
            index["step"],
            index["position"],
            index["elapsed_s"],
        )
        return Checkpoint(state, states["best"], index["notes"], tuple(damaged))
    if damaged:
        raise CheckpointError(f"no checkpoint is whole: {'; '.join(damaged)}; train anew")
    return None


def _names(folder: Folder) -> list[str]:
    return sorted(name for name in folder.list_folders() if name.isdigit())


def _read(folder: Folder, name: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    try:
        content = json.loads(folder.read_bytes(f"{name}/{INDEX}"))
        index: dict[str, Any] = content["index"]
        if _hash(index) != content["sha256"]:
            raise CheckpointError(f"checkpoint {name}: {INDEX} is not as it was written")
        files = {part: folder.read_bytes(f"{name}/{part}{_SUFFIX}") for part in index["sha256"]}
        changed = [part for part, data in files.items() if hashlib.sha256(data).hexdigest() != index["sha256"][part]]
        if changed:
            raise CheckpointError(f"checkpoint {name}: {', '.join(changed)} is not as it was written")
        return index, {part: load(data) for part, data in files.items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {name}: it was not written to its end") from error
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise CheckpointError(f"checkpoint {name}: {error}") from error


def _hash(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> None:
    different = _differences(found, wanted)
    if different:
        raise CheckpointError(
            f"checkpoint {name} was made with other settings ({'; '.join(different)}): go on with the same, or train anew"
        )


def _differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted({*found, *wanted})
        return [line for key in keys for line in _differences(found.get(key), wanted.get(key), f"{path}.{key}")]
    return [] if found == wanted else [f"{path.lstrip('.')} was {found}, now {wanted}"]


def _at_rest(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _flatten(optimiser: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[Any]]:
    """Return an optimiser's tensors by ``number.name``, and its groups."""
    tensors = {
        f"{number}.{name}": torch.as_tensor(value)
        for number, values in optimiser.get("state", {}).items()
        for name, value in values.items()
    }
    return tensors, optimiser.get("param_groups", [])


def _unflatten(tensors: Mapping[str, Tensor], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not groups:
        return {}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    # JSON has no tuples
    return {"state": state, "param_groups": [{**group, "betas": tuple(group["betas"])} for group in groups]}
