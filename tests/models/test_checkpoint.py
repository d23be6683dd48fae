"""What is written comes back bit for bit, what is damaged is passed over, and what is of something else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from series_cases import SMALL, series

from models.checkpoint import INDEX, Checkpoint, CheckpointError, Subject, load_checkpoint, save_checkpoint
from models.earthpt import EarthPT
from models.tokens import Tokens
from models.training import TrainConfig, TrainState, fit
from storage.location import Location, resolve

CONFIG = TrainConfig(steps=6, learning_rate=1e-3, warmup_steps=2, ema_decay=0.9, checkpoint_every=2)
SUBJECT = Subject(CONFIG, "earthpt", {"layers": 2}, {"prior": {"seed": 3}})


class MadeUp:
    """Made-up pixel series."""

    def at(self, position: int) -> Tokens:
        return series(count=2, seed=position)

    def tokens(self, batch: Tokens) -> int:
        return int(batch.valid.sum())


@pytest.fixture(scope="module")
def states() -> list[TrainState]:
    """Return where training stands after two, four and six steps."""
    kept: list[TrainState] = []
    fit(EarthPT(SMALL), MadeUp(), CONFIG, checkpoint=lambda state: kept.append(state))
    return kept


def same(first: TrainState, second: TrainState) -> bool:
    def equal(one: object, other: object) -> bool:
        if isinstance(one, torch.Tensor):
            return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        if isinstance(one, dict):
            return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
        return type(one) is type(other) and one == other

    return all(equal(getattr(first, name), getattr(second, name)) for name in TrainState.__annotations__)


def write_all(folder: Location, states: list[TrainState]) -> None:
    for state in states:
        save_checkpoint(folder, Checkpoint(state, notes={"step": state.step}), SUBJECT)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, states: list[TrainState]) -> None:
    best = {"weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}
    save_checkpoint(resolve(tmp_path), Checkpoint(states[0], best, {"best": 0.1 + 0.2}), SUBJECT)
    found = load_checkpoint(resolve(tmp_path), SUBJECT)
    assert found is not None
    assert same(found.state, states[0])
    assert torch.equal(found.best["weight"], best["weight"])
    assert found.notes == {"best": 0.1 + 0.2}
    assert found.passed_over == ()


def test_training_from_a_file_equals_training_that_never_stopped(tmp_path: Path, states: list[TrainState]) -> None:
    write_all(resolve(tmp_path), states[:2])
    found = load_checkpoint(resolve(tmp_path), SUBJECT)
    assert found is not None
    resumed = fit(EarthPT(SMALL), MadeUp(), CONFIG, found.state)
    assert same(replace(resumed, elapsed_s=0), replace(states[-1], elapsed_s=0))


def test_a_state_without_average_or_optimiser_comes_back(tmp_path: Path) -> None:
    state = TrainState({"weight": torch.ones(2)}, step=3)
    save_checkpoint(resolve(tmp_path), Checkpoint(state), SUBJECT)
    found = load_checkpoint(resolve(tmp_path), SUBJECT)
    assert found is not None
    assert same(found.state, state)


def test_the_last_two_are_kept(tmp_path: Path, states: list[TrainState]) -> None:
    write_all(resolve(tmp_path), states)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000006"]


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(resolve(tmp_path / "nowhere"), SUBJECT) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", INDEX])
def test_a_damaged_newest_gives_way_to_the_one_before(
    tmp_path: Path, states: list[TrainState], damage: object, name: str
) -> None:
    write_all(resolve(tmp_path), states)
    assert callable(damage)
    damage(tmp_path / "00000006" / name)
    found = load_checkpoint(resolve(tmp_path), SUBJECT)
    assert found is not None
    assert same(found.state, states[1])
    (word,) = found.passed_over
    assert "00000006" in word


def test_where_all_are_damaged_the_error_says_so(tmp_path: Path, states: list[TrainState]) -> None:
    write_all(resolve(tmp_path), states)
    for path in tmp_path.glob("*/model.safetensors"):
        cut(path)
    with pytest.raises(CheckpointError, match="no checkpoint is whole: checkpoint 00000006: model"):
        load_checkpoint(resolve(tmp_path), SUBJECT)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(SUBJECT, train=replace(CONFIG, steps=7)), "train.steps was 6, now 7"),
        (replace(SUBJECT, config={"layers": 3}), "config.layers was 2, now 3"),
        (replace(SUBJECT, data={"prior": {"seed": 4}}), "data.prior.seed was 3, now 4"),
        (replace(SUBJECT, data={}), "data.prior was {'seed': 3}, now None"),
        (replace(SUBJECT, kind="galaxy"), "kind was earthpt, now galaxy"),
    ],
)
def test_other_settings_are_refused_and_named(
    tmp_path: Path, states: list[TrainState], other: Subject, words: str
) -> None:
    write_all(resolve(tmp_path), states)
    with pytest.raises(CheckpointError, match="made with other settings") as refused:
        load_checkpoint(resolve(tmp_path), other)
    assert words in str(refused.value)
