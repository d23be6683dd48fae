"""Images in files, filled: FITS in and out, bit for bit, not twice, a row for what cannot be done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from galaxy_models import save_model
from sky_cases import sersic_cutout

from tasks.errors import ConfigurationError, SourceRejected, UsageError
from tasks.sky.cutout_files import read_cutout, write_cutout
from tasks.sky.inpainting import InpaintRule
from tasks.sky.inpainting_job import InpaintRequest, check_images, fill_image, require_masks

RULE = InpaintRule(draws=3, steps=3, resamplings=1)


@pytest.fixture
def request_(tmp_path: Path) -> InpaintRequest:
    cutout = sersic_cutout("galaxy", side=40, scale=0.262)
    write_cutout(tmp_path / "in" / "galaxy.fits", cutout)
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[18:22] = 1
    fits.writeto(tmp_path / "in" / "hole.fits", mask)
    return InpaintRequest(
        images=(str(tmp_path / "in" / "galaxy.fits"),),
        out=str(tmp_path / "out"),
        weights=save_model(tmp_path / "warehouse"),
        mask=(str(tmp_path / "in" / "hole.fits"),),
        rule=RULE,
    )


def test_a_file_is_filled_in_its_hole_and_bit_for_bit_the_same_elsewhere(request_: InpaintRequest) -> None:
    image = request_.images[0]
    row = fill_image(replace(request_, all_draws=True), image)
    assert (row.state, row.pixels) == ("filled", 3 * 4 * 40)
    before, after = read_cutout(Path(image)), read_cutout(Path(row.result))
    hole = np.zeros((3, 40, 40), dtype=bool)
    hole[:, 18:22] = True
    assert after.flux[~hole].tobytes() == before.flux[~hole].tobytes()
    assert not np.array_equal(after.flux[hole], before.flux[hole])
    assert after.wcs == before.wcs
    with fits.open(request_.folder / "draws" / "galaxy.fits") as units:
        mean, spread, mask, draws = (units[name].data for name in ("MEAN", "SPREAD", "MASK", "DRAWS"))
    assert np.array_equal(mask != 0, hole)
    assert draws.shape == (3, 3, 40, 40)
    assert draws[0].astype(np.float32).tobytes() == after.flux.tobytes()
    np.testing.assert_allclose(mean[hole], draws.mean(axis=0)[hole], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spread[hole], draws.std(axis=0, ddof=1)[hole], rtol=1e-3, atol=1e-6)
    assert mean[~hole].astype(np.float32).tobytes() == before.flux[~hole].tobytes()
    assert Path(row.picture).read_bytes().startswith(b"\x89PNG")


def test_what_is_filled_is_not_filled_again_unless_something_changed(request_: InpaintRequest) -> None:
    image = request_.images[0]
    assert fill_image(request_, image).state == "filled"
    written = Path(request_.result(image)).stat().st_mtime_ns
    assert fill_image(request_, image).state == "held"
    assert Path(request_.result(image)).stat().st_mtime_ns == written
    assert not replace(request_, rule=replace(RULE, seed=1)).is_done(image)
    path = Path(request_.mask[0])
    fits.writeto(path, np.eye(40, dtype=np.uint8), overwrite=True)
    assert not request_.is_done(image)
    Path(request_.result(image)).write_bytes(b"half a file")
    assert not request_.is_done(image)


def test_an_image_with_nothing_to_fill_is_left_alone(request_: InpaintRequest) -> None:
    row = fill_image(replace(request_, mask=("missing",)), request_.images[0])
    assert (row.state, row.result) == ("whole", "")
    assert not request_.folder.exists()


def test_what_cannot_be_filled_says_why(request_: InpaintRequest, tmp_path: Path) -> None:
    two = sersic_cutout("two", side=40, bands=("g", "r"))
    write_cutout(tmp_path / "in" / "two.fits", two)
    with pytest.raises(SourceRejected, match="z missing"):
        fill_image(request_, str(tmp_path / "in" / "two.fits"))
    write_cutout(tmp_path / "in" / "large.fits", sersic_cutout("large", side=48))
    with pytest.raises(ConfigurationError, match=r"mask of shape \(40, 40\) for an image of \(3, 48, 48\)"):
        fill_image(request_, str(tmp_path / "in" / "large.fits"))


def test_requests_that_cannot_be_are_refused_before_any_work(request_: InpaintRequest, tmp_path: Path) -> None:
    image = request_.images[0]
    with pytest.raises(ConfigurationError, match=r"nowhere\.fits: there is no such file"):
        check_images(("nowhere.fits",), "out")
    with pytest.raises(UsageError, match="no image is overwritten"):
        check_images((image,), str(tmp_path / "in"))
    with pytest.raises(UsageError, match="two images are called galaxy"):
        check_images((image, image), "out")
    with pytest.raises(UsageError, match="--mask stars"):
        require_masks(("trails", "stars"))
