"""The canopy network: what it reads of series, and what of neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from models.canopy import (
    LEFT,
    UNKNOWN,
    CanopyConfig,
    CanopyNet,
    CoverLevels,
    LabelledGrid,
    classification_loss,
    cover_levels,
    months_after,
)
from models.earthpt import OUTPUTS, YEAR_DAYS, EarthPT, to_channels
from models.lora import add_lora, merge_lora

SMALL = CanopyConfig(layers=2, heads=2, width=16, pointers=2, queries=4, months=4, hidden=8, reach=2)


def series(seed: int, *, count: int = 5, looks: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return channels, days and valid looks of some pixels; the last ones of each are padding."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.rand(count, looks, 10, generator=rng) * 6 - 1
    day = torch.rand(count, looks, generator=rng).cumsum(dim=1) * 40 + 7000
    valid = torch.arange(looks) < torch.randint(3, looks, (count, 1), generator=rng)
    return to_channels(values.masked_fill(~valid[..., None], torch.nan)), day, valid


def test_months_lie_within_the_year_after_the_last_look_and_on_the_same_days_of_every_year() -> None:
    last = torch.tensor([[7000.0], [7100.5], [7365.25]])
    days = months_after(last, 12)
    assert ((days >= last) & (days < last + YEAR_DAYS)).all()
    phase = days.double() % YEAR_DAYS
    assert torch.allclose(phase, phase[:1].expand_as(phase), atol=1e-2)


def test_features_are_the_same_with_and_without_gradient() -> None:
    model = CanopyNet(SMALL).eval()
    channels, day, valid = series(8)
    with torch.inference_mode():
        short = model.features(channels, day, valid)
    assert torch.allclose(model.features(channels, day, valid), short, atol=1e-5)


def test_padding_and_other_pixels_do_not_change_features() -> None:
    model = CanopyNet(SMALL).eval()
    channels, day, valid = series(1)
    whole = model.features(channels, day, valid)
    assert whole.shape == (5, SMALL.features)
    count = int(valid[0].sum())
    alone = model.features(channels[:1, :count], day[:1, :count], valid[:1, :count])
    assert torch.allclose(whole[:1], alone, atol=1e-5)


def test_what_is_not_there_is_told_and_does_not_reach_the_classes() -> None:
    model = CanopyNet(SMALL).eval()
    channels, day, valid = series(2)
    channels[..., OUTPUTS.index("B11")] = torch.nan
    found = model.features(channels, day, valid)
    there = found[:, SMALL.months * len(OUTPUTS) :][:, : len(OUTPUTS)]
    assert there[:, OUTPUTS.index("B11")].eq(0).all()
    assert there.sum() == 5 * (len(OUTPUTS) - 1)
    grid = found.T.reshape(1, -1, 1, 5).expand(-1, -1, 5, -1).clone()
    other = grid.clone()
    other[:, OUTPUTS.index("B11") : SMALL.months * len(OUTPUTS) : len(OUTPUTS)] = 9.0
    assert torch.equal(model.logits(grid), model.logits(other))


def test_a_class_depends_on_pixels_within_the_halo_and_on_no_other() -> None:
    model = CanopyNet(SMALL).eval()
    rng = torch.Generator().manual_seed(3)
    grid = torch.rand(1, SMALL.features, 11, 11, generator=rng)
    whole = model.logits(grid)
    assert whole.shape == (1, 3, 11 - 2 * model.halo, 11 - 2 * model.halo)
    moved = grid.clone()
    moved[..., 5, 0] += 1
    changed = (model.logits(moved) != whole).any(dim=1)[0]
    assert changed[:, 0].any()
    assert not changed[:, 1:].any()
    part = model.logits(grid[..., 2:9, 1:10])
    assert torch.allclose(part, whole[..., 2:5, 1:6], atol=1e-5)


def test_the_published_head_judges_each_pixel_by_its_pooled_embedding() -> None:
    config = CanopyConfig(layers=2, heads=2, width=16, months=0, reach=0, hidden=8)
    model = CanopyNet(config).eval()
    channels, day, valid = series(4)
    assert torch.equal(model.features(channels, day, valid)[:, :16], model.backbone.embed(channels, day, valid))
    assert model.halo == 0


def test_measured_features_have_mean_zero_and_unit_spread_over_pixels_that_have_them() -> None:
    model = CanopyNet(SMALL).eval()
    rng = torch.Generator().manual_seed(5)
    told = SMALL.months * len(OUTPUTS)
    features = torch.cat(
        [torch.randn(200, told, generator=rng) * 3 + 2, torch.ones(200, len(OUTPUTS)), torch.ones(200, 1)], dim=1
    )
    features[:50, told:] = 0
    model.head.measure(features)
    scaled = (features[50:, :told] - model.head.mean) / model.head.unit
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(told), atol=1e-4)
    assert torch.allclose(scaled.std(dim=0, correction=0), torch.ones(told), atol=1e-3)


def test_the_loss_leaves_out_what_is_not_known_and_weighs_classes() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    each = [math.log(1 + math.exp(-2)), math.log(2)]
    assert classification_loss(logits, labels).item() == pytest.approx(sum(each) / 2, rel=1e-5)
    assert classification_loss(logits, torch.tensor([[[0, -1]]])).item() == pytest.approx(each[0], rel=1e-5)
    weighed = classification_loss(logits, labels, weights=(1.0, 3.0)).item()
    assert weighed == pytest.approx((each[0] + 3 * each[1]) / 2, rel=1e-5)
    left = classification_loss(logits, torch.tensor([[[0, LEFT]]]), opinion=torch.full((1, 2, 1, 2), 0.5)).item()
    assert left == pytest.approx((each[0] + math.log(2)) / 2, rel=1e-5)
    focal = classification_loss(logits, labels, focus=2.0).item()
    wrong = 1 - 1 / (1 + math.exp(-2))
    assert focal == pytest.approx((each[0] * wrong**2 + each[1] * 0.25) / 2, rel=1e-5)


def test_several_members_differ_and_their_logits_are_averaged() -> None:
    model = CanopyNet(replace(SMALL, members=3)).eval()
    grid = torch.rand(1, SMALL.features, 9, 9, generator=torch.Generator().manual_seed(8))
    each = torch.stack([member(grid) for member in model.head.every])
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    assert torch.allclose(model.logits(grid), each.mean(dim=0), atol=1e-6)
    model.head.get_buffer("sharpness").fill_(2.0)
    assert torch.allclose(model.logits(grid), 2 * each.mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("turns", [2, 4, 8])
def test_turns_are_averaged_and_ground_turned_among_them_is_judged_alike(turns: int) -> None:
    model = CanopyNet(replace(SMALL, turns=turns)).eval()
    grid = torch.rand(1, SMALL.features, 9, 7, generator=torch.Generator().manual_seed(11))
    whole = model.logits(grid)
    assert whole.shape == (1, 3, 5, 3)
    assert not torch.allclose(whole, model.head(grid), atol=1e-3)
    assert torch.allclose(model.logits(grid.flip(-1)), whole.flip(-1), atol=1e-5)
    quarter = torch.allclose(model.logits(torch.rot90(grid, 1, (-2, -1))), torch.rot90(whole, 1, (-2, -1)), atol=1e-5)
    assert quarter == (turns == 8)


def test_one_member_has_the_weights_of_a_head_without_members() -> None:
    names = {name for name in CanopyNet(SMALL).state_dict() if name.startswith("head.")}
    assert "head.stem.weight" in names
    several = {name for name in CanopyNet(replace(SMALL, members=2)).state_dict() if name.startswith("head.")}
    prefixes = [f"head.members.{number}." for number in range(2)]
    assert several == {name.replace("head.", one) for one in prefixes for name in names} | {"head.sharpness"}


def test_the_loss_of_members_is_the_mean_of_what_each_alone_has() -> None:
    model = CanopyNet(replace(SMALL, members=2)).eval()
    rng = torch.Generator().manual_seed(9)
    grid = torch.rand(2, SMALL.features, 9, 9, generator=rng)
    labels = torch.randint(0, 3, (2, 5, 5), generator=rng)
    each = [classification_loss(member(grid), labels).item() for member in model.head.every]
    assert model.loss(LabelledGrid(grid, labels)).item() == pytest.approx(sum(each) / 2, rel=1e-5)


def test_cover_is_learned_beside_the_classes_where_it_is_known() -> None:
    model = CanopyNet(SMALL).eval()
    levels = CoverLevels(SMALL)
    grid = torch.rand(1, SMALL.features, 6, 6, generator=torch.Generator().manual_seed(10))
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    plain = model.loss(LabelledGrid(grid, labels), levels=levels).item()
    unknown = LabelledGrid(grid, labels, torch.full((1, 2, 2), UNKNOWN))
    assert model.loss(unknown, levels=levels).item() == pytest.approx(plain, rel=1e-6)
    told = LabelledGrid(grid, labels, cover_levels(torch.tensor([[[0, 50], [100, 7]]])))
    # nothing is known of the levels yet, and nothing was drawn: log of their number, at half the weight of the classes
    assert model.loss(told, levels=levels).item() == pytest.approx(plain + 0.5 * math.log(8), rel=1e-5)


def test_lora_begins_where_the_model_is_and_merges_into_plain_weights() -> None:
    model = EarthPT(SMALL.backbone).eval()
    channels, day, valid = series(6)
    before = model.embed(channels, day, valid)
    names = set(model.state_dict())
    trained = add_lora(model, rank=2, generator=torch.Generator().manual_seed(7))
    assert torch.equal(model.embed(channels, day, valid), before)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in trained}
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.05)
    moved = model.embed(channels, day, valid)
    assert not torch.allclose(moved, before, atol=1e-3)
    merge_lora(model)
    assert set(model.state_dict()) == names
    assert torch.allclose(model.embed(channels, day, valid), moved, atol=1e-5)
