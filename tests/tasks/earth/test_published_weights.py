"""Published weights through the command line: the original's numbers, the same tensors out again, no code run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from series_cases import SMALL, lively_model
from torch import Tensor

from flows.cli import main
from models.autoregressive import huber
from models.earthpt_published import ALPHABETICAL_BANDS, PublishedEarthPT, PublishedEarthPTConfig
from models.pix2prof import Pix2Prof, Pix2ProfConfig
from models.published import write_published
from models.tokens import Tokens
from storage.location import resolve
from tasks.earth import model_folders
from tasks.earth.model_files import load_network, save_network

NEW_YEAR_2001 = 366.0
Run = Callable[..., str]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def canopus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line and returns what it says."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["canopus", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        assert not stopped.value.code, said.err
        return said.out.strip()

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command which has to fail with one line, and returns that line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["canopus", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        (line,) = said.err.strip().splitlines()
        return line

    return run


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a published file of a small EarthPT."""
    model = PublishedEarthPT(PublishedEarthPTConfig(layers=2, heads=2, width=16, block_size=8))
    write_published(model, tmp_path / "ckpt.pt", "earthpt", history={"iter_num": 7, "best_val_loss": 0.5})
    return tmp_path / "ckpt.pt"


def apart(found: Tensor, known: np.ndarray) -> float:
    assert tuple(found.shape) == known.shape
    return float(np.abs(found.numpy() - known).max())


def test_an_imported_checkpoint_gives_the_numbers_of_the_original(
    shared_data: Path, tmp_path: Path, canopus: Run
) -> None:
    """Predictions, loss, embedding and a roll-out past the block, of the model as it lies in the warehouse."""
    folder, warehouse = shared_data / "checkpoints" / "earthpt_tiny", tmp_path / "warehouse"
    said = canopus("import-weights", folder / "ckpt.pt", "--name", "tiny", "--warehouse", warehouse, "--json")
    network = load_network(resolve(warehouse), "tiny")
    assert json.loads(said.splitlines()[-1]) == asdict(network.reference)
    model, known = network.model, np.load(folder / "io.npz")
    assert isinstance(model, PublishedEarthPT)
    values = torch.from_numpy(known["inputs"][..., :10])
    days = NEW_YEAR_2001 + torch.from_numpy(known["day_of_year"]).float()
    position = torch.stack([days[:-1], days[1:]], dim=-1).expand(len(values), -1, -1)
    series = Tokens(values, position, torch.ones(values.shape[:2], dtype=torch.bool))
    block, context = series.steps(None, 24), int(known["context_steps"])
    with torch.inference_mode():
        predictions = model(block)
        assert apart(predictions, known["predictions"]) <= 2e-5
        assert apart(huber(predictions, block.values, block.valid), known["huber_loss"]) <= 2e-5
        assert apart(model.embedding(block), known["embedding_mean"]) <= 2e-5
        made = model.generate(series.steps(None, context), position[:, context:])
    assert context + made.shape[1] > model.config.block_size
    assert apart(made, known["rollout"][:, context:, :10]) <= 1e-4


def test_what_was_imported_is_exported_with_identical_tensors(shared_data: Path, tmp_path: Path, canopus: Run) -> None:
    original = shared_data / "checkpoints" / "earthpt_tiny" / "ckpt.pt"
    warehouse, again = tmp_path / "warehouse", tmp_path / "again.pt"
    canopus("import-weights", original, "--name", "tiny", "--warehouse", warehouse)
    canopus("export", "tiny", "--layout", "earthpt", "--out", again, "--warehouse", warehouse)
    old, new = (torch.load(file, weights_only=True) for file in (original, again))
    assert old["model"].keys() == new["model"].keys()
    assert all(torch.equal(tensor, new["model"][name]) for name, tensor in old["model"].items())
    assert (old["model_args"], old["iter_num"]) == (new["model_args"], new["iter_num"])
    assert float(old["best_val_loss"]) == new["best_val_loss"]


def test_the_card_tells_where_the_weights_are_from(checkpoint: Path, tmp_path: Path, canopus: Run) -> None:
    canopus("import-weights", checkpoint, "--name", "old", "--warehouse", tmp_path)
    card = Path(load_network(resolve(tmp_path), "old").reference.url, "card.md").read_text()
    for words in ("imported from `ckpt.pt` (sha256 ", "Smith et al. 2023", "- block size: 8", "- iter_num: 7"):
        assert words in card


def test_the_order_of_bands_can_be_told(checkpoint: Path, tmp_path: Path, canopus: Run, refused: Run) -> None:
    order = ",".join(ALPHABETICAL_BANDS)
    canopus("import-weights", checkpoint, "--name", "old", "--warehouse", tmp_path, "--bands", order)
    model = load_network(resolve(tmp_path), "old").model
    assert isinstance(model, PublishedEarthPT)
    assert model.config.bands == ALPHABETICAL_BANDS
    assert "B01" in refused("import-weights", checkpoint, "--name", "x", "--warehouse", tmp_path, "--bands", "B01")


def test_a_file_that_would_run_code_is_refused_and_nothing_runs(checkpoint: Path, tmp_path: Path, refused: Run) -> None:
    mark, warehouse = tmp_path / "ran", tmp_path / "warehouse"
    torch.save(torch.load(checkpoint, weights_only=True) | {"config": Payload(mark)}, checkpoint)
    line = refused("import-weights", checkpoint, "--name", "bad", "--warehouse", warehouse)
    assert "refused" in line
    assert "nothing of it was run" in line
    assert not mark.exists()
    assert not warehouse.exists()


def test_what_cannot_be_imported_is_one_line(checkpoint: Path, tmp_path: Path, refused: Run) -> None:
    named = ("--name", "old", "--warehouse", tmp_path / "warehouse")
    assert "none.pt: no such file" in refused("import-weights", tmp_path / "none.pt", *named)
    assert "--layout other: there are earthpt" in refused("import-weights", checkpoint, "--layout", "other", *named)
    assert "cannot be the name" in refused("import-weights", checkpoint, "--name", "../x")
    checkpoint.write_bytes(b"no checkpoint")
    assert "not a file that torch.save wrote" in refused("import-weights", checkpoint, *named)
    assert not (tmp_path / "warehouse").exists()


def test_a_model_exported_as_a_folder_can_be_shipped(
    tmp_path: Path, canopus: Run, refused: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, shipped = tmp_path / "warehouse", tmp_path / "shipped"
    saved = save_network(
        resolve(warehouse),
        "mine",
        lively_model(3),
        kind="earthpt",
        config=asdict(SMALL),
        metrics={},
        training={},
        card="Small.",
    )
    for _ in range(2):  # over the older copy too
        canopus("export", "mine", "--out", shipped / "earthpt-small", "--warehouse", warehouse)
    monkeypatch.setattr(model_folders, "SHIPPED", shipped)
    found = load_network(resolve(tmp_path / "empty"), "earthpt-small")
    assert found.reference.weights_sha256 == saved.weights_sha256
    assert found.reference.version == saved.version
    assert "no part of a model: name a new folder" in refused(
        "export", "mine", "--out", tmp_path, "--warehouse", warehouse
    )


def test_what_cannot_be_exported_is_one_line(checkpoint: Path, tmp_path: Path, canopus: Run, refused: Run) -> None:
    warehouse, out = tmp_path / "warehouse", tmp_path / "out.pt"
    more = ("--layout", "earthpt", "--warehouse", warehouse, "--out")
    assert "no model 'mine'" in refused("export", "mine", *more, out)
    save_network(
        resolve(warehouse),
        "mine",
        lively_model(3),
        kind="earthpt",
        config=asdict(SMALL),
        metrics={},
        training={},
        card="Small.",
    )
    assert "holds models of kind earthpt-published; mine is of kind earthpt" in refused("export", "mine", *more, out)
    canopus("import-weights", checkpoint, "--name", "old", "--warehouse", warehouse)
    assert "cannot be written" in refused("export", "old", *more, tmp_path / "nowhere" / "out.pt")
    assert "--layout other" in refused("export", "old", "--layout", "other", "--out", out, "--warehouse", warehouse)
    assert not out.exists()


def test_pix2prof_is_recognised_goes_in_and_comes_out_the_same(tmp_path: Path, canopus: Run, refused: Run) -> None:
    original, again, warehouse = tmp_path / "p.pth", tmp_path / "again.pth", tmp_path / "warehouse"
    write_published(Pix2Prof(Pix2ProfConfig(width=4)), original, "pix2prof", history={"epoch": 160})
    canopus("import-weights", original, "--name", "p", "--warehouse", warehouse)
    network = load_network(resolve(warehouse), "p")
    assert (network.kind, network.config["width"]) == ("pix2prof", 4)
    card = Path(network.reference.url, "card.md").read_text()
    for words in ("imported from `p.pth` (sha256 ", "Smith et al. 2021", "- epoch: 160", "0.396 arcsec", "eval mode"):
        assert words in card
    canopus("export", "p", "--layout", "pix2prof", "--out", again, "--warehouse", warehouse)
    old, new = (torch.load(file, weights_only=True) for file in (original, again))
    assert old.keys() == new.keys()
    for part in ("encoder", "decoder"):
        assert old[part].keys() == new[part].keys()
        assert all(torch.equal(tensor, new[part][name]) for name, tensor in old[part].items())
    assert "is of kind pix2prof" in refused(
        "export", "p", "--layout", "earthpt", "--out", again, "--warehouse", warehouse
    )
