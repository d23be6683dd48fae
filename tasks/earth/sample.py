"""A stratified random sample of a map's pixels, to be interpreted by people: what areas with intervals need.

References
----------
Olofsson, P. et al. (2014). Good practices for estimating area and assessing accuracy of land change. Remote Sensing
of Environment 148, 42-57; section 5.1 on allocation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS, LandClass
from tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

FIELDS = (
    "id",
    "stratum",
    "inclusion_probability",
    "reference",
    "map_class",
    "x",
    "y",
    "lon",
    "lat",
    "stratum_pixels",
    "pixel_area_m2",
)
_REQUIRED = FIELDS[:5]
_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON", ".csv": "CSV"}

Rule = Literal["equal", "proportional", "neyman"]


@dataclass(frozen=True)
class Allocation:
    """How many units go to each stratum.

    Parameters
    ----------
    size : int
        Units in all; the sum of `per_stratum` where that is given.
    rule : {"equal", "proportional", "neyman"}
        The same for all, by pixels, or by pixels times the spread ``sqrt(U (1 - U))`` of the expected accuracy U.
    minimum : int
        Least units of a stratum, for its own accuracy; a stratum of fewer pixels is taken whole.
    expected_accuracy : mapping of str to float
        U per stratum, for ``"neyman"``; 0.8 where not given.
    per_stratum : mapping of str to int, optional
        Units of each stratum, instead of a rule.
    """

    size: int = 0
    rule: Rule = "equal"
    minimum: int = 20
    expected_accuracy: Mapping[str, float] = field(default_factory=dict)
    per_stratum: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Strata:
    """Strata that are not the map's classes.

    Parameters
    ----------
    values : ndarray, shape (y, x), int
        Stratum of each pixel; those that `names` lacks are not sampled, and not part of the population.
    names : mapping of int to str
        Names of the strata.
    """

    values: np.ndarray
    names: Mapping[int, str]


def draw_sample(
    classes_of_pixels: np.ndarray,
    geobox: GeoBox,
    *,
    classes: Sequence[LandClass],
    allocation: Allocation,
    seed: int,
    strata: Strata | None = None,
) -> GeoDataFrame:
    """Return a stratified random sample without replacement, in random order.

    Parameters
    ----------
    classes_of_pixels : ndarray, shape (y, x), uint8
        The map; `NO_CLASS` is not part of the population.
    geobox : GeoBox
        Its grid.
    classes : sequence of LandClass
        Its classes; they are the strata unless `strata` is given.
    allocation : Allocation
        How many units go where.
    seed : int
        Same map, same seed: same sample.
    strata : Strata, optional
        Other strata.

    Returns
    -------
    GeoDataFrame
        Points at pixel centres in the map's CRS with the columns `FIELDS`; ``reference`` is empty, to be filled in
        with class names. Delete no row: leave ``reference`` empty where a point cannot be interpreted.

    Raises
    ------
    ConfigurationError
        Where the map is empty, the allocation names an unknown stratum, or it is smaller than its minimum allows.
    """
    chosen = strata or Strata(classes_of_pixels, {known.value: known.name for known in classes})
    population = _population(chosen, classes_of_pixels, [known.value for known in classes])
    pixels = {name: members.size for name, members in population.items()}
    units = allocate(pixels, allocation)
    generator = np.random.default_rng(seed)
    drawn = {name: generator.choice(population[name], units[name], replace=False) for name in population}
    order = generator.permutation(sum(units.values()))
    names = np.concatenate([np.full(flat.size, name, object) for name, flat in drawn.items()])[order]
    flat = np.concatenate(list(drawn.values()))[order]
    class_names = {known.value: known.name for known in classes}
    columns = {
        "id": np.arange(1, flat.size + 1),
        "stratum": names,
        "inclusion_probability": np.array([units[name] / pixels[name] for name in names]),
        "reference": "",
        "map_class": [class_names[int(value)] for value in classes_of_pixels.ravel()[flat]],
        "stratum_pixels": [pixels[name] for name in names],
    }
    return _located(columns, flat, geobox)


def allocate(pixels: Mapping[str, int], allocation: Allocation) -> dict[str, int]:
    """Return the units of each stratum; they add up to the size asked for unless strata are too small for it.

    Parameters
    ----------
    pixels : mapping of str to int
        Pixels of each stratum.
    allocation : Allocation
        The rule.

    Raises
    ------
    ConfigurationError
        Where the allocation names an unknown stratum, or its size cannot hold its minimum.

    Examples
    --------
    >>> allocate({"none": 9000, "canopy": 1000}, Allocation(100, "proportional", minimum=20))
    {'none': 80, 'canopy': 20}
    """
    if allocation.per_stratum is not None:
        return _as_given(pixels, allocation.per_stratum)
    least = {name: min(allocation.minimum, count) for name, count in pixels.items()}
    if allocation.size < sum(least.values()):
        raise ConfigurationError(
            f"a sample of {allocation.size} cannot hold {allocation.minimum} in each of {len(pixels)} strata: "
            f"ask for at least {sum(least.values())}, or for a smaller minimum"
        )
    return _fill_up(pixels, least, _weights(pixels, allocation), allocation.size)


def write_sample(sample: GeoDataFrame, path: str | Path) -> None:
    """Write a sample as GeoPackage, GeoJSON (longitude and latitude) or CSV, by suffix.

    Raises
    ------
    ConfigurationError
        Where the suffix is none of these.
    """
    driver = _driver(path)
    if driver == "CSV":
        sample.drop(columns="geometry").to_csv(path, index=False)
        return
    frame = sample.to_crs("EPSG:4326") if driver == "GeoJSON" else sample
    frame.to_file(path, driver=driver)


def read_sample(path: str | Path) -> GeoDataFrame:
    """Return a sample that was written, and perhaps interpreted since.

    Returns
    -------
    GeoDataFrame
        Points in longitude and latitude; ``reference`` is ``""`` where it is not filled in.

    Raises
    ------
    ConfigurationError
        Where the file cannot be read, lacks a field, repeats an id, or was not drawn with known probabilities.
    """
    import geopandas
    import pandas

    driver = _driver(path)
    try:
        # as text: an empty column is no number, and a class may be called "None" or "NA"
        texts = dict.fromkeys(("stratum", "map_class", "reference"), str)
        frame: Any = (
            pandas.read_csv(path, dtype=texts, keep_default_na=False) if driver == "CSV" else geopandas.read_file(path)
        )
    except (OSError, RuntimeError, ValueError) as error:  # by driver; pyogrio's own are RuntimeErrors
        raise ConfigurationError(f"{path}: not readable as a sample ({error})") from error
    frame = _checked(frame, path)
    if driver == "CSV":
        points = geopandas.points_from_xy(frame["lon"], frame["lat"])
        return geopandas.GeoDataFrame(frame, geometry=points, crs="EPSG:4326")
    return frame.to_crs("EPSG:4326")


def pixels_of(sample: GeoDataFrame, geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of the pixel that each point lies in, (point,) int each; beyond the grid where it lies there."""
    points = sample.to_crs(str(geobox.crs)).geometry
    column, row = ~geobox.affine * (points.x.to_numpy(), points.y.to_numpy())
    return np.floor(row).astype(int), np.floor(column).astype(int)


# --- parts ------------------------------------------------------------------------------------------------------


def _population(strata: Strata, mapped: np.ndarray, class_values: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the flat positions of every stratum's pixels, empty strata left out."""
    if strata.values.shape != mapped.shape:
        raise ConfigurationError(f"strata {strata.values.shape} and map {mapped.shape} are not on one grid")
    has_class = np.isin(mapped.ravel(), class_values) & (mapped.ravel() != NO_CLASS)
    found = {name: np.flatnonzero(has_class & (strata.values.ravel() == value)) for value, name in strata.names.items()}
    population = {name: members for name, members in found.items() if members.size}
    if not population:
        raise ConfigurationError("the map holds no pixel of any stratum, so there is nothing to sample")
    return population


def _as_given(pixels: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(set(wanted) - set(pixels))
    missing = sorted(set(pixels) - set(wanted))
    if unknown or missing:
        raise ConfigurationError(
            f"the allocation names {', '.join(wanted)}; the strata of the map are {', '.join(pixels)}. "
            "Give a number for each, or the estimates would not hold for the whole map"
        )
    short = [name for name in pixels if wanted[name] < 1]
    if short:
        raise ConfigurationError(f"stratum {', '.join(short)} needs at least one unit, two for an interval")
    return {name: min(wanted[name], count) for name, count in pixels.items()}


def _weights(pixels: Mapping[str, int], allocation: Allocation) -> dict[str, float]:
    if allocation.rule == "equal":
        return dict.fromkeys(pixels, 1.0)
    if allocation.rule == "proportional":
        return {name: float(count) for name, count in pixels.items()}
    accuracy = {name: float(allocation.expected_accuracy.get(name, 0.8)) for name in pixels}
    return {name: count * (accuracy[name] * (1 - accuracy[name])) ** 0.5 for name, count in pixels.items()}


def _fill_up(
    pixels: Mapping[str, int], least: Mapping[str, int], weights: Mapping[str, float], size: int
) -> dict[str, int]:
    """Return weighted shares of `size`, none below its least or above its pixels, by giving out one unit at a time.

    The next unit goes where units per weight are fewest (Jefferson's method), so the sum is exact.
    """
    units = dict(least)
    for _ in range(min(size, sum(pixels.values())) - sum(units.values())):
        open_strata = [name for name in pixels if units[name] < pixels[name] and weights[name] > 0]
        if not open_strata:
            break
        units[min(open_strata, key=lambda name: (units[name] + 1) / weights[name])] += 1
    return units


def _located(columns: Mapping[str, Any], flat: np.ndarray, geobox: GeoBox) -> GeoDataFrame:
    import geopandas

    row, column = np.divmod(flat, int(geobox.shape[1]))
    transform = geobox.affine
    x = transform.c + transform.a * (column + 0.5) + transform.b * (row + 0.5)
    y = transform.f + transform.d * (column + 0.5) + transform.e * (row + 0.5)
    points = geopandas.GeoSeries(geopandas.points_from_xy(x, y), crs=str(geobox.crs))
    degrees = points.to_crs("EPSG:4326")
    area = abs(transform.a * transform.e - transform.b * transform.d)
    placed = {**columns, "x": x, "y": y, "lon": degrees.x, "lat": degrees.y, "pixel_area_m2": area}
    return geopandas.GeoDataFrame({name: placed[name] for name in FIELDS}, geometry=points)


def _driver(path: str | Path) -> str:
    suffix = Path(str(path)).suffix.lower()
    if suffix not in _DRIVERS:
        raise ConfigurationError(f"{path}: a sample is one of {', '.join(_DRIVERS)}")
    return _DRIVERS[suffix]


def _checked(frame: Any, path: str | Path) -> Any:
    from tasks.earth.accuracy import ProbabilitySampleError, references_of, stratum_sizes_of

    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        raise ProbabilitySampleError(
            f"{path}: lacks {', '.join(missing)}; areas and map accuracy need a sample drawn by `canopus sample`"
        )
    repeated = frame["id"][frame["id"].duplicated()].unique().tolist()
    if repeated:
        raise ConfigurationError(f"{path}: id {repeated[0]} occurs more than once")
    frame = frame.assign(reference=references_of(frame))
    stratum_sizes_of(frame)
    return frame
