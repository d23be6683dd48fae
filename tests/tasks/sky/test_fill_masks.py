"""Which pixels are to be filled: files, the survey's bits, trails, no data; masks of another shape are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from sky_cases import sersic_cutout

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError, SourceRejected, UsageError
from tasks.sky.fill_masks import fill_mask
from tasks.sky.trails import across


@pytest.fixture
def cutout() -> Cutout:
    return sersic_cutout(side=64)


def save(path: Path, *planes: np.ndarray) -> str:
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(plane) for plane in planes)]).writeto(path)
    return str(path)


def test_a_mask_in_a_file_is_of_every_band_or_of_each(tmp_path: Path, cutout: Cutout) -> None:
    one = np.zeros((64, 64), dtype=np.uint8)
    one[3, 4] = 7
    assert np.argwhere(fill_mask(cutout, [save(tmp_path / "one.fits", one)])).tolist() == [
        [0, 3, 4],
        [1, 3, 4],
        [2, 3, 4],
    ]
    cube = np.zeros((3, 64, 64), dtype=np.float32)
    cube[1, 5, 6], cube[2, 7, 8] = np.nan, -1
    for name, planes in (("cube", (cube,)), ("each", tuple(cube))):
        found = fill_mask(cutout, [save(tmp_path / f"{name}.fits", *planes)])
        assert np.argwhere(found).tolist() == [[1, 5, 6], [2, 7, 8]]


def test_bits_of_the_surveys_mask_count_all_or_some(cutout: Cutout) -> None:
    bits = cutout.maskbits.copy()
    bits[0, 0, 0], bits[1, 1, 1], bits[2, 2, 2] = 1 << 5, 1 << 12, -(2**31)
    marked = replace(cutout, maskbits=bits)
    assert fill_mask(marked, ["survey"]).sum() == 3
    assert np.argwhere(fill_mask(marked, ["survey"], bits=(5, 6))).tolist() == [[0, 0, 0]]
    assert np.argwhere(fill_mask(marked, ["survey"], bits=(31,))).tolist() == [[2, 2, 2]]
    with pytest.raises(UsageError, match="--mask-bits 32"):
        fill_mask(marked, ["survey"], bits=(32,))


def test_kinds_add_up(tmp_path: Path, cutout: Cutout) -> None:
    valid = cutout.valid.copy()
    valid[0, 10] = False
    flux = cutout.flux.copy()
    flux[2] += 0.03 * np.exp(-0.5 * ((across((64, 64), 0.4) - 5) / 2.5) ** 2).astype(np.float32)
    spoilt = replace(cutout, valid=valid, flux=flux)
    missing, trails = (fill_mask(spoilt, [word]) for word in ("missing", "trails"))
    assert missing.sum() == 64
    assert trails[2].any()
    assert not trails[:2].any()
    assert np.array_equal(fill_mask(spoilt, ["trails", "missing"]), missing | trails)


def test_a_mask_that_does_not_fit_says_why(tmp_path: Path, cutout: Cutout) -> None:
    with pytest.raises(ConfigurationError, match=r"mask of shape \(64, 63\) for an image of \(3, 64, 64\)"):
        fill_mask(cutout, [save(tmp_path / "narrow.fits", np.ones((64, 63)))])
    with pytest.raises(ConfigurationError, match="no such file, and none of trails, survey, missing"):
        fill_mask(cutout, ["stars"])
    with pytest.raises(ConfigurationError, match="different shapes"):
        fill_mask(cutout, [save(tmp_path / "two.fits", np.ones((64, 64)), np.ones((3, 3)))])
    with pytest.raises(SourceRejected, match="holds no image"):
        fill_mask(cutout, [save(tmp_path / "none.fits")])
