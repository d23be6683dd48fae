"""What the diffusion model is trained on: batches of a pool, each image turned and mirrored as the sky allows, and their scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from models.diffusion import KEPT_CONDITIONS, DiffusionConfig, to_scaled
from tasks.errors import ConfigurationError
from tasks.sky.galaxy_pool import Pool

LEAST_GALAXIES = 64
SOFTENED_AT = 4.0
"""Sigmas of a pixel's noise below which the scale is about linear."""
_MEASURED = 10_000
"""Galaxies, evenly over the pool, whose scale is measured."""
_LOWEST = 0.25
"""Of the sigmas of a pixel's noise, the lowest level: going on below it adds the errors of the model to the noise of the image."""
_MAD_TO_SIGMA = 1.4826
_ORDER, _TURNS = 0, 1
_CPU = torch.device("cpu")
_ROOM = 0.4
"""Of a GPU's free memory that a pool may take."""


@dataclass(frozen=True)
class GalaxyBatches:
    """Galaxies in an order that is drawn anew each time all were seen; a batch is a pure function of its position.

    A sky has no preferred direction: each image comes turned by quarters and mirrored, all eight ways as likely. Pixels stay
    what they are, so noise does too.

    Parameters
    ----------
    pool : Pool
        Of galaxies.
    size : int
        Galaxies of a batch.
    seed : int
        Of order and turns.
    device : torch.device
        On which batches are put together; a GPU with room for it holds the whole pool.
    """

    pool: Pool
    size: int
    seed: int
    device: torch.device = _CPU

    def at(self, position: int) -> dict[str, Tensor]:
        """Return ``flux`` (n, band, y, x), float16, nanomaggies per pixel, and ``conditions`` (n, condition)."""
        count = len(self.pool.flux)
        places = np.arange(position * self.size, (position + 1) * self.size)
        rows = np.array([_order(self.seed, int(place) // count, count)[place % count] for place in places])
        ways = np.random.default_rng((self.seed, _TURNS, position)).integers(8, size=self.size)
        flux, conditions, moves = self._held
        where = torch.from_numpy(rows).to(flux.device)
        drawn = flux[where].flatten(2)  # (n, band, y, x) -> (n, band, y x)
        move = moves[torch.from_numpy(ways).to(flux.device)][:, None].expand(-1, drawn.shape[1], -1)
        turned = drawn.gather(2, move).unflatten(2, flux.shape[-2:])
        return {"flux": turned, "conditions": conditions[where]}

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return how many images a batch has."""
        return len(batch["flux"])

    @cached_property
    def _held(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, conditions, and from where each pixel comes by the way that an image is turned, (8, y x)."""
        pool, side = self.pool, self.pool.flux.shape[-1]
        pixels = np.arange(side**2).reshape(side, side)
        moves = np.stack([turned(pixels, way).ravel() for way in range(8)])
        held = tuple(torch.from_numpy(array) for array in (pool.flux, pool.conditions, moves))
        fits = self.device.type == "cuda" and pool.flux.nbytes < _ROOM * torch.cuda.mem_get_info(self.device)[0]
        flux, conditions, moved = (tensor.to(self.device) if fits else tensor for tensor in held)
        return flux, conditions, moved


def turned(images: np.ndarray, way: int) -> np.ndarray:
    """Return square images (..., y, x) turned by quarters, from `way` 4 on mirrored before."""
    mirrored = images[..., ::-1] if way >= 4 else images
    return np.rot90(mirrored, way % 4, axes=(-2, -1))


def measure_config(pool: Pool, config: DiffusionConfig) -> DiffusionConfig:
    """Return a config with the scale of a pool: noise, spread and largest norm of its images, and its conditions.

    Parameters
    ----------
    pool : Pool
        Of galaxies.
    config : DiffusionConfig
        Scaling and size of the network.

    Raises
    ------
    ConfigurationError
        Where galaxies are too few, pixels are not finite, or an image is of one value.
    """
    if len(pool.flux) < LEAST_GALAXIES:
        raise ConfigurationError(f"{len(pool.flux)} galaxies to train on: {LEAST_GALAXIES} or more are needed")
    flux = pool.flux[:: max(1, len(pool.flux) // _MEASURED)].astype(np.float32)
    if not np.isfinite(flux).all():
        raise ConfigurationError("galaxies to train on have pixels that are not finite: leave those images out")
    softening = _rounded(SOFTENED_AT * noise_of(flux))
    if not all(value > 0 for value in softening):
        raise ConfigurationError("galaxies to train on have no noise at all in a band: these are no images of the sky")
    names = pool.names
    told = {
        "bands": pool.bands,
        "pixels": flux.shape[-1],
        "pixel_scale_arcsec": pool.pixel_scale_arcsec,
        "softening": softening,
        "conditions": names,
        "condition_centre": _rounded(pool.conditions.mean(axis=0)),
        "condition_spread": _rounded(pool.conditions.std(axis=0)),
    }
    given = {name: getattr(config, name) for name in ("scaling", "left_out", "patch", "widths", "depths", "attended")}
    try:
        unmeasured = DiffusionConfig(**told, **given, sigma_data=(1.0,) * len(pool.bands))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    scaled = to_scaled(torch.from_numpy(flux), unmeasured)
    mixing, spread = independent_bands(scaled)
    overall = math.sqrt(float(spread.square().mean()))
    norm = scaled.square().sum(dim=(1, 2, 3)).max().sqrt()
    lowest = _LOWEST * float(noise_of(scaled.numpy()).min())
    return replace(
        unmeasured,
        mixing=tuple(mixing.flatten().tolist()),
        sigma_data=_rounded(spread.numpy()),
        sigma_min=_rounded(np.array([max(overall / 250, lowest)]))[0],
        sigma_max=_rounded(np.array([float(norm)]))[0],
        level_centre=_rounded(np.array([math.log(overall / 2)]))[0],
    )


def independent_bands(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotation that makes bands independent of one another, and the root mean square of each mixed band.

    Parameters
    ----------
    scaled : Tensor, shape (n, band, y, x)

    Returns
    -------
    Tensor, shape (band, band), float64
        Rows: mixed bands, the largest first.
    Tensor, shape (band,), float64
    """
    pixels = scaled.double().transpose(0, 1).flatten(1)  # (n, band, y, x) -> (band, n y x)
    squares, axes = torch.linalg.eigh(pixels @ pixels.T / pixels.shape[1])
    rows = axes.T.flip(0)
    # of an axis and its opposite the one that has more of the bands
    return rows * torch.where(rows.sum(dim=1, keepdim=True) < 0, -1.0, 1.0), squares.flip(0).clamp(min=0).sqrt()


def noise_of(flux: np.ndarray) -> np.ndarray:
    """Return the noise of a pixel per band, from differences of neighbours in the outermost rows: (n, band, y, x) -> (band,)."""
    rows = np.concatenate([flux[:, :, :2], flux[:, :, -2:]], axis=2)
    differences = np.diff(rows, axis=-1)
    found: np.ndarray = _MAD_TO_SIGMA * np.median(np.abs(differences), axis=(0, 2, 3)) / math.sqrt(2)
    return found


def kept_conditions(pool: Pool, seed: int) -> Tensor:
    """Return conditions of galaxies of a pool for a model to keep, shape (`KEPT_CONDITIONS`, condition)."""
    rows = np.random.default_rng(seed).integers(len(pool.conditions), size=KEPT_CONDITIONS)
    return torch.from_numpy(pool.conditions[rows])


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)
