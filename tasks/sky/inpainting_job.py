"""Images in files with their holes filled: FITS in, FITS out, a picture of each. What is done already is not done again.

``OUT/NAME.fits`` is the image with one draw in its holes, ``OUT/draws/NAME.fits`` has MEAN, SPREAD, MASK and, where wanted, DRAWS,
``OUT/NAME.png`` shows image, filling and mean. Headers hold the digest of image, mask, model and rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from astropy.io import fits

from models.samplers import OnStep
from storage.cutouts import Cutout
from storage.manifest import content_hash
from tasks.errors import ConfigurationError, UsageError
from tasks.sky.cutout_files import read_cutout, write_cutout, write_planes
from tasks.sky.diffusion_jobs import Weights
from tasks.sky.fill_masks import WORDS, fill_mask
from tasks.sky.folder_names import parse_name
from tasks.sky.gallery import gallery_picture
from tasks.sky.inpainting import Inpainted, InpaintRule, inpaint

DIGEST = "CANOPUS"
"""Header key of the digest of everything that decides a result."""
DRAWS = "draws"
Progress = Callable[[str, int, int, str], None]
"""Called with what is worked on, parts done, parts in all, and a few words."""


@dataclass(frozen=True)
class InpaintRequest:
    """Which images are to be filled, where, and how.

    Parameters
    ----------
    images : tuple of str
        FITS files.
    out : str
        Folder.
    weights : Weights
    mask : tuple of str
        Of `tasks.sky.fill_masks.WORDS`, or FITS files.
    mask_bits : tuple of int
        Of the survey's mask; empty = every one.
    rule : InpaintRule
    all_draws : bool
        Whether every draw is kept.
    pixel_scale_arcsec : float, optional
        Of files without a WCS.
    zero_points : mapping of str to float
        AB magnitude of one unit, by band or ``*``, where headers do not say.
    device : str, optional
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    """

    images: tuple[str, ...]
    out: str
    weights: Weights
    mask: tuple[str, ...] = ("trails",)
    mask_bits: tuple[int, ...] = ()
    rule: InpaintRule = field(default_factory=InpaintRule)
    all_draws: bool = False
    pixel_scale_arcsec: float | None = None
    zero_points: Mapping[str, float] = field(default_factory=dict)
    device: str | None = None
    kind: ClassVar[str] = "inpaint"

    def work(self, image: str, *, on_step: OnStep | None = None) -> FilledImage:
        """Fill one image: see `fill_image`."""
        return fill_image(self, image, on_step=on_step)

    @property
    def folder(self) -> Path:
        """Return where results go."""
        return Path(self.out).expanduser()

    def result(self, image: str) -> Path:
        """Return the file of a filled image."""
        return self.folder / f"{parse_name(Path(image)).base}.fits"

    def digest(self, image: str) -> str:
        """Return a digest of everything that decides the result for an image."""
        free = ("images", "out", "device", "weights")
        asked = {name: value for name, value in asdict(self).items() if name not in free}
        files = [file_sha256(path) for word in (image, *self.mask) if (path := Path(word).expanduser()).is_file()]
        content = {"asked": asked, "model": self.weights.sha256, "files": files, "canopus": version("canopus")}
        return content_hash(content)[:32]

    def is_done(self, image: str) -> bool:
        """Return whether the result of an image is there, of the same image, mask, model and rule."""
        path = self.result(image)
        if not (path.is_file() and (self.folder / DRAWS / path.name).is_file()):
            return False
        try:
            return str(fits.getheader(path).get(DIGEST, "")) == self.digest(image)
        except OSError:
            return False


def check_images(images: tuple[str, ...], out: str) -> None:
    """Refuse images that are not there, of which two would have one result, and results in the place of images.

    Raises
    ------
    ConfigurationError, UsageError
    """
    if missing := [image for image in images if not Path(image).expanduser().is_file()]:
        raise ConfigurationError(f"{', '.join(missing)}: there is no such file")
    names = [parse_name(Path(image)).base for image in images]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two images are called {', '.join(twice)}: give each its own --out")
    folder = Path(out).expanduser().resolve()
    if inside := [image for image in images if Path(image).expanduser().resolve().parent == folder]:
        raise UsageError(f"--out {out} holds {inside[0]} itself: name another folder, for no image is overwritten")


@dataclass(frozen=True)
class FilledImage:
    """What became of an image.

    Parameters
    ----------
    image : str
        Its file.
    state : str
        ``filled``, ``held`` (was filled before), ``whole`` (nothing in it is to be filled), or ``failed``.
    pixels : int
        That were filled.
    result, picture : str
        Files; empty = none.
    reason, message : str
        Why it failed.
    """

    image: str
    state: str
    pixels: int = 0
    result: str = ""
    picture: str = ""
    reason: str = ""
    message: str = ""


def fill_image(request: InpaintRequest, image: str, *, on_step: OnStep | None = None) -> FilledImage:
    """Fill one image and write its results; one that is done is left as it is.

    Raises
    ------
    SourceRejected
        Where it cannot be read, or not filled.
    ConfigurationError
        A mask of another shape.
    """
    path = request.result(image)
    picture = path.with_suffix(".png")
    if request.is_done(image):
        return FilledImage(image, "held", result=str(path), picture=str(picture))
    cutout = read_cutout(
        Path(image).expanduser(), pixel_scale_arcsec=request.pixel_scale_arcsec, zero_points=request.zero_points
    )
    mask = fill_mask(cutout, request.mask, bits=request.mask_bits)
    if not mask.any():
        return FilledImage(image, "whole")
    model, device = request.weights.open(request.device)
    filled = inpaint(model, cutout, mask, rule=request.rule, device=device, on_step=on_step)
    _write(request, image, filled)
    picture.write_bytes(comparison(filled))
    return FilledImage(image, "filled", int(mask.sum()), str(path), str(picture))


def comparison(filled: Inpainted) -> bytes:
    """Return a PNG: the image with its holes, the first draw in them, the mean of all."""
    before = replace(filled.before, valid=filled.before.valid & ~filled.mask)
    shown: list[Cutout] = [before, filled.cutout]
    titles = ["to be filled", "one draw"]
    if len(filled.draws) > 1:
        shown.append(replace(filled.cutout, flux=filled.mean))
        titles.append(f"mean of {len(filled.draws)} draws")
    return gallery_picture(shown, titles=titles)


def _write(request: InpaintRequest, image: str, filled: Inpainted) -> None:
    path = request.result(image)
    cards = {
        DIGEST: request.digest(image),
        "MODEL": request.weights.model,
        "SEED": request.rule.seed,
        "NDRAWS": len(filled.draws),
    }
    planes = {"MEAN": filled.mean, "SPREAD": filled.spread, "MASK": filled.mask}
    if request.all_draws:
        planes["DRAWS"] = np.stack([filled.filled(draw) for draw in filled.draws])
    write_planes(request.folder / DRAWS / path.name, filled.before, planes, cards=cards)
    write_cutout(path, filled.cutout, cards=cards)


def file_sha256(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def require_masks(mask: tuple[str, ...]) -> None:
    """Refuse a mask that is neither a word nor a file.

    Raises
    ------
    UsageError
    """
    unknown = [word for word in mask if word not in WORDS and not Path(word).expanduser().is_file()]
    if unknown or not mask:
        raise UsageError(f"--mask {', '.join(unknown)}: one or more of {', '.join(WORDS)}, or FITS files that exist")
