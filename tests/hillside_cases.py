"""The Romanian Sentinel-2 series with its tree cover of 70 % or more, and the forest floor on it.

Read straight from netCDF, 20 m bands repeated 2 x 2, SCL eaten by 2 pixels around what is masked, as the cube does it.
Trained and predicted per 10 m pixel; a 20 m cell of the tree cover layer is scored once, by the mean of its four
pixels' probabilities, so that a label counts once. All 1,750 cells are scored, those at the edge of a class too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from models.forest import ForestClassifier, ForestConfig, temporal_statistics
from storage.validity import derive_valid
from tasks.earth.floor import RepeatedScores, repeat_cross_validation

BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11")
CELL = 2
BLOCK = 10 * CELL
NOT_CANOPY = 0


@dataclass(frozen=True)
class Hillside:
    """The Romanian series on the 10 m grid, 100 x 70 pixels."""

    reflectance: np.ndarray
    valid: np.ndarray
    dates: np.ndarray
    labels: np.ndarray


def repeated(values: np.ndarray) -> np.ndarray:
    """Return values of 20 m cells on the 10 m grid."""
    return values.repeat(CELL, axis=-2).repeat(CELL, axis=-1)


def read_hillside(shared_data: Path, *, dilation: int = 2) -> Hillside:
    """Return the series and its labels, from the folder of real data."""
    folder = shared_data / "eo" / "s2_romania_forest"
    with (
        xr.open_dataset(folder / "s2_10m.nc") as fine,
        xr.open_dataset(folder / "s2_20m.nc") as coarse,
        xr.open_dataset(folder / "tree_cover_density_2018.nc") as cover,
    ):
        times = fine.sizes["time"]
        layers = [fine[name].values for name in BANDS[:4]] + [repeated(coarse[name].values) for name in BANDS[4:]]
        reflectance = (np.stack(layers, axis=1) * np.float32(1e-4)).astype(np.float32)
        valid = derive_valid(fine["SCL"].values, dilation=dilation)
        labels = repeated((cover["tree_cover_density"].values >= 70).astype(np.uint8))
        dates = fine["time"].values.astype("datetime64[D]")
    return Hillside(reflectance.reshape(times, len(BANDS), -1), valid.reshape(times, -1), dates, labels)


def scores_of(hillside: Hillside, seeds: range, *, looks: np.ndarray | None = None) -> RepeatedScores:
    """Return the forest's scores, blocks held out, for splits of some seeds; of some looks only where they are given."""
    looks = np.arange(len(hillside.dates)) if looks is None else looks
    features = temporal_statistics(
        hillside.reflectance[looks], hillside.valid[looks], hillside.dates[looks], BANDS, jobs=2
    )
    classifier = ForestClassifier(BANDS, (NOT_CANOPY, 1), ForestConfig())
    return repeat_cross_validation(
        features, hillside.labels, classifier, value=NOT_CANOPY, seeds=seeds, block_size=BLOCK, cell=CELL, jobs=2
    )
