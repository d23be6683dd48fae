"""What a training writes while it runs, and how an interrupted one is found again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoint import Subject
from models.training import StepReport, TrainConfig
from storage.location import resolve
from tasks.earth.training_run import METRICS, SUMMARY, MetricsLog, Sums, find_or_start, finished

SUBJECT = Subject(TrainConfig(steps=6), "earthpt", {"layers": 1}, {"seed": 2})


def report(step: int, *, loss: float = 1.0, seconds: float = 2.0, wait: float = 0.5, left: float = 9.0) -> StepReport:
    return StepReport(step, 2 * step, 100, loss, 1e-3, 0.7, seconds, wait, left)


def test_the_share_of_waiting_is_that_of_all_updates() -> None:
    sums = Sums()
    for wait, seconds in ((0.0, 1.0), (0.5, 1.0), (1.0, 8.0)):
        sums.add(report(1, wait=wait, seconds=seconds))
    assert sums.wait_share == pytest.approx(1.5 / 10)
    assert sums.tokens_per_second == pytest.approx(300 / 10)


def test_the_mean_loss_leaves_out_what_is_not_finite() -> None:
    sums = Sums()
    for loss in (1.0, math.nan, 3.0):
        sums.add(report(1, loss=loss))
    assert sums.mean_loss == 2.0
    assert Sums().mean_loss is None


def test_a_line_is_the_mean_over_its_updates(tmp_path: Path) -> None:
    log = MetricsLog(resolve(tmp_path), every=3)
    lines = [log.add(report(step, loss=step, wait=0.1 * step), elapsed_s=step) for step in range(1, 7)]
    assert [line is None for line in lines] == [True, True, False, True, True, False]
    log.flush()
    first, second = (json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines())
    assert (first["step"], first["loss"], first["tokens"], first["position"]) == (3, 2.0, 300, 6)
    assert first["wait_share"] == pytest.approx(0.1)
    assert second["loss"] == 5.0
    assert second["tokens_per_second"] == pytest.approx(50.0)
    assert second["gradient_norm"] == 0.7


def test_the_last_update_always_ends_a_line(tmp_path: Path) -> None:
    log = MetricsLog(resolve(tmp_path), every=10)
    assert log.add(report(4, left=0.0), elapsed_s=1.0) is not None


def test_a_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    log = MetricsLog(resolve(tmp_path), every=1)
    log.add(report(1, loss=math.nan), elapsed_s=1.0)
    log.flush()
    assert json.loads((tmp_path / METRICS).read_text())["loss"] is None


def test_a_resumed_log_forgets_what_will_be_done_again(tmp_path: Path) -> None:
    log = MetricsLog(resolve(tmp_path), every=1)
    for step in range(1, 6):
        log.add(report(step), elapsed_s=step)
    log.flush()
    again = MetricsLog.resumed(resolve(tmp_path), 1, step=3)
    again.add(report(4, loss=7.0), elapsed_s=4)
    again.flush()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] == 7.0


def test_an_unfinished_run_is_found_by_what_it_was_asked(tmp_path: Path) -> None:
    root = resolve(tmp_path)
    run = find_or_start(root, "mine", SUBJECT, {"any": 1}, fresh=False)
    assert run.read_manifest()["subject"]["train"]["steps"] == 6
    assert find_or_start(root, "mine", SUBJECT, {}, fresh=False) == run
    for name, subject in (("other", SUBJECT), ("mine", replace(SUBJECT, data={"seed": 3}))):
        assert find_or_start(root, name, subject, {}, fresh=False) != run


def test_a_fresh_run_leaves_the_unfinished_one(tmp_path: Path) -> None:
    root = resolve(tmp_path)
    run = find_or_start(root, "mine", SUBJECT, {}, fresh=False)
    assert find_or_start(root, "mine", SUBJECT, {}, fresh=True) != run


def test_a_run_that_has_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    root = resolve(tmp_path)
    run = find_or_start(root, "mine", SUBJECT, {}, fresh=False)
    assert finished(root, "mine", SUBJECT) is None
    run.location.write_bytes(SUMMARY, b'{"steps": 6}')
    assert finished(root, "mine", SUBJECT) == (run, {"steps": 6})
    assert finished(root, "mine", replace(SUBJECT, kind="other")) is None
    assert find_or_start(root, "mine", SUBJECT, {}, fresh=False) != run
