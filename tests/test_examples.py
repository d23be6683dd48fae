"""The scripts in docs/examples do what the pages around them say."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from cube_cases import CORNER, CRS, area_of_pixels, write_looks
from rasterio import Affine

from models.earthpt import EarthPT, EarthPTConfig
from storage.location import resolve
from tasks.earth.embedding_map import EmbedRequest, prepare_embedding
from tasks.earth.model_files import save_network
from tasks.earth.regional import fill_regions, publish_prepared

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
ROWS, COLUMNS = slice(100, 180), slice(200, 280)
DAYS = np.datetime64("2021-01-10") + 30 * np.arange(12)


def example(name: str) -> ModuleType:
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def classes(tmp_path: Path) -> np.ndarray:
    """Write fields of two classes that are green in different seasons, and their labels; return the classes."""
    rng = np.random.default_rng(4)
    classes = np.kron(rng.integers(0, 2, (16, 16)), np.ones((5, 5), dtype=int)).astype(np.uint8)
    turn = 2 * np.pi * np.arange(12)[:, None, None] / 12
    green = 0.5 + 0.3 * np.cos(turn - np.where(classes, 1.5, 4.0)) + rng.normal(0, 0.05, (12, 80, 80))
    bands = np.stack([0.12 - 0.08 * green, 0.15 + 0.4 * green], axis=1)
    looks = (bands * 10_000).round().clip(1, 9999).astype(np.uint16)
    scl = np.full((12, 80, 80), 4, dtype=np.uint8)
    write_looks(tmp_path, ROWS, COLUMNS, looks=looks, scl=scl, days=DAYS, bands=("B04", "B08"))
    corner = Affine(10, 0, CORNER[0] + 10 * COLUMNS.start, 0, -10, CORNER[1] - 10 * ROWS.start)
    profile = {"driver": "GTiff", "height": 80, "width": 80, "count": 1, "dtype": "uint8", "crs": CRS}
    with rasterio.open(tmp_path / "class.tif", "w", transform=corner, nodata=255, **profile) as raster:
        raster.write(classes[None])
    return classes


def test_a_linear_classifier_on_the_embedding_tells_seasons_apart(tmp_path: Path, classes: np.ndarray) -> None:
    model = EarthPT(EarthPTConfig(layers=1, heads=2, width=16), generator=torch.Generator().manual_seed(3))
    told: dict[str, Any] = {"metrics": {}, "training": {}, "card": "Never trained."}
    save_network(resolve(tmp_path), "tiny", model, kind="earthpt", config=asdict(model.config), **told)
    prepared = prepare_embedding(EmbedRequest(str(tmp_path), area_of_pixels(ROWS, COLUMNS), "tiny", crs=CRS))
    fill_regions(prepared, "all", prepared.job.plan.regions)
    receipt = publish_prepared(prepared)
    scores = example("classify_embedding").compare(receipt.item_url, tmp_path / "class.tif", str(tmp_path))
    assert set(scores) == {"embedding", "seasonal means"}
    for found in scores.values():
        assert found["balanced accuracy"] > 0.9
        assert found["PR-AUC"] > 0.95


def test_labels_that_tell_nothing_score_like_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(6, 80, 80)), rng.integers(0, 2, (80, 80))
    scores = example("classify_embedding").score(features, labels, np.ones((80, 80), dtype=bool))
    assert scores["balanced accuracy"] == pytest.approx(0.5, abs=0.05)
    assert scores["PR-AUC"] == pytest.approx(0.5, abs=0.05)
