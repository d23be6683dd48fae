"""Training the diffusion model: it learns, goes on where it stopped, and what it leaves opens again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.diffusion import DiffusionConfig
from models.training import TrainConfig
from storage.location import resolve
from tasks.errors import ConfigurationError
from tasks.sky import diffusion_training, galaxy_pool
from tasks.sky.diffusion_models import open_diffusion
from tasks.sky.diffusion_training import DiffusionRequest, train_diffusion
from tasks.sky.galaxy_pool import PoolChoice

TINY = DiffusionConfig(pixels=16, patch=4, widths=(16,), depths=(1,), attended=1)
TRAIN = TrainConfig(
    steps=12,
    learning_rate=3e-3,
    final_share=1.0,
    warmup_steps=2,
    weight_decay=0.0,
    ema_decay=0.5,
    checkpoint_every=4,
    log_every=2,
    seed=3,
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diffusion")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_pool, "PIECE", 64)
    monkeypatch.setattr(diffusion_training, "HELD_OUT", 64)


def request_of(warehouse: Path, **more: object) -> DiffusionRequest:
    given = {"name": "tiny", "train": TRAIN, "data": PoolChoice(64, pixels=16, pixel_scale_arcsec=1.0), "model": TINY}
    return DiffusionRequest(str(warehouse), **{**given, "batch": 16, "device": "cpu", **more})  # type: ignore[arg-type]


def test_a_training_learns_and_says_what_it_did(warehouse: Path) -> None:
    trained = train_diffusion(request_of(warehouse))
    first, last = trained.metrics["held_out_loss"][0][1], trained.metrics["held_out_loss"][-1][1]
    assert last < first < 1.2
    assert trained.training["galaxies"] == 12 * 16
    assert set(trained.metrics["held_out_error"]) == {"0.25", "1", "4", "16", "64"}
    card = (Path(trained.reference.url) / "card.md").read_text()
    assert "192 galaxies seen" in card
    assert "magnitude, colour, size" in card
    assert Path(trained.curve).stat().st_size > 10_000


def test_a_training_in_pieces_gives_the_same_weights_as_one_without(warehouse: Path) -> None:
    whole = train_diffusion(request_of(warehouse, name="whole"))
    pieces = request_of(warehouse, name="pieces", minutes=1e-6)
    first = train_diffusion(pieces)
    assert first.training["steps"] < 12
    assert any("the same command goes on from here" in note for note in first.notes)
    for _ in range(12):
        last = train_diffusion(pieces)
        if last.training["steps"] == 12:
            break
    assert last.training["galaxies"] == 12 * 16
    assert last.reference.weights_sha256 == whole.reference.weights_sha256
    again = train_diffusion(pieces)
    assert again.reference == last.reference
    assert any("is done; --fresh trains anew" in note for note in again.notes)


def test_what_was_trained_opens_again_and_keeps_its_conditions(warehouse: Path) -> None:
    train_diffusion(request_of(warehouse))
    model = open_diffusion(resolve(warehouse), "tiny")
    assert not model.training
    assert model.config.conditions == ("magnitude", "colour", "size")
    drawn = model.draw_conditions(8, generator=torch.Generator().manual_seed(0))
    assert drawn is not None
    assert ((drawn[:, 0] > 8) & (drawn[:, 0] < 20)).all()


def test_a_model_that_is_told_nothing_has_no_conditions(warehouse: Path) -> None:
    train_diffusion(request_of(warehouse, name="plain", conditional=False))
    assert open_diffusion(resolve(warehouse), "plain").config.conditions == ()


def test_a_name_that_is_none_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a model"):
        train_diffusion(request_of(tmp_path, name="a/b"))
    assert not (tmp_path / "pools").exists()


def test_images_that_the_network_cannot_halve_are_refused(warehouse: Path) -> None:
    model = replace(TINY, pixels=96, patch=4, widths=(16, 16, 16, 16), depths=(1, 1, 1, 1))
    with pytest.raises(ConfigurationError, match="images of 16 pixels: take a multiple of 32"):
        train_diffusion(request_of(warehouse, model=model))
