"""Looks that training does not see: how they choose weights, set the width of quantiles, and score beside the floors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.earthpt import EarthPT, Questions, pinball, spread_factors, to_channels
from models.indices import BANDS
from models.tokens import Tokens, compact, to_dates, to_reflectance
from tasks.earth.forecast_protocol import Predict, ScoringRule, series_of
from tasks.earth.forecast_scores import ForecastScores, evaluate_arrays
from tasks.earth.series_batches import device_of

_FIRST_ORIGIN = 5
"""Looks before the first origin that is asked about, as in training."""
_AT_ONCE = 64
_STEP_DAYS, _HORIZON_DAYS = 30, 150
_TOO_SHORT_DAYS = 30
NO_DATE = -np.inf


@dataclass(frozen=True)
class HeldOut:
    """Whole series of which later looks, or all, are held out, and questions about these.

    Parameters
    ----------
    name : str
        ``prior`` or ``area``.
    tokens : Tokens
        (N, T), valid looks first; the first ten channels are bands.
    since : float
        Day since 2000-01-01 from which looks are held out; -inf where training saw none of these series.
    questions : Questions
        (N, K).
    counts : Tensor of bool, shape (N, K)
        Questions that have an answer.
    read : Tensor of bool, shape (N, T), optional
        Looks that an answer may read, where these are not all: forecasts are scored on looks next to clouds too.
    """

    name: str
    tokens: Tokens
    since: float
    questions: Questions
    counts: Tensor
    read: Tensor | None = None

    @property
    def number(self) -> int:
        """Return how many questions have an answer."""
        return int(self.counts.sum())

    @cached_property
    def channels(self) -> Tensor:
        """Return bands and indices as the network takes them, (N, T, 15)."""
        return to_channels(self.tokens.values[..., : len(BANDS)])

    @cached_property
    def truth(self) -> Tensor:
        """Return what was seen, (N, K, 15)."""
        return self.channels.gather(1, self.questions.target[..., None].expand(-1, -1, self.channels.shape[2]))

    @torch.inference_mode()
    def answers(self, model: EarthPT) -> Tensor:
        """Return a model's quantiles, (N, K, 15, quantile), on the CPU."""
        device = device_of(model)
        model.eval()
        read = self.tokens.valid if self.read is None else self.read
        found = []
        for start in range(0, len(self.tokens), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            asked = Questions(*(part[some].to(device) for part in _parts(self.questions)))
            day, valid = self.tokens.position[some, :, 0].to(device), read[some].to(device)
            found.append(model.answer(self.channels[some].to(device), day, valid, asked).float().cpu())
        return torch.cat(found)

    def loss(self, model: EarthPT) -> float:
        """Return the mean pinball loss, as `EarthPT.loss` weighs it."""
        return float(pinball(self.answers(model), self.truth, self.counts))

    def calibrate(self, model: EarthPT) -> None:
        """Widen a model's quantiles, so that each holds its share of these looks; where it holds more, it stays."""
        factors = spread_factors(self.answers(model)[self.counts], self.truth[self.counts])
        spread = model.get_buffer("spread")
        spread.mul_(factors.to(spread))

    def coverage(self, model: EarthPT) -> float:
        """Return the share of all values inside the 80 % interval."""
        answers, truth = self.answers(model)[self.counts], self.truth[self.counts]
        known = ~truth.isnan()
        inside = (truth >= answers[..., 1]) & (truth <= answers[..., -2])
        return float((inside & known).sum() / known.sum().clamp(min=1))


def hold_out(
    name: str, tokens: Tokens, *, since: float = NO_DATE, questions: int = 16, horizon_days: int = 240, seed: int = 0
) -> HeldOut:
    """Draw questions about held-out looks: any of them, from any earlier look at most `horizon_days` before.

    Parameters
    ----------
    name : str
        Of what is held out.
    tokens : Tokens
        (N, T).
    since : float
        Day from which looks are held out.
    questions : int
        About each series.
    horizon_days : int
        Longest time between origin and target.
    seed : int
        Same seed, same questions.
    """
    tokens = compact(tokens)
    day, valid = tokens.position[..., 0].contiguous(), tokens.valid
    number = valid.sum(dim=1, keepdim=True)
    first = (valid & (day < since)).sum(dim=1, keepdim=True).clamp(min=_FIRST_ORIGIN + 1)
    draw = torch.rand((2, len(day), questions), generator=torch.Generator().manual_seed(seed))
    target = (first + draw[0] * (number - first)).long().clamp(max=day.shape[1] - 1)
    wanted = day.gather(1, target)
    earliest = torch.searchsorted(torch.where(valid, day, torch.inf), wanted - horizon_days).clamp(min=_FIRST_ORIGIN)
    origin = (earliest + draw[1] * (target - earliest)).long().clamp(min=0)
    counts = (first < number) & (origin < target)
    return HeldOut(name, tokens, since, Questions(torch.minimum(origin, target), wanted, target), counts)


def score(held: HeldOut, predict: Predict, levels: tuple[float, ...], *, pixels: int = 256) -> dict[str, Any] | None:
    """Return a forecaster's errors beside all floors on held-out looks; None where no series is long enough.

    Every series that training did not see at all is asked about once, from two thirds of its time; series with a date
    from which looks are held out from there on, every 30 days.

    Parameters
    ----------
    held : HeldOut
        Series.
    predict : callable
        As `forecast_protocol.asking` makes it.
    levels : tuple of float
        Of its quantiles.
    pixels : int
        Series at most.
    """
    cases = list(_cases(held, pixels))
    origins = sorted({origin for _, rule in cases for origin in rule.origins})
    total = ForecastScores(ScoringRule(tuple(origins), _HORIZON_DAYS), levels)
    for tokens, rule in cases:
        total.merge(evaluate_arrays(_gridded(tokens), predict, rule, quantiles=levels))
    report = total.report()
    return _brief(report) if report["counts"]["targets"] else None


def _cases(held: HeldOut, pixels: int) -> Iterator[tuple[Tokens, ScoringRule]]:
    some = _rows(held.tokens, slice(0, pixels))
    if held.since == NO_DATE:
        for row in range(len(some)):
            one = compact(_rows(some, slice(row, row + 1)))
            days = one.position[0, :, 0]
            (origin,) = to_dates(days[:1] + (days[-1:] - days[:1]) * 2 / 3)
            yield one, ScoringRule((origin,), _HORIZON_DAYS)
        return
    last = float(some.position[..., 0][some.valid].max())
    starts = np.arange(held.since, max(last - _TOO_SHORT_DAYS, held.since + 1), _STEP_DAYS)
    yield some, ScoringRule(tuple(to_dates(torch.from_numpy(starts))), _HORIZON_DAYS)


def _gridded(tokens: Tokens) -> Any:
    """Return packed series on the dates that any of them has."""
    day = tokens.position[..., 0].floor().numpy()
    valid = tokens.valid.numpy()
    dates, place = np.unique(day, return_inverse=True)
    place = place.reshape(day.shape)
    seen = to_reflectance(tokens.values[..., : len(BANDS)]).numpy()
    kept = [number for number in range(len(BANDS)) if not np.isnan(seen[..., number][valid]).all()]
    reflectance = np.full((len(dates), len(kept), len(day)), np.nan, np.float32)
    clear = np.zeros((len(dates), len(day)), bool)
    series, look = np.nonzero(valid)
    reflectance[place[series, look], :, series] = seen[series, look][:, kept]
    clear[place[series, look], series] = True
    bands = tuple(BANDS[number] for number in kept)
    return series_of(reflectance, bands, valid=clear, clear=clear, dates=to_dates(torch.from_numpy(dates)))


def _brief(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a model's metrics keep of a report."""

    def errors(part: str) -> dict[str, Any]:
        return {
            index: {name: {key: found[key] for key in ("mae", "median", "n")} for name, found in methods.items()}
            for index, methods in report[part].items()
        }

    coverage = report["interval_coverage"]
    return {
        "pixels": report["counts"]["pixels"],
        "origins": report["counts"]["origins"],
        "indices": errors("indices"),
        "screened": errors("screened"),
        "interval_coverage": {index: parts["overall"] for index, parts in coverage["indices"].items()},
        "pinball": report["pinball"],
    }


def _rows(tokens: Tokens, rows: slice) -> Tokens:
    return Tokens(tokens.values[rows], tokens.position[rows], tokens.valid[rows])


def _parts(questions: Questions) -> tuple[Tensor, Tensor, Tensor]:
    return questions.origin, questions.day, questions.target
