"""Pictures and FITS files made a survey's: on the model's pixels, in place on the sky, flux within the range, not twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from galaxy_models import TINY, save_model
from PIL import Image
from sky_cases import sersic_cutout

from tasks.errors import SourceRejected
from tasks.sky.cutout_files import read_cutout, write_cutout
from tasks.sky.diffusion_jobs import SamplingRule
from tasks.sky.prepare import read_wcs
from tasks.sky.transfer import TransferRule
from tasks.sky.transfer_job import (
    InterpolateRequest,
    ReadingRule,
    TransferRequest,
    interpolate_images,
    read_for,
    transfer_image,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a FITS image and a drawing."""
    write_cutout(tmp_path / "in" / "galaxy.fits", sersic_cutout("galaxy", side=60, scale=0.262))
    y, x = np.indices((80, 80)) - 40
    drawing = np.where(x**2 / 900 + y**2 / 200 < 1, 200, 0).astype(np.uint8)
    Image.fromarray(np.repeat(drawing[..., None], 3, axis=2)).save(tmp_path / "in" / "drawing.png")
    return tmp_path / "in"


def request_of(folder: Path, *names: str) -> TransferRequest:
    return TransferRequest(
        images=tuple(str(folder / name) for name in names),
        out=str(folder.parent / "out"),
        weights=save_model(folder.parent / "warehouse"),
        rule=TransferRule(0.3, SamplingRule(steps=3)),
    )


def test_a_fits_image_is_read_on_the_models_pixels_in_its_place(folder: Path) -> None:
    before = read_cutout(folder / "galaxy.fits")
    read = read_for(folder / "galaxy.fits", TINY, ReadingRule())
    assert (read.shape, read.pixel_scale_arcsec) == ((30, 30), 0.524)
    np.testing.assert_allclose(read.flux.sum(axis=(1, 2)), before.flux.sum(axis=(1, 2)), rtol=1e-4)
    places = []
    for cutout in (before, read):
        wcs = read_wcs(cutout.wcs)
        assert wcs is not None
        row, column = np.indices(cutout.shape)
        light = cutout.flux[1].clip(min=0)
        places.append(wcs.pixel_to_world_values(*((axis * light).sum() / light.sum() for axis in (column, row))))
    np.testing.assert_allclose(places[0], places[1], atol=0.05 / 3600)


@pytest.mark.parametrize("name", ["galaxy.fits", "drawing.png"])
def test_a_result_has_its_flux_within_the_range_and_says_how_it_was_made(folder: Path, name: str) -> None:
    request = request_of(folder, name)
    row = transfer_image(request, request.images[0])
    assert row.state == "made"
    before, after = read_for(folder / name, TINY, request.reading), read_cutout(Path(row.result))
    ratio = after.flux.sum(axis=(1, 2)) / before.flux.sum(axis=(1, 2))
    assert np.abs(ratio - 1).max() <= request.rule.flux_tolerance + 1e-3
    assert fits.getheader(row.result)["STRENGTH"] == 0.3
    assert Path(row.picture).read_bytes().startswith(b"\x89PNG")
    assert transfer_image(request, request.images[0]).state == "held"
    assert not replace(request, rule=replace(request.rule, strength=0.4)).is_done(request.images[0])


def test_frames_lie_between_their_ends_in_files_of_their_own(folder: Path) -> None:
    request = InterpolateRequest(
        str(folder / "drawing.png"),
        str(folder / "drawing.png"),
        str(folder.parent / "between"),
        save_model(folder.parent / "warehouse"),
        frames=3,
        strength=0.2,
        sampling=SamplingRule(steps=3),
    )
    made = interpolate_images(request)
    assert [Path(path).name for path in made.files] == ["frame-000.fits", "frame-001.fits", "frame-002.fits"]
    assert [fits.getheader(path)["SHARE"] for path in made.files] == [0.0, 0.5, 1.0]
    assert read_cutout(Path(made.files[1])).shape == (16, 16)
    assert Path(made.picture).is_file()


def test_an_image_of_other_bands_says_so(folder: Path) -> None:
    write_cutout(folder / "one.fits", sersic_cutout("one", side=40, bands=("r",)))
    with pytest.raises(SourceRejected, match="g, z missing"):
        read_for(folder / "one.fits", TINY, ReadingRule())
