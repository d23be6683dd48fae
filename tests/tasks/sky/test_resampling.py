"""Images between two scales: flux is kept, the way back gives what the way there was given, and the sky stays in its place."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from tasks.sky.resampling import PixelGrids


def blob(shape: tuple[int, int], *, y: float, x: float, sigma: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / sigma**2)


def grids(shape: tuple[int, int], scale: float) -> PixelGrids:
    return PixelGrids.around(shape, scale_arcsec=scale, model_scale_arcsec=0.524, least=16)


@pytest.mark.parametrize(("shape", "scale"), [((90, 110), 0.1), ((64, 50), 0.262), ((31, 24), 0.524), ((20, 17), 1.0)])
def test_flux_is_kept_there_and_back(shape: tuple[int, int], scale: float) -> None:
    made = grids(shape, scale)
    image = blob(shape, y=shape[0] / 2, x=shape[1] / 2, sigma=1.2 / scale)
    coarse, share = made.to_model(image, np.ones(shape, dtype=bool))
    assert min(coarse.shape) >= 16
    assert share.max() <= 1 + 1e-9
    assert (coarse * share).sum() == pytest.approx(image.sum(), rel=1e-3)
    assert made.to_image(coarse).sum() == pytest.approx(image.sum(), rel=1e-3)


def test_a_finer_image_gives_back_the_model_pixels_it_was_made_of() -> None:
    made = grids((100, 100), 0.131)
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=(2, *made.model))
    again, share = made.to_model(made.to_image(coarse), np.ones((2, 100, 100), dtype=bool))
    # pixels side by side that differ by their whole scatter are the hardest case
    assert np.abs(again - coarse)[share > 0.99].max() < 0.1
    assert np.abs(again - coarse)[share > 0.99].std() < 0.02


def test_the_same_scale_is_no_resampling() -> None:
    image = np.random.default_rng(2).normal(size=(21, 24))
    made = grids((21, 24), 0.524)
    coarse, share = made.to_model(image, np.ones(image.shape, dtype=bool))
    assert made.ratio == 1
    np.testing.assert_allclose(coarse[share > 0.5].reshape(image.shape), image)
    np.testing.assert_allclose(made.to_image(coarse), image)


def test_what_is_known_in_part_counts_as_bright_as_its_known_part() -> None:
    made = grids((64, 64), 0.262)
    valid = np.ones((64, 64), dtype=bool)
    valid[:, ::2] = False
    coarse, share = made.to_model(np.where(valid, 3.0, np.nan), valid)
    np.testing.assert_allclose(coarse, 12.0)
    np.testing.assert_allclose(share, 0.5)


def test_a_place_on_the_sky_is_the_same_place_on_model_pixels() -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [40.3, 61.7]
    wcs.wcs.cdelt = [-0.131 / 3600, 0.131 / 3600]
    made = grids((100, 120), 0.131)
    again = made.model_wcs(wcs)
    # a bright point, and where its light is on model pixels
    coarse, _ = made.to_model(blob((100, 120), y=70.0, x=33.0, sigma=6.0), np.ones((100, 120), dtype=bool))
    rows, columns = np.indices(coarse.shape)
    x, y = ((place * coarse).sum() / coarse.sum() for place in (columns, rows))
    for found, true in zip(again.pixel_to_world_values(x, y), wcs.pixel_to_world_values(33.0, 70.0), strict=True):
        assert found == pytest.approx(true, abs=0.01 / 3600)
