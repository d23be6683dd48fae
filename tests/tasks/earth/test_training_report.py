"""The card says what it was trained on and how it scored; the curve is drawn from whatever lines there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.earth.training_report import _smooth, draw_loss, write_card

ERRORS = {"mae": 0.07, "median": 0.04, "n": 9}
SCORES: dict[str, Any] = {
    "pixels": 12,
    "indices": {
        "ndvi": {"model": ERRORS, "last_year": {**ERRORS, "mae": 0.09}},
        "bsi": {"model": ERRORS, "last_year": ERRORS},
    },
    "screened": {"ndvi": {"model": {**ERRORS, "mae": 0.05}, "last_year": {"mae": None, "median": None, "n": 0}}},
    "interval_coverage": {"ndvi": 0.79, "bsi": None},
    "pinball": {"ndvi": {"model": 0.02, "window_quantiles": 0.03}},
}
TRAINING: dict[str, Any] = {
    "start": "base/0123",
    "teacher": None,
    "steps": 1200,
    "minutes": 3.25,
    "processes": 2,
    "device": "cpu, 1 thread(s)",
    "loop": {"tokens": 50_000, "tokens_per_second": 900.0, "wait_share": 0.034},
    "cost": {"cpu_hours": 0.11, "gpu_hours": 0.0, "package_joules": 7.2e6},
    "selection": "weights: the average at the end",
}  # fmt: skip


def card(**more: Any) -> str:
    training = {**TRAINING, **more}
    return write_card(what="A model.", data=["256 series"], training=training, metrics={"held_out": {"area": SCORES}})


def test_the_card_has_data_cost_and_scores_beside_the_floors() -> None:
    text = card()
    for words in (
        "- 256 series",
        "begun from base/0123",
        "1,200 updates, 50,000 looks, 3.2 minutes on 2 process(es)",
        "waited for data 3.4 % of its time",
        "0.11 CPU-hours, 0 GPU-hours, 2 kWh",
        "| model | 0.0700 / 0.0400 | 0.0700 / 0.0400 | 0.0500 / 0.0400 |",
        "| last_year | 0.0900 / 0.0400 | 0.0700 / 0.0400 | - |",
        "ndvi 79 %.",
        "model 0.0200, window quantiles 0.0300",
    ):
        assert words in text


def test_energy_that_is_not_known_is_not_told() -> None:
    assert "kWh" not in card(cost={"cpu_hours": 1.0, "gpu_hours": 0.0, "package_joules": None})


@pytest.mark.parametrize("count", [0, 1, 200])
def test_a_curve_is_drawn_from_any_number_of_lines(count: int) -> None:
    lines = [{"step": step, "loss": 1 / step, "learning_rate": 1e-3} for step in range(1, count + 1)]
    lines += [{"step": 5, "held_out": 0.4}] if count > 1 else []
    assert draw_loss(lines, title="mine").startswith(b"\x89PNG")


def test_the_smooth_curve_is_a_running_mean() -> None:
    values = np.random.default_rng(1).random(240)
    smooth = _smooth(values)
    assert smooth[100] == pytest.approx(values[96:105].mean())
    assert smooth[0] == pytest.approx(values[:5].mean())
    np.testing.assert_allclose(_smooth(np.full(7, 2.0)), 2.0)
