"""EarthPT, the default: any-horizon quantile forecasts of cloud-masked, irregular pixel series.

A causal transformer reads the looks of a pixel. A question about a later day is one more step that sees the looks up
to its origin and nothing else, so that one pass answers any number of days without roll-out. The answer mixes weighted means
of the pixel's own looks, with weights that attention finds (a learned climatology that knows season, age and haze), and
the median of the looks of the season, which haze hardly moves; to that it adds a correction, and a spread for each
quantile (pinball loss, Koenker and Bassett 1978). Where looks stand in time is told
by rotary angles made from dates, so that absolute positions are not needed and series may have any length.

The published EarthPT (Smith et al. 2023, arXiv 2309.07207) is in `models/earthpt_published.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.indices import BANDS, INDICES, compute
from models.tokens import Tokens
from models.transformer import Transformer, TransformerConfig, date_angles, initialise, rotate

YEAR_DAYS = 365.25
OUTPUTS = (*BANDS, *INDICES)
"""What is forecast: reflectance of the bands, then the indices."""
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
_MEDIAN = QUANTILES.index(0.5)
BAND_UNIT, INDEX_UNIT = 0.05, 0.1
"""Reflectance and index that count as one in the loss and the network."""


@dataclass(frozen=True)
class EarthPTConfig:
    """Size of the model and how it is trained.

    Parameters
    ----------
    layers, heads, width : int
        Of the core.
    pointers : int
        Weighted means of the pixel's own looks that an answer is mixed from.
    queries : int
        Questions about each series in training.
    horizon_days : int
        Longest time between origin and target in training.
    band_dropout : float
        Share of training series that lose bands: of those a sixth keep NDVI alone, half of the others the four bands of 10 m,
        and the rest a random set.
    """

    layers: int = 4
    heads: int = 4
    width: int = 96
    pointers: int = 6
    queries: int = 48
    horizon_days: int = 240
    band_dropout: float = 0.5


@dataclass(frozen=True)
class Questions:
    """What is asked of each series.

    Parameters
    ----------
    origin : Tensor, shape (B, K), int
        Number of the last look that the answer may use.
    day : Tensor, shape (B, K)
        Of the answer, days since 2000-01-01.
    target : Tensor, shape (B, K), int
        Number of the look that holds the answer, in training.
    """

    origin: Tensor
    day: Tensor
    target: Tensor


class EarthPT(nn.Module):
    """Any-horizon quantile forecaster of pixel series.

    Parameters
    ----------
    config : EarthPTConfig
        Its size.
    generator : torch.Generator, optional
        Draws the first weights.
    """

    def __init__(self, config: EarthPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        width, outputs = config.width, len(OUTPUTS)
        self.core = Transformer(TransformerConfig(config.layers, config.heads, width))
        self.look_in = nn.Sequential(nn.Linear(2 * outputs + 7, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.question_in = nn.Sequential(nn.Linear(outputs + 9, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.pointer_query = nn.Linear(width, config.pointers * self._pointer_width)
        self.pointer_key = nn.Linear(width, config.pointers * self._pointer_width)
        self.gate = nn.Linear(width, outputs * (config.pointers + 1))
        narrow, wide = 8.0, 120.0  # days
        spread = torch.linspace(math.log(narrow), math.log(wide), config.pointers)
        self.season_width = nn.Parameter(spread)
        self.age_rate = nn.Parameter(torch.linspace(-3.0, 1.0, config.pointers))
        last = nn.Linear(2 * width, outputs * len(QUANTILES))
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)
        # how much wider than trained each quantile stands from the median; set by `calibrated`
        self.register_buffer("spread", torch.ones(outputs, len(QUANTILES)))
        initialise(self, layers=config.layers, generator=generator or torch.Generator().manual_seed(0))
        # the first answer is a plain mean of the looks with a spread of about one unit
        nn.init.zeros_(last.weight)

    @property
    def _pointer_width(self) -> int:
        return 2 * (self.config.width // (2 * self.config.heads))

    def loss(self, batch: Tokens, *, generator: torch.Generator) -> Tensor:
        """Return the mean pinball loss of questions drawn about each series.

        Parameters
        ----------
        batch : Tokens
            Values (B, T, 10) as `models.tokens` scales them, days in ``position[..., 0]``.
        generator : torch.Generator
            Draws questions and the bands that are kept.
        """
        channels, questions = self.exercise(batch, generator)
        answer = self.answer(channels, batch.position[..., 0], batch.valid, questions)  # (B, K, 15, Q)
        truth = channels.gather(1, questions.target[..., None].expand(-1, -1, channels.shape[2]))
        return pinball(answer, truth, questions.target > questions.origin)

    def exercise(self, batch: Tokens, generator: torch.Generator) -> tuple[Tensor, Questions]:
        """Return what a batch asks in training: channels (B, T, 15), some without bands, and questions with answers."""
        return self._hide(batch.values, generator), self._ask(batch, generator)

    def answer(self, channels: Tensor, day: Tensor, valid: Tensor, questions: Questions) -> Tensor:
        """Return quantiles of every output at every question.

        Parameters
        ----------
        channels : Tensor, shape (B, T, 15)
            From `to_channels`; NaN where a band or index is not there.
        day : Tensor, shape (B, T), days since 2000-01-01
        valid : Tensor of bool, shape (B, T)
        questions : Questions
            (B, K).

        Returns
        -------
        Tensor, shape (B, K, 15, quantile), ascending along the last
        """
        seen = ~channels.isnan()
        known = channels.nan_to_num(0.0)
        looks, steps = self._embed_looks(known, seen, day), day.shape[1]
        asked = self._embed_questions(seen.any(dim=1), day, questions)
        days = torch.cat([day, questions.day], dim=1)
        allowed = _allowed(valid, questions.origin)  # (B, T + K, T + K)
        angles = date_angles(days, self.core.config.head_width // 2)
        hidden = self.core(torch.cat([looks, asked], dim=1), attend=allowed, angles=angles)  # (B, T + K, D)
        return self._read_out(hidden[:, steps:], hidden[:, :steps], known, (allowed[:, steps:, :steps], days))

    def answer_ahead(self, channels: Tensor, day: Tensor, valid: Tensor, *, ahead: Tensor) -> Tensor:
        """Return quantiles on days after the last valid look of each series: the numbers of `answer`, with less work.

        The looks run through the core once, causally, and the questions read the keys that the looks left; no mask of all
        steps by all steps is made.

        Parameters
        ----------
        channels, day, valid : Tensor
            As in `answer`; valid looks stand first, and each series has one at least.
        ahead : Tensor, shape (B, K), days since 2000-01-01

        Returns
        -------
        Tensor, shape (B, K, 15, quantile), ascending along the last
        """
        steps, count = day.shape[1], ahead.shape[1]
        origin = (valid.sum(dim=1, keepdim=True) - 1).expand(-1, count)
        asked = Questions(origin, ahead, origin)
        seen, known = ~channels.isnan(), channels.nan_to_num(0.0)
        days = torch.cat([day, ahead], dim=1)  # (B, T + K)
        angles = date_angles(days, self.core.config.head_width // 2)
        cache = self.core.new_cache(capacity=days.shape[1])
        # padding stands last, so that causal attention keeps it out of the looks' sight
        looks = self.core(self._embed_looks(known, seen, day), angles=angles[:, :steps], cache=cache)
        questions = self._embed_questions((seen & valid[..., None]).any(dim=1), day, asked)
        allowed = valid[:, None].expand(-1, count, -1)  # (B, K, T)
        own = torch.eye(count, dtype=torch.bool, device=day.device).expand(len(day), -1, -1)
        attend = torch.cat([allowed, own], dim=-1)  # (B, K, T + K)
        hidden = self.core(questions, attend=attend, angles=angles[:, steps:], cache=cache)
        return self._read_out(hidden, looks, known, (allowed, days))

    def embed(self, channels: Tensor, day: Tensor, valid: Tensor) -> Tensor:
        """Return the mean over a pixel's looks of the last block's output, before the norm: (B, D)."""
        known = channels.nan_to_num(0.0)
        looks = self._embed_looks(known, ~channels.isnan(), day)
        allowed = _causal_valid(valid)
        hidden = self.core.blocks(looks, attend=allowed, angles=date_angles(day, self.core.config.head_width // 2))
        return _mean_over(hidden, valid)

    def _embed_looks(self, known: Tensor, seen: Tensor, day: Tensor) -> Tensor:
        gap = F.pad(day[:, 1:] - day[:, :-1], (1, 0))[..., None]
        features = [known, seen.to(known.dtype), _season(day), torch.log1p(gap.clamp(min=0)) / 3]
        return self.look_in(torch.cat(features, dim=-1))  # (B, T, 2 * 15 + 7) -> (B, T, D)

    def _embed_questions(self, seen: Tensor, day: Tensor, questions: Questions) -> Tensor:
        ahead = questions.day - day.gather(1, questions.origin)
        count = torch.log1p(questions.origin.to(day.dtype)) / 3
        told = [torch.log1p(ahead.clamp(min=0)) / 3, ahead / 180, count]
        seen = seen[:, None].expand(-1, ahead.shape[1], -1).to(day.dtype)
        return self.question_in(torch.cat([seen, _season(questions.day), torch.stack(told, dim=-1)], dim=-1))

    def _read_out(self, asked: Tensor, looks: Tensor, known: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
        """Mix the pixel's own looks by attention with the season's median, and add correction and spread."""
        allowed, days = where
        batch, count, _ = asked.shape
        heads, steps, outputs = self.config.pointers, looks.shape[1], known.shape[2]
        q = self.pointer_query(asked).view(batch, count, heads, -1).transpose(1, 2)  # (B, P, K, E)
        k = self.pointer_key(looks).view(batch, steps, heads, -1).transpose(1, 2)  # (B, P, T, E)
        angles = date_angles(days, self._pointer_width // 2)
        q, k = rotate(q, angles[:, steps:]), rotate(k, angles[:, :steps])
        values = known[:, None].expand(-1, heads, -1, -1)  # (B, P, T, 15)
        nearness = self._nearness(days[:, steps:], days[:, :steps]).masked_fill(~allowed[:, None], -torch.inf)
        means = F.scaled_dot_product_attention(q, k, values, attn_mask=nearness)  # (B, P, K, 15)
        middle = season_median(known, days[:, :steps], days[:, steps:], allowed=allowed)
        means = torch.cat([means, middle[:, None]], dim=1)  # (B, P + 1, K, 15)
        gate = self.gate(asked).view(batch, count, outputs, heads + 1).softmax(dim=-1)
        centre = torch.einsum("bpko,bkop->bko", means, gate)
        found = _quantiles(centre, self.head(asked).view(batch, count, outputs, len(QUANTILES)))
        median = found[..., _MEDIAN : _MEDIAN + 1]
        return median + (found - median) * self.get_buffer("spread")

    def _nearness(self, asked: Tensor, seen: Tensor) -> Tensor:
        """Return what every pointer's logits begin with: looks of the same season and of late count for more.

        A von Mises kernel on the day of the year, from 8 days wide to 120, and a decay with age; (B, P, K, T).
        """
        apart = (asked[:, :, None] - seen[:, None, :]).double() / YEAR_DAYS  # (B, K, T), years
        season = (1 - torch.cos(2 * math.pi * apart)).float()[:, None]
        width = 2 * math.pi * self.season_width.exp() / YEAR_DAYS
        age = apart.float().clamp(min=0)[:, None] * self.age_rate.exp()[:, None, None]
        return -season / width.square()[:, None, None] - age

    def _ask(self, batch: Tokens, generator: torch.Generator) -> Questions:
        """Draw origins among the looks, and for each a later look at most `horizon_days` on."""
        day, valid = batch.position[..., 0], batch.valid
        count, device = self.config.queries, day.device
        shape = (day.shape[0], count)
        number = valid.sum(dim=1, keepdim=True)  # valid looks stand first
        draw = torch.rand((2, *shape), generator=generator, device=device)
        first = torch.minimum(torch.full_like(number, 5), (number - 2).clamp(min=0))
        origin = (first + draw[0] * (number - 1 - first).clamp(min=1)).long().clamp(max=day.shape[1] - 2)
        wanted = day.gather(1, origin) + 1 + draw[1] * self.config.horizon_days
        ends = torch.where(valid, day, torch.inf)
        target = torch.searchsorted(ends.contiguous(), wanted.contiguous())
        # beyond the last look: the nearest one before, as far as it lies after the origin
        target = torch.minimum(target, number - 1)
        return Questions(origin, day.gather(1, target), target)

    def _hide(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return channels (B, T, 15), some series without bands, as if their sensor or archive had none."""
        batch, _, bands = values.shape
        draw = torch.rand((batch, bands + 4), generator=generator, device=values.device)
        ten_metres = torch.tensor([band in ("B02", "B03", "B04", "B08") for band in BANDS], device=values.device)
        some = draw[:, 4:] < 0.3 + 0.7 * draw[:, 2:3]
        some[:, BANDS.index("B04")] = some[:, BANDS.index("B08")] = True
        kept = torch.where(draw[:, 1:2] < 0.5, ten_metres, some) | (draw[:, :1] >= self.config.band_dropout)
        channels = to_channels(values.masked_fill(~kept[:, None], torch.nan))  # NDVI is always left
        alone = torch.tensor([name == "ndvi" for name in OUTPUTS], device=values.device)
        bare = (draw[:, :1] < self.config.band_dropout) & (draw[:, 3:4] < 1 / 6)
        return channels.masked_fill((bare & ~alone)[:, None], torch.nan)


def spread_factors(answer: Tensor, truth: Tensor) -> Tensor:
    """Return by how much each quantile has to stand further from the median to hold its share of held-out looks.

    For level q the factor is the q-quantile of (truth - median) / (answer_q - median), so that a share q of truths lies
    at or below; the conformal idea (Romano et al. 2019, arXiv 1905.03222) with a factor instead of a shift.

    Parameters
    ----------
    answer : Tensor, shape (N, C, quantile)
        Forecasts of looks that training has not seen.
    truth : Tensor, shape (N, C)
        NaN where not known.

    Returns
    -------
    Tensor, shape (C, quantile)
        Between 1 and 3, ascending away from the median; 1 for the median and for outputs that were never seen. Never less:
        held-out looks are as clear as those that were trained on, and looks to come may be hazier.
    """
    factors = answer.new_ones(answer.shape[1:])
    for channel in range(answer.shape[1]):
        known = ~truth[:, channel].isnan()
        if known.sum() < 100:
            continue
        median = answer[known, channel, _MEDIAN]
        for number, level in enumerate(QUANTILES):
            if number == _MEDIAN:
                continue
            width = (answer[known, channel, number] - median).abs().clamp(min=1e-6)
            away = (truth[known, channel] - median) / width * (1 if level > 0.5 else -1)
            # torch.quantile takes 16 million values at most
            factors[channel, number] = torch.quantile(away[:: 1 + len(away) // 1_000_000], max(level, 1 - level))
    factors = factors.clamp(1.0, 3.0)
    # further quantiles are stretched at least as much, so that they stay in order
    below = factors[:, :_MEDIAN].flip(-1).cummax(dim=-1).values.flip(-1)
    above = factors[:, _MEDIAN + 1 :].cummax(dim=-1).values
    return torch.cat([below, factors[:, _MEDIAN : _MEDIAN + 1], above], dim=-1)


def to_channels(values: Tensor) -> Tensor:
    """Return bands and indices in units of the network.

    Parameters
    ----------
    values : Tensor, shape (..., 10)
        Scaled as published, x = 2 (v / 1000) - 1 of v = 10,000 x reflectance; NaN where there is no band.

    Returns
    -------
    Tensor, shape (..., 15)
        Reflectance over `BAND_UNIT`, indices over `INDEX_UNIT`, both less a fixed offset; NaN where a band is missing.
    """
    reflectance = (values + 1) * 0.05
    bands = {name: reflectance[..., number] for number, name in enumerate(BANDS)}
    indices = torch.stack([compute(name, bands) for name in INDICES], dim=-1).clamp(-1.2, 1.2)
    offset = _offsets(values)
    return torch.cat([reflectance / BAND_UNIT, indices / INDEX_UNIT], dim=-1) - offset


def from_channels(channels: Tensor) -> Tensor:
    """Return reflectance 0 to 1 and indices from units of the network, shape (..., 15) along the last."""
    unit = channels.new_tensor([BAND_UNIT] * len(BANDS) + [INDEX_UNIT] * len(INDICES))
    return (channels + _offsets(channels)) * unit


def _offsets(like: Tensor) -> Tensor:
    """Return what typical land has in units of the network, so that zero is ordinary."""
    typical = (0.8, 1.2, 1.2, 2.0, 4.0, 5.0, 5.2, 5.6, 4.0, 2.4, 6.0, 3.5, -5.5, 4.0, 0.0)
    return like.new_tensor(typical)


def pinball(answer: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Return the mean pinball loss over what is known.

    Parameters
    ----------
    answer : Tensor, shape (B, K, C, quantile)
    truth : Tensor, shape (B, K, C), NaN where not known
    counts : Tensor of bool, shape (B, K)
        Questions that have an answer.

    References
    ----------
    Koenker and Bassett 1978, eq. 1.1.
    """
    level = answer.new_tensor(QUANTILES)
    known = ~truth.isnan() & counts[..., None]
    error = truth.nan_to_num(0.0)[..., None] - answer
    each = torch.maximum(level * error, (level - 1) * error).mean(dim=-1)
    weight = answer.new_tensor([1.0] * len(BANDS) + [3.0] + [1.0] * (len(INDICES) - 1)) * known
    return 2 * (each * weight).sum() / weight.sum().clamp(min=1.0)


def season_median(known: Tensor, seen: Tensor, asked: Tensor, *, allowed: Tensor) -> Tensor:
    """Return the median of the allowed looks within 30 days of each question's day of the year, whatever the year.

    Where there are none, within 60 days, then of all. It is the floor `models.floors.window_median`, for every question.

    Parameters
    ----------
    known : Tensor, shape (B, T, C)
    seen, asked : Tensor, shape (B, T) and (B, K), days
    allowed : Tensor of bool, shape (B, K, T)
        Looks before each question's origin.

    Returns
    -------
    Tensor, shape (B, K, C), without gradient; 0 where no look is allowed
    """
    with torch.no_grad():
        apart = (asked[:, :, None] - seen[:, None]).abs() % YEAR_DAYS
        apart = torch.minimum(apart, YEAR_DAYS - apart)  # (B, K, T)
        chosen = allowed & (apart <= 30)
        for days in (60, math.inf):
            chosen = torch.where(chosen.any(dim=-1, keepdim=True), chosen, allowed & (apart <= days))
        ordered, place = known.sort(dim=1)  # (B, T, C)
        counts = chosen.to(known.dtype)[..., None].expand(-1, -1, -1, known.shape[2])
        upto = counts.gather(2, place[:, None].expand_as(counts)).cumsum(dim=2)  # (B, K, T, C)
        number, last = upto[:, :, -1:], known.shape[1] - 1
        low, high = (bound.sum(dim=2).clamp(max=last) for bound in (2 * upto < number, 2 * upto <= number))  # (B, K, C)
        middle = (ordered.gather(1, low) + ordered.gather(1, high)) / 2
        return torch.where(number[:, :, 0] > 0, middle, 0.0)


def _quantiles(centre: Tensor, raw: Tensor) -> Tensor:
    """Return ascending quantiles: the centre and a correction, and steps that cannot be negative to either side."""
    median = centre + raw[..., _MEDIAN]
    step = F.softplus(raw)
    below = step[..., :_MEDIAN].flip(-1).cumsum(dim=-1).flip(-1)
    above = step[..., _MEDIAN + 1 :].cumsum(dim=-1)
    return torch.cat([median[..., None] - below, median[..., None], median[..., None] + above], dim=-1)


def _season(day: Tensor) -> Tensor:
    """Return sine and cosine of one, two and three turns a year: (B, T) -> (B, T, 6)."""
    turn = 2 * math.pi * (day.double() / YEAR_DAYS % 1.0).float()
    angles = torch.stack([turn, 2 * turn, 3 * turn], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(day.dtype)


def _mean_over(hidden: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid looks: (B, T, D) -> (B, D)."""
    weight = valid[..., None].to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def _causal_valid(valid: Tensor) -> Tensor:
    """Return which looks each look sees: valid ones up to itself, and always itself; (B, T) -> (B, T, T)."""
    steps = valid.shape[1]
    before = torch.ones(steps, steps, dtype=torch.bool, device=valid.device).tril()
    return (before & valid[:, None, :]) | torch.eye(steps, dtype=torch.bool, device=valid.device)


def _allowed(valid: Tensor, origin: Tensor) -> Tensor:
    """Return what looks and questions see: (B, T + K, T + K).

    A look sees the valid looks up to itself; a question those up to its origin, and itself; no one sees another question.
    """
    batch, steps = valid.shape
    count = origin.shape[1]
    allowed = valid.new_zeros(batch, steps + count, steps + count)
    allowed[:, :steps, :steps] = _causal_valid(valid)
    number = torch.arange(steps, device=valid.device)
    allowed[:, steps:, :steps] = (number <= origin[..., None]) & valid[:, None, :]
    own = torch.arange(steps, steps + count, device=valid.device)
    allowed[:, own, own] = True
    return allowed


def config_of(content: Mapping[str, Any]) -> EarthPTConfig:
    """Return a config from what a saved model says of itself."""
    known = asdict(EarthPTConfig())
    return EarthPTConfig(**{name: content[name] for name in known if name in content})
