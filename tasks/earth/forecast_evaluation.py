"""From the cubes of an area to scores of forecasts: freeze what is read, judge region by region, write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from storage.cube import read_block, read_clear
from storage.location import Location, resolve
from storage.manifest import Run, content_hash, start_run
from storage.regions import Region
from tasks.earth.forecast_examples import ExampleKeeper
from tasks.earth.forecast_protocol import QUANTILES, PixelSeries, Predict, ScoringRule, asking, series_of
from tasks.earth.forecast_scores import ForecastScores, evaluate_arrays
from tasks.earth.forecasters import open_forecaster
from tasks.earth.forecasting import require_bands
from tasks.earth.label_splits import blocked_folds
from tasks.earth.mapping import CubePart, MapPlan, plan_for, to_physical
from tasks.earth.places import drawn, in_area, regions_of
from tasks.errors import ConfigurationError

PIXELS_AT_ONCE = 8192
REPORT = "forecast_scores.json"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Holdout:
    """Pixels kept from training: one fold of square blocks, the same in every tile.

    Parameters
    ----------
    folds, fold : int
        How many, and which is held out.
    block : int
        Pixels on a side.
    gap : int
        Pixels next to a block of another fold that are in neither part.
    seed : int
        Of the draw.
    """

    folds: int
    fold: int
    block: int = 20
    gap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.folds >= 2 and 0 <= self.fold < self.folds and self.block >= 1):
            raise ConfigurationError(
                f"hold-out {self.folds}:{self.fold}:{self.block}: wanted are at least 2 folds, a fold from 0 to folds - 1, "
                "and blocks of at least a pixel"
            )

    def held_out(self, tile_shape: tuple[int, int]) -> np.ndarray:
        """Return which pixels of a tile are scored: (y, x) bool."""
        return np.asarray(self._folds(tile_shape) == self.fold)

    def trainable(self, tile_shape: tuple[int, int]) -> np.ndarray:
        """Return which pixels of a tile training may see: (y, x) bool."""
        found = self._folds(tile_shape)
        return np.asarray((found != self.fold) & (found >= 0))

    def _folds(self, tile_shape: tuple[int, int]) -> np.ndarray:
        return blocked_folds(tile_shape, block_size=self.block, folds=self.folds, seed=self.seed, gap=self.gap)


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be scored, and where.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    rule : ScoringRule
        Origins, horizon, context.
    model : str or None
        Name, or name/version; None for the floors alone.
    bands : tuple of str or None
        Of the cubes; None for all.
    holdout : Holdout or None
        Score only blocks that training did not see.
    share : float
        Of the pixels that are scored, drawn by their place: the same in every run.
    crs, resolution : str or None, float
        Of the grid.
    allow_unmasked : bool
        Whether looks without a mask count.
    out : str or None
        Folder or URL for report and pictures; None for the run's own.
    """

    warehouse: str
    area: dict[str, Any]
    rule: ScoringRule
    model: str | None = None
    bands: tuple[str, ...] | None = None
    holdout: Holdout | None = None
    share: float = 1.0
    crs: str | None = None
    resolution: float = 10.0
    allow_unmasked: bool = False
    out: str | None = None


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation, ready to be run.

    Parameters
    ----------
    request : EvaluationRequest
        As asked.
    plan : MapPlan
        Cubes at their snapshots.
    bands : tuple of str
        That the model is given.
    quantiles : tuple of float
        Levels of the model's.
    run : Run
        Holds the manifest.
    """

    request: EvaluationRequest
    plan: MapPlan
    bands: tuple[str, ...]
    quantiles: tuple[float, ...]
    run: Run

    def groups(self) -> list[tuple[str, list[tuple[CubePart, Region]]]]:
        """Return the regions to judge, by tile."""
        return [(cube.path, [(cube, region) for region in regions_of(cube)]) for cube in self.plan.cubes]

    @property
    def out(self) -> Location:
        """Return where report and pictures go."""
        return resolve(self.request.out) if self.request.out else self.run.location


@dataclass
class Scored:
    """What some regions gave."""

    scores: ForecastScores
    examples: ExampleKeeper = field(default_factory=ExampleKeeper)

    def merge(self, other: Scored) -> None:
        """Add what other regions gave."""
        self.scores.merge(other.scores)
        self.examples.merge(other.examples)


def parse_origins(text: str) -> tuple[np.datetime64, ...]:
    """Return origins from ``START:END:FREQ``, both ends included, FREQ as pandas spells it.

    Raises
    ------
    ConfigurationError
        Where it is not that, or holds no date.

    Examples
    --------
    >>> [str(day) for day in parse_origins("2019-01-01:2019-03-01:MS")]
    ['2019-01-01', '2019-02-01', '2019-03-01']
    """
    start, _, rest = text.partition(":")
    end, _, frequency = rest.partition(":")
    try:
        days = pd.date_range(pd.Timestamp(start), pd.Timestamp(end or start), freq=frequency or "MS")
    except ValueError as error:
        raise ConfigurationError(
            f"--origins {text}: wanted is START:END:FREQ, such as 2019-01-01:2019-07-01:MS ({error})"
        ) from error
    if not len(days):
        raise ConfigurationError(f"--origins {text}: no date of frequency {frequency or 'MS'} lies between the two")
    return tuple(days.values.astype("datetime64[D]"))


def parse_holdout(text: str) -> Holdout:
    """Return the hold-out from ``FOLDS:FOLD`` or ``FOLDS:FOLD:BLOCK``, as in ``5:0:20``.

    Raises
    ------
    ConfigurationError
        Where it is not that.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.isdigit() for part in parts):
        raise ConfigurationError(f"--holdout-blocks {text}: wanted is FOLDS:FOLD or FOLDS:FOLD:BLOCK, such as 5:0:20")
    return Holdout(*(int(part) for part in parts))


def prepare_evaluation(request: EvaluationRequest) -> PreparedEvaluation:
    """Freeze what is read in a run's manifest.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, or the model does not take its bands.
    NotFound
        Where there is no such model.
    """
    last = max(request.rule.origins) + np.timedelta64(request.rule.horizon_days - 1, "D")
    plan = plan_for(request, until=str(last))
    bands = plan.chosen_bands(request.bands)
    quantiles: tuple[float, ...] = QUANTILES
    if request.model is not None:
        forecaster = open_forecaster(plan.root, request.model)
        require_bands(forecaster, bands)
        quantiles = tuple(forecaster.quantiles)
    asked = {**asdict(request), "rule": {**asdict(request.rule), "origins": [str(day) for day in request.rule.origins]}}
    manifest = {
        "request": asked,
        "config_hash": content_hash({name: value for name, value in asked.items() if name != "warehouse"}),
        "software": {"canopus": version("canopus")},
        "snapshots": {cube.path: cube.snapshot for cube in plan.cubes},
    }
    return PreparedEvaluation(request, plan, bands, quantiles, start_run(plan.root, "evaluate", manifest))


def score_regions(
    prepared: PreparedEvaluation, parts: Sequence[tuple[CubePart, Region]], on_progress: Progress | None = None
) -> Scored:
    """Judge some regions and return their sums."""
    predict = None
    if prepared.request.model is not None:
        predict = asking(open_forecaster(prepared.plan.root, prepared.request.model))
    scored = _nothing(prepared)
    for count, (cube, region) in enumerate(parts, start=1):
        for series, places in _read_series(prepared, cube, region):
            scored.merge(_score_series(prepared, series, predict, places))
        if on_progress is not None:
            on_progress(cube.path, count, len(parts))
    return scored


def evaluate_area(request: EvaluationRequest, on_progress: Progress | None = None) -> dict[str, Any]:
    """Score forecasts over an area and write report and pictures; return the report.

    Raises
    ------
    ConfigurationError
        As `prepare_evaluation`; and where no target counts.
    """
    prepared = prepare_evaluation(request)
    found = [score_regions(prepared, parts, on_progress) for _, parts in prepared.groups()]
    return finish_evaluation(prepared, found)


def finish_evaluation(prepared: PreparedEvaluation, found: Sequence[Scored]) -> dict[str, Any]:
    """Add up what the regions gave, write report and pictures, and return the report.

    Raises
    ------
    ConfigurationError
        Where no target counts; the message says what was missing.
    """
    from tasks.earth.forecast_plots import draw_pictures

    scored = _nothing(prepared)
    for part in found:
        scored.merge(part)
    report = {**_head(prepared), **scored.scores.report()}
    if not report["counts"]["targets"]:
        raise ConfigurationError(
            f"no pixel of the area has {report['protocol']['history']} and a clear look in the "
            f"{prepared.request.rule.horizon_days} days from it on"
        )
    pictures = draw_pictures(report, scored.examples.chosen())
    for name, content in pictures.items():
        prepared.out.write_bytes(name, content)
    report["pictures"] = [str(prepared.out / name) for name in pictures]
    report["report"] = str(prepared.out / REPORT)
    prepared.out.write_bytes(REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


def _nothing(prepared: PreparedEvaluation) -> Scored:
    return Scored(ForecastScores(prepared.request.rule, prepared.quantiles, prepared.request.model is not None))


def _head(prepared: PreparedEvaluation) -> dict[str, Any]:
    request = prepared.request
    return {
        "model": request.model,
        "run": prepared.run.id,
        "warehouse": request.warehouse,
        "cubes": {cube.path: cube.snapshot for cube in prepared.plan.cubes},
        "bands": list(prepared.bands),
        "holdout": asdict(request.holdout) if request.holdout else None,
        "share": request.share,
    }


def _score_series(
    prepared: PreparedEvaluation, series: PixelSeries, predict: Predict | None, places: np.ndarray
) -> Scored:
    scored = _nothing(prepared)
    keeper = scored.examples.watching(prepared.request.rule, predict, places, levels=prepared.quantiles)
    scored.scores = evaluate_arrays(
        series, predict, prepared.request.rule, quantiles=prepared.quantiles, on_judged=keeper
    )
    return scored


def _read_series(
    prepared: PreparedEvaluation, cube: CubePart, region: Region
) -> Iterator[tuple[PixelSeries, np.ndarray]]:
    """Yield the series of a region's pixels, some thousand at a time, and where they lie: (pixel, 2), metres."""
    chosen = _chosen(prepared, cube, region)
    if not chosen.any():
        return
    region, chosen = _cropped(region, chosen)
    plan = prepared.plan
    given: Any = {"snapshot": cube.snapshot, "until": plan.until, "allow_unmasked": plan.allow_unmasked}
    block = read_block(plan.root / cube.path, region, **given)
    times = len(block.times)
    clear = read_clear(plan.root / cube.path, region, **given).reshape(times, -1)
    valid = block.valid.reshape(times, -1)
    stored = block.reflectance.reshape(times, len(plan.bands), -1)
    kept = [plan.bands.index(band) for band in prepared.bands]
    pixels = np.flatnonzero(chosen.reshape(-1) & valid.any(axis=0))
    for start in range(0, pixels.size, PIXELS_AT_ONCE):
        some = pixels[start : start + PIXELS_AT_ONCE]
        series = series_of(
            to_physical(stored[:, :, some][:, kept]),
            prepared.bands,
            valid=valid[:, some],
            clear=clear[:, some],
            dates=block.times.astype("datetime64[D]"),
        )
        yield series, _places(cube.tile.geobox[region["y"], region["x"]], some)


def _chosen(prepared: PreparedEvaluation, cube: CubePart, region: Region) -> np.ndarray:
    """Return which pixels of a region are scored: in the area, in the held-out blocks, drawn."""
    tile, request = cube.tile.geobox, prepared.request
    geobox = tile[region["y"], region["x"]]
    chosen = in_area(prepared.plan, geobox)
    if request.holdout is not None:
        chosen &= request.holdout.held_out((tile.shape[0], tile.shape[1]))[region["y"], region["x"]]
    if request.share < 1.0:
        chosen &= drawn(region, request.share)
    return chosen


def _cropped(region: Region, chosen: np.ndarray) -> tuple[Region, np.ndarray]:
    """Return the smallest part of a region that holds what is chosen."""
    rows, columns = np.flatnonzero(chosen.any(axis=1)), np.flatnonzero(chosen.any(axis=0))
    part = {"y": slice(int(rows[0]), int(rows[-1]) + 1), "x": slice(int(columns[0]), int(columns[-1]) + 1)}
    moved = {axis: slice(region[axis].start + part[axis].start, region[axis].start + part[axis].stop) for axis in part}
    return moved, chosen[part["y"], part["x"]]


def _places(geobox: GeoBox, pixels: np.ndarray) -> np.ndarray:
    row, column = np.divmod(pixels, geobox.shape[1])
    affine = geobox.affine
    return np.stack([affine.c + affine.a * (column + 0.5), affine.f + affine.e * (row + 0.5)], axis=1)
