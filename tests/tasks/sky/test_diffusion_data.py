"""Batches of galaxies, how they are turned, and the scale that is measured of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.diffusion import KEPT_CONDITIONS, DiffusionConfig
from tasks.errors import ConfigurationError
from tasks.sky.diffusion_data import GalaxyBatches, independent_bands, kept_conditions, measure_config, noise_of, turned
from tasks.sky.galaxy_pool import Pool

SMALL = DiffusionConfig(pixels=16, patch=2, widths=(16,), depths=(1,), attended=0)


def pool_of(count: int = 80, *, noise: tuple[float, ...] = (0.01, 0.02, 0.05), pixels: int = 16) -> Pool:
    """Return noise with a bright source in the middle; a condition says which galaxy it is."""
    rng = np.random.default_rng(0)
    flux = rng.normal(size=(count, 3, pixels, pixels)) * np.array(noise)[:, None, None]
    flux[:, :, pixels // 2, pixels // 2] += 5.0
    numbers = np.arange(count, dtype=np.float32)[:, None]
    return Pool(flux.astype(np.float16), numbers, ("number",), ("g", "r", "z"), 0.524)


def test_every_galaxy_is_seen_once_before_one_is_seen_again() -> None:
    batches = GalaxyBatches(pool_of(80), 32, seed=3)
    seen = np.concatenate([batches.at(position)["conditions"][:, 0].numpy() for position in range(5)])
    assert sorted(seen[:80]) == sorted(seen[80:160]) == list(range(80))
    assert not np.array_equal(seen[:80], seen[80:160])


def test_a_batch_is_the_same_whenever_it_is_asked_for() -> None:
    batches, again, other = (GalaxyBatches(pool_of(), 16, seed=seed) for seed in (3, 3, 4))
    for position in (7, 2):
        assert batches.at(position)["flux"].equal(again.at(position)["flux"])
    assert not batches.at(2)["flux"].equal(other.at(2)["flux"])
    assert batches.tokens(batches.at(0)) == 16


def test_images_are_turned_in_eight_ways_that_keep_pixels() -> None:
    image = np.arange(9).reshape(1, 3, 3)
    ways = {turned(image, way).tobytes() for way in range(8)}
    assert len(ways) == 8
    assert all(sorted(turned(image, way).ravel()) == list(range(9)) for way in range(8))


def test_images_of_a_batch_are_those_of_the_pool_turned() -> None:
    pool = pool_of()
    batch = GalaxyBatches(pool, 64, seed=0).at(0)
    found = []
    for flux, number in zip(batch["flux"].numpy(), batch["conditions"][:, 0].numpy(), strict=True):
        ways = [way for way in range(8) if np.array_equal(turned(pool.flux[int(number)], way), flux)]
        assert len(ways) == 1
        found += ways
    assert set(found) == set(range(8))


def test_noise_is_measured_beside_the_galaxy() -> None:
    np.testing.assert_allclose(noise_of(pool_of(400).flux.astype(np.float32)), [0.01, 0.02, 0.05], rtol=0.02)


def test_the_scale_of_a_pool_is_measured() -> None:
    pool = pool_of(400)
    config = measure_config(pool, SMALL)
    scaled = np.arcsinh(pool.flux.astype(np.float64) / np.array(config.softening)[:, None, None])
    np.testing.assert_allclose(config.softening, 4 * np.array([0.01, 0.02, 0.05]), rtol=0.02)
    mixed = np.einsum("ij,njyx->niyx", np.array(config.mixing).reshape(3, 3), scaled)
    np.testing.assert_allclose(config.sigma_data, np.sqrt((mixed**2).mean(axis=(0, 2, 3))), rtol=1e-3)
    assert config.sigma_data[0] > config.sigma_data[1] > config.sigma_data[2]
    assert config.sigma_max >= 0.999 * np.sqrt((scaled**2).sum(axis=(1, 2, 3))).max()
    assert config.conditions == ("number",)
    np.testing.assert_allclose([*config.condition_centre, *config.condition_spread], [199.5, 115.5], rtol=1e-3)
    assert (config.pixels, config.widths, config.pixel_scale_arcsec) == (16, (16,), 0.524)


def test_bands_are_mixed_so_that_they_are_independent() -> None:
    generator = torch.Generator().manual_seed(0)
    alike = 5 * torch.randn(50, 1, 8, 8, generator=generator)
    rows, spread = independent_bands(alike + 0.1 * torch.randn(50, 3, 8, 8, generator=generator))
    torch.testing.assert_close(rows @ rows.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(rows[0], torch.full((3,), 3**-0.5, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(spread, torch.tensor([5 * 3**0.5, 0.1, 0.1], dtype=torch.float64), rtol=0.05, atol=0)


def test_conditions_that_a_model_keeps_are_those_of_galaxies() -> None:
    kept = kept_conditions(pool_of(), 0)
    assert kept.shape == (KEPT_CONDITIONS, 1)
    assert set(kept[:, 0].tolist()) <= set(range(80))


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="63 galaxies to train on: 64 or more"):
        measure_config(pool_of(63), SMALL)
    spoilt = pool_of()
    spoilt.flux[3, 1, 2, 2] = np.nan
    with pytest.raises(ConfigurationError, match="not finite"):
        measure_config(spoilt, SMALL)
    with pytest.raises(ConfigurationError, match="no noise at all"):
        measure_config(pool_of(noise=(0.0, 0.1, 0.1)), SMALL)
    with pytest.raises(ConfigurationError, match="take a multiple of 2"):
        measure_config(pool_of(pixels=15), SMALL)
