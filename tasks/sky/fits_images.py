"""Images out of FITS files, and what their headers say: band, scale, unit, zero point. Nothing is guessed from a name."""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from astropy.io import fits
from astropy.io.fits import Header
from astropy.io.fits.verify import VerifyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from numpy.typing import NDArray

from tasks.errors import SourceRejected
from tasks.sky.sdss_noise import frame_variance

Kind = Literal["image", "ivar", "rms", "variance", "mask", "psf"]

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("image", "img", "sci", "science"), "image"),
    **dict.fromkeys(("ivar", "invvar", "wht", "weight", "weights"), "ivar"),
    **dict.fromkeys(("rms", "err", "error", "sigma", "uncert"), "rms"),
    **dict.fromkeys(("var", "variance"), "variance"),
    **dict.fromkeys(("mask", "maskbits", "dq", "bpm", "flags"), "mask"),
    **dict.fromkeys(("psf", "psfs"), "psf"),
}
_BLOCK, _CARD = 2880, 80
_HUBBLE = re.compile(r"[fF]\d{3,4}[a-zA-Z]{1,2}")
_NAMES_NOTHING = ("", "primary", "compressed_image")
_WCS_KEY = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]|(CD|PC)[12]_[12]|PV[12]_\d+|(A|B|AP|BP)_(ORDER|\d_\d)"
    r"|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX"
)
_SCALE_KEYS = ("CD1_1", "CD1_2", "CDELT1", "PC1_1", "PC1_2")


@dataclass(frozen=True)
class Image:
    """One plane of a FITS file.

    Parameters
    ----------
    name : str
        EXTNAME; empty = none.
    band : str
        As the header names it; empty = not said.
    kind : str
        What the plane is.
    pixels : ndarray, shape (y, x)
        Physical values, as astropy gives them.
    header : Header
    """

    name: str
    band: str
    kind: Kind
    pixels: NDArray
    header: Header

    @property
    def scale(self) -> float:
        """Return what the file's numbers were multiplied by to give `pixels`; 1 = nothing."""
        return float(self.header.get("BSCALE", 1.0))


def check_fits(body: bytes, *, downloaded: bool = False) -> str:
    """Return what is wrong with bytes that should be a whole FITS file; empty = nothing.

    Every header is read and every block of data is counted, so that an interrupted download shows without reading a
    pixel.

    Parameters
    ----------
    downloaded : bool
        Whether an unfilled last block is a sign of a cut. Some writers of local files leave it unfilled.
    """
    if not body:
        return "an empty answer came"
    if body.lstrip()[:1] == b"<":
        return "a web page came in place of a FITS file"
    try:
        body = unpacked(body)
    except (OSError, EOFError, zlib.error) as error:
        return f"the file cannot be unpacked ({' '.join(str(error).split())[:80]})"
    if not body.startswith(b"SIMPLE  ="):
        return f"{len(body)} bytes that are no FITS file came"
    start = 0
    while start < len(body) and (start == 0 or body[start : start + 8] == b"XTENSION"):
        data = _end_of_header(body, start)
        if data is None:
            return f"the file ends in a header, after {len(body)} bytes"
        size = _data_bytes(Header.fromstring(body[start:data].decode("ascii", errors="replace")))
        if data + size > len(body):
            return f"the file is cut: {len(body)} bytes, {data + size} at least are announced"
        start = data + -(-size // _BLOCK) * _BLOCK
    return f"the file is cut: {len(body)} bytes are no whole blocks" if downloaded and len(body) % _BLOCK else ""


def unpacked(body: bytes) -> bytes:
    """Return a file's bytes, unpacked where it is a gzip or bzip2 one.

    Raises
    ------
    OSError, EOFError, zlib.error
    """
    if body.startswith(b"\x1f\x8b"):
        return gzip.decompress(body)
    if not body.startswith(b"BZh"):
        return body
    unpacker = bz2.BZ2Decompressor()
    plain = unpacker.decompress(body)
    if not unpacker.eof:
        raise EOFError("it ends early")
    return plain


@contextmanager
def open_units(body: bytes, where: str) -> Iterator[fits.HDUList]:
    """Open a FITS file's units; `where` names it in messages.

    Raises
    ------
    SourceRejected
        With reason ``unreadable`` where it is no whole FITS file, or a unit of it cannot be read inside the block.
    """
    if wrong := check_fits(body):
        raise SourceRejected(f"{where}: {wrong}", reason="unreadable")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=VerifyWarning)  # BLANK in a float image and the like
            plain = unpacked(body)
            plain += b"\0" * (-len(plain) % _BLOCK)  # some writers leave the last block short
            with fits.open(io.BytesIO(plain), memmap=False) as units:
                yield units
    except SourceRejected:
        raise
    except (OSError, TypeError, ValueError, KeyError, EOFError, IndexError, fits.VerifyError) as error:
        words = " ".join(str(error).split())[:160]
        raise SourceRejected(f"{where} cannot be read as FITS: {words}", reason="unreadable") from error


def read_images(body: bytes, where: str) -> list[Image]:
    """Return every image plane of a FITS file; of an SDSS frame also its inverse variance.

    Raises
    ------
    SourceRejected
        With reason ``unreadable`` where it is no whole FITS file; planes whose bands the header does not name.
    """
    with open_units(body, where) as units:
        main = units[0].header
        images = [image for unit in units for image in _planes(unit, main, where)]
        if images and is_sdss_frame(main) and len(units) > 2:
            images.append(_frame_variance(units, images[0]))
    return images


def band_names(header: Header, *, planes: int = 1) -> tuple[str, ...]:
    """Return the bands that a header names, in the order of its planes; empty where it names another number of them."""
    numbered: list[str] = []
    while (key := f"BAND{len(numbered)}") in header:
        numbered.append(plain_band(header[key]))
    together = plain_band(header.get("BANDS", ""))
    for names in (tuple(numbered), tuple(together), (plain_band(header.get("BAND", "")),), (_filter(header),)):
        if len(names) == planes and all(names):
            return names
    return ()


def wcs_of(header: Header) -> WCS | None:
    """Return the celestial WCS of a header's first two axes, or None where it has none with a scale."""
    if not any(key in header for key in _SCALE_KEYS):
        return None
    if not all(str(header.get(key, "")).strip() for key in ("CTYPE1", "CTYPE2")):
        return None
    kept = Header()
    for key in header:
        if _WCS_KEY.fullmatch(key) and header[key] not in ("", None):
            kept["RADESYS" if key == "RADECSYS" else key] = header[key]
    try:
        wcs = WCS(kept, naxis=2, fix=False)
        if not wcs.has_celestial or not proj_plane_pixel_area(wcs) > 0:
            return None
    except (ValueError, TypeError, ArithmeticError, MemoryError):  # wcslib's errors are ValueErrors of many names
        return None
    return wcs


def pixel_scale_arcsec(wcs: WCS) -> float:
    """Return the side of a pixel: the square root of its area."""
    return math.sqrt(proj_plane_pixel_area(wcs)) * 3600.0


def is_mirrored(wcs: WCS) -> bool:
    """Return whether east is to the right where north is up."""
    return bool(np.linalg.det(wcs.pixel_scale_matrix) > 0) == (wcs.wcs.lng == 0)


def pixel_of(wcs: WCS, ra: float, dec: float) -> tuple[float, float]:
    """Return (x, y) of a position, from 0 at the centre of the lowest left pixel; NaN where the WCS has none."""
    from astropy.coordinates import ICRS, SkyCoord
    from astropy.wcs import NoConvergence
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    longitude, latitude = ra, dec
    if not isinstance(frame, ICRS):
        place = SkyCoord(ra, dec, unit="deg").transform_to(frame).spherical
        longitude, latitude = place.lon.deg, place.lat.deg
    axes = {wcs.wcs.lng: longitude, wcs.wcs.lat: latitude}
    try:
        x, y = wcs.world_to_pixel_values(axes[0], axes[1])
    except (NoConvergence, ValueError):
        return math.nan, math.nan
    return float(x), float(y)


def position_of(wcs: WCS, x: float, y: float) -> tuple[float, float]:
    """Return the ICRS position of a pixel, degrees."""
    ra, dec = positions_of(wcs, np.array([x]), np.array([y]))
    return float(ra[0]), float(dec[0])


def positions_of(
    wcs: WCS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ICRS right ascensions and declinations of pixels, degrees, whatever the WCS's axes and frame."""
    from astropy.coordinates import ICRS, SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    world = wcs.pixel_to_world_values(x, y)
    frame = wcs_to_celestial_frame(wcs)
    if isinstance(frame, ICRS):
        return world[wcs.wcs.lng] % 360.0, world[wcs.wcs.lat]
    found = SkyCoord(world[wcs.wcs.lng], world[wcs.wcs.lat], unit="deg", frame=frame).icrs
    return found.ra.deg % 360.0, found.dec.deg


def to_float32(pixels: NDArray) -> NDArray[np.float32]:
    """Return pixels as native float32; those that already are, big-endian or not, bit for bit."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(pixels, dtype=np.float32)


def release_of(header: Header) -> str:
    """Return the data release as a header names it; empty = not said."""
    if is_sdss_frame(header):
        return f"rerun {header.get('RERUN', '')}".strip()
    for key in ("VERSION", "RELEASE", "DRVERSIO", "SURVEY"):
        if text := " ".join(str(header.get(key, "")).split()):
            return text
    return ""


def is_sdss_frame(header: Header) -> bool:
    """Return whether a header is that of an SDSS frame, calibrated and free of sky."""
    return "NMGY" in header and "CAMCOL" in header and "SOFTBIAS" in header


def _end_of_header(body: bytes, start: int) -> int | None:
    """Return where the data begins after the header that begins at `start`, or None where the file ends before."""
    for block in range(start, len(body), _BLOCK):
        for card in range(block, min(block + _BLOCK, len(body)), _CARD):
            if body[card : card + 8] == b"END     ":
                return block + _BLOCK if block + _BLOCK <= len(body) else None
    return None


def _data_bytes(header: Header) -> int:
    axes = [int(header.get(f"NAXIS{axis}", 0)) for axis in range(1, int(header.get("NAXIS", 0)) + 1)]
    if not axes:
        return 0
    groups, heap = int(header.get("GCOUNT", 1)), int(header.get("PCOUNT", 0))
    return abs(int(header.get("BITPIX", 8))) // 8 * groups * (heap + math.prod(axes))


def _planes(unit: fits.ImageHDU, main: Header, where: str) -> list[Image]:
    if not isinstance(unit, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU) or unit.header.get("NAXIS", 0) < 2:
        return []
    header = unit.header.copy()
    for key in ("VERSION", "SURVEY", "BUNIT", "FILTER", "BAND"):
        if key not in header and key in main:
            header[key] = main[key]
    cube = np.asarray(unit.data)
    cube = cube.reshape(-1, *cube.shape[-2:])
    name = str(unit.name).strip()
    name = "" if name.lower() in _NAMES_NOTHING else name
    kind, band = _kind_and_band(name, str(header.get("IMAGETYP", "")))
    bands = band_names(header, planes=len(cube)) or ((band,) if len(cube) == 1 else ())
    if kind == "psf" and not bands and len(cube) == 1:
        bands = ("",)
    if not bands and kind != "mask":
        raise SourceRejected(
            f"{where}: {len(cube)} planes, and the header does not name so many bands (BANDS, BAND0 ...)"
        )
    bands = bands or ("",)
    return [Image(name, word, kind, plane, header) for word, plane in zip(bands, cube, strict=False)]


def _frame_variance(units: fits.HDUList, image: Image) -> Image:
    """Return the inverse variance plane of an SDSS frame."""
    sky = units[2].data
    variance = frame_variance(
        image.pixels,
        calibration=np.asarray(units[1].data, dtype=float),
        sky=np.asarray(sky["ALLSKY"][0], dtype=float),
        sky_columns=np.asarray(sky["XINTERP"][0], dtype=float),
        sky_rows=np.asarray(sky["YINTERP"][0], dtype=float),
        band=image.band,
        camcol=int(image.header["CAMCOL"]),
        run=int(image.header["RUN"]),
    )
    return Image("", image.band, "variance", variance, image.header)


def _kind_and_band(name: str, image_type: str) -> tuple[Kind, str]:
    for text in (name.lower(), image_type.strip().lower()):
        words = re.split(r"[_\- ]+", text)
        kind = next((KINDS[word] for word in words if word in KINDS), None)
        if kind is not None:
            others = [word for word in re.split(r"[_\- ]+", name) if word.lower() not in KINDS]
            return kind, others[0] if text == name.lower() and len(others) == 1 else ""
    return "image", ""


def plain_band(text: object) -> str:
    """Return a band's name: the first word, Hubble's filters in capitals.

    Examples
    --------
    >>> plain_band("r DECam SDSS c0002 6415.0"), plain_band("f814w")
    ('r', 'F814W')
    """
    words = str(text).split()
    return "" if not words else words[0].upper() if _HUBBLE.fullmatch(words[0]) else words[0]


def _filter(header: Header) -> str:
    for key in ("FILTER", "FILTNAM1", "FILTER1", "FILTER2"):
        if (word := plain_band(header.get(key, ""))) and not word.upper().startswith(("CLEAR", "NONE")):
            return word
    return ""
