"""Woodland lost and gained: a sequence of maps says where and about when, the looks themselves say whether and which day.

A change needs two witnesses. The maps before and after it have to differ, by medians that one bad map cannot move; and
the pixel's own looks have to break in the time that the maps leave open, with several days on either side of the break.
Numpy only; pixels are independent, and the order of the maps does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.indices import INDICES

NONE, LOSS, GAIN = 0, 1, 2
DAYS_PER_YEAR = 365.25
READ_BANDS = ("B02", "B04", "B08", "B12")
"""What the looks are read of, as far as cubes hold it; blue tells haze."""

VARIABLES: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    "ndvi": (INDICES["ndvi"].bands, INDICES["ndvi"].formula),
    "nbr": (INDICES["nbr"].bands, INDICES["nbr"].formula),
    "red": (("B04",), lambda red: -5 * red),
    "nir": (("B08",), lambda nir: nir),
    "swir": (("B12",), lambda swir: -3 * swir),
}
"""What is looked at, from which bands: felling lowers each but the near infrared, and noise moves all about alike."""

_GREENNESS = ("ndvi", "nbr")
_OF_LOSS = ("ndvi", "red", "swir")
_OF_GAIN = ("ndvi", "nbr", "nir", "red")

_HARMONICS = 2
_RIDGE = 1.0  # in looks, on the harmonics
_HAZE_SCALE = 0.05  # reflectance, as in models/temporal_statistics.py
_AT_ONCE = 2048  # pixels
_NOISE = 0.02  # of an index between looks: a segment is never steadier than this
_PROFILE = 4.0  # twice a difference of log-likelihood: days up to here are as likely as the best


@dataclass(frozen=True)
class ChangeRules:
    """What counts as a change.

    Parameters
    ----------
    least_maps : int
        Maps on either side of a change.
    least_looks : int
        Clear looks behind a map that counts, and days with a look on either side of a break.
    fall : float
        By how much canopy probability falls where woodland is lost.
    canopy : float
        Probability from which a pixel was, or has become, woodland.
    explained : float
        Share of the spread of the looks about their season that a step explains, where woodland is lost.
    step : float
        By how much NDVI and NBR fall, on average.
    rise : float
        By how much canopy probability rises where trees were planted; they are far from canopy for years.
    open : float
        Probability up to which such a place was no woodland.
    settled : float
        How much likelier two seasons are than one, per index, where trees were planted: a log-likelihood.
    settled_days : int
        How long the second of them has held.
    never_bare : float
        NDVI that nine in ten looks since then reach: the ground is not tilled any more.
    """

    least_maps: int = 2
    least_looks: int = 3
    fall: float = 0.25
    canopy: float = 0.4
    explained: float = 0.2
    step: float = 0.1
    rise: float = 0.05
    open: float = 0.2
    settled: float = 9.0
    settled_days: int = 270
    never_bare: float = 0.45


@dataclass(frozen=True)
class MapSeries:
    """Canopy probabilities of some pixels in a sequence of maps.

    Parameters
    ----------
    probability : ndarray, shape (map, pixel), float32
        0 to 1, NaN where a map has none.
    clear_count : ndarray, shape (map, pixel), int
        Clear looks behind each.
    starts, dates : ndarray, shape (map,), datetime64[D]
        First and last day of the looks behind each map.
    """

    probability: np.ndarray
    clear_count: np.ndarray
    starts: np.ndarray
    dates: np.ndarray

    def sorted(self) -> MapSeries:
        """Return the maps by date."""
        order = np.argsort(self.dates, kind="stable")
        return MapSeries(self.probability[order], self.clear_count[order], self.starts[order], self.dates[order])

    def of(self, pixels: np.ndarray) -> MapSeries:
        """Return the same of some pixels."""
        return MapSeries(self.probability[:, pixels], self.clear_count[:, pixels], self.starts, self.dates)


@dataclass(frozen=True)
class Looks:
    """The looks at some pixels, by time.

    Parameters
    ----------
    reflectance : mapping of str to ndarray, shape (time, pixel), float32
        Per band, 0 to 1, NaN where there is no data.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
    """

    reflectance: Mapping[str, np.ndarray]
    valid: np.ndarray
    dates: np.ndarray

    @property
    def days(self) -> np.ndarray:
        """Return days since 1970-01-01, float64."""
        return np.asarray(self.dates.astype("datetime64[D]").astype(np.int64), dtype=np.float64)


@dataclass(frozen=True)
class MapStep:
    """Where the maps of a pixel differ most before and after.

    Parameters
    ----------
    size : ndarray, shape (pixel,)
        How much the medians differ in the direction asked for; -inf where there are too few maps.
    before, after : ndarray, shape (pixel,)
        The medians, taken against a change where the number of maps is even.
    first, last : ndarray, shape (pixel,), datetime64[D]
        `last` is the date of the first map since the step that lies beyond the middle of the two, as does the next one;
        `first` the first day of the looks behind the last map before it that counts. The change came between them.
    """

    size: np.ndarray
    before: np.ndarray
    after: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Changes:
    """What became of some pixels.

    Parameters
    ----------
    kind : ndarray, shape (pixel,), uint8
        `NONE`, `LOSS` or `GAIN`.
    date : ndarray, shape (pixel,), datetime64[D]
        Middle between the two looks between which it most likely was; NaT without a change.
    interval_days : ndarray, shape (pixel,), int64
        Length of the time about that date in which it may have been.
    confidence : ndarray, shape (pixel,), float32
        0 to 1, higher where both witnesses are clearer; 0 without a change.
    """

    kind: np.ndarray
    date: np.ndarray
    interval_days: np.ndarray
    confidence: np.ndarray

    @classmethod
    def none(cls, pixels: int) -> Changes:
        """Return no change at all."""
        return cls(
            np.zeros(pixels, np.uint8),
            np.full(pixels, np.datetime64("NaT"), "datetime64[D]"),
            np.zeros(pixels, np.int64),
            np.zeros(pixels, np.float32),
        )

    def put(self, pixels: np.ndarray, kind: int, found: Found) -> None:
        """Take what was found at some pixels, where it is surer than what is there."""
        surer = found.confidence > self.confidence[pixels]
        at = pixels[surer]
        self.kind[at] = kind
        self.date[at] = found.date[surer]
        reach = np.maximum(found.date - found.earliest, found.latest - found.date)[surer]
        self.interval_days[at] = 2 * reach.astype(np.int64)
        self.confidence[at] = found.confidence[surer]


@dataclass(frozen=True)
class Found:
    """A change of each of some pixels: its likeliest, earliest and latest day, and confidence, 0 where there is none."""

    date: np.ndarray
    earliest: np.ndarray
    latest: np.ndarray
    confidence: np.ndarray


def find_changes(maps: MapSeries, looks: Looks, rules: ChangeRules | None = None) -> Changes:
    """Return loss and gain of woodland of each pixel.

    Loss: the canopy probability falls by `fall` from at least `canopy`, and in the time that the maps leave open the
    looks step down by `step`, which explains the share `explained` of their spread about the season. Gain: the
    probability rises by `rise`, and the looks settle into one season in which the ground is never bare (young trees,
    whose probability stays low for years); or it rises by `fall`, from at most `open` to at least `canopy` (trees that
    close).

    Parameters
    ----------
    maps : MapSeries
        In any order.
    looks : Looks
        At the same pixels, by time.
    rules : ChangeRules, optional
        What counts.
    """
    rules = rules or ChangeRules()
    maps = maps.sorted()
    found = Changes.none(maps.probability.shape[1])
    lost = map_step(maps, rules, falls=True)
    _each(found, LOSS, (lost.size >= rules.fall) & (lost.before >= rules.canopy), lost, looks, rules)
    gained = map_step(maps, rules, falls=False)
    _each(found, GAIN, gained.size >= rules.rise, gained, looks, rules)
    return found


def map_step(maps: MapSeries, rules: ChangeRules, *, falls: bool) -> MapStep:
    """Return the largest step of each pixel between medians of all maps before and of all maps after some date.

    A map counts with `least_looks` clear looks, and `least_maps` have to count on either side. Of an even number the
    middle one that is nearer to no change is taken, so one map that is wrong changes nothing even among two.

    Parameters
    ----------
    maps : MapSeries
        By date.
    rules : ChangeRules
        What counts.
    falls : bool
        Whether the probability is to fall, or to rise.
    """
    sign = -1.0 if falls else 1.0
    counts = np.isfinite(maps.probability) & (maps.clear_count >= rules.least_looks)
    held = np.where(counts, sign * maps.probability, np.inf).astype(np.float32)
    pixels = held.shape[1]
    size, before, after = (np.full(pixels, -np.inf, np.float32) for _ in range(3))
    at = np.full(pixels, rules.least_maps)
    for border in range(rules.least_maps, len(held) - rules.least_maps + 1):
        upper = _median(held[:border], counts[:border], rules.least_maps, upper=True)
        lower = _median(held[border:], counts[border:], rules.least_maps, upper=False)
        known = np.isfinite(upper) & np.isfinite(lower)
        step = np.where(known, np.where(known, lower, 0) - np.where(known, upper, 0), -np.inf)
        better = step > size
        size[better], before[better], after[better] = step[better], sign * upper[better], sign * lower[better]
        at[better] = border
    middle = (before + after) / 2
    beyond = np.where(counts, held > sign * middle, False)
    place = _settles(beyond, counts, at)
    starts, dates = maps.starts.astype("datetime64[D]"), maps.dates.astype("datetime64[D]")
    return MapStep(size, before, after, starts[_preceding(counts, place)], dates[place])


def _settles(beyond: np.ndarray, counts: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Return the first map from a border on that lies beyond the middle, as does the next that counts: (pixel,)."""
    place = np.full(border.shape, len(beyond) - 1)
    following = np.ones(border.shape, dtype=bool)
    for number in range(len(beyond) - 1, -1, -1):
        agree = beyond[number] & following & (number >= border)
        place[agree] = number
        following = np.where(counts[number], beyond[number], following)
    return place


def _preceding(counts: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the last map before a place that counts; the first of all where there is none: (pixel,)."""
    newest = np.maximum.accumulate(np.where(counts, np.arange(len(counts))[:, None], 0), axis=0)
    return _at(newest, np.maximum(place - 1, 0))


def _median(values: np.ndarray, counts: np.ndarray, least: int, *, upper: bool) -> np.ndarray:
    """Return the middle of the values that count, of an even number the upper or lower one; NaN of too few."""
    number = counts.sum(axis=0)
    place = np.clip(number // 2 if upper else (number - 1) // 2, 0, len(values) - 1)
    middle = np.take_along_axis(np.sort(values, axis=0), place[None], axis=0)[0]
    return np.where(number >= least, middle, np.nan)


def _each(found: Changes, kind: int, candidates: np.ndarray, step: MapStep, looks: Looks, rules: ChangeRules) -> None:
    """Ask the looks at the pixels whose maps differ, some at a time, and take what they confirm."""
    judge = _judge_loss if kind == LOSS else _judge_gain
    chosen = np.flatnonzero(candidates)
    for start in range(0, chosen.size, _AT_ONCE):
        pixels = chosen[start : start + _AT_ONCE]
        part = MapStep(*(values[pixels] for values in (step.size, step.before, step.after, step.first, step.last)))
        series = Signal.of(looks, pixels)
        found.put(pixels, kind, judge(part, series, rules))


@dataclass(frozen=True)
class Signal:
    """What is looked at of some pixels, the looks that count, and how much each weighs.

    Parameters
    ----------
    names : tuple of str
        Of `VARIABLES`: those that the bands allow.
    values : ndarray, shape (time, variable, pixel), float64
        0 where there is no valid look.
    weight : ndarray, shape (time, pixel), float64
        1 for a clear look, less the more its blue band stands above the pixel's clear level, 0 where not valid.
    new_day : ndarray, shape (time, pixel), bool
        A valid look that is the first of its day.
    days : ndarray, shape (time,), float64
        Since 1970-01-01.
    """

    names: tuple[str, ...]
    values: np.ndarray
    weight: np.ndarray
    new_day: np.ndarray
    days: np.ndarray

    @classmethod
    def of(cls, looks: Looks, pixels: np.ndarray) -> Signal:
        """Return the signal of some pixels."""
        bands = {name: values[:, pixels] for name, values in looks.reflectance.items()}
        names = tuple(name for name, (needed, _) in VARIABLES.items() if all(band in bands for band in needed))
        made = (VARIABLES[name][1](*(bands[band] for band in VARIABLES[name][0])) for name in names)
        values = np.stack(list(made), axis=1)
        valid = looks.valid[:, pixels] & np.isfinite(values).all(axis=1)
        weight = valid * _haze_weight(bands, valid)
        clean = np.where(valid[:, None], values, 0.0).astype(np.float64)
        return cls(names, clean, weight, _first_of_day(valid, looks.days), looks.days)

    def only(self, names: Sequence[str]) -> Signal:
        """Return some of the variables, as far as there are any of them."""
        kept = [number for number, name in enumerate(self.names) if name in names]
        return replace(self, names=tuple(self.names[number] for number in kept), values=self.values[:, kept])

    def days_with_looks(self) -> np.ndarray:
        """Return on how many days there was a look up to each: (time, pixel)."""
        return np.cumsum(self.new_day, axis=0)


def _haze_weight(bands: Mapping[str, np.ndarray], valid: np.ndarray) -> np.ndarray:
    blue = bands.get("B02")
    if blue is None:
        return np.ones(valid.shape)
    clear = np.where(valid, blue, np.inf)
    place = np.maximum(valid.sum(axis=0) - 1, 0) // 4
    level = np.take_along_axis(np.sort(clear, axis=0), place[None], axis=0)
    excess = np.where(valid, np.maximum(blue - np.where(np.isfinite(level), level, 0), 0), 0)
    return np.asarray(1 / (1 + (excess / _HAZE_SCALE) ** 2), dtype=np.float64)


def _first_of_day(valid: np.ndarray, days: np.ndarray) -> np.ndarray:
    first = valid.copy()
    for number in range(1, len(days)):
        same = np.flatnonzero(days[:number] == days[number])
        if same.size:
            first[number] &= ~valid[same].any(axis=0)
    return first


def season_of(days: np.ndarray) -> np.ndarray:
    """Return mean and two annual harmonics at each day: (time, 5)."""
    angle = 2 * np.pi * np.asarray(days) / DAYS_PER_YEAR
    waves = [wave(order * angle) for order in range(1, _HARMONICS + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(angle), *waves], axis=1)


def _penalty(columns: int) -> np.ndarray:
    return np.diag([1e-6] + [_RIDGE] * (columns - 1))


@dataclass(frozen=True)
class StepFit:
    """A season and a step after each look, fitted to every pixel by weighted ridge regression.

    Parameters
    ----------
    remaining : ndarray, shape (time, pixel)
        Spread that is left with a step after each look, as a share of that without; the mean over the variables.
    step : ndarray, shape (time, pixel)
        Height of the step, the mean over the variables.
    """

    remaining: np.ndarray
    step: np.ndarray


def fit_steps(series: Signal) -> StepFit:
    """Return what a step after each look would explain.

    With season X, weights W, ridge R and the step's column z after look t, `u = X'Wz`, `A = X'WX + R`, the step is
    `(z'Wy - u'A^-1 X'Wy) / (z'Wz - u'A^-1 u)`, and it takes its numerator squared over its denominator off the spread.
    """
    season = season_of(series.days)
    weight, values = series.weight, series.values
    weighted = weight[:, None] * values  # (T, C, N)
    gram = np.einsum("tn,tp,tq->npq", weight, season, season) + _penalty(season.shape[1])
    moment = np.einsum("tcn,tp->npc", weighted, season)
    solved = np.linalg.solve(gram, moment)  # (N, P, C)
    spread = (weighted * values).sum(axis=0).T - (solved * moment).sum(axis=1)  # (N, C)
    column = _after(weight[:, None] * season[:, :, None])  # u: (T, P, N)
    target = _after(weighted) - np.einsum("tpn,npc->tcn", column, solved)
    inverse = np.linalg.inv(gram)
    length = _after(weight) - np.einsum("tpn,npq,tqn->tn", column, inverse, column) + 1e-3
    step = target / length[:, None]
    remaining = 1 - target * step / np.maximum(spread.T, 1e-9)
    return StepFit(remaining.mean(axis=1), step.mean(axis=1))


def _after(values: np.ndarray) -> np.ndarray:
    """Return sums over all looks after each, along the first axis."""
    summed = np.cumsum(values, axis=0)
    return np.asarray(summed[-1:] - summed)


def fit_segments(series: Signal) -> np.ndarray:
    """Return how much likelier a season of its own before and after each look is than one throughout: (time, pixel).

    The difference of log-likelihoods, the mean over the variables: each of the two has its own spread, so a field of
    another crop each year that turns into something steady is found, though no single season describes the field.
    """
    season = season_of(series.days)
    weight, values = series.weight, series.values
    weighted = weight[:, None] * values
    outer = season[:, :, None] * season[:, None, :]
    gram = np.cumsum(np.einsum("tn,tpq->tnpq", weight, outer), axis=0)
    moment = np.cumsum(np.einsum("tcn,tp->tnpc", weighted, season), axis=0)
    square = np.cumsum((weighted * values).transpose(0, 2, 1), axis=0)  # (T, N, C)
    number = np.cumsum(weight, axis=0)[..., None]
    left = _cost(gram, moment, square, number)
    right = _cost(gram[-1:] - gram, moment[-1:] - moment, square[-1:] - square, number[-1:] - number)
    return np.asarray((left[-1:] - left - right).mean(axis=-1) / 2)


def _cost(gram: np.ndarray, moment: np.ndarray, square: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return minus twice the log-likelihood of segments, but for constants: (time, pixel, variable)."""
    solved = np.linalg.solve(gram + _penalty(gram.shape[-1]), moment)
    spread = np.maximum(square - (solved * moment).sum(axis=-2), 0)
    return np.asarray(number * np.log(spread / np.maximum(number, 1e-3) + _NOISE**2))


def _judge_loss(maps: MapStep, series: Signal, rules: ChangeRules) -> Found:
    """Return losses: the step down that explains most, within the time that the maps leave open."""
    green = series.only(_GREENNESS)
    fall = -fit_steps(green).step
    allowed = _allowed(series, maps, rules.least_looks)
    remaining = np.where(allowed & (fall > 0), fit_steps(series.only(_OF_LOSS)).remaining, np.inf)
    best = remaining.argmin(axis=0)
    explained, step = 1 - _at(remaining, best), _at(fall, best)
    sure = (explained >= rules.explained) & (step >= rules.step) & _stays_down(green, best, step, rules.least_looks)
    with np.errstate(divide="ignore", invalid="ignore"):
        worse = series.days_with_looks()[-1] * np.log(remaining / _at(remaining, best))
    confidence = np.sqrt(np.clip(maps.size / 0.5, 0, 1) * np.clip(explained / 0.5, 0, 1))
    when = _when(series, best, np.where(np.isfinite(remaining), worse, np.inf) <= _PROFILE)
    return Found(*when, np.where(sure, confidence, 0).astype(np.float32))


def _judge_gain(maps: MapStep, series: Signal, rules: ChangeRules) -> Found:
    """Return gains: young trees where the looks have settled, and canopy that has closed where the maps say so."""
    closed = (maps.size >= rules.fall) & (maps.before <= rules.open) & (maps.after >= rules.canopy)
    likelier = fit_segments(series.only(_OF_GAIN))
    lasting = series.days[-1] - series.days >= rules.settled_days
    # trees were there before they looked like it
    since = np.full(maps.first.shape, series.days[0]).astype("int64").astype("datetime64[D]")
    allowed = _allowed(series, replace(maps, first=since), 2 * rules.least_looks) & lasting[:, None]
    likelier = np.where(allowed, likelier, -np.inf)
    best = likelier.argmax(axis=0)
    evidence = _at(likelier, best)
    was_open = (maps.before <= rules.open) & (maps.after >= 2 * maps.before)
    settled = was_open & (evidence >= rules.settled) & _never_bare(series, best, rules.never_bare)
    worse = 2 * (np.where(np.isfinite(evidence), evidence, 0) - likelier)
    of_looks = _when(series, best, worse <= _PROFILE)
    of_maps = (maps.first + (maps.last - maps.first) // 2, maps.first, maps.last)
    date, earliest, latest = (np.where(settled, *pair) for pair in zip(of_looks, of_maps, strict=True))
    from_looks = np.sqrt(np.clip(maps.size / 0.25, 0, 1) * np.clip(np.where(settled, evidence, 0) / 30, 0, 1))
    # closed canopy has one witness
    confidence = np.where(settled, from_looks, np.where(closed, np.clip(maps.size / 2, 0, 0.5), 0))
    return Found(date, earliest, latest, confidence.astype(np.float32))


def _allowed(series: Signal, maps: MapStep, least: int) -> np.ndarray:
    """Return after which looks a break may be: clear days enough on either side, and within what the maps leave open."""
    number = series.days_with_looks()
    looked = series.new_day & (number >= least) & (number[-1] - number >= least)
    first, last = (_day_numbers(days) for days in (maps.first, maps.last))
    return np.asarray(looked & (series.days[:, None] >= first) & (series.days[:, None] <= last))


def _stays_down(series: Signal, best: np.ndarray, step: np.ndarray, least: int) -> np.ndarray:
    """Return where most days after a break, and `least` at the least, lie nearer to the lower level than to the upper.

    The upper level is the season of the looks before, moved by what the looks after share with it.
    """
    season = season_of(series.days)
    number = np.arange(len(season))[:, None]
    after = series.new_day & (number > best)
    lowered = series.values + np.where(number > best, step, 0)[:, None]
    weighted = series.weight[:, None] * lowered
    gram = np.einsum("tn,tp,tq->npq", series.weight, season, season) + _penalty(season.shape[1])
    solved = np.linalg.solve(gram, np.einsum("tcn,tp->npc", weighted, season))
    excess = (series.values - np.einsum("tp,npc->tcn", season, solved)).mean(axis=1)
    down = (after & (excess < -step / 2)).sum(axis=0)
    return np.asarray((down >= least) & (2 * down > after.sum(axis=0)))


def _never_bare(series: Signal, best: np.ndarray, least: float) -> np.ndarray:
    """Return where nine in ten looks after a break have an NDVI of at least `least`."""
    after = series.new_day & (np.arange(len(series.days))[:, None] > best)
    green = (after & (series.values[:, series.names.index("ndvi")] >= least)).sum(axis=0)
    return np.asarray(green >= 0.9 * after.sum(axis=0))


def _when(series: Signal, best: np.ndarray, likely: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return date, earliest and latest day of a break.

    The date lies midway between the look that the likeliest break comes after and the next; the earliest day is that of
    the first look after which a break is `likely`, the latest that of the look which follows the last such one.
    """
    first = likely.argmax(axis=0)
    last = len(likely) - 1 - likely[::-1].argmax(axis=0)
    days = series.days.astype(np.int64)
    middle = (days[best] + days[_following(series, best)]) // 2
    return tuple(found.astype("datetime64[D]") for found in (middle, days[first], days[_following(series, last)]))  # type: ignore[return-value]


def _following(series: Signal, look: np.ndarray) -> np.ndarray:
    """Return the number of the next look at each pixel; the last of all where there is none."""
    later = series.new_day & (np.arange(len(series.days))[:, None] > look)
    return np.where(later.any(axis=0), later.argmax(axis=0), len(series.days) - 1)


def _day_numbers(days: np.ndarray) -> np.ndarray:
    return np.asarray(days.astype("datetime64[D]").astype(np.int64), dtype=np.float64)


def _at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return one value of each pixel: (pixel,) of (time, pixel)."""
    return np.asarray(np.take_along_axis(values, index[None], axis=0)[0])


def in_patches(kind: np.ndarray, least_pixels: int) -> np.ndarray:
    """Return which changed pixels lie in patches of one kind, diagonals joined, of at least so many pixels: (y, x) bool."""
    from scipy import ndimage

    kept = np.zeros(kind.shape, dtype=bool)
    for value in (LOSS, GAIN):
        patches, _ = ndimage.label(kind == value, structure=np.ones((3, 3)))
        kept |= (np.bincount(patches.ravel()) >= least_pixels)[patches] & (patches > 0)
    return kept
