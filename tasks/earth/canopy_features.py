"""What a canopy head reads of pixels: features of their series, laid out on the grid."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from models.canopy import CanopyNet
from models.earthpt import to_channels
from tasks.earth.mapping import to_physical
from tasks.earth.series_batches import RegionSeries, batches_of, device_of, tokens_at_once

LOOKS = 256
"""Newest valid looks of a pixel that are read."""
PIXELS_AT_ONCE = 4096
"""Of one thread; fixed, so that results do not depend on how many threads there are."""
FEEDERS = 4
"""Threads that prepare batches for one GPU, which holds as many of them at once."""


def pixel_features(model: CanopyNet, series: RegionSeries) -> np.ndarray:
    """Return the features of each pixel's series: (pixel, feature) float32, zeros for pixels without a valid look.

    Parameters
    ----------
    model : CanopyNet
        In eval mode; batches go to the device that it stands on.
    series : RegionSeries
        Of all pixels.
    """
    device = device_of(model)
    out = np.zeros((series.valid.shape[1], model.config.features), dtype=np.float32)
    with torch.inference_mode():
        for batch in batches_of(series, looks=LOOKS, tokens=tokens_at_once(device), asked=model.config.months):
            tokens = batch.tokens.to(device)
            found = model.features(to_channels(tokens.values), tokens.position[..., 0], tokens.valid)
            out[batch.pixels] = found.cpu().numpy()
    return out


def grid_features(
    model: CanopyNet, reflectance: np.ndarray, valid: np.ndarray, dates: np.ndarray, *, bands: Sequence[str]
) -> np.ndarray:
    """Return the features of a window of a cube, parts of it side by side: (feature, y, x) float32.

    Parameters
    ----------
    model : CanopyNet
        In eval mode.
    reflectance : ndarray, shape (time, band, y, x), uint16
        As cubes hold it, 0 = no data.
    valid : ndarray, shape (time, y, x), bool
    dates : ndarray, shape (time,), datetime64[D]
        Ascending.
    bands : sequence of str
        What the second axis of `reflectance` holds.
    """
    rows, columns = valid.shape[1:]
    times, count = reflectance.shape[:2]
    stored, seen = reflectance.reshape(times, count, -1), valid.reshape(times, -1)
    flat = np.zeros((rows * columns, model.config.features), dtype=np.float32)

    def read(part: slice) -> None:
        series = RegionSeries(to_physical(stored[:, :, part]), seen[:, part], dates, tuple(bands))
        flat[part] = pixel_features(model, series)

    parts = [slice(start, start + PIXELS_AT_ONCE) for start in range(0, rows * columns, PIXELS_AT_ONCE)]
    # batches are small: two threads of one core each do half as much again as one thread on two cores
    cores = torch.get_num_threads()
    side_by_side = cores if device_of(model).type == "cpu" else min(cores, FEEDERS)
    try:
        with ThreadPoolExecutor(side_by_side, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(read, parts))
    finally:
        torch.set_num_threads(cores)
    return np.ascontiguousarray(flat.T).reshape(-1, rows, columns)
