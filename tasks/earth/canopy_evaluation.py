"""From a model and labels to scores beside floors: map the area in memory, score it, write report and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from models.forest import ForestConfig
from storage.classes import CANOPY_OR_NOT, NO_CLASS, LandClass
from storage.location import resolve
from storage.manifest import Run, content_hash, start_run
from tasks.earth.accuracy import AccuracyEstimates, estimate_from_sample
from tasks.earth.canopy_floors import (
    FOREST,
    NDVI,
    FloorSource,
    Forests,
    fill_floors,
    floor_layers,
    forests_of,
    source_of_model,
)
from tasks.earth.canopy_map import MapJob, MapRequest, map_job
from tasks.earth.canopy_sizes import AREAS, WIDTHS, area_classes, size_scores, width_classes
from tasks.earth.forecast_evaluation import Holdout
from tasks.earth.label_rasters import RasterLabels
from tasks.earth.label_report import TileSplit, explain_area, split_area
from tasks.earth.label_rules import LabelRules
from tasks.earth.label_splits import PARTS
from tasks.earth.labels import Labels, open_labels
from tasks.earth.layers import PROBABILITY_SCALE, map_layers
from tasks.earth.mapping import MapPlan, fill_region, overlap, plan_for, windowed
from tasks.earth.model_folders import read_parts
from tasks.earth.sample import pixels_of, read_sample
from tasks.earth.scores import (
    canopy_of,
    class_scores,
    f1_score,
    has_kinds,
    kinds_together,
    precision_recall,
    ranking_scores,
    reliability,
)
from tasks.errors import ConfigurationError

REPORT = "canopy_scores.json"
MODEL = "model"
BEST_F1 = "F1 of mean NDVI is that of the threshold that suits the scored labels best, which no map would know"

FLOOR_OF_SCORED = (
    "the forest is trained on the labels that are scored: the model's own are not at hand, or it names none"
)
TRAINED_HERE = "the model was trained on labels of this very area: score its test tiles only"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CanopyEvaluationRequest:
    """What is to be scored, against what.

    Parameters
    ----------
    warehouse : str
        URL.
    area : dict
        GeoJSON geometry, EPSG:4326.
    model : str
        Name, or name/version.
    labels : str
        Polygons or raster.
    rules : LabelRules
        How it is read.
    until : str or None
        Day of the map: the last whose looks are read.
    window_days : int or None
        As in a map: only looks of so many days up to that day.
    floor : FloorSource or None
        What the forest is trained on; None for what the model says that it was trained on, else for the labels that are
        scored, cross-validated or outside what is held out.
    holdout : Holdout, TileSplit or None
        Score only one fold of blocks; or only the test tiles of the split of the floor's labels, which is the model's own
        where it names one; or everywhere.
    cell : int
        Pixels on a side of a label's cell: scored once, by the mean of its probabilities.
    sample : str or None
        A labelled probability sample.
    crs, resolution : str or None, float
        Of the grid.
    allow_unmasked : bool
        Whether looks without a mask count.
    canopy_only : bool
        The labels know canopy, not its kind, as a raster cut at a threshold does: the map's kinds are scored together.
    block, folds, trees : int
        Of the forest, and of its cross-validation.
    out : str or None
        Folder or URL for report and pictures; None for the run's own.
    """

    warehouse: str
    area: dict[str, Any]
    model: str
    labels: str
    rules: LabelRules
    until: str | None = None
    window_days: int | None = None
    floor: FloorSource | None = None
    holdout: Holdout | TileSplit | None = None
    cell: int = 1
    sample: str | None = None
    crs: str | None = None
    resolution: float = 10.0
    allow_unmasked: bool = False
    canopy_only: bool = False
    block: int = 20
    folds: int = 5
    trees: int = 100
    out: str | None = None

    def legend(self, classes: tuple[LandClass, ...]) -> tuple[LandClass, ...]:
        """Return the classes that are scored, of a map of these."""
        together = self.canopy_only or self.rules.at_least is not None
        return CANOPY_OR_NOT if together and has_kinds(classes) else classes


@dataclass(frozen=True)
class Mapped:
    """Map and floors on the staging grid, in memory.

    Parameters
    ----------
    values : ndarray, shape (y, x), uint8
        The map's classes.
    probability, forest : ndarray, shape (K, y, x), float32
        Of each class, NaN where there is none.
    ndvi : ndarray, shape (y, x), float32
        Mean of the valid looks.
    """

    values: np.ndarray
    probability: np.ndarray
    forest: np.ndarray
    ndvi: np.ndarray


@dataclass(frozen=True)
class Compared:
    """What is scored: one row per pixel, or per cell of the labels.

    Parameters
    ----------
    labels, mapped : ndarray, shape (N,), uint8
        Class values of reference and map.
    probability, forest : ndarray, shape (N, K)
    ndvi : ndarray, shape (N,)
    """

    labels: np.ndarray
    mapped: np.ndarray
    probability: np.ndarray
    forest: np.ndarray
    ndvi: np.ndarray


def evaluate_canopy(request: CanopyEvaluationRequest, on_progress: Progress | None = None) -> dict[str, Any]:
    """Score a canopy model over an area beside its floors, write report and pictures, and return the report.

    Raises
    ------
    ConfigurationError
        As `score_area`.
    NotFound
        Where there is no such model.
    """
    from tasks.earth.canopy_plots import draw_pictures

    job = map_job(_map_request(request))
    run = _start(request, job)
    out = resolve(request.out) if request.out else run.location
    report = {"run": run.id, **score_area(request, job, on_progress)}
    pictures = draw_pictures(report)
    for name, content in pictures.items():
        out.write_bytes(name, content)
    report |= {"pictures": [str(out / name) for name in pictures], "report": str(out / REPORT)}
    out.write_bytes(REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


def score_area(request: CanopyEvaluationRequest, job: MapJob, on_progress: Progress | None = None) -> dict[str, Any]:
    """Map an area in memory and return the scores of map and floors; nothing is written.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, the model does not fit it, the labels do not, or nothing is left to score.
    """
    plan, legend = job.plan, request.legend(job.spec.classes)
    labels = open_labels(request.labels, legend, request.rules)
    labels.require_overlap([plan.product])
    known, _ = explain_area(plan, labels)
    source, notes = _source(request, job)
    # labels that know no kinds are scored together; those that the forest is trained on may still name them
    taught = legend if source.labels == request.labels or source.rules.at_least is not None else job.spec.classes
    scored, usable = _parts(request, source, plan, taught)
    forests = _forests(request, source, plan, legend=taught, usable=usable, on_progress=on_progress)
    found = map_in_memory(job, forests, legend, on_progress)
    mask = scored & (known.classes != NO_CLASS) & (found.values != NO_CLASS) & np.isfinite(found.forest[0])
    if not mask.any():
        raise ConfigurationError(
            f"{request.labels}: no pixel of the part that is scored has both a label and a clear look"
        )
    place = _cell_offset(labels, plan)
    compared = _compare(found, known.classes, mask, legend, cell=request.cell, offset=place)
    report = {
        **_head(request, job, forests),
        "notes": notes,
        **_scores(compared, legend),
        "sizes": None if request.cell > 1 else _sizes(plan, legend, labels, found=found, mask=mask),
    }
    if request.sample:
        report["accuracy"] = _sampled(request.sample, plan, legend, found)
    return report


def map_in_memory(
    job: MapJob, forests: Forests, legend: tuple[LandClass, ...], on_progress: Progress | None = None
) -> Mapped:
    """Return the map of an area as `canopus map` would stage it, and what the floors say, region by region."""
    plan, classes = job.plan, job.spec.classes
    rows, columns = (int(size) for size in plan.staging.shape)
    found = Mapped(
        np.full((rows, columns), NO_CLASS, np.uint8),
        np.full((len(legend), rows, columns), np.nan, np.float32),
        np.full((len(legend), rows, columns), np.nan, np.float32),
        np.full((rows, columns), np.nan, np.float32),
    )
    fill = job.open()
    taught = forests.classes
    fill_floor = partial(fill_floors, forests=forests, bands=plan.bands, classes=taught)
    floors = floor_layers(len(forests.fitted), taught)
    for count, region in enumerate(plan.regions, start=1):
        place = region["y"], region["x"]
        layers = fill_region(plan, region, map_layers(classes), fill)
        stored = layers["probability"].astype(np.float32) * np.float32(PROBABILITY_SCALE)
        values, probability = layers["class"], np.where(layers["class"] != NO_CLASS, stored, np.float32(np.nan))
        if legend != classes:
            values, probability = kinds_together(values, probability, classes)
        found.values[place], found.probability[:, *place] = values, probability
        beside = fill_region(plan, region, floors, fill_floor)
        every = beside[FOREST].reshape(len(forests.fitted), len(taught), *values.shape)
        own = np.maximum(forests.fold[place], 0)[None, None]
        of_forest = np.take_along_axis(every, own.astype(np.intp), axis=0)[0]
        found.forest[:, *place] = of_forest if taught == legend else kinds_together(values, of_forest, taught)[1]
        found.ndvi[place] = beside[NDVI]
        if on_progress is not None:
            on_progress("map", count, len(plan.regions))
    return found


# --- what is scored ---------------------------------------------------------------------------------------------


def _map_request(request: CanopyEvaluationRequest) -> MapRequest:
    return MapRequest(
        warehouse=request.warehouse,
        area=request.area,
        model=request.model,
        crs=request.crs,
        resolution=request.resolution,
        until=request.until,
        allow_unmasked=request.allow_unmasked,
        window_days=request.window_days,
    )


def _source(request: CanopyEvaluationRequest, job: MapJob) -> tuple[FloorSource, list[str]]:
    """Return what the forest is trained on: as asked, else what the model was, else the labels that are scored."""
    if request.floor is not None:
        return request.floor, []
    _, parts = read_parts(job.plan.root, job.model)
    own = source_of_model(parts.training, area=request.area, warehouse=request.warehouse)
    if own is None:
        return FloorSource(request.labels, request.rules), [FLOOR_OF_SCORED]
    return own, [] if own.is_elsewhere or request.holdout is not None else [TRAINED_HERE]


def _parts(
    request: CanopyEvaluationRequest, source: FloorSource, plan: MapPlan, legend: tuple[LandClass, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return which pixels of the staging grid are scored, and on which the floor may be trained; None for any."""
    if request.holdout is None:
        return np.ones((int(plan.staging.shape[0]), int(plan.staging.shape[1])), bool), None
    if isinstance(request.holdout, Holdout):
        return _held_out(plan, request.holdout)
    known, _ = explain_area(plan, open_labels(source.labels, legend, source.rules))
    split = split_area(known.classes, source.split or request.holdout)
    return split == PARTS.index("test"), split == PARTS.index("train")


def _held_out(plan: MapPlan, holdout: Holdout) -> tuple[np.ndarray, np.ndarray]:
    """Return the held-out and the trainable pixels of every tile on the staging grid."""
    shape = (int(plan.staging.shape[0]), int(plan.staging.shape[1]))
    scored, usable = np.zeros(shape, bool), np.zeros(shape, bool)
    for cube in plan.cubes:
        tile, window = cube.tile.geobox, overlap(cube.tile.geobox, plan.staging)
        if tile.crs != plan.staging.crs or window is None:
            continue
        part = tile[window["y"], window["x"]].affine
        row = round((part.f - plan.staging.affine.f) / plan.staging.affine.e)
        column = round((part.c - plan.staging.affine.c) / plan.staging.affine.a)
        size = window["y"].stop - window["y"].start, window["x"].stop - window["x"].start
        place = slice(row, row + size[0]), slice(column, column + size[1])
        for whole, of_tile in ((scored, holdout.held_out), (usable, holdout.trainable)):
            whole[place] = of_tile((int(tile.shape[0]), int(tile.shape[1])))[window["y"], window["x"]]
    return scored, usable


def _forests(
    request: CanopyEvaluationRequest,
    source: FloorSource,
    plan: MapPlan,
    *,
    legend: tuple[LandClass, ...],
    usable: np.ndarray | None,
    on_progress: Progress | None,
) -> Forests:
    elsewhere = None
    if source.is_elsewhere:
        there = replace(request, warehouse=source.warehouse or request.warehouse, area=source.area or request.area)
        elsewhere = windowed(plan_for(there, until=source.until or request.until), request.window_days)
        if elsewhere.bands != plan.bands:
            raise ConfigurationError(
                f"the floor's labels lie in cubes of {', '.join(elsewhere.bands)}, those scored in cubes of "
                f"{', '.join(plan.bands)}: the forest needs the same bands"
            )
    return forests_of(
        plan,
        source,
        legend,
        elsewhere=elsewhere,
        usable=usable,
        block=request.block,
        folds=request.folds,
        config=ForestConfig(trees=request.trees),
        on_progress=on_progress,
    )


def _cell_offset(labels: Labels, plan: MapPlan) -> tuple[int, int]:
    """Return row and column of a pixel at which a cell of the labels begins."""
    if not isinstance(labels.source, RasterLabels):
        return 0, 0
    import rasterio

    with rasterio.open(labels.source.path) as raster:
        if raster.crs is None or raster.crs != rasterio.crs.CRS.from_user_input(str(plan.staging.crs)):
            return 0, 0
        left, top = raster.transform.c, raster.transform.f
    affine = plan.staging.affine
    return round((top - affine.f) / affine.e), round((left - affine.c) / affine.a)


def _compare(
    found: Mapped,
    labels: np.ndarray,
    mask: np.ndarray,
    classes: tuple[LandClass, ...],
    *,
    cell: int,
    offset: tuple[int, int],
) -> Compared:
    if cell == 1:
        return Compared(
            labels[mask], found.values[mask], found.probability[:, mask].T, found.forest[:, mask].T, found.ndvi[mask]
        )
    of_pixel = _cells(labels.shape, cell, offset)[mask]
    order, of_pixel = np.unique(of_pixel, return_inverse=True)
    count = np.bincount(of_pixel)
    own = labels[mask].astype(np.int64)
    lowest, highest = np.full(order.size, 255), np.zeros(order.size, np.int64)
    np.minimum.at(lowest, of_pixel, own)
    np.maximum.at(highest, of_pixel, own)
    # a cell counts where one label holds, for half of it and more
    kept = (lowest == highest) & (2 * count >= cell * cell)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(of_pixel, values[mask])[kept] / count[kept])

    probability = np.stack([mean(plane) for plane in found.probability], axis=1)
    forest = np.stack([mean(plane) for plane in found.forest], axis=1)
    mapped = np.array([known.value for known in classes], np.uint8)[probability.argmax(axis=1)]
    return Compared(lowest[kept].astype(np.uint8), mapped, probability, forest, mean(found.ndvi))


def _cells(shape: tuple[int, ...], cell: int, offset: tuple[int, int]) -> np.ndarray:
    """Return the number of the cell of each pixel, (y, x)."""
    rows = (np.arange(shape[0]) - offset[0]) // cell
    columns = (np.arange(shape[1]) - offset[1]) // cell
    wide = int(columns.max() - columns.min() + 1)
    return np.asarray((rows - rows.min())[:, None] * wide + (columns - columns.min())[None])


# --- scores -----------------------------------------------------------------------------------------------------


def _scores(compared: Compared, classes: tuple[LandClass, ...]) -> dict[str, Any]:
    model = class_scores(compared.probability, compared.labels, classes=classes, mapped=compared.mapped)
    forest = class_scores(compared.forest, compared.labels, classes=classes)
    floors = {
        FOREST: forest | _curves(compared.forest, compared.labels, classes),
        NDVI: _ndvi_scores(compared, classes),
    }
    return {
        "pixels": len(compared.labels),
        **model,
        **_curves(compared.probability, compared.labels, classes),
        "floors": floors,
        "error_against_floor": _gains(model, floors),
    }


def _curves(probability: np.ndarray, labels: np.ndarray, classes: tuple[LandClass, ...]) -> dict[str, Any]:
    """Return reliability and the precision at every recall, of each class and of canopy."""
    ranked = {known.name: (labels == known.value, probability[:, k]) for k, known in enumerate(classes)}
    place = canopy_of(classes)
    if place is not None:
        ranked["canopy"] = labels != place[0], 1 - probability[:, place[1]].astype(float)
    return {
        "reliability": {name: reliability(*pair) for name, pair in ranked.items()},
        "precision_recall": {name: precision_recall(*pair) for name, pair in ranked.items()},
    }


def _ndvi_scores(compared: Compared, classes: tuple[LandClass, ...]) -> dict[str, Any]:
    """Return the scores of one number as a ranking: the greener, the more canopy, and the less none."""
    place = canopy_of(classes)
    usable = np.isfinite(compared.ndvi)
    if not usable.any():
        return {"classes": {}, "note": "the cubes hold no red and near infrared"}
    labels, ndvi = compared.labels[usable], compared.ndvi[usable].astype(float)
    none = place[0] if place is not None else None
    ranked = {known.name: (labels == known.value, -ndvi if known.value == none else ndvi) for known in classes}
    of_class = {name: _of_number(*pair) for name, pair in ranked.items()}
    found: dict[str, Any] = {"classes": of_class, "note": BEST_F1}
    if none is not None:
        canopy = labels != none
        found["canopy"] = _of_number(canopy, ndvi)
        found["precision_recall"] = {"canopy": precision_recall(canopy, ndvi)}
    return found


def _of_number(positive: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    tried = np.unique(np.quantile(score, np.linspace(0, 1, 201)))
    best = max((f1_score(positive, score >= limit) or 0.0 for limit in tried), default=None)
    return asdict(ranking_scores(positive, score)) | {"f1": best}


def _gains(model: dict[str, Any], floors: dict[str, Any]) -> dict[str, Any]:
    """Return 1 - PR-AUC of the model as a share of each floor's, of each class and of canopy."""
    found: dict[str, Any] = {}
    for floor, scores in floors.items():
        pairs = {name: (model["classes"][name], own) for name, own in scores["classes"].items()}
        if "canopy" in scores:
            pairs["canopy"] = model["canopy"], scores["canopy"]
        found[floor] = {
            name: (1 - ours["pr_auc"]) / (1 - theirs["pr_auc"])
            for name, (ours, theirs) in pairs.items()
            if ours["pr_auc"] is not None and theirs["pr_auc"] not in (None, 1.0)
        }
    return found


def _sizes(
    plan: MapPlan, legend: tuple[LandClass, ...], labels: Labels, *, found: Mapped, mask: np.ndarray
) -> dict[str, Any] | None:
    """Return how well canopy of each width and area is found."""
    place = canopy_of(legend)
    if place is None:
        return None
    none, column = place
    drawn, _ = explain_area(plan, replace(labels, rules=replace(labels.rules, margin=0)))
    canopy = (drawn.classes != none) & (drawn.classes != NO_CLASS)
    pixel_area = abs(plan.staging.affine.a * plan.staging.affine.e)
    values = np.array([known.value for known in legend])
    forest_class = values[found.forest[:, mask].argmax(axis=0)]
    scores = {
        MODEL: (1 - found.probability[column][mask].astype(float), found.values[mask] != none),
        FOREST: (1 - found.forest[column][mask].astype(float), forest_class != none),
    }
    widths, areas = width_classes(canopy)[mask], area_classes(canopy, pixel_area_m2=pixel_area)[mask]
    own = canopy[mask]
    return {
        "width_pixels": size_scores(widths, own, names=WIDTHS, scores=scores),
        "area_hectares": size_scores(areas, own, names=AREAS, scores=scores),
    }


def _sampled(path: str, plan: MapPlan, legend: tuple[LandClass, ...], found: Mapped) -> dict[str, Any]:
    """Return accuracy and areas with intervals, from a labelled sample and the map's class at each of its points."""
    sample = read_sample(path)
    rows, columns = pixels_of(sample, plan.staging)
    inside = (rows >= 0) & (columns >= 0) & (rows < found.values.shape[0]) & (columns < found.values.shape[1])
    names = {known.value: known.name for known in legend}
    here = np.full(len(sample), NO_CLASS, np.uint8)
    here[inside] = found.values[rows[inside], columns[inside]]
    if (here == NO_CLASS).any():
        raise ConfigurationError(
            f"{path}: {int((here == NO_CLASS).sum())} of {len(sample)} points lie outside the map; take the area of the sample"
        )
    mapped = sample.assign(map_class=[names[int(value)] for value in here])
    estimates: AccuracyEstimates = estimate_from_sample(mapped, list(names.values()))
    pixel_area = abs(plan.staging.affine.a * plan.staging.affine.e)
    hectares = float((found.values != NO_CLASS).sum()) * pixel_area / 1e4
    return {"sample": path, **estimates.to_dict(total_hectares=hectares)}


# --- report -----------------------------------------------------------------------------------------------------


def _start(request: CanopyEvaluationRequest, job: MapJob) -> Run:
    asked = asdict(request)
    manifest = {
        "request": asked,
        "model": job.model,
        "config_hash": content_hash({name: value for name, value in asked.items() if name != "warehouse"}),
        "software": {"canopus": version("canopus")},
        "snapshots": {cube.path: cube.snapshot for cube in job.plan.cubes},
    }
    return start_run(job.plan.root, "evaluate", manifest)


def _head(request: CanopyEvaluationRequest, job: MapJob, forests: Forests) -> dict[str, Any]:
    return {
        "model": job.model,
        "warehouse": request.warehouse,
        "cubes": {cube.path: cube.snapshot for cube in job.plan.cubes},
        "date": request.until,
        "window_days": request.window_days,
        "labels": request.labels,
        "rules": asdict(request.rules),
        "holdout": {"kind": type(request.holdout).__name__, **asdict(request.holdout)} if request.holdout else None,
        "cell": request.cell,
        "canopy_only": request.legend(job.spec.classes) != job.spec.classes,
        "floor_trained_on": forests.trained_on,
    }
