"""What a network is told of itself: intervals that hold 68 %, and what it has never seen."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from models.profile_network import SIGNAL_EDGES, ProfileNet
from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, NATIVE_SCALE, draw
from tasks.sky.methods import DEFAULT_MODEL
from tasks.sky.network_calibration import calibrate
from tasks.sky.network_pool import images_of_galaxies
from tasks.sky.network_profiles import find_profiles, load_profile_net


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
    for kind in ("held", "held_plain"):
        assert all(0.45 < one[kind] < 0.9 for one in found.values()), kind


def test_errors_of_plain_galaxies_are_told_to_be_smaller_than_by_signal_alone() -> None:
    model = shipped()
    plain, full = (
        find_profiles(
            model,
            images_of_galaxies(galaxies),
            torch.stack([galaxies.truth.centre_x, galaxies.truth.centre_y], dim=-1),
            pixel_scale_arcsec=NATIVE_SCALE,
        )
        for galaxies in (
            draw(16, prior, generator=torch.Generator().manual_seed(5), pixels=256, pixel_scale_arcsec=NATIVE_SCALE)
            for prior in (BENCH_SIMPLE, BENCH_FULL)
        )
    )
    faint = 1  # S/N of 3 to 10
    ratio = [model.widening(found.features.flatten(0, 1))[:, faint].median() for found in (plain, full)]
    assert float(ratio[0]) < 0.75 * float(ratio[1])


def test_without_leaning_the_widths_are_those_of_the_signal() -> None:
    model = shipped()
    features = model.usual_mean + torch.randn(5, len(model.usual_mean), generator=torch.Generator().manual_seed(0))
    assert float((model.widening(features) - 1).abs().max()) > 0.1
    model.leaning.zero_()
    assert torch.equal(model.widening(features), torch.ones(5, len(SIGNAL_EDGES) + 1))


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
    second.leaning.fill_(0.5)
    assert calibrate(first, 64, seed=3) == calibrate(second, 64, seed=3)
