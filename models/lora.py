"""Low-rank adaptation of linear layers (Hu et al. 2021, arXiv 2106.09685): few numbers to train, none left at the end."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", bound=nn.Module)


class LowRank(nn.Module):
    """A linear layer that stays as it is, and a product of two narrow ones beside it: W x + B A x (eq. 3).

    Parameters
    ----------
    linear : nn.Linear
        Is not trained any more.
    rank : int
        Of the product.
    generator : torch.Generator
        Draws A; B begins as zero, so that nothing changes at first.
    """

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        self.narrow = nn.Parameter(torch.empty(rank, linear.in_features))
        self.wide = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.normal_(self.narrow, 0.0, 1 / math.sqrt(linear.in_features), generator=generator)
        self.to(linear.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + B A x."""
        return self.linear(x) + F.linear(F.linear(x, self.narrow), self.wide)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one linear layer that does the same."""
        self.linear.weight += self.wide @ self.narrow
        return self.linear


def add_lora(model: nn.Module, *, rank: int, generator: torch.Generator) -> list[nn.Parameter]:
    """Put low-rank layers beside every linear one, and return what is to be trained; all else of the model is not any more."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    added: list[nn.Parameter] = []
    for parent, name, linear in _layers(model, nn.Linear):
        layer = LowRank(linear, rank, generator)
        setattr(parent, name, layer)
        added += [layer.narrow, layer.wide]
    return added


def merge_lora(model: nn.Module) -> None:
    """Turn low-rank layers back into plain ones with the sum of both; its parameters can be trained again."""
    for parent, name, layer in _layers(model, LowRank):
        setattr(parent, name, layer.merged())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _layers(model: nn.Module, kind: type[Layer]) -> list[tuple[nn.Module, str, Layer]]:
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
