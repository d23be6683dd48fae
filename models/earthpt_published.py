"""EarthPT as published: gap-free reflectance of ten bands in, that of the next date out.

Smith, Fleming and Geach 2023, arXiv 2309.07207 (EarthPT), in the version that the weights of January 2024 fit: a GPT-2
decoder without biases, learned positions, 14 input channels (ten bands, sine and cosine of the day of the year of this and
of the next date), Huber loss. It has no mask, no uncertainty and one date to predict at a time; the default that has
them is in `models/earthpt.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.autoregressive import Autoregressive, Chance
from models.indices import BANDS
from models.tokens import Tokens, compact, next_days
from models.transformer import TransformerConfig, initialise

DATE_FEATURES = 4
CYCLE_DAYS = 146_097
"""Days of 400 Gregorian years."""
ALPHABETICAL_BANDS = ("B02", "B03", "B08", "B04", "B05", "B06", "B07", "B8A", "B11", "B12")
"""Blue, green, NIR, red, red edges, SWIR: the order in which the published sampler plots its bands."""


@dataclass(frozen=True)
class PublishedEarthPTConfig:
    """Size of the published EarthPT; the defaults are those of EarthPT-700M.

    Parameters
    ----------
    layers, heads, width : int
        Of the core.
    block_size : int
        Learned positions: the longest context.
    dropout : float
        In training; published 0.
    bands : tuple of str
        The ten bands in the order in which the weights know them. Published sources name two orders: that of wavelength
        (preparation) and `ALPHABETICAL_BANDS` (sampler).

    Raises
    ------
    ValueError
        Where the bands are not the ten.
    """

    layers: int = 36
    heads: int = 20
    width: int = 1280
    block_size: int = 256
    dropout: float = 0.0
    bands: tuple[str, ...] = BANDS

    def __post_init__(self) -> None:
        if sorted(self.bands) != sorted(BANDS):
            raise ValueError(f"bands {', '.join(self.bands)}: expected {', '.join(BANDS)} in some order")

    @property
    def core(self) -> TransformerConfig:
        """Return the size of the core."""
        return TransformerConfig(self.layers, self.heads, self.width, dropout=self.dropout)


class PublishedEarthPT(Autoregressive):
    """The published EarthPT over Tokens: values (B, T, 10) in the order of `models.indices.BANDS`, position (day, target day).

    `loss` compares with the next step. `models.tokens.SeriesTokeniser` scales as published.

    Parameters
    ----------
    config : PublishedEarthPTConfig
        Its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    def __init__(self, config: PublishedEarthPTConfig, *, generator: torch.Generator | None = None) -> None:
        width, bands = config.width, len(BANDS)
        embed = nn.Sequential(nn.Linear(bands + DATE_FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        head = _BandHead(width, [config.bands.index(band) for band in BANDS])
        super().__init__(config.core, embed=embed, head=head, block_size=config.block_size)
        self.config = config
        self.order: Tensor
        self.register_buffer("order", torch.tensor([BANDS.index(band) for band in config.bands]), persistent=False)
        initialise(self, layers=config.layers, generator=generator or torch.Generator().manual_seed(0))

    def features(self, values: Tensor, position: Tensor) -> Tensor:
        """Return the 14 channels: bands, then sine and cosine of this and of the next date.

        Parameters
        ----------
        values : Tensor, shape (B, T, 10)
            Scaled; bands that are not there (NaN) are 0, for the published model knows no gaps.
        position : Tensor, shape (B, T, 2)
            Day and target day, days since 2000-01-01.

        Raises
        ------
        ValueError
            Where the values are not of the ten bands.
        """
        if values.shape[-1] != len(BANDS):
            raise ValueError(
                f"the published EarthPT takes the {len(BANDS)} bands alone; {values.shape[-1]} channels came"
            )
        bands = values.index_select(-1, self.order).nan_to_num(0.0)
        return torch.cat([bands, date_features(position).to(values.dtype)], dim=-1)  # (B, T, 14)

    def forecast(self, context: Tokens, days: Tensor, *, chance: Chance | None = None, cached: bool = True) -> Tensor:
        """Return the reflectance of days to come, by roll-out.

        Parameters
        ----------
        context : Tokens
            Series seen so far, (B, T, 10).
        days : Tensor, shape (B, S) or (S,)
            Ascending, after the last look.
        chance, cached
            As in `generate`.

        Returns
        -------
        Tensor, shape (B, S, 10), scaled
        """
        days = days.to(context.position).expand(len(context), -1)
        seen = context.position[..., 0]
        told = torch.stack([seen, next_days(seen, context.valid, after=days[:, 0])], dim=-1)
        coming = torch.stack([days, torch.cat([days[:, 1:], days[:, -1:]], dim=1)], dim=-1)  # (B, S, 2)
        return self.generate(compact(Tokens(context.values, told, context.valid)), coming, chance=chance, cached=cached)

    def to_config(self) -> dict[str, Any]:
        """Return what `config_of` needs to build the same model, ready for JSON."""
        return asdict(self.config) | {"bands": list(self.config.bands)}


class _BandHead(nn.Linear):
    """The linear head, its outputs put in the order of the tokens."""

    def __init__(self, width: int, order: list[int]) -> None:
        super().__init__(width, len(order), bias=False)
        self.order: Tensor
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).index_select(-1, self.order)


def date_features(position: Tensor) -> Tensor:
    """Return sine and cosine of the days of the year, d / 365 of a turn with 1 January at 0.

    Parameters
    ----------
    position : Tensor, shape (..., P)
        Days since 2000-01-01.

    Returns
    -------
    Tensor, shape (..., 2 P)
        Sine and cosine of the first, then of the second.
    """
    turn = 2 * math.pi * day_of_year(position).double() / 365
    return torch.stack([turn.sin(), turn.cos()], dim=-1).flatten(-2).float()


def day_of_year(days: Tensor) -> Tensor:
    """Return the day of the year, 1 January being 0, of days since 2000-01-01.

    Examples
    --------
    >>> day_of_year(torch.tensor([0.0, 59.0, 366.0, -1.0])).tolist()
    [0, 59, 0, 364]
    """
    whole = days.double().floor().long() % CYCLE_DAYS
    year = (whole.double() / (CYCLE_DAYS / 400)).long()
    year = year - (whole < _year_start(year)).long()
    year = year + (whole >= _year_start(year + 1)).long()
    return whole - _year_start(year)


def config_of(content: Mapping[str, Any]) -> PublishedEarthPTConfig:
    """Return a config from what a saved model says of itself."""
    known = {name: content[name] for name in asdict(PublishedEarthPTConfig()) if name in content}
    return PublishedEarthPTConfig(**known | {"bands": tuple(known.get("bands", BANDS))})


def _year_start(year: Tensor) -> Tensor:
    """Return the days from 2000-01-01 to 1 January of a year, given as years since 2000, 0 to 400."""
    before = (year - 1).clamp(min=0)
    leaps = torch.where(year > 0, 1 + before // 4 - before // 100 + before // 400, 0)
    return 365 * year + leaps
