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

from models.ddpm_published import PublishedDDPM, PublishedDDPMConfig
from models.earthpt_published import DATE_FEATURES, PublishedEarthPT, PublishedEarthPTConfig
from models.indices import BANDS
from models.pix2prof import Pix2Prof, Pix2ProfConfig

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
    read_settings : callable
        From the file's content to the settings of the model.
    build : callable
        From such settings (and what the user adds) to a model on any device, its weights not set.
    surround : callable
        From a model and its history to what stands in the file beside the weights.
    told : tuple of str
        Keys of the file that tell of the training.
    marks : tuple of str
        Keys by which such a file is recognised.
    groups : tuple of str
        Keys that hold weights. Of several, a weight is called ``group.name``.
    aliases : mapping of str to str
        Further published names of a weight that is there already; they may be missing.
    ignored : tuple of str
        Regular expressions of published names that hold no weight.
    """

    name: str
    title: str
    prefixes: tuple[tuple[str, str], ...]
    read_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    build: Callable[[Mapping[str, Any], Mapping[str, Any]], nn.Module]
    surround: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    told: tuple[str, ...]
    marks: tuple[str, ...]
    groups: tuple[str, ...] = ("model",)
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


def _read_model_args(content: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = content.get("model_args")
    if not isinstance(settings, dict):
        raise LayoutMismatch("no 'model_args', which tell the size of the model")
    return settings


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


def _around_earthpt(model: PublishedEarthPT, history: Mapping[str, Any]) -> dict[str, Any]:
    config = model.config
    settings = {
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_embd": config.width,
        "n_chan": len(BANDS) + DATE_FEATURES,
        "block_size": config.block_size,
        "dropout": config.dropout,
    }
    return {
        "optimizer": _fresh_optimiser(model),
        "model_args": settings,
        "iter_num": history.get("iter_num", 0),
        "best_val_loss": history.get("best_val_loss", UNKNOWN_LOSS),
        "config": history.get("config", settings),
    }


def _read_pix2prof_sizes(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sizes that shapes tell; the published ones where they tell none, so that every difference is named."""
    encoder, decoder = (unwrap(content[group]) for group in ("encoder", "decoder"))
    first = encoder.get("conv1.weight")
    layers = sum(1 for name in decoder if re.fullmatch(r"gru\.weight_hh_l\d+", name))
    told = isinstance(first, Tensor) and first.dim() == 4 and 0 < len(first) <= LARGEST_SIZE and layers > 0
    return {"width": len(first), "layers": layers} if told and first is not None else {}


def _build_pix2prof(settings: Mapping[str, Any], more: Mapping[str, Any]) -> Pix2Prof:
    try:
        return Pix2Prof(Pix2ProfConfig(**settings, **more))
    except (ValueError, TypeError, RuntimeError) as error:
        raise LayoutMismatch(f"{dict(settings)} and {dict(more)} make no model: {error}") from error


def _around_pix2prof(model: Pix2Prof, history: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"encoder_op": model.encoder, "decoder_op": model.decoder}
    optimisers = {name: torch.optim.Adam(part.parameters(), lr=2e-4).state_dict() for name, part in parts.items()}
    return {**optimisers, "epoch": history.get("epoch", 0), "logdir": history.get("logdir", "")}


def _read_ddpm_sizes(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sizes that shapes tell; the published ones where they tell none, so that every difference is named."""
    weights = unwrap(content["ema"])
    told, betas = weights.get("denoise_fn.mlp.2.bias"), weights.get("betas")
    if not (isinstance(told, Tensor) and isinstance(betas, Tensor) and told.dim() == betas.dim() == 1 and len(told)):
        return {}
    pattern = re.compile(r"denoise_fn\.downs\.(\d+)\.1\.block2\.block\.0\.bias")
    found = {int(match[1]): len(weights[name]) for name in weights if (match := pattern.fullmatch(name))}
    multipliers = tuple(found[level] // len(told) for level in sorted(found))
    small = len(told) <= LARGEST_SIZE and len(betas) <= LARGEST_SIZE
    return {"width": len(told), "multipliers": multipliers, "timesteps": len(betas)} if small else {}


def _build_ddpm(settings: Mapping[str, Any], more: Mapping[str, Any]) -> PublishedDDPM:
    try:
        return PublishedDDPM(PublishedDDPMConfig(**settings, **more))
    except (ValueError, TypeError, RuntimeError) as error:
        raise LayoutMismatch(f"{dict(settings)} and {dict(more)} make no model: {error}") from error


def _around_ddpm(model: PublishedDDPM, history: Mapping[str, Any]) -> dict[str, Any]:
    weights = {f"module.{name}": tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return {"step": history.get("step", 0), "model": weights, "ema": weights}


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
    read_settings=_read_model_args,
    build=_build_earthpt,
    surround=_around_earthpt,
    told=("iter_num", "best_val_loss", "config"),
    marks=("model", "model_args"),
    aliases={"transformer.wte.weight": "lm_head.weight"},
    # torch before 2.0 kept the causal mask as a buffer
    ignored=(r"transformer\.h\.\d+\.attn\.bias",),
)
PIX2PROF = Layout(
    "pix2prof",
    "Pix2Prof, October 2020 (Smith et al. 2021, arXiv 2010.00622)",
    prefixes=(("encoder.", "encoder."), ("decoder.", "decoder.")),
    read_settings=_read_pix2prof_sizes,
    build=_build_pix2prof,
    surround=_around_pix2prof,
    told=("epoch", "logdir"),
    marks=("encoder", "decoder"),
    groups=("encoder", "decoder"),
)
DDPM = Layout(
    "ddpm",
    "Galaxy DDPM, November 2021 (Smith et al. 2022, arXiv 2111.01713), the average of its weights",
    # modules are called as in the files
    prefixes=(("", ""),),
    read_settings=_read_ddpm_sizes,
    build=_build_ddpm,
    surround=_around_ddpm,
    told=("step",),
    marks=("ema", "model", "step"),
    groups=("ema",),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (EARTHPT, PIX2PROF, DDPM)}
"""Every layout by the name that the command line takes."""


def read_published(
    path: str | os.PathLike[str], layout: str | None = None, *, more: Mapping[str, Any] | None = None
) -> Published:
    """Return the model that a published checkpoint holds; no code of the file runs.

    Parameters
    ----------
    path : path-like
        Written by `torch.save`.
    layout : str, optional
        One of `LAYOUTS`; by default the one that the file's keys tell.
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
    named = None if layout is None else require_layout(layout)
    content = load_safely(path)
    known = named or _recognised(path, content)
    try:
        weights = _own_weights(_flat(content, known), known)
        model = _fill(known, (known.read_settings(content), more or {}), weights)
    except LayoutMismatch as error:
        raise LayoutMismatch(f"{path} is not {known.title}: {error}") from error
    told = {name: _plain(content[name]) for name in known.told if name in content}
    return Published(model, known.name, told)


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
    content = {**_grouped(weights, known), **known.surround(model, history or {})}
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


def _recognised(path: str | os.PathLike[str], content: Any) -> Layout:
    """Return the layout whose keys a file has."""
    keys = {str(key) for key in content} if isinstance(content, dict) else set()
    for layout in LAYOUTS.values():
        if keys.issuperset(layout.marks):
            return layout
    known = "; ".join(f"{layout.name} has {', '.join(layout.marks)}" for layout in LAYOUTS.values())
    raise LayoutMismatch(f"{path}: of no known layout; it holds {', '.join(sorted(keys)[:10]) or 'no keys'} ({known})")


def _flat(content: Any, layout: Layout) -> dict[str, Any]:
    """Return all weights of a file by their names in it, without wrappers; of several groups with the group's before."""
    found: dict[str, Any] = {}
    for group in layout.groups:
        weights = content.get(group) if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise LayoutMismatch(f"no dictionary of weights under {group!r}")
        found |= {_in_group(group, name, layout): tensor for name, tensor in unwrap(weights).items()}
    return found


def _grouped(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, dict[str, Tensor]]:
    """Return weights as a file has them: the inverse of `_flat`."""
    starts = {group: _in_group(group, "", layout) for group in layout.groups}
    return {
        group: {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}
        for group, start in starts.items()
    }


def _in_group(group: str, name: str, layout: Layout) -> str:
    return name if len(layout.groups) == 1 else f"{group}.{name}"


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
