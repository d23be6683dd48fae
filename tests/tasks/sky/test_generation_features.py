"""Networks of features: the shipped one, Inception from a file, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generation_cases import drawn

from models.inception import Inception
from models.registry import kind_of
from storage.location import resolve
from tasks.earth.model_files import load_network, save_network
from tasks.errors import ConfigurationError
from tasks.sky.generation_features import SHIPPED, features_of, open_features, open_inception

NOISE = np.array([0.004, 0.005, 0.018])


def test_the_shipped_network_is_small_and_describes_a_galaxy_alone(tmp_path: Path) -> None:
    network = open_features(resolve(tmp_path))
    galaxies = drawn(60, 42)
    found = features_of(galaxies, network, NOISE)
    assert found.shape == (60, 105)
    np.testing.assert_allclose(features_of(galaxies[3:5], network, NOISE), found[3:5], atol=2e-4)
    size = load_network(resolve(tmp_path), SHIPPED).model.state_dict()
    assert sum(tensor.numel() * tensor.element_size() for tensor in size.values()) < 2_000_000


def test_the_shipped_network_tells_what_is_true(tmp_path: Path) -> None:
    """On galaxies that it was not trained on: magnitudes, sizes and noise, by the card."""
    explained = load_network(resolve(tmp_path), SHIPPED).metrics["explained"]
    assert min(explained[f"magnitude_{band}"] for band in "grz") > 0.8
    assert explained["log_radius_arcsec"] > 0.6


def test_inception_takes_weights_from_a_file_and_sees_colours(tmp_path: Path) -> None:
    torch.manual_seed(2)
    torch.save(Inception().state_dict(), tmp_path / "weights.pth")
    network = open_inception(tmp_path / "weights.pth")
    assert network.name == "Inception (weights.pth)"
    assert features_of(drawn(60, 42)[:2], network, NOISE).shape == (2, 2048)


def test_files_and_models_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing is downloaded, so name a file"):
        open_inception(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ConfigurationError, match=r"text\.pth: no file of tensors"):
        open_inception(tmp_path / "text.pth")
    kind = kind_of("pix2prof")
    config = {"width": 4, "layers": 1, "dropout": 0.0}
    save_network(
        resolve(tmp_path),
        "other",
        kind.construct(kind.config(**config)),
        kind="pix2prof",
        config=config,
        metrics={},
        training={},
        card="none",
    )
    with pytest.raises(ConfigurationError, match="model other is a pix2prof, not galaxy-features"):
        open_features(resolve(tmp_path), "other")
