"""Generated galaxies as files: images as a survey's cutout service gives them, a list of targets, and what is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError
from tasks.sky.generator.convert import object_id, to_cutout
from tasks.sky.generator.prior import GalaxyPrior
from tasks.sky.generator.psf import PsfImages
from tasks.sky.generator.render import Galaxies, draw
from tasks.sky.generator.truth import evaluation_radii, signal_to_noise, true_profile

_BATCH = 32


@dataclass(frozen=True)
class GalaxyArchive:
    """Where the files of an archive are.

    Parameters
    ----------
    images : Path
        Folder of one FITS file per galaxy, named for its id: an image and an inverse variance for each band.
    targets : Path
        CSV: object_id, ra, dec.
    truth : Path
        Parquet: object_id, band, radius_arcsec, mu, intensity, sn, one row for each radius at which profiles are compared.
    objects : Path
        Parquet: one row per galaxy and band with what else is true of it.
    galaxies : int
        How many.
    """

    images: Path
    targets: Path
    truth: Path
    objects: Path
    galaxies: int


def write_archive(
    folder: str | Path,
    prior: GalaxyPrior,
    *,
    galaxies: int,
    seed: int,
    pixels: int | None = None,
    pixel_scale_arcsec: float | None = None,
    psf_images: PsfImages | None = None,
) -> GalaxyArchive:
    """Write galaxies and their truth; the list of targets, written last, names only what is there.

    Raises
    ------
    ConfigurationError
        Where no galaxy is asked for, or the folder already holds an archive.
    """
    import pandas as pd

    root = Path(folder)
    archive = GalaxyArchive(
        root / "images", root / "targets.csv", root / "truth.parquet", root / "objects.parquet", galaxies
    )
    if galaxies < 1:
        raise ConfigurationError(f"{galaxies} galaxies: ask for one or more")
    if archive.targets.exists():
        raise ConfigurationError(f"{root} already holds generated galaxies; name another folder or remove it")
    for path in (archive.images, root / "psf"):
        path.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    targets, profiles, objects = [], [], []
    for count in _batches(galaxies):
        drawn = draw(
            count,
            prior,
            generator=generator,
            pixels=pixels,
            pixel_scale_arcsec=pixel_scale_arcsec,
            psf_images=psf_images,
        )
        for cutout in (to_cutout(drawn, index) for index in range(count)):
            _write_images(archive.images / f"{cutout.object_id}.fits", cutout)
            _write_psf(root / "psf" / f"{cutout.object_id}.fits", cutout)
            targets.append({"object_id": cutout.object_id, "ra": cutout.ra, "dec": cutout.dec})
        profiles.append(pd.DataFrame(truth_table(drawn)))
        objects.append(pd.DataFrame(object_table(drawn)))
    pd.concat(profiles).to_parquet(archive.truth, index=False)
    pd.concat(objects).to_parquet(archive.objects, index=False)
    pd.DataFrame(targets).to_csv(archive.targets, index=False)
    return archive


def truth_table(galaxies: Galaxies) -> dict[str, np.ndarray]:
    """Return true profiles as columns of equal length: object_id, band, radius_arcsec, mu, intensity, sn.

    ``mu`` is AB mag per arcsec^2, ``intensity`` nanomaggies per arcsec^2, ``sn`` that of an annulus one pixel wide. Radii without truth are
    left out.
    """
    radii = evaluation_radii(galaxies)
    intensity, signal = true_profile(galaxies, radii), signal_to_noise(galaxies, radii)
    keep = intensity.isfinite() & (intensity > 0)
    names = np.array([object_id(seed) for seed in galaxies.truth.seed.tolist()], dtype=object)
    place = torch.nonzero(keep).cpu().numpy()
    return {
        "object_id": names[place[:, 0]],
        "band": np.array(galaxies.bands, dtype=object)[place[:, 1]],
        "radius_arcsec": _column(radii[keep]),
        "mu": 22.5 - 2.5 * np.log10(_column(intensity[keep])),
        "intensity": _column(intensity[keep]),
        "sn": _column(signal[keep]),
    }


def object_table(galaxies: Galaxies) -> dict[str, np.ndarray]:
    """Return what is true of each galaxy and band, beside its profile, as columns of equal length."""
    truth, bands = galaxies.truth, len(galaxies.bands)
    per_galaxy = {
        name: np.repeat(_column(getattr(truth, name)), bands)
        for name in (
            *("centre_x", "centre_y", "axis_ratio", "position_angle_deg"),
            *("radius_arcsec", "sersic_index", "kind", "bulge_share"),
        )
    }
    per_band = {name: _column(getattr(truth, name).flatten()) for name in ("flux", "psf_fwhm_arcsec", "sigma")}
    names = np.array([object_id(seed) for seed in truth.seed.tolist()], dtype=object)
    return {
        "object_id": np.repeat(names, bands),
        "band": np.tile(np.array(galaxies.bands, dtype=object), len(names)),
        "pixel_scale_arcsec": np.full(len(names) * bands, galaxies.pixel_scale_arcsec),
        **per_galaxy,
        **per_band,
    }


def _column(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.int64 if values.dtype == torch.int64 else np.float64)


def _batches(galaxies: int) -> Iterator[int]:
    for first in range(0, galaxies, _BATCH):
        yield min(_BATCH, galaxies - first)


def _write_images(path: Path, cutout: Cutout) -> None:
    """Write image and inverse variance band after band, with the keys of the Legacy Survey viewer."""
    from astropy.io import fits

    planes = [fits.PrimaryHDU()]
    for band, facts in enumerate(cutout.bands):
        for kind, plane in (("image", cutout.flux[band]), ("invvar", cutout.ivar[band])):
            header = fits.Header.fromstring(cutout.wcs)
            header["BAND"], header["IMAGETYP"], header["SURVEY"] = facts.name, kind, "generated"
            header["VERSION"], header["BUNIT"] = facts.release, "nanomaggy" if kind == "image" else "1/nanomaggy^2"
            planes.append(fits.ImageHDU(plane, header))
    fits.HDUList(planes).writeto(path, overwrite=True)


def _write_psf(path: Path, cutout: Cutout) -> None:
    from astropy.io import fits

    planes = [fits.ImageHDU(facts.psf, fits.Header([("BAND", facts.name)])) for facts in cutout.bands]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path, overwrite=True)
