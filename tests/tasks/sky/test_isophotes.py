"""Profiles by isophotes: of galaxies whose law is known, of real ones moved about, against published and peers' profiles."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from sky_cases import point_source, sersic_cutout, sersic_intensity
from sky_real import PEERS, mirrored, plain_cutout, real_cutout, rebinned, sdss_cutout, turned
from sky_scores import against_peers, at_radii, differences, protocol_errors, rms

from storage.cutouts import AB_ZERO_POINT, Cutout
from tasks.errors import SourceRejected
from tasks.sky.generator import BENCH_SIMPLE, draw, to_cutout
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.prepare import prepare_cutout
from tasks.sky.profile import ObjectFlag, Profile, RadiusFlag

FWHM = 1.2
"""Of the Legacy images' point spread function, arcsec, about: none is given."""
HALF_STEP = 2 ** (1 / 7)
"""Ratio of radii of which seven are two: a rebinned image then has the same ones."""


def measured(cutout: Cutout, **options: float) -> tuple[Profile, ...]:
    return IsophoteMethod(**options).measure(prepare_cutout(cutout), time_limit_s=60)  # type: ignore[arg-type]


@cache
def galaxy_profiles(fixed_geometry: bool = False) -> tuple[Profile, ...]:
    return measured(sersic_cutout(side=128, half_light=3.0, index=1.0), fixed_geometry=fixed_geometry)


@cache
def real_profile(folder: Path, name: str) -> Profile:
    return measured(real_cutout(folder, name))[0]


def axes_apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs((one - other + 90.0) % 180.0 - 90.0)


def flags_of(cutout: Cutout) -> ObjectFlag:
    return ObjectFlag(measured(cutout)[0].object_flags)


def small(**facts: object) -> Cutout:
    return sersic_cutout(side=96, magnitude=18.0, half_light=2.0, index=1.0, bands=("r",), **facts)  # type: ignore[arg-type]


def test_each_band_of_a_known_law_is_recovered() -> None:
    for number, profile in enumerate(galaxy_profiles()):
        total = 10 ** (0.4 * (22.5 - 16.5 + 0.5 * number))
        truth = sersic_intensity(profile.radius_arcsec, total=total, half_light=3.0, index=1.0, ratio=0.6)
        resolved = (profile.radius_arcsec > 2 * FWHM) & (profile.intensity > 30 * profile.intensity_error)
        assert resolved.sum() > 10
        assert np.abs(profile.mu - AB_ZERO_POINT + 2.5 * np.log10(truth))[resolved].max() < 0.05
        # the point spread function rounds the inner ones
        outer = resolved & (profile.radius_arcsec > 3.5 * FWHM)
        assert np.abs(profile.ellipticity - 0.4)[outer].max() < 0.03
        assert axes_apart(profile.position_angle, np.array(30.0))[resolved].max() < 3.0
        assert profile.total_magnitude == pytest.approx(16.5 - 0.5 * number, abs=0.03)
        assert profile.half_light_radius_arcsec == pytest.approx(3.0, rel=0.08)
        assert (profile.centre_ra, profile.centre_dec) == pytest.approx((150.0, 2.0), abs=0.05 / 3600)


def test_bands_share_radii_and_shapes_and_only_the_deepest_was_fitted() -> None:
    first, second, deepest = galaxy_profiles()
    count = min(first.radius_arcsec.size, deepest.radius_arcsec.size)
    assert first.radius_arcsec[:count] == pytest.approx(deepest.radius_arcsec[:count])
    assert first.ellipticity[:count] == pytest.approx(deepest.ellipticity[:count])
    for other in (first, second):
        assert (other.flags & RadiusFlag.FIXED_GEOMETRY).all()
    assert not (deepest.flags & RadiusFlag.FIXED_GEOMETRY).all()


def test_a_fixed_geometry_has_one_ellipse() -> None:
    for profile in galaxy_profiles(True):
        assert np.ptp(profile.ellipticity) == pytest.approx(0.0, abs=1e-9)
        assert profile.ellipticity[0] == pytest.approx(0.4, abs=0.02)


def test_radii_are_log_spaced_and_carry_what_a_profile_promises() -> None:
    for profile in galaxy_profiles():
        assert profile.state == "measured"
        assert profile.method == "isophote"
        assert profile.radius_arcsec[1:] / profile.radius_arcsec[:-1] == pytest.approx(1.1)
        positive = profile.intensity > 0
        assert np.isnan(profile.mu[~positive]).all()
        assert profile.mu[positive] == pytest.approx(22.5 - 2.5 * np.log10(profile.intensity[positive]))
        assert (profile.intensity_error >= profile.sky_error).all()
        assert profile.seconds > 0
        inside = profile.flags & RadiusFlag.INSIDE_PSF
        assert (np.flatnonzero(inside) == np.flatnonzero(profile.radius_arcsec < FWHM)).all()


def test_counts_of_a_zero_point_are_the_same_profile() -> None:
    raw = small()
    scaled = replace(
        raw,
        flux=raw.flux * np.float32(8.0),  # a power of two: every rounding stays the same
        flux_unit="counts",
        bands=tuple(replace(band, zero_point=22.5 + 2.5 * math.log10(8.0)) for band in raw.bands),
    )
    one, other = measured(raw)[0], measured(scaled)[0]
    assert other.mu == pytest.approx(one.mu, abs=1e-6, nan_ok=True)
    assert other.r25_arcsec == pytest.approx(one.r25_arcsec, rel=1e-6)


def test_noise_is_rejected() -> None:
    noise = np.random.default_rng(1).normal(size=(64, 64))
    with pytest.raises(SourceRejected, match="blank: nothing stands out") as caught:
        measured(plain_cutout("blank", noise, 0.262))
    assert caught.value.reason == "no-object"


def test_a_plain_galaxy_has_no_flag_but_that_of_its_variance() -> None:
    assert flags_of(small()) == ObjectFlag.ESTIMATED_VARIANCE


def test_the_variance_of_a_survey_takes_that_flag_away() -> None:
    raw = small()
    bands = tuple(replace(band, ivar_source="survey") for band in raw.bands)
    assert flags_of(replace(raw, bands=bands, ivar=np.full_like(raw.ivar, 1 / 0.004**2))) == ObjectFlag(0)


def test_an_image_without_wcs_says_so_and_has_no_position() -> None:
    profile = measured(replace(small(), wcs=""))[0]
    assert profile.object_flags & ObjectFlag.NO_WCS
    assert math.isnan(profile.centre_ra)
    assert math.isnan(profile.centre_dec)
    # up for north, left for east: as the image's own WCS has it
    bright = profile.intensity > 20 * profile.intensity_error
    assert axes_apart(profile.position_angle, np.array(30.0))[bright & (profile.radius_arcsec > 2)].max() < 5.0


def test_counts_of_no_zero_point_are_instrumental() -> None:
    raw = small()
    bands = tuple(replace(band, calibrated=False) for band in raw.bands)
    assert flags_of(replace(raw, bands=bands, flux_unit="counts")) & ObjectFlag.INSTRUMENTAL


def test_a_star_on_the_galaxy_is_a_neighbour_and_leaves_the_profile_as_it_is() -> None:
    raw = small()
    star = 0.5 * point_source(raw.shape, x=62.0, y=50.0, sigma=FWHM / 2.3548 / 0.262)
    starred, bare = measured(replace(raw, flux=raw.flux + star.astype(np.float32)))[0], measured(raw)[0]
    assert starred.object_flags & ObjectFlag.NEIGHBOURS
    assert not bare.object_flags & ObjectFlag.NEIGHBOURS
    assert np.abs(differences(bare, starred, beyond=1.5)).max() < 0.05


def test_a_galaxy_that_fills_the_image_has_no_sky() -> None:
    raw = sersic_cutout(side=64, magnitude=13.0, half_light=4.0, index=1.0, ratio=0.9, bands=("r",))
    assert flags_of(raw) & ObjectFlag.NO_SKY


def test_past_the_time_limit_a_profile_is_measured_along_the_moments_ellipse() -> None:
    late = IsophoteMethod().measure(prepare_cutout(small()), time_limit_s=-1.0)[0]
    assert late.object_flags & ObjectFlag.TIME_LIMIT
    assert late.object_flags & ObjectFlag.MOMENT_GEOMETRY
    assert np.ptp(late.ellipticity) == 0
    assert rms(differences(measured(small())[0], late, beyond=1.0)) < 0.1


@pytest.mark.parametrize("name", PEERS)
def test_a_real_galaxy_turned_or_mirrored_has_the_same_profile_and_its_angle_follows_the_wcs(
    shared_data: Path, name: str
) -> None:
    folder = shared_data / "galaxies"
    raw, as_it_is = real_cutout(folder, name), real_profile(folder, name)
    for number, moved in enumerate((turned(raw), mirrored(raw))):
        found = measured(moved)[0]
        # the issue asks for 0.03
        assert np.abs(differences(as_it_is, found, beyond=0.3)).max() < 0.005
        count = min(found.radius_arcsec.size, as_it_is.radius_arcsec.size)
        flat = (as_it_is.ellipticity[:count] > 0.1) & (as_it_is.radius_arcsec[:count] > 1.0)
        before, after = (p.position_angle[:count][flat] for p in (as_it_is, found))
        if raw.wcs:
            assert axes_apart(after, before).max() < 1.0
            east = (found.centre_ra - as_it_is.centre_ra) * math.cos(math.radians(raw.dec))
            assert 3600 * math.hypot(east, found.centre_dec - as_it_is.centre_dec) < 0.02
        else:
            assert axes_apart(after, before + 90.0 if number == 0 else -before).max() < 1.0


@pytest.mark.parametrize("name", PEERS)
def test_a_real_galaxy_rebinned_has_the_same_profile_beyond_two_widths_of_its_stars(
    shared_data: Path, name: str
) -> None:
    """Within 0.03 mag at S/N above 15, at the same radii: between them a free geometry's steps would be compared."""
    raw = real_cutout(shared_data / "galaxies", name)
    fine, coarse = (measured(one, step=HALF_STEP)[0] for one in (raw, rebinned(raw)))
    common, here, there = np.intersect1d(
        np.round(fine.radius_arcsec, 6), np.round(coarse.radius_arcsec, 6), return_indices=True
    )
    bright = (common > 2 * FWHM) & (fine.intensity > 15 * fine.intensity_error)[here]
    assert bright.sum() > 5
    assert np.abs(coarse.mu[there] - fine.mu[here])[bright].max() < 0.03


@pytest.mark.parametrize("name", ["1237648721789256091", "1237662695962902783", "1237674603216699671"])
def test_an_sdss_galaxy_turned_mirrored_or_rebinned(shared_data: Path, name: str) -> None:
    """Rebinned SDSS pixels, 0.79 arcsec, undersample the seeing: the RMS is within 0.03 mag, to S/N 10."""
    raw = sdss_cutout(shared_data / "galaxies", name)
    as_it_is = measured(raw, step=HALF_STEP)[0]
    for moved in (turned(raw), mirrored(raw)):
        assert np.abs(differences(as_it_is, measured(moved, step=HALF_STEP)[0], beyond=0.5)).max() < 0.03
    assert rms(differences(as_it_is, measured(rebinned(raw), step=HALF_STEP)[0], beyond=2 * FWHM)) < 0.03


@pytest.mark.parametrize("name", PEERS)
def test_a_profile_is_nearer_to_a_public_tools_than_those_are_to_each_other(shared_data: Path, name: str) -> None:
    folder = shared_data / "galaxies"
    nearer, apart, offset = against_peers(folder, PEERS[name], real_profile(folder, name))
    assert nearer < apart
    assert offset <= 0.05


@pytest.mark.slow
def test_eso479_g001_is_as_published(shared_data: Path) -> None:
    folder = shared_data / "galaxies"
    with fits.open(folder / "probes_eso479-g001" / "ESO479-G001_r_2000.fits") as units:
        cutout = plain_cutout("ESO479-G001", units[0].data, 0.262)
    profile = measured(cutout)[0]
    table = pd.read_csv(folder / "probes_eso479-g001" / "ESO479-G001_r.prof", skiprows=1)
    radius, mu = table["R"].to_numpy(float), table["SB"].to_numpy(float)
    apart = at_radii(profile, radius) - mu
    known = (mu < 90) & (radius >= 1.5)
    assert rms(apart[known & (radius <= 30)]) <= 0.05
    assert rms(apart[known & (radius <= 60)]) <= 0.15
    nearer, between, offset = against_peers(folder, "ESO479-G001", profile)
    assert nearer < between
    assert offset <= 0.05


def test_m51_is_as_in_the_table_of_iraf(shared_data: Path) -> None:
    """Within 5 % at all radii from 1 to 30 pixels, every 10 %, at the radii of the table: a spike at 28.5 is narrower than a step."""
    folder = shared_data / "galaxies" / "m51_iraf_ellipse"
    with fits.open(folder / "M51_B.fits") as units:
        raw = plain_cutout("M51", units[0].data.astype(float), 1.0, calibrated=False)
    table = Table.read(folder / "M51_iraf_ellipse_table.fits")
    sma, theirs = (np.asarray(table[key], dtype=float) for key in ("SMA", "INTENS"))
    near = (sma > 1) & (sma < 30)
    profile = measured(raw, first_pixels=float(sma[near][0]) / 1.1**7)[0]
    ours = np.interp(np.log(sma[near]), np.log(profile.radius_arcsec), profile.intensity + profile.sky)
    apart = ours / theirs[near] - 1
    assert near.sum() == 36
    assert rms(apart) < 0.025
    assert np.abs(apart).max() < 0.05
    assert profile.object_flags & ObjectFlag.INSTRUMENTAL


@pytest.mark.slow
def test_generated_galaxies_are_measured_to_a_few_hundredths_of_a_magnitude() -> None:
    """RMS over the true ellipse's radii to where the protocol ends; a radius without a measurement counts as 1 mag."""
    galaxies = draw(40, BENCH_SIMPLE, generator=torch.Generator().manual_seed(20260))
    found = [measured(to_cutout(galaxies, index), fixed_geometry=True) for index in range(40)]
    scores = protocol_errors(galaxies, found)
    assert np.median(scores) <= 0.07
    assert np.quantile(scores, 0.9) <= 0.13
