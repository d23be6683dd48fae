"""Where cutouts come from: one small protocol, and the source that a text names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError
from tasks.limits import HttpLimits
from tasks.sky.targets import Target

VIEWER_URL = "https://www.legacysurvey.org/viewer"
VIEWER_LIMITS = HttpLimits(concurrent=4, requests_per_s=4.0)
EVERY_BAND = "*"
SMALLEST_SIDE, LARGEST_SIDE = 16, 20_000
"""Pixels a side of a cutout: in fewer neither the sky nor an ellipse can be told."""


@dataclass(frozen=True)
class SourceOptions:
    """What may be asked of a source; each takes what concerns it.

    Parameters
    ----------
    size_pixels : int, optional
        Side of a cutout; a target's own size goes before it. None = 256 for a survey, the whole image for a folder.
    pixel_scale_arcsec : float, optional
        For a folder: the side of a pixel where a header does not give it. For the viewer: the scale to resample to
        (None = native pixels, cut from the survey's bricks).
    zero_points : mapping of str to float
        AB magnitude of one count, by band, ``*`` for every one, where a header does not give it.
    max_empty_share : float
        An image with more of its pixels empty than this is rejected.
    cache : Path, optional
        Folder for the services' raw answers; None = ``~/.cache/canopus/sky``, or ``$XDG_CACHE_HOME``'s.
    url : str
        The viewer's, without ``fits-cutout``.
    psf : bool
        Whether to ask for the point spread function where it is a request of its own.
    limits : HttpLimits
    """

    size_pixels: int | None = None
    pixel_scale_arcsec: float | None = None
    zero_points: Mapping[str, float] = field(default_factory=dict)
    max_empty_share: float = 0.4
    cache: Path | None = None
    url: str = VIEWER_URL
    psf: bool = True
    limits: HttpLimits = VIEWER_LIMITS


class CutoutSource(Protocol):
    """Gives raw cutouts: no segmentation, and no variance where the survey gives none."""

    @property
    def name(self) -> str:
        """Return the survey's name: its folder under ``sky/``."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Return the bands of each cutout; empty = those that an image has."""

    def fetch(self, target: Target, *, deadline: float | None = None) -> Cutout:
        """Return a target's images; `deadline` is a value of ``time.monotonic()``.

        Raises
        ------
        SourceRejected
            With reason ``no-data`` outside the footprint.
        SourceUnavailable
        """


def open_source(text: str, *, bands: Sequence[str] = (), options: SourceOptions | None = None) -> CutoutSource:
    """Return the source that a text names.

    Parameters
    ----------
    text : str
        ``legacy`` or ``legacy:LAYER`` (the viewer), ``bricks:PATH_OR_URL`` (a release's own files), ``sdss`` or
        ``sdss:RELEASE`` (frames), ``folder:PATH``.
    bands : sequence of str
        Empty = g, r, z (g, r, i for SDSS), or what a folder's images have.

    Raises
    ------
    ConfigurationError
    """
    kind, _, where = text.partition(":")
    settings = options or SourceOptions()
    _check(settings, bands)
    if kind == "folder" and where:
        from tasks.sky.folder import FolderSource

        return FolderSource(Path(where), bands=tuple(bands), options=settings)
    if kind == "legacy":
        from tasks.sky.legacy import DEFAULT_LAYER, LegacySource

        return LegacySource(where or DEFAULT_LAYER, bands=tuple(bands), options=settings)
    if kind == "bricks" and where:
        from tasks.sky.bricks import BrickSource

        return BrickSource(where, bands=tuple(bands), options=settings)
    if kind == "sdss" and re.fullmatch(r"(dr)?\d*", where):
        from tasks.sky.sdss import DEFAULT_RELEASE, SdssSource

        release = int(where.removeprefix("dr") or DEFAULT_RELEASE)
        return SdssSource(release, bands=tuple(bands), options=settings)
    raise ConfigurationError(
        f"{text!r} names no source: legacy[:LAYER], bricks:PATH_OR_URL, sdss[:RELEASE] or folder:PATH is expected"
    )


def _check(options: SourceOptions, bands: Sequence[str]) -> None:
    if len(set(bands)) < len(bands):
        raise ConfigurationError(f"bands {', '.join(bands)}: each once is expected")
    if options.size_pixels is not None and not SMALLEST_SIDE <= options.size_pixels <= LARGEST_SIDE:
        raise ConfigurationError(
            f"a size of {options.size_pixels} pixels: {SMALLEST_SIDE} to {LARGEST_SIDE} is expected"
        )
    if options.pixel_scale_arcsec is not None and not options.pixel_scale_arcsec > 0:
        raise ConfigurationError(f"a pixel scale of {options.pixel_scale_arcsec} arcsec: above 0 is expected")
    if not 0 <= options.max_empty_share <= 1:
        raise ConfigurationError(f"a share of empty pixels of {options.max_empty_share}: 0 to 1 is expected")
