"""The floors that every forecast is printed beside: what a pixel's own past says without any learning.

All take the valid looks of each pixel before the origin and give its value on later dates. Values may be reflectance or
an index; looks that are not valid may hold anything. Defined in this one place, since changing the mask or the window
moves the scores by more than a tenth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Floor = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

YEAR_DAYS = 365.25
MIN_LOOKS = 15
MIN_SPAN_DAYS = 380


def phase_folded(values: np.ndarray, valid: np.ndarray, dates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean of looks within 15 days of the target's day of year, whatever the year.

    Where there are none, within 30, then 60 days, then of all looks.

    Parameters
    ----------
    values : ndarray, shape (time, pixel), float
        Looks before the origin.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
    targets : ndarray, shape (target,), datetime64[D]

    Returns
    -------
    ndarray, shape (target, pixel), float64
        NaN for pixels without a valid look.

    Examples
    --------
    >>> dates = np.array(["2020-06-01", "2020-12-01"], "M8[D]")
    >>> values = np.array([[0.8], [0.2]])
    >>> phase_folded(values, values > 0, dates, np.array(["2021-06-05"], "M8[D]"))
    array([[0.8]])
    """
    total = np.where(valid, values, 0.0).astype(float)

    def mean_of(chosen: np.ndarray) -> np.ndarray:
        count = (valid & chosen[:, None]).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total[chosen].sum(axis=0) / count)

    return _widening(mean_of, valid, dates, targets, windows=(15, 30, 60))


def window_median(values: np.ndarray, valid: np.ndarray, dates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the median of looks within 30 days of the target's day of year, whatever the year.

    Where there are none, within 60 days, then of all looks.

    Parameters
    ----------
    values : ndarray, shape (time, pixel), float
        Looks before the origin.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
    targets : ndarray, shape (target,), datetime64[D]

    Returns
    -------
    ndarray, shape (target, pixel), float64
        NaN for pixels without a valid look.
    """
    # sorted once with what is not valid at the end, a median is the middle of the first `count`
    seen = np.where(valid, values, np.inf).astype(float)

    def median_of(chosen: np.ndarray) -> np.ndarray:
        ordered = np.sort(seen[chosen], axis=0)
        count = (valid & chosen[:, None]).sum(axis=0)
        if not len(ordered):
            return np.full(values.shape[1], np.nan)
        low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, len(ordered) - 1)
        pixel = np.arange(values.shape[1])
        middle = (ordered[low, pixel] + ordered[high, pixel]) / 2
        return np.where(count > 0, middle, np.nan)

    return _widening(median_of, valid, dates, targets, windows=(30, 60))


def last_year(values: np.ndarray, valid: np.ndarray, dates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the value 365 days before the target, interpolated between the looks on either side.

    Before the first look and after the last it is the value of that look.

    Parameters
    ----------
    values : ndarray, shape (time, pixel), float
        Looks before the origin.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.
    targets : ndarray, shape (target,), datetime64[D]

    Returns
    -------
    ndarray, shape (target, pixel), float64
        NaN for pixels without a valid look.
    """
    day, wanted = _days(dates), _days(targets) - 365.0
    number = np.arange(len(day))[:, None]
    before = np.maximum.accumulate(np.where(valid, number, -1), axis=0)
    after = np.minimum.accumulate(np.where(valid, number, len(day))[::-1], axis=0)[::-1]
    out = np.full((len(wanted), values.shape[1]), np.nan)
    for k, when in enumerate(wanted):
        place = int(np.searchsorted(day, when, side="right")) - 1
        left = before[place] if place >= 0 else np.full(values.shape[1], -1)
        right = after[place + 1] if place + 1 < len(day) else np.full(values.shape[1], len(day))
        out[k] = _between(values, day, (left, right), when)
    return out


def harmonic(
    values: np.ndarray, valid: np.ndarray, dates: np.ndarray, targets: np.ndarray, *, ridge: float = 0.1
) -> np.ndarray:
    """Return the value of a mean and two annual harmonics fitted to the looks with a ridge on the harmonics.

    Parameters
    ----------
    values : ndarray, shape (time, pixel), float
        Looks before the origin.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
    targets : ndarray, shape (target,), datetime64[D]
    ridge : float
        Added to the diagonal of the normal equations, but not for the mean.

    Returns
    -------
    ndarray, shape (target, pixel), float64
        NaN for pixels without a valid look.
    """
    design, wanted = _harmonics(dates), _harmonics(targets)
    weight = valid.astype(float)
    penalty = ridge * np.diag([0.0, 1.0, 1.0, 1.0, 1.0])
    normal = np.einsum("ti,tp,tj->pij", design, weight, design, optimize=True) + penalty
    right = np.einsum("ti,tp->pi", design, np.where(valid, values, 0.0).astype(float))
    seen = weight.sum(axis=0) > 0
    normal[~seen] = np.eye(5)
    coefficients = np.linalg.solve(normal, right[..., None])[..., 0]
    return np.asarray(np.where(seen, wanted @ coefficients.T, np.nan))


def persistence(values: np.ndarray, valid: np.ndarray, dates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the last valid look for every target.

    Parameters
    ----------
    values : ndarray, shape (time, pixel), float
        Looks before the origin.
    valid : ndarray, shape (time, pixel), bool
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.
    targets : ndarray, shape (target,), datetime64[D]

    Returns
    -------
    ndarray, shape (target, pixel), float64
        NaN for pixels without a valid look.
    """
    last = len(dates) - 1 - np.argmax(valid[::-1], axis=0)
    value = np.take_along_axis(values.astype(float), last[None], axis=0)[0]
    return np.repeat(np.where(valid.any(axis=0), value, np.nan)[None], len(targets), axis=0)


FLOORS: dict[str, Floor] = {
    "phase_folded": phase_folded,
    "window_median": window_median,
    "last_year": last_year,
    "harmonic": harmonic,
    "persistence": persistence,
}
"""Every floor by the name that reports use."""


def has_history(valid: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """Return which pixels count: at least 15 looks that span at least 380 days.

    Parameters
    ----------
    valid : ndarray, shape (time, pixel), bool
        Looks before the origin.
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.

    Returns
    -------
    ndarray, shape (pixel,), bool
    """
    if not len(dates):
        return np.zeros(valid.shape[1], dtype=bool)
    day = _days(dates)
    first, last = day[np.argmax(valid, axis=0)], day[len(day) - 1 - np.argmax(valid[::-1], axis=0)]
    return np.asarray((valid.sum(axis=0) >= MIN_LOOKS) & (last - first >= MIN_SPAN_DAYS))


def _days(dates: np.ndarray) -> np.ndarray:
    """Return days since 1970-01-01."""
    return np.asarray(dates).astype("datetime64[D]").astype(float)


def _widening(
    summarise: Callable[[np.ndarray], np.ndarray],
    valid: np.ndarray,
    dates: np.ndarray,
    targets: np.ndarray,
    *,
    windows: tuple[int, ...],
) -> np.ndarray:
    """Summarise the looks near each target's day of year, within the first window that holds any, for each pixel."""
    out = np.full((len(targets), valid.shape[1]), np.nan)
    for k, target in enumerate(_days(targets)):
        apart = np.abs(_days(dates) - target) % YEAR_DAYS
        apart = np.minimum(apart, YEAR_DAYS - apart)
        for window in (*windows, np.inf):
            missing = np.isnan(out[k])
            if not missing.any():
                break
            out[k, missing] = summarise(apart <= window)[missing]
    return out


def _between(values: np.ndarray, day: np.ndarray, sides: tuple[np.ndarray, np.ndarray], when: float) -> np.ndarray:
    """Interpolate each pixel between its look at or before a day and its look after it."""
    left, right = sides
    pixel = np.arange(values.shape[1])
    has_left, has_right = left >= 0, right < len(day)
    i, j = np.where(has_left, left, right % len(day)), np.where(has_right, right, left)
    gap = day[j] - day[i]
    part = np.where(gap > 0, (when - day[i]) / np.where(gap > 0, gap, 1.0), 0.0)
    first, second = values[i, pixel].astype(float), values[j, pixel].astype(float)
    return np.where(has_left | has_right, first + (second - first) * part, np.nan)


def _harmonics(dates: np.ndarray) -> np.ndarray:
    """Return one, and cosine and sine of one and of two turns a year, shape (time, 5)."""
    angle = 2 * np.pi * _days(dates) / YEAR_DAYS
    return np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], axis=1)
