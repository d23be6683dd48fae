"""Checkpoints in the layouts in which published weights are distributed: read without running code, and written back.

Such files are pickles, and a pickle can run anything. They are read with torch's restricted unpickler, which builds
tensors and plain containers and refuses all else. One entry of `LAYOUTS` describes each published system.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.earthpt_published import DATE_FEATURES, PublishedEarthPT, PublishedEarthPTConfig
from models.indices import BANDS

WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and DataParallel put before every name."""
UNKNOWN_LOSS = 1e9
"""What the published loops begin with."""
LARGEST_SIZE = 65_536
ASKS_FOR_CODE = ("GLOBAL", "Unsupported class", "unrecognized function")
"""What torch's restricted unpickler says of anything but tensors and plain containers."""


class UnsafeCheckpoint(ValueError):
    """The file asks for more than tensors and plain containers."""


class LayoutMismatch(ValueError):
    """The file is no checkpoint of the layout it should have."""


@dataclass(frozen=True)
class Layout:
    """How one published system names its weights.

    Parameters
    ----------
    name, title : str
        For the command line, and for the card.
    prefixes : tuple of (str, str)
        Published prefix of a weight's name, and the one it has here; the first that fits counts.
    aliases : mapping of str to str
        Further published names of a weight that is there already; they may be missing.
    ignored : tuple of str
        Regular expressions of published names that hold no weight.
    build : callable
        From the file's settings (and what the user adds) to a model on any device, its weights not set.
    settings : callable
        From a model back to the file's settings.
    """

    name: str
    title: str
    prefixes: tuple[tuple[str, str], ...]
    build: Callable[[Mapping[str, Any], Mapping[str, Any]], nn.Module]
    settings: Callable[[Any], dict[str, Any]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def own_name(self, published: str) -> str | None:
        """Return what a published weight is called here, or None where the layout has no such weight."""
        return _renamed(published, self.prefixes)

    def published_name(self, own: str) -> str:
        """Return what one of our weights is called in the file."""
        found = _renamed(own, tuple((ours, theirs) for theirs, ours in self.prefixes))
        assert found is not None, f"{self.name} has no name for {own}"
        return found


@dataclass(frozen=True)
class Published:
    """What a published file holds.

    Parameters
    ----------
    model : nn.Module
        With the file's weights, float32, in training mode as every new module.
    layout : str
        Name in `LAYOUTS`.
    history : dict
        JSON types: step, loss and settings of the training, as far as the file tells.
    """

    model: nn.Module
    layout: str
    history: dict[str, Any]


def _build_earthpt(settings: Mapping[str, Any], more: Mapping[str, Any]) -> PublishedEarthPT:
    """Return an empty EarthPT of the size that `model_args` tell; the head count cannot be read off the shapes."""
    names = {"n_layer": "layers", "n_head": "heads", "n_embd": "width", "block_size": "block_size"}
    wrong = [name for name in names if not (isinstance(n := settings.get(name), int) and 0 < n <= LARGEST_SIZE)]
    if wrong:
        raise LayoutMismatch(f"model_args has no whole number from 1 to {LARGEST_SIZE} for {', '.join(wrong)}")
    channels = len(BANDS) + DATE_FEATURES
    if settings.get("n_chan", channels) != channels:
        raise LayoutMismatch(f"model_args has n_chan {settings['n_chan']}; this layout has {channels} channels")
    sizes = {ours: settings[theirs] for theirs, ours in names.items()}
    try:
        config = PublishedEarthPTConfig(**sizes, dropout=float(settings.get("dropout", 0.0)), **more)
        return PublishedEarthPT(config)
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise LayoutMismatch(f"model_args {dict(settings)} and {dict(more)} make no model: {error}") from error


def _earthpt_settings(model: PublishedEarthPT) -> dict[str, Any]:
    config = model.config
    return {
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_embd": config.width,
        "n_chan": len(BANDS) + DATE_FEATURES,
        "block_size": config.block_size,
        "dropout": config.dropout,
    }


EARTHPT = Layout(
    "earthpt",
    "EarthPT, January 2024 (Smith et al. 2023, arXiv 2309.07207)",
    prefixes=(
        ("transformer.wte.", "embed."),
        ("transformer.wpe.", "positions."),
        ("transformer.h.", "core.h."),
        ("transformer.ln_f.", "core.ln_f."),
        ("lm_head.", "head."),
    ),
    build=_build_earthpt,
    settings=_earthpt_settings,
    aliases={"transformer.wte.weight": "lm_head.weight"},
    # torch before 2.0 kept the causal mask as a buffer
    ignored=(r"transformer\.h\.\d+\.attn\.bias",),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (EARTHPT,)}
"""Every layout by the name that the command line takes."""


def read_published(path: str | os.PathLike[str], layout: str, *, more: Mapping[str, Any] | None = None) -> Published:
    """Return the model that a published checkpoint holds; no code of the file runs.

    Parameters
    ----------
    path : path-like
        Written by `torch.save`.
    layout : str
        One of `LAYOUTS`.
    more : mapping, optional
        Settings of the model that the file does not tell, e.g. ``bands`` of EarthPT.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    UnsafeCheckpoint
        Where the file asks for more than tensors and plain containers.
    LayoutMismatch
        Where it cannot be read, or names and shapes are not the layout's; every difference is named at once.
    """
    known = require_layout(layout)
    content = load_safely(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise LayoutMismatch(f"{path}: no dictionary of weights under 'model'; expected {known.title}")
    settings = content.get("model_args")
    if not isinstance(settings, dict):
        raise LayoutMismatch(f"{path}: no 'model_args', which tell the size of the model; expected {known.title}")
    try:
        weights = _own_weights(unwrap(content["model"]), known)
        model = _fill(known, (settings, more or {}), weights)
    except LayoutMismatch as error:
        raise LayoutMismatch(f"{path} is not {known.title}: {error}") from error
    return Published(model, layout, _history(content))


def write_published(
    model: nn.Module, path: str | os.PathLike[str], layout: str, *, history: Mapping[str, Any] | None = None
) -> None:
    """Write a model as its authors' code would: the same names, aliases and settings.

    Parameters
    ----------
    model : nn.Module
        Of the layout's kind.
    path : path-like
        Replaced as a whole.
    layout : str
        One of `LAYOUTS`.
    history : mapping, optional
        From `Published.history`.
    """
    known = require_layout(layout)
    weights = {known.published_name(name): tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for alias, name in known.aliases.items():
        weights[alias] = weights[name]
    history = dict(history or {})
    settings = known.settings(model)
    content = {
        "model": weights,
        "optimizer": _fresh_optimiser(model),
        "model_args": settings,
        "iter_num": history.get("iter_num", 0),
        "best_val_loss": history.get("best_val_loss", UNKNOWN_LOSS),
        "config": history.get("config", settings),
    }
    partial = f"{os.fspath(path)}.partial"
    torch.save(content, partial)
    os.replace(partial, path)


def require_layout(name: str) -> Layout:
    """Return a layout by name.

    Raises
    ------
    LayoutMismatch
        Where there is none; the message lists those that are there.
    """
    if name not in LAYOUTS:
        raise LayoutMismatch(f"no layout {name!r}; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def load_safely(path: str | os.PathLike[str]) -> Any:
    """Return what `torch.save` wrote, tensors on the CPU; large files are mapped, not read.

    Raises
    ------
    UnsafeCheckpoint, LayoutMismatch
        As `read_published`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        reason = _reason(error)
        if any(word in reason for word in ASKS_FOR_CODE):
            raise UnsafeCheckpoint(
                f"{path}: refused, for it asks for more than tensors and plain containers ({reason}); "
                "nothing of it was run. Take the file from its authors' own address, or ask them for one without code"
            ) from error
        raise LayoutMismatch(f"{path}: not a file that torch.save wrote ({reason}); fetch it again") from error
    except (RuntimeError, OSError, EOFError, LookupError, ValueError, AttributeError, TypeError) as error:
        raise LayoutMismatch(f"{path}: not a file that torch.save wrote, or damaged ({_reason(error)})") from error


def unwrap(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights without what torch.compile and DataParallel put before their names.

    Raises
    ------
    LayoutMismatch
        Where two names become one.
    """
    found: dict[str, Any] = {}
    for name, tensor in weights.items():
        bare = name
        while bare.startswith(WRAPPERS):
            bare = bare.removeprefix("_orig_mod.").removeprefix("module.")
        if bare in found:
            raise LayoutMismatch(f"two weights are called {bare} once {name} is stripped of its wrapper")
        found[bare] = tensor
    return found


def _own_weights(published: Mapping[str, Any], layout: Layout) -> dict[str, Tensor]:
    """Return weights under our names, aliases checked and what is ignored left out."""
    found: dict[str, Tensor] = {}
    problems = [f"{name} is no tensor" for name, tensor in published.items() if not isinstance(tensor, Tensor)]
    for name, tensor in published.items():
        if any(re.fullmatch(pattern, name) for pattern in layout.ignored) or not isinstance(tensor, Tensor):
            continue
        if name in layout.aliases:
            problems += _alias_problems(published, name, layout.aliases[name])
            continue
        own = layout.own_name(name)
        if own is None:
            problems.append(f"unknown weight {name}")
        else:
            found[own] = tensor
    if problems:
        raise LayoutMismatch("; ".join(problems))
    return found


def _alias_problems(published: Mapping[str, Any], alias: str, name: str) -> list[str]:
    original = published.get(name)
    if isinstance(original, Tensor) and torch.equal(published[alias], original):
        return []
    return [f"{alias} ought to be {name} once more, and is not"]


def _fill(
    layout: Layout, settings: tuple[Mapping[str, Any], Mapping[str, Any]], weights: Mapping[str, Tensor]
) -> nn.Module:
    """Return a model with the weights; sizes are compared before any memory is taken."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in layout.build(*settings).state_dict().items()}
    problems = [f"unknown weight {layout.published_name(name)}" for name in weights if name not in wanted]
    problems += [f"missing weight {layout.published_name(name)}" for name in wanted if name not in weights]
    problems += [
        f"{layout.published_name(name)} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    if problems:
        raise LayoutMismatch("; ".join(problems))
    model = layout.build(*settings)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model


def _fresh_optimiser(model: nn.Module) -> dict[str, Any]:
    """Return the state of an optimiser that has done no step, in the published groups: with weight decay, and without."""
    parameters = list(model.parameters())
    decayed = [parameter for parameter in parameters if parameter.dim() >= 2]
    others = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=2e-5, betas=(0.9, 0.95)).state_dict()


def _history(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file tells of its training, as JSON types."""
    told = {name: content[name] for name in ("iter_num", "best_val_loss", "config") if name in content}
    return {name: _plain(value) for name, value in told.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _renamed(name: str, prefixes: tuple[tuple[str, str], ...]) -> str | None:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return None


def _reason(error: Exception) -> str:
    """Return the line of torch's message that says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in (*ASKS_FOR_CODE, "Unsupported operand"))]
    return (telling or lines or [type(error).__name__])[0]
