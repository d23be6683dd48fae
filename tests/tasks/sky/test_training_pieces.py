"""Trainings in pieces: the same weights as one that went through, a run that ends, errors in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import Subject
from models.training import TrainConfig, TrainState
from storage.location import resolve
from storage.locks import hold
from storage.manifest import Run
from tasks.earth.model_folders import ModelReference
from tasks.earth.processes import team
from tasks.earth.training_run import CURVE, SUMMARY, find_or_start, finished
from tasks.errors import ConfigurationError
from tasks.sky.training_pieces import Piece, TrainingInPieces

TRAIN = TrainConfig(steps=12, learning_rate=0.05, warmup_steps=2, ema_decay=0.9, checkpoint_every=3, log_every=2)
SUBJECT = Subject(TRAIN, "line", {}, {"seed": 0})


class Line(nn.Module):
    """A straight line to fit."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
        return (self.slope * batch - 3 * batch).square().mean()


class Points:
    def __init__(self, spoilt: bool = False) -> None:
        self.spoilt = spoilt

    def at(self, position: int) -> Tensor:
        drawn = torch.randn(8, generator=torch.Generator().manual_seed(position))
        return drawn * (torch.nan if self.spoilt else 1.0)

    def tokens(self, batch: Tensor) -> int:
        return len(batch)


def judge(weights: Mapping[str, Tensor]) -> float:
    return float((weights["slope"] - 3).abs())


def go(root: Path, minutes: float | None, *, points: Points | None = None) -> tuple[TrainState, TrainingInPieces, Run]:
    run = find_or_start(resolve(root), "line", SUBJECT, {}, fresh=False)
    with team("none", "cpu") as crew, hold(run.location, 1.0):
        training = TrainingInPieces(Piece("line", TRAIN, minutes), crew, run, SUBJECT, judge=judge)
        return training.go(Line(), points or Points()), training, run


def test_pieces_end_with_the_weights_of_a_training_that_went_through(tmp_path: Path) -> None:
    whole, _, _ = go(tmp_path / "whole", None)
    ends = [go(tmp_path / "pieces", 0.0) for _ in range(4)]
    assert [end.step for end, _, _ in ends] == [3, 6, 9, 12]
    assert len({run.id for _, _, run in ends}) == 1
    assert torch.equal(ends[-1][0].weights["slope"], whole.weights["slope"])
    assert ends[-1][1].sums.tokens == 12 * 8
    assert [step for step, _ in ends[-1][1].losses] == [3, 6, 9, 12]
    assert ends[-1][1].losses[-1][1] < ends[-1][1].losses[0][1]


def test_a_run_ends_with_its_last_piece_alone(tmp_path: Path) -> None:
    reference = ModelReference("line", "abc", "file:///nowhere", "0")
    for _ in range(4):
        _, training, run = go(tmp_path, 0.0)
        curve = training.close(reference)
        if training.summary()["steps"] < TRAIN.steps:
            assert finished(resolve(tmp_path), "line", SUBJECT) is None
            assert any("goes on from here" in note for note in training.notes)
    assert curve.endswith(CURVE)
    found = finished(resolve(tmp_path), "line", SUBJECT)
    assert found is not None
    assert found[1] == json.loads(run.location.read_bytes(SUMMARY))
    assert found[1]["galaxies"] == 12 * 8
    lines = [json.loads(line) for line in run.location.read_bytes("metrics.jsonl").decode().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10, 12]


def test_a_loss_that_is_no_number_ends_the_training_and_names_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run train-.*not a finite number"):
        go(tmp_path, None, points=Points(spoilt=True))
