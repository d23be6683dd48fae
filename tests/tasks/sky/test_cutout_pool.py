"""Cutouts of a sky store as training images: whole ones, calibrated, binned, told apart for good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sky_cases import random_cutout

from storage.cutouts import Cutout
from storage.errors import NotFound
from storage.location import resolve
from storage.sky import append_cutouts
from tasks.errors import ConfigurationError
from tasks.sky import cutout_pool
from tasks.sky.cutout_pool import StoreChoice, read_cutouts


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout_pool, "HELD_OUT_SHARE", 0.3)


def whole(object_id: str, **more: object) -> Cutout:
    """Return a whole cutout of 16 x 16 pixels, zero points 22.5 but for z."""
    cutout = random_cutout(object_id, shape=(16, 16), psf=None, seed=int(object_id[1:]))
    zero_points = (22.5, 22.5, 25.0)
    bands = tuple(
        replace(band, calibrated=True, zero_point=value) for band, value in zip(cutout.bands, zero_points, strict=True)
    )
    return replace(cutout, bands=bands, valid=np.ones_like(cutout.valid), **more)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> str:
    cutouts = [whole(f"g{number}") for number in range(8)]
    gap = whole("g8")
    gap.valid[1, 8, 8] = False
    others = [gap, random_cutout("g9", shape=(6, 6), psf=None), whole("g10", pixel_scale_arcsec=0.4)]
    append_cutouts(resolve(tmp_path / "sky" / "real"), [*cutouts, *others], batch="one")
    return str(tmp_path / "sky" / "real")


def test_whole_cutouts_are_taken_and_the_others_counted(store: str) -> None:
    train, held_out, facts = read_cutouts(StoreChoice(store, pixels=8))
    assert len(train.flux) + len(held_out.flux) == 8
    assert min(len(train.flux), len(held_out.flux)) > 0
    assert train.flux.shape[1:] == (3, 8, 8)
    assert facts["passed_over"] == {"with pixels without data": 1, "too small": 1, "of another pixel scale": 1}
    assert train.pixel_scale_arcsec == 0.262


def test_the_middle_is_cut_out_binned_and_in_nanomaggies(store: str) -> None:
    train, held_out, facts = read_cutouts(StoreChoice(store, pixels=4, binned=2))
    assert facts["pixel_scale_arcsec"] == 0.524
    made = [plane.tobytes() for plane in np.concatenate([train.flux, held_out.flux])]
    for number in range(8):
        flux = whole(f"g{number}").flux[:, 4:12, 4:12].reshape(3, 4, 2, 4, 2).sum(axis=(2, 4), dtype=np.float64)
        flux[2] /= 10.0  # a zero point 2.5 mag fainter
        assert flux.astype(np.float16).tobytes() in made


def test_what_is_held_out_stays_so_as_the_store_grows(store: str) -> None:
    _, before, _ = read_cutouts(StoreChoice(store, pixels=8))
    append_cutouts(resolve(store), [whole(f"g{number}") for number in range(20, 32)], batch="two")
    train, after, _ = read_cutouts(StoreChoice(store, pixels=8))
    first, second, trained = ({plane.tobytes() for plane in planes} for planes in (before.flux, after.flux, train.flux))
    assert first < second
    assert not first & trained


def test_conditions_come_from_a_table(store: str, tmp_path: Path) -> None:
    rows = [{"object_id": f"g{number}", "redshift": number / 10, "mass": 10.0} for number in range(8)]
    rows[3]["redshift"] = float("nan")
    pd.DataFrame(rows).to_csv(tmp_path / "known.csv", index=False)
    train, held_out, facts = read_cutouts(StoreChoice(store, pixels=8, conditions=str(tmp_path / "known.csv")))
    assert train.names == ("redshift", "mass")
    assert facts["passed_over"]["no conditions"] == 1
    told = np.concatenate([train.conditions, held_out.conditions])
    np.testing.assert_allclose(sorted(told[:, 0]), [0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7])


def test_what_cannot_be_trained_on_is_refused(store: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"0 whole cutouts of 32 pixels .* too few .*\(11 too small\)"):
        read_cutouts(StoreChoice(store, pixels=32))
    with pytest.raises(ConfigurationError, match="at least 1"):
        StoreChoice(store, pixels=0)
    with pytest.raises(NotFound):
        read_cutouts(StoreChoice(str(tmp_path / "none")))
    (tmp_path / "bad.csv").write_text("name,redshift\n1,2\n")
    with pytest.raises(ConfigurationError, match="wanted are a column object_id"):
        read_cutouts(StoreChoice(store, pixels=8, conditions=str(tmp_path / "bad.csv")))
    (tmp_path / "words.csv").write_text("object_id,kind\ng1,spiral\n")
    with pytest.raises(ConfigurationError, match="is no number"):
        read_cutouts(StoreChoice(store, pixels=8, conditions=str(tmp_path / "words.csv")))
