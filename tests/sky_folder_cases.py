"""Folders of FITS files of generated galaxies, some of them spoilt in one of ten ways."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from sky_cases import sersic_cutout

from storage.cutouts import Cutout

BANDS = ("g", "r")
SIDES = (40, 48, 72)


def to_hdu(cutout: Cutout) -> fits.PrimaryHDU:
    """Return a cutout as the Legacy Survey's viewer writes one."""
    header = fits.Header.fromstring(cutout.wcs)
    header["BANDS"] = "".join(cutout.band_names)
    for number, name in enumerate(cutout.band_names):
        header[f"BAND{number}"] = name
    header["SURVEY"] = "generated"
    header["BUNIT"] = "nanomaggy"
    return fits.PrimaryHDU(cutout.flux, header)


def galaxy(number: int) -> Cutout:
    """Return the galaxy of a number: sizes, shapes and brightness differ."""
    rng = np.random.default_rng(1000 + number)
    return sersic_cutout(
        f"g{number:04d}",
        side=SIDES[number % len(SIDES)],
        bands=BANDS,
        magnitude=float(rng.uniform(16.5, 18.5)),
        half_light=float(rng.uniform(1.2, 2.2)),
        index=float(rng.uniform(0.8, 3.0)),
        ratio=float(rng.uniform(0.4, 0.95)),
        angle=float(rng.uniform(0, 180)),
        ra=150.0 + 0.01 * number,
        dec=2.0,
        seed=number,
    )


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20_000])


def _html(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>")


def _all_zero(path: Path) -> None:
    _pixels(path, lambda flux: np.zeros_like(flux))


def _all_nan(path: Path) -> None:
    _pixels(path, lambda flux: np.full_like(flux, np.nan))


def _without_wcs(path: Path) -> None:
    with fits.open(path) as held:
        flux, header = held[0].data, held[0].header
        for key in [key for key in header if key[:5] in ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "WCSAX")]:
            del header[key]
        fits.writeto(path, flux, header, overwrite=True)


def _wrong_units(path: Path) -> None:
    with fits.open(path) as held:
        flux, header = held[0].data, held[0].header
        header["BUNIT"] = "K"
        fits.writeto(path, flux, header, overwrite=True)


def _four_dimensions(path: Path) -> None:
    _pixels(path, lambda flux: np.stack([flux, flux, flux]))


def _tiny(path: Path) -> None:
    _pixels(path, lambda flux: flux[:, :8, :8])


def _corrupt_header(path: Path) -> None:
    body = bytearray(path.read_bytes())
    at = body.index(b"BITPIX")
    body[at : at + 80] = b"BITPIX  =                  -99".ljust(80)
    path.write_bytes(bytes(body))


def _missing(path: Path) -> None:
    path.unlink()


def _no_object(path: Path) -> None:
    rng = np.random.default_rng(5)
    _pixels(path, lambda flux: rng.normal(scale=0.004, size=flux.shape).astype(np.float32))


def _pixels(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with fits.open(path) as held:
        flux, header = change(held[0].data), held[0].header
        fits.writeto(path, flux, header, overwrite=True)


SPOIL: dict[str, Callable[[Path], None]] = {
    "truncated": _truncated,
    "html": _html,
    "all-zero": _all_zero,
    "all-nan": _all_nan,
    "without-wcs": _without_wcs,
    "wrong-units": _wrong_units,
    "four-dimensions": _four_dimensions,
    "tiny": _tiny,
    "corrupt-header": _corrupt_header,
    "missing": _missing,
    "no-object": _no_object,
}


@dataclass(frozen=True)
class GalaxyFolder:
    """A folder of images and its list of targets.

    Parameters
    ----------
    folder, targets : Path
        Images; the list.
    spoilt : dict of str to str
        Kind by id of each that was spoilt.
    objects : int
        Targets that should have rows.
    """

    folder: Path
    targets: Path
    spoilt: dict[str, str]
    objects: int


def make_folder(where: Path, count: int, *, kinds: tuple[str, ...] = (), each: int = 1) -> GalaxyFolder:
    """Write so many galaxies, `each` of every kind spoilt, spread over the list; and one position twice."""
    folder = where / "images"
    folder.mkdir(parents=True)
    spoilt: dict[str, str] = {}
    wanted = [kind for kind in kinds for _ in range(each)]
    places = np.linspace(1, count - 2, len(wanted)).astype(int) if wanted else []
    for number in range(count):
        cutout = galaxy(number)
        to_hdu(cutout).writeto(folder / f"{cutout.object_id}.fits")
    for place, kind in zip(places, wanted, strict=True):
        name = f"g{place:04d}"
        SPOIL[kind](folder / f"{name}.fits")
        spoilt[name] = kind
    targets = where / "targets.csv"
    with targets.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "ra", "dec", "z", "ebv", "file"])
        for number in range(count):
            rows.writerow([f"g{number:04d}", 150.0 + 0.01 * number, 2.0, 0.01, 0.05, f"g{number:04d}.fits"])
        rows.writerow(["again", 150.0, 2.0, "", "", ""])
    return GalaxyFolder(folder, targets, spoilt, count)
