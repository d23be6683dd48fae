"""Generated galaxies to train on, drawn once: whole images with all that a survey sees, in pieces under ``pools/``.

A piece is a pure function of the choice and its number, so that an interrupted drawing goes on and several processes draw side
by side. Flux is kept as float16: relative steps of 5e-4, below the noise of any pixel.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage.location import Location
from tasks.errors import ConfigurationError
from tasks.pools import Progress, draw_missing, pool_folder
from tasks.sky.generator import PRIORS, Galaxies, GalaxyPrior, draw

PIECE = 500
CONDITIONS = ("magnitude", "colour", "size")
"""Of a pool's galaxies: r in AB mag; g - r in mag; log10 of the half-light semi-major axis in arcsec."""
_VERSION = 1
_BATCH = 50


@dataclass(frozen=True)
class PoolChoice:
    """What galaxies a pool has.

    Parameters
    ----------
    galaxies : int
        How many; the first ones of a larger pool are the same.
    prior : str
        Of the generator.
    pixels : int
        Side of an image.
    pixel_scale_arcsec : float
        Side of a pixel.
    seed : int
        Of every draw.
    """

    galaxies: int = 50_000
    prior: str = "bench_full"
    pixels: int = 64
    pixel_scale_arcsec: float = 0.524
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what decides about each galaxy, JSON types."""
        decisive = {name: value for name, value in asdict(self).items() if name != "galaxies"}
        return {**decisive, "piece": PIECE, "version": _VERSION}


@dataclass(frozen=True)
class Pool:
    """Images and what is true of them.

    Parameters
    ----------
    flux : ndarray, shape (galaxy, band, y, x), float16
        Nanomaggies per pixel.
    conditions : ndarray, shape (galaxy, condition), float32
        In the order of `names`.
    names, bands : tuple of str
    pixel_scale_arcsec : float
    """

    flux: np.ndarray
    conditions: np.ndarray
    names: tuple[str, ...]
    bands: tuple[str, ...]
    pixel_scale_arcsec: float


def whole_prior(name: str) -> GalaxyPrior:
    """Return a prior of the generator without gaps and satellite trails: what no galaxy ought to be made with.

    Raises
    ------
    ConfigurationError
        Where there is none of that name.
    """
    if name not in PRIORS:
        raise ConfigurationError(f"no prior {name!r} of galaxies; there are: {', '.join(PRIORS)}")
    prior = PRIORS[name]
    around = prior.surroundings
    return prior if around is None else replace(prior, surroundings=replace(around, gap=0.0, trail=0.0))


def conditions_of(galaxies: Galaxies) -> Tensor:
    """Return `CONDITIONS` of generated galaxies, shape (galaxy, 3), float32."""
    truth, bands = galaxies.truth, galaxies.bands
    magnitude = 22.5 - 2.5 * truth.flux.log10()  # (galaxy, band)
    red = bands.index("r")
    colour = magnitude[:, bands.index("g")] - magnitude[:, red] if "g" in bands else torch.zeros_like(magnitude[:, red])
    return torch.stack([magnitude[:, red], colour, truth.radius_arcsec.log10()], dim=1).float()


def open_pool(warehouse: Location, choice: PoolChoice, on_progress: Progress | None = None) -> Pool:
    """Return a pool of galaxies in memory; pieces that are not there yet are drawn and kept.

    Parameters
    ----------
    warehouse : Location
        Root of the warehouse.
    choice : PoolChoice
        Which galaxies.
    on_progress : callable, optional
        Hears how many galaxies are there.

    Raises
    ------
    ConfigurationError
        Where no galaxy is asked for, or there is no such prior.
    """
    prior = whole_prior(choice.prior)
    if choice.galaxies < 1:
        raise ConfigurationError(f"a pool of {choice.galaxies} galaxies: ask for one or more")
    folder = pool_folder(warehouse, choice.prior, choice.to_json())
    names = [f"{number:06d}.npz" for number in range(-(-choice.galaxies // PIECE))]

    def tell(done: int) -> None:
        if on_progress is not None:
            there = min(done * PIECE, choice.galaxies)
            on_progress("galaxies", there, choice.galaxies, f"{there:,} galaxies drawn")

    draw_missing(folder, names, partial(_draw_piece, folder, choice), on_done=tell)
    shape = (choice.galaxies, len(prior.bands), choice.pixels, choice.pixels)
    flux = np.empty(shape, dtype=np.float16)
    conditions = np.empty((choice.galaxies, len(CONDITIONS)), dtype=np.float32)
    for first, name in zip(range(0, choice.galaxies, PIECE), names, strict=True):
        part = slice(first, min(first + PIECE, choice.galaxies))
        with np.load(io.BytesIO(folder.read_bytes(name)), allow_pickle=False) as piece:
            flux[part], conditions[part] = (piece[key][: part.stop - first] for key in ("flux", "conditions"))
    return Pool(flux, conditions, CONDITIONS, prior.bands, choice.pixel_scale_arcsec)


def _draw_piece(folder: Location, choice: PoolChoice, name: str, *, galaxies: int = PIECE) -> None:
    prior, number = whole_prior(choice.prior), int(name.removesuffix(".npz"))
    generator = torch.Generator().manual_seed(zlib.crc32(f"{choice.seed}/{number}".encode()))
    sizes = [min(_BATCH, galaxies - first) for first in range(0, galaxies, _BATCH)]
    drawn = [
        draw(size, prior, generator=generator, pixels=choice.pixels, pixel_scale_arcsec=choice.pixel_scale_arcsec)
        for size in sizes
    ]
    flux = torch.cat([one.flux for one in drawn]).half().numpy()
    conditions = torch.cat([conditions_of(one) for one in drawn]).numpy()
    buffer = io.BytesIO()
    np.savez(buffer, flux=flux, conditions=conditions)
    folder.write_bytes(name, buffer.getvalue())
