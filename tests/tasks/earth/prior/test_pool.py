"""Series drawn once: the prior's own and those of places, kept in pieces, and put together into batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.tokens import to_reflectance
from storage.location import resolve
from tasks.earth.prior import (
    PoolBatches,
    PoolChoice,
    PriorConfig,
    SeriesPool,
    draw_series,
    held_out_places,
    open_series_pool,
)
from tasks.earth.prior.places import draw_place
from tasks.earth.prior.pool import FIRST_PLACE, PIECE, PLACE_PIXELS, PLACE_SERIES, PLACE_YEARS
from tasks.errors import ConfigurationError

CHOICE = PoolChoice(series=PIECE, places=2, looks=32, seed=5)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(warehouse: Path) -> SeriesPool:
    return open_series_pool(resolve(warehouse), CHOICE, processes=1)


def test_the_prior_s_series_are_those_that_it_draws(pool: SeriesPool) -> None:
    drawn = draw_series(PriorConfig(looks=32, series=PIECE // 8, seed=5), 3)
    first = len(pool) - PIECE + 3 * (PIECE // 8)
    some = slice(first, first + PIECE // 8)
    assert np.array_equal(pool.looks[some].numpy(), drawn.valid.sum(axis=1))
    kept = drawn.valid
    assert np.array_equal(pool.day[some].numpy()[:, : kept.shape[1]][kept], drawn.day[kept])
    stored = pool.reflectance[some].numpy()[:, : kept.shape[1]][kept]
    assert np.allclose(stored * 1e-4, drawn.reflectance[kept], atol=1e-6)


def test_a_place_gives_pixels_with_their_clear_looks_next_to_clouds_too(pool: SeriesPool) -> None:
    place = draw_place(FIRST_PLACE, pixels=PLACE_PIXELS, years=PLACE_YEARS)
    flat = {column.tobytes() for column in place.reflectance.reshape(len(place.dates), 10, -1)[-1].T.copy()}
    # of every pixel that is seen on the last date that look is the last of its series
    days = (place.dates - np.datetime64("2000-01-01", "D")).astype(int)
    own = slice(0, PLACE_SERIES)
    last = pool.looks[own].long() - 1
    seen = pool.day[own].gather(1, last[:, None])[:, 0] == int(days[-1])
    values = pool.reflectance[own][torch.arange(len(last)), last][seen].numpy().astype(np.uint16)
    assert seen.sum() > 50
    assert all(one.tobytes() in flat for one in values)


def test_held_out_places_say_which_looks_may_be_read() -> None:
    seen, read = held_out_places(2, looks=48, processes=1)
    assert seen.values.shape[1:] == (48, 10)
    assert seen.values.shape[0] == len(read) > 24
    assert not (read & ~seen.valid).any()
    assert 0.5 < read.sum() / seen.valid.sum() < 1
    assert (read.sum(dim=1) > 0).all()
    # looks next to clouds are brighter in the blue than those away from them
    blue = to_reflectance(seen.values[..., 0])
    assert blue[seen.valid & ~read].mean() > blue[read].mean() + 0.005


def test_batches_follow_from_seed_and_position(pool: SeriesPool) -> None:
    one, other = PoolBatches(pool, 16, seed=1), PoolBatches(pool, 16, seed=2)
    assert torch.equal(one.at(7).values, one.at(7).values)
    assert not torch.equal(one.at(7).values, one.at(8).values)
    assert not torch.equal(one.at(7).values, other.at(7).values)
    batch = one.at(7)
    assert batch.values.shape == (16, 32, 10)
    assert one.tokens(batch) == int(batch.valid.sum()) >= 16 * 5
    reflectance = to_reflectance(batch.values[batch.valid])
    assert reflectance.min() > 0
    assert reflectance.max() <= 2.0
    assert (batch.position[:, 1:, 0] >= batch.position[:, :-1, 0]).all()


def test_pieces_that_are_there_are_not_drawn_again(warehouse: Path, pool: SeriesPool) -> None:
    told: list[tuple[int, int]] = []
    larger = PoolChoice(series=PIECE, places=3, looks=32, seed=5)
    found = open_series_pool(
        resolve(warehouse), larger, processes=1, on_progress=lambda _, done, total, words: told.append((done, total))
    )
    assert told == [(4, 4)]
    assert torch.equal(found.reflectance[: 2 * PLACE_SERIES], pool.reflectance[: 2 * PLACE_SERIES])


def test_a_pool_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a pool of no series"):
        open_series_pool(resolve(tmp_path), PoolChoice(series=0))
