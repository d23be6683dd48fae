"""What is measured of a set, and the table of metric and corruption: what is worse has to measure worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from generation_cases import corrupted, drawn

from storage.location import resolve
from tasks.errors import ConfigurationError
from tasks.sky.generation_features import FeatureNetwork, features_of, open_features
from tasks.sky.generation_measures import measure_galaxies
from tasks.sky.generation_metrics import (
    Statistic,
    frechet_distance,
    kernel_distance,
    mean_of_wassersteins,
    sliced_wasserstein,
    sum_of_wassersteins,
)
from tasks.sky.generation_sets import GalaxySet
from tasks.sky.morphology import corner_noise, measure_shapes
from tasks.sky.synthetic_distance import published_quantities, with_radius

COUNT, SCALE = 110, 0.524
NOISE = np.array([0.004, 0.005, 0.018])
STRENGTHS = {
    "blur": (0.7, 1.5, 3.0),
    "noise": (1.0, 2.0, 4.0),
    "band swap": (0.1, 0.3, 1.0),
    "flux": (0.2, 0.5, 1.0),
    "colour": (0.1, 0.3, 0.6),
    "size": (1.2, 1.5, 2.0),
}


@cache
def shipped() -> FeatureNetwork:
    return open_features(resolve(Path("nowhere")))


def features(galaxies: GalaxySet) -> np.ndarray:
    return features_of(galaxies, shipped(), NOISE)


def published(galaxies: GalaxySet) -> np.ndarray:
    return published_quantities(galaxies.images, SCALE)


def half_light(galaxies: GalaxySet) -> np.ndarray:
    return with_radius(published(galaxies)[:, :3], measure_shapes(galaxies.images[:, 0]).half_light * SCALE)


def plane(galaxies: GalaxySet) -> np.ndarray:
    return published(galaxies)[:, [1, 4]]


def noise(galaxies: GalaxySet) -> np.ndarray:
    return np.log10(corner_noise(galaxies.images)[0])


def correlation(galaxies: GalaxySet) -> np.ndarray:
    return corner_noise(galaxies.images)[1]


Measure = Callable[[GalaxySet], np.ndarray]
METRICS: dict[str, tuple[Measure, Statistic]] = {
    "FID": (features, frechet_distance),
    "KID": (features, kernel_distance),
    "SGD": (published, sum_of_wassersteins),
    "SGD, half-light": (half_light, sum_of_wassersteins),
    "plane": (plane, sliced_wasserstein),
    "noise": (noise, mean_of_wassersteins),
    "correlation": (correlation, mean_of_wassersteins),
}
TABLE = [
    *((metric, how) for metric in ("FID", "KID") for how in ("blur", "noise", "band swap", "flux")),
    *(("SGD", how) for how in ("flux", "colour", "size")),
    ("noise", "noise"),
]
MORE = [
    *(("SGD, half-light", how) for how in ("flux", "colour", "size")),
    *(("plane", how) for how in ("flux", "colour")),
    ("correlation", "blur"),
]


@cache
def measured(measure: Measure, how: str = "", strength: float = 0.0, seed: int = 31) -> np.ndarray:
    galaxies = drawn(COUNT, seed)
    return measure(corrupted(galaxies, how, strength) if how else galaxies)


@pytest.mark.parametrize(("metric", "how"), [*TABLE, *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)])
def test_a_metric_rises_with_a_corruption(metric: str, how: str) -> None:
    """From the floor, two sets of the generator, over three strengths of what is wrong with one of them."""
    measure, statistic = METRICS[metric]
    real = measured(measure, seed=32)
    found = [statistic(real, measured(measure))]
    found += [statistic(real, measured(measure, how, strength)) for strength in STRENGTHS[how]]
    assert found == sorted(found), found
    assert found[-1] > 1.5 * max(found[0], 0), found


def test_every_galaxy_is_measured_and_power_falls_with_blur() -> None:
    galaxies = drawn(COUNT, 31)[:60]
    found, smooth = (measure_galaxies(one, shipped()) for one in (galaxies, corrupted(galaxies, "blur", 1.0)))
    assert np.isfinite(found.everything).all(axis=1).mean() > 0.95
    assert found.everything.shape == (60, 6 + 1 + 5 + 3 + 3 + 3 * 10 + 105)
    assert found.quantities == ("m_g", "m_r", "m_z", "radius", "g-r", "r-z")
    bins = len(found.waves)
    lost = (found.spectrum - smooth.spectrum)[:, bins : 2 * bins].mean(axis=0)
    # a Gaussian of 0.524 arcsec takes exp(-(2 pi k sigma)^2) of the power
    expected = (2 * np.pi * found.waves * SCALE) ** 2 / np.log(10)
    np.testing.assert_allclose(lost[2:7], expected[2:7], rtol=0.25, atol=0.05)


@pytest.mark.slow
def test_half_light_radii_are_in_arcsec_and_follow_the_zoom() -> None:
    one, larger = (measured(half_light, *how)[:, 3] for how in ((), ("size", 1.5)))
    small = one < 3.0
    assert np.median(larger[small] / one[small]) == pytest.approx(1.45, abs=0.15)


def test_images_that_the_network_does_not_know_are_refused() -> None:
    galaxies = drawn(COUNT, 31)
    with pytest.raises(ConfigurationError, match=r"takes pixels of 0\.524 arcsec, and these have 0\.3"):
        measure_galaxies(replace(galaxies, pixel_scale_arcsec=0.3), shipped())
    with pytest.raises(ConfigurationError, match="takes bands g, r, z, and these are g, r, i"):
        measure_galaxies(replace(galaxies, bands=("g", "r", "i")), shipped())
    broken = galaxies.images.copy()
    broken[0, 0, 0, 0] = np.inf
    with pytest.raises(ConfigurationError, match="no finite number"):
        measure_galaxies(replace(galaxies, images=broken))
