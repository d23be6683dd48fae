"""Training of features: batches are a function of their place, and what is saved opens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.galaxy_features import GalaxyFeaturesConfig
from storage.location import resolve
from tasks.errors import ConfigurationError
from tasks.sky import feature_training
from tasks.sky.feature_training import FeatureBatches, FeatureRequest, train_features
from tasks.sky.generation_features import open_features


@pytest.mark.slow
def test_a_short_training_saves_a_network_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_training, "HELD_OUT", 1)
    reference, metrics = train_features(FeatureRequest(str(tmp_path), "mine", galaxies=256, steps=4, seed=5))
    assert set(metrics["explained"]) >= {
        "magnitude_g",
        "log_radius_arcsec",
        "axis_ratio",
        "log_noise_z",
        "log_psf_fwhm_r",
    }
    opened = open_features(resolve(tmp_path), "mine")
    assert opened.name == f"mine/{reference.version}"
    assert opened.bands == ("g", "r", "z")
    card = (tmp_path / "models" / "mine" / reference.version / "card.md").read_text()
    assert "canopus train features --name mine --galaxies 256 --steps 4 --seed 5" in card


@pytest.mark.slow
def test_a_batch_is_the_same_whenever_it_is_asked_for() -> None:
    request = FeatureRequest("nowhere", galaxies=256, seed=6)
    one, other = (FeatureBatches(request, GalaxyFeaturesConfig()) for _ in range(2))
    first = one.at(1)
    torch.testing.assert_close(first.flux, other.at(1).flux)
    # the next round has the same galaxies in another order
    assert not torch.equal(one.at(5).quantities, first.quantities)
    assert first.quantities.std(dim=0).mean() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("settings", [{"galaxies": 100}, {"steps": 0}])
def test_too_little_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="ask for at least 256 galaxies and one update"):
        train_features(FeatureRequest("nowhere", **settings))  # type: ignore[arg-type]
