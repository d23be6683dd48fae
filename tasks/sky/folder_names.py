"""What the names of the files in a folder say.

A file's name is ``<object>[_<band>][_<kind>].fits``, as far as it says so: ``ngc3073_r.fits`` with
``ngc3073_r_mask.fits``, ``a2744_f105w.fits`` with ``a2744_f105w_rms.fits``. Kinds are ivar (invvar, weight), rms (err),
var, mask and psf. Files of one object in several bands make one cutout. A file may hold several planes of one object
(BANDS, BAND, EXTNAME, IMAGETYP say which), or an object in each of its extensions, named after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.errors import ConfigurationError
from tasks.sky.fits_images import KINDS, plain_band

_SUFFIX = re.compile(r"\.(fits|fit|fts)(\.(gz|bz2|fz))?$", re.IGNORECASE)
_BANDS = re.compile(r"[ugrizyUBVRIJHKY]|Ks|w[1-4]|W[1-4]|fuv|nuv|FUV|NUV|[fF]\d{3,4}[wWmMnNlLpPxX]{1,2}")
_CATALOGUE = re.compile(r"(catalog|catalogue|index|targets|objects)\.(parquet|csv|vot|xml|fits|ecsv)$", re.IGNORECASE)


@dataclass(frozen=True)
class FileName:
    """What a file's name says."""

    path: Path
    base: str
    band: str
    kind: str


def parse_name(path: Path) -> FileName:
    """Return what a file's name says of object, band and kind.

    Examples
    --------
    >>> name = parse_name(Path("ngc3073_r_mask.fits"))
    >>> name.base, name.band, name.kind
    ('ngc3073', 'r', 'mask')
    """
    words = _SUFFIX.sub("", path.name).split("_")
    kind, band = "image", ""
    if words[-1].lower() in KINDS:
        kind = KINDS[words.pop().lower()]
    if len(words) > 1 and words[-1].lower() in ("img", "image"):
        words.pop()
    if words and _BANDS.fullmatch(words[-1]):
        band = plain_band(words.pop())
    return FileName(path, "_".join(words), band, kind)


@dataclass(frozen=True)
class Listing:
    """The FITS files of a folder by what their names say.

    Parameters
    ----------
    names : tuple of FileName
    by_base : mapping
        Files by their object.
    shared : tuple of FileName
        Point spread functions of no one object: of every image whose name has the words of theirs.
    catalogue : Path, optional
        The folder's own table of objects.
    """

    names: tuple[FileName, ...]
    by_base: Mapping[str, Sequence[FileName]]
    shared: tuple[FileName, ...]
    catalogue: Path | None

    def objects(self) -> dict[str, FileName]:
        """Return each object's image file by its id; of one in several bands, the first.

        What goes with no image is one itself: ``x_img_ivar.fits`` alone holds both.
        """
        objects: dict[str, FileName] = {}
        for name in self.names:
            if name.kind == "psf" or (name.kind != "image" and self._goes_with_an_image(name)):
                continue
            image, stem = replace(name, kind="image"), _SUFFIX.sub("", name.path.name)
            first = objects.get(name.base)
            if first is None and name.base:
                objects[name.base] = image
            elif first is None or not (name.band and first.band and name.band != first.band):
                objects[stem if stem not in objects else name.path.name] = image
        return objects

    def with_siblings(self, main: FileName) -> list[FileName]:
        """Return an image's file, the same object's in other bands, and variances, masks and PSFs of these."""
        same = [name for name in self.by_base.get(main.base, ()) if name.path != main.path]
        bands = {main.band: main}
        for name in same:
            if main.band and name.kind == "image" and name.band:
                bands.setdefault(name.band, name)
        beside = [name for name in (*same, *self.shared) if name.kind != "image" and name.path != main.path]
        return [*bands.values(), *(name for name in beside if any(_goes_with(name, band) for band in bands.values()))]

    def _goes_with_an_image(self, name: FileName) -> bool:
        return any(other.kind == "image" and _goes_with(name, other) for other in self.by_base[name.base])


def list_folder(folder: Path) -> Listing:
    """Return what the names of a folder's FITS files say.

    Raises
    ------
    ConfigurationError
        No such folder, or no FITS files in it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder")
    paths = sorted(folder.iterdir())
    tables = [path for path in paths if _CATALOGUE.match(path.name)]
    names = [parse_name(path) for path in paths if _SUFFIX.search(path.name) and path not in tables]
    if not names:
        raise ConfigurationError(f"{folder} holds no FITS files")
    by_base: dict[str, list[FileName]] = {}
    for name in names:
        by_base.setdefault(name.base, []).append(name)
    images = {name.base for name in names if name.kind == "image"}
    shared = tuple(name for name in names if name.kind == "psf" and name.base not in images)
    return Listing(tuple(names), by_base, shared, tables[0] if tables else None)


def _goes_with(other: FileName, image: FileName) -> bool:
    """Return whether a variance, mask or PSF belongs to an image: of its name and band, a PSF also of part of its name."""
    if other.band and image.band and other.band != image.band:
        return False
    if other.kind == "psf":
        return set(filter(None, other.base.split("_"))) <= set(image.base.split("_"))
    return other.base == image.base
