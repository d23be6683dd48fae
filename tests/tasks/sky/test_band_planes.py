"""One band of a cutout with its sky."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sky_cases import point_source, sersic_cutout

from storage.cutouts import TARGET, Cutout
from tasks.sky.band_planes import band_plane
from tasks.sky.prepare import prepare_cutout

NOISE = 0.004


def small_galaxy(*, sky: float = 0.0, seed: int = 0, star: float = 0.0) -> Cutout:
    """Return a galaxy with much sky around it, and a star on that sky."""
    raw = sersic_cutout(side=128, magnitude=19.0, half_light=1.5, index=1.0, noise=NOISE, bands=("r",), seed=seed)
    extra = sky + star * point_source(raw.shape, x=100.0, y=30.0, sigma=2.0)
    return prepare_cutout(replace(raw, flux=(raw.flux + extra).astype(np.float32)))


def test_the_sky_is_what_was_put_under_the_galaxy() -> None:
    plane = band_plane(small_galaxy(sky=0.7), 0)
    assert plane.sky.level == pytest.approx(0.7, abs=5 * plane.sky.error)
    assert plane.sky.error < 0.05 * NOISE
    assert plane.sky.sigma == pytest.approx(NOISE, rel=0.05)
    assert not plane.guessed


def test_skies_are_unbiased_and_scatter_as_their_errors_say() -> None:
    pulls = [sky.level / sky.error for sky in (band_plane(small_galaxy(seed=seed), 0).sky for seed in range(16))]
    assert abs(np.mean(pulls)) < 1.0
    assert 0.4 < np.std(pulls) < 1.6


def test_the_sky_is_taken_off_and_neighbours_are_not_good() -> None:
    cutout = small_galaxy(sky=0.7, star=0.4)
    plane = band_plane(cutout, 0)
    assert plane.image == pytest.approx(cutout.flux[0].astype(float) - plane.sky.level)
    assert cutout.segmentation[30, 100] > TARGET
    labelled = cutout.segmentation > TARGET
    assert not plane.good[labelled].any()
    # grown by one and a half widths of the point spread function, never over the object
    assert 1.2 * labelled.sum() < (~plane.good).sum() < 4 * labelled.sum()
    assert plane.good[cutout.segmentation == TARGET].all()


def test_holes_are_not_good_and_their_variance_is_the_skys() -> None:
    raw = sersic_cutout(side=128, magnitude=19.0, half_light=1.5, noise=NOISE, bands=("r",))
    valid, ivar = raw.valid.copy(), np.full_like(raw.ivar, 4.0)
    valid[:, :, 100:] = False
    bands = (replace(raw.bands[0], ivar_source="survey"),)
    plane = band_plane(prepare_cutout(replace(raw, valid=valid, ivar=ivar, bands=bands)), 0)
    assert not plane.good[:, 100:].any()
    assert (plane.variance[:, :100] == 0.25).all()
    assert plane.variance[:, 100:] == pytest.approx(plane.sky.sigma**2)


def test_a_brighter_band_has_more_signal() -> None:
    cutout = prepare_cutout(sersic_cutout(side=96, magnitude=18.0, half_light=2.0))
    signals = [band_plane(cutout, index).signal for index in range(3)]
    assert signals == sorted(signals)
    assert signals[0] > 10
    assert signals[1] / signals[0] == pytest.approx(10**0.2, rel=0.05)


def test_an_object_that_fills_the_image_leaves_a_guess() -> None:
    cutout = prepare_cutout(sersic_cutout(side=64, magnitude=13.0, half_light=4.0, index=1.0, ratio=0.9))
    everything = replace(cutout, segmentation=np.full(cutout.shape, TARGET, dtype=np.int32))
    for ready in (cutout, everything):
        plane = band_plane(ready, 0)
        assert plane.guessed
        assert np.isfinite([plane.sky.level, plane.sky.error]).all()
        assert plane.sky.error > 0
    # of the whole image the lowest quarter of its rim
    rim = np.concatenate([cutout.flux[0][:3].ravel(), cutout.flux[0][-3:].ravel()])
    assert band_plane(everything, 0).sky.level < np.median(rim)
