"""The noise of SDSS frames: what their own calibration, sky and detectors say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BANDS = "ugriz"
_GAIN = np.array(
    [
        [1.62, 3.32, 4.71, 5.165, 4.745],
        [1.595, 3.855, 4.6, 6.565, 5.155],
        [1.59, 3.845, 4.72, 4.86, 4.885],
        [1.6, 3.995, 4.76, 4.885, 4.775],
        [1.47, 4.05, 4.725, 4.64, 3.48],
        [2.17, 4.035, 4.895, 4.76, 4.69],
    ]
)
_DARK_VARIANCE = np.array(
    [
        [9.61, 15.6025, 1.8225, 7.84, 0.81],
        [12.6025, 1.44, 1.00, 5.76, 1.0],
        [8.7025, 1.3225, 1.3225, 4.6225, 1.0],
        [12.6025, 1.96, 1.3225, 6.25, 9.61],
        [9.3025, 1.1025, 0.81, 7.84, 1.8225],
        [7.0225, 1.8225, 0.9025, 5.0625, 1.21],
    ]
)
_LATER_DARK_VARIANCE = {(2, "i"): 6.25, (4, "i"): 7.5625, (4, "z"): 12.6025, (5, "z"): 2.1025}
"""From run 1500 on, by column of cameras and band."""


def detector(band: str, *, camcol: int, run: int) -> tuple[float, float]:
    """Return a detector's gain (electrons per count) and dark variance (counts squared).

    References
    ----------
    SDSS data model, file type frame, tables "Gain of each CCD" and "Dark variance of each CCD".
    """
    row, column = camcol - 1, _BANDS.index(band)
    gain = 1.825 if (band == "u" and camcol == 2 and run > 1100) else float(_GAIN[row, column])
    later = _LATER_DARK_VARIANCE.get((camcol, band)) if run > 1500 else None
    return gain, float(_DARK_VARIANCE[row, column]) if later is None else later


def frame_variance(
    pixels: NDArray,
    *,
    calibration: NDArray,
    sky: NDArray,
    sky_columns: NDArray,
    sky_rows: NDArray,
    band: str,
    camcol: int,
    run: int,
) -> NDArray[np.float64]:
    """Return the variance of a frame, nanomaggies squared.

    Parameters
    ----------
    pixels : ndarray, shape (y, x), nanomaggies
        Free of sky.
    calibration : ndarray, shape (x,), nanomaggies per count
    sky : ndarray, shape (rows, columns), counts
        Coarse; read between its points at `sky_columns` (x,) and `sky_rows` (y,).

    References
    ----------
    SDSS data model, file type frame, section on the error of a pixel.
    """
    from scipy.ndimage import map_coordinates

    rows, columns = pixels.shape
    y, x = np.meshgrid(sky_rows[:rows], sky_columns[:columns], indexing="ij")
    counts = pixels / calibration[:columns] + map_coordinates(sky, [y, x], order=1, mode="nearest")
    gain, dark = detector(band, camcol=camcol, run=run)
    return (np.maximum(counts, 0.0) / gain + dark) * calibration[:columns] ** 2
