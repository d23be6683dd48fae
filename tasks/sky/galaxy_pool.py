"""Generated galaxies to train on, drawn once: whole images with all that a survey sees, in pieces under ``pools/``.

A piece is a pure function of the choice and its number, so that an interrupted drawing goes on and several processes draw side
by side. Flux is kept as float16: relative steps of 5e-4, below the noise of any pixel.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage.location import Location
from storage.manifest import content_hash
from tasks.errors import ConfigurationError
from tasks.side_by_side import side_by_side
from tasks.sky.generator import PRIORS, Galaxies, GalaxyPrior, draw

POOLS = "pools"
PIECE = 500
CONDITIONS = ("magnitude", "colour", "size")
"""Of a pool's galaxies: r in AB mag; g - r in mag; log10 of the half-light semi-major axis in arcsec."""
_VERSION = 1
_BATCH = 50
Progress = Callable[[str, int, int, str], None]


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
    folder = warehouse / POOLS / f"{choice.prior}-{content_hash(choice.to_json())[:12]}"
    names = [f"{number:06d}.npz" for number in range(-(-choice.galaxies // PIECE))]
    held = set(folder.list_names())
    missing = [_Piece(folder, choice, number, PIECE) for number, name in enumerate(names) if name not in held]
    there = len(names) - len(missing)
    for done, _ in enumerate(side_by_side(_draw_piece, missing), start=there + 1):
        _tell(on_progress, min(done * PIECE, choice.galaxies), choice)
    shape = (choice.galaxies, len(prior.bands), choice.pixels, choice.pixels)
    flux = np.empty(shape, dtype=np.float16)
    conditions = np.empty((choice.galaxies, len(CONDITIONS)), dtype=np.float32)
    for first, name in zip(range(0, choice.galaxies, PIECE), names, strict=True):
        part = slice(first, min(first + PIECE, choice.galaxies))
        with np.load(io.BytesIO(folder.read_bytes(name)), allow_pickle=False) as piece:
            flux[part], conditions[part] = (piece[key][: part.stop - first] for key in ("flux", "conditions"))
    return Pool(flux, conditions, CONDITIONS, prior.bands, choice.pixel_scale_arcsec)


@dataclass(frozen=True)
class _Piece:
    """Which galaxies are drawn together: those of a number, so many of them, to be kept in a folder."""

    folder: Location
    choice: PoolChoice
    number: int
    galaxies: int


def _draw_piece(piece: _Piece) -> None:
    choice, prior = piece.choice, whole_prior(piece.choice.prior)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{choice.seed}/{piece.number}".encode()))
    sizes = [min(_BATCH, piece.galaxies - first) for first in range(0, piece.galaxies, _BATCH)]
    drawn = [
        draw(size, prior, generator=generator, pixels=choice.pixels, pixel_scale_arcsec=choice.pixel_scale_arcsec)
        for size in sizes
    ]
    flux = torch.cat([galaxies.flux for galaxies in drawn]).half().numpy()
    conditions = torch.cat([conditions_of(galaxies) for galaxies in drawn]).numpy()
    buffer = io.BytesIO()
    np.savez(buffer, flux=flux, conditions=conditions)
    piece.folder.write_bytes(f"{piece.number:06d}.npz", buffer.getvalue())


def _tell(on_progress: Progress | None, done: int, choice: PoolChoice) -> None:
    if on_progress is not None:
        on_progress("galaxies", done, choice.galaxies, f"{done:,} galaxies drawn")
