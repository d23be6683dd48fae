"""The network of the diffusion model: a U-Net over blocks of pixels, told the noise level and what is asked for.

Blocks of `patch` x `patch` pixels become channels first (space to depth), so that no layer works at full resolution. What
concerns single pixels has a short way: details of the image come beside it, and the answer takes as much of each detail as
the features say, pixel by pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUP = 16
"""Channels that are normalised together."""
FREQUENCIES = 32
"""At which a noise level is told."""
_HEAD = 32


@dataclass(frozen=True)
class UNetConfig:
    """Size of a U-Net.

    Parameters
    ----------
    channels : int
        Of images, both ways.
    patch : int
        Side of the blocks of pixels that become channels.
    widths : tuple of int
        Channels of each level, finest first; each level has half the resolution of the one before.
    depths : tuple of int
        Residual blocks of each level, on the way down and again on the way up.
    attended : int
        Of the coarsest levels, how many have attention.
    conditions : int
        Numbers that may be asked for.
    details : int
        Images that come beside each image.

    Raises
    ------
    ValueError
        Where the sizes make no network.
    """

    channels: int = 3
    patch: int = 4
    widths: tuple[int, ...] = (64, 128, 192)
    depths: tuple[int, ...] = (1, 1, 1)
    attended: int = 2
    conditions: int = 0
    details: int = 2

    def __post_init__(self) -> None:
        if min(self.channels, self.patch) < 1 or not self.widths or len(self.widths) != len(self.depths):
            raise ValueError(f"{self}: channels and patch are at least 1, and there is one depth for each width")
        if any(width < _GROUP or width % _GROUP for width in self.widths) or min(self.depths) < 1:
            raise ValueError(f"{self}: widths are multiples of {_GROUP}, depths at least 1")

    @property
    def divisor(self) -> int:
        """Return what the side of an image is a multiple of."""
        return int(self.patch * 2 ** (len(self.widths) - 1))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside the identity; the embedding scales and shifts between them. Attention where wanted."""

    def __init__(self, channels: int, out: int, *, embedding: int, attended: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels // _GROUP, channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.told = nn.Linear(embedding, 2 * out)
        self.norm2 = nn.GroupNorm(out // _GROUP, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.short = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.attention = Attention(out) if attended else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(B, C, Y, X) and (B, embedding) -> (B, out, Y, X)."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)  # (B, 2 out, 1, 1) -> (B, out, 1, 1) twice
        inner = self.conv2(functional.silu(torch.addcmul(shift, self.norm2(inner), 1 + scale)))
        found: Tensor = self.attention(self.short(x) + inner)
        return found


class Attention(nn.Module):
    """Every place looks at all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD)
        self.norm = nn.GroupNorm(channels // _GROUP, channels)
        self.ask = nn.Conv2d(channels, 3 * channels, 1)
        self.answer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, Y, X)."""
        asked = self.ask(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))  # (B, 3, H, C / H, Y X)
        q, k, v = asked.transpose(3, 4).unbind(dim=1)  # (B, H, Y X, C / H)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        answer: Tensor = self.answer(mixed.transpose(2, 3).reshape(x.shape))
        return x + answer


class UNet(nn.Module):
    """Images and what is told of them to images of the same shape.

    Parameters
    ----------
    config : UNetConfig
        Its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    def __init__(self, config: UNetConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        widths, inside = config.widths, config.channels * config.patch**2
        embedding = 4 * widths[0]
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.nothing = nn.Parameter(torch.zeros(embedding))
        self.asked = (
            nn.Sequential(nn.Linear(config.conditions, widths[0]), nn.SiLU(), nn.Linear(widths[0], embedding))
            if config.conditions
            else None
        )
        self.first = nn.Conv2d(inside, widths[0], 3, padding=1)
        self.seen = nn.Conv2d(config.details * inside, widths[0], 1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.coarser, self.finer = nn.ModuleList(), nn.ModuleList()
        for number, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
            attended = number >= len(widths) - config.attended
            blocks = [Block(width, width, embedding=embedding, attended=attended) for _ in range(depth)]
            self.down.append(nn.ModuleList(blocks))
            joined = [Block(2 * width, width, embedding=embedding, attended=attended)]
            joined += [Block(width, width, embedding=embedding, attended=attended) for _ in range(depth - 1)]
            self.up.append(nn.ModuleList(joined))
            if number + 1 < len(widths):
                self.coarser.append(nn.Conv2d(4 * width, widths[number + 1], 1))
                self.finer.append(nn.Conv2d(widths[number + 1], 4 * width, 1))
        self.norm = nn.GroupNorm(widths[0] // _GROUP, widths[0])
        self.last = nn.Conv2d(widths[0], inside, 3, padding=1)
        self.taken = nn.Conv2d(widths[0], config.details * inside, 1)
        _initialise(self, generator or torch.Generator().manual_seed(0))

    def forward(
        self,
        x: Tensor,
        details: Tensor,
        level: Tensor,
        condition: Tensor | None = None,
        *,
        asked: Tensor | None = None,
    ) -> Tensor:
        """Return the network's answer.

        Parameters
        ----------
        x : Tensor, shape (B, C, Y, X)
            Both sides multiples of `UNetConfig.divisor`.
        details : Tensor, shape (B, details * C, Y, X)
            Of about unit size.
        level : Tensor, shape (B,)
            About -2 to 2: a logarithm of the noise level.
        condition : Tensor, shape (B, conditions), optional
            Of about unit size.
        asked : Tensor, shape (B,), bool, optional
            Whose condition counts; by default all.
        """
        patch = self.config.patch
        blocks, fine = (
            functional.pixel_unshuffle(image, patch).contiguous(memory_format=torch.channels_last)
            for image in (x, details)
        )
        told = functional.silu(self._told(level, condition, asked))
        here, kept = self.first(blocks) + self.seen(fine), []
        for number, level_blocks in enumerate(self.down):
            for block in level_blocks:  # type: ignore[attr-defined]
                here = block(here, told)
            kept.append(here)
            if number < len(self.coarser):
                here = self.coarser[number](
                    functional.pixel_unshuffle(here, 2)
                )  # (B, C, Y, X) -> (B, C', Y / 2, X / 2)
        for number in reversed(range(len(self.up))):
            if number < len(self.finer):
                here = functional.pixel_shuffle(self.finer[number](here), 2)  # (B, C', Y, X) -> (B, C, 2 Y, 2 X)
            here = torch.cat([here, kept[number]], dim=1)
            for block in self.up[number]:  # type: ignore[attr-defined]
                here = block(here, told)
        here = functional.silu(self.norm(here))
        taken = (self.taken(here) * fine).unflatten(1, (self.config.details, -1)).sum(dim=1)
        return functional.pixel_shuffle(self.last(here) + taken, patch)

    def _told(self, level: Tensor, condition: Tensor | None, asked: Tensor | None) -> Tensor:
        told: Tensor = self.level(turns_of(level))
        if condition is None or self.asked is None:
            return told + self.nothing
        wanted = self.asked(condition)
        if asked is not None:
            wanted = torch.where(asked[:, None], wanted, self.nothing)
        return told + wanted


def turns_of(level: Tensor) -> Tensor:
    """Return cosines and sines of a logarithm of the noise level, with periods from 16 to 1/8: (B,) -> (B, 2 `FREQUENCIES`)."""
    turns = torch.exp2(torch.linspace(-4, 3, FREQUENCIES, device=level.device, dtype=level.dtype))
    angle = 2 * math.pi * level[:, None] * turns
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _initialise(network: UNet, generator: torch.Generator) -> None:
    """Draw weights by their number of inputs; what is added to something else begins as nothing."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            nn.init.normal_(module.weight, std=1 / math.sqrt(fan), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    endings = {Block: ("conv2", "told"), Attention: ("answer",), UNet: ("last", "taken")}
    for module in network.modules():
        for ending in endings.get(type(module), ()):
            nn.init.zeros_(getattr(module, ending).weight)
