"""What a network is told of itself: intervals that hold 68 %, and what it has never seen."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from models.profile_network import SIGNAL_EDGES, ProfileNet
from tasks.sky.methods import DEFAULT_MODEL
from tasks.sky.network_calibration import calibrate
from tasks.sky.network_profiles import load_profile_net


def shipped() -> ProfileNet:
    return copy.deepcopy(load_profile_net(str(Path("no-warehouse")), DEFAULT_MODEL))


@pytest.fixture(scope="module")
def calibrated() -> tuple[ProfileNet, dict[str, object]]:
    model = shipped()
    return model, calibrate(model, 64, seed=99)


def test_factors_are_written_into_the_model(calibrated: tuple[ProfileNet, dict[str, object]]) -> None:
    model, told = calibrated
    found = told["calibration"]
    assert isinstance(found, dict)
    assert len(found) == len(SIGNAL_EDGES) + 1
    assert model.calibration.tolist() == pytest.approx([one["factor"] for one in found.values()])
    assert float(model.strange_from) == told["strange_from"]


def test_intervals_of_the_other_half_hold_about_as_often_as_they_say(
    calibrated: tuple[ProfileNet, dict[str, object]],
) -> None:
    found = calibrated[1]["calibration"]
    assert isinstance(found, dict)
    assert all(0.5 < one["held"] < 0.85 for one in found.values())


def test_the_usual_is_not_strange_and_what_lies_far_off_is(calibrated: tuple[ProfileNet, dict[str, object]]) -> None:
    model, _ = calibrated
    usual = model.usual_mean[None]
    assert float(model.strangeness(usual)) == 0
    spread = torch.linalg.inv(model.usual_precision).diagonal().sqrt()
    assert float(model.strangeness(usual + 30 * spread)) > float(model.strange_from)


@pytest.mark.slow
def test_the_scale_does_not_depend_on_the_one_before() -> None:
    first, second = shipped(), shipped()
    second.calibration.fill_(7.0)
    assert calibrate(first, 64, seed=3) == calibrate(second, 64, seed=3)
