"""A cutout in a FITS file of its own, in and out: native pixels, in the layout that a folder of images is read from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError
from tasks.sky.folder import SCALE_KEY, FolderSource
from tasks.sky.folder_names import parse_name
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target

_MOSTLY_EMPTY = 0.99


def read_cutout(
    path: Path,
    *,
    bands: Sequence[str] = (),
    pixel_scale_arcsec: float | None = None,
    zero_points: Mapping[str, float] | None = None,
) -> Cutout:
    """Return the image of a FITS file, with the variance, mask and point spread function beside it.

    Parameters
    ----------
    path : Path
    bands : sequence of str
        Empty = those that the file has.
    pixel_scale_arcsec : float, optional
        Of a file without a WCS.
    zero_points : mapping of str to float, optional
        AB magnitude of one unit by band, ``*`` for all, where the header does not say.

    Raises
    ------
    ConfigurationError
        Where there is no such file.
    SourceRejected
        Where it cannot be read, or holds no such band, or nothing but NaN.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    options = SourceOptions(
        pixel_scale_arcsec=pixel_scale_arcsec, zero_points=dict(zero_points or {}), max_empty_share=_MOSTLY_EMPTY
    )
    name = parse_name(path).base
    source = FolderSource(path.parent, bands=tuple(bands), options=options)
    return source.fetch(Target(name, math.nan, math.nan, names=(name,), file=path.name))


def write_cutout(path: Path, cutout: Cutout, *, cards: Mapping[str, Any] | None = None) -> None:
    """Write a cutout: an image for each band and, where there is any, its inverse variance; pixels bit for bit.

    Without a WCS the header says the pixel scale (``PIXSCALE``). A file is there as a whole or not at all.

    Parameters
    ----------
    path : Path
    cutout : Cutout
        What is not valid is written as NaN.
    cards : mapping, optional
        More for each header.
    """
    units: list[Any] = [fits.PrimaryHDU(header=_header(cutout, cards))]
    for band, facts in enumerate(cutout.bands):
        header = _header(cutout, cards)
        header["BAND"], header["IMAGETYP"], header["VERSION"] = facts.name, "image", facts.release
        header["BUNIT"] = "nanomaggy" if cutout.flux_unit == "nanomaggies" else "count"
        if cutout.flux_unit == "counts" and facts.calibrated:
            header["MAGZERO"] = facts.zero_point
        flux = np.where(cutout.valid[band], cutout.flux[band], np.float32(np.nan))
        units.append(fits.ImageHDU(flux, header))
        if (cutout.ivar[band] > 0).any():
            header = _header(cutout, cards)
            header["BAND"], header["IMAGETYP"], header["BUNIT"] = (
                facts.name,
                "invvar",
                f"1/{units[-1].header['BUNIT']}^2",
            )
            units.append(fits.ImageHDU(cutout.ivar[band], header))
    _write_whole(path, units)


def write_planes(path: Path, cutout: Cutout, planes: Mapping[str, NDArray], *, cards: Mapping[str, Any]) -> None:
    """Write arrays on a cutout's pixels, (..., band, y, x), an extension for each by its name."""
    units: list[Any] = [fits.PrimaryHDU(header=_header(cutout, cards))]
    for name, plane in planes.items():
        header = _header(cutout, cards)
        header["BANDS"] = ",".join(cutout.band_names)
        units.append(fits.ImageHDU(plane.astype(np.uint8) if plane.dtype == bool else plane, header, name=name))
    _write_whole(path, units)


def _header(cutout: Cutout, cards: Mapping[str, Any] | None) -> fits.Header:
    header = fits.Header.fromstring(cutout.wcs) if cutout.wcs.strip() else fits.Header()
    if not cutout.wcs.strip():
        header[SCALE_KEY] = (cutout.pixel_scale_arcsec, "arcsec per pixel")
    header["OBJECT"] = cutout.object_id
    for key, value in (cards or {}).items():
        header[key] = value
    return header


def _write_whole(path: Path, units: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    fits.HDUList(units).writeto(unfinished, overwrite=True)
    unfinished.replace(path)
