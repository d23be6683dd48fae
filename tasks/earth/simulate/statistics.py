"""Statistics by which the generated archive is held against real series of forest.

The same functions run on both; what the real ones are, and which set calibrates what, is in ``docs/simulation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.floors import has_history, phase_folded, window_median
from tasks.earth.simulate.acquisitions import overpasses
from tasks.earth.simulate.phenology import BANDS
from tasks.earth.simulate.scene import World, simulate_date
from tasks.earth.simulate.truth import canopy_truth

HAZE_BLUE = 0.04
"""Forest is darker than this in B02 unless there is haze or thin cloud: the haze screen."""
HORIZON_DAYS = 150
FOREST_COVER_PERCENT = 70


@dataclass(frozen=True)
class ForestSeries:
    """Looks at forest pixels.

    Parameters
    ----------
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.
    clear : ndarray, shape (time, pixel), bool
        As the product's own mask says; not widened.
    ndvi : ndarray, shape (time, pixel)
    bands : dict of str to ndarray, shape (time, pixel)
        Reflectance of the bands there are; may be empty.
    """

    dates: np.ndarray
    clear: np.ndarray
    ndvi: np.ndarray
    bands: dict[str, np.ndarray]


def simulated_forest(world: World, *, broadleaved_only: bool) -> ForestSeries:
    """Return the series of forest pixels of a world, without writing a file.

    Parameters
    ----------
    world : World
    broadleaved_only : bool
        Leave conifers out, as in the Romanian series.

    Returns
    -------
    ForestSeries
        Pixels of woods, not hedges, under at least 70 % trees from start to end.
    """
    truth = canopy_truth(world)
    forest = (truth.tree_cover_start >= FOREST_COVER_PERCENT) & (truth.tree_cover_end >= FOREST_COVER_PERCENT)
    forest &= (truth.class_end == 1) if broadleaved_only else (truth.class_end > 0)
    forest &= world.landscape.stand[world.landscape.unit[0]]
    passes = overpasses(world.config)
    looks = [simulate_date(world, a) for a in passes]
    reflectance = np.stack([look.reflectance[:, forest] for look in looks], axis=1)
    clear = np.stack([np.isin(look.scl[forest], (4, 5, 6)) for look in looks])
    bands = dict(zip(BANDS, reflectance, strict=True))
    dates = np.array([a.when.date() for a in passes], "datetime64[D]")
    return ForestSeries(dates, clear, ndvi_of(bands["B08"], bands["B04"]), bands)


def ndvi_of(infrared: np.ndarray, red: np.ndarray) -> np.ndarray:
    """Return the normalised difference of two reflectances, 0 where their sum is next to nothing."""
    total = infrared + red
    return np.asarray(np.where(total > 1e-3, (infrared - red) / np.maximum(total, 1e-3), 0.0))


def forest_statistics(series: ForestSeries) -> dict[str, float]:
    """Return every statistic that the series allows.

    Parameters
    ----------
    series : ForestSeries

    Returns
    -------
    dict of str to float
        ``clear_share``; ``interval_mean_days`` and ``interval_median_days`` between clear looks at a pixel;
        ``ndvi_spread``, the median over dates of the standard deviation within the forest;
        ``phase_folded`` and ``window_median``, mean absolute NDVI error over 150 days from the first of each month;
        with B02, ``window_median_screened`` on looks without haze; ``correlation B02 B03`` and so on.
    """
    clear = series.clear
    gaps = np.concatenate([np.diff(series.dates[c].astype(int)) for c in clear.T if c.sum() > 1])
    found = {
        "clear_share": float(clear.mean()),
        "interval_mean_days": float(gaps.mean()),
        "interval_median_days": float(np.median(gaps)),
        "ndvi_spread": _spread(series),
        "phase_folded": _forecast_error(series, clear, phase_folded),
        "window_median": _forecast_error(series, clear, window_median),
    }
    if "B02" in series.bands:
        screened = clear & (series.bands["B02"] < HAZE_BLUE)
        found["window_median_screened"] = _forecast_error(series, screened, window_median)
    return found | correlations(series)


def correlations(series: ForestSeries) -> dict[str, float]:
    """Return the correlation of each pair of bands over clear looks.

    Parameters
    ----------
    series : ForestSeries

    Returns
    -------
    dict of str to float
    """
    names = list(series.bands)
    if len(names) < 2:
        return {}
    matrix = np.corrcoef([series.bands[n][series.clear] for n in names])
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    return {f"correlation {names[j]} {names[i]}": float(matrix[i, j]) for i, j in pairs}


def _spread(series: ForestSeries) -> float:
    """Return the usual spread of NDVI within the forest on one date."""
    half = [k for k, c in enumerate(series.clear) if c.mean() >= 0.5]
    return float(np.median([series.ndvi[k][series.clear[k]].std() for k in half]))


def _forecast_error(series: ForestSeries, valid: np.ndarray, floor: object) -> float:
    """Return the mean absolute error over 150 days from the first of each month, pixels without history left out."""
    total, count = 0.0, 0
    first, last = series.dates[0].astype("datetime64[M]"), series.dates[-1].astype("datetime64[M]")
    for origin in np.arange(first, last).astype("datetime64[D]"):
        past = series.dates < origin
        future = (series.dates >= origin) & (series.dates < origin + HORIZON_DAYS)
        pixels = has_history(valid[past], series.dates[past])
        if not pixels.any() or not future.any():
            continue
        ndvi, seen = series.ndvi[:, pixels], valid[:, pixels]
        forecast = floor(ndvi[past], seen[past], series.dates[past], series.dates[future])  # type: ignore[operator]
        error = np.abs(forecast - ndvi[future])[seen[future]]
        total, count = total + float(error.sum()), count + error.size
    return total / max(count, 1)
