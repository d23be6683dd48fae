"""Archives of generated galaxies: files, targets and truth belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from tasks.errors import ConfigurationError
from tasks.sky.generator import BENCH_FULL, GalaxyArchive, write_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> GalaxyArchive:
    folder = tmp_path_factory.mktemp("galaxies") / "archive"
    return write_archive(folder, BENCH_FULL, galaxies=3, seed=5, pixels=48, pixel_scale_arcsec=0.4)


def test_each_target_has_its_image_in_every_band(archive: GalaxyArchive) -> None:
    targets = pd.read_csv(archive.targets, dtype={"object_id": str})
    assert sorted(f"{name}.fits" for name in targets.object_id) == sorted(
        path.name for path in archive.images.iterdir()
    )
    for name in targets.object_id:
        with fits.open(archive.images / f"{name}.fits") as planes:
            kinds = [(plane.header["BAND"], plane.header["IMAGETYP"]) for plane in planes[1:]]
            assert kinds == [(band, kind) for band in "grz" for kind in ("image", "invvar")]
            assert all(plane.data.shape == (48, 48) for plane in planes[1:])


def test_the_world_coordinates_point_at_the_galaxy(archive: GalaxyArchive) -> None:
    targets = pd.read_csv(archive.targets, dtype={"object_id": str}).set_index("object_id")
    objects = pd.read_parquet(archive.objects).query("band == 'r'").set_index("object_id")
    for name, target in targets.iterrows():
        header = fits.getheader(archive.images / f"{name}.fits", 1)
        x, y = WCS(header).all_world2pix(target.ra, target.dec, 0)
        assert (float(x), float(y)) == pytest.approx((objects.centre_x[name], objects.centre_y[name]), abs=1e-3)


def test_truth_has_forty_radii_or_none_and_its_magnitudes(archive: GalaxyArchive) -> None:
    truth = pd.read_parquet(archive.truth)
    assert list(truth.columns) == ["object_id", "band", "radius_arcsec", "mu", "intensity", "sn"]
    assert set(truth.groupby(["object_id", "band"]).size()) == {40}
    assert np.allclose(truth.mu, 22.5 - 2.5 * np.log10(truth.intensity))
    assert truth.sn.min() > 2.99


def test_the_same_seed_gives_the_same_truth(archive: GalaxyArchive, tmp_path: Path) -> None:
    again = write_archive(tmp_path / "again", BENCH_FULL, galaxies=3, seed=5, pixels=48, pixel_scale_arcsec=0.4)
    pd.testing.assert_frame_equal(pd.read_parquet(archive.truth), pd.read_parquet(again.truth))


def test_an_archive_is_not_written_over(archive: GalaxyArchive) -> None:
    with pytest.raises(ConfigurationError, match="already holds generated galaxies"):
        write_archive(archive.targets.parent, BENCH_FULL, galaxies=3, seed=5)
