"""The width of the point spread function of an SDSS field, out of its ``psField`` file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from astropy.io.fits import BinTableHDU, Header

from tasks.errors import SourceRejected
from tasks.sky.assembly import Plane
from tasks.sky.fits_images import open_units

_FRAME = re.compile(
    r"/photoObj/frames/(?P<rerun>[^/]+)/(?P<run>\d+)/(?P<camcol>\d)/frame-[a-z]-(?P<field>\d+-\d-\d+)\.fits(\.bz2)?$"
)
_SUMMARY = 6
_BANDS = "ugriz"


def psf_field_name(frame: Header) -> str:
    """Return the name of the file that goes with a frame."""
    return f"psField-{int(frame['RUN']):06d}-{int(frame['CAMCOL'])}-{int(frame.get('FRAME', 0)):04d}.fit"


def psf_field_url(frame: str) -> str:
    """Return the URL of the file that goes with a frame's in the survey's archive; empty where that lies elsewhere.

    Examples
    --------
    >>> psf_field_url("https://x/dr17/eboss/photoObj/frames/301/1000/1/frame-r-001000-1-0100.fits.bz2")
    'https://x/dr17/eboss/photo/redux/301/1000/objcs/1/psField-001000-1-0100.fit'
    """
    match = _FRAME.search(frame)
    if match is None:
        return ""
    folder = f"{frame[: match.start()]}/photo/redux/{match['rerun']}/{match['run']}/objcs/{match['camcol']}"
    return f"{folder}/psField-{match['field']}.fit"


def psf_widths(body: bytes, where: str) -> dict[str, float]:
    """Return the effective width of each band, arcsec.

    Raises
    ------
    SourceRejected
        What is no such file.

    References
    ----------
    SDSS data model, file type psField, HDU 6, `psf_width`: from the fit of two Gaussians at the middle of the field.
    """
    with open_units(body, where) as units:
        table = units[_SUMMARY] if len(units) > _SUMMARY else None
        if not isinstance(table, BinTableHDU) or "psf_width" not in table.columns.names:
            raise SourceRejected(f"{where} has no table with psf_width", reason="unreadable")
        widths = [float(width) for width in table.data["psf_width"][0]]
    return {band: width for band, width in zip(_BANDS, widths, strict=True) if math.isfinite(width) and width > 0}


def with_width(plane: Plane, widths: Mapping[str, float]) -> Plane:
    """Return a plane that knows the width of its point spread function, if it does not yet and there is one."""
    if math.isfinite(plane.facts.psf_fwhm_arcsec) or plane.facts.name not in widths:
        return plane
    return replace(plane, facts=replace(plane.facts, psf_fwhm_arcsec=widths[plane.facts.name]))
