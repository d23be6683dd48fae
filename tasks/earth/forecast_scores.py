"""Scores of forecasts beside their floors, as sums that can be added: region by region, in any order.

Errors are kept as histograms of 0.0002 wide cells, so that medians need no list of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.floors import FLOORS, MIN_LOOKS, MIN_SPAN_DAYS
from tasks.earth.forecast_protocol import (
    MODEL,
    QUANTILES,
    WINDOW_QUANTILES,
    Judged,
    PixelSeries,
    Predict,
    ScoringRule,
    judge,
)
from tasks.earth.forecasting import HIGH, LOW, quantile_index

CELL, CELLS = 2e-4, 10_000
"""Width of a cell of the histograms of absolute errors, and their number: the last holds all from 2 on."""
SEASONS = ("DJF", "MAM", "JJA", "SON")


class Tally:
    """Sums over targets of one index.

    Parameters
    ----------
    methods, sources : tuple of str
        What gives answers, and what gives quantiles.
    levels : tuple of float
        Of the quantiles.
    rule : ScoringRule
        Its bins.
    """

    def __init__(
        self, methods: tuple[str, ...], sources: tuple[str, ...], levels: tuple[float, ...], rule: ScoringRule
    ) -> None:
        self.methods, self.sources, self.levels, self.rule = methods, sources, levels, rule
        self.errors = np.zeros((len(methods), rule.bins, CELLS), dtype=np.int64)
        self.totals = np.zeros((len(methods), rule.bins))
        self.seen = np.zeros((rule.bins, len(SEASONS)), dtype=np.int64)
        self.below = np.zeros((len(sources), len(levels), rule.bins, len(SEASONS)), dtype=np.int64)
        self.inside = np.zeros((len(sources), rule.bins, len(SEASONS)), dtype=np.int64)
        self.pinball = np.zeros((len(sources), len(levels)))

    def add(self, judged: Judged, counted: np.ndarray) -> None:
        """Add the targets that count: (target, pixel) bool."""
        days = (judged.targets - judged.origin).astype("timedelta64[D]").astype(int)
        bins = np.broadcast_to((days // self.rule.bin_days)[:, None], counted.shape)[counted]
        seasons = np.broadcast_to(season_of(judged.targets)[:, None], counted.shape)[counted]
        truth = judged.truth[counted].astype(float)
        self.seen += _count(bins, seasons, self.seen.shape)
        for number, method in enumerate(self.methods):
            error = np.abs(judged.answers[method][counted] - truth)
            cell = np.minimum(error / CELL, CELLS - 1).astype(np.int64)
            self.errors[number] += _count(bins, cell, (self.rule.bins, CELLS))
            self.totals[number] += np.bincount(bins, weights=error, minlength=self.rule.bins)
        for number, source in enumerate(self.sources):
            found = np.moveaxis(judged.quantiles[source], 1, 0)[:, counted]  # (quantile, target that counts)
            self._add_quantiles(number, found.astype(float), truth, (bins, seasons))

    def merge(self, other: Tally) -> None:
        """Add what another tally has seen."""
        for name in ("errors", "totals", "seen", "below", "inside", "pinball"):
            getattr(self, name).__iadd__(getattr(other, name))

    @property
    def number(self) -> int:
        """Return how many targets count."""
        return int(self.seen.sum())

    def mean(self, method: str, bins: slice = slice(None)) -> float | None:
        """Return the mean absolute error over some bins of the horizon; None where nothing counts."""
        number = self.seen[bins].sum()
        return float(self.totals[self.methods.index(method), bins].sum() / number) if number else None

    def median(self, method: str, bins: slice = slice(None)) -> float | None:
        """Return the median absolute error, to half a cell."""
        return _median_of_cells(self.errors[self.methods.index(method), bins].sum(axis=0))

    def coverage(self, source: str, bins: slice = slice(None), seasons: slice = slice(None)) -> float | None:
        """Return the share of targets inside the 80 % interval, ends included."""
        number = self.seen[bins, seasons].sum()
        return float(self.inside[self.sources.index(source), bins, seasons].sum() / number) if number else None

    def reliability(self, source: str) -> list[float | None]:
        """Return the share of targets at or below each quantile."""
        at_most = self.below[self.sources.index(source)].sum(axis=(1, 2))
        return [float(count / self.number) if self.number else None for count in at_most]

    def loss(self, source: str) -> float | None:
        """Return the pinball loss, the mean over levels and targets."""
        return float(self.pinball[self.sources.index(source)].mean() / self.number) if self.number else None

    def _add_quantiles(
        self, number: int, found: np.ndarray, truth: np.ndarray, where: tuple[np.ndarray, np.ndarray]
    ) -> None:
        for place, level in enumerate(self.levels):
            at_most = truth <= found[place]
            self.below[number, place] += _count(where[0][at_most], where[1][at_most], self.seen.shape)
            error = truth - found[place]
            self.pinball[number, place] += np.maximum(level * error, (level - 1) * error).sum()
        low, high = found[quantile_index(self.levels, LOW)], found[quantile_index(self.levels, HIGH)]
        within = (low <= truth) & (truth <= high)
        self.inside[number] += _count(where[0][within], where[1][within], self.seen.shape)


@dataclass
class ForecastScores:
    """Scores of all indices, on all clear looks and on those free of haze.

    Parameters
    ----------
    rule : ScoringRule
        Under which they were taken.
    levels : tuple of float
        Of the quantiles.
    with_model : bool
        Whether a model was asked, or the floors alone.
    all_looks, screened : dict of str to Tally
        By index.
    by_origin : dict of str to int
        Targets of the first index per origin.
    pixels, unanswered : int
        Pixels with a target that counts; targets that do not count because the model gave no number.
    """

    rule: ScoringRule
    levels: tuple[float, ...] = QUANTILES
    with_model: bool = True
    all_looks: dict[str, Tally] = field(default_factory=dict)
    screened: dict[str, Tally] = field(default_factory=dict)
    by_origin: dict[str, int] = field(default_factory=dict)
    pixels: int = 0
    unanswered: int = 0

    def __post_init__(self) -> None:
        for origin in self.rule.origins:
            self.by_origin.setdefault(str(origin.astype("datetime64[D]")), 0)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the model, where there is one, and the floors."""
        return ((MODEL,) if self.with_model else ()) + tuple(FLOORS)

    @property
    def sources(self) -> tuple[str, ...]:
        """Return what gives quantiles."""
        return ((MODEL,) if self.with_model else ()) + (WINDOW_QUANTILES,)

    def add(self, judged: Judged) -> None:
        """Add one index from one origin."""
        self._tally(self.all_looks, judged.index).add(judged, judged.counted)
        if judged.screened is not None:
            self._tally(self.screened, judged.index).add(judged, judged.screened)
        self.unanswered += int(judged.unanswered.sum())
        if judged.index == next(iter(self.all_looks)):
            self.by_origin[str(judged.origin.astype("datetime64[D]"))] += int(judged.counted.sum())

    def merge(self, other: ForecastScores) -> None:
        """Add what others have seen, under the same rule."""
        for mine, theirs in ((self.all_looks, other.all_looks), (self.screened, other.screened)):
            for index, tally in theirs.items():
                self._tally(mine, index).merge(tally)
        for origin, count in other.by_origin.items():
            self.by_origin[origin] += count
        self.pixels += other.pixels
        self.unanswered += other.unanswered

    def report(self) -> dict[str, Any]:
        """Return everything as JSON types; null where nothing counts."""
        first = next(iter(self.all_looks), None)
        return {
            "protocol": self._protocol(),
            "counts": {
                "origins": len(self.rule.origins),
                "pixels": self.pixels,
                "targets": self.all_looks[first].number if first else 0,
                "screened_targets": self.screened[first].number if first in self.screened else 0,
                "unanswered": self.unanswered,
                "targets_by_origin": self.by_origin,
            },
            "indices": {index: _errors(tally) for index, tally in self.all_looks.items()},
            "screened": {index: _errors(tally) for index, tally in self.screened.items()},
            "skill": {index: _skill(tally) for index, tally in self.all_looks.items()},
            "screened_skill": {index: _skill(tally) for index, tally in self.screened.items()},
            "interval_coverage": _coverage(self),
            "pinball": {index: _pinball(tally) for index, tally in self.all_looks.items()},
            "screened_pinball": {index: _pinball(tally) for index, tally in self.screened.items()},
            "reliability": {index: _reliability(tally) for index, tally in self.all_looks.items()},
        }

    def _tally(self, among: dict[str, Tally], index: str) -> Tally:
        if index not in among:
            among[index] = Tally(self.methods, self.sources, self.levels, self.rule)
        return among[index]

    def _protocol(self) -> dict[str, Any]:
        return {
            "origins": [str(origin.astype("datetime64[D]")) for origin in self.rule.origins],
            "horizon_days": self.rule.horizon_days,
            "bin_days": self.rule.bin_days,
            "context": self.rule.context,
            "targets": "clear looks (SCL 4, 5, 6), not eaten, with data in the index's bands",
            "history": f"pixels with at least {MIN_LOOKS} looks over {MIN_SPAN_DAYS} days before the origin",
            "screened": "B02 at most median + 2.5 x 1.4826 x MAD + 0.01 of the pixel's looks before the origin",
            "quantiles": list(self.levels),
        }


def evaluate_arrays(
    series: PixelSeries,
    predict: Predict | None,
    rule: ScoringRule,
    *,
    quantiles: tuple[float, ...] = QUANTILES,
    on_judged: Callable[[Judged], None] | None = None,
) -> ForecastScores:
    """Return scores of a model beside all floors, straight from arrays.

    Parameters
    ----------
    series : PixelSeries
        From `series_of`, or made of index series alone.
    predict : callable or None
        ``predict(past, targets)`` gives quantiles of each index; `asking` makes one of a Forecaster. None for the floors
        alone.
    rule : ScoringRule
        Origins and horizon.
    quantiles : tuple of float
        Levels that `predict` gives.
    on_judged : callable, optional
        Sees every answer beside its truth, for pictures.

    Examples
    --------
    >>> dates = np.datetime64("2017-01-05") + 12 * np.arange(60)
    >>> ndvi = np.full((60, 1), 0.7)
    >>> seen = np.ones((60, 1), dtype=bool)
    >>> series = PixelSeries({"ndvi": ndvi}, valid=seen, clear=seen, dates=dates)
    >>> rule = ScoringRule((np.datetime64("2018-09-01"),))
    >>> evaluate_arrays(series, None, rule).report()["indices"]["ndvi"]["last_year"]["mae"]
    0.0
    """
    scores = ForecastScores(rule, quantiles, predict is not None)
    scored = np.zeros(series.valid.shape[1], dtype=bool)
    for judged in judge(series, predict, rule, quantiles=quantiles):
        scores.add(judged)
        scored[judged.pixels] |= judged.counted.any(axis=0)
        if on_judged is not None:
            on_judged(judged)
    scores.pixels = int(scored.sum())
    return scores


def season_of(dates: np.ndarray) -> np.ndarray:
    """Return the meteorological season, a number in `SEASONS`.

    Examples
    --------
    >>> season_of(np.array(["2020-12-01", "2020-05-31"], "datetime64[D]"))
    array([0, 1])
    """
    month = dates.astype("datetime64[M]").astype(int) % 12
    return np.asarray((month + 1) % 12 // 3)


def _count(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.bincount(first * shape[1] + second, minlength=shape[0] * shape[1]).reshape(shape)


def _median_of_cells(cells: np.ndarray) -> float | None:
    number = cells.sum()
    if not number:
        return None
    upto = np.cumsum(cells)
    cell = int(np.searchsorted(upto, number / 2))
    before = upto[cell] - cells[cell]
    return float((cell + (number / 2 - before) / cells[cell]) * CELL)


def _errors(tally: Tally) -> dict[str, Any]:
    return {
        method: {
            "mae": _rounded(tally.mean(method)),
            "median": _rounded(tally.median(method)),
            "n": tally.number,
            "by_horizon": [
                {
                    "days": list(days),
                    "mae": _rounded(tally.mean(method, part)),
                    "median": _rounded(tally.median(method, part)),
                    "n": int(tally.seen[part].sum()),
                }
                for days, part in _horizons(tally.rule)
            ],
        }
        for method in tally.methods
    }


def _skill(tally: Tally) -> dict[str, Any]:
    """Return 1 - error / error of the floor, of the mean and of the median."""
    if MODEL not in tally.methods:
        return {}
    return {
        floor: {
            "mae": _gain(tally.mean(MODEL), tally.mean(floor)),
            "median": _gain(tally.median(MODEL), tally.median(floor)),
        }
        for floor in FLOORS
    }


def _coverage(scores: ForecastScores) -> dict[str, Any]:
    """Return the share inside the 80 % interval: of the first index, then of each, then of the window's quantiles."""
    source = scores.sources[0]
    tallies = list(scores.all_looks.values())
    parts = _coverage_parts(tallies[0], source) if tallies else {}
    return {
        "level": round(HIGH - LOW, 6),
        "of": source,
        "index": next(iter(scores.all_looks), None),
        **parts,
        "indices": {index: _coverage_parts(tally, source) for index, tally in scores.all_looks.items()},
        "screened": {index: _coverage_parts(tally, source) for index, tally in scores.screened.items()},
        WINDOW_QUANTILES: {
            index: _coverage_parts(tally, WINDOW_QUANTILES) for index, tally in scores.all_looks.items()
        },
    }


def _coverage_parts(tally: Tally, source: str) -> dict[str, Any]:
    seasons = enumerate(SEASONS)
    return {
        "overall": _rounded(tally.coverage(source)),
        "by_horizon": [
            {"days": list(days), "coverage": _rounded(tally.coverage(source, part)), "n": int(tally.seen[part].sum())}
            for days, part in _horizons(tally.rule)
        ],
        "by_season": {
            season: {
                "coverage": _rounded(tally.coverage(source, seasons=slice(number, number + 1))),
                "n": int(tally.seen[:, number].sum()),
            }
            for number, season in seasons
        },
    }


def _pinball(tally: Tally) -> dict[str, Any]:
    return {source: _rounded(tally.loss(source)) for source in tally.sources}


def _reliability(tally: Tally) -> dict[str, Any]:
    shares = {source: [_rounded(share) for share in tally.reliability(source)] for source in tally.sources}
    return {"levels": list(tally.levels), **shares}


def _horizons(rule: ScoringRule) -> Iterable[tuple[tuple[int, int], slice]]:
    for number in range(rule.bins):
        start = number * rule.bin_days
        yield (start, min(start + rule.bin_days, rule.horizon_days)), slice(number, number + 1)


def _gain(ours: float | None, floor: float | None) -> float | None:
    return None if ours is None or not floor else _rounded(1 - ours / floor)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
