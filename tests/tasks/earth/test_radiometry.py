"""The offset is what the metadata claim, unless the scene's own dark pixels say otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.earth.radiometry import decide_offset, to_stored
from tasks.earth.scenes import OffsetClaim

APPLIED = OffsetClaim(0, "s2:processing_baseline")
RAISED = OffsetClaim(-1000, "s2:processing_baseline")
SHAPE = (3, 64, 64)


def scene(dark: int, *, seed: int = 3) -> np.ndarray:
    """Return three visible bands whose darkest pixels lie at `dark`."""
    rng = np.random.default_rng(seed)
    return (dark + rng.gamma(2.0, 150.0, SHAPE)).astype(np.uint16)


def classes(value: int) -> np.ndarray:
    return np.full(SHAPE[1:], value, dtype=np.uint8)


@pytest.mark.parametrize(
    ("claim", "dark", "value", "verdict"),
    [
        (APPLIED, 150, 0, "agree"),
        (RAISED, 1150, -1000, "agree"),
        (APPLIED, 1150, -1000, "disagree"),
        (RAISED, 150, 0, "disagree"),
        (APPLIED, 2500, 0, "undecidable"),
        (RAISED, 2500, -1000, "undecidable"),
    ],
)
def test_pixels_win_where_they_disagree(claim: OffsetClaim, dark: int, value: int, verdict: str) -> None:
    decision = decide_offset(claim, scene(dark), classes(4))
    assert (decision.value, decision.verdict) == (value, verdict)
    assert decision.claimed == claim.value
    assert decision.source == ("pixels" if verdict == "disagree" else claim.source)
    assert decision.dark == pytest.approx(dark, abs=60)


@pytest.mark.parametrize("value", [0, 1, 5, 8, 9, 10, 11])
def test_cloud_snow_and_bare_soil_are_no_dark_targets(value: int) -> None:
    decision = decide_offset(RAISED, scene(150), classes(value))
    assert (decision.value, decision.verdict, decision.dark) == (-1000, "undecidable", None)


def test_a_few_dark_pixels_do_not_decide() -> None:
    scl = classes(9)
    scl[0, :50] = 6
    assert decide_offset(RAISED, scene(150), scl).verdict == "undecidable"


def test_without_classes_only_a_low_value_decides_since_haze_raises() -> None:
    assert decide_offset(RAISED, scene(150), None).value == 0
    assert decide_offset(APPLIED, scene(1150), None).verdict == "undecidable"
    assert decide_offset(APPLIED, scene(1150), None).value == 0


def test_no_data_is_not_dark() -> None:
    visible = scene(1150)
    visible[:, :40] = 0
    assert decide_offset(RAISED, visible, classes(4)).verdict == "agree"


def test_a_cube_without_visible_bands_keeps_the_claim() -> None:
    decision = decide_offset(RAISED, np.zeros((0, 64, 64), dtype=np.uint16), classes(4))
    assert (decision.value, decision.verdict, decision.dark) == (-1000, "undecidable", None)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50), st.sampled_from([0, -1000]))
def test_stored_is_zero_where_nothing_is_and_at_least_one_elsewhere(numbers: list[int], offset: int) -> None:
    stored = to_stored(np.array(numbers, dtype=np.uint16), offset)
    expected = [0 if number == 0 else max(number + offset, 1) for number in numbers]
    assert stored.tolist() == expected
    assert stored.dtype == np.uint16


def test_the_input_is_left_as_it_was() -> None:
    numbers = np.array([0, 500, 1500], dtype=np.uint16)
    to_stored(numbers, -1000)
    assert numbers.tolist() == [0, 500, 1500]
