"""A gallery shows what an astronomer looks for: dark sky, faint discs, true colours, missing pixels."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sky_cases import random_cutout

from storage.cutouts import BandFacts, Cutout
from tasks.sky.gallery import NOT_VALID, PER_PAGE, colour_image, gallery_picture


def disc(bands: str = "grz", *, flux: tuple[float, ...] = (1.0, 1.8, 2.7), sky: float = 0.0, side: int = 60) -> Cutout:
    """Return an exponential disc of the given flux per band over noise of 0.01, as bright as 40 sigma at most."""
    rng = np.random.default_rng(3)
    radius = np.hypot(*(np.mgrid[:side, :side] - side / 2))
    light = 0.15 * np.exp(-radius / (side / 12))
    planes = np.stack([sky + light * level + rng.normal(0, 0.01, light.shape) for level in flux]).astype(np.float32)
    return replace(
        random_cutout("disc", shape=(side, side), bands=tuple(bands)),
        flux=planes,
        valid=np.ones(planes.shape, dtype=bool),
        bands=tuple(BandFacts(name) for name in bands),
        segmentation=np.zeros((side, side), dtype=np.int32),
    )


def means(cutout: Cutout) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean colour of the middle and of a corner."""
    image = colour_image(cutout).astype(float)
    middle = image.shape[0] // 2
    return image[middle - 3 : middle + 3, middle - 3 : middle + 3].mean((0, 1)), image[:12, :12].mean((0, 1))


def test_sky_is_dark_and_a_disc_bright_at_any_depth_and_sky_level() -> None:
    for sky, scale in ((0.0, 1.0), (0.0, 1e-4), (1100.0, 50.0)):
        cutout = disc()
        middle, corner = means(replace(cutout, flux=(sky + scale * cutout.flux).astype(np.float32)))
        assert corner.mean() < 50 < 130 < middle.mean()


def test_a_red_galaxy_is_red_and_a_blue_one_blue_whatever_the_order_of_bands() -> None:
    red, _ = means(disc(flux=(0.3, 1.5, 3.5)))
    blue, _ = means(disc(flux=(2.0, 1.8, 1.5)))
    assert red[0] > 1.3 * red[2]
    assert blue[2] > 1.1 * blue[0]
    turned, _ = means(disc("zrg", flux=(3.5, 1.5, 0.3)))
    assert turned[0] > 1.3 * turned[2]


@pytest.mark.parametrize("bands", ["r", "gr"])
def test_one_or_two_bands_are_grey(bands: str) -> None:
    image = colour_image(disc(bands, flux=(1.0, 2.0)[: len(bands)]))
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 1] == image[..., 2]).all()


def test_pixels_without_data_have_their_own_colour() -> None:
    cutout = disc()
    cutout.valid[1, :20] = False
    image = colour_image(cutout)
    assert (image[:20] == NOT_VALID).all()
    assert not (image[20:] == NOT_VALID).all(axis=2).any()


def test_a_large_image_is_averaged_so_that_its_noise_shrinks() -> None:
    cutout = disc(side=240)
    assert colour_image(cutout, most=60).shape == (60, 60, 3)
    assert colour_image(cutout, most=100).shape == (80, 80, 3)


@pytest.mark.parametrize("value", [0.0, 5.0])
@pytest.mark.parametrize("valid", [True, False])
def test_an_image_of_nothing_is_drawn_too(value: float, valid: bool) -> None:
    cutout = disc()
    blank = replace(cutout, flux=np.full_like(cutout.flux, value), valid=np.full_like(cutout.valid, valid))
    assert colour_image(blank).shape == (60, 60, 3)


def test_the_same_cutouts_give_the_same_picture() -> None:
    cutouts = [
        disc(),
        replace(disc(), object_id="a $title$ of_some {length} that does not fit", ra=1.0),
        disc("r", flux=(1.0,)),
    ]
    cutouts[2].segmentation[5:9, 5:9] = 2
    first = gallery_picture(cutouts)
    assert first == gallery_picture(cutouts)
    assert first != gallery_picture(cutouts, titles=["a", "b", "c"])
    assert Image.open(io.BytesIO(first)).size[0] > 400


def test_a_page_holds_so_many_and_no_more() -> None:
    one = disc("r", flux=(1.0,), side=10)
    full = gallery_picture([one] * PER_PAGE)
    more = gallery_picture([one] * (PER_PAGE + 50))
    assert Image.open(io.BytesIO(full)).size == Image.open(io.BytesIO(more)).size
    assert full != more


def test_titles_have_to_fit_the_cutouts() -> None:
    with pytest.raises(ValueError, match="1 cutouts with 2 titles"):
        gallery_picture([disc()], titles=["a", "b"])
    with pytest.raises(ValueError, match="0 cutouts"):
        gallery_picture([])
