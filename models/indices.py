"""Spectral indices from reflectance, the same for numpy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""The channels of a Sentinel-2 series, in order."""

LEAST_SUM = 0.01
"""Reflectance below which a denominator is held: a shadow's index is noise, not a pole."""


@dataclass(frozen=True)
class Index:
    """One index.

    Parameters
    ----------
    bands : tuple of str
        What it needs, in the order in which `formula` takes them.
    formula : callable
        From reflectances 0 to 1, arrays of one shape.
    title, reference : str
        Long name, and where it comes from.
    """

    bands: tuple[str, ...]
    formula: Callable[..., Any]
    title: str
    reference: str


def _ratio(over: Any, under: Any) -> Any:
    return over / under.clip(LEAST_SUM)


INDICES: dict[str, Index] = {
    "ndvi": Index(
        ("B04", "B08"),
        lambda red, nir: _ratio(nir - red, nir + red),
        "normalized difference vegetation index",
        "Rouse et al. 1974",
    ),
    "evi2": Index(
        ("B04", "B08"),
        lambda red, nir: 2.5 * (nir - red) / (nir + 2.4 * red + 1).clip(LEAST_SUM),
        "two-band enhanced vegetation index",
        "Jiang et al. 2008, eq. 13",
    ),
    "ndwi": Index(
        ("B03", "B08"),
        lambda green, nir: _ratio(green - nir, green + nir),
        "normalized difference water index",
        "McFeeters 1996",
    ),
    "nbr": Index(
        ("B08", "B12"), lambda nir, swir: _ratio(nir - swir, nir + swir), "normalized burn ratio", "Key and Benson 2006"
    ),
    "bsi": Index(
        ("B02", "B04", "B08", "B11"),
        lambda blue, red, nir, swir: _ratio((swir + red) - (nir + blue), (swir + red) + (nir + blue)),
        "bare soil index",
        "Rikimaru et al. 2002",
    ),
}
"""Every index by the name that reports and products use."""


def available(bands: tuple[str, ...] | Mapping[str, Any]) -> tuple[str, ...]:
    """Return the indices that these bands allow.

    Examples
    --------
    >>> available(("B04", "B08"))
    ('ndvi', 'evi2')
    """
    return tuple(name for name, index in INDICES.items() if all(band in bands for band in index.bands))


def compute(name: str, bands: Mapping[str, Any]) -> Any:
    """Return an index.

    Parameters
    ----------
    name : str
        One of `INDICES`.
    bands : mapping of str to ndarray or Tensor
        Reflectance 0 to 1; NaN stays NaN.

    Raises
    ------
    KeyError
        Where a band is not there; ask `available` first.
    """
    index = INDICES[name]
    return index.formula(*(bands[band] for band in index.bands))
