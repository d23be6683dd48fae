"""The one causal transformer: ``core(x (B, T, D)) -> (B, T, D)``, shared by every autoregressive model here.

Pre-norm blocks with `scaled_dot_product_attention` (Vaswani et al. 2017, arXiv 1706.03762; GPT-2 layout: LayerNorm,
fused query-key-value projection, tanh-GELU MLP of four times the width). Where a step stands is told in one of two ways:
the model that uses the core adds learned positions to `x`, or hands over rotary angles made from dates
(`date_angles`), so that attention sees how many days and what part of a year lie between two looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

YEAR_DAYS = 365.25


@dataclass(frozen=True)
class TransformerConfig:
    """Size of the core.

    Parameters
    ----------
    layers, heads, width : int
        Blocks, attention heads, and channels D; `width` is a multiple of `heads`.
    mlp_ratio : int
        Width of the MLP over D.
    bias : bool
        Whether linear layers and norms have biases; the published models have none.
    dropout : float
        After attention and MLP, in training.
    """

    layers: int
    heads: int
    width: int
    mlp_ratio: int = 4
    bias: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")

    @property
    def head_width(self) -> int:
        """Return the channels of one head."""
        return self.width // self.heads


class KeyValueCache:
    """Keys and values of the steps that a core has seen, so that the next steps need not see them again.

    For inference: new steps are written into buffers in place, which autograd cannot follow back.

    Parameters
    ----------
    layers : int
        Blocks of the core.
    capacity : int
        Steps to make room for; more are taken in too, at the price of a copy.
    """

    def __init__(self, layers: int, *, capacity: int = 0) -> None:
        self._capacity = capacity
        self._buffers: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._lengths = [0] * layers

    @property
    def length(self) -> int:
        """Return the number of steps held."""
        return self._lengths[0]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values (B, H, T, D/H) of new steps to a layer, and return all of them."""
        begin = self._lengths[layer]
        end = begin + key.shape[2]
        keys, values = self._room(layer, key, end)
        keys[:, :, begin:end], values[:, :, begin:end] = key, value
        self._lengths[layer] = end
        return keys[:, :, :end], values[:, :, :end]

    def _room(self, layer: int, like: Tensor, end: int) -> tuple[Tensor, Tensor]:
        """Return a layer's buffers, long enough for `end` steps."""
        held = self._buffers[layer]
        if held is not None and held[0].shape[2] >= end:
            return held
        shape = (*like.shape[:2], max(self._capacity, end if held is None else 2 * end), like.shape[3])
        room = like.new_empty(shape), like.new_empty(shape)
        if held is not None:
            for new, old in zip(room, held, strict=True):
                new[:, :, : old.shape[2]] = old
        self._buffers[layer] = room
        return room


def date_angles(days: Tensor, pairs: int) -> Tensor:
    """Return the angles by which each step's queries and keys are turned.

    Half of the pairs turn a whole number of times a year (1, 2, 3, ...), so that their product depends on the distance
    in season alone; the others turn once in 40 days to once in 60 years, and tell how long ago a look was.

    Parameters
    ----------
    days : Tensor, shape (B, T)
        Days since any fixed date.
    pairs : int
        Pairs of channels of one head, D/H/2.

    Returns
    -------
    Tensor, shape (B, T, pairs), radian

    References
    ----------
    Rotary position embedding: Su et al. 2021, arXiv 2104.09864, eq. 34; here with dates for positions.
    """
    seasonal = (pairs + 1) // 2
    turns = torch.arange(1, seasonal + 1, device=days.device, dtype=torch.float64) / YEAR_DAYS
    longest, shortest = 60 * YEAR_DAYS, 40.0
    steps = torch.linspace(0, 1, max(pairs - seasonal, 1), device=days.device, dtype=torch.float64)
    slow = 1 / (shortest * (longest / shortest) ** steps)
    frequency = torch.cat([turns, slow[: pairs - seasonal]])
    # double precision until the turn is taken modulo one: 9,000 days times twelve a year has no fraction left in float32
    turned = (days.double()[..., None] * frequency) % 1.0
    return (2 * math.pi * turned).float()  # (B, T) -> (B, T, pairs)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of channels: x (B, H, T, D/H) by angles (B, T, D/H/2); the first half pairs with the second."""
    return _turn(x, angles[:, None])


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Attention(nn.Module):
    """Multi-head attention over the steps that `attend` allows; causal by default."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.layer, self.dropout = config.heads, layer, config.dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.c_proj = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self, x: Tensor, attend: Tensor | None, angles: Tensor | None, cache: KeyValueCache | None = None
    ) -> Tensor:
        batch, steps, width = x.shape
        qkv = self.c_attn(x).view(batch, steps, 3, self.heads, width // self.heads)  # (B, T, 3D) -> (B, T, 3, H, D/H)
        turned, v = qkv[:, :, :2], qkv[:, :, 2].transpose(1, 2)
        if angles is not None:
            turned = _turn(turned, angles[:, :, None, None])
        q, k = turned.permute(2, 0, 3, 1, 4)  # two of (B, H, T, D/H)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        causal = attend is None and k.shape[2] == steps
        if attend is None and not causal and steps > 1:  # a single step sees all that came before it
            attend = _causal(steps, k.shape[2], x.device)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout, is_causal=causal)
        return self.c_proj(y.transpose(1, 2).reshape(batch, steps, width))  # (B, H, T, D/H) -> (B, T, D)


def _causal(steps: int, seen: int, device: torch.device) -> Tensor:
    """Return which of all steps each of the last ones may see, shape (steps, seen)."""
    return torch.ones(steps, seen, dtype=torch.bool, device=device).tril(seen - steps)


class Mlp(nn.Module):
    """Two linear layers with a tanh-GELU between them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, config.mlp_ratio * config.width, bias=config.bias)
        self.c_proj = nn.Linear(config.mlp_ratio * config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and MLP, each after a norm and added to what came in."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, bias=config.bias)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.width, bias=config.bias)
        self.mlp = Mlp(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, attend: Tensor | None, angles: Tensor | None, cache: KeyValueCache | None = None
    ) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x), attend, angles, cache))
        return x + self.drop(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    """The core: blocks, and a norm at the end.

    Parameters
    ----------
    config : TransformerConfig
        Its size.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.h = nn.ModuleList([Block(config, layer) for layer in range(config.layers)])
        self.ln_f = nn.LayerNorm(config.width, bias=config.bias)

    def blocks(
        self,
        x: Tensor,
        *,
        attend: Tensor | None = None,
        angles: Tensor | None = None,
        cache: KeyValueCache | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Return the output of the last block, before the final norm.

        Parameters
        ----------
        x : Tensor, shape (B, T, D)
        attend : Tensor of bool, shape (T, S) or (B, 1, T, S), optional
            True where a step may look; every step has to see one at least. By default all steps up to itself.
        angles : Tensor, shape (B, T, D/H/2), radian, optional
            From `date_angles`; without them the core knows order only by what `x` says.
        cache : KeyValueCache, optional
            Steps seen before; the new ones are added.
        stop : int, optional
            Number of blocks to run; by default all.

        Returns
        -------
        Tensor, shape (B, T, D)
        """
        mask = attend[:, None] if attend is not None and attend.dim() == 3 else attend
        for block in self.h[:stop]:
            x = block(x, mask, angles, cache)
        return x

    def forward(
        self,
        x: Tensor,
        *,
        attend: Tensor | None = None,
        angles: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the normed output, shape (B, T, D); parameters as in `blocks`."""
        return self.ln_f(self.blocks(x, attend=attend, angles=angles, cache=cache))

    def new_cache(self, *, capacity: int = 0) -> KeyValueCache:
        """Return an empty cache for this core, with room for `capacity` steps."""
        return KeyValueCache(self.config.layers, capacity=capacity)


def initialise(module: nn.Module, *, layers: int, generator: torch.Generator) -> None:
    """Draw weights as GPT-2 does: N(0, 0.02), and N(0, 0.02 / sqrt(2 L)) where a block adds to the stream; biases are 0."""
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            if name.endswith("bias"):  # torch draws them from its global generator
                nn.init.zeros_(parameter)
            continue
        spread = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02
        nn.init.normal_(parameter, 0.0, spread, generator=generator)
