"""Distances of sets: closed forms, no bias where none is claimed, parity with torchmetrics, and copies that are found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from tasks.errors import ConfigurationError
from tasks.sky.generation_metrics import (
    area_under_curve,
    around,
    bootstrap,
    bootstrap_kernel_distance,
    classifier_scores,
    difference,
    extrapolated_frechet,
    frechet_distance,
    kernel_difference,
    kernel_distance,
    mean_of_wassersteins,
    memorisation,
    sliced_wasserstein,
    sum_of_wassersteins,
    wasserstein,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class AsTheyAre(torch.nn.Module):
    """Gives torchmetrics features in place of images."""

    num_features = 6

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_wasserstein_of_a_shift_and_of_a_stretch() -> None:
    values = generator().normal(size=4000)
    assert wasserstein(values, values + 0.7) == pytest.approx(0.7)
    # of a standard normal and one twice as wide: the mean of |x|
    assert wasserstein(values, 2 * values) == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)
    table = np.stack([values, values], axis=1)
    assert sum_of_wassersteins(table, table + np.array([0.1, 0.2])) == pytest.approx(0.3)
    assert mean_of_wassersteins(table, table + np.array([0.1, 0.2])) == pytest.approx(0.15)


def test_sliced_wasserstein_of_a_shift_is_two_over_pi_of_its_length() -> None:
    plane = generator().normal(size=(500, 2))
    assert sliced_wasserstein(plane, plane + np.array([0.6, 0.8])) == pytest.approx(2 / np.pi, rel=0.01)


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    """Means (0, 0) and (3, 4), standard deviations 1, 2 and 2, 5: 25 + 1 + 9 in any rotation of both."""
    rng = generator(1)
    one, other = (_exactly(rng.normal(size=(400, 2))) for _ in range(2))
    first, second = one * [1, 2], other * [2, 5] + [3, 4]
    assert frechet_distance(first, second) == pytest.approx(25 + 1 + 9)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(35)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_and_kernel_distance_are_those_of_torchmetrics() -> None:
    rng = generator(2)
    one, other = rng.normal(size=(300, 6)), rng.normal(0.3, 1.2, size=(300, 6))
    frechet = FrechetInceptionDistance(feature=AsTheyAre()).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(feature=AsTheyAre(), subsets=1, subset_size=300)
    for metric in (frechet, kernel):
        metric.update(torch.from_numpy(one), real=True)
        metric.update(torch.from_numpy(other), real=False)
    assert frechet_distance(one, other) == pytest.approx(float(frechet.compute()), rel=1e-6)
    assert kernel_distance(one, other) == pytest.approx(float(kernel.compute()[0]), rel=1e-6)


def test_kernel_distance_of_one_distribution_is_nothing_on_average() -> None:
    found = [kernel_distance(*generator(seed).normal(size=(2, 30, 8))) for seed in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0 < max(found)
    # the same with a Frechet distance is far above its error: it has a bias
    biased = [frechet_distance(*generator(seed).normal(size=(2, 30, 8))) for seed in range(50)]
    assert np.mean(biased) > 10 * np.std(biased) / np.sqrt(len(biased))


def test_extrapolation_takes_the_bias_off_and_says_nothing_of_few() -> None:
    rng = generator(3)
    same = rng.normal(size=(2, 2000, 20))
    assert frechet_distance(*same) > 0.1
    assert abs(extrapolated_frechet(*same, generator=rng)) < 0.05
    assert np.isnan(extrapolated_frechet(*rng.normal(size=(2, 100, 20)), generator=rng))


def test_intervals_hold_the_truth() -> None:
    """A shift of 0.5 between normals of 200: the interval holds it in at least 85 of 100 draws."""
    held, width = 0, []
    for seed in range(100):
        rng = generator(seed)
        one, other = rng.normal(size=200), rng.normal(0.5, 1, size=200)
        found = bootstrap(lambda a, b: float(b.mean() - a.mean()), one, other, generator=rng, resamples=100)
        held += found.low <= 0.5 <= found.high
        width.append(found.high - found.low)
    assert held >= 85
    assert np.mean(width) == pytest.approx(4 * np.sqrt(2 / 200), rel=0.15)


def test_the_bootstrap_of_the_kernel_distance_scatters_as_fresh_draws_do() -> None:
    fresh = [kernel_distance(*_apart(generator(seed))) for seed in range(60)]
    found = bootstrap_kernel_distance(*_apart(generator(999)), generator=generator(5), resamples=100)
    assert (found.high - found.low) / 3.92 == pytest.approx(np.std(fresh), rel=0.4)


def test_what_two_sets_share_cancels_in_their_difference() -> None:
    rng = generator(6)
    real, one = rng.normal(size=(400, 3)), rng.normal(0.2, 1, size=(400, 3))
    worse = one + 0.1
    paired = difference(sum_of_wassersteins, real, worse, one, generator=rng)
    alone = bootstrap(sum_of_wassersteins, real, worse, generator=rng)
    assert paired.value == pytest.approx(0.3, abs=0.1)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    nothing = difference(sum_of_wassersteins, real, one, one, generator=rng)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    kernels = kernel_difference(real, worse, one, generator=rng)
    assert kernels.low > 0
    assert kernels.value == pytest.approx(kernel_distance(real, worse) - kernel_distance(real, one))


def test_an_estimate_is_centred_on_its_value_whatever_the_bias_of_resampling() -> None:
    found = around(1.0, np.array([2.0, 3.0, 4.0]))
    assert found.low < 1.0 < found.high


def test_copies_of_training_galaxies_are_found_however_they_are_turned() -> None:
    rng = generator(7)
    train, held_out, fresh = (rng.normal(size=(100, 3, 8, 8)) for _ in range(3))
    copies = np.rot90(train[:, :, :, ::-1], 1, (-2, -1)) + 0.01 * rng.normal(size=train.shape)
    found = memorisation(copies, train, held_out)
    assert found.share.value == 1.0
    assert found.close.value == 1.0
    assert (found.nearest == np.arange(100)).all()
    honest = memorisation(fresh, train, held_out)
    assert honest.share.low < 0.5 < honest.share.high
    assert honest.close.value < 0.06


def test_half_copies_give_three_quarters() -> None:
    rng = generator(8)
    train, held_out, fresh = (rng.normal(size=(200, 1, 2, 2)) for _ in range(3))
    found = memorisation(np.concatenate([train[:100], fresh[:100]]), train, held_out)
    assert found.share.value == pytest.approx(0.75, abs=0.08)


def test_an_unfair_test_of_memory_is_refused() -> None:
    images = np.zeros((4, 1, 8, 8))
    with pytest.raises(ConfigurationError, match="4 training galaxies and 3 held-out ones"):
        memorisation(images, images, images[:3])


def test_a_classifier_is_at_chance_on_one_distribution_and_sure_of_two() -> None:
    rng = generator(9)
    real, same, other = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)), rng.normal(1.2, 1, size=(200, 4))
    other[:20, 0] = np.nan
    assert area_under_curve(*classifier_scores(real, same, seed=1)) == pytest.approx(0.5, abs=0.08)
    assert area_under_curve(*classifier_scores(real, other, seed=1)) > 0.9


def _exactly(sample: np.ndarray) -> np.ndarray:
    """Return a sample of mean 0 and unit covariance, to rounding."""
    sample = sample - sample.mean(axis=0)
    return sample @ np.linalg.inv(np.linalg.cholesky(np.cov(sample, rowvar=False))).T


def _apart(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(150, 4)), rng.normal(0.4, 1, size=(150, 4))
