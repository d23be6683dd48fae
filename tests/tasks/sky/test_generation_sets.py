"""Sets of galaxies: what cannot be measured is refused, grids are made one, stores and the generator are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sky_cases import random_cutout

from storage.errors import NotFound
from storage.location import resolve
from storage.sky import append_cutouts
from tasks.errors import ConfigurationError, UsageError
from tasks.sky.generation_sets import (
    GalaxySet,
    Grid,
    onto_one_grid,
    open_galaxies,
    read_store,
    require_galaxies,
    thumbnails,
)

BANDS = ("g", "r", "z")


def noise(count: int = 4, *, side: int = 64, bands: int = 3, scale: float = 0.524) -> GalaxySet:
    images = np.random.default_rng(1).normal(size=(count, bands, side, side)).astype(np.float32)
    return GalaxySet(images, BANDS[:bands], scale, "noise")


def no_model(*_: object) -> GalaxySet:
    raise NotFound("no model of that name")


def with_nan() -> GalaxySet:
    images = noise().images.copy()
    images[2, 1, 5, 5] = np.nan
    return replace(noise(), images=images)


@pytest.mark.parametrize(
    ("galaxies", "message"),
    [
        (with_nan(), r"1 of 4 images have pixels that are no finite number, the first is image 2"),
        (replace(noise(), bands=("g", "r")), "images of 3 bands, named g, r"),
        (replace(noise(), images=noise().images[:, :, :, :50]), r"images of shape \(4, 3, 64, 50\)"),
        (replace(noise(), images=noise().images[:, 0]), r"expected \(n, band, y, x\)"),
        (noise(side=16), "images of 16 pixels a side; 32 and more"),
        (noise(1), "1 galaxies; at least 2 are needed"),
    ],
)
def test_what_cannot_be_measured_is_refused(galaxies: GalaxySet, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        require_galaxies(galaxies)


def test_finer_pixels_are_summed_and_larger_images_cut() -> None:
    fine, coarse = noise(side=256, scale=0.262), noise(side=64)
    found, same = onto_one_grid(fine, coarse)
    assert found.images.shape == same.images.shape == (4, 3, 64, 64)
    assert found.pixel_scale_arcsec == 0.524
    np.testing.assert_allclose(
        found.images[0, 0, 0, 0], fine.images[0, 0, 64:66, 64:66].sum(), rtol=1e-5
    )  # 128 pixels of 0.524 arcsec, the middle 64


@pytest.mark.parametrize(
    ("other", "message"),
    [(noise(bands=2), "has bands g, r and noise g, r, z"), (noise(scale=0.4), "is no whole number of them")],
)
def test_what_cannot_be_brought_together_is_refused(other: GalaxySet, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        onto_one_grid(noise(), other)


def test_thumbnails_are_means_of_blocks_in_units_of_the_softening() -> None:
    galaxies = replace(noise(), images=np.full((2, 3, 64, 64), 0.5, dtype=np.float32))
    small = thumbnails(galaxies, np.array([0.5, 1.0, 2.0]))
    assert small.shape == (2, 3, 16, 16)
    np.testing.assert_allclose(small[0, :, 0, 0], np.arcsinh([1.0, 0.5, 0.25]), rtol=1e-6)


def test_a_store_gives_whole_images_of_its_commonest_size(tmp_path: Path) -> None:
    warehouse = resolve(tmp_path)
    cutouts = [random_cutout(str(k), shape=(40, 40), seed=k) for k in range(6)]
    whole = [replace(one, valid=np.ones_like(one.valid)) for one in cutouts[:5]]
    append_cutouts(warehouse / "sky" / "mine", [*whole, cutouts[5], random_cutout("odd", shape=(40, 44))], batch="a")
    found = open_galaxies("mine", warehouse, count=9, seed=0, sample=no_model, bands=("r", "z"))
    assert found.images.shape == (5, 2, 40, 40)
    assert (found.bands, found.left_out, found.pixel_scale_arcsec) == (("r", "z"), 2, 0.262)
    wanted = {one.flux[1].tobytes() for one in whole}
    assert {image[0].tobytes() for image in found.images} == wanted
    by_path = read_store(resolve(tmp_path / "sky" / "mine"), count=2, seed=3)
    assert by_path.images.shape == (2, 3, 40, 40)
    with pytest.raises(ConfigurationError, match="no galaxies in nanomaggies in bands u"):
        open_galaxies("mine", warehouse, count=9, seed=0, sample=no_model, bands=("u",))


@pytest.mark.slow
def test_the_generator_gives_the_same_galaxies_for_a_seed_and_others_for_another(tmp_path: Path) -> None:
    warehouse, grid = resolve(tmp_path), Grid(32, 1.0)
    one = open_galaxies("generated:bench_full:3", warehouse, count=4, seed=9, sample=no_model, grid=grid)
    same = open_galaxies("generated:bench_full", warehouse, count=2, seed=3, sample=no_model, grid=grid)
    assert one.images.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(one.images[:2], same.images)
    assert one.origin == same.origin == "generated:bench_full:3"


def test_a_generator_or_a_seed_that_is_none_is_named(tmp_path: Path) -> None:
    warehouse = resolve(tmp_path)
    with pytest.raises(UsageError, match="the seed 'x' is no whole number"):
        open_galaxies("generated:bench_full:x", warehouse, count=2, seed=3, sample=no_model)
    with pytest.raises(ConfigurationError, match="no prior 'flowers'"):
        open_galaxies("generated:flowers", warehouse, count=2, seed=3, sample=no_model)


def test_a_name_that_is_no_store_is_a_model(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model of that name"):
        open_galaxies("other", resolve(tmp_path), count=2, seed=0, sample=no_model)
