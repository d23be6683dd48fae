"""Pools of generated galaxies: drawn once, the same in pieces, whole, with what is true of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.location import resolve
from tasks.errors import ConfigurationError
from tasks.sky import galaxy_pool
from tasks.sky.galaxy_pool import PoolChoice, conditions_of, open_pool, whole_prior
from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, draw

CHOICE = PoolChoice(galaxies=6, pixels=16, pixel_scale_arcsec=1.0)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_pool, "PIECE", 4)


def test_a_pool_is_drawn_once_and_read_again(tmp_path: Path) -> None:
    root = resolve(tmp_path)
    first = open_pool(root, CHOICE)
    pieces = sorted((tmp_path / "pools").rglob("*.npz"))
    assert len(pieces) == 2
    times = [piece.stat().st_mtime_ns for piece in pieces]
    again = open_pool(root, CHOICE)
    assert [piece.stat().st_mtime_ns for piece in pieces] == times
    np.testing.assert_array_equal(first.flux, again.flux)
    np.testing.assert_array_equal(first.conditions, again.conditions)


def test_a_lost_piece_is_drawn_again_as_it_was(tmp_path: Path) -> None:
    first = open_pool(resolve(tmp_path), CHOICE)
    sorted((tmp_path / "pools").rglob("*.npz"))[1].unlink()
    np.testing.assert_array_equal(open_pool(resolve(tmp_path), CHOICE).flux, first.flux)


def test_a_larger_pool_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small, large = open_pool(resolve(tmp_path), replace(CHOICE, galaxies=3)), open_pool(resolve(tmp_path), CHOICE)
    np.testing.assert_array_equal(large.flux[:3], small.flux)
    other = open_pool(resolve(tmp_path), replace(CHOICE, seed=1))
    assert not np.array_equal(other.flux[:3], small.flux)


def test_galaxies_of_a_pool_are_whole_and_of_the_survey(tmp_path: Path) -> None:
    pool = open_pool(resolve(tmp_path), CHOICE)
    assert (pool.flux.dtype, pool.flux.shape, pool.bands) == (np.float16, (6, 3, 16, 16), ("g", "r", "z"))
    assert np.isfinite(pool.flux).all()
    prior = whole_prior("bench_full")
    drawn = draw(24, prior, generator=torch.Generator().manual_seed(0), pixels=16, pixel_scale_arcsec=1.0)
    assert drawn.valid.all()
    assert prior == replace(BENCH_FULL, surroundings=prior.surroundings)
    assert whole_prior("bench_simple") == BENCH_SIMPLE


def test_conditions_are_magnitude_colour_and_size() -> None:
    galaxies = draw(5, BENCH_FULL, generator=torch.Generator().manual_seed(1), pixels=16, pixel_scale_arcsec=1.0)
    magnitude, colour, size = conditions_of(galaxies).T
    torch.testing.assert_close(10 ** ((22.5 - magnitude) / 2.5), galaxies.truth.flux[:, 1])
    torch.testing.assert_close(10 ** (colour / 2.5), galaxies.truth.flux[:, 1] / galaxies.truth.flux[:, 0])
    torch.testing.assert_close(10**size, galaxies.truth.radius_arcsec)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ask for one or more"):
        open_pool(resolve(tmp_path), replace(CHOICE, galaxies=0))
    with pytest.raises(ConfigurationError, match="no prior 'full' of galaxies; there are: bench_simple, bench_full"):
        open_pool(resolve(tmp_path), replace(CHOICE, prior="full"))
