"""Canopy: classes of pixels from what EarthPT makes of their series, and from what lies around them.

As published (Dargana, arXiv 2504.17321) a light MLP reads the pooled embedding of a frozen EarthPT: `CanopyConfig(months=0, reach=0)`.
By default EarthPT is asked what each month of the coming year will look like. Its medians are a cloud-free, haze-robust
year of the pixel, which means the same in every place and for every cadence, where the embedding also tells dates and weather
of its series; and a few convolutions over neighbouring pixels see hedges, stands and edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.earthpt import OUTPUTS, QUANTILES, YEAR_DAYS, EarthPT, EarthPTConfig, Questions
from models.transformer import initialise

UNKNOWN, LEFT = -1, -2
"""Instead of the position of a class: nothing is known; left to the head that training began with."""
LOOKS_UNIT = 3.0
"""Of the logarithm of the number of looks."""
COVER_EDGES = (1, 10, 30, 50, 70, 90, 99)
"""Percent of tree cover at which the levels begin that are learned beside the classes."""
_COVER_WEIGHT = 0.5
_MEDIAN = QUANTILES.index(0.5)
_CLAMP = 6.0


@dataclass(frozen=True)
class CanopyConfig:
    """Size of a canopy model: of the EarthPT that it reads through, and of its head.

    Parameters
    ----------
    classes : tuple of int
        Class values, in the order of the probabilities.
    layers, heads, width, pointers, queries, horizon_days, band_dropout
        As in `EarthPTConfig`.
    months : int
        Days of the year, evenly apart, that EarthPT is asked about; 0 reads the pooled embedding instead, as published.
    hidden : int
        Width of the head.
    reach : int
        Convolutions of 3 x 3 pixels, so pixels to each side that a class depends on; 0 judges each pixel alone.
    dropout : float
        In the head, in training.
    members : int
        Networks that the head is made of, alike but for their first weights; their logits are averaged.
    turns : int
        Ways of the eight in which the ground can be turned and mirrored that a map averages: 1, 2, 4 or 8.
    """

    classes: tuple[int, ...] = (0, 1, 2)
    layers: int = 4
    heads: int = 4
    width: int = 96
    pointers: int = 6
    queries: int = 48
    horizon_days: int = 240
    band_dropout: float = 0.5
    months: int = 12
    hidden: int = 64
    reach: int = 5
    dropout: float = 0.1
    members: int = 1
    turns: int = 1

    def __post_init__(self) -> None:
        if self.turns not in (1, 2, 4, 8):
            raise ValueError(f"turns is {self.turns}; wanted is 1, 2, 4 or 8")

    @property
    def backbone(self) -> EarthPTConfig:
        """Return the config of the EarthPT."""
        return EarthPTConfig(**{field.name: getattr(self, field.name) for field in fields(EarthPTConfig)})

    @property
    def features(self) -> int:
        """Return the number of features of a pixel."""
        return (self.months * len(OUTPUTS) if self.months else self.width) + len(OUTPUTS) + 1


@dataclass(frozen=True)
class LabelledGrid:
    """Patches of features and what is known of them.

    Parameters
    ----------
    features : Tensor, shape (N, features, y, x), float16 or float32
        With the halo.
    labels : Tensor of int64, shape (N, y, x)
        Without it: position of the class, `UNKNOWN` or `LEFT`.
    cover : Tensor of int64, shape (N, y, x), optional
        Level of tree cover, from `cover_levels`; `UNKNOWN` where it is not known.
    """

    features: Tensor
    labels: Tensor
    cover: Tensor | None = None

    def to(self, device: torch.device) -> LabelledGrid:
        """Return it on a device."""
        cover = None if self.cover is None else self.cover.to(device)
        return LabelledGrid(self.features.to(device), self.labels.to(device), cover)


@dataclass(frozen=True)
class SeriesPart:
    """Some pixels' series: their numbers in the patch, (B,), and channels, days and valid looks as `CanopyNet.features` takes them."""

    pixels: Tensor
    channels: Tensor
    day: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> SeriesPart:
        """Return it on a device."""
        return SeriesPart(*(tensor.to(device) for tensor in (self.pixels, self.channels, self.day, self.valid)))


@dataclass(frozen=True)
class LabelledSeries:
    """A patch of series and what is known of it.

    Parameters
    ----------
    parts : tuple of SeriesPart
        Every pixel that has a valid look, once.
    shape : tuple of int
        Rows and columns of the patch, with the halo.
    labels : Tensor of int64, shape (1, y, x)
        As in `LabelledGrid`.
    """

    parts: tuple[SeriesPart, ...]
    shape: tuple[int, int]
    labels: Tensor

    def to(self, device: torch.device) -> LabelledSeries:
        """Return it on a device."""
        return LabelledSeries(tuple(part.to(device) for part in self.parts), self.shape, self.labels.to(device))


class CanopyNet(nn.Module):
    """EarthPT with a canopy head.

    Parameters
    ----------
    config : CanopyConfig
        Its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    def __init__(self, config: CanopyConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        drawn = generator or torch.Generator().manual_seed(0)
        self.backbone = EarthPT(config.backbone, generator=drawn)
        self.head: Head = (CanopyHeads if config.members > 1 else CanopyHead)(config, generator=drawn)

    @property
    def halo(self) -> int:
        """Return how many pixels around a window the classes inside it depend on."""
        return self.config.reach

    def features(self, channels: Tensor, day: Tensor, valid: Tensor) -> Tensor:
        """Return what the head reads of each series.

        Parameters
        ----------
        channels : Tensor, shape (B, T, 15)
            From `models.earthpt.to_channels`; NaN where a band is not there.
        day : Tensor, shape (B, T), days since 2000-01-01
        valid : Tensor of bool, shape (B, T)
            Valid looks stand first, one at least.

        Returns
        -------
        Tensor, shape (B, features)
            Month by month the median of every output, or the embedding; which outputs are there; the logarithm of the looks.
        """
        there = ~channels.isnan().all(dim=1)  # (B, 15)
        count = valid.sum(dim=1)
        if self.config.months:
            last = day.gather(1, (count - 1).clamp(min=0)[:, None])
            ahead = months_after(last, self.config.months)
            answer = self._answer(channels, day, valid, ahead)[..., _MEDIAN]  # (B, M, 15)
            told = (answer * there[:, None]).flatten(1)
        else:
            told = self.backbone.embed(channels, day, valid)
        looks = torch.log1p(count.to(told.dtype))[:, None] / LOOKS_UNIT
        return torch.cat([told, there.to(told.dtype), looks], dim=1)

    def _answer(self, channels: Tensor, day: Tensor, valid: Tensor, ahead: Tensor) -> Tensor:
        """Return what EarthPT says of days ahead; the short way keeps keys in place, so that it has no gradient."""
        if not torch.is_grad_enabled():
            return self.backbone.answer_ahead(channels, day, valid, ahead=ahead)
        origin = (valid.sum(dim=1, keepdim=True) - 1).expand_as(ahead)
        return self.backbone.answer(channels, day, valid, Questions(origin, ahead, origin))

    def loss(
        self,
        batch: LabelledGrid | LabelledSeries,
        *,
        generator: torch.Generator | None = None,
        weights: Sequence[float] | None = None,
        focus: float = 0.0,
        anchor: Head | None = None,
        levels: CoverLevels | None = None,
    ) -> Tensor:
        """Return the mean over members of `classification_loss`, and of the loss of cover levels where those are told.

        Parameters
        ----------
        batch : LabelledGrid or LabelledSeries
        generator : torch.Generator, optional
            Draws nothing here.
        weights, focus : sequence of float, float
            As `classification_loss`.
        anchor : Head, optional
            That is not trained, and whose opinion is learned.
        levels : CoverLevels, optional
            Reads cover beside the classes, so that a pixel just below half is not learned as bare ground.
        """
        grid = self.grid_of(batch) if isinstance(batch, LabelledSeries) else batch.features.float()
        opinion = None
        if anchor is not None:
            with torch.no_grad():
                opinion = anchor(grid).softmax(dim=1)
        cover = batch.cover if isinstance(batch, LabelledGrid) else None
        losses = []
        for number, member in enumerate(self.head.every):
            hidden = member.hidden(grid)
            logits = member.read(hidden)
            losses.append(classification_loss(logits, batch.labels, weights=weights, focus=focus, opinion=opinion))
            if levels is not None and cover is not None:
                losses[-1] = losses[-1] + levels.loss(hidden, cover, member=number)
        return torch.stack(losses).mean()

    def grid_of(self, batch: LabelledSeries) -> Tensor:
        """Return the features of a patch of series: (1, features, y, x), zeros where a pixel has no look."""
        rows, columns = batch.shape
        found = [(part.pixels, self.features(part.channels, part.day, part.valid)) for part in batch.parts]
        flat = batch.parts[0].channels.new_zeros(rows * columns, self.config.features)
        for pixels, features in found:
            flat = flat.index_copy(0, pixels, features)
        return flat.T.reshape(1, -1, rows, columns)

    def logits(self, grid: Tensor) -> Tensor:
        """Return the logits of every class inside the halo: (N, features, y, x) -> (N, K, y - 2 halo, x - 2 halo)."""
        turns = _TURNS[: self.config.turns]
        return torch.stack([_back(self.head(_turned(grid, turn)), turn) for turn in turns]).mean(dim=0)


class CanopyHead(nn.Module):
    """Features of pixels on a grid to logits of classes; a pixel without a look has zeros for features."""

    def __init__(self, config: CanopyConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        hidden, self.told = config.hidden, config.features - len(OUTPUTS) - 1
        self.register_buffer("mean", torch.zeros(self.told))
        self.register_buffer("unit", torch.ones(self.told))
        # 1 / temperature of the softmax; set by calibration
        self.register_buffer("sharpness", torch.ones(()))
        self.stem = nn.Conv2d(config.features, hidden, 1)
        self.pixel = nn.Conv2d(hidden, hidden, 1)
        self.around = nn.ModuleList([nn.Conv2d(hidden, hidden, 3) for _ in range(config.reach)])
        self.drop = nn.Dropout2d(config.dropout)
        self.last = nn.Conv2d(hidden, len(config.classes), 1)
        initialise(self, layers=1, generator=generator)
        for part in (self.stem, self.pixel, *self.around):
            nn.init.normal_(part.weight, 0.0, math.sqrt(2.0 / part.weight[0].numel()), generator=generator)

    @property
    def every(self) -> tuple[CanopyHead, ...]:
        """Return the members: itself."""
        return (self,)

    def forward(self, grid: Tensor) -> Tensor:
        """Return logits: (N, features, y, x) -> (N, K, y - 2 reach, x - 2 reach)."""
        return self.read(self.hidden(grid))

    def hidden(self, grid: Tensor) -> Tensor:
        """Return what the classes are read from: (N, features, y, x) -> (N, hidden, y - 2 reach, x - 2 reach)."""
        x = F.gelu(self.pixel(F.gelu(self.stem(self._scaled(grid)))))
        for around in self.around:
            x = x[..., 1:-1, 1:-1] + F.gelu(around(x))
        return cast(Tensor, self.drop(x))

    def read(self, hidden: Tensor) -> Tensor:
        """Return the logits of what `hidden` gave."""
        return cast(Tensor, self.last(hidden)) * self.get_buffer("sharpness")

    def _scaled(self, grid: Tensor) -> Tensor:
        """Return features about zero and of unit spread, 0 where a channel or a look is not there."""
        told, known = grid[:, : self.told], grid[:, self.told :]
        scaled = (told - self.get_buffer("mean")[:, None, None]) / self.get_buffer("unit")[:, None, None]
        seen = known[:, -1:] > 0
        if self.config.months:
            seen = seen & (known[:, :-1] > 0).repeat(1, self.config.months, 1, 1)
        return torch.cat([scaled.clamp(-_CLAMP, _CLAMP) * seen, known], dim=1)

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Set what `forward` scales by to the mean and spread of features (N, features), each over pixels that have it."""
        told, known = features[:, : self.told], features[:, self.told :]
        seen = (known[:, -1:] > 0).expand_as(told)
        if self.config.months:
            seen = seen & (known[:, :-1] > 0).repeat(1, self.config.months)
        count = seen.sum(dim=0).clamp(min=1)
        mean = (told * seen).sum(dim=0) / count
        spread = (((told - mean) * seen).square().sum(dim=0) / count).sqrt()
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("unit").copy_(torch.where(spread > 1e-6, spread, 1.0))


class CanopyHeads(nn.Module):
    """Several heads alike but for their first weights: logits are their mean."""

    def __init__(self, config: CanopyConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.members = nn.ModuleList([CanopyHead(config, generator=generator) for _ in range(config.members)])
        # 1 / temperature of the softmax of the mean; set by calibration
        self.register_buffer("sharpness", torch.ones(()))

    @property
    def every(self) -> tuple[CanopyHead, ...]:
        """Return the members."""
        return tuple(cast(CanopyHead, member) for member in self.members)

    def forward(self, grid: Tensor) -> Tensor:
        """Return logits, as a member does."""
        return torch.stack([member(grid) for member in self.members]).mean(dim=0) * self.get_buffer("sharpness")

    def measure(self, features: Tensor) -> None:
        """Set what members scale by, as `CanopyHead.measure`."""
        for member in self.every:
            member.measure(features)


_TURNS = ((0, False), (0, True), (2, False), (2, True), (1, False), (1, True), (3, False), (3, True))
"""Quarter turns, and whether mirrored after them."""


def _turned(grid: Tensor, turn: tuple[int, bool]) -> Tensor:
    found = torch.rot90(grid, turn[0], (-2, -1))
    return found.flip(-1) if turn[1] else found


def _back(grid: Tensor, turn: tuple[int, bool]) -> Tensor:
    return torch.rot90(grid.flip(-1) if turn[1] else grid, -turn[0], (-2, -1))


Head: TypeAlias = CanopyHead | CanopyHeads


class CoverLevels(nn.Module):
    """Reads the level of tree cover from what the classes are read from, in training only.

    Parameters
    ----------
    config : CanopyConfig
        Of the model beside which it is trained.
    """

    def __init__(self, config: CanopyConfig) -> None:
        super().__init__()
        count = len(COVER_EDGES) + 1
        self.members = nn.ModuleList([nn.Conv2d(config.hidden, count, 1) for _ in range(config.members)])
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def loss(self, hidden: Tensor, cover: Tensor, *, member: int) -> Tensor:
        """Return the weighted cross-entropy of levels (N, y, x) where they are known."""
        each = F.cross_entropy(self.members[member](hidden), cover, reduction="sum", ignore_index=UNKNOWN)
        return _COVER_WEIGHT * each / (cover >= 0).sum().clamp(min=1)


def cover_levels(percent: Tensor) -> Tensor:
    """Return the level of each tree cover in percent.

    Examples
    --------
    >>> cover_levels(torch.tensor([0, 1, 49, 50, 100])).tolist()
    [0, 1, 3, 4, 7]
    """
    return torch.bucketize(percent, torch.tensor(COVER_EDGES), right=True)


def months_after(last: Tensor, count: int) -> Tensor:
    """Return the days of the year after each last look that stand for its months: (B, 1) -> (B, count).

    The k-th is in the middle of the k-th of `count` equal parts of the year, whenever the last look was.

    Examples
    --------
    >>> months_after(torch.tensor([[0.0]]), 4).round(decimals=1).tolist()
    [[45.7, 137.0, 228.3, 319.6]]
    """
    middle = (torch.arange(count, device=last.device, dtype=torch.float64) + 0.5) / count * YEAR_DAYS
    return (last + (middle - last.double()) % YEAR_DAYS).to(last.dtype)


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Sequence[float] | None = None,
    focus: float = 0.0,
    opinion: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy over labelled pixels, and over those that are left to an opinion.

    Parameters
    ----------
    logits : Tensor, shape (N, K, y, x)
    labels : Tensor of int, shape (N, y, x)
        Position of the class; `UNKNOWN` where nothing is known, `LEFT` where the opinion is to be learned.
    weights : sequence of float, optional
        Of the classes.
    focus : float
        Exponent of the focal loss (Lin et al. 2017, arXiv 1708.02002, eq. 4); 0 is plain cross-entropy.
    opinion : Tensor, shape (N, K, y, x), optional
        Probabilities that are learned where labels leave pixels to it (Hinton et al. 2015, arXiv 1503.02531).
    """
    each = F.cross_entropy(logits, labels.clamp(min=UNKNOWN), reduction="none", ignore_index=UNKNOWN)
    known = labels >= 0
    scale = known.to(each.dtype)
    if focus:
        scale = scale * (1 - torch.exp(-each.detach())).pow(focus)
    if weights is not None:
        scale = scale * logits.new_tensor(list(weights))[labels.clamp(min=0)]
    total, count = (each * scale).sum(), known.sum()
    if opinion is not None:
        left = labels == LEFT
        total = total - ((opinion * logits.log_softmax(dim=1)).sum(dim=1) * left).sum()
        count = count + left.sum()
    return total / count.clamp(min=1)
