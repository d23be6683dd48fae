"""Batches are a pure function of seed and position, and give every sample once an epoch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data import Augmentation, HeldTokens, Mixture, ShuffledTokens, augment
from models.indices import BANDS, compute
from models.tokens import ExtraChannel, PixelSeries, SeriesTokeniser, Tokens, to_reflectance

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any)


def numbered(sizes: tuple[int, ...], steps: int = 3) -> HeldTokens:
    """Return shards whose samples are numbered on, each with 1 to `steps` valid steps."""
    parts, first = [], 0
    for size in sizes:
        number = torch.arange(first, first + size).float()
        values = number[:, None, None].expand(-1, steps, 2).clone()
        valid = torch.arange(steps) < 1 + (number[:, None] % steps)
        parts.append(Tokens(values, torch.zeros(size, steps, 2), valid))
        first += size
    return HeldTokens(tuple(parts))


def numbers(batch: Tokens) -> list[int]:
    return [int(number) for number in batch.values[:, 0, 0]]


def same(one: Tokens, other: Tokens) -> bool:
    return (
        torch.equal(one.values.nan_to_num(-9), other.values.nan_to_num(-9))
        and torch.equal(one.position, other.position)
        and torch.equal(one.valid, other.valid)
    )


@dataclass
class Counted:
    """A source that counts what is read."""

    held: HeldTokens
    reads: list[int] = field(default_factory=list)
    fail_once: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.held.sizes

    def read(self, shard: int) -> Tokens:
        if self.fail_once:
            self.fail_once = False
            raise OSError("the disk is asleep")
        self.reads.append(shard)
        return self.held.read(shard)


@settings(deadline=None)
@given(SIZES, st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_every_sample_comes_once_an_epoch(sizes: list[int], count: int, window: int, seed: int) -> None:
    source, total = numbered(tuple(sizes)), sum(sizes)
    batches = ShuffledTokens(source, count, seed, window=window)
    rows = np.concatenate([batches.rows(position) for position in range(-(-3 * total // count))])[: 3 * total]
    for epoch in rows.reshape(3, total, 2):
        assert Counter(map(tuple, epoch.tolist())) == Counter(
            (shard, number) for shard, size in enumerate(sizes) for number in range(size)
        )


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(1, 5), st.integers(1, 3), st.lists(st.integers(0, 200), min_size=1, max_size=5))
def test_any_position_gives_its_batch_without_those_before(
    sizes: list[int], count: int, window: int, positions: list[int]
) -> None:
    source = numbered(tuple(sizes))
    used = ShuffledTokens(source, count, seed=5, window=window)
    for position in positions:
        found = used.at(position)
        assert len(found) == count
        assert same(found, ShuffledTokens(source, count, seed=5, window=window).at(position))


def test_a_batch_holds_the_samples_that_its_rows_name() -> None:
    batches = ShuffledTokens(numbered((4, 6, 3)), 5, seed=1)
    first = np.array([0, 4, 10])
    for position in range(6):
        rows = batches.rows(position)
        assert sorted(numbers(batches.at(position))) == sorted((first[rows[:, 0]] + rows[:, 1]).tolist())


def test_processes_that_take_turns_share_an_epoch() -> None:
    source, world = numbered((10, 7, 7)), 3
    found = [
        number
        for rank in range(world)
        for position in range(4)
        for number in numbers(ShuffledTokens(source, 2, seed=0).at(position * world + rank))
    ]
    assert sorted(found) == list(range(24))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    source = numbered((50, 50))
    orders = [
        np.concatenate([ShuffledTokens(source, 10, seed).rows(10 * epoch + n) for n in range(10)]).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len({str(order) for order in orders}) == 4
    assert all(order != sorted(order) for order in orders)


def test_samples_of_a_window_are_mixed_and_windows_are_not() -> None:
    batches = ShuffledTokens(numbered((100,) * 6), 20, seed=2, window=2)
    for first in range(0, 30, 10):
        shards = [set(batches.rows(position)[:, 0].tolist()) for position in range(first, first + 10)]
        assert set.union(*shards) == shards[0]
        assert len(shards[0]) == 2


def test_a_batch_is_as_long_as_its_longest_sample() -> None:
    batches = ShuffledTokens(numbered((9,), steps=4), 2, seed=0)
    for position in range(9):
        batch = batches.at(position)
        assert batch.valid.shape[1] == int(batch.valid.sum(dim=1).max())
        assert batch.values[~batch.valid].isnan().all()
        assert batches.tokens(batch) == int(batch.valid.sum())


def test_a_shard_is_read_once_an_epoch_and_few_are_held() -> None:
    source = Counted(numbered((40,) * 12))
    batches = ShuffledTokens(source, 8, seed=3, window=2)
    for position in range(3 * 60):
        batches.at(position)
        assert len(batches._held._found) <= 5
    batches._held._reader.shutdown(wait=True)
    assert max(Counter(source.reads).values()) <= 4  # three epochs, and what is read ahead of a fourth


def test_the_next_window_is_read_before_it_is_needed() -> None:
    source = Counted(numbered((40,) * 6))
    batches = ShuffledTokens(source, 8, seed=3, window=2)
    needed = {int(shard) for position in range(10) for shard in batches.rows(position)[:, 0]}
    for position in range(9):
        batches.at(position)
    batches._held._reader.shutdown(wait=True)
    assert set(source.reads) > needed


def test_a_failed_read_is_told_and_tried_again() -> None:
    source = Counted(numbered((6,)), fail_once=True)
    batches = ShuffledTokens(source, 3)
    with pytest.raises(OSError, match="asleep"):
        batches.at(0)
    assert len(batches.at(0)) == 3


def test_a_source_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        ShuffledTokens(numbered((0, 0)), 3)


def looks(count: int = 5, steps: int = 7) -> Tokens:
    """Return series of all bands and one extra channel."""
    draw = torch.Generator().manual_seed(0)
    stored = torch.randint(1, 6000, (count, steps, 10), generator=draw).to(torch.uint16)
    days = (8000 + torch.arange(steps) * 5).float().expand(count, -1)
    clear = torch.rand((count, steps), generator=draw) < 0.8
    extra = torch.rand((count, steps, 1), generator=draw)
    tokeniser = SeriesTokeniser(extra=(ExtraChannel("vv"),))
    return tokeniser.tokenise(PixelSeries(stored, days, clear, extra))


def test_augmentation_shifts_a_series_as_a_whole_and_scales_each_band() -> None:
    tokens = looks()
    changed = augment(tokens, Augmentation(shift_days=30, gain=0.1, left_out=0.0), np.random.default_rng(0))
    shift = changed.position - tokens.position
    assert torch.equal(shift, shift[:, :1, :1].expand_as(shift))
    assert shift[:, 0, 0].abs().max() <= 30
    assert len(shift[:, 0, 0].unique()) > 1
    assert torch.equal(shift, shift.round())
    gain = to_reflectance(changed.values[..., :10]) / to_reflectance(tokens.values[..., :10])
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain), rtol=1e-4, atol=0)
    assert gain[:, 0].std() == pytest.approx(0.1, rel=0.3)
    assert torch.equal(changed.values[..., 10:], tokens.values[..., 10:])
    assert torch.equal(changed.valid, tokens.valid)


def test_augmentation_leaves_its_input_and_what_was_not_seen() -> None:
    tokens = looks()
    tokens.values[:, 2, 4] = torch.nan
    before = tokens.values.clone()
    changed = augment(tokens, Augmentation(left_out=0.0), np.random.default_rng(0))
    assert torch.equal(changed.values.isnan(), before.isnan())
    assert torch.equal(tokens.values.nan_to_num(-9), before.nan_to_num(-9))


def test_no_augmentation_changes_nothing() -> None:
    tokens = looks()
    changed = augment(tokens, Augmentation(0, 0.0, 0.0), np.random.default_rng(0))
    torch.testing.assert_close(changed.values, tokens.values, rtol=0, atol=3e-7, equal_nan=True)
    assert torch.equal(changed.position, tokens.position)


def test_one_gain_for_all_bands_would_leave_ndvi_and_these_gains_do_not() -> None:
    tokens = looks()
    changed = augment(tokens, Augmentation(0, 0.2, 0.0), np.random.default_rng(1))

    def ndvi(found: Tokens) -> torch.Tensor:
        return compute("ndvi", dict(zip(BANDS, to_reflectance(found.values[..., :10]).unbind(-1), strict=True)))

    assert (ndvi(changed) - ndvi(tokens)).abs().max() > 0.02


def test_looks_are_left_out_one_by_one_and_short_series_stay_whole() -> None:
    tokens = looks(400, steps=40)
    tokens.valid[:20] = False
    tokens.valid[:20, :5] = True
    changed = augment(tokens, Augmentation(0, 0.0, 0.5), np.random.default_rng(3))
    before, after = tokens.valid.sum(dim=1), changed.valid.sum(dim=1)
    assert torch.equal(after[:20], before[:20])
    assert after[20:].sum() / before[20:].sum() == pytest.approx(0.5, abs=0.1)
    assert after.min() >= 5
    for row in range(20, 60):
        days = changed.position[row, : after[row]]
        assert set(days[:, 0].tolist()) <= set(tokens.position[row, tokens.valid[row], 0].tolist())
        assert torch.equal(days[:-1, 1], days[1:, 0])


def test_an_augmented_batch_is_that_of_its_position() -> None:
    source = HeldTokens((looks(40),))
    one, other = (ShuffledTokens(source, 4, seed=2, augmentation=Augmentation()) for _ in range(2))
    later = [one.at(position) for position in (3, 7, 13)]
    assert all(same(other.at(position), batch) for position, batch in zip((13, 7, 3), later[::-1], strict=True))
    assert not same(one.at(3), ShuffledTokens(source, 4, seed=2).at(3))


@dataclass(frozen=True)
class Named:
    """Batches that are their own name and position."""

    name: str

    def at(self, position: int) -> tuple[str, int]:
        return self.name, position

    def tokens(self, batch: tuple[str, int]) -> int:
        return 1


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from([0, 0.01, 0.3, 1.0, 2.5]), min_size=1, max_size=4).filter(any),
    st.integers(0, 5),
)
def test_each_part_is_drawn_from_in_order_and_by_its_share(shares: list[float], seed: int) -> None:
    mixture = Mixture([Named(str(number)) for number in range(len(shares))], shares, seed)
    found = [mixture.source_of(position) for position in range(256)]
    for part, share in enumerate(shares):
        inner = [place for which, place in found if which == part]
        assert inner == list(range(len(inner)))
        assert abs(len(inner) - 256 * share / sum(shares)) < len(shares)


def test_a_mixture_is_a_pure_function_of_seed_and_position() -> None:
    parts = [Named("prior"), Named("real")]
    one, other = Mixture(parts, (0.7, 0.3), 4), Mixture(parts, (0.7, 0.3), 4)
    assert [one.at(position) for position in range(200)] == [other.at(position) for position in range(199, -1, -1)][
        ::-1
    ]
    assert [one.at(position) for position in range(64)] != [Mixture(parts, (0.7, 0.3), 5).at(p) for p in range(64)]
    names = "".join(one.at(position)[0][0] for position in range(64))
    assert names not in (names[0] * 45 + names[-1] * 19, "".join(sorted(names)))


@pytest.mark.parametrize("shares", [(1.0,), (0.0, 0.0), (-1.0, 2.0)])
def test_shares_that_make_no_sense_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a share of 0 or more"):
        Mixture([Named("a"), Named("b")], shares)
