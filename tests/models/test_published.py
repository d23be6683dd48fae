"""Published checkpoints: no code runs, every difference is named, and what is written is read back the same."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.earthpt_published import ALPHABETICAL_BANDS, PublishedEarthPT, PublishedEarthPTConfig
from models.published import LAYOUTS, LayoutMismatch, UnsafeCheckpoint, read_published, unwrap, write_published

CONFIG = PublishedEarthPTConfig(layers=2, heads=2, width=16, block_size=8)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a published file of a small EarthPT."""
    path = tmp_path / "ckpt.pt"
    write_published(PublishedEarthPT(CONFIG), path, "earthpt", history={"iter_num": 7, "best_val_loss": 0.5})
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Write a file again after an edit."""
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)
    return path


def weights(path: Path) -> dict[str, Tensor]:
    return read_published(path, "earthpt").model.state_dict()


def test_what_was_written_is_read_back_the_same(path: Path) -> None:
    found = read_published(path, "earthpt")
    assert isinstance(found.model, PublishedEarthPT)
    assert found.model.config == CONFIG
    own = PublishedEarthPT(CONFIG).state_dict()
    assert found.model.state_dict().keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.model.state_dict().items())
    assert found.history["iter_num"] == 7
    assert found.history["best_val_loss"] == 0.5


def test_the_file_has_the_published_names_and_shapes(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    assert set(content) == {"model", "optimizer", "model_args", "iter_num", "best_val_loss", "config"}
    assert content["model_args"] == {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "n_chan": 14,
        "block_size": 8,
        "dropout": 0.0,
    }
    assert {name: tuple(tensor.shape) for name, tensor in content["model"].items() if ".h.1." not in name} == {
        "transformer.wte.0.weight": (16, 14),
        "transformer.wte.0.bias": (16,),
        "transformer.wte.2.weight": (16, 16),
        "transformer.wte.2.bias": (16,),
        "transformer.wte.weight": (10, 16),
        "transformer.wpe.weight": (8, 16),
        "transformer.h.0.ln_1.weight": (16,),
        "transformer.h.0.ln_2.weight": (16,),
        "transformer.h.0.attn.c_attn.weight": (48, 16),
        "transformer.h.0.attn.c_proj.weight": (16, 16),
        "transformer.h.0.mlp.c_fc.weight": (64, 16),
        "transformer.h.0.mlp.c_proj.weight": (16, 64),
        "transformer.ln_f.weight": (16,),
        "lm_head.weight": (10, 16),
    }
    optimiser = torch.optim.AdamW(PublishedEarthPT(CONFIG).parameters())
    groups = content["optimizer"]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == len(optimiser.param_groups[0]["params"])


def test_the_real_layout_goes_through_unchanged(shared_data: Path, tmp_path: Path) -> None:
    original = shared_data / "checkpoints" / "earthpt_tiny" / "ckpt.pt"
    found = read_published(original, "earthpt")
    write_published(found.model, tmp_path / "again.pt", "earthpt", history=found.history)
    old, new = (torch.load(file, weights_only=True) for file in (original, tmp_path / "again.pt"))
    assert old["model"].keys() == new["model"].keys()
    assert all(torch.equal(tensor, new["model"][name]) for name, tensor in old["model"].items())
    for name in ("model_args", "iter_num", "config"):
        assert old[name] == new[name]
    assert float(old["best_val_loss"]) == new["best_val_loss"]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_and_nothing_runs(path: Path, tmp_path: Path, legacy: bool) -> None:
    mark = tmp_path / "ran"
    content = torch.load(path, weights_only=True) | {"config": Payload(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpoint, match=r"refused.*system.*nothing of it was run"):
        read_published(path, "earthpt")
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the payload is a real one
    assert mark.exists()


def test_a_bare_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "bare.pt"
    path.write_bytes(pickle.dumps({"model": Payload(mark)}, protocol=2))
    with pytest.raises((UnsafeCheckpoint, LayoutMismatch)):
        read_published(path, "earthpt")
    assert not mark.exists()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_stripped(path: Path, prefix: str) -> None:
    plain = weights(path)
    change(path, lambda content: content.update(model={prefix + k: v for k, v in content["model"].items()}))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights(path).items())


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(LayoutMismatch, match=r"two weights are called a\.b"):
        unwrap({"a.b": torch.zeros(1), "module.a.b": torch.zeros(1)})


def test_the_stray_alias_may_be_missing_but_not_differ(path: Path) -> None:
    plain = weights(path)
    change(path, lambda content: content["model"].pop("transformer.wte.weight"))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights(path).items())
    change(path, lambda content: content["model"].update({"transformer.wte.weight": torch.ones(10, 16)}))
    with pytest.raises(LayoutMismatch, match=r"wte\.weight ought to be lm_head\.weight once more"):
        read_published(path, "earthpt")


def test_mask_buffers_of_old_torch_are_ignored(path: Path) -> None:
    mask = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 8, 8).tril() for layer in range(2)}
    plain = weights(path)
    change(path, lambda content: content["model"].update(mask))
    assert weights(path).keys() == plain.keys()


def test_half_precision_becomes_single(path: Path) -> None:
    change(path, lambda content: content.update(model={k: v.half() for k, v in content["model"].items()}))
    assert {tensor.dtype for tensor in weights(path).values()} == {torch.float32}


def test_every_wrong_name_and_shape_is_named_at_once(path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        del content["model"]["transformer.h.1.ln_2.weight"]
        content["model"]["transformer.h.2.ln_2.weight"] = torch.ones(16)
        content["model"]["transformer.wpe.weight"] = torch.ones(9, 16)

    with pytest.raises(LayoutMismatch) as raised:
        read_published(change(path, edit), "earthpt")
    message = str(raised.value)
    assert "missing weight transformer.h.1.ln_2.weight" in message
    assert "unknown weight transformer.h.2.ln_2.weight" in message
    assert "transformer.wpe.weight has shape (9, 16), expected (8, 16)" in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["model"].update(extra=torch.ones(1)), "unknown weight extra"),
        (lambda content: content["model"].update({"lm_head.weight": "text"}), r"lm_head\.weight is no tensor"),
        (lambda content: content.pop("model"), "no dictionary of weights"),
        (lambda content: content.pop("model_args"), "no 'model_args'"),
        (lambda content: content["model_args"].pop("n_head"), "no whole number from 1 to 65536 for n_head"),
        (lambda content: content["model_args"].update(n_layer=10**9), "for n_layer"),
        (lambda content: content["model_args"].update(n_chan=18), "n_chan 18; this layout has 14"),
        (lambda content: content["model_args"].update(n_head=3), "width 16 is not a multiple of 3 heads"),
    ],
)
def test_what_is_not_the_layout_is_refused(path: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(LayoutMismatch, match=message):
        read_published(change(path, edit), "earthpt")


def test_damaged_files_are_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(LayoutMismatch, match=r"ckpt\.pt"):
            read_published(path, "earthpt")
    with pytest.raises(FileNotFoundError):
        read_published(tmp_path / "none.pt", "earthpt")


def test_an_unknown_layout_lists_the_known_ones(path: Path) -> None:
    with pytest.raises(LayoutMismatch, match="no layout 'other'; there are: earthpt"):
        read_published(path, "other")


def test_the_order_of_bands_can_be_told(path: Path) -> None:
    found = read_published(path, "earthpt", more={"bands": ALPHABETICAL_BANDS})
    assert isinstance(found.model, PublishedEarthPT)
    assert found.model.config.bands == ALPHABETICAL_BANDS
    with pytest.raises(LayoutMismatch, match="B01"):
        read_published(path, "earthpt", more={"bands": ("B01",)})


def test_names_go_to_ours_and_back() -> None:
    for layout in LAYOUTS.values():
        for theirs, ours in layout.prefixes:
            assert layout.own_name(f"{theirs}x") == f"{ours}x"
            assert layout.published_name(f"{ours}x") == f"{theirs}x"
