"""Real galaxies as examples: what isophotes measured, on the pixels that the network reads."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sky_cases import sersic_cutout

from storage.cutouts import Cutout
from storage.location import resolve
from storage.sky import append_cutouts
from tasks.errors import ConfigurationError
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.network_real import ellipses_of, read_real
from tasks.sky.prepare import prepare_cutout
from tasks.sky.profile import ObjectFlag, Profile
from tasks.sky.profile_table import to_table

RATIO, ANGLE = 0.5, 30.0


@pytest.fixture(scope="module")
def galaxy() -> tuple[Cutout, tuple[Profile, ...]]:
    cutout = prepare_cutout(sersic_cutout(side=192, half_light=3.0, index=1.0, ratio=RATIO, angle=ANGLE))
    return cutout, IsophoteMethod(fixed_geometry=True).measure(cutout, time_limit_s=60)


def product(root: Path, cutout: Cutout, profiles: tuple[Profile, ...], *, stored: bool = True) -> str:
    snapshot = append_cutouts(resolve(root) / "sky" / "some", [cutout], batch="1") if stored else ""
    buffer = io.BytesIO()
    pq.write_table(to_table([replace(profile, snapshot=snapshot) for profile in profiles]), buffer)
    path = root / "profiles.parquet"
    path.write_bytes(buffer.getvalue())
    return str(path)


def test_the_ellipse_of_a_profile_comes_back_to_the_pixels(galaxy: tuple[Cutout, tuple[Profile, ...]]) -> None:
    cutout, profiles = galaxy
    found = ellipses_of(cutout, profiles[0])
    assert found.centre[0].tolist() == pytest.approx([95.5, 95.5], abs=0.3)
    assert float(found.ratio) == pytest.approx(RATIO, abs=0.03)
    # east is to the left: 30 degrees from north towards it are 120 from the x axis
    assert np.degrees(float(found.angle)) % 180 == pytest.approx(ANGLE + 90, abs=2)


def test_truth_is_what_isophotes_measured_in_units_of_the_noise(
    galaxy: tuple[Cutout, tuple[Profile, ...]], tmp_path: Path
) -> None:
    cutout, profiles = galaxy
    shard = read_real(resolve(tmp_path), [product(tmp_path, cutout, profiles)])
    assert len(shard) == 1
    assert shard.there[0].tolist() == [True] * len(cutout.bands) + [False] * (3 - len(cutout.bands))
    # about the nearly right ellipse the cells' own means say the same
    mean, truth = shard.flux[0, 2, 0].float().mean(dim=-1), shard.truth[0, 2, 0]
    bright = truth > 5
    assert bright.sum() > 10
    assert (mean / truth - 1)[bright].abs().median() < 0.06


def test_unsound_profiles_are_left_out_and_none_left_is_an_error(
    galaxy: tuple[Cutout, tuple[Profile, ...]], tmp_path: Path
) -> None:
    cutout, profiles = galaxy
    unsound = tuple(replace(profile, object_flags=int(ObjectFlag.MOMENT_GEOMETRY)) for profile in profiles)
    with pytest.raises(ConfigurationError, match="canopus profiles --method isophote"):
        read_real(resolve(tmp_path), [product(tmp_path, cutout, unsound)])


def test_cutouts_that_are_not_there_are_named(galaxy: tuple[Cutout, tuple[Profile, ...]], tmp_path: Path) -> None:
    cutout, profiles = galaxy
    with pytest.raises(ConfigurationError, match=f"no cutout of {cutout.object_id}"):
        read_real(resolve(tmp_path), [product(tmp_path, cutout, profiles, stored=False)])
