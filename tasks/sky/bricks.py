"""A release of the Legacy Survey as files: cutouts cut here, from bricks on disk or behind a URL."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.answers import Answers
from tasks.sky.assembly import Frame, Plane, assemble, shifted
from tasks.sky.fits_images import Image, Kind, open_units, pixel_of, pixel_scale_arcsec, wcs_of
from tasks.sky.legacy import DEFAULT_BANDS, DEFAULT_SIZE
from tasks.sky.planes import plane_of
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target, require_position

_TABLES = ("survey-bricks.fits.gz", "survey-bricks.fits")


@dataclass(frozen=True)
class Bricks:
    """The survey's bricks: boxes in RA and Dec, degrees."""

    names: NDArray
    ra1: NDArray[np.float64]
    ra2: NDArray[np.float64]
    dec1: NDArray[np.float64]
    dec2: NDArray[np.float64]

    def holding(self, ra: float, dec: float) -> str | None:
        """Return the brick whose box holds a position; None = no brick does.

        Boxes do not overlap; the images reach beyond them.
        """
        width = np.where(self.ra2 > self.ra1, self.ra2 - self.ra1, self.ra2 - self.ra1 + 360.0)
        inside = ((ra - self.ra1) % 360.0 < width) & (self.dec1 <= dec) & (dec < self.dec2)
        found = np.flatnonzero(inside)
        return str(self.names[found[0]]).strip() if len(found) else None


@dataclass(frozen=True)
class _Window:
    """Part of a brick: columns and rows from (x, y)."""

    x: int
    y: int
    columns: int
    rows: int
    wcs: WCS


class BrickSource:
    """A release's own files, ``coadd/XXX/BRICK/legacysurvey-BRICK-image-BAND.fits.fz`` and what lies beside them.

    Bricks have each a grid of their own: a cutout is of the brick whose box holds the target, and what lies beyond that
    brick's image is not valid. Where the survey's inverse variance is 0, nothing is valid either; mask bits are kept as
    they are.

    Parameters
    ----------
    where : str
        Folder or URL of a release (``.../dr9/south``); the table of bricks lies there or one above.

    Raises
    ------
    ConfigurationError
        A folder that is not there.
    """

    def __init__(self, where: str, *, bands: tuple[str, ...] = (), options: SourceOptions | None = None) -> None:
        self.where = where.rstrip("/")
        self.bands = bands or DEFAULT_BANDS
        self._options = options or SourceOptions()
        self.answers = Answers(self._options.limits, cache=self._options.cache)
        self._lock = threading.Lock()
        self._bricks: Bricks | None = None
        if not self._is_remote and not Path(self.where).is_dir():
            raise ConfigurationError(f"{self.where} is no folder")

    @property
    def name(self) -> str:
        """Return the last two parts of the place, such as ``dr9-south``."""
        parts = [part for part in urlsplit(self.where).path.split("/") if part]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts[-2:])).strip("-.") or "bricks"

    def fetch(self, target: Target, *, deadline: float | None = None) -> Cutout:
        """Return a target's cutout.

        Raises
        ------
        SourceRejected
            With reason ``no-data`` where no brick has an image of the place in any band that was asked for.
        SourceUnavailable
        """
        require_position(target)
        brick = self.bricks(deadline).holding(target.ra, target.dec)
        if brick is None:
            raise SourceRejected(f"{self.where} has no brick there", reason="no-data")
        size = target.size_pixels or self._options.size_pixels or DEFAULT_SIZE
        planes, windows, missing = [], [], []
        for band in self.bands:
            try:
                window, plane = self._plane(brick, band, target, size, deadline)
            except SourceRejected as error:
                if error.reason != "missing-asset":
                    raise
                missing.append(band)
                continue
            windows.append(window)
            planes.append(plane)
        if not planes:
            raise SourceRejected(f"brick {brick} has no image in {', '.join(missing)}", reason="no-data")
        window = windows[0]
        x, y = pixel_of(window.wcs, target.ra, target.dec)
        return assemble(
            target,
            planes,
            Frame(window.wcs, pixel_scale_arcsec(window.wcs), (x, y)),
            size=size,
            bands=self.bands,
            max_empty_share=self._options.max_empty_share,
            source=f"{self.where} brick {brick}",
            empty_reason="no-data",
            notes=self._notes(window, (x, y), size, brick),
        )

    def bricks(self, deadline: float | None = None) -> Bricks:
        """Return the release's table of bricks, read once.

        Raises
        ------
        ConfigurationError
            There is none.
        SourceUnavailable
        """
        with self._lock:
            if self._bricks is None:
                self._bricks = self._read_bricks(deadline)
            return self._bricks

    @property
    def _is_remote(self) -> bool:
        return urlsplit(self.where).scheme in ("http", "https")

    def _read_bricks(self, deadline: float | None) -> Bricks:
        above = self.where.rsplit("/", 1)[0] if self._is_remote else str(Path(self.where).resolve().parent)
        places = [f"{folder}/{name}" for folder in (self.where, above) for name in _TABLES]
        for place in places:
            try:
                body = self.answers.fits(place, deadline=deadline)
            except SourceRejected as error:
                if error.reason != "missing-asset":
                    raise
                continue
            return _bricks_of(body, place)
        raise ConfigurationError(f"{self.where} has no {_TABLES[0]}, nor has the folder above it")

    def _plane(self, brick: str, band: str, target: Target, size: int, deadline: float | None) -> tuple[_Window, Plane]:
        image_url = self._url(brick, f"image-{band}")
        window, image = self._cut(image_url, target, size, band, deadline)
        others = [
            found
            for kind, what in (("ivar", f"invvar-{band}"), ("mask", "maskbits"))
            if (found := self._same(brick, what, kind, window, band, deadline)) is not None  # type: ignore[arg-type]
        ]
        plane = plane_of(
            image,
            others,
            band=band,
            pixel_scale_arcsec=pixel_scale_arcsec(window.wcs),
            zero_points={},
            where=image_url,
            viewer=True,
            mask_is_bad=False,
        )
        return window, self._with_width(plane, brick, band, window, target, deadline)

    def _with_width(
        self, plane: Plane, brick: str, band: str, window: _Window, target: Target, deadline: float | None
    ) -> Plane:
        """Return a plane that knows the width of the point spread function at the target."""
        widths = self._same(brick, f"psfsize-{band}", "image", window, band, deadline)
        if widths is None:
            return plane
        column, row = (round(value) for value in pixel_of(window.wcs, target.ra, target.dec))
        width = float(widths.pixels[row, column])
        return replace(plane, facts=replace(plane.facts, psf_fwhm_arcsec=width)) if width > 0 else plane

    def _cut(self, url: str, target: Target, size: int, band: str, deadline: float | None) -> tuple[_Window, Image]:
        """Return the part of a brick's image about a target."""
        with open_units(self.answers.fits(url, deadline=deadline), url) as units:
            unit = next((unit for unit in units if unit.header.get("NAXIS") == 2 and hasattr(unit, "section")), None)
            wcs = None if unit is None else wcs_of(unit.header)
            if unit is None or wcs is None:
                raise SourceRejected(f"{url} holds no image with a WCS", reason="invalid-input")
            rows, columns = unit.shape
            middle = pixel_of(wcs, target.ra, target.dec)
            x, right = (int(np.clip(round(middle[0]) + side, 0, columns)) for side in (-size, size + 1))
            y, top = (int(np.clip(round(middle[1]) + side, 0, rows)) for side in (-size, size + 1))
            if not (-0.5 <= middle[0] <= columns - 0.5 and -0.5 <= middle[1] <= rows - 0.5):
                raise SourceRejected(f"{url} does not hold the position", reason="no-data")
            header, pixels = unit.header.copy(), np.asarray(unit.section[y:top, x:right])
        return _Window(x, y, right - x, top - y, shifted(wcs, x, y)), Image("", band, "image", pixels, header)

    def _same(
        self, brick: str, what: str, kind: Kind, window: _Window, band: str, deadline: float | None
    ) -> Image | None:
        """Return the same part of another file of a brick; None where it has no such file."""
        url = self._url(brick, what)
        try:
            body = self.answers.fits(url, deadline=deadline)
        except SourceRejected as error:
            if error.reason == "missing-asset":
                return None
            raise
        with open_units(body, url) as units:
            unit = next((unit for unit in units if unit.header.get("NAXIS") == 2 and hasattr(unit, "section")), None)
            if unit is None:
                raise SourceRejected(f"{url} holds no image", reason="invalid-input")
            rows, columns = slice(window.y, window.y + window.rows), slice(window.x, window.x + window.columns)
            return Image("", band, kind, np.asarray(unit.section[rows, columns]), unit.header.copy())

    def _url(self, brick: str, what: str) -> str:
        return f"{self.where}/coadd/{brick[:3]}/{brick}/legacysurvey-{brick}-{what}.fits.fz"

    def _notes(self, window: _Window, centre: tuple[float, float], size: int, brick: str) -> list[str]:
        spans = ((centre[0], window.columns), (centre[1], window.rows))
        beyond = any(middle - size / 2.0 < -1.0 or middle + size / 2.0 > length for middle, length in spans)
        return [f"cut off at the border of brick {brick}"] if beyond else []


def _bricks_of(body: bytes, where: str) -> Bricks:
    with open_units(body, where) as units:
        table = next((unit.data for unit in units if unit.data is not None and unit.data.dtype.names), None)
        names = {} if table is None else {name.lower(): name for name in table.dtype.names}
        wanted = ("brickname", "ra1", "ra2", "dec1", "dec2")
        if table is None or any(name not in names for name in wanted):
            raise SourceRejected(f"{where} is no table of bricks: {', '.join(wanted)} are expected")
        name, *edges = (np.array(table[names[word]]) for word in wanted)
        return Bricks(name, *(np.asarray(edge, dtype=np.float64) for edge in edges))
