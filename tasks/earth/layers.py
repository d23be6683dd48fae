"""The rasters that products consist of: type, fill value, unit and scale, one table for each kind of product."""

from __future__ import annotations

import numpy as np

from models.indices import INDICES
from storage.classes import NO_CANOPY, NO_CLASS, LandClass
from storage.export import Axis, Layer, date_axis

PROBABILITY_SCALE = 1e-4
NO_PROBABILITY = 65535
NO_COUNT = 65535
NO_DATE = 0
VALUE_SCALE = 1e-4
"""Of reflectance and indices as int16, which holds -3.27 to 3.27."""
NO_VALUE = -32768
COMPONENT_SCALE = 1e-3

CLEAR_COUNT = "clear_count"
"""The layer that every product has: a pixel without a clear look holds nothing else."""

CANOPY_PROBABILITY = "canopy_probability"
_CANOPY_PROBABILITY = Layer(
    CANOPY_PROBABILITY,
    "Probability of tree canopy",
    "uint16",
    NO_PROBABILITY,
    overviews="average",
    scale=PROBABILITY_SCALE,
)

LOOKS = (
    Layer(CLEAR_COUNT, "Clear looks", "uint16", NO_COUNT, overviews="average"),
    Layer("last_clear_date", "Date of the last clear look", "uint16", NO_DATE, unit="days since 1970-01-01"),
)
"""What a product says of the series behind each pixel: (y, x) uint16, outside the area their fill value."""


def map_layers(classes: tuple[LandClass, ...], extra: tuple[Layer, ...] = ()) -> tuple[Layer, ...]:
    """Return the layers of a canopy map.

    Parameters
    ----------
    classes : tuple of LandClass
        In the order of the probabilities.
    extra : tuple of Layer
        Further layers on the same grid, such as the year of change.

    Returns
    -------
    tuple of Layer
        ``class`` (y, x) uint8; ``probability`` (class_name, y, x) uint16, scale 1e-4; where a class is called "none",
        ``canopy_probability`` (y, x), that of all others together, alike; `LOOKS`; then `extra`.
    """
    flags = {
        "flag_values": [land_class.value for land_class in classes],
        "flag_meanings": " ".join(land_class.name for land_class in classes),
    }
    return (
        Layer(
            "class",
            "Class",
            "uint8",
            NO_CLASS,
            overviews="mode",
            colours={land_class.value: land_class.rgb for land_class in classes},
            attributes=flags,
        ),
        Layer(
            "probability",
            "Probability of each class",
            "uint16",
            NO_PROBABILITY,
            overviews="average",
            axes=(Axis("class_name", tuple(land_class.name for land_class in classes)),),
            scale=PROBABILITY_SCALE,
        ),
        *((_CANOPY_PROBABILITY,) if NO_CANOPY in {land_class.name for land_class in classes} else ()),
        *LOOKS,
        *extra,
    )


def change_layers() -> tuple[Layer, ...]:
    """Return the layers of a change product: kind, date, interval, confidence, canopy in the newest map; `LOOKS`."""
    return (
        Layer(
            "change_kind",
            "Change of woodland",
            "uint8",
            NO_CLASS,
            overviews="mode",
            colours={0: (244, 242, 234), 1: (196, 62, 36), 2: (33, 102, 172)},
            attributes={"flag_values": [0, 1, 2], "flag_meanings": "none loss gain"},
        ),
        Layer("change_date", "Date of the change", "uint16", NO_DATE, unit="days since 1970-01-01"),
        Layer("change_interval", "Time about the date in which it may have been", "uint16", NO_COUNT, unit="days"),
        Layer("change_confidence", "Confidence in the change", "uint16", NO_PROBABILITY, scale=PROBABILITY_SCALE),
        Layer(
            "canopy",
            "Probability of canopy in the newest map",
            "uint16",
            NO_PROBABILITY,
            overviews="average",
            scale=PROBABILITY_SCALE,
        ),
        *LOOKS,
    )


def forecast_layers(
    bands: tuple[str, ...], indices: tuple[str, ...], *, targets: np.ndarray, quantiles: tuple[float, ...]
) -> tuple[Layer, ...]:
    """Return the layers of a forecast.

    Parameters
    ----------
    bands, indices : tuple of str
        What is forecast.
    targets : ndarray, shape (target,), datetime64[D]
    quantiles : tuple of float
        Levels, ascending.

    Returns
    -------
    tuple of Layer
        ``reflectance`` (time, quantile, band, y, x) and each index (time, quantile, y, x), int16, scale 1e-4; `LOOKS`.
    """
    time = date_axis("time", targets)
    level = Axis("quantile", quantiles, attributes={"long_name": "level of the quantile", "units": "1"})
    reflectance = {"standard_name": "surface_bidirectional_reflectance"}
    return (
        _values("reflectance", "Quantiles of surface reflectance", (time, level, Axis("band", bands)), reflectance),
        *(_values(name, f"Quantiles of the {INDICES[name].title}", (time, level)) for name in indices),
        *LOOKS,
    )


def index_layer(name: str, what: str, targets: np.ndarray, *, title: str) -> Layer:
    """Return the layer of one COG of a forecast: an index, (time, y, x) int16, called `name`_`what`."""
    return _values(f"{name}_{what}", f"{title} of the {INDICES[name].title}", (date_axis("time", targets),))


def embedding_layers(width: int, *, dtype: str) -> tuple[Layer, ...]:
    """Return the layers of an embedding: ``embedding`` (feature, y, x), NaN where there is none; `LOOKS`."""
    feature = Axis("feature", tuple(range(width)), attributes={"long_name": "number of the feature"})
    return (Layer("embedding", "Embedding of the pixel's series", dtype, np.nan, axes=(feature,)), *LOOKS)


def component_layer(count: int) -> Layer:
    """Return the layer of principal components: (component, y, x) int16, scale 1e-3."""
    names = tuple(f"component_{number + 1}" for number in range(count))
    return Layer(
        "components",
        "Principal components of the embedding, in standard deviations of the first",
        "int16",
        NO_VALUE,
        overviews="average",
        axes=(Axis("component", names),),
        scale=COMPONENT_SCALE,
    )


def to_stored(values: np.ndarray, scale: float) -> np.ndarray:
    """Return physical values as int16 of a scale, `NO_VALUE` for NaN; what is beyond the type is held at its end.

    Examples
    --------
    >>> to_stored(np.array([0.5, np.nan, 9.0]), 1e-4)
    array([  5000, -32768,  32767], dtype=int16)
    """
    rounded = np.clip(np.round(values / np.float32(scale)), NO_VALUE + 1, 32767)
    return np.where(np.isnan(rounded), np.float32(NO_VALUE), rounded).astype(np.int16)


def from_stored(stored: np.ndarray, scale: float) -> np.ndarray:
    """Return what `to_stored` made, float32, NaN where there is nothing."""
    values = stored.astype(np.float32) * np.float32(scale)
    values[stored == NO_VALUE] = np.nan
    return values


def _values(name: str, title: str, axes: tuple[Axis, ...], attributes: dict[str, str] | None = None) -> Layer:
    return Layer(
        name,
        title,
        "int16",
        NO_VALUE,
        overviews="average",
        axes=axes,
        scale=VALUE_SCALE,
        attributes=attributes or {},
    )
