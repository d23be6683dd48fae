"""Dust maps: HEALPix of both orders and frames, the two hemispheres of SFD, and targets that lack E(B-V)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits

from tasks.errors import ConfigurationError
from tasks.sky.dust import open_dust_map, with_reddening
from tasks.sky.targets import Target

PLACES = SkyCoord([10.0, 83.6, 200.5, 266.4, 300.0], [-45.0, 22.0, 60.0, -29.0, 5.0], unit=units.deg)


def plane(latitude_deg: np.ndarray) -> np.ndarray:
    """Return reddening that falls away from the galactic plane: smooth, and not the same in any other frame."""
    return 0.02 + 0.5 * np.cos(np.radians(latitude_deg)) ** 2


def write_healpix(path: Path, *, ordering: str, system: str, depth: int = 6) -> None:
    from cdshealpix import from_ring, nested

    cells = np.arange(12 * 4**depth, dtype=np.uint64)
    order = from_ring(cells, depth) if ordering == "RING" else cells
    longitude, latitude = nested.healpix_to_lonlat(order, depth)
    frame = "galactic" if system == "G" else "icrs"
    values = plane(SkyCoord(longitude, latitude, frame=frame).galactic.b.deg)
    table = fits.BinTableHDU.from_columns([fits.Column("EBV", "D", array=values)])
    table.header.update({"NSIDE": 2**depth, "ORDERING": ordering, "COORDSYS": system})
    table.writeto(path)


@pytest.mark.parametrize("ordering", ["RING", "NESTED"])
@pytest.mark.parametrize("system", ["G", "C"])
def test_a_healpix_map_gives_what_it_was_made_of(tmp_path: Path, ordering: str, system: str) -> None:
    write_healpix(tmp_path / "map.fits", ordering=ordering, system=system)
    found = open_dust_map(str(tmp_path / "map.fits")).at(PLACES)
    np.testing.assert_allclose(found, plane(PLACES.galactic.b.deg), atol=0.005)


def test_the_maps_of_sfd_give_what_they_were_made_of(tmp_path: Path) -> None:
    """Their projection, worked backwards: sin b = n (1 - r^2), tan l = -n y / x."""
    side, scale = 512, 256.0
    y, x = (np.indices((side, side)) - (side - 1) / 2) / scale
    for name, pole in (("ngp", 1), ("sgp", -1)):
        latitude = np.degrees(np.arcsin(pole * np.clip(1 - x**2 - y**2, -1, 1)))
        longitude = np.arctan2(-pole * y, x)
        header = fits.Header({"LAM_NSGP": pole, "LAM_SCAL": scale, "CRPIX1": side / 2 + 0.5, "CRPIX2": side / 2 + 0.5})
        values = plane(latitude) * (1 + 0.3 * np.sin(longitude))
        fits.PrimaryHDU(values, header).writeto(tmp_path / f"SFD_dust_4096_{name}.fits")
    galactic = PLACES.galactic
    expected = plane(galactic.b.deg) * (1 + 0.3 * np.sin(galactic.l.radian))
    np.testing.assert_allclose(open_dust_map(str(tmp_path)).at(PLACES), expected, atol=0.005)


def test_a_target_keeps_what_its_list_says_and_one_without_a_position_has_none(tmp_path: Path) -> None:
    write_healpix(tmp_path / "map.fits", ordering="NESTED", system="G")
    targets = (Target("a", 10.0, -45.0), Target("b", 10.0, -45.0, ebv=0.7), Target("c", math.nan, math.nan))
    found = with_reddening(targets, open_dust_map(str(tmp_path / "map.fits")))
    assert found[0].ebv == pytest.approx(plane(PLACES[0].galactic.b.deg), abs=0.005)
    assert found[1].ebv == 0.7
    assert math.isnan(found[2].ebv)


def test_what_is_no_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SFD_dust_4096_ngp"):
        open_dust_map(str(tmp_path))
    (tmp_path / "map.fits").write_text("no FITS")
    with pytest.raises(ConfigurationError, match=r"--ebv-map .*map\.fits"):
        open_dust_map(str(tmp_path / "map.fits"))
    write_healpix(tmp_path / "ecliptic.fits", ordering="RING", system="E")
    with pytest.raises(ConfigurationError, match="COORDSYS"):
        open_dust_map(str(tmp_path / "ecliptic.fits"))
