"""Two ways of sampling one model from the same noise: by how much one lies farther from real galaxies than the other."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storage.location import Location
from tasks.errors import ConfigurationError
from tasks.sky.generation_features import FeatureNetwork
from tasks.sky.generation_measures import Measured, measure_galaxies, noise_of
from tasks.sky.generation_metrics import (
    bootstrap_kernel_distance,
    difference,
    kernel_difference,
    sum_of_wassersteins,
)
from tasks.sky.generation_scores import Scored
from tasks.sky.generation_sets import GalaxySet, Sampled, onto_one_grid
from tasks.sky.morphology import Values


@dataclass(frozen=True)
class TwoRules:
    """Galaxies made by two rules from the same noise, row by row.

    Parameters
    ----------
    one, other : GalaxySet
        The rule that is judged, and the one it is held against.
    images_per_second : tuple of float
        Of each, in this run.
    """

    one: GalaxySet
    other: GalaxySet
    images_per_second: tuple[float, float]


def sample_twice(warehouse: Location, name: str, count: int, seed: int, *, rules: tuple[Sampled, Sampled]) -> TwoRules:
    """Return galaxies of a model by two rules, and how fast each was."""
    made, pace = [], []
    for draws in rules:
        begun = time.perf_counter()
        made.append(draws(warehouse, name, count, seed))
        pace.append(count / (time.perf_counter() - begun))
    return TwoRules(made[0], made[1], (pace[0], pace[1]))


def compare_rules(
    rules: TwoRules, scored: Scored, network: FeatureNetwork | None = None, *, seed: int = 0, resamples: int = 200
) -> dict[str, Any]:
    """Return distances of one rule minus those of the other, paired, beside the floor of as many real galaxies; JSON types.

    Raises
    ------
    ConfigurationError
        Where the two are not as many, or fewer real galaxies were scored.
    """
    count = len(rules.one)
    real, half = scored.measured_real, scored.measured_other
    if len(rules.other) != count or count > len(real.published):
        raise ConfigurationError(
            f"{count} and {len(rules.other)} galaxies by two rules, {len(real.published)} real ones: take as many of each"
        )
    one, other, _ = onto_one_grid(rules.one, rules.other, scored.real)
    if network is not None and network.refusal(one):
        network = None
    noise = noise_of(scored.real)
    first, second = (measure_galaxies(each, network, noise=noise) for each in (one, other))
    found: dict[str, Any] = {
        "one": one.origin,
        "other": other.origin,
        "n": count,
        "images_per_second": list(rules.images_per_second),
        "sgd": _distances(real, half, first, second, count, seed=seed, resamples=resamples),
    }
    features = [each.features for each in (real, half, first, second)]
    if network is not None and all(each is not None for each in features):
        truth, rest, mine, theirs = (np.asarray(each)[:count] for each in features)
        generator = np.random.default_rng([seed, 301])
        paired = kernel_difference(truth, mine, theirs, generator=generator, resamples=resamples)
        floor = bootstrap_kernel_distance(truth, rest, generator=generator, resamples=resamples)
        found["kid"] = asdict(paired) | {"floor": floor.value, "floor_high": floor.high}
    return found


def _distances(
    real: Measured, half: Measured, first: Measured, second: Measured, count: int, *, seed: int, resamples: int
) -> dict[str, Any]:
    tables: list[Values] = [each.published[:count] for each in (real, half, first, second)]
    rows = np.all([np.isfinite(table).all(axis=1) for table in tables], axis=0)
    truth, rest, mine, theirs = (table[rows] for table in tables)
    generator = np.random.default_rng([seed, 300])
    paired = difference(sum_of_wassersteins, truth, mine, theirs, generator=generator, resamples=resamples)
    return asdict(paired) | {"floor": sum_of_wassersteins(truth, rest), "dropped": float(1 - rows.mean())}
