"""Galaxies of a model to be scored: the same for a seed, pairs for one seed and two rules."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.registry import KINDS
from storage.errors import NotFound
from storage.location import resolve
from tasks.earth.model_files import save_network
from tasks.sky.diffusion_jobs import SamplingRule
from tasks.sky.generation_sampling import sample_galaxies, sampling

CONFIG = DiffusionConfig(pixels=32, widths=(16, 16), depths=(1, 1), attended=1)


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    model = GalaxyDiffusion(CONFIG, generator=torch.Generator().manual_seed(1))
    kind = next(name for name, kind in KINDS.items() if kind.config is DiffusionConfig)
    save_network(
        resolve(tmp_path), "tiny", model, kind=kind, config=asdict(CONFIG), metrics={}, training={}, card="none"
    )
    return tmp_path


def test_a_seed_gives_the_same_galaxies_and_steps_change_them_little(warehouse: Path) -> None:
    where, rule = resolve(warehouse), SamplingRule("dpm", 4)
    found = sample_galaxies(where, "tiny", 3, 7, rule=rule, device="cpu")
    assert found.images.shape == (3, 3, 32, 32)
    assert found.bands == ("g", "r", "z")
    assert "4 steps of dpm, seed 7" in found.origin
    again = sampling(rule, device="cpu")(where, "tiny", 2, 7)
    np.testing.assert_allclose(again.images, found.images[:2], rtol=1e-4, atol=1e-5)
    other = sample_galaxies(where, "tiny", 3, 8, rule=rule, device="cpu")
    assert not np.allclose(other.images, found.images)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model 'absent'"):
        sample_galaxies(resolve(tmp_path), "absent", 3, 7, rule=SamplingRule(), device="cpu")
