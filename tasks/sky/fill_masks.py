"""Which pixels are to be filled: a mask in a file, the survey's bits, satellite trails, what holds no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError, SourceRejected, UsageError
from tasks.sky.fits_images import open_units
from tasks.sky.trails import trail_mask

WORDS = ("trails", "survey", "missing")
"""``trails``: those that are found; ``survey``: pixels with a bit of the survey's mask; ``missing``: those that hold no data."""


def fill_mask(cutout: Cutout, wanted: Sequence[str], *, bits: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Return the pixels of a cutout that are to be filled, shape (band, y, x), all kinds that are wanted together.

    Parameters
    ----------
    cutout : Cutout
    wanted : sequence of str
        Of `WORDS`, or FITS files whose pixels are not 0, (y, x) or (band, y, x).
    bits : sequence of int
        Of the survey's mask that count, from 0; empty = every one.

    Raises
    ------
    ConfigurationError
        Where a mask is of another shape than the image, or there is no such file.
    SourceRejected
        Where a file cannot be read.
    """
    mask = np.zeros(cutout.flux.shape, dtype=bool)
    for word in wanted:
        if word == "trails":
            mask |= trail_mask(cutout)
        elif word == "survey":
            mask |= (cutout.maskbits & _value_of(bits)) != 0
        elif word == "missing":
            mask |= ~cutout.valid
        else:
            mask |= _read_mask(Path(word).expanduser(), cutout)
    return mask


def _value_of(bits: Sequence[int]) -> np.int32:
    if wrong := [bit for bit in bits if not 0 <= bit < 32]:
        raise UsageError(f"--mask-bits {', '.join(map(str, wrong))}: bits are counted from 0 to 31")
    return (
        np.int32(-1) if not bits else np.array([sum(1 << bit for bit in set(bits))], dtype=np.uint32).view(np.int32)[0]
    )


def _read_mask(path: Path, cutout: Cutout) -> NDArray[np.bool_]:
    if not path.is_file():
        raise ConfigurationError(f"--mask {path}: no such file, and none of {', '.join(WORDS)}")
    with open_units(path.read_bytes(), str(path)) as units:
        planes = [np.asarray(unit.data) for unit in units if _is_plane(unit)]
    if not planes:
        raise SourceRejected(
            f"{path} holds no image: a mask is one of the image's shape, not 0 where it is to be filled"
        )
    whole = planes[0] if len(planes) == 1 else _stacked(planes, path)
    if whole.shape not in (cutout.flux.shape, cutout.shape):
        raise ConfigurationError(
            f"{path} is a mask of shape {whole.shape} for an image of {cutout.flux.shape}: (band, y, x) or (y, x) of the "
            "same pixels is wanted"
        )
    return np.broadcast_to(np.nan_to_num(whole, nan=1.0) != 0, cutout.flux.shape)


def _is_plane(unit: object) -> bool:
    return isinstance(unit, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU) and unit.header.get("NAXIS", 0) >= 2


def _stacked(planes: list[NDArray], path: Path) -> NDArray:
    if len({plane.shape for plane in planes}) > 1:
        raise ConfigurationError(f"{path} holds masks of different shapes: {[plane.shape for plane in planes]}")
    return np.stack(planes)
