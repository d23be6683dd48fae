"""Generated galaxies as cutouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from tasks.sky.generator import BENCH_FULL, draw, to_cutout
from tasks.sky.generator.convert import sky_position


def test_a_cutout_holds_what_was_drawn() -> None:
    galaxies = draw(2, BENCH_FULL, generator=torch.Generator().manual_seed(3), pixels=48, pixel_scale_arcsec=0.3)
    cutout = to_cutout(galaxies, 1)
    assert cutout.band_names == ("g", "r", "z")
    assert cutout.shape == (48, 48)
    assert np.array_equal(cutout.flux, galaxies.flux[1].numpy())
    assert cutout.flux.dtype == cutout.ivar.dtype == np.float32
    assert cutout.maskbits.dtype == np.int32
    assert [band.psf.sum() for band in cutout.bands if band.psf is not None] == pytest.approx([1, 1, 1], abs=1e-5)
    assert int(cutout.object_id) == int(galaxies.truth.seed[1])
    wcs = WCS(cutout.wcs)
    assert wcs.proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(0.3)
    x, y = wcs.all_world2pix(cutout.ra, cutout.dec, 0)
    assert (float(x), float(y)) == pytest.approx(
        (float(galaxies.truth.centre_x[1]), float(galaxies.truth.centre_y[1])), abs=1e-3
    )


def test_positions_cover_the_sky() -> None:
    places = np.array(
        [
            sky_position(seed)
            for seed in torch.randint(2**62, (500,), generator=torch.Generator().manual_seed(1)).tolist()
        ]
    )
    assert places[:, 0].min() < 15
    assert places[:, 0].max() > 345
    sine = np.sin(np.radians(places[:, 1]))
    assert abs(sine.mean()) < 0.1
    assert sine.std() == pytest.approx(1.9 / math.sqrt(12), rel=0.1)
