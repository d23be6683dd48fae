"""`canopus train diffusion`: what settings mean, what does not go together, and the command in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.config import make_config
from flows.config_sky import TrainDiffusionConfig
from flows.train_diffusion import to_request, train_diffusion_model
from models.diffusion import DiffusionConfig
from storage.location import resolve
from tasks.errors import ConfigurationError
from tasks.sky import diffusion_training, galaxy_pool
from tasks.sky.cutout_pool import StoreChoice
from tasks.sky.galaxy_pool import PoolChoice


def request_of(**given: Any) -> Any:
    return to_request(make_config(TrainDiffusionConfig, given))


def test_by_default_generated_galaxies_as_the_shipped_model() -> None:
    request = request_of()
    assert request.data == PoolChoice()
    assert (request.data.pixels, request.data.pixel_scale_arcsec, request.data.galaxies) == (64, 0.524, 50_000)
    assert request.model == DiffusionConfig()
    assert request.train.steps * request.batch == 1_000_000
    assert request.train.final_share == 1.0
    assert request.train.minutes is None


def test_a_store_is_read_where_one_is_named(tmp_path: Path) -> None:
    store = str(tmp_path / "sky" / "legacy")
    request = request_of(source=store, pixels=128, binned=2, bands="r,z", galaxies=300)
    assert request.data == StoreChoice(resolve(store).url, ("r", "z"), 128, 2, 300)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"binned": 2}, "binned: of a sky store"),
        ({"conditions": "known.csv"}, "conditions: of a sky store"),
        ({"bands": "g,r"}, "generated galaxies have g, r, z"),
        ({"source": "sky/legacy", "pixel_scale": 0.5}, "a store has its own"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        request_of(**given)


@pytest.fixture
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.mark.slow
def test_the_flow_trains_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> None:
    monkeypatch.setattr(galaxy_pool, "PIECE", 64)
    monkeypatch.setattr(diffusion_training, "HELD_OUT", 64)
    network = {"widths": [16], "depths": [1], "attended": 0}
    sizes = {"galaxies": 64, "pixels": 16, "pixel_scale": 1.0, "batch": 16, "samples": 96, "network": network}
    steps = {"checkpoint_every": 2, "log_every": 1, "warmup_steps": 2, "device": "cpu"}
    first, second = (
        train_diffusion_model(make_config(TrainDiffusionConfig, given), return_state=True).result()
        for given in ({"warehouse": str(tmp_path), **sizes, **steps, "minutes": minutes} for minutes in (1e-4, 10))
    )
    assert first.counts["updates"] < 6
    assert "the same command goes on from here" in " ".join(first.notes)
    assert second.counts == {"updates": 6, "galaxies seen": 96}
    assert Path(second.details["model"], "card.md").exists()
