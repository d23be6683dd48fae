"""The noise of SDSS frames against the formula and a real frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.sky.fits_images import read_images
from tasks.sky.sdss_noise import detector, frame_variance


def test_a_flat_frame_has_the_variance_of_the_data_model() -> None:
    variance = frame_variance(
        np.full((4, 6), 0.5),
        calibration=np.full(6, 0.005),
        sky=np.full((3, 3), 180.0),
        sky_columns=np.linspace(-0.4, 2.4, 6),
        sky_rows=np.linspace(-0.4, 2.4, 4),
        band="r",
        camcol=1,
        run=1000,
    )
    assert variance == pytest.approx(np.full((4, 6), ((0.5 / 0.005 + 180.0) / 4.71 + 1.8225) * 0.005**2))


def test_the_sky_is_read_between_its_points() -> None:
    sky = np.add.outer(np.arange(5.0), 10 * np.arange(7.0))
    rows, columns = np.linspace(0, 4, 9), np.linspace(0, 6, 13)
    variance = frame_variance(
        np.zeros((9, 13)),
        calibration=np.ones(13),
        sky=sky,
        sky_columns=columns,
        sky_rows=rows,
        band="g",
        camcol=1,
        run=1,
    )
    assert variance == pytest.approx(np.add.outer(rows, 10 * columns) / 3.32 + 15.6025)


@pytest.mark.parametrize(
    ("band", "camcol", "run", "expected"),
    [("u", 2, 1000, (1.595, 12.6025)), ("u", 2, 1200, (1.825, 12.6025)), ("z", 4, 2000, (4.775, 12.6025))],
)
def test_detectors_that_were_changed_on_the_way(
    band: str, camcol: int, run: int, expected: tuple[float, float]
) -> None:
    assert detector(band, camcol=camcol, run=run) == expected


def test_a_real_frame_scatters_as_its_variance_says(shared_data: Path) -> None:
    file = shared_data / "galaxies/sdss_nearby_misc/frame_files/frame-r-001000-1-0100.fits.bz2"
    image, variance = read_images(file.read_bytes(), "x")
    steps = np.diff(image.pixels, axis=1)
    scatter = 1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2)
    # the field is crowded: every pixel holds a little starlight
    assert 1.0 < scatter / np.sqrt(np.median(variance.pixels)) < 1.2
    assert abs(np.median(image.pixels)) < 0.01
