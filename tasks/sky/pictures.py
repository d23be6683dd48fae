"""Pictures (PNG, JPEG) as flux that a survey would have measured: linear light, calibrated to a magnitude."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.cutouts import AB_ZERO_POINT
from tasks.errors import ConfigurationError, SourceRejected
from tasks.sky.diffusion_jobs import ModelConfig
from tasks.sky.gallery import LEGACY_WEIGHTS, WAVELENGTHS_NM
from tasks.sky.resampling import PixelGrids

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
DEFAULT_MAGNITUDE = 16.5
"""Of a picture in the middle band where none is named: that of a galaxy of the survey's main sample."""
_STRETCH = 8.0
_RIM = 0.04
_PAPER = 0.5


def is_picture(path: Path) -> bool:
    """Return whether a file's name is that of a picture."""
    return path.suffix.lower() in SUFFIXES


def read_picture(path: Path, config: ModelConfig, *, magnitude: float = DEFAULT_MAGNITUDE) -> NDArray[np.float64]:
    """Return a picture as flux on a model's pixels, shape (band, y, x), nanomaggies; row 0 is the lowest.

    The longer side fills the model's image. Blue, green and red go by wavelength to the bands; what the rim of the picture shows
    is taken for sky, on paper brighter than the middle grey for its negative; the asinh stretch that survey pictures have is undone,
    and each band weighted as the survey's pictures weight it, so that grey becomes the colour of a galaxy.

    Parameters
    ----------
    path : Path
    config : ModelConfig
        Of the model.
    magnitude : float
        Total AB magnitude in the middle band.

    Raises
    ------
    ConfigurationError
        No such file.
    SourceRejected
        What is no picture, or one of a single colour.
    """
    rgb = _read(path)
    rim = max(1, round(_RIM * min(rgb.shape[1:])))
    sky = _rim_of(rgb, rim)
    if sky.mean() > _PAPER:
        rgb, sky = 1.0 - rgb, 1.0 - sky
    above = np.clip(rgb - sky[:, None, None], 0.0, None)
    light = np.sinh(above * math.asinh(_STRETCH)) / _STRETCH
    if not light.any():
        raise SourceRejected(f"{path} shows nothing that differs from its rim: there is no galaxy to be made of it")
    grids = _fitted(light.shape[1:], config)
    coarse = np.stack([grids.to_model(plane, np.ones(plane.shape, dtype=bool))[0] for plane in light])
    bands = _to_bands(coarse, config.bands)
    middle = order_by_wavelength(config.bands)[len(config.bands) // 2]
    total = 10.0 ** (0.4 * (AB_ZERO_POINT - magnitude))
    return bands * (total / bands[middle].sum())


def order_by_wavelength(bands: tuple[str, ...]) -> list[int]:
    """Return the numbers of bands from blue to red; unknown ones keep their place after the known ones."""
    return sorted(range(len(bands)), key=lambda band: WAVELENGTHS_NM.get(bands[band].lower(), 10_000))


def _read(path: Path) -> NDArray[np.float64]:
    """Return red, green and blue, (3, y, x), 0 to 1, row 0 the lowest; what is transparent is black."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            seen = np.asarray(picture.convert("RGBA"), dtype=np.float64) / 255.0
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise SourceRejected(f"{path} cannot be read as a picture: {error}", reason="unreadable") from error
    colours = seen[..., :3] * seen[..., 3:]
    return np.ascontiguousarray(np.moveaxis(colours[::-1], -1, 0))


def _rim_of(rgb: NDArray[np.float64], rim: int) -> NDArray[np.float64]:
    """Return the median colour of a picture's rim, (3,)."""
    frame = np.ones(rgb.shape[1:], dtype=bool)
    frame[rim:-rim, rim:-rim] = False
    return np.asarray(np.median(rgb[:, frame], axis=1), dtype=np.float64)


def _fitted(shape: tuple[int, ...], config: ModelConfig) -> PixelGrids:
    rows, columns = shape
    return PixelGrids((rows, columns), (config.pixels, config.pixels), max(rows, columns) / config.pixels)


def _to_bands(rgb: NDArray[np.float64], bands: tuple[str, ...]) -> NDArray[np.float64]:
    """Return red, green and blue as bands, each over its weight in survey pictures; between colours linearly."""
    blue_to_red = rgb[::-1]
    found = np.zeros((len(bands), *rgb.shape[1:]))
    for rank, band in enumerate(order_by_wavelength(bands)):
        place = 1.0 if len(bands) == 1 else 2.0 * rank / (len(bands) - 1)
        below = min(int(place), 1)
        plane = (1 - (place - below)) * blue_to_red[below] + (place - below) * blue_to_red[below + 1]
        found[band] = plane / LEGACY_WEIGHTS.get(bands[band], 1.0)
    return found
