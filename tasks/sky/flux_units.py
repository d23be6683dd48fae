"""What a unit of an image's flux is, as its header says it: nanomaggies, or counts and their zero point."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.io.fits import Header
from numpy.typing import NDArray

from storage.cutouts import AB_ZERO_POINT, FluxUnit
from tasks.errors import SourceRejected
from tasks.sky.fits_images import is_sdss_frame

_ZERO_POINT_KEYS = (
    *("MAGZERO", "MAGZPT", "MAGZP", "ZEROPT", "ZEROPNT", "ZPT", "ZP", "ZEROPOIN", "PHOTZP", "PHOT_ZP"),
    *("ABMAGZP", "ABZP", "ABMAG", "ABZERO", "ZPAB", "MAG_ZP"),
)
_JANSKY = re.compile(r"(?P<prefix>[Mmunµμ]?)(Jy|JY|jy|[Jj]ansky)")
_PREFIXES = {"": 1.0, "M": 1e6, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9}
_AB_JANSKY = 8.9
_MAGGIES = re.compile(r"(maggy|maggies|mgys?)")
_NANOMAGGIES = re.compile(r"(nano-?magg(y|ies)|nmgys?|nmagg(y|ies))")
_FLUX_BY_AREA = re.compile(
    r"(?P<flux>.+?)(?:(?:/|per)pix(?:els?)?|[.*]?pix(?:el)?(?:\^|\*\*)?-1"
    r"|(?P<arcsec>(?:/|per)(?:sq\.?arcsec|arcsec(?:\^|\*\*)?2)|[.*]?arcsec(?:\^|\*\*)?-2)"
    r"|(?P<steradian>(?:/|per)sr|[.*]?sr(?:\^|\*\*)?-1))?",
    re.IGNORECASE,
)
_COUNTS = re.compile(
    r"(adus?|dns?|cps|counts?|cts?|e-?|electrons?|photons?|photo-?electrons?|data(units?|numbers?))"
    r"((/|per)s(ec|ecs|econds?)?|[.*]?s(ec)?(\^|\*\*)?-1)?"
)
_NO_UNIT = ("", "none", "unknown", "undef", "undefined", "unitless", "dimensionless", "n/a")
_PER_WAVELENGTH = re.compile(r"(10\S*)?ergs?\W.*")
_UNITS = "nanomaggies, maggies, Jy (mJy, uJy, nJy), each also by arcsec^2 or sr, ADU, counts or electrons (per second)"
_NONLINEAR = re.compile(r"mag(s|nitudes?)?\b|lupt|asinh|log|dex|sqrt")


@dataclass(frozen=True)
class Calibration:
    """What a unit of an image is."""

    unit: FluxUnit
    zero_point: float
    calibrated: bool
    notes: tuple[str, ...] = ()


def calibration_of(
    header: Header,
    *,
    band: str,
    pixel_scale_arcsec: float,
    zero_points: Mapping[str, float],
    viewer: bool = False,
    where: str = "the image",
) -> Calibration:
    """Return what a unit of an image is, from its header; from `zero_points` where that does not say.

    Parameters
    ----------
    viewer : bool
        Whether it is an answer of the Legacy Survey viewer, which are nanomaggies and do not say so.
    where : str
        The image's name in messages.

    Raises
    ------
    SourceRejected
        With reason ``invalid-input``: a unit that is not linear in flux, or is no flux of one pixel at all.
    """
    said = str(header.get("BUNIT", "")).strip()
    unit = re.sub(r"\(.*?\)|\s", "", said)
    if _NONLINEAR.match(said.lower()):
        raise SourceRejected(f"{where} is in {said} (BUNIT), which is not linear in flux", reason="invalid-input")
    if not unit and (viewer or _is_viewers(header) or is_sdss_frame(header)):
        return Calibration("nanomaggies", AB_ZERO_POINT, True)
    if (from_unit := _zero_point_of_unit(unit, pixel_scale_arcsec)) is not None:
        if from_unit == AB_ZERO_POINT:
            return Calibration("nanomaggies", AB_ZERO_POINT, True)
        return Calibration("counts", from_unit, True, (f"{said}: zero point from the unit",))
    is_counts = unit.lower() in _NO_UNIT or _is_counts(unit)
    if not (is_counts or _PER_WAVELENGTH.fullmatch(said.lower())):
        raise SourceRejected(
            f"{where} is in {said} (BUNIT), which is no flux of one pixel: {_UNITS} are understood",
            reason="invalid-input",
        )
    found, key_said = _zero_point_of(header)
    if math.isfinite(found):
        return Calibration("counts", found, True, (f"zero point {found:.4f} from {key_said}",))
    for key in (band, "*"):
        if key in zero_points:
            return Calibration("counts", float(zero_points[key]), True, (f"zero point {zero_points[key]} as given",))
    if not is_counts:
        raise SourceRejected(
            f"{where} is in {said} (BUNIT), a flux by wavelength: give its AB zero point (--zero-point)",
            reason="invalid-input",
        )
    return Calibration("counts", AB_ZERO_POINT, False, ("no zero point: magnitudes are instrumental",))


def soft_bias_of(header: Header, pixels: NDArray) -> float:
    """Return the software bias that is still in the pixels, counts; 0 = none.

    The key stays in headers whose pixels are free of it, so the pixels decide.
    """
    said = str(header.get("BUNIT", "")).lower()
    bias = float(header.get("SOFTBIAS", 1000.0 if "soft bias" in said else 0.0))
    filled = pixels[np.isfinite(pixels) & (pixels != 0)]
    return bias if bias > 0 and len(filled) and float(np.percentile(filled, 5)) > 0.9 * bias else 0.0


def _is_viewers(header: Header) -> bool:
    """Return whether a header is one that the Legacy Survey viewer writes."""
    return "IMAGEW" in header and ("BAND0" in header or ("BRICK" in header and "BAND" in header))


def _zero_point_of(header: Header) -> tuple[float, str]:
    for key in _ZERO_POINT_KEYS:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 5.0 < value < 60.0:
            return float(value), key
    flam, pivot = header.get("PHOTFLAM"), header.get("PHOTPLAM")
    if isinstance(flam, float) and isinstance(pivot, float) and flam > 0 and pivot > 0:
        # ACS Data Handbook, section 5.1.1: AB zero point of one electron (or count) per second
        return -2.5 * math.log10(flam) - 5.0 * math.log10(pivot) - 2.408, "PHOTFLAM and PHOTPLAM"
    return math.nan, ""


def _zero_point_of_unit(unit: str, scale_arcsec: float) -> float | None:
    """Return the AB magnitude of one unit in a pixel, or None where the unit does not say; text without spaces."""
    match = _FLUX_BY_AREA.fullmatch(unit)
    if match is None:
        return None
    area = 1.0
    if match["arcsec"] or match["steradian"]:
        area = scale_arcsec**2 if match["arcsec"] else math.radians(scale_arcsec / 3600.0) ** 2
    flux = match["flux"]
    if _NANOMAGGIES.fullmatch(flux.lower()):
        whole = AB_ZERO_POINT
    elif _MAGGIES.fullmatch(flux.lower()):
        whole = 0.0
    elif (jansky := _JANSKY.fullmatch(flux)) and (flux != "MJY" or match["steradian"]):  # alone it may be milli
        whole = _AB_JANSKY - 2.5 * math.log10(_PREFIXES[jansky["prefix"]])
    else:
        return None
    return whole - 2.5 * math.log10(area) if math.isfinite(area) and area > 0 else None


def _is_counts(unit: str) -> bool:
    match = _FLUX_BY_AREA.fullmatch(unit)
    return (
        match is not None
        and not (match["arcsec"] or match["steradian"])
        and bool(_COUNTS.fullmatch(match["flux"].lower()))
    )
