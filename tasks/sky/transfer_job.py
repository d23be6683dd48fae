"""Pictures and FITS images made the survey's, and series of images from one to another: files in, FITS and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from models.samplers import OnStep
from storage.cutouts import BandFacts, Cutout
from storage.manifest import content_hash
from tasks.errors import SourceRejected
from tasks.sky.cutout_files import read_cutout, write_cutout
from tasks.sky.diffusion_jobs import ModelConfig, SamplingRule, Weights
from tasks.sky.folder_names import parse_name
from tasks.sky.gallery import gallery_picture
from tasks.sky.inpainting import band_order
from tasks.sky.inpainting_job import DIGEST, FilledImage, file_sha256
from tasks.sky.pictures import DEFAULT_MAGNITUDE, is_picture, read_picture
from tasks.sky.prepare import read_wcs
from tasks.sky.resampling import PixelGrids
from tasks.sky.transfer import Mixing, TransferRule, interpolate, transfer

_LEAST_KNOWN = 0.5


@dataclass(frozen=True)
class ReadingRule:
    """How files become flux on a model's pixels.

    Parameters
    ----------
    magnitude : float
        Of a picture, total, AB, in the middle band.
    pixel_scale_arcsec : float, optional
        Of FITS files without a WCS.
    zero_points : mapping of str to float
        AB magnitude of one unit, by band or ``*``, where headers do not say.
    """

    magnitude: float = DEFAULT_MAGNITUDE
    pixel_scale_arcsec: float | None = None
    zero_points: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TransferRequest:
    """Which images are to be made the survey's, where, and how.

    Parameters
    ----------
    images : tuple of str
        FITS files, or pictures.
    out : str
        Folder.
    weights : Weights
    rule : TransferRule
    reading : ReadingRule
    device : str, optional
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    """

    images: tuple[str, ...]
    out: str
    weights: Weights
    rule: TransferRule = field(default_factory=TransferRule)
    reading: ReadingRule = field(default_factory=ReadingRule)
    device: str | None = None
    kind: ClassVar[str] = "transfer"

    def work(self, image: str, *, on_step: OnStep | None = None) -> FilledImage:
        """Make one image the survey's: see `transfer_image`."""
        return transfer_image(self, image, on_step=on_step)

    def result(self, image: str) -> Path:
        """Return the file of a result."""
        return Path(self.out).expanduser() / f"{_stem(Path(image))}.fits"

    def digest(self, image: str) -> str:
        """Return a digest of everything that decides the result for an image."""
        asked = {"rule": asdict(self.rule), "reading": asdict(self.reading), "model": self.weights.sha256}
        return content_hash({**asked, "file": file_sha256(Path(image).expanduser()), "canopus": version("canopus")})[
            :32
        ]

    def is_done(self, image: str) -> bool:
        """Return whether the result of an image is there, of the same image, model and rule."""
        path = self.result(image)
        return path.is_file() and str(fits.getheader(path).get(DIGEST, "")) == self.digest(image)


@dataclass(frozen=True)
class InterpolateRequest:
    """Which two images, how many between them, and how.

    Parameters
    ----------
    first, last : str
        FITS files, or pictures.
    out : str
        Folder.
    weights : Weights
    frames : int
        The ends among them.
    strength : float
        Above 0, at most 1.
    mixing : str
        ``spherical`` or ``linear``.
    sampling : SamplingRule
    seed : int
    reading : ReadingRule
    device : str, optional
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    """

    first: str
    last: str
    out: str
    weights: Weights
    frames: int = 7
    strength: float = 0.4
    mixing: Mixing = "spherical"
    sampling: SamplingRule = field(default_factory=SamplingRule)
    seed: int = 0
    reading: ReadingRule = field(default_factory=ReadingRule)
    device: str | None = None


def read_for(path: Path, config: ModelConfig, reading: ReadingRule) -> Cutout:
    """Return a file's image on a model's pixels, in its bands, in nanomaggies.

    A FITS image keeps its WCS. What lies beyond its edge, and what is not valid, is 0.

    Raises
    ------
    ConfigurationError
        No such file.
    SourceRejected
        What cannot be read, has other bands or no zero point.
    """
    if is_picture(path):
        return _cutout(_stem(path), read_picture(path, config, magnitude=reading.magnitude), config, source=str(path))
    cutout = read_cutout(path, pixel_scale_arcsec=reading.pixel_scale_arcsec, zero_points=reading.zero_points)
    order = band_order(config, cutout)
    grids = PixelGrids.around(
        cutout.shape,
        scale_arcsec=cutout.pixel_scale_arcsec,
        model_scale_arcsec=config.pixel_scale_arcsec,
        least=config.pixels,
    )
    unit = np.array([cutout.nanomaggies_per_unit(band) for band in order])[:, None, None]
    coarse, share = grids.to_model(cutout.flux[order].astype(np.float64) * unit, cutout.valid[order])
    known = share >= _LEAST_KNOWN
    if not known.any():
        raise SourceRejected(f"{path}: nothing valid is left on pixels of {config.pixel_scale_arcsec:g} arcsec")
    made = _cutout(_stem(path), np.where(known, coarse, 0.0), config, source=str(path))
    wcs = read_wcs(cutout.wcs)
    return (
        made
        if wcs is None
        else replace(made, wcs=grids.model_wcs(wcs).to_header_string(), ra=cutout.ra, dec=cutout.dec)
    )


def transfer_image(request: TransferRequest, image: str, *, on_step: OnStep | None = None) -> FilledImage:
    """Make one image the survey's, and write FITS and picture; one that is done is left as it is.

    Raises
    ------
    ConfigurationError, SourceRejected
        As `read_for`.
    """
    path = request.result(image)
    picture = path.with_suffix(".png")
    if request.is_done(image):
        return FilledImage(image, "held", result=str(path), picture=str(picture))
    model, device = request.weights.open(request.device)
    before = read_for(Path(image).expanduser(), model.config, request.reading)
    flux = transfer(model, before.flux.astype(np.float64), rule=request.rule, device=device, on_step=on_step)
    words = (
        f"made from {Path(image).name} at strength {request.rule.strength:g}; total flux times {_ratios(before, flux)}"
    )
    after = replace(before, flux=flux.astype(np.float32), valid=np.ones(flux.shape, dtype=bool), notes=(words,))
    cards = {
        DIGEST: request.digest(image),
        "MODEL": request.weights.model,
        "SEED": request.rule.seed,
        "STRENGTH": request.rule.strength,
    }
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(gallery_picture([before, after], titles=["before", f"strength {request.rule.strength:g}"]))
    write_cutout(path, after, cards=cards)
    return FilledImage(image, "made", int(flux.size), str(path), str(picture), message=words)


@dataclass(frozen=True)
class Interpolated:
    """A series of images from one to another: its FITS files and its picture."""

    files: tuple[str, ...]
    picture: str


def interpolate_images(request: InterpolateRequest, *, on_step: OnStep | None = None) -> Interpolated:
    """Write the series from one image to another.

    Raises
    ------
    ConfigurationError, SourceRejected
        As `read_for`; images of different sizes.
    """
    model, device = request.weights.open(request.device)
    ends = [
        read_for(Path(image).expanduser(), model.config, request.reading) for image in (request.first, request.last)
    ]
    made = interpolate(
        model,
        ends[0].flux.astype(np.float64),
        ends[1].flux.astype(np.float64),
        frames=request.frames,
        strength=request.strength,
        mixing=request.mixing,
        sampling=request.sampling,
        seed=request.seed,
        device=device,
        on_step=on_step,
    )
    folder = Path(request.out).expanduser()
    paths, frames = [], []
    for number, flux in enumerate(made):
        share = number / (request.frames - 1)
        frame = _cutout(f"frame-{number:03d}", flux, model.config, source=f"{ends[0].object_id} to {ends[1].object_id}")
        cards = {"MODEL": request.weights.model, "SEED": request.seed, "STRENGTH": request.strength, "SHARE": share}
        path = folder / f"{frame.object_id}.fits"
        write_cutout(path, frame, cards=cards)
        paths.append(str(path))
        frames.append(frame)
    picture = folder / "interpolation.png"
    titles = [f"{number / (request.frames - 1):.2f}" for number in range(request.frames)]
    picture.write_bytes(gallery_picture([ends[0], *frames, ends[1]], titles=["first", *titles, "last"]))
    return Interpolated(tuple(paths), str(picture))


def _ratios(before: Cutout, flux: NDArray[np.float64]) -> str:
    """Return by what each band's total flux changed, in words."""
    totals = before.flux.sum(axis=(1, 2), dtype=np.float64)
    ratios = flux.sum(axis=(1, 2)) / np.where(totals > 0, totals, np.nan)
    return ", ".join(f"{ratio:.3f} ({name})" for name, ratio in zip(before.band_names, ratios, strict=True))


def _cutout(name: str, flux: NDArray[np.float64], config: ModelConfig, *, source: str) -> Cutout:
    nothing = np.zeros(flux.shape, dtype=np.float32)
    return Cutout(
        object_id=name,
        ra=float("nan"),
        dec=float("nan"),
        bands=tuple(BandFacts(band) for band in config.bands),
        flux=flux.astype(np.float32),
        valid=np.ones(flux.shape, dtype=bool),
        ivar=nothing,
        maskbits=nothing.astype(np.int32),
        segmentation=nothing[0].astype(np.int32),
        wcs="",
        pixel_scale_arcsec=config.pixel_scale_arcsec,
        source=source,
    )


def _stem(path: Path) -> str:
    return path.stem if is_picture(path) else parse_name(path).base
