"""The planes of one band, as a source's files hold them, to one plane that knows its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import BandFacts
from tasks.errors import SourceRejected
from tasks.sky.assembly import Plane, counts_whole, has_data, inverse_variance, psf_facts
from tasks.sky.fits_images import Image, release_of, to_float32
from tasks.sky.flux_units import calibration_of, soft_bias_of

_VARIANCES = ("ivar", "rms", "variance")


def plane_of(
    image: Image,
    others: Sequence[Image],
    *,
    band: str,
    pixel_scale_arcsec: float,
    zero_points: Mapping[str, float],
    where: str,
    viewer: bool = False,
    mask_is_bad: bool = True,
) -> Plane:
    """Return a band's plane from its image and what comes with it.

    Parameters
    ----------
    others : sequence of Image
        Variance, mask and point spread function of this band or of every one; the band's own go first.
    viewer : bool
        Whether the Legacy Survey viewer wrote it.
    mask_is_bad : bool
        Whether any bit of a mask makes a pixel invalid; else the bits are kept and the survey's variance decides.

    Raises
    ------
    SourceRejected
        Units that are not linear, or a variance or mask of another shape.
    """
    mine = {kind: _of_band(others, kind, band) for kind in (*_VARIANCES, "mask", "psf")}
    for kind in (*_VARIANCES, "mask"):
        if (other := mine[kind]) is not None and other.pixels.shape != image.pixels.shape:
            raise SourceRejected(f"{where}: {kind} of shape {other.pixels.shape} for an image of {image.pixels.shape}")
    found = calibration_of(
        image.header,
        band=band,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_points=zero_points,
        viewer=viewer,
        where=where,
    )
    bias = soft_bias_of(image.header, image.pixels)
    pixels = to_float32(image.pixels)
    valid = has_data(pixels, zero_is_data=not bias and counts_whole(image.pixels))
    maskbits = None if (mask := mine["mask"]) is None else _bits(mask.pixels)
    if maskbits is not None and mask_is_bad:
        valid &= maskbits == 0
    facts = BandFacts(
        band,
        flux_scale=image.scale,
        zero_point=found.zero_point,
        calibrated=found.calibrated,
        release=release_of(image.header),
    )
    return Plane(
        facts=psf_facts(
            facts, None if (psf := mine["psf"]) is None else psf.pixels, pixel_scale_arcsec=pixel_scale_arcsec
        ),
        unit=found.unit,
        pixels=pixels,
        valid=valid,
        ivar=_variance(mine),
        maskbits=maskbits,
        notes=(*found.notes, *_notes(image, bias)),
    )


def _of_band(others: Sequence[Image], kind: str, band: str) -> Image | None:
    """Return the plane of a kind for a band: the band's own, else one that names none."""
    found = [other for other in others if other.kind == kind]
    own = [other for other in found if other.band == band]
    return next(iter(own or [other for other in found if not other.band]), None)


def _variance(mine: Mapping[str, Image | None]) -> NDArray[np.float32] | None:
    for kind in _VARIANCES:
        if (image := mine[kind]) is not None:
            return inverse_variance(image.pixels, kind)
    return None


def _bits(mask: NDArray) -> NDArray[np.int32]:
    """Return a mask as int32 bits; of a mask that is not whole numbers, whether it is not zero."""
    if mask.dtype.kind in "iu":
        return mask.astype(np.int32)
    return (np.nan_to_num(mask, nan=1.0) != 0).astype(np.int32)


def _notes(image: Image, bias: float) -> list[str]:
    notes = []
    if bias:
        notes.append(f"a software bias of {bias:g} counts and the sky are in the pixels")
    if image.pixels.dtype.kind in "iu":
        notes.append(f"whole numbers ({image.pixels.dtype.name}) made float32")
    elif image.pixels.dtype.itemsize > 4:
        notes.append(f"{image.pixels.dtype.newbyteorder('=').name} narrowed to float32")
    return notes
