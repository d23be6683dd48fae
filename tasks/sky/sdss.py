"""SDSS frames through astroquery, cut here."""

from __future__ import annotations

import math
from typing import Any

from storage.cutouts import Cutout
from tasks.errors import SourceError, SourceRejected
from tasks.sky.answers import Answers
from tasks.sky.assembly import Frame, Plane, assemble, cut
from tasks.sky.fits_images import pixel_of, pixel_scale_arcsec, read_images, wcs_of
from tasks.sky.legacy import DEFAULT_SIZE
from tasks.sky.planes import plane_of
from tasks.sky.sdss_psf import psf_field_url, psf_widths, with_width
from tasks.sky.source_options import SourceOptions
from tasks.sky.target_queries import asked, sdss_cone
from tasks.sky.targets import Target, require_position

DEFAULT_RELEASE = 17
DEFAULT_BANDS = ("g", "r", "i")
SEARCH_ARCSEC = 60.0


class SdssSource:
    """Corrected frames of the SDSS, in nanomaggies, with the inverse variance that their calibration gives.

    The field is that of the photometric object nearest to the target; what lies beyond the frame is not valid. The
    frames of one field have a grid for each band: each is cut about the target to the nearest pixel, none is resampled,
    and the WCS is the first band's.

    Parameters
    ----------
    release : int
    """

    def __init__(
        self, release: int = DEFAULT_RELEASE, *, bands: tuple[str, ...] = (), options: SourceOptions | None = None
    ) -> None:
        self.release = release
        self.bands = bands or DEFAULT_BANDS
        self._options = options or SourceOptions()
        self.answers = Answers(self._options.limits, cache=self._options.cache)

    @property
    def name(self) -> str:
        """Return ``sdss-dr`` and the release."""
        return f"sdss-dr{self.release}"

    def fetch(self, target: Target, *, deadline: float | None = None) -> Cutout:
        """Return a target's cutout.

        Raises
        ------
        SourceRejected
            With reason ``no-data`` where the survey has no object within an arcminute, or no frame of the place.
        SourceUnavailable
        """
        require_position(target)
        urls = self.frames_of(target, deadline=deadline)
        size = target.size_pixels or self._options.size_pixels or DEFAULT_SIZE
        found = [self._plane(url, target, size, deadline) for url in urls.values()]
        (_, frame), offsets = found[0], [abs(offset) for _, frame in found for offset in _offsets(frame, size)]
        widths, notes = self._psf_widths(next(iter(urls.values())), deadline)
        if len(found) > 1:
            notes.append(f"each band is cut to the nearest pixel: off by up to {max(offsets):.2f}")
        return assemble(
            target,
            [with_width(plane, widths) for plane, _ in found],
            frame,
            size=None,
            bands=self.bands,
            max_empty_share=self._options.max_empty_share,
            source=next(iter(urls.values())),
            empty_reason="no-data",
            notes=notes,
        )

    def frames_of(self, target: Target, *, deadline: float | None = None) -> dict[str, str]:
        """Return the URLs of the frames of a target's field, by band.

        Raises
        ------
        SourceRejected, SourceUnavailable
        """
        from astroquery.sdss import SDSS, conf

        query = sdss_cone(target.ra, target.dec, radius_arcsec=SEARCH_ARCSEC)
        table = asked(
            lambda: SDSS.query_sql_async(query, data_release=self.release, cache=False),
            SDSS._parse_result,
            service="sdss",
            url=conf.skyserver_baseurl,
            limits=self._options.limits,
            deadline=deadline,
        )
        if table is None or not len(table):
            raise SourceRejected(f"{self.name} has no object within {SEARCH_ARCSEC:g} arcsec", reason="no-data")
        nearest = table[[_nearest(table, target)]]
        files = SDSS.get_images_async(
            matches=nearest, band=list(self.bands), data_release=self.release, cache=False, show_progress=False
        )
        return {band: str(file._target) for band, file in zip(self.bands, files, strict=True)}

    def _psf_widths(self, frame: str, deadline: float | None) -> tuple[dict[str, float], list[str]]:
        """Return the widths of the field's point spread functions, by band, and what to say where there are none."""
        url = psf_field_url(frame)
        if not self._options.psf or not url:
            return {}, []
        try:
            return psf_widths(self.answers.fits(url, deadline=deadline), url), []
        except SourceError as error:
            return {}, [f"no point spread function ({error.reason})"]

    def _plane(self, url: str, target: Target, size: int, deadline: float | None) -> tuple[Plane, Frame]:
        """Return a frame's square about a target, and where it lies."""
        try:
            images = read_images(self.answers.fits(url, deadline=deadline), url)
        except SourceRejected as error:
            if error.reason == "missing-asset":
                raise SourceRejected(f"{url} does not exist", reason="no-data") from error
            raise
        image = images[0]
        wcs = wcs_of(image.header)
        if wcs is None:
            raise SourceRejected(f"{url} has no WCS", reason="invalid-input")
        scale, (x, y) = pixel_scale_arcsec(wcs), pixel_of(wcs, target.ra, target.dec)
        rows, columns = image.pixels.shape
        if not (-0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5):
            raise SourceRejected(f"{url} does not hold the position", reason="no-data")
        whole = plane_of(
            image, images[1:], band=image.band, pixel_scale_arcsec=scale, zero_points={}, where=url, viewer=True
        )
        (plane,), wcs = cut([whole], Frame(wcs, scale, (x, y)), size)
        return plane, Frame(wcs, scale, pixel_of(wcs, target.ra, target.dec))


def _nearest(table: Any, target: Target) -> int:
    shrink = math.cos(math.radians(target.dec))
    east = [((float(ra) - target.ra + 180.0) % 360.0 - 180.0) * shrink for ra in table["ra"]]
    north = [float(dec) - target.dec for dec in table["dec"]]
    away = [math.hypot(*offset) for offset in zip(east, north, strict=True)]
    return away.index(min(away))


def _offsets(frame: Frame, size: int) -> tuple[float, float]:
    middle = (size - 1) / 2.0
    return frame.centre[0] - middle, frame.centre[1] - middle
