"""Widths of the point spread functions of SDSS fields."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from astropy.io.fits import Header
from sky_files import fits_bytes, noise

from storage.cutouts import BandFacts
from tasks.errors import SourceRejected
from tasks.sky.assembly import Plane
from tasks.sky.folder import FolderSource
from tasks.sky.sdss_psf import psf_field_name, psf_field_url, psf_widths, with_width
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target

FILES = "galaxies/sdss_nearby_misc/frame_files"
FRAME, FIELD = "frame-r-001000-1-0100.fits.bz2", "psField-001000-1-0100.fit"


def test_a_real_field_has_a_width_for_each_band(shared_data: Path) -> None:
    widths = psf_widths((shared_data / FILES / FIELD).read_bytes(), FIELD)
    assert list(widths) == list("ugriz")
    assert widths["r"] == pytest.approx(3.05526, abs=1e-5)


def test_another_file_is_refused() -> None:
    with pytest.raises(SourceRejected, match="no table with psf_width"):
        psf_widths(fits_bytes(noise((20, 20))), "x")


def test_the_file_of_a_frame_is_known_by_its_header_and_its_url() -> None:
    header = Header()
    header.update({"RUN": 1000, "CAMCOL": 1, "FRAME": 100})
    assert psf_field_name(header) == FIELD
    assert psf_field_url(f"http://x/dr8/boss/photoObj/frames/301/1000/1/{FRAME}").endswith(f"/301/1000/objcs/1/{FIELD}")
    assert psf_field_url(f"http://elsewhere/{FRAME}") == ""


def test_a_frame_in_a_folder_takes_its_width_from_the_file_beside_it(shared_data: Path, tmp_path: Path) -> None:
    def width() -> float:
        source = FolderSource(tmp_path, options=SourceOptions(size_pixels=40))
        return source.fetch(Target("x", math.nan, math.nan, file=FRAME)).bands[0].psf_fwhm_arcsec

    shutil.copy(shared_data / FILES / FRAME, tmp_path)
    assert math.isnan(width())
    shutil.copy(shared_data / FILES / FIELD, tmp_path)
    assert width() == pytest.approx(3.05526, abs=1e-5)
    (tmp_path / FIELD).write_bytes(b"half a file")
    assert math.isnan(width())


def test_a_width_that_is_known_stays() -> None:
    pixels = noise((20, 20))
    known = Plane(BandFacts("r", psf_fwhm_arcsec=1.0), "nanomaggies", pixels, pixels > 0)
    assert with_width(known, {"r": 3.0}).facts.psf_fwhm_arcsec == 1.0
    assert math.isnan(
        with_width(Plane(BandFacts("g"), "nanomaggies", pixels, pixels > 0), {"r": 3.0}).facts.psf_fwhm_arcsec
    )
