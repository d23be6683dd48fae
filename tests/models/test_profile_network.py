"""The profile network: what it gives before it has learned, symmetries, its loss, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.polar import ANGLES, RADII, Polar, turned
from models.profile_network import ProfileExample, ProfileNet, ProfileNetConfig
from models.training import TrainConfig, fit

SMALL = ProfileNetConfig(channels=8, depth=1, width=16, layers=1, heads=2)


def disc(batch: int = 4, bands: int = 2, *, seed: int = 0, noise: float = 1.0) -> tuple[Polar, Tensor]:
    """Return cells of exponential discs, the second band twice as bright, and their true brightness (B, K, R)."""
    generator = torch.Generator().manual_seed(seed)
    growth = (180.0 / 0.5) ** (1 / (RADII - 1))
    radius = (0.5 * growth ** torch.arange(RADII)).expand(batch, -1)
    scale = 6 + 10 * torch.rand(batch, 1, generator=generator)
    peak = 10 ** (1 + 1.5 * torch.rand(batch, 1, generator=generator))
    truth = torch.stack([(k + 1) * peak * torch.exp(-radius / scale) for k in range(bands)], dim=1)
    pixels = math.pi * radius.square() * (growth - 1 / growth)
    spread = noise / (pixels / ANGLES).clamp(min=0.2).sqrt()
    cells = torch.randn(batch, bands, RADII, ANGLES, generator=generator) * spread[:, None, :, None]
    one = torch.ones(batch, bands)
    return Polar(
        truth[..., None] + cells, torch.ones_like(cells), radius, pixels, torch.zeros(batch), 4 * one, one
    ), truth


def example(**options: int | float) -> ProfileExample:
    polar, truth = disc(**options)  # type: ignore[arg-type]
    batch = len(truth)
    nothing = torch.zeros(batch, 2)
    return ProfileExample(
        polar,
        torch.ones(batch, 2, dtype=torch.bool),
        torch.ones(batch, dtype=torch.int64),
        truth[:, 1],
        nothing,
        nothing,
        torch.ones(batch, dtype=torch.bool),
    )


def every(polar: Polar) -> Tensor:
    return torch.ones(polar.flux.shape[:2], dtype=torch.bool)


def first_band(polar: Polar) -> Tensor:
    return torch.zeros(len(polar.flux), dtype=torch.int64)


@torch.no_grad()
def test_before_it_has_learned_it_gives_the_mean_of_each_annulus_and_leaves_the_ellipse_alone() -> None:
    polar, truth = disc(noise=0.0)
    reading = ProfileNet(SMALL).read(polar, every(polar), first_band(polar))
    assert torch.allclose(reading.intensity[..., 1], truth[:, 0], rtol=1e-3, atol=1e-3)
    assert torch.allclose(reading.measured, truth[:, 0], rtol=1e-4)
    shift, bend = ProfileNet(SMALL).correct(polar, every(polar))
    assert not shift.any()
    assert not bend.any()


def trained_a_little(seed: int = 0) -> ProfileNet:
    """Return a network whose weights are all drawn, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    model = ProfileNet(SMALL, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def lopsided() -> Polar:
    turn = 2 * math.pi * torch.arange(ANGLES) / ANGLES
    polar, _ = disc()
    return replace(polar, flux=polar.flux * (1 + 0.3 * torch.cos(turn + 0.3) + 0.2 * torch.cos(2 * turn + 1)))


@torch.no_grad()
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_what_is_turned_about_a_circle_gives_the_same_profile_and_a_turned_ellipse(quarters: int) -> None:
    polar, model = lopsided(), trained_a_little()
    other = replace(polar, flux=polar.flux.roll(quarters * ANGLES // 4, dims=-1))
    before, after = (model.read(each, every(polar), first_band(polar)).intensity for each in (polar, other))
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4)
    (shift, bend), (other_shift, other_bend) = (model.correct(each, every(polar)) for each in (polar, other))
    turn = torch.full((4,), quarters * math.pi / 2)
    assert shift.abs().max() > 1e-3
    assert torch.allclose(other_shift, turned(shift, turn), atol=1e-5)
    assert torch.allclose(other_bend, turned(bend, 2 * turn), atol=1e-5)


@torch.no_grad()
def test_what_is_mirrored_gives_the_same_profile_and_a_mirrored_ellipse() -> None:
    polar, model = replace(lopsided(), flattening=torch.full((4,), 0.3)), trained_a_little()
    other = replace(polar, flux=polar.flux.flip(-1))
    before, after = (model.read(each, every(polar), first_band(polar)).intensity for each in (polar, other))
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4)
    mirror = torch.tensor([1.0, -1.0])
    for found, expected in zip(model.correct(other, every(polar)), model.correct(polar, every(polar)), strict=True):
        assert torch.allclose(found, expected * mirror, atol=1e-5)


@torch.no_grad()
def test_bands_that_are_not_in_use_do_not_matter() -> None:
    polar, _ = disc()
    spoilt = replace(polar, flux=polar.flux.clone())
    spoilt.flux[:, 1] = 1e4
    use = torch.tensor([[True, False]]).expand(4, -1)
    model = trained_a_little()
    assert torch.equal(
        model.read(polar, use, first_band(polar)).intensity, model.read(spoilt, use, first_band(polar)).intensity
    )
    assert not torch.equal(
        model.read(polar, every(polar), first_band(polar)).intensity,
        model.read(spoilt, every(polar), first_band(polar)).intensity,
    )


@torch.no_grad()
def test_quantiles_rise_and_scale_with_the_calibration() -> None:
    polar, _ = disc()
    model = trained_a_little()
    narrow = model.read(polar, every(polar), first_band(polar)).intensity
    assert (narrow.diff(dim=-1) > 0).all()
    model.calibration.fill_(2.0)
    wide = model.read(polar, every(polar), first_band(polar)).intensity
    assert torch.equal(wide[..., 1], narrow[..., 1])
    z = torch.asinh((wide - 0.0) / 2), torch.asinh(narrow / 2)
    assert (z[0].diff(dim=-1) >= z[1].diff(dim=-1)).all()


@torch.no_grad()
def test_annuli_without_data_give_numbers() -> None:
    polar, _ = disc()
    cover = polar.cover.clone()
    cover[:, :, 40:] = 0
    reading = trained_a_little().read(
        replace(polar, cover=cover, flux=polar.flux * cover), every(polar), first_band(polar)
    )
    assert torch.isfinite(reading.intensity).all()
    assert (reading.seen[:, 40:] == 0).all()


@torch.no_grad()
def test_all_bands_at_once_are_read_as_each_alone() -> None:
    polar, _ = disc(bands=3)
    use = every(polar)
    use[0, 2] = False
    model = trained_a_little()
    whole = model.read_bands(polar, use)
    for band in range(3):
        alone = model.read(polar, use, torch.full((4,), band))
        for name, value in vars(alone).items():
            assert torch.allclose(getattr(whole, name).unflatten(0, (4, 3))[:, band], value, rtol=1e-4, atol=1e-5), name


@torch.no_grad()
def test_convolutions_over_angle_are_those_of_kernels_that_are_their_own_mirror_image() -> None:
    model, generator = trained_a_little(), torch.Generator().manual_seed(2)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)]
    assert {layer.stride for layer in layers} == {(1, 1), (1, 2)}
    for layer in layers:
        planes = torch.randn(2, layer.in_channels, RADII, ANGLES, generator=generator)
        ringed = torch.cat([planes[..., -1:], planes, planes[..., :1]], dim=-1)
        kernel = 0.5 * (layer.weight + layer.weight.flip(-1))
        found = layer(planes)
        layer.weight.copy_(kernel)
        assert torch.allclose(found, nn.Conv2d.forward(layer, ringed), atol=1e-4)


def test_every_weight_is_learned_from() -> None:
    model, flat = trained_a_little().train(), example()
    flat = replace(flat, polar=replace(flat.polar, flattening=torch.full((4,), 0.4)), bend=torch.full((4, 2), 0.1))
    model.loss(flat, generator=torch.Generator()).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # a constant added before a softmax changes nothing
    assert set(without) <= {"shift.attention.bias", "bend.attention.bias"}


def test_profiles_about_ellipses_that_are_far_off_are_not_asked() -> None:
    near = example()
    none = replace(near, profile_counts=torch.zeros(4, dtype=torch.bool))
    changed = replace(none, truth=none.truth * 3)
    model = trained_a_little()
    assert float(model.loss(none, generator=torch.Generator()).detach()) == float(
        model.loss(changed, generator=torch.Generator()).detach()
    )
    assert float(model.loss(near, generator=torch.Generator()).detach()) > 0


def test_it_learns_to_leave_out_a_star_on_every_ring() -> None:
    class Stars:
        def at(self, position: int) -> ProfileExample:
            plain = example(batch=8, seed=position)
            flux = plain.polar.flux.clone()
            place = torch.randint(ANGLES, (8,), generator=torch.Generator().manual_seed(position))
            flux[torch.arange(8)[:, None], :, torch.arange(20, 40)[None], place[:, None]] += 300.0
            return replace(plain, polar=replace(plain.polar, flux=flux))

        def tokens(self, batch: ProfileExample) -> int:
            return len(batch.truth)

    model, held_out = ProfileNet(SMALL), Stars().at(10_001)
    with torch.no_grad():
        before = float(model.loss(held_out, generator=torch.Generator()))
    fit(model, Stars(), TrainConfig(steps=50, learning_rate=5e-3, warmup_steps=5))
    with torch.no_grad():
        after = float(model.loss(held_out, generator=torch.Generator()))
        reading = model.read(held_out.polar, held_out.use, held_out.band)
    plain = held_out.polar.flux[:, 1, 20:40].mean(dim=-1)
    truth = held_out.truth[:, 20:40]
    assert after < 0.6 * before
    assert (reading.intensity[:, 20:40, 1] - truth).abs().mean() < 0.5 * (plain - truth).abs().mean()


@torch.no_grad()
def test_strangeness_is_the_distance_in_standard_deviations() -> None:
    model = ProfileNet(SMALL)
    model.usual_mean.fill_(1.0)
    model.usual_precision.copy_(torch.eye(16) / 4)
    features = torch.ones(2, 16)
    features[1, 3] += 6.0
    assert model.strangeness(features).tolist() == pytest.approx([0.0, 3.0])


def test_first_weights_are_those_of_a_seed() -> None:
    first, again, other = (ProfileNet(SMALL, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.embed.weight, other.embed.weight)
