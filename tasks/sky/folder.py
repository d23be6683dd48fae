"""FITS files in a local folder: the images of objects, with what lies beside them."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from astropy.wcs import WCS

from storage.cutouts import Cutout
from tasks.errors import ConfigurationError, SourceRejected, SourceUnavailable
from tasks.sky.assembly import Frame, assemble
from tasks.sky.fits_images import (
    Image,
    is_sdss_frame,
    pixel_of,
    pixel_scale_arcsec,
    position_of,
    read_images,
    wcs_of,
)
from tasks.sky.folder_names import FileName, list_folder, parse_name
from tasks.sky.planes import plane_of
from tasks.sky.sdss_psf import psf_field_name, psf_widths, with_width
from tasks.sky.source_options import SourceOptions
from tasks.sky.target_columns import ColumnNames
from tasks.sky.targets import Target, TargetList, digest_of, read_targets

_EXTENSION = re.compile(r"^(?P<file>.+?)\[(?P<name>[^\]]+)\]$")
SCALE_KEY = "PIXSCALE"
"""Key of the side of a pixel, arcsec, in a header without a WCS."""
_SANE_SCALE = (1e-3, 600.0)


class FolderSource:
    """Images of a local folder.

    Parameters
    ----------
    folder : Path
    bands : tuple of str
        Empty = what each object has.

    Raises
    ------
    ConfigurationError
        No such folder, or one without FITS files.
    """

    def __init__(self, folder: Path, *, bands: tuple[str, ...] = (), options: SourceOptions | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        self.bands = bands
        self._options = options or SourceOptions()
        self._lock = threading.Lock()
        self._listing = list_folder(self.folder)

    @property
    def name(self) -> str:
        """Return the folder's name, as a folder in the warehouse may have it."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.folder.name).strip("-.") or "folder"

    def fetch(self, target: Target, *, deadline: float | None = None) -> Cutout:
        """Return an object's images, its own file and every one beside it.

        Raises
        ------
        SourceRejected
            No file of that object, one that cannot be read, no pixel scale, no band that was asked for.
        """
        files, extension = self._files_of(target)
        where = str(files[0].path) + (f"[{extension}]" if extension else "")
        images, others = self._read(files, extension)
        first = images[0]
        wcs = wcs_of(first.header)
        _check_one_grid(images, wcs, where)
        scale = self._scale(wcs, where) if wcs is not None else self._given_scale(first, where)
        placed, centre, notes = self._place(target, first, wcs)
        planes = [
            with_width(
                plane_of(
                    image,
                    others,
                    band=image.band,
                    pixel_scale_arcsec=scale,
                    zero_points=self._options.zero_points,
                    where=where,
                ),
                _widths_beside(files[0].path, image),
            )
            for image in self._named(images, where)
        ]
        return assemble(
            placed,
            planes,
            Frame(wcs, scale, centre),
            size=target.size_pixels or self._options.size_pixels,
            bands=self.bands,
            max_empty_share=self._options.max_empty_share,
            source=where,
            notes=notes,
        )

    def targets(self) -> TargetList:
        """Return every object of the folder."""
        return targets_of_folder(self.folder)

    def _read(self, files: Sequence[FileName], extension: str) -> tuple[list[Image], list[Image]]:
        """Return an object's images, and what comes with them."""
        images: list[Image] = []
        others: list[Image] = []
        for file in files:
            for image in _images_of(file.path):
                if extension and file.kind == "image" and image.name != extension:
                    continue
                named = replace(image, band=image.band or file.band)
                kind = file.kind if image.kind == "image" and file.kind != "image" else image.kind
                (images if kind == "image" else others).append(replace(named, kind=kind))  # type: ignore[arg-type]
        if extension:
            others = _of_object(others, extension)
        if not images:
            raise SourceRejected(f"{files[0].path} holds no image", reason="invalid-input")
        return images, others

    def _named(self, images: Sequence[Image], where: str) -> list[Image]:
        """Return images that all have a band: one without is in the band that was asked for."""
        without = [image for image in images if not image.band]
        if not without:
            return list(images)
        if len(images) > 1 or len(self.bands) > 1:
            raise SourceRejected(f"{where}: neither header nor file name says the band; ask for one band")
        return [replace(images[0], band=self.bands[0] if self.bands else "image")]

    def _place(
        self, target: Target, image: Image, wcs: WCS | None
    ) -> tuple[Target, tuple[float, float], tuple[str, ...]]:
        """Return the target with a position, and where it lies in the image; the image is of it, whatever the WCS says."""
        rows, columns = image.pixels.shape
        middle = ((columns - 1) / 2.0, (rows - 1) / 2.0)
        if wcs is None:
            return target, middle, ()
        if not (math.isfinite(target.ra) and math.isfinite(target.dec)):
            ra, dec = position_of(wcs, *middle)
            return replace(target, ra=ra, dec=dec), middle, ("position from the middle of the image",)
        x, y = pixel_of(wcs, target.ra, target.dec)
        if -0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5:
            return target, (x, y), ()
        return target, middle, ("by the image's WCS the target lies off the image: its middle is taken",)

    def _scale(self, wcs: WCS, where: str) -> float:
        scale = pixel_scale_arcsec(wcs)
        if not _SANE_SCALE[0] < scale < _SANE_SCALE[1]:
            raise SourceRejected(f"{where}: its header gives pixels of {scale:g} arcsec", reason="invalid-input")
        return scale

    def _given_scale(self, image: Image, where: str) -> float:
        said = image.header.get(SCALE_KEY)
        if isinstance(said, int | float) and _SANE_SCALE[0] < said < _SANE_SCALE[1]:
            return float(said)
        if self._options.pixel_scale_arcsec is None:
            raise SourceRejected(
                f"{where} has no WCS that gives its pixel scale: name it (pixel_scale_arcsec, --pixel-scale)",
                reason="invalid-input",
            )
        return self._options.pixel_scale_arcsec

    def _files_of(self, target: Target) -> tuple[list[FileName], str]:
        """Return an object's files, the image first, and the extension that it is in (empty = all)."""
        if target.file:
            match = _EXTENSION.match(target.file)
            path = self._inside(match["file"] if match else target.file)
            return self._listing.with_siblings(_main(path)), match["name"] if match else ""
        for name in dict.fromkeys((target.object_id, *target.names)):
            if found := self._by_object.get(name):
                return self._listing.with_siblings(found), ""
        with self._lock:
            extensions = self._by_extension
        for name in dict.fromkeys((target.object_id, *target.names)):
            if name in extensions:
                path, extension = extensions[name]
                return self._listing.with_siblings(_main(path)), extension
        raise SourceRejected(f"{self.folder} holds no image of {target.object_id}", reason="missing-asset")

    def _inside(self, file: str) -> Path:
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder):
            raise SourceRejected(f"{file} is not inside {self.folder}", reason="denied")
        if not path.is_file():
            raise SourceRejected(f"{path} does not exist", reason="missing-asset")
        return path

    @cached_property
    def _by_object(self) -> dict[str, FileName]:
        return self._listing.objects()

    @cached_property
    def _by_extension(self) -> dict[str, tuple[Path, str]]:
        """Return files of many objects by the names of their extensions, with and without a leading letter."""
        found: dict[str, tuple[Path, str]] = {}
        for file in self._by_object.values():
            for name in _object_extensions(file.path):
                found.setdefault(name, (file.path, name))
                found.setdefault(_number(name), (file.path, name))
        return found


def targets_of_folder(folder: Path, *, columns: ColumnNames | None = None) -> TargetList:
    """Return the objects of a folder: of its catalogue (``catalog``, ``index``, ``targets``) where it has one, else its images.

    An object's id is its file's name without band and kind, or the name of its extension. Positions are those of the
    images' middles; NaN where there is no WCS. A file that cannot be read is a target too: it is rejected when it is
    fetched, and keeps its row. `columns` are those of its table that are not to be guessed.

    Raises
    ------
    ConfigurationError
    """
    folder = folder.expanduser().resolve()
    listing = list_folder(folder)
    if listing.catalogue is not None:
        found = read_targets(listing.catalogue, merge_radius_arcsec=0.0, columns=columns)
        return replace(found, notes=(f"objects of {listing.catalogue.name}", *found.notes))
    targets = [target for name, file in listing.objects().items() for target in _targets_of(name, file)]
    if len({target.object_id for target in targets}) < len(targets):
        raise ConfigurationError(f"{folder}: two images have one name; give a list of targets with a column file")
    return TargetList(
        targets=tuple(targets),
        integer_ids=bool(targets) and all(re.fullmatch(r"[1-9]\d{0,17}", target.object_id) for target in targets),
        bad_rows=(),
        merged=(),
        rows=len(targets),
        digest=digest_of(targets),
        notes=("positions from the images",),
    )


def _widths_beside(path: Path, image: Image) -> dict[str, float]:
    """Return the widths of the point spread functions of an SDSS frame's field, where its psField lies beside it."""
    if not is_sdss_frame(image.header):
        return {}
    beside = path.with_name(psf_field_name(image.header))
    try:
        return psf_widths(beside.read_bytes(), str(beside))
    except (OSError, SourceRejected):
        return {}


def _check_one_grid(images: Sequence[Image], wcs: WCS | None, where: str) -> None:
    """Refuse images of several bands whose pixels are not of the same sky: nothing is resampled."""
    middle = ((images[0].pixels.shape[1] - 1) / 2.0, (images[0].pixels.shape[0] - 1) / 2.0)
    for image in images[1:]:
        if wcs is None or image.header is images[0].header or (other := wcs_of(image.header)) is None:
            continue
        x, y = pixel_of(other, *position_of(wcs, *middle))
        if not math.hypot(x - middle[0], y - middle[1]) < 0.5:
            raise SourceRejected(f"{where}: {image.band} lies on other pixels than {images[0].band}")


def _main(path: Path) -> FileName:
    """Return what a name says of a file that is an object's own, whatever kind its name ends in."""
    return replace(parse_name(path), kind="image")


def _images_of(path: Path) -> Sequence[Image]:
    try:
        facts = path.stat()
        return _read(path, facts.st_mtime_ns, facts.st_size)
    except (FileNotFoundError, PermissionError) as error:
        raise SourceRejected(f"{path} cannot be read: {error.strerror}", reason="missing-asset") from error
    except OSError as error:
        raise SourceUnavailable(f"{path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int) -> tuple[Image, ...]:
    """Return a file's images; a file of many objects is asked for by each of them."""
    return tuple(read_images(path.read_bytes(), str(path)))


def _object_extensions(path: Path) -> list[str]:
    """Return the extensions of a file that holds an object in each; empty for a file of one object."""
    try:
        images = _images_of(path)
    except (SourceRejected, SourceUnavailable):
        return []
    names = [image.name for image in images]
    several = len(images) > 1 and all(names) and len(set(names)) == len(names)
    return names if several and not any(image.band or image.kind != "image" for image in images) else []


def _of_object(others: Sequence[Image], extension: str) -> list[Image]:
    """Return what goes with one extension of a file of many objects: of the same number, or of every one."""
    own = [other for other in others if other.name and _number(other.name) == _number(extension)]
    return [*own, *(other for other in others if not other.name)]


def _number(name: str) -> str:
    """Return an extension's name without its leading letters: ``G12`` and ``P12`` are both 12."""
    return re.sub(r"^[A-Za-z]+(?=\d+$)", "", name)


def _targets_of(name: str, file: FileName) -> list[Target]:
    try:
        images = _images_of(file.path)
    except (SourceRejected, SourceUnavailable):
        return [Target(name, math.nan, math.nan, names=(name,), file=file.path.name)]
    if not images:
        return []
    extensions = _object_extensions(file.path)
    if not extensions:
        return [_target_of(name, images, file.path.name)]
    return [_target_of(image.name, [image], f"{file.path.name}[{image.name}]") for image in images]


def _target_of(name: str, images: Sequence[Image], file: str) -> Target:
    image = next((image for image in images if image.kind == "image"), None)
    wcs = None if image is None else wcs_of(image.header)
    ra = dec = math.nan
    if image is not None and wcs is not None:
        rows, columns = image.pixels.shape
        ra, dec = position_of(wcs, (columns - 1) / 2.0, (rows - 1) / 2.0)
    return Target(name, ra, dec, names=(name,), file=file)
