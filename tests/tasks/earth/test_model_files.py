"""Networks at rest: the same after loading, with physical units in the file, and refused where something is off."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from series_cases import SMALL, answers, lively_model, questions, series

from models.earthpt import EarthPT
from models.earthpt_published import PublishedEarthPT, PublishedEarthPTConfig
from storage.errors import SchemaMismatch
from storage.location import Location, resolve
from tasks.earth.model_files import load_network, save_network
from tasks.earth.model_folders import ModelParts, ModelReference, save_parts
from tasks.errors import ConfigurationError

METRICS = {"ndvi": {"mae": 0.07}}


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path / "warehouse")


def save(warehouse: Location, model: EarthPT | None = None, **more: Any) -> ModelReference:
    given = {"kind": "earthpt", "config": asdict(SMALL), "metrics": METRICS, "training": {"seed": 3}, "card": "Small."}
    return save_network(warehouse, "small", model or lively_model(3), **given | more)


def test_a_loaded_network_answers_as_the_one_that_was_saved(warehouse: Location) -> None:
    model = lively_model(3)
    model.get_buffer("spread")[:, 0] = 1.5
    reference = save(warehouse, model)
    loaded = load_network(warehouse, "small")
    assert isinstance(loaded.model, EarthPT)
    assert not loaded.model.training
    batch = series()
    assert torch.equal(answers(loaded.model, batch, questions(batch)), answers(model, batch, questions(batch)))
    assert (loaded.reference, loaded.kind, loaded.config) == (reference, "earthpt", asdict(SMALL))
    assert (loaded.metrics, loaded.training) == (METRICS, {"seed": 3})
    assert load_network(warehouse, f"small/{reference.version}").reference == reference


def test_the_file_tells_kind_settings_and_units(warehouse: Location) -> None:
    folder = resolve(save(warehouse).url)
    config = json.loads(folder.read_bytes("config.json"))
    assert config["kind"] == "earthpt"
    assert config["settings"]["width"] == SMALL.width
    assert config["numbers"]["inputs"]["units"] == "1"
    assert config["numbers"]["position"] == "days since 2000-01-01"
    assert config["numbers"]["outputs"]["quantiles"] == [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    assert folder.read_bytes("card.md").decode() == f"# small, version {folder.name}\n\nSmall.\n"


def test_other_weights_are_another_version(warehouse: Location) -> None:
    one, again, other = save(warehouse), save(warehouse), save(warehouse, lively_model(4))
    assert one == again
    assert one.version != other.version


def test_the_published_kind_keeps_its_order_of_bands(warehouse: Location) -> None:
    model = PublishedEarthPT(PublishedEarthPTConfig(1, 2, 16, 8))
    save_network(
        warehouse,
        "old",
        model,
        kind="earthpt-published",
        config=model.to_config(),
        metrics={},
        training={},
        card="Old.",
    )
    loaded = load_network(warehouse, "old").model
    assert isinstance(loaded, PublishedEarthPT)
    assert loaded.config == model.config


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": "forest"}, "no network of kind 'forest'"),
        ({"config": {"depth": 2}}, "no setting depth"),
        ({"config": asdict(SMALL) | {"layers": 3}}, r"make EarthPTConfig\(layers=3,.* model is of .*layers=2,"),
        ({"kind": "earthpt-published", "config": {}}, r"make PublishedEarthPTConfig\(.* model is of EarthPTConfig"),
    ],
)
def test_settings_that_do_not_make_the_model_are_refused(
    warehouse: Location, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        save(warehouse, **more)
    assert not warehouse.list_folders("models")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2.*this code reads"),
        ({"numbers": {}}, "meaning of its numbers"),
        ({"settings": {"depth": 1}}, "no setting depth"),
        (
            {"settings": asdict(SMALL) | {"layers": 3}},
            r"not those of its settings: core\.h\.2\.ln_1\.weight is missing",
        ),
        ({"settings": asdict(SMALL) | {"layers": 1}}, r"core\.h\.1\.ln_1\.weight is unknown"),
        ({"settings": asdict(SMALL) | {"width": 16}}, r"has shape \(.*\) and not \(.*; and \d+ more"),
    ],
)
def test_a_file_of_other_code_is_refused(warehouse: Location, change: dict[str, Any], message: str) -> None:
    folder = resolve(save(warehouse).url)
    folder.write_bytes("config.json", json.dumps(json.loads(folder.read_bytes("config.json")) | change).encode())
    with pytest.raises(SchemaMismatch, match=message):
        load_network(warehouse, "small")


def test_weights_that_are_no_tensors_are_refused(warehouse: Location) -> None:
    """A pickle in the place of the weights, its hash in the config: still nothing of it runs."""
    folder = resolve(save(warehouse).url)
    pickled = b"cos\nsystem\n(S'exit 1'\ntR."
    folder.write_bytes("weights.safetensors", pickled)
    config = json.loads(folder.read_bytes("config.json")) | {"weights_sha256": hashlib.sha256(pickled).hexdigest()}
    folder.write_bytes("config.json", json.dumps(config).encode())
    with pytest.raises(SchemaMismatch, match="small"):
        load_network(warehouse, "small")


def test_a_classifier_is_no_network(warehouse: Location) -> None:
    save_parts(warehouse, "floor", ModelParts(b"", {"kind": "forest"}, {}, {}, ""))
    with pytest.raises(ConfigurationError, match="model floor is a forest; wanted is a network: earthpt"):
        load_network(warehouse, "floor")
