"""Floating-point operations that a model needs, and the share of a GPU's peak that they make up (MFU).

Counted as in Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, appendix B): a product with P weights takes 2 P operations a
step forward and twice that backward, attention of T steps over T takes 12 L D T a step. What is computed again, what a
causal mask leaves out, and norms and activations do not count. Tables that are looked up are not multiplied with.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.canopy import CanopyNet
from models.earthpt import OUTPUTS, EarthPT
from models.earthpt_published import PublishedEarthPT

_PEAKS = (
    (r"H100.*HBM3", 989e12),
    (r"H200", 989e12),
    (r"A100", 312e12),
    (r"L4", 121e12),
    (r"T4", 65e12),
    (r"RTX 4090", 165e12),
)
"""Dense bf16 operations a second as the makers state them; the T4 has no bf16, and this is its fp16."""
_OTHERS = r"MIG|Laptop|4090 D\b"
"""A slice of a GPU, or another one of a similar name."""


def peak_flops(device: str) -> float | None:
    """Return the dense bf16 operations a second that a GPU is sold with, None where it is not known.

    Parameters
    ----------
    device : str
        As `torch.cuda.get_device_name` says it.

    Examples
    --------
    >>> peak_flops("NVIDIA H100 80GB HBM3") / 1e12
    989.0
    """
    if re.search(_OTHERS, device):
        return None
    return next((peak for name, peak in _PEAKS if re.search(rf"\b{name}\b", device)), None)


def counted_flops(run: Callable[[], object]) -> float:
    """Return the operations of the matrix products, convolutions and attention that a call does, on the meta device too.

    Examples
    --------
    >>> import torch
    >>> counted_flops(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    60.0
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def training_flops(parameters: int, *, layers: int, width: int, steps: int) -> float:
    """Return the operations of training on one token: 6 N + 12 L D T.

    Parameters
    ----------
    parameters : int
        Weights N that the token is multiplied with.
    layers, width, steps : int
        Of the core, L and D, and the length T of the sequence.

    Examples
    --------
    >>> training_flops(1_000, layers=2, width=10, steps=5)
    7200.0
    """
    return 6.0 * parameters + 12.0 * layers * width * steps


def multiplied_weights(module: nn.Module) -> int:
    """Return the weights of a module that its input is multiplied with: those of its linear layers."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def published_flops(model: PublishedEarthPT, *, series: int, steps: int) -> float:
    """Return the operations of training the published EarthPT on a batch of series of so many steps."""
    core = model.config.core
    each = training_flops(multiplied_weights(model), layers=core.layers, width=core.width, steps=steps)
    return series * steps * each


def earthpt_flops(model: EarthPT, *, series: int, steps: int) -> float:
    """Return the operations of training EarthPT on a batch of series of so many looks.

    Looks and questions take different ways in and out, and the same way through the core; the pointers are attention of
    every question over every look.
    """
    config, asked = model.config, model.config.queries
    passed = training_flops(
        multiplied_weights(model.core), layers=config.layers, width=config.width, steps=steps + asked
    )
    by_look = multiplied_weights(model.look_in) + multiplied_weights(model.pointer_key)
    ways = (model.question_in, model.pointer_query, model.gate, model.head)
    by_question = sum(multiplied_weights(way) for way in ways)
    pointing = asked * steps * (model.pointer_query.out_features + config.pointers * len(OUTPUTS))
    return series * ((steps + asked) * passed + 6.0 * (steps * by_look + asked * by_question + pointing))


def canopy_head_flops(model: CanopyNet, *, pixels: int) -> float:
    """Return the operations of the head on so many pixels; training takes three times as many."""
    return 2.0 * pixels * sum(part.weight.numel() for part in model.head.modules() if isinstance(part, nn.Conv2d))


def canopy_reading_flops(model: CanopyNet, *, looks: int, pixels: int) -> float:
    """Return the operations of reading so many pixels that have so many looks together.

    Attention over the few looks of a pixel is left out; it is below a tenth at a hundred looks.
    """
    backbone, config = model.backbone, model.config
    core = multiplied_weights(backbone.core)
    by_look = core + multiplied_weights(backbone.look_in) + multiplied_weights(backbone.pointer_key)
    ways = (backbone.question_in, backbone.pointer_query, backbone.gate, backbone.head)
    by_question = core + sum(multiplied_weights(way) for way in ways)
    return 2.0 * (looks * by_look + pixels * config.months * by_question)
