"""How forecasts are put to the test: what each method is given, what is asked of it, and which answers count.

At every origin the context is what lies strictly before it; targets lie on or after it, before origin + horizon. Model
and floors get the same looks of the same pixels, and a target counts only where every one of them has an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from models.floors import FLOORS, YEAR_DAYS, has_history
from models.indices import available, compute
from tasks.earth.forecasting import Forecaster
from tasks.errors import ConfigurationError

MODEL, WINDOW_QUANTILES = "model", "window_quantiles"
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of the empirical quantiles where no model says which."""
HAZE_FACTOR, HAZE_OFFSET = 2.5 * 1.4826, 0.01
"""A target is screened where its B02 is at most median + factor x MAD + offset of the pixel's looks before."""


@dataclass(frozen=True)
class ScoringRule:
    """When forecasts are made, how far they reach, and which looks they may use.

    Parameters
    ----------
    origins : tuple of datetime64[D]
        Looks before an origin are known, those from it on are not.
    horizon_days : int
        Targets lie before origin + horizon.
    bin_days : int
        Errors and coverage are given by bins of so many days.
    context : str
        ``valid``: clear and away from what is masked, as the cube derives it and products use it. ``clear``: the looks
        that are targets too, next to clouds or not.
    """

    origins: tuple[np.datetime64, ...]
    horizon_days: int = 150
    bin_days: int = 30
    context: Literal["valid", "clear"] = "valid"

    @property
    def bins(self) -> int:
        """Return how many bins the horizon has."""
        return -(-self.horizon_days // self.bin_days)


@dataclass(frozen=True)
class PixelSeries:
    """Looks at some pixels, past and future.

    Parameters
    ----------
    values : mapping of str to ndarray, shape (time, pixel)
        What is scored: indices by name. NaN where a band has no data.
    valid, clear : ndarray, shape (time, pixel), bool
        Looks that a forecast may use, and looks that it is scored on.
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.
    blue : ndarray, shape (time, pixel), optional
        B02, reflectance 0 to 1; without it nothing is screened for haze.
    reflectance : ndarray, shape (time, band, pixel), float32, optional
        0 to 1, NaN = no data, for forecasters that take bands.
    bands : tuple of str
        What `reflectance` holds.
    """

    values: Mapping[str, np.ndarray]
    valid: np.ndarray
    clear: np.ndarray
    dates: np.ndarray
    blue: np.ndarray | None = None
    reflectance: np.ndarray | None = None
    bands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Past:
    """What a method is given: looks before the origin, copied, NaN where they may not be used.

    Shapes are those of `PixelSeries`.
    """

    values: Mapping[str, np.ndarray]
    valid: np.ndarray
    dates: np.ndarray
    reflectance: np.ndarray | None = None
    bands: tuple[str, ...] = ()


Predict = Callable[[Past, np.ndarray], Mapping[str, np.ndarray]]
"""From the past and target dates to quantiles of each index: (target, quantile, pixel)."""


@dataclass(frozen=True)
class Judged:
    """All answers about one index from one origin, beside the truth.

    Parameters
    ----------
    index : str
        Name.
    origin : datetime64[D]
        Of all these forecasts.
    targets : ndarray, shape (target,), datetime64[D]
        Dates; two looks of one day stand twice.
    pixels : ndarray, shape (pixel,), int
        Which pixels of the series these are.
    past : Past
        What the methods were given.
    truth : ndarray, shape (target, pixel)
        What was seen.
    counted, unanswered, screened : ndarray, shape (target, pixel), bool
        Targets that count; that would, had the model given a number; that count and are free of haze.
    answers : mapping of str to ndarray, shape (target, pixel)
        By method.
    quantiles : mapping of str to ndarray, shape (target, quantile, pixel)
        Of the model and of the looks in the window.
    """

    index: str
    origin: np.datetime64
    targets: np.ndarray
    pixels: np.ndarray
    past: Past
    truth: np.ndarray
    counted: np.ndarray
    unanswered: np.ndarray
    screened: np.ndarray | None
    answers: Mapping[str, np.ndarray]
    quantiles: Mapping[str, np.ndarray]


def series_of(
    reflectance: np.ndarray, bands: tuple[str, ...], *, valid: np.ndarray, clear: np.ndarray, dates: np.ndarray
) -> PixelSeries:
    """Return the series of every index that the bands allow.

    Parameters
    ----------
    reflectance : ndarray, shape (time, band, pixel), float32
        0 to 1, NaN = no data.
    bands : tuple of str
        Of the second axis.
    valid, clear : ndarray, shape (time, pixel), bool
        Looks that a forecast may use, and looks that it is scored on.
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.

    Raises
    ------
    ConfigurationError
        Where the bands make no index.
    """
    names = available(bands)
    if not names:
        raise ConfigurationError(f"bands {', '.join(bands)} make no index to score; NDVI wants B04 and B08")
    by_band = {band: reflectance[:, number] for number, band in enumerate(bands)}
    values = {name: compute(name, by_band) for name in names}
    return PixelSeries(values, valid, clear, dates, by_band.get("B02"), reflectance, bands)


def asking(forecaster: Forecaster) -> Predict:
    """Return a forecaster as what `judge` asks."""

    def predict(past: Past, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        assert past.reflectance is not None
        return forecaster.forecast(past.reflectance, past.valid, past.dates, targets, bands=past.bands).indices

    return predict


def judge(
    series: PixelSeries, predict: Predict | None, rule: ScoringRule, *, quantiles: tuple[float, ...] = QUANTILES
) -> Iterator[Judged]:
    """Yield all answers beside the truth: for each origin that has targets, one entry per index.

    Parameters
    ----------
    series : PixelSeries
        Past and future; nothing from the origin on reaches `predict` or a floor.
    predict : callable or None
        The model; None for the floors alone.
    rule : ScoringRule
        Origins and horizon.
    quantiles : tuple of float
        Levels that `predict` gives.

    Raises
    ------
    ConfigurationError
        Where the model leaves out an index, or gives another shape.
    """
    for origin in rule.origins:
        end = origin.astype("datetime64[D]") + np.timedelta64(rule.horizon_days, "D")
        before, until = np.searchsorted(series.dates, [origin, end])
        allowed = (series.valid if rule.context == "valid" else series.clear)[:before]
        pixels = np.flatnonzero(has_history(allowed, series.dates[:before]) & series.clear[before:until].any(axis=0))
        if pixels.size:
            past = _past(series, allowed, pixels)
            yield from _judge_origin((series, past, predict), origin, slice(before, until), pixels, levels=quantiles)


def window_quantiles(past: Past, index: str, targets: np.ndarray, *, levels: tuple[float, ...]) -> np.ndarray:
    """Return quantiles of the looks within 30 days of the target's day of year, whatever the year.

    Where a pixel has none, within 60 days, then of all looks. Between looks they are linear, as numpy's are.

    Returns
    -------
    ndarray, shape (target, quantile, pixel), float64
        NaN for pixels without a look.
    """
    values, days = past.values[index], past.dates.astype("datetime64[D]").astype(float)
    out = np.full((len(targets), len(levels), values.shape[1]), np.nan)
    for number, target in enumerate(targets.astype("datetime64[D]").astype(float)):
        apart = np.abs(days - target) % YEAR_DAYS
        apart = np.minimum(apart, YEAR_DAYS - apart)
        for window in (30, 60, np.inf):
            missing = np.flatnonzero(np.isnan(out[number, 0]))
            if not missing.size:
                break
            out[number][:, missing] = masked_quantiles(values[apart <= window][:, missing], levels)
    return out


def masked_quantiles(values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Return quantiles along the first axis of what is not NaN: (quantile, pixel), NaN where there is nothing.

    Examples
    --------
    >>> masked_quantiles(np.array([[3.0], [np.nan], [1.0]]), (0.5, 0.75))
    array([[2. ],
           [2.5]])
    """
    if not len(values):
        return np.full((len(levels), values.shape[1]), np.nan)
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(values).sum(axis=0)
    place = np.outer(levels, np.maximum(count - 1, 0))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    lower, upper = np.take_along_axis(ordered, low, axis=0), np.take_along_axis(ordered, high, axis=0)
    return np.asarray(lower + (upper - lower) * (place - low))


def haze_limit(blue: np.ndarray) -> np.ndarray:
    """Return up to which B02 a look of each pixel counts as free of haze.

    Parameters
    ----------
    blue : ndarray, shape (time, pixel)
        B02 of the pixel's looks before the origin, reflectance 0 to 1, NaN where they may not be used.

    Returns
    -------
    ndarray, shape (pixel,)
        Median + 2.5 x 1.4826 x MAD + 0.01.
    """
    median = masked_quantiles(blue, (0.5,))
    spread = masked_quantiles(np.abs(blue - median), (0.5,))
    return np.asarray(median[0] + HAZE_FACTOR * spread[0] + HAZE_OFFSET)


def _past(series: PixelSeries, allowed: np.ndarray, pixels: np.ndarray) -> Past:
    """Copy what may be used, so that no view of the future is handed out."""
    before, valid = len(allowed), allowed[:, pixels]
    values = {name: np.where(valid, array[:before, pixels], np.nan) for name, array in series.values.items()}
    reflectance = None
    if series.reflectance is not None:
        reflectance = np.where(valid[:, None], series.reflectance[:before, :, pixels], np.float32(np.nan))
    return Past(values, valid, series.dates[:before].copy(), reflectance, series.bands)


def _judge_origin(
    given: tuple[PixelSeries, Past, Predict | None],
    origin: np.datetime64,
    ahead: slice,
    pixels: np.ndarray,
    *,
    levels: tuple[float, ...],
) -> Iterator[Judged]:
    series, past, predict = given
    days, again = np.unique(series.dates[ahead], return_inverse=True)
    predicted = {} if predict is None else predict(past, days.copy())
    free = _free_of_haze(series, past, ahead, pixels)
    for name in series.values:
        truth, clear = series.values[name][ahead][:, pixels], series.clear[ahead][:, pixels]
        quantiles = {WINDOW_QUANTILES: window_quantiles(past, name, days, levels=levels)[again]}
        answers = _floors(past, name, days, again)
        known = clear & np.isfinite(truth)
        for answer in answers.values():
            known = known & np.isfinite(answer)
        counted = known
        if predict is not None:
            found = _checked(predicted, name, (len(days), len(levels), pixels.size))[again]
            quantiles = {MODEL: found, **quantiles}
            answers = {MODEL: found[:, levels.index(0.5)], **answers}
            counted = known & np.isfinite(found).all(axis=1)
        screened = None if free is None else counted & free
        yield Judged(
            name,
            origin,
            days[again],
            pixels,
            past,
            truth,
            counted,
            known & ~counted,
            screened,
            answers,
            quantiles,
        )


def _floors(past: Past, name: str, days: np.ndarray, again: np.ndarray) -> dict[str, np.ndarray]:
    # a look may be valid without this index's bands
    valid = past.valid & np.isfinite(past.values[name])
    return {method: floor(past.values[name], valid, past.dates, days)[again] for method, floor in FLOORS.items()}


def _free_of_haze(series: PixelSeries, past: Past, ahead: slice, pixels: np.ndarray) -> np.ndarray | None:
    if series.blue is None:
        return None
    known = np.where(past.valid, series.blue[: len(past.valid), pixels], np.nan)
    return np.asarray(series.blue[ahead][:, pixels] <= haze_limit(known))


def _checked(predicted: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in predicted:
        raise ConfigurationError(f"the model gives no {name}, only {', '.join(predicted) or 'nothing'}")
    if predicted[name].shape != shape:
        raise ConfigurationError(
            f"the model gives {name} of shape {predicted[name].shape}; (target, quantile, pixel) is {shape} here"
        )
    return predicted[name]


def at_pixels(series: PixelSeries, keep: np.ndarray) -> PixelSeries:
    """Return the series of chosen pixels only, (pixel,) bool or numbers."""
    return replace(
        series,
        values={name: array[:, keep] for name, array in series.values.items()},
        valid=series.valid[:, keep],
        clear=series.clear[:, keep],
        blue=None if series.blue is None else series.blue[:, keep],
        reflectance=None if series.reflectance is None else series.reflectance[:, :, keep],
    )
