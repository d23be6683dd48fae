"""What may be asked of a source of cutouts, and within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.limits import HttpLimits

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
    warehouse : str
        URL, whose sky stores are sources too.
    """

    size_pixels: int | None = None
    pixel_scale_arcsec: float | None = None
    zero_points: Mapping[str, float] = field(default_factory=dict)
    max_empty_share: float = 0.4
    cache: Path | None = None
    url: str = VIEWER_URL
    psf: bool = True
    limits: HttpLimits = VIEWER_LIMITS
    warehouse: str = ""
