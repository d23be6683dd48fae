"""Cutouts from a release's bricks, on disk and over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from servers.range_server import Faults, serve_folder
from sky_files import noise, write_brick, write_bricks_table

from tasks.errors import ConfigurationError, SourceRejected
from tasks.limits import HttpLimits
from tasks.sky.bricks import Bricks, BrickSource
from tasks.sky.fits_images import pixel_of
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target

RA, DEC = 10.0, 20.0
NAME = "0100p200"
SIDE = 400


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dr9") / "south"
    write_brick(folder, NAME, ra=RA, dec=DEC, side=SIDE)
    write_brick(folder, "0103p200", ra=RA + 0.03, dec=DEC, bands="r", side=SIDE)
    write_bricks_table(
        folder.parent / "survey-bricks.fits.gz",
        {
            NAME: (RA - 0.015, RA + 0.015, DEC - 0.015, DEC + 0.015),
            "0103p200": (RA + 0.015, RA + 0.045, DEC - 0.015, DEC + 0.015),
            "0106p200": (RA + 0.045, RA + 0.075, DEC - 0.015, DEC + 0.015),
        },
    )
    return folder


def source(where: object, *, bands: tuple[str, ...] = (), **options: object) -> BrickSource:
    return BrickSource(str(where), bands=bands, options=SourceOptions(size_pixels=64, **options))  # type: ignore[arg-type]


def test_a_cutout_is_the_bricks_own_pixels_with_ivar_mask_bits_and_psf_width(release: Path) -> None:
    cutout = source(release).fetch(Target("x", RA, DEC))
    assert cutout.band_names == ("g", "r", "z")
    start = SIDE // 2 - 32
    window = np.s_[start : start + 64, start : start + 64]
    for number in range(3):
        np.testing.assert_array_equal(cutout.flux[number], noise((SIDE, SIDE), seed=number)[window])
        assert (cutout.ivar[number] == 10.0 + number).all()
        assert cutout.bands[number].psf_fwhm_arcsec == pytest.approx(1.2 + number / 10)
        assert cutout.bands[number].ivar_source == "survey"
        assert cutout.bands[number].release == "DR9"
    assert (cutout.maskbits[:, 32, 32] == 2).all()
    assert cutout.valid.all()
    assert cutout.notes == ()
    wcs = WCS(fits.Header.fromstring(cutout.wcs))
    assert pixel_of(wcs, RA, DEC) == pytest.approx((31.5, 31.5), abs=1e-3)


def test_the_brick_is_the_one_whose_box_holds_the_target_and_a_cutout_ends_at_its_border(release: Path) -> None:
    place = Target("x", RA - 0.0149, DEC + 0.001)
    cutout = source(release, bands=("r",)).fetch(place)
    assert f"cut off at the border of brick {NAME}" in cutout.notes or cutout.valid.all()
    other = source(release, bands=("r",)).fetch(Target("y", RA + 0.0151, DEC))
    assert "0103p200" in other.source
    wide = BrickSource(str(release), bands=("r",), options=SourceOptions(size_pixels=440, max_empty_share=0.5)).fetch(
        Target("z", RA, DEC)
    )
    assert wide.shape == (440, 440)
    assert int(wide.valid.sum()) == SIDE * (SIDE - 3)
    assert f"cut off at the border of brick {NAME}" in wide.notes


def test_a_band_that_a_brick_lacks_is_not_valid_and_none_at_all_is_no_data(release: Path) -> None:
    cutout = source(release).fetch(Target("x", RA + 0.03, DEC))
    assert [bool(valid.any()) for valid in cutout.valid] == [False, True, False]
    assert "no image in g, z" in cutout.notes
    for place in (RA + 0.06, RA + 5.0):
        with pytest.raises(SourceRejected) as outside:
            source(release).fetch(Target("x", place, DEC))
        assert outside.value.reason == "no-data"


def test_boxes_wrap_at_ra_0_and_close_around_a_pole() -> None:
    bricks = Bricks(
        np.array(["wrap", "east", "pole"]),
        np.array([359.9, 0.1, 0.0]),
        np.array([0.1, 0.3, 360.0]),
        np.array([0.0, 0.0, 89.9]),
        np.array([0.25, 0.25, 90.01]),
    )
    assert [bricks.holding(ra, 0.1) for ra in (359.95, 0.05, 0.1, 0.2, 0.3)] == ["wrap", "wrap", "east", "east", None]
    assert bricks.holding(123.0, 90.0) == "pole"


def test_a_place_without_a_table_of_bricks_or_no_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no folder"):
        source(tmp_path / "nowhere")
    (tmp_path / "dr9" / "south").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"has no survey-bricks.fits.gz"):
        source(tmp_path / "dr9" / "south").fetch(Target("x", RA, DEC))


def test_the_name_is_the_releases(release: Path) -> None:
    assert source(release).name.endswith("-south")
    assert BrickSource("https://host/data/dr9/south/").name == "dr9-south"


@pytest.mark.server
def test_bricks_behind_a_url_give_the_same_and_are_fetched_once(release: Path, tmp_path: Path) -> None:
    limits = HttpLimits(attempts=5, backoff_s=0.02, requests_per_s=10_000)
    faults = Faults(share=0.5, times=2, kinds=("503", "cut", "reset"))
    with serve_folder(release.parent, faults) as server:
        remote = source(f"{server.url}/south", cache=tmp_path, limits=limits)
        far, near = remote.fetch(Target("x", RA, DEC)), source(release).fetch(Target("x", RA, DEC))
        answered = server.counts["answered"]
        again = source(f"{server.url}/south", cache=tmp_path, limits=limits).fetch(Target("y", RA + 0.001, DEC))
        # the two places beside the bricks where the table is not: what is missing is looked for anew
        assert server.counts["answered"] == answered + 2
    np.testing.assert_array_equal(far.flux, near.flux)
    np.testing.assert_array_equal(far.ivar, near.ivar)
    np.testing.assert_array_equal(far.maskbits, near.maskbits)
    assert again.valid.all()
