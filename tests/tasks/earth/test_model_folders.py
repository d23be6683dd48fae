"""Folders of models: shipped ones stand in for those that a warehouse lacks, and copies are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import NotFound, SchemaMismatch
from storage.location import Location, resolve
from tasks.earth import model_folders
from tasks.earth.model_folders import ModelParts, copy_model, list_shipped, read_parts, save_parts


def parts(weights: bytes = b"weights") -> ModelParts:
    return ModelParts(weights, {"kind": "none"}, {"mae": 0.1}, {"seed": 0}, "A card.")


@pytest.fixture
def warehouse(tmp_path: Path) -> Location:
    return resolve(tmp_path / "warehouse")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Return the folder of shipped models, one in it: `small`, of other weights than those of `parts`."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(model_folders, "SHIPPED", folder)
    elsewhere = resolve(tmp_path / "elsewhere")
    save_parts(elsewhere, "small", parts(b"shipped"))
    copy_model(elsewhere, "small", resolve(folder) / "small")
    return resolve(folder)


def test_parts_come_back_as_they_were_saved(warehouse: Location) -> None:
    saved = save_parts(warehouse, "small", parts())
    reference, found = read_parts(warehouse, "small")
    assert reference == saved
    assert found.weights == b"weights"
    assert found.config == {"kind": "none", "weights_sha256": reference.weights_sha256}
    assert (found.metrics, found.training) == ({"mae": 0.1}, {"seed": 0})
    assert found.card == f"# small, version {reference.version}\n\nA card.\n"


def test_a_shipped_model_stands_in_for_one_that_is_not_there(warehouse: Location, shipped: Location) -> None:
    reference, found = read_parts(warehouse, "small")
    assert found.weights == b"shipped"
    assert reference.url == str(shipped / "small")
    assert list_shipped() == {"small": reference.version}
    assert read_parts(warehouse, f"small/{reference.version}")[0] == reference


def test_a_model_of_the_warehouse_comes_before_a_shipped_one_and_versions_choose(
    warehouse: Location, shipped: Location
) -> None:
    own = save_parts(warehouse, "small", parts())
    (version,) = list_shipped().values()
    assert read_parts(warehouse, "small")[0] == own
    assert read_parts(warehouse, f"small/{own.version}")[1].weights == b"weights"
    assert read_parts(warehouse, f"small/{version}")[1].weights == b"shipped"
    with pytest.raises(NotFound, match=rf"no version 0123; it has {own.version}, {version} \(shipped\)"):
        read_parts(warehouse, "small/0123")


def test_what_is_nowhere_lists_both(warehouse: Location, shipped: Location) -> None:
    with pytest.raises(NotFound, match="it holds none; shipped with canopus: small"):
        read_parts(warehouse, "large")
    save_parts(warehouse, "oaks", parts())
    with pytest.raises(NotFound, match="there are: oaks; shipped with canopus: small"):
        read_parts(warehouse, "large")


def test_without_shipped_models_none_are_listed(
    warehouse: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folders, "SHIPPED", tmp_path / "nowhere")
    assert list_shipped() == {}
    with pytest.raises(NotFound, match="shipped with canopus: none"):
        read_parts(warehouse, "large")
    assert not (tmp_path / "nowhere").exists()


def test_a_copy_cut_off_does_not_exist(warehouse: Location, shipped: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying over an older model: at no moment does the old config stand beside new weights."""
    save_parts(warehouse, "small", parts())
    real = Location.write_bytes

    def full(self: Location, name: str, data: bytes) -> None:
        if name == "card.md":
            raise OSError("disk full")
        real(self, name, data)

    monkeypatch.setattr(Location, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        copy_model(warehouse, "small", shipped / "small")
    assert list_shipped() == {}
    monkeypatch.undo()


def test_a_shipped_model_that_is_damaged_is_refused(warehouse: Location, shipped: Location) -> None:
    (shipped / "small").write_bytes("weights.safetensors", b"other")
    with pytest.raises(SchemaMismatch, match="sha256"):
        read_parts(warehouse, "small")
