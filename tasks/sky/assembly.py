"""One cutout from the planes that a source read: cut, checked, nothing resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from storage.cutouts import BandFacts, Cutout, FluxUnit
from tasks.errors import Reason, SourceRejected
from tasks.sky.fits_images import is_mirrored, to_float32
from tasks.sky.source_options import SMALLEST_SIDE
from tasks.sky.targets import Target

_MISSING_NOTE = "no image in {}"


@dataclass(frozen=True)
class Plane:
    """One band as a source read it.

    Parameters
    ----------
    facts : BandFacts
    unit : str
        ``nanomaggies`` or ``counts``.
    pixels : ndarray, shape (y, x), float32
    valid : ndarray, shape (y, x), bool
    ivar : ndarray, shape (y, x), float32, or None
        The survey's; None = it gives none.
    maskbits : ndarray, shape (y, x), int32, or None
    notes : tuple of str
    """

    facts: BandFacts
    unit: FluxUnit
    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
    ivar: NDArray[np.float32] | None = None
    maskbits: NDArray[np.int32] | None = None
    notes: tuple[str, ...] = field(default=())


def has_data(pixels: NDArray, *, zero_is_data: bool = False) -> NDArray[np.bool_]:
    """Return which pixels hold data: finite, and not exactly zero.

    Surveys fill what was not observed with zeros. A zero is data in an image of whole numbers (raw counts), unless a
    bias lies under all of them.
    """
    finite = np.isfinite(pixels)
    if zero_is_data:
        return finite
    return finite & (pixels != 0)


def counts_whole(pixels: NDArray) -> bool:
    """Return whether an image holds whole numbers alone, and not zeros alone."""
    finite = pixels[np.isfinite(pixels)]
    return bool(np.any(finite != 0)) and bool(np.all(finite == np.floor(finite)))


def inverse_variance(values: NDArray, kind: str) -> NDArray[np.float32]:
    """Return inverse variance from a plane of it, of rms or of variance; 0 where that says nothing."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wide = np.asarray(values, dtype=np.float64)
        inverse = values if kind == "ivar" else 1.0 / (wide**2 if kind == "rms" else wide)
        narrow = to_float32(np.asarray(inverse))
        return np.where(np.isfinite(narrow) & (narrow > 0), narrow, np.float32(0))


def psf_facts(facts: BandFacts, image: NDArray | None, *, pixel_scale_arcsec: float) -> BandFacts:
    """Return facts with an image of the point spread function, scaled to sum 1, and its width; unchanged where none."""
    if image is None or not np.isfinite(image).all() or not float(image.sum()) > 0:
        return facts
    psf = to_float32(np.asarray(image, dtype=np.float64) / float(image.sum(dtype=np.float64)))
    return replace(facts, psf=psf, psf_fwhm_arcsec=width_of_psf(psf) * pixel_scale_arcsec)


def width_of_psf(psf: NDArray) -> float:
    """Return the full width at half maximum in pixels: of the circle with the area above half of the peak.

    Examples
    --------
    >>> y, x = np.mgrid[-15:16, -15:16]
    >>> round(width_of_psf(np.exp(-(x**2 + y**2) / (2 * 2.0**2))), 1)
    4.7
    """
    from scipy.ndimage import zoom

    finer, reach = 5, 16
    rows, columns = np.unravel_index(int(np.argmax(psf)), psf.shape)
    near = psf[max(0, rows - reach) : rows + reach + 1, max(0, columns - reach) : columns + reach + 1].astype(
        np.float64
    )
    fine = zoom(near, finer, order=3, grid_mode=True, mode="nearest")
    return 2.0 * math.sqrt(float((fine >= fine.max() / 2.0).sum()) / math.pi) / finer


@dataclass(frozen=True)
class Frame:
    """Where planes lie on the sky.

    Parameters
    ----------
    wcs : WCS or None
    pixel_scale_arcsec : float
    centre : tuple of float
        (x, y) of the target in pixels, from 0 at the centre of the lowest left one.
    """

    wcs: WCS | None
    pixel_scale_arcsec: float
    centre: tuple[float, float]


def assemble(
    target: Target,
    planes: Sequence[Plane],
    frame: Frame,
    *,
    size: int | None,
    bands: Sequence[str],
    max_empty_share: float,
    source: str,
    empty_reason: Reason = "invalid-input",
    notes: Sequence[str] = (),
) -> Cutout:
    """Return the cutout of a target from planes of one grid.

    A band that was asked for and is not there is a plane without a valid pixel. Beyond the planes' edge nothing is
    valid.

    Parameters
    ----------
    size : int, optional
        Side in pixels, the target in the middle; None = the planes as they are.
    bands : sequence of str
        In this order; empty = the planes'.
    empty_reason : str
        Of an image without any data: outside the footprint (``no-data``) or a bad file.

    Raises
    ------
    SourceRejected
        No band that was asked for; planes of different shapes; fewer than `SMALLEST_SIDE` pixels a side; every pixel
        empty, or more than `max_empty_share`.
    """
    chosen, missing = _in_order(planes, bands, source)
    rows, columns = chosen[0].pixels.shape if size is None else (size, size)
    if min(rows, columns) < SMALLEST_SIDE:
        raise SourceRejected(
            f"{source}: an image of {columns} x {rows} pixels, {SMALLEST_SIDE} a side are needed",
            reason="invalid-input",
        )
    said = [*notes, *(note for plane in chosen for note in plane.notes)]
    came = [plane.facts.name for plane in planes]
    taken = [plane.facts.name for plane in chosen if plane.facts.name in came]
    if taken != [name for name in came if name in taken]:
        said.append(f"the planes come as {', '.join(came)}: taken by their names")
    if missing:
        said.append(_MISSING_NOTE.format(", ".join(missing)))
    wcs = frame.wcs
    if size is not None:
        chosen, wcs = cut(chosen, frame, size)
    _check_filled(chosen, max_empty_share, source, empty_reason, said)
    if wcs is not None and is_mirrored(wcs):
        said.append("mirrored: east is to the right of north")
    return _cutout(target, chosen, wcs, frame.pixel_scale_arcsec, source, tuple(dict.fromkeys(said)))


def _in_order(planes: Sequence[Plane], bands: Sequence[str], source: str) -> tuple[list[Plane], list[str]]:
    by_name = {plane.facts.name: plane for plane in planes}
    if len(by_name) < len(planes):
        raise SourceRejected(f"{source}: a band comes twice: {', '.join(plane.facts.name for plane in planes)}")
    if len({plane.pixels.shape for plane in planes}) > 1:
        shapes = ", ".join(f"{plane.facts.name} {plane.pixels.shape}" for plane in planes)
        raise SourceRejected(f"{source}: the bands' images are of different shapes: {shapes}")
    wanted = list(bands) or list(by_name)
    missing = [name for name in wanted if name not in by_name]
    if len(missing) == len(wanted):
        raise SourceRejected(f"{source}: no image in {', '.join(wanted)}; there is {', '.join(by_name) or 'none'}")
    shape = planes[0].pixels.shape
    nothing = np.zeros(shape, np.float32)
    empty = np.zeros(shape, np.bool_)
    unit = planes[0].unit
    return [by_name.get(name) or Plane(BandFacts(name), unit, nothing, empty) for name in wanted], missing


def cut(planes: Sequence[Plane], frame: Frame, size: int) -> tuple[list[Plane], WCS | None]:
    """Return planes of `size` pixels a side about the target, and their WCS; beyond an edge nothing is valid."""
    x, y = (math.floor(middle - size / 2.0 + 1.0) for middle in frame.centre)
    squares = [
        replace(
            plane,
            pixels=_window(plane.pixels, x, y, size),
            valid=_window(plane.valid, x, y, size),
            ivar=None if plane.ivar is None else _window(plane.ivar, x, y, size),
            maskbits=None if plane.maskbits is None else _window(plane.maskbits, x, y, size),
        )
        for plane in planes
    ]
    if frame.wcs is None:
        return squares, None
    return squares, shifted(frame.wcs, x, y)


def shifted(wcs: WCS, x: int, y: int) -> WCS:
    """Return the WCS of what begins at the pixel (x, y) of an image."""
    wcs = wcs.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix - np.array([x, y])
    if wcs.sip is not None:
        wcs.sip.crpix[:] = wcs.wcs.crpix
    return wcs


def _window(plane: NDArray, x: int, y: int, size: int) -> NDArray:
    """Return a square of a plane; what lies beyond its edge is zero."""
    window = np.zeros((size, size), plane.dtype)
    rows, columns = plane.shape
    top, bottom, left, right = max(y, 0), min(y + size, rows), max(x, 0), min(x + size, columns)
    if top < bottom and left < right:
        window[top - y : bottom - y, left - x : right - x] = plane[top:bottom, left:right]
    return window


def _check_filled(planes: Sequence[Plane], most: float, source: str, reason: Reason, notes: list[str]) -> None:
    """Reject what is empty, or too much so; note what is in part."""
    shares = {plane.facts.name: 1.0 - float(plane.valid.mean()) for plane in planes}
    filled = {name: share for name, share in shares.items() if share < 1.0}
    if not filled:
        raise SourceRejected(f"{source}: every pixel is zero or not a number", reason=reason)
    constant = [plane.facts.name for plane in planes if plane.valid.any() and _is_constant(plane)]
    if len(constant) == len(filled):
        raise SourceRejected(f"{source}: every pixel of {', '.join(constant)} has one value", reason="invalid-input")
    share = sum(filled.values()) / len(filled)
    if share > most:
        raise SourceRejected(
            f"{source}: {share:.0%} of the pixels are empty or masked, {most:.0%} are allowed (max_empty_share)",
            reason="invalid-input",
        )
    if len(filled) < len(shares):
        notes.append(f"no data in {', '.join(name for name in shares if name not in filled)}")
    if share > 0:
        notes.append(f"{share:.2%} of the pixels are empty or masked")


def _is_constant(plane: Plane) -> bool:
    values = plane.pixels[plane.valid]
    return bool(values.size > 1 and values.min() == values.max())


def _cutout(
    target: Target, planes: Sequence[Plane], wcs: WCS | None, scale: float, source: str, notes: tuple[str, ...]
) -> Cutout:
    valid = np.stack([plane.valid & (plane.ivar > 0 if plane.ivar is not None else True) for plane in planes])
    flux = np.stack([np.where(np.isfinite(plane.pixels), plane.pixels, np.float32(0)) for plane in planes])
    nothing = np.zeros(planes[0].pixels.shape, np.float32)
    no_bits = np.zeros(nothing.shape, np.int32)
    bands = tuple(replace(p.facts, ivar_source="estimated" if p.ivar is None else "survey") for p in planes)
    units = {plane.unit for plane in planes}
    return Cutout(
        object_id=target.object_id,
        ra=target.ra,
        dec=target.dec,
        bands=bands,
        flux=flux,
        valid=valid,
        ivar=np.stack([nothing if plane.ivar is None else plane.ivar for plane in planes]),
        maskbits=np.stack([no_bits if plane.maskbits is None else plane.maskbits for plane in planes]),
        segmentation=np.zeros(nothing.shape, np.int32),
        wcs="" if wcs is None else wcs.to_header_string(relax=True),
        pixel_scale_arcsec=scale,
        flux_unit="nanomaggies" if units == {"nanomaggies"} else "counts",
        source=source,
        notes=notes,
    )
