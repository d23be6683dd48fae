"""Images with what comes with them, to planes that know their units."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from sky_files import noise

from tasks.errors import SourceRejected
from tasks.sky.assembly import Plane
from tasks.sky.fits_images import Image
from tasks.sky.planes import plane_of

SHAPE = (12, 10)


def image(kind: str = "image", band: str = "r", pixels: np.ndarray | None = None, **keys: object) -> Image:
    header = fits.Header()
    header.update(keys)
    return Image("", band, kind, noise(SHAPE) if pixels is None else pixels, header)  # type: ignore[arg-type]


def made(main: Image, *others: Image, **options: object) -> Plane:
    return plane_of(main, others, band="r", pixel_scale_arcsec=0.3, zero_points={}, where="here", **options)  # type: ignore[arg-type]


def test_each_band_takes_its_own_variance_before_one_for_every_band() -> None:
    own, general, foreign = (
        image("ivar", band, np.full(SHAPE, value)) for band, value in (("r", 4.0), ("", 9.0), ("g", 1.0))
    )
    assert made(image(), general, foreign, own).ivar == pytest.approx(np.full(SHAPE, 4.0))
    assert made(image(), general, foreign).ivar == pytest.approx(np.full(SHAPE, 9.0))
    assert made(image(), foreign).ivar is None


def test_a_mask_makes_pixels_invalid_or_is_kept_as_bits() -> None:
    bits = np.zeros(SHAPE, np.int16)
    bits[2, 3] = 64
    mask = image("mask", "", bits)
    bad, kept = made(image(), mask), made(image(), mask, mask_is_bad=False)
    assert not bad.valid[2, 3]
    assert kept.valid.all()
    assert bad.maskbits is not None
    assert kept.maskbits is not None
    assert bad.maskbits[2, 3] == kept.maskbits[2, 3] == 64


def test_a_mask_of_floats_marks_what_is_not_zero() -> None:
    plane = made(image(), image("mask", "", np.where(np.arange(120).reshape(SHAPE) == 5, 0.5, 0.0)))
    assert int((~plane.valid).sum()) == 1


def test_a_variance_of_another_shape_is_refused() -> None:
    with pytest.raises(SourceRejected, match=r"here: rms of shape \(3, 3\) for an image of \(12, 10\)"):
        made(image(), image("rms", "r", np.ones((3, 3))))


def test_zeros_are_empty_in_measured_images_and_data_in_raw_counts() -> None:
    measured = noise(SHAPE)
    measured[0] = 0.0
    assert not made(image(pixels=measured)).valid[0].any()
    raw = np.arange(120, dtype=np.int16).reshape(SHAPE) % 7
    assert made(image(pixels=raw)).valid.all()
    biased = np.round(noise(SHAPE, level=1100.0))
    biased[0] = 0.0
    plane = made(image(pixels=biased, SOFTBIAS=1000))
    assert not plane.valid[0].any()
    assert plane.valid[1:].all()


def test_a_soft_bias_is_recorded_and_stays_in_the_pixels() -> None:
    pixels = noise(SHAPE, level=1150.0)
    plane = made(image(pixels=pixels, BUNIT="ADU (soft bias 1000 included)"))
    np.testing.assert_array_equal(plane.pixels, pixels)
    assert (plane.unit, plane.facts.calibrated) == ("counts", False)
    assert "a software bias of 1000 counts and the sky are in the pixels" in plane.notes


def test_what_was_made_float32_is_noted() -> None:
    assert (
        "whole numbers (int16) made float32" in made(image(pixels=np.arange(120, dtype=np.int16).reshape(SHAPE))).notes
    )
    assert "float64 narrowed to float32" in made(image(pixels=noise(SHAPE).astype(">f8"))).notes
    assert not [note for note in made(image(pixels=noise(SHAPE).astype(">f4"))).notes if "float32" in note]


def test_scale_release_and_psf_are_facts_of_the_band() -> None:
    plane = made(image(BSCALE=0.25, VERSION="DR9-south"), image("psf", "", np.eye(5) + 1.0))
    assert (plane.facts.flux_scale, plane.facts.release) == (0.25, "DR9-south")
    assert plane.facts.psf is not None
    assert plane.facts.psf.shape == (5, 5)
