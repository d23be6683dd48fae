"""Cells about a galaxy: against closed forms, and as the image is turned, mirrored, padded and masked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.polar import (
    ANGLES,
    RADII,
    Ellipses,
    Images,
    Polar,
    Pyramid,
    Sky,
    find_centres,
    measure_sky,
    nan_median,
    turned,
)

SIDE = 128


def exponential(x: float, y: float, *, ratio: float, angle: float, scale: float = 9.0, side: int = SIDE) -> Tensor:
    """Return an image of an exponential disc with a soft middle; every ellipse about (x, y) has one brightness."""
    rows, columns = torch.meshgrid(torch.arange(side) * 1.0, torch.arange(side) * 1.0, indexing="ij")
    along = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
    across = -(columns - x) * math.sin(angle) + (rows - y) * math.cos(angle)
    return brightness((along.square() + (across / ratio).square()).sqrt(), scale)


def brightness(radius: Tensor, scale: float = 9.0) -> Tensor:
    return 1000 * torch.exp(-(radius.square() + 9.0).sqrt() / scale)


def images_of(flux: Tensor, valid: Tensor | None = None, *, shape: tuple[int, int] | None = None) -> Images:
    flux = flux[None, None] if flux.dim() == 2 else flux
    valid = torch.ones_like(flux, dtype=torch.bool) if valid is None else valid[None, None]
    size = torch.tensor([shape or flux.shape[-2:]]).expand(len(flux), -1)
    return Images.of(flux, torch.ones_like(flux), valid, shape=size, fwhm=torch.full(flux.shape[:2], 4.0))


def no_sky(images: Images) -> Sky:
    zero = torch.zeros_like(images.sigma)
    return Sky(zero, zero + 0.01, zero + 1)


def ellipse(x: float, y: float, ratio: float, angle: float) -> Ellipses:
    flat = 1 - ratio
    shape = [flat * math.cos(2 * angle), flat * math.sin(2 * angle)]
    return Ellipses(torch.tensor([[x, y]]), torch.tensor([shape]))


def cells(flux: Tensor, about: Ellipses, valid: Tensor | None = None) -> Polar:
    images = images_of(flux, valid)
    return Pyramid(images, no_sky(images)).polar(about)


@pytest.mark.parametrize(("ratio", "angle"), [(1.0, 0.0), (0.6, 0.4), (0.3, 2.0)])
def test_every_cell_of_an_annulus_has_the_brightness_of_its_ellipse(ratio: float, angle: float) -> None:
    found = cells(exponential(63.3, 64.1, ratio=ratio, angle=angle), ellipse(63.3, 64.1, ratio, angle))
    inside = (found.radius[0] > 1) & (found.radius[0] < 55)
    expected = brightness(found.radius[0])[inside]
    apart = found.flux[0, 0, inside] / expected[:, None] - 1
    assert apart.mean(dim=-1).abs().max() < 0.012
    assert apart.abs().max() < 0.06
    assert (found.cover[0, 0, inside] > 0.99).all()


def test_radii_go_from_half_a_pixel_to_the_farthest_corner_and_areas_add_up() -> None:
    found = cells(torch.zeros(SIDE, SIDE), ellipse(60.0, 60.0, 0.5, 0.0))
    growth = float(found.radius[0, 1] / found.radius[0, 0])
    assert found.radius.shape == (1, RADII)
    assert float(found.radius[0, 0]) == pytest.approx(0.5)
    assert float(found.radius[0, -1]) == pytest.approx(67 * math.sqrt(2), rel=1e-4)
    whole = math.pi * 0.5 * (float(found.radius[0, -1]) ** 2 * growth - 0.25 / growth)
    assert float(found.pixels.sum()) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_image_has_the_same_cells_further_on(turns: int) -> None:
    # about the middle of an image whose side divides by the pyramid's, so that halving commutes with the turn
    generator = torch.Generator().manual_seed(1)
    image = exponential(63.5, 63.5, ratio=0.5, angle=0.3) + torch.randn(SIDE, SIDE, generator=generator)
    middle = ellipse(63.5, 63.5, 1.0, 0.0)
    before, after = cells(image, middle), cells(torch.rot90(image, turns, (-1, -2)), middle)
    assert torch.allclose(after.flux, before.flux.roll(turns * ANGLES // 4, dims=-1), atol=2e-3)


def test_a_mirrored_image_has_its_cells_the_other_way_round() -> None:
    image = exponential(63.5, 63.5, ratio=0.5, angle=0.3)
    middle = ellipse(63.5, 63.5, 1.0, 0.0)
    assert torch.allclose(cells(image.flip(0), middle).flux, cells(image, middle).flux.flip(-1), atol=1e-3)


def test_masked_pixels_do_not_count_and_are_told() -> None:
    image = exponential(63.0, 63.0, ratio=0.8, angle=0.0)
    valid = torch.ones(SIDE, SIDE, dtype=torch.bool)
    valid[63:, 80:100] = False
    spoilt = torch.where(valid, image, 1e6)
    about = ellipse(63.0, 63.0, 0.8, 0.0)
    clean, masked = cells(image, about), cells(spoilt, about, valid)
    known = masked.cover[0, 0] > 0.5
    inside = (clean.radius[0] < 55)[:, None] & known
    assert (masked.flux[0, 0] / clean.flux[0, 0] - 1)[inside].abs().max() < 0.1
    assert (masked.cover < 0.1).any()


def test_padding_changes_nothing() -> None:
    image = exponential(40.0, 45.0, ratio=0.7, angle=1.0, side=96)
    padded = torch.zeros(SIDE, SIDE)
    padded[:96, :96] = image
    valid = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    valid[:96, :96] = True
    about = ellipse(40.0, 45.0, 0.7, 1.0)
    plain = cells(image, about)
    images = images_of(padded, valid, shape=(96, 96))
    wider = Pyramid(images, no_sky(images)).polar(about)
    assert torch.allclose(wider.flux, plain.flux, atol=1e-3)
    assert torch.allclose(wider.cover, plain.cover, atol=1e-4)


finite = st.floats(-0.6, 0.6)


@given(finite, finite, finite, finite, st.floats(-3, 3), st.floats(-3, 3))
def test_what_leads_to_other_ellipses_leads_there(a: float, b: float, c: float, d: float, x: float, y: float) -> None:
    first = Ellipses(torch.tensor([[5.0, 7.0]]), torch.tensor([[a, b]]))
    second = Ellipses(torch.tensor([[5.0 + x, 7.0 + y]]), torch.tensor([[c, d]]))
    found = first.moved(*first.towards(second))
    assert torch.allclose(found.centre, second.centre, atol=1e-5)
    assert torch.allclose(found.shape, second.shape, atol=1e-5)


def test_a_quarter_turn_turns_vectors_anticlockwise() -> None:
    assert torch.allclose(
        turned(torch.tensor([[1.0, 0.0]]), torch.tensor([math.pi / 2])), torch.tensor([[0.0, 1.0]]), atol=1e-6
    )


def test_sky_is_found_beneath_a_galaxy_within_its_error() -> None:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(12, 1, 256, 256, generator=generator)
    galaxy = exponential(127.0, 127.0, ratio=0.7, angle=0.5, side=256, scale=8.0)
    sky = measure_sky(images_of(noise + 5.0 + galaxy))
    assert ((sky.level[:, 0] - 5.0) / sky.error[:, 0]).abs().max() < 4
    assert ((sky.level[:, 0] - 5.0) / sky.error[:, 0]).std() < 1.7
    assert sky.inflation.median() == pytest.approx(1.0, abs=0.15)


def test_noise_that_pixels_share_raises_the_error_of_means() -> None:
    generator = torch.Generator().manual_seed(4)
    white = torch.randn(1, 1, 256, 256, generator=generator)
    shared = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1) * 3
    assert float(measure_sky(images_of(shared)).inflation) > 2.0


def test_noise_is_measured_where_no_inverse_variance_is_given() -> None:
    generator = torch.Generator().manual_seed(5)
    flux = 0.02 * torch.randn(1, 1, 128, 128, generator=generator)
    valid = torch.ones_like(flux, dtype=torch.bool)
    images = Images.of(
        flux, torch.zeros_like(flux), valid, shape=torch.tensor([[128, 128]]), fwhm=torch.tensor([[torch.nan]])
    )
    assert float(images.sigma) == pytest.approx(0.02, rel=0.05)
    assert images.weight.all()


def test_what_is_not_finite_or_has_no_inverse_variance_is_no_data_and_changes_nothing_beside_it() -> None:
    generator = torch.Generator().manual_seed(8)
    flux, ivar = torch.randn(1, 2, 64, 64, generator=generator), torch.full((1, 2, 64, 64), 4.0)
    valid, size = torch.ones_like(flux, dtype=torch.bool), torch.tensor([[64, 64]])
    spoilt, without = flux.clone(), ivar.clone()
    spoilt[0, 0, 3, 5], spoilt[0, 1, 9, 9], without[0, 1, 20, 21] = torch.nan, torch.inf, 0.0
    clean, found = (
        Images.of(light, known, valid, shape=size, fwhm=torch.full((1, 2), 4.0))
        for light, known in ((flux, ivar), (spoilt, without))
    )
    gone = found.weight == 0
    assert gone.nonzero().tolist() == [[0, 0, 3, 5], [0, 1, 9, 9], [0, 1, 20, 21]]
    assert torch.equal(found.flux, torch.where(gone, 0.0, clean.flux))
    assert torch.equal(clean.flux, 2 * flux)


def test_the_median_of_what_is_known_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(9)
    values = torch.randn(6, 5, 33, generator=generator)
    values[torch.rand(values.shape, generator=generator) < 0.4] = torch.nan
    values[0, 0], values[1, 0, 1:] = torch.nan, torch.nan
    assert torch.equal(nan_median(values).nan_to_num(7.0), values.nanmedian(dim=-1).values.nan_to_num(7.0))


def test_what_is_read_between_pixels_of_a_halved_image_is_straight_and_beyond_it_there_is_nothing() -> None:
    """A plane is the same plane however often it is halved, and straight between any of its pixels."""
    rows, columns = torch.meshgrid(torch.arange(SIDE) * 1.0, torch.arange(SIDE) * 1.0, indexing="ij")
    images = images_of(torch.stack([3 + 2 * columns - rows, 5 + rows])[None])
    generator = torch.Generator().manual_seed(6)
    x, y = (20 + 80 * torch.rand(1, 4, 5, 3, generator=generator) for _ in range(2))
    read = Pyramid(images, no_sky(images)).read(x, y, torch.arange(4)[None])
    assert read.shape == (1, 3, 4, 5)
    for found, expected in zip(read[0], (3 + 2 * x - y, 5 + y, torch.ones_like(x)), strict=True):
        assert torch.allclose(found, expected.mean(dim=-1)[0], atol=1e-3)
    far = Pyramid(images, no_sky(images)).read(x + 1000, y - 1000, torch.arange(4)[None])
    assert not far.any()


def test_bands_with_masks_of_their_own_are_read_as_bands_that_share_one() -> None:
    generator = torch.Generator().manual_seed(7)
    flux, valid = torch.randn(2, 2, 64, 64, generator=generator), torch.ones(2, 2, 64, 64, dtype=torch.bool)
    valid[0, 1, 20:30, 20:40] = False
    about = Ellipses(torch.full((2, 2), 31.5), torch.tensor([[0.3, 0.1]]).repeat(2, 1))
    size, fwhm = torch.tensor([[64, 64]]).repeat(2, 1), torch.full((2, 2), 4.0)

    def read(rows: slice) -> Polar:
        part = Images.of(flux[rows], torch.ones_like(flux[rows]), valid[rows], shape=size[rows], fwhm=fwhm[rows])
        return Pyramid(part, no_sky(part)).polar(Ellipses(about.centre[rows], about.shape[rows]))

    both, shared = read(slice(0, 2)), read(slice(1, 2))
    assert torch.allclose(both.flux[1:], shared.flux, atol=1e-5)
    assert torch.allclose(both.cover[1:], shared.cover, atol=1e-6)
    assert (both.cover[0, 1] < both.cover[0, 0] - 0.5).any()


def test_the_brightest_place_near_the_target_is_found_and_a_star_far_off_is_not() -> None:
    image = exponential(70.2, 58.7, ratio=0.6, angle=0.2)
    star = exponential(20.0, 110.0, ratio=1.0, angle=0.0, scale=1.5)
    images = images_of(image + 100 * star)
    found = find_centres(images, no_sky(images), torch.tensor([[68.0, 60.0]]), reach=torch.tensor([8.0]))
    assert torch.allclose(found, torch.tensor([[70.2, 58.7]]), atol=0.3)


def test_each_image_is_smoothed_by_the_width_of_its_own_stars() -> None:
    image = torch.stack([exponential(70.2, 58.7, ratio=0.6, angle=0.2), exponential(60.0, 66.0, ratio=0.8, angle=1.0)])
    images = replace(images_of(image[:, None]), fwhm=torch.tensor([[2.0], [9.0]]))
    expected, reach = torch.tensor([[68.0, 60.0], [61.0, 66.0]]), torch.tensor([8.0, 8.0])
    both = find_centres(images, no_sky(images), expected, reach=reach)
    for row in (0, 1):
        alone = replace(images_of(image[row]), fwhm=images.fwhm[row : row + 1])
        found = find_centres(alone, no_sky(alone), expected[row : row + 1], reach=reach[:1])
        assert torch.allclose(found[0], both[row], atol=1e-3)


def test_an_empty_image_leaves_the_target_where_it_is_said_to_be() -> None:
    images = images_of(torch.zeros(SIDE, SIDE))
    expected = torch.tensor([[3.0, 60.0]])
    assert torch.equal(find_centres(images, no_sky(images), expected, reach=torch.tensor([8.0])), expected)
