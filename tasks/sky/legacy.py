"""Cutouts of the Legacy Survey viewer, and its answers as they come."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlencode

from astropy.wcs import WCS

from storage.cutouts import Cutout
from tasks.errors import SourceError, SourceRejected, SourceUnavailable
from tasks.limits import without_secrets
from tasks.ranges import HttpFile
from tasks.sky.answers import Answers
from tasks.sky.assembly import Frame, Plane, assemble, psf_facts
from tasks.sky.fits_images import Image, open_units, pixel_of, pixel_scale_arcsec, read_images, wcs_of
from tasks.sky.planes import plane_of
from tasks.sky.source_options import SourceOptions
from tasks.sky.targets import Target, require_position

DEFAULT_LAYER = "ls-dr10"
DEFAULT_BANDS = ("g", "r", "z")
DEFAULT_SIZE = 256
LARGEST_SIZE = 3000
NATIVE_SCALE_ARCSEC = 0.262


class LegacySource:
    """The viewer's ``fits-cutout``.

    Without a pixel scale the native pixels are asked for (``subimage``): pieces of the survey's bricks, with inverse
    variance. A position near a border has pieces of several bricks, whose grids differ: the one with most of the
    cutout is taken, and what it lacks is not valid. With a pixel scale the viewer resamples and joins bricks, and gives
    inverse variance and mask bits; neighbouring pixels are then correlated.

    Parameters
    ----------
    layer : str
        Such as ``ls-dr10``, ``ls-dr9``, ``sdss``.
    """

    def __init__(
        self, layer: str = DEFAULT_LAYER, *, bands: tuple[str, ...] = (), options: SourceOptions | None = None
    ) -> None:
        self.layer = layer
        self.bands = bands or DEFAULT_BANDS
        self._options = options or SourceOptions()
        self.answers = Answers(self._options.limits, cache=self._options.cache)

    @property
    def name(self) -> str:
        """Return the layer."""
        return self.layer

    def fetch(self, target: Target, *, deadline: float | None = None) -> Cutout:
        """Return a target's cutout.

        Raises
        ------
        SourceRejected
            With reason ``no-data`` outside the footprint.
        SourceUnavailable
        """
        require_position(target)
        size = target.size_pixels or self._options.size_pixels or DEFAULT_SIZE
        if size > LARGEST_SIZE:
            raise SourceRejected(f"a cutout of {size} pixels: the viewer gives {LARGEST_SIZE} at most")
        url = self.url_of(target, size)
        where = f"{without_secrets(url)} ({self.layer})"
        images = read_images(self._answer(url, target, deadline), where)
        scale_asked = self._options.pixel_scale_arcsec
        images, notes = _most_of(target, images, size) if scale_asked is None else (images, [])
        first = next((image for image in images if image.kind == "image"), None)
        wcs = None if first is None else wcs_of(first.header)
        if first is None or wcs is None:
            raise SourceRejected(f"{where} has no image there", reason="no-data")
        scale = pixel_scale_arcsec(wcs)
        if scale_asked is not None and abs(scale / scale_asked - 1.0) > 0.01:
            notes.append(f"{scale_asked:g} arcsec per pixel were asked for, the header says {scale:.4g}")
        planes, psf_notes = self._with_psf(_planes(images, scale, where), target, scale, deadline)
        return assemble(
            target,
            planes,
            Frame(wcs, scale, _centre(target, first, wcs, where)),
            size=None if first.pixels.shape == (size, size) else size,
            bands=self.bands,
            max_empty_share=self._options.max_empty_share,
            source=where,
            empty_reason="no-data",
            notes=[*notes, *psf_notes],
        )

    def url_of(self, target: Target, size: int) -> str:
        """Return the request for a target's cutout."""
        scale = self._options.pixel_scale_arcsec
        asked = {"size": size} | ({} if scale is None else {"pixscale": f"{scale:g}"})
        flags = "&subimage" if scale is None else "&invvar&maskbits"
        return f"{self._options.url}/fits-cutout?{self._query(target, **asked)}{flags}"

    def _query(self, target: Target, **asked: object) -> str:
        place = {"ra": f"{target.ra:.7f}", "dec": f"{target.dec:.7f}", "layer": self.layer}
        return urlencode({**place, "bands": "".join(self.bands), **asked})

    def _answer(self, url: str, target: Target, deadline: float | None) -> bytes:
        try:
            return self.answers.fits(url, deadline=deadline)
        except SourceUnavailable as error:
            # Where no brick overlaps, the viewer fails with status 500; its picture of the place is black then.
            if "HTTP status 500" in str(error) and self._is_black(target, deadline):
                raise SourceRejected(f"{self.layer} has no image there", reason="no-data") from error
            raise

    def _is_black(self, target: Target, deadline: float | None) -> bool:
        """Return whether the viewer's picture of a place shows nothing."""
        from PIL import Image as Picture
        from PIL import UnidentifiedImageError

        url = f"{self._options.url}/jpeg-cutout?{self._query(target, size=32)}"
        limits = replace(self._options.limits, attempts=2)
        try:
            body = HttpFile(url, limits, deadline=deadline, count=self.answers.count).fetch_whole()
            lowest, highest = Picture.open(io.BytesIO(body)).convert("L").getextrema()
        except (SourceError, UnidentifiedImageError, OSError):
            return False
        return bool(lowest == highest)

    def _with_psf(
        self, planes: list[Plane], target: Target, scale: float, deadline: float | None
    ) -> tuple[list[Plane], list[str]]:
        """Return planes that know their point spread function, which is on native pixels."""
        if not self._options.psf:
            return planes, []
        url = f"{self._options.url}/coadd-psf/?{self._query(target)}"
        try:
            images = _named_planes(self.answers.fits(url, deadline=deadline), url)
        except SourceError as error:
            return planes, [f"no point spread function ({error.reason})"]
        return [_give_psf(plane, images.get(plane.facts.name), scale) for plane in planes], []


def _named_planes(body: bytes, url: str) -> dict[str, Image]:
    where = without_secrets(url)
    with open_units(body, where) as units:
        planes = [(str(unit.header.get("BAND", "")).strip(), unit) for unit in units if unit.data is not None]
        return {band: Image("", band, "psf", unit.data, unit.header) for band, unit in planes if unit.data.ndim == 2}


def _give_psf(plane: Plane, psf: Image | None, scale: float) -> Plane:
    if psf is None:
        return plane
    facts = psf_facts(plane.facts, psf.pixels, pixel_scale_arcsec=NATIVE_SCALE_ARCSEC)
    if abs(scale / NATIVE_SCALE_ARCSEC - 1.0) > 0.01:
        facts = replace(facts, psf=None)  # its width holds, its pixels are not the cutout's
    return replace(plane, facts=facts)


def _planes(images: Sequence[Image], scale: float, where: str) -> list[Plane]:
    others = [image for image in images if image.kind != "image"]
    return [
        plane_of(
            image,
            others,
            band=image.band,
            pixel_scale_arcsec=scale,
            zero_points={},
            where=where,
            viewer=True,
            mask_is_bad=False,
        )
        for image in images
        if image.kind == "image"
    ]


def _most_of(target: Target, images: Sequence[Image], size: int) -> tuple[list[Image], list[str]]:
    """Return the pieces of the brick that has most of the cutout."""
    bricks: dict[str, list[Image]] = {}
    for image in images:
        bricks.setdefault(str(image.header.get("BRICK", "")), []).append(image)
    if len(bricks) < 2:
        return list(images), []
    name = max(bricks, key=lambda name: (_pixels_within(target, bricks[name][0], size), name))
    return bricks[name], [f"brick {name}, of {len(bricks)} that overlap"]


def _pixels_within(target: Target, image: Image, size: int) -> float:
    wcs = wcs_of(image.header)
    if wcs is None:
        return 0.0
    spans = [
        min(middle + size / 2.0, length - 0.5) - max(middle - size / 2.0, -0.5)
        for middle, length in zip(pixel_of(wcs, target.ra, target.dec), image.pixels.shape[::-1], strict=True)
    ]
    return max(0.0, spans[0]) * max(0.0, spans[1]) if all(map(math.isfinite, spans)) else 0.0


def _centre(target: Target, image: Image, wcs: WCS, where: str) -> tuple[float, float]:
    x, y = pixel_of(wcs, target.ra, target.dec)
    rows, columns = image.pixels.shape
    if not (-0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5):
        raise SourceRejected(f"{where} gave an image that does not hold the position", reason="no-data")
    return x, y
