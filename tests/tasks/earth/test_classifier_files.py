"""Models in a warehouse: saved whole or not at all, found by name, the same after loading, safe to load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.forest import ForestClassifier, ForestConfig, feature_names
from storage.classes import CANOPY_CLASSES
from storage.errors import NotFound, SchemaMismatch
from storage.location import Location, resolve
from tasks.earth.classifier_files import load_classifier, save_classifier
from tasks.earth.model_folders import ModelReference, list_models
from tasks.errors import ConfigurationError

BANDS = ("B04", "B08")
METRICS: dict[str, Any] = {
    "evaluation": "pooled 5-fold",
    "classes": {
        "none": {"roc_auc": 0.9, "pr_auc": 0.8, "prevalence": 0.7},
        "conifer": {"roc_auc": None, "pr_auc": None, "prevalence": 0.0},
    },
}


def classifier(seed: int = 0) -> ForestClassifier:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(90, len(feature_names(BANDS)))).astype(np.float32)
    return ForestClassifier(BANDS, (0, 1, 2), ForestConfig(trees=4, seed=seed)).fit(features, np.arange(90) % 3)


def save(warehouse: Location, *, seed: int = 0, name: str = "floor") -> ModelReference:
    return save_classifier(
        warehouse, name, classifier(seed), classes=CANOPY_CLASSES, metrics=METRICS, training={"seed": seed}
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path / "warehouse")


def test_a_loaded_model_is_the_one_that_was_saved(warehouse: Location) -> None:
    reference = save(warehouse)
    loaded = load_classifier(warehouse, "floor")
    features = np.random.default_rng(5).normal(size=(50, len(feature_names(BANDS)))).astype(np.float32)
    np.testing.assert_array_equal(loaded.classifier.predict_proba(features), classifier().predict_proba(features))
    assert loaded.classes == CANOPY_CLASSES
    assert loaded.metrics == METRICS
    assert loaded.reference == reference
    assert loaded.classifier.bands == BANDS


def test_the_folder_holds_five_files_and_no_pickle(warehouse: Location, tmp_path: Path) -> None:
    reference = save(warehouse)
    folder = tmp_path / "warehouse" / "models" / "floor" / reference.version
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "config.json",
        "card.md",
        "metrics.json",
        "training.json",
    }
    assert reference.weights_sha256 == hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert reference.url == str(folder)
    assert json.loads((folder / "training.json").read_text()) == {"seed": 0}
    card = (folder / "card.md").read_text()
    assert "| none | 0.800 | 0.900 | 0.700 |" in card
    assert "| conifer | - | - | 0.000 |" in card


def test_the_same_model_keeps_its_version_and_another_gets_its_own(warehouse: Location) -> None:
    one, again, other = save(warehouse), save(warehouse), save(warehouse, seed=1)
    assert one == again
    assert one.version != other.version
    assert len(one.version) == 12
    assert list_models(warehouse) == {"floor": sorted([one.version, other.version])}


def test_the_model_saved_last_is_the_default_and_others_go_by_version(warehouse: Location) -> None:
    one, other = save(warehouse), save(warehouse, seed=1)
    assert load_classifier(warehouse, "floor").reference == other
    assert load_classifier(warehouse, "floor", one.version).reference == one
    assert load_classifier(warehouse, f"floor/{one.version}").reference == one
    save(warehouse)
    assert load_classifier(warehouse, "floor").reference == one


def test_a_version_without_config_does_not_exist_yet(warehouse: Location) -> None:
    reference = save(warehouse)
    half = warehouse / "models" / "floor" / "0123456789ab"
    half.write_bytes("weights.safetensors", b"half")
    assert load_classifier(warehouse, "floor").reference == reference
    with pytest.raises(NotFound, match=f"no version 0123456789ab; it has {reference.version}"):
        load_classifier(warehouse, "floor/0123456789ab")


def test_config_is_written_last(warehouse: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = Location.write_bytes

    def note(self: Location, name: str, data: bytes) -> None:
        written.append(name)
        real(self, name, data)

    monkeypatch.setattr(Location, "write_bytes", note)
    save(warehouse)
    assert written[-2:] == ["config.json", "latest.json"]
    assert written[0] == "weights.safetensors"


def test_a_missing_model_says_what_is_there(warehouse: Location) -> None:
    with pytest.raises(NotFound, match="it holds none"):
        load_classifier(warehouse, "floor")
    save(warehouse, name="oaks")
    with pytest.raises(NotFound, match="there are: oaks"):
        load_classifier(warehouse, "floor")


def test_without_a_mark_a_single_version_will_do_but_two_must_be_named(warehouse: Location) -> None:
    one = save(warehouse)
    (warehouse / "models" / "floor").delete("latest.json")
    assert load_classifier(warehouse, "floor").reference == one
    save(warehouse, seed=1)
    (warehouse / "models" / "floor").delete("latest.json")
    with pytest.raises(NotFound, match="name one of them"):
        load_classifier(warehouse, "floor")


def test_damaged_files_are_refused(warehouse: Location) -> None:
    reference = save(warehouse)
    folder = warehouse / "models" / "floor" / reference.version
    weights, config = folder.read_bytes("weights.safetensors"), folder.read_bytes("config.json")
    folder.write_bytes("weights.safetensors", weights[:-8] + bytes(8))
    with pytest.raises(SchemaMismatch, match="sha256"):
        load_classifier(warehouse, "floor")
    folder.write_bytes("weights.safetensors", b"not tensors")
    other = json.loads(config) | {"weights_sha256": hashlib.sha256(b"not tensors").hexdigest()}
    folder.write_bytes("config.json", json.dumps(other).encode())
    with pytest.raises(SchemaMismatch):
        load_classifier(warehouse, "floor")
    folder.write_bytes("weights.safetensors", weights)
    folder.write_bytes("config.json", json.dumps(json.loads(config) | {"version": "99"}).encode())
    with pytest.raises(SchemaMismatch, match="version '99'"):
        load_classifier(warehouse, "floor")
    folder.write_bytes("config.json", b"{")
    with pytest.raises(SchemaMismatch, match="not JSON"):
        load_classifier(warehouse, "floor")


@pytest.mark.parametrize("name", ["", "../floor", ".hidden", "a b"])
def test_names_that_are_no_folder_are_refused(warehouse: Location, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        save(warehouse, name=name)
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        load_classifier(warehouse, name)
