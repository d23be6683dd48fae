"""Generated galaxies scored against real ones: every metric beside its floor, two disjoint sets of real galaxies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.location import Location, resolve
from tasks.errors import ConfigurationError
from tasks.progress import report as report_progress
from tasks.sky.generation_features import SHIPPED, FeatureNetwork, open_features, open_inception
from tasks.sky.generation_measures import Measured, measure_galaxies, noise_of
from tasks.sky.generation_metrics import (
    FEWEST_FOR_FID,
    Estimate,
    Memory,
    area_under_curve,
    bootstrap,
    bootstrap_kernel_distance,
    classifier_scores,
    extrapolated_frechet,
    frechet_distance,
    mean_of_wassersteins,
    memorisation,
    sliced_wasserstein,
    sum_of_wassersteins,
    wasserstein,
)
from tasks.sky.generation_rules import compare_rules, sample_twice
from tasks.sky.generation_scores import Scored
from tasks.sky.generation_sets import (
    GalaxySet,
    Grid,
    Sampled,
    onto_one_grid,
    open_galaxies,
    require_galaxies,
    thumbnails,
)

REPORT, PICTURE, PAGE = "evaluation.json", "evaluation.png", "evaluation.md"
FEWEST = 50
_TOO_NEAR = 0.03


@dataclass(frozen=True)
class GenerationRequest:
    """What is scored against what.

    Parameters
    ----------
    warehouse : str
        URL.
    generated, real : str
        See `generation_sets.open_galaxies`.
    train : str, optional
        What the model was trained on; its first galaxies, where they are the generator's.
    count : int
        Galaxies of each set; fewer where there are no more. Twice as many real ones are read.
    seed : int
        Of every choice, and of noise that a model is sampled from.
    features : str
        Model of kind galaxy-features.
    inception : str, optional
        File of Inception's weights, which then takes its place.
    resamples : int
        Of the bootstrap.
    beside_count : int
        Galaxies that are made by another rule, too.
    out : Path, optional
        Folder for report, page and picture.
    """

    warehouse: str
    generated: str
    real: str
    train: str | None = None
    count: int = 5000
    seed: int = 0
    features: str = SHIPPED
    inception: str | None = None
    resamples: int = 200
    beside_count: int = 512
    out: Path | None = None


@dataclass(frozen=True)
class _Metric:
    name: str
    label: str
    unit: str
    pick: Callable[[Measured], NDArray[np.float64]]
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def evaluate_generation(request: GenerationRequest, sample: Sampled, beside: Sampled | None = None) -> dict[str, Any]:
    """Return the scores of generated galaxies, JSON types.

    Parameters
    ----------
    request : GenerationRequest
        What is scored.
    sample : callable
        Draws from a model by name.
    beside : callable, optional
        Draws from it by another rule, from the same noise: what the two differ by is scored too.

    Raises
    ------
    ConfigurationError, NotFound
        Where a set is not there, cannot be compared with another, or is too small; where train and real are the same.
    """
    _require_sense(request)
    warehouse = resolve(request.warehouse)
    network = open_inception(request.inception) if request.inception else open_features(warehouse, request.features)
    generated, real, train = _open_sets(request, warehouse, sample)
    scored = score_sets(
        generated,
        real,
        train=train,
        network=network,
        seed=request.seed,
        resamples=request.resamples,
        most=request.count,
    )
    found = scored.report
    if beside is not None:
        count = min(request.beside_count, found["n"])
        made = sample_twice(warehouse, request.generated, count, request.seed + 1, rules=(sample, beside))
        found["rules"] = compare_rules(made, scored, network, seed=request.seed, resamples=request.resamples)
    found["request"] = {name: value for name, value in asdict(request).items() if name not in ("out", "warehouse")}
    if request.out is not None:
        from tasks.sky.generation_report import draw_evaluation, write_page

        request.out.mkdir(parents=True, exist_ok=True)
        (request.out / PICTURE).write_bytes(draw_evaluation(scored))
        (request.out / PAGE).write_text(write_page(found, PICTURE))
        (request.out / REPORT).write_text(json.dumps(found, indent=1))
        found["page"] = str(request.out / PAGE)
    return found


def score_sets(
    generated: GalaxySet,
    real: GalaxySet,
    *,
    train: GalaxySet | None = None,
    network: FeatureNetwork | None = None,
    seed: int = 0,
    resamples: int = 200,
    most: int | None = None,
) -> Scored:
    """Return the scores of a set against half of another; the other half gives the floor.

    Parameters
    ----------
    generated, real, train : GalaxySet
        Of the same bands. As many generated galaxies are scored as half of the real ones are, or fewer.
    network : FeatureNetwork, optional
        For FID and KID, where it takes such images.
    seed : int
        Of bootstrap, folds and extrapolation.
    resamples : int
        Of the bootstrap.
    most : int, optional
        Galaxies of each set at most.

    Raises
    ------
    ConfigurationError
        Where images are not finite, of other bands or pixels, or fewer than 50 of each.
    """
    sets = [generated, real] if train is None else [generated, real, train]
    for one in sets:
        require_galaxies(one)
    notes = [
        f"{one.left_out} objects of {one.origin} are of another size or lack data: left out"
        for one in sets
        if one.left_out
    ]
    generated, real, *rest = onto_one_grid(*sets)
    count = min(len(generated), len(real) // 2, most or len(generated))
    if count < FEWEST:
        raise ConfigurationError(
            f"{len(generated)} generated and {len(real)} real galaxies: at least {FEWEST} and {2 * FEWEST} are needed, "
            "half of the real ones for the floor"
        )
    if network is not None and (refusal := network.refusal(real)):
        notes.append(f"no FID and no KID: {refusal}")
        network = None
    generated, real, other = generated[:count], real[:count], real[count : 2 * count]
    measured, noise = [], noise_of(real)
    for number, one in enumerate((generated, real, other), start=1):
        measured.append(measure_galaxies(one, network, noise=noise))
        report_progress("measure", "galaxies", number, 3)
    made, truth, floor = measured
    metrics = _metrics(made, truth, floor, seed=seed, resamples=resamples)
    if network is not None:
        metrics |= _feature_metrics(made, truth, floor, seed=seed, resamples=resamples)
    metrics["classifier"] = _classifier(made, truth, floor, seed=seed, resamples=resamples)
    found: dict[str, Any] = {
        "generated": generated.origin,
        "real": real.origin,
        "n": count,
        "pixels": int(real.images.shape[-1]),
        "pixel_scale_arcsec": real.pixel_scale_arcsec,
        "bands": list(real.bands),
        "features": network.name if network else None,
        "seed": seed,
        "metrics": metrics,
        "parts": _parts(made, truth, floor),
    }
    if network is not None and count < FEWEST_FOR_FID:
        notes.append(f"FID of {count} images: below {FEWEST_FOR_FID:,} it is mostly bias; quote KID, or take more")
    held = rest[0] if rest else None
    memory = None
    if held is not None:
        memory, scores = _memorisation(generated, real, other, held)
        found["memorisation"] = scores
    found["notes"] = notes
    return Scored(found, generated, real, made, truth, floor, memory.nearest if memory else None, held)


def _require_sense(request: GenerationRequest) -> None:
    if request.count < FEWEST:
        raise ConfigurationError(f"--count {request.count}: at least {FEWEST}")
    if request.train is not None and request.train == request.real:
        raise ConfigurationError(
            f"--train and --real are both {request.real}: real galaxies have to be held out of training"
        )


def _open_sets(
    request: GenerationRequest, warehouse: Location, sample: Sampled
) -> tuple[GalaxySet, GalaxySet, GalaxySet | None]:
    """Return the sets; the generator's galaxies are drawn on the grid of what is scored."""
    generated = open_galaxies(request.generated, warehouse, count=request.count, seed=request.seed + 1, sample=sample)
    grid = Grid(generated.images.shape[-1], generated.pixel_scale_arcsec)
    options = {"sample": sample, "grid": grid, "bands": generated.bands}
    real = open_galaxies(request.real, warehouse, count=2 * request.count, seed=request.seed, **options)  # type: ignore[arg-type]
    if request.train is None:
        return generated, real, None
    train = open_galaxies(request.train, warehouse, count=request.count, seed=request.seed + 2, **options)  # type: ignore[arg-type]
    if train.origin == real.origin:
        raise ConfigurationError(
            f"--train and --real are both {real.origin}: real galaxies have to be held out of training"
        )
    return generated, real, train


_METRICS = (
    _Metric("sgd", "Synthetic Galaxy Distance", "mag + arcsec", lambda m: m.published, sum_of_wassersteins),
    _Metric(
        "sgd_half_light", "the same, half-light radii", "mag + arcsec", lambda m: m.half_light, sum_of_wassersteins
    ),
    _Metric("colour_magnitude", "colour-magnitude plane", "mag", lambda m: m.plane, sliced_wasserstein),
    _Metric("spectrum", "power spectrum", "dex", lambda m: m.spectrum, mean_of_wassersteins),
    _Metric("noise", "noise level", "dex", lambda m: m.noise, mean_of_wassersteins),
    _Metric("correlation", "lag-1 correlation of noise", "", lambda m: m.correlation, mean_of_wassersteins),
    _Metric("concentration", "concentration", "", lambda m: m.shapes.concentration, wasserstein),
    _Metric("asymmetry", "asymmetry", "", lambda m: m.shapes.asymmetry, wasserstein),
    _Metric("gini", "Gini coefficient", "", lambda m: m.shapes.gini, wasserstein),
    _Metric("m20", "M20", "dex", lambda m: m.shapes.m20, wasserstein),
    _Metric("ellipticity", "ellipticity", "", lambda m: m.shapes.ellipticity, wasserstein),
)


def _metrics(made: Measured, truth: Measured, floor: Measured, *, seed: int, resamples: int) -> dict[str, Any]:
    """Return every metric of what is measured, by name."""
    found = {}
    for number, metric in enumerate(_METRICS, start=1):
        values = [metric.pick(one) for one in (made, truth, floor)]
        estimates, dropped = [], []
        for one in (values[0], values[2]):
            rows = _finite(one) & _finite(values[1])
            dropped.append(1 - rows.mean())
            if rows.sum() < FEWEST:
                raise ConfigurationError(f"{metric.label}: {rows.sum()} of {len(rows)} galaxies can be measured")
            generator = np.random.default_rng([seed, number])
            estimates.append(
                bootstrap(metric.statistic, values[1][rows], one[rows], generator=generator, resamples=resamples)
            )
        found[metric.name] = _entry(metric.label, metric.unit, *estimates, n=len(values[0]), dropped=dropped)
        report_progress("compare", "metrics", number, len(_METRICS))
    return found


def _feature_metrics(made: Measured, truth: Measured, floor: Measured, *, seed: int, resamples: int) -> dict[str, Any]:
    assert made.features is not None
    assert truth.features is not None
    assert floor.features is not None
    rows = len(made.features)
    pairs = [(truth.features, one) for one in (made.features, floor.features)]
    fid, kid, limit = [], [], []
    for pair in pairs:
        generator = np.random.default_rng([seed, 100])
        fid.append(bootstrap(frechet_distance, *pair, generator=generator, resamples=resamples))
        kid.append(bootstrap_kernel_distance(*pair, generator=generator, resamples=resamples))
        limit.append(_none(extrapolated_frechet(*pair, generator=generator)))
    found = {
        "fid": _entry("FID", "", *fid, n=rows),
        "kid": _entry("KID", "", *kid, n=rows),
    }
    found["fid"] |= {"extrapolated": limit[0], "floor_extrapolated": limit[1], "quotable": rows >= FEWEST_FOR_FID}
    # the floor of a distance without bias scatters about 0: a ratio to it says nothing
    found["kid"]["ratio"] = None
    return found


def _classifier(made: Measured, truth: Measured, floor: Measured, *, seed: int, resamples: int) -> dict[str, Any]:
    estimates = []
    for one in (made, floor):
        scores = classifier_scores(truth.everything, one.everything, seed=seed)
        generator = np.random.default_rng([seed, 200])
        estimates.append(bootstrap(area_under_curve, *scores, generator=generator, resamples=resamples))
    entry = _entry("classifier, area under curve", "", *estimates, n=len(made.published))
    entry["ratio"] = None
    return entry


def _parts(made: Measured, truth: Measured, floor: Measured) -> dict[str, Any]:
    """Return the terms of the Synthetic Galaxy Distance, and of half-light radii."""
    names = [*truth.quantities, "half-light radius"]
    tables = [np.column_stack([one.published, one.half_light[:, len(one.bands)]]) for one in (made, truth, floor)]
    found = {}
    for place, name in enumerate(names):
        one, real, other = (table[:, place] for table in tables)
        found[name] = {"value": _finite_wasserstein(real, one), "floor": _finite_wasserstein(real, other)}
    return found


def _finite_wasserstein(real: NDArray[np.float64], one: NDArray[np.float64]) -> float:
    rows = np.isfinite(real) & np.isfinite(one)
    return wasserstein(real[rows], one[rows])


def _memorisation(
    generated: GalaxySet, real: GalaxySet, other: GalaxySet, train: GalaxySet
) -> tuple[Memory, dict[str, Any]]:
    """Return the nearest-neighbour test, and the same of real galaxies in place of generated ones."""
    count = min(len(train), len(other))
    softening = noise_of(real)
    small = [thumbnails(one, softening) for one in (generated, real, other[:count], train[:count])]
    memory = memorisation(small[0], small[3], small[2])
    floor = memorisation(small[1], small[3], small[2])
    # some galaxies are near to many, and shift the share of real ones too: what is above theirs was learned by heart
    fires = memory.share.value > floor.share.value + _TOO_NEAR and memory.share.low > floor.share.high
    fires = fires or memory.close.low > max(2 * floor.close.value, 0.02)
    verdict = (
        "memorised: generated galaxies lie nearer to the training set" if fires else "no sign of memorised galaxies"
    )
    return memory, {
        "n": count,
        "train": train.origin,
        "share": memory.share.value,
        "low": memory.share.low,
        "high": memory.share.high,
        "floor": floor.share.value,
        "close": memory.close.value,
        "close_floor": floor.close.value,
        "memorised": bool(fires),
        "verdict": verdict,
    }


def _finite(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1), dtype=np.bool_)


def _entry(
    label: str, unit: str, value: Estimate, floor: Estimate, *, n: int, dropped: list[float] | None = None
) -> dict[str, Any]:
    shares = dropped or [0.0, 0.0]
    return {
        "label": label,
        "unit": unit,
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "floor": floor.value,
        "floor_low": floor.low,
        "floor_high": floor.high,
        "ratio": value.value / floor.value if floor.value > 0 else None,
        "n": n,
        "dropped": float(shares[0]),
        "floor_dropped": float(shares[1]),
    }


def _none(value: float) -> float | None:
    return value if math.isfinite(value) else None
