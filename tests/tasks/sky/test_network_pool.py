"""What the profile network learns from: shards of generated galaxies, examples gathered from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.polar import ANGLES, RADII
from tasks.sky.generator import BENCH_FULL, NATIVE_SCALE, draw
from tasks.sky.network_pool import (
    BANDS,
    STARTS,
    Pool,
    PooledProfiles,
    Shard,
    draw_shard,
    gather,
    search_reach,
    starts_about,
    true_ellipses,
    turn_about,
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(tmp_path_factory.mktemp("pool"), 7, 32)


@pytest.fixture(scope="module")
def shard(pool: Pool) -> Shard:
    return pool.shard(0)


def test_a_shard_is_a_function_of_seed_and_number(pool: Pool, shard: Shard) -> None:
    again, other = draw_shard(7, 0, 32), Pool(pool.folder, 7, 32).shard(1)
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(shard).items() if name != "truth")
    assert torch.equal(shard.truth.nan_to_num(-1), again.truth.nan_to_num(-1))
    assert not torch.equal(shard.shift, other.shift)
    assert shard.flux.shape == (32, STARTS, BANDS, RADII, ANGLES)


def test_nearly_right_ellipses_read_off_about_the_truth(shard: Shard) -> None:
    measured = shard.flux[:, 2].float().median(dim=-1).values
    truth = shard.truth[:, 2]
    error = 1 / (shard.pixels[:, 2, None] * (shard.cover[:, 2].float().mean(dim=-1) / 255).clamp(min=0.05)).sqrt()
    bright = truth > 30 * error
    off = 2.5 * torch.log10((measured / truth).clamp(min=0.01))[bright]
    assert bright.sum() > 500
    assert off.abs().median() < 0.08


def test_starts_go_from_a_circle_to_nearly_right(shard: Shard) -> None:
    far = shard.shift.norm(dim=-1).median(dim=0).values
    bent = shard.bend.norm(dim=-1).median(dim=0).values
    assert far[2] < far[1]
    assert bent[2] < bent[1]
    assert (shard.flattening[:, 0] == 0).all()


def test_changes_lead_to_the_true_ellipse() -> None:
    galaxies = draw(8, BENCH_FULL, generator=torch.Generator().manual_seed(1), pixels=64, pixel_scale_arcsec=0.524)
    true = true_ellipses(galaxies)
    size = galaxies.truth.radius_arcsec / galaxies.pixel_scale_arcsec
    for start in starts_about(true, size, centre=true.centre + 1, generator=torch.Generator().manual_seed(2)):
        found = start.moved(*start.towards(true))
        assert torch.allclose(found.centre, true.centre, atol=1e-4)
        assert torch.allclose(found.shape, true.shape, atol=1e-5)


def test_position_angles_of_the_generator_are_those_of_the_image() -> None:
    galaxies = draw(16, BENCH_FULL, generator=torch.Generator().manual_seed(3), pixels=128, pixel_scale_arcsec=0.4)
    true = true_ellipses(galaxies)
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    x, y = columns - true.centre[:, 0, None, None], rows - true.centre[:, 1, None, None]
    light = galaxies.clean[:, 1]
    moment = torch.stack([(light * (x**2 - y**2)).sum((1, 2)), (2 * light * x * y).sum((1, 2))], dim=-1)
    flat = galaxies.truth.axis_ratio < 0.6
    along = torch.nn.functional.cosine_similarity(moment, true.shape, dim=-1)[flat]
    assert along.median() > 0.97


def test_the_pool_keeps_what_was_drawn(pool: Pool, shard: Shard) -> None:
    (path,) = pool.folder.glob("7-32-00000.*")
    stamp = path.stat().st_mtime_ns
    kept = pool.shard(0)
    assert path.stat().st_mtime_ns == stamp
    assert torch.equal(shard.flux, kept.flux)


def test_batches_are_a_function_of_position_and_more_shards_come_in(pool: Pool) -> None:
    def batches() -> PooledProfiles:
        return PooledProfiles(pool, batch=6, shards=2, seed=1, positions_per_shard=3)

    first, again = batches(), batches()
    late = first.at(4)
    assert torch.equal(late.polar.flux, again.at(4).polar.flux)
    assert not torch.equal(first.at(0).polar.flux, late.polar.flux)
    assert first.tokens(late) == int((late.truth.isfinite() & late.profile_counts[:, None]).sum()) > 0
    early = {float(radius) for position in range(3) for radius in first.at(position).polar.radius[:, 10]}
    both = {float(radius) for part in (pool.shard(0), pool.shard(1)) for radius in part.radius[..., 10].flatten()}
    assert early <= {float(radius) for radius in pool.shard(0).radius[..., 10].flatten()} < both


def test_real_galaxies_come_in_at_their_share(pool: Pool, shard: Shard) -> None:
    some = {name: value[:4] for name, value in vars(shard).items()}
    there = torch.ones(4, BANDS, dtype=torch.bool)
    real = Shard(**{**some, "fwhm": torch.full((4, BANDS), 77.0), "there": there})
    batches = PooledProfiles(pool, batch=200, shards=1, seed=1, positions_per_shard=3, real=real, real_share=0.3)
    seen = (batches.at(0).polar.fwhm[:, 0] == 77.0).float().mean()
    assert 0.2 < float(seen) < 0.4


def test_every_example_asks_for_a_band_that_is_there_and_in_use(shard: Shard) -> None:
    places = np.array([(0, row) for row in range(32)] * 4)
    example = gather([shard], places, np.random.default_rng(0))
    rows = torch.arange(len(places))
    there = shard.there[torch.from_numpy(places[:, 1])]
    assert there[rows, example.band].all()
    assert example.use[rows, example.band].all()
    assert not (example.use & ~there).any()
    assert (example.use.sum(dim=1) == 1).any()


def test_turned_and_mirrored_examples_keep_truth_and_change_the_way_there(shard: Shard) -> None:
    example = gather([shard], np.array([(0, row) for row in range(8)]), np.random.default_rng(0))
    yes, no = torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)
    half, mirror = turn_about(example, yes, no), turn_about(example, no, yes)
    assert torch.equal(half.shift, -example.shift)
    assert torch.equal(half.bend, example.bend)
    assert torch.equal(mirror.bend, example.bend * torch.tensor([1.0, -1.0]))
    assert torch.equal(turn_about(half, yes, no).polar.flux, example.polar.flux)
    assert torch.equal(turn_about(mirror, no, yes).polar.flux, example.polar.flux)


def test_search_reach_is_three_arcsec_or_a_tenth_of_the_image() -> None:
    assert search_reach(torch.tensor([[256, 256]]), NATIVE_SCALE).tolist() == pytest.approx([3 / NATIVE_SCALE])
    assert search_reach(torch.tensor([[64, 48]]), 0.1).tolist() == pytest.approx([6.4])
