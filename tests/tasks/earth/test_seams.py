"""The seam score: 1 on what has no seam, 1 + s / g for a step s on a slope g, and not fooled by one hedge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tasks.earth.seams import FLOOR, SeamScore, border_lines, seam_score

SIZE = (600, 700)
ROWS, COLUMNS = [256, 512], [256, 512]
SLOPE = 0.0005


def score(field: np.ndarray, rows: list[int] = ROWS, columns: list[int] = COLUMNS) -> SeamScore:
    return seam_score(lambda y, x: field[y, x], (field.shape[0], field.shape[1]), rows, columns)


def sloping() -> np.ndarray:
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return 0.1 + SLOPE * x + SLOPE * y


def landscape(seed: int) -> np.ndarray:
    """Return noisy fields whose edges lie anywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((40, 44)).repeat(17, axis=0).repeat(19, axis=1)[: SIZE[0], : SIZE[1]]
    shifted = np.roll(coarse, (int(rng.integers(17)), int(rng.integers(19))), axis=(0, 1))
    return shifted * 0.6 + rng.normal(0, 0.08, SIZE)


def test_a_smooth_field_scores_one() -> None:
    found = score(sloping())
    assert found.ratio == pytest.approx(1.0, abs=1e-3)
    assert found.border_jump == pytest.approx(SLOPE, rel=1e-3)


@pytest.mark.parametrize("step", [0.002, 0.01, 0.3])
def test_a_step_over_the_borders_of_a_slope_scores_as_the_closed_form_says(step: float) -> None:
    field = sloping()
    for row in ROWS:
        field[row:] += step
    for column in COLUMNS:
        field[:, column:] += step
    found = score(field)
    assert found.ratio == pytest.approx((SLOPE + step + FLOOR) / (SLOPE + FLOOR), rel=1e-3)
    assert found.errors > 100


def test_a_flat_map_has_no_seam_and_rounding_makes_none() -> None:
    flat = np.full(SIZE, 0.25)
    assert score(flat).ratio == 1.0
    assert score(flat).errors == 0.0
    flat[:, 256:] += 1e-4
    assert score(flat).ratio < 1.2


@pytest.mark.parametrize("seed", range(8))
def test_landscape_without_a_seam_does_not_stand_out(seed: int) -> None:
    assert abs(score(landscape(seed)).errors) < 4


@pytest.mark.parametrize("seed", range(4))
def test_a_step_no_larger_than_the_noise_of_a_pixel_stands_out(seed: int) -> None:
    field = landscape(seed)
    for row, column in zip(ROWS, COLUMNS, strict=True):
        field[row:] += 0.1
        field[:, column:] += 0.1
    found = score(field)
    assert found.ratio > 1.5
    assert found.errors > 4


def test_a_hedge_along_one_piece_of_border_does_not_stand_out() -> None:
    field = landscape(3)
    field[0:200, 256:258] += 0.25
    assert score(field).errors < 4


def test_a_map_without_a_border_scores_one() -> None:
    assert score(sloping(), rows=[], columns=[]) == SeamScore(1.0, 0.0, 0, 0.0, 0.0)


def test_what_is_not_known_is_left_out() -> None:
    field = sloping()
    field[300:] += 0.5
    field[280:320] = math.nan
    field[:, 600:] = math.nan
    assert score(field).ratio == pytest.approx(1.0, abs=1e-3)
    assert score(np.full(SIZE, math.nan)).pieces == 0


def test_borders_are_counted_from_the_corner_of_a_tile() -> None:
    anchor = GeoBox((1024, 1024), Affine(10, 0, 614_400, 0, -10, 5_703_680), "EPSG:32630")
    grid = GeoBox((500, 900), Affine(10, 0, 614_400 + 2000, 0, -10, 5_703_680 - 7000), "EPSG:32630")
    rows, columns = border_lines(grid, anchor, 256, but=1024)
    assert rows == [768 - 700]
    assert columns == [56, 312, 568]
    assert border_lines(grid, anchor, 1024) == ([324], [824])
