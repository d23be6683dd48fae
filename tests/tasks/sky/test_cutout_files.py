"""A cutout in a file: pixels bit for bit there and back, scale with and without WCS, units and zero points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sky_cases import sersic_cutout

from storage.cutouts import BandFacts, Cutout
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.cutout_files import read_cutout, write_cutout


@pytest.fixture
def cutout() -> Cutout:
    made = sersic_cutout(side=40)
    return replace(made, ivar=np.where(made.flux > 0, np.float32(2.5e4), np.float32(2.0e4)))


def test_pixels_variance_and_place_come_back(tmp_path: Path, cutout: Cutout) -> None:
    write_cutout(tmp_path / "one.fits", cutout, cards={"SEED": "12"})
    again = read_cutout(tmp_path / "one.fits")
    assert again.flux.tobytes() == cutout.flux.tobytes()
    assert again.ivar.tobytes() == cutout.ivar.tobytes()
    assert (again.band_names, again.flux_unit) == (cutout.band_names, "nanomaggies")
    assert again.pixel_scale_arcsec == pytest.approx(cutout.pixel_scale_arcsec)
    assert (again.ra, again.dec) == pytest.approx((cutout.ra, cutout.dec))
    assert [path.name for path in tmp_path.iterdir()] == ["one.fits"]


def test_without_a_wcs_the_header_says_the_scale(tmp_path: Path, cutout: Cutout) -> None:
    write_cutout(tmp_path / "one.fits", replace(cutout, wcs="", pixel_scale_arcsec=0.524))
    again = read_cutout(tmp_path / "one.fits")
    assert again.pixel_scale_arcsec == 0.524
    assert again.wcs == ""


def test_counts_keep_their_zero_points(tmp_path: Path, cutout: Cutout) -> None:
    bands = (BandFacts("g", zero_point=25.1), BandFacts("r", zero_point=25.3), BandFacts("z", calibrated=False))
    write_cutout(tmp_path / "one.fits", replace(cutout, bands=bands, flux_unit="counts"))
    again = read_cutout(tmp_path / "one.fits")
    assert [band.zero_point for band in again.bands][:2] == [25.1, 25.3]
    assert [band.calibrated for band in again.bands] == [True, True, False]


def test_what_is_not_valid_comes_back_not_valid(tmp_path: Path, cutout: Cutout) -> None:
    valid = cutout.valid.copy()
    valid[0, :5] = False
    write_cutout(tmp_path / "one.fits", replace(cutout, valid=valid))
    assert np.array_equal(read_cutout(tmp_path / "one.fits").valid, valid)


def test_files_that_hold_no_image_say_so(tmp_path: Path, cutout: Cutout) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        read_cutout(tmp_path / "nowhere.fits")
    write_cutout(tmp_path / "nan.fits", replace(cutout, valid=np.zeros_like(cutout.valid)))
    with pytest.raises(SourceRejected, match="every pixel is zero or not a number"):
        read_cutout(tmp_path / "nan.fits")
    (tmp_path / "cut.fits").write_bytes((tmp_path / "nan.fits").read_bytes()[:9000])
    with pytest.raises(SourceRejected, match="cut"):
        read_cutout(tmp_path / "cut.fits")
