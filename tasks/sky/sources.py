"""Where cutouts come from: one small protocol, and the source that a text names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError
from tasks.sky.source_options import LARGEST_SIDE, SMALLEST_SIDE, SourceOptions
from tasks.sky.targets import Target


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
        ``sdss:RELEASE`` (frames), ``folder:PATH``, ``store:NAME`` (a sky store of the options' warehouse).
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
    if kind == "store" and where:
        from tasks.sky.stored import StoreSource

        return StoreSource(where, bands=tuple(bands), options=settings)
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
        f"{text!r} names no source: "
        "legacy[:LAYER], bricks:PATH_OR_URL, sdss[:RELEASE], folder:PATH or store:NAME is expected"
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
