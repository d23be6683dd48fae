"""What one year looks like at a pixel, in a few hundred numbers: statistics of an irregular, gappy series.

Percentiles, seasonal medians and a weighted harmonic fit of every band and index, over the looks that are valid.
Numpy only; pixels are independent, so a region cut in any way gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

PERCENTILES = (5, 10, 25, 50, 75, 90, 95)
SEASONS = {"winter": (12, 1, 2), "spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11)}
HARMONICS = 2
DAYS_PER_YEAR = 365.25

_RIDGE = 1.0  # in looks: a harmonic that fewer looks than this support is held near zero
_HAZE_SCALE = 0.05  # reflectance: a look whose bluest band stands this far above its pixel's clear level counts half
_WORKING_BYTES = 2 * 2**20  # of one array of one chunk of one thread: cache decides, not memory


@dataclass(frozen=True)
class _Index:
    name: str
    bands: tuple[tuple[str, ...], ...]  # for each argument, the bands that will do, best first
    formula: Callable[..., np.ndarray]


def _normalised_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip((a - b) / np.maximum(a + b, 1e-3), -1, 1))


def _evi2(nir: np.ndarray, red: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(2.5 * (nir - red) / np.maximum(nir + 2.4 * red + 1, 0.1), -1, 2.5))


_WIDE_NIR, _NARROW_NIR = ("B08", "B8A"), ("B8A", "B08")
_INDICES = (
    _Index("ndvi", (_WIDE_NIR, ("B04",)), _normalised_difference),
    _Index("evi2", (_WIDE_NIR, ("B04",)), _evi2),
    _Index("ndwi", (("B03",), _WIDE_NIR), _normalised_difference),
    _Index("ndmi", (_NARROW_NIR, ("B11",)), _normalised_difference),
    _Index("nbr", (_NARROW_NIR, ("B12",)), _normalised_difference),
    _Index("ndre", (_NARROW_NIR, ("B05",)), _normalised_difference),
)
_BLUEST = ("B02", "B03", "B04")


def feature_names(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of `temporal_statistics`, e.g. ``"B04_p50"`` or ``"ndvi_cos1"``.

    Parameters
    ----------
    bands : sequence of str
        Sentinel-2 band names in the order of the series.

    Examples
    --------
    >>> len(feature_names(["B04", "B08"])), feature_names(["B04", "B08"])[-1]
    (81, 'looks_autumn')
    """
    variables = [*bands, *(index.name for index, _ in _indices_of(bands))]
    of_variable = [f"p{q}" for q in PERCENTILES] + list(SEASONS) + ["mean"]
    for k in range(1, HARMONICS + 1):
        of_variable += [f"cos{k}", f"sin{k}"]
    of_variable += [f"amplitude{k}" for k in range(1, HARMONICS + 1)] + ["residual"]
    counts = ["looks", *(f"looks_{season}" for season in SEASONS)]
    return tuple(f"{variable}_{statistic}" for statistic in of_variable for variable in variables) + tuple(counts)


def temporal_statistics(
    reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, bands: Sequence[str], *, jobs: int = 1
) -> np.ndarray:
    """Return the statistics of each pixel's valid looks.

    A look counts where it is valid and every band is finite. Percentiles and seasonal medians resist haze by
    themselves; the harmonic fit (mean and two annual harmonics, ridge) weighs a look less the further its bluest
    band stands above the pixel's clear level. A season without a look takes the median of all looks; a pixel without
    any look is 0 throughout, ``looks`` included, so no feature is ever NaN.

    Parameters
    ----------
    reflectance : ndarray, shape (T, B, N), float32
        Surface reflectance 0-1, NaN where missing.
    valid : ndarray, shape (T, N), bool
        Where a look is clear.
    dates : ndarray, shape (T,), datetime64
        Days, in any order.
    bands : sequence of str
        Names of the B bands.
    jobs : int
        Threads; the result does not depend on it.

    Returns
    -------
    ndarray, shape (N, F), float32
        Columns as `feature_names` names them.

    Raises
    ------
    ValueError
        Where the shapes contradict each other.
    """
    _check_shapes(reflectance, valid, dates, bands)
    calendar = _Calendar.of(dates)
    features = np.zeros((reflectance.shape[2], len(feature_names(bands))), np.float32)
    if not len(dates):
        return features

    def fill(pixels: slice) -> None:
        features[pixels] = _statistics(reflectance[:, :, pixels], valid[:, pixels], calendar, bands)

    chunks = _chunks(reflectance.shape, len(bands) + len(_indices_of(bands)))
    if jobs == 1:
        for chunk in chunks:
            fill(chunk)
        return features
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(fill, chunks))
    return features


@dataclass(frozen=True)
class _Calendar:
    """What the dates alone decide: design matrix (T, 1 + 2 HARMONICS) and the looks of each season."""

    design: np.ndarray
    seasons: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, dates: np.ndarray) -> _Calendar:
        days = dates.astype("datetime64[D]")
        month = days.astype("datetime64[M]").astype(int) % 12 + 1
        day_of_year = (days - days.astype("datetime64[Y]")).astype(int)
        angle = 2 * np.pi * day_of_year / DAYS_PER_YEAR
        columns = [np.ones_like(angle)]
        for k in range(1, HARMONICS + 1):
            columns += [np.cos(k * angle), np.sin(k * angle)]
        seasons = tuple(np.flatnonzero(np.isin(month, months)) for months in SEASONS.values())
        return cls(np.stack(columns, axis=1).astype(np.float32), seasons)


def _check_shapes(reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, bands: Sequence[str]) -> None:
    if reflectance.ndim != 3:
        raise ValueError(f"reflectance must be (time, band, pixel), not of shape {reflectance.shape}")
    times, n_bands, pixels = reflectance.shape
    if valid.shape != (times, pixels) or dates.shape != (times,) or n_bands != len(bands):
        raise ValueError(
            f"reflectance {reflectance.shape}, valid {valid.shape}, dates {dates.shape} and "
            f"{len(bands)} bands do not fit together"
        )


def _chunks(shape: tuple[int, ...], variables: int) -> Iterator[slice]:
    times, _, pixels = shape
    size = max(_WORKING_BYTES // (4 * max(times, 1) * variables), 1)
    return (slice(start, min(start + size, pixels)) for start in range(0, pixels, size))


def _indices_of(bands: Sequence[str]) -> list[tuple[_Index, tuple[int, ...]]]:
    """Return the indices that these bands allow, with the positions of their arguments."""
    found = []
    for index in _INDICES:
        chosen = [next((name for name in names if name in bands), None) for names in index.bands]
        if all(name is not None for name in chosen):
            found.append((index, tuple(list(bands).index(str(name)) for name in chosen)))
    return found


def _statistics(reflectance: np.ndarray, valid: np.ndarray, calendar: _Calendar, bands: Sequence[str]) -> np.ndarray:
    values = np.ascontiguousarray(reflectance.transpose(1, 2, 0), dtype=np.float32)  # (B, n, T)
    look = valid.T & np.isfinite(values).all(axis=0)  # (n, T)
    variables = np.concatenate([values, _index_values(values, bands)])  # (V, n, T)
    np.copyto(variables, np.nan, where=~look)
    counts = look.sum(axis=1)
    ordered = np.sort(variables, axis=-1)  # NaN goes last
    percentiles = [_quantile(ordered, counts, q / 100) for q in PERCENTILES]
    seasonal, season_counts = _seasonal_medians(variables, look, calendar, percentiles[PERCENTILES.index(50)])
    weight = _haze_weight(variables, ordered, look, bands)
    harmonic = _harmonics(np.where(look, variables, np.float32(0)), weight, calendar.design)
    features = np.concatenate([*percentiles, *seasonal, *harmonic, counts[None], np.stack(season_counts)])
    features[:, counts == 0] = 0
    return features.T


def _index_values(values: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    found = [index.formula(*(values[i] for i in positions)) for index, positions in _indices_of(bands)]
    return np.stack(found) if found else np.empty((0, *values.shape[1:]), np.float32)


def _quantile(ordered: np.ndarray, counts: np.ndarray, q: float) -> np.ndarray:
    """Return the linearly interpolated quantile (V, n) of the first `counts` of (V, n, T); garbage where 0."""
    position = np.maximum(counts - 1, 0) * np.float32(q)
    below = position.astype(int)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    rows = np.arange(ordered.shape[1])
    share = (position - below).astype(np.float32)
    low, high = ordered[:, rows, below], ordered[:, rows, above]
    return np.asarray(low + share * (high - low))


def _seasonal_medians(
    variables: np.ndarray, look: np.ndarray, calendar: _Calendar, overall: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    medians, counts = [], []
    for times in calendar.seasons:
        count = look[:, times].sum(axis=1)
        counts.append(count)
        if times.size == 0:
            medians.append(overall)
            continue
        median = _quantile(np.sort(variables[:, :, times], axis=-1), count, 0.5)
        medians.append(np.where(count > 0, median, overall))
    return medians, counts


def _haze_weight(variables: np.ndarray, ordered: np.ndarray, look: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return weights (n, T) in 0-1: haze lifts the bluest band first, so what stands above the clear level is hazy."""
    bluest = next((list(bands).index(name) for name in _BLUEST if name in bands), None)
    if bluest is None:
        return look.astype(np.float32)
    clear_level = _quantile(ordered[bluest : bluest + 1], look.sum(axis=1), 0.25)[0]
    excess = np.maximum(variables[bluest] - clear_level[:, None], 0) / _HAZE_SCALE
    return np.where(look, 1 / (1 + excess**2), 0).astype(np.float32)


def _harmonics(values: np.ndarray, weight: np.ndarray, design: np.ndarray) -> list[np.ndarray]:
    """Return mean, coefficients, amplitudes and residual RMS, each (V, n), of a weighted ridge fit.

    Products are stacked by pixel: BLAS then sees the same small shapes wherever a region was cut, and rounds alike.
    """
    series = values.transpose(1, 0, 2)  # (n, V, T)
    terms = design.shape[1]
    pairs = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    penalty = np.diag([1e-3] + [_RIDGE] * (terms - 1)).astype(np.float32)
    gram = (weight[:, None, :] @ pairs).reshape(-1, terms, terms) + penalty  # (n, P, P)
    moments = (series * weight[:, None, :]) @ design  # (n, V, P)
    coefficients = np.linalg.solve(gram, moments.transpose(0, 2, 1)).transpose(1, 2, 0)  # (P, V, n)
    amplitudes = [np.hypot(coefficients[2 * k - 1], coefficients[2 * k]) for k in range(1, HARMONICS + 1)]
    return [*coefficients, *amplitudes, _residual(series, weight, design, coefficients)]


def _residual(series: np.ndarray, weight: np.ndarray, design: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    misfit = series - np.ascontiguousarray(coefficients.transpose(2, 1, 0)) @ design.T  # (n, V, T)
    np.square(misfit, out=misfit)
    misfit *= weight[:, None, :]
    return np.asarray(np.sqrt(misfit.sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1e-6)[:, None]).T)
