"""E(B-V) of the Milky Way at positions, from a map on disk: Schlegel, Finkbeiner and Davis', or any in HEALPix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy import units
from astropy.coordinates import Latitude, Longitude, SkyCoord
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage

from tasks.errors import ConfigurationError
from tasks.sky.targets import Target

_SFD = ("SFD_dust_4096_ngp.fits", "SFD_dust_4096_sgp.fits")
_FRAMES = {"G": "galactic", "C": "icrs", "Q": "icrs"}
_NAMES = ("ebv", "e(b-v)", "reddening")


class DustMap(Protocol):
    """A map of E(B-V)."""

    def at(self, places: SkyCoord) -> NDArray[np.float64]:
        """Return E(B-V) in mag, interpolated; shape of the places."""
        ...


@dataclass(frozen=True)
class _Hemispheres:
    """Two Lambert projections about the galactic poles (Schlegel, Finkbeiner and Davis 1998, appendix C)."""

    images: tuple[NDArray[np.float64], NDArray[np.float64]]
    headers: tuple[fits.Header, fits.Header]

    def at(self, places: SkyCoord) -> NDArray[np.float64]:
        galactic = places.galactic
        longitude, latitude = np.atleast_1d(galactic.l.radian), np.atleast_1d(galactic.b.radian)
        found = np.full(longitude.shape, np.nan)
        for image, header in zip(self.images, self.headers, strict=True):
            pole = int(header["LAM_NSGP"])
            here = latitude >= 0 if pole > 0 else latitude < 0
            away = np.sqrt(np.clip(1 - pole * np.sin(latitude[here]), 0, None)) * header["LAM_SCAL"]
            x = away * np.cos(longitude[here]) + header["CRPIX1"] - 1
            y = -pole * away * np.sin(longitude[here]) + header["CRPIX2"] - 1
            found[here] = ndimage.map_coordinates(image, [y, x], order=1, mode="nearest")
        return found


@dataclass(frozen=True)
class _Healpix:
    """A map by HEALPix cells, nested, of so many halvings."""

    values: NDArray[np.float64]
    depth: int
    frame: str

    def at(self, places: SkyCoord) -> NDArray[np.float64]:
        from cdshealpix import bilinear_interpolation

        turned = places.transform_to(self.frame)
        across, up = np.atleast_1d(turned.spherical.lon), np.atleast_1d(turned.spherical.lat)
        cells, weights = bilinear_interpolation(Longitude(across), Latitude(up), depth=self.depth)
        return np.asarray((self.values[np.asarray(cells)] * np.asarray(weights)).sum(axis=1))


@lru_cache(maxsize=2)
def open_dust_map(path: str) -> DustMap:
    """Return the map that lies at a path.

    Parameters
    ----------
    path : str
        A folder with ``SFD_dust_4096_ngp.fits`` and ``SFD_dust_4096_sgp.fits``, or a HEALPix map in FITS (a column named
        EBV, or the first; ring or nested; galactic or equatorial by ``COORDSYS``).

    Raises
    ------
    ConfigurationError
        Where there is no such map, naming what is missing.
    """
    where = Path(path).expanduser()
    try:
        return _open_hemispheres(where) if where.is_dir() else _open_healpix(where)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"--ebv-map {path}: {error}; a folder of the SFD maps or a HEALPix map is expected"
        ) from error


def _open_hemispheres(folder: Path) -> _Hemispheres:
    parts = [fits.getdata(folder / name, header=True) for name in _SFD]
    images = tuple(np.asarray(image, dtype=float) for image, _ in parts)
    return _Hemispheres((images[0], images[1]), (parts[0][1], parts[1][1]))


def _open_healpix(path: Path) -> _Healpix:
    with fits.open(path) as file:
        table: Any = file[1]
        header, names = table.header, [str(name) for name in table.columns.names]
        chosen = next((name for name in names if name.lower() in _NAMES), names[0])
        values = np.asarray(table.data[chosen], dtype=float).ravel()
    side = int(header["NSIDE"])
    depth = round(math.log2(side))
    if 2**depth != side or values.size != 12 * side**2:
        raise ValueError(f"{values.size} values, NSIDE {side}: a whole sky of a power of two is expected")
    if str(header.get("ORDERING", "RING")).strip().upper() == "RING":
        from cdshealpix import to_ring

        values = values[np.asarray(to_ring(np.arange(values.size, dtype=np.uint64), depth)).astype(np.int64)]
    system = str(header.get("COORDSYS", "G")).strip().upper()[:1]
    if system not in _FRAMES:
        raise ValueError(f"COORDSYS {header['COORDSYS']!r}: G (galactic) or C (equatorial) is expected")
    return _Healpix(values, depth, _FRAMES[system])


def with_reddening(targets: Sequence[Target], dust: DustMap) -> tuple[Target, ...]:
    """Return the targets with E(B-V) from a map where their list gives none and they have a position."""
    lacking = [
        index
        for index, target in enumerate(targets)
        if not math.isfinite(target.ebv) and math.isfinite(target.ra) and math.isfinite(target.dec)
    ]
    if not lacking:
        return tuple(targets)
    places = SkyCoord(
        [targets[index].ra for index in lacking], [targets[index].dec for index in lacking], unit=units.deg
    )
    found = list(targets)
    for index, ebv in zip(lacking, dust.at(places), strict=True):
        found[index] = replace(found[index], ebv=float(ebv))
    return tuple(found)
