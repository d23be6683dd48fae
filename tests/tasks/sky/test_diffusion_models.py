"""Opening a diffusion model by name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.ddpm_published import PublishedDDPM, PublishedDDPMConfig
from models.diffusion import DiffusionConfig, GalaxyDiffusion
from models.published import write_published
from storage.errors import NotFound
from storage.location import resolve
from tasks.earth.model_files import save_network
from tasks.earth.published_weights import export_weights, import_weights
from tasks.errors import ConfigurationError
from tasks.sky.diffusion_models import open_diffusion

TINY = DiffusionConfig(
    pixels=16,
    widths=(16,),
    depths=(1,),
    attended=0,
    conditions=("redshift",),
    condition_centre=(0.1,),
    condition_spread=(0.05,),
)


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model = GalaxyDiffusion(TINY, generator=torch.Generator().manual_seed(1)).eval()
    save_network(
        resolve(tmp_path),
        "mine",
        model,
        kind="galaxy-diffusion",
        config=asdict(TINY),
        metrics={},
        training={},
        card="A test.",
    )
    found = open_diffusion(resolve(tmp_path), "mine")
    assert found.config == TINY
    noisy, sigma = torch.ones(2, 3, 16, 16), torch.ones(2)
    assert found.denoise(noisy, sigma, torch.ones(2, 1)).equal(model.denoise(noisy, sigma, torch.ones(2, 1)))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="earthpt-distilled is of kind earthpt"):
        open_diffusion(resolve(tmp_path), "earthpt-distilled")
    with pytest.raises(NotFound, match="no model 'nothing'"):
        open_diffusion(resolve(tmp_path), "nothing")


def test_a_published_file_comes_in_is_opened_and_goes_out_again(tmp_path: Path) -> None:
    model = PublishedDDPM(PublishedDDPMConfig(width=8, multipliers=(1, 2), timesteps=6)).eval()
    write_published(model, tmp_path / "00000006-model.pt", "ddpm", history={"step": 6})
    root = resolve(tmp_path / "warehouse")
    reference = import_weights(tmp_path / "00000006-model.pt", None, warehouse=root, name="ddpm")
    found = open_diffusion(root, "ddpm")
    assert isinstance(found, PublishedDDPM)
    assert (found.config.bands, found.config.conditions) == (("g", "r", "z"), ())
    noisy, sigma = torch.ones(2, 3, 16, 16), torch.ones(2)
    assert found.denoise(noisy, sigma).equal(model.denoise(noisy, sigma))
    assert "negative sky and bright cores are lost" in (Path(reference.url) / "card.md").read_text()
    export_weights(root, "ddpm", layout="ddpm", out=tmp_path / "again.pt")
    first, again = (torch.load(tmp_path / name, weights_only=True)["ema"] for name in ("00000006-model.pt", "again.pt"))
    assert first.keys() == again.keys()
    assert all(first[name].equal(again[name]) for name in first)
