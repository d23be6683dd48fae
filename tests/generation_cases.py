"""Sets of generated galaxies, and what may be wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from scipy import ndimage

from tasks.sky.galaxy_pool import whole_prior
from tasks.sky.generation_sets import GalaxySet
from tasks.sky.generator import draw

Corruption = Callable[[np.ndarray, float], np.ndarray]


@cache
def drawn(count: int, seed: int) -> GalaxySet:
    """Return galaxies of `bench_full` without gaps and trails, 64 pixels of 0.524 arcsec."""
    generator = torch.Generator().manual_seed(seed)
    galaxies = draw(count, whole_prior("bench_full"), generator=generator, pixels=64, pixel_scale_arcsec=0.524)
    return GalaxySet(galaxies.flux.numpy(), galaxies.bands, 0.524, f"drawn:{seed}")


def corrupted(galaxies: GalaxySet, how: str, strength: float) -> GalaxySet:
    """Return galaxies with something wrong: `CORRUPTIONS` says what."""
    return replace(galaxies, images=CORRUPTIONS[how](galaxies.images, strength).astype(np.float32))


def _blurred(images: np.ndarray, pixels: float) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, 0, pixels, pixels), mode="nearest")


def _noisy(images: np.ndarray, strength: float) -> np.ndarray:
    noise = np.array([0.004, 0.005, 0.018])[:, None, None]
    return images + strength * noise * np.random.default_rng(8).normal(size=images.shape)


def _swapped(images: np.ndarray, share: float) -> np.ndarray:
    """First and last band change places, in a share of the images."""
    count = round(share * len(images))
    return np.concatenate([images[:count, ::-1], images[count:]])


def _brighter(images: np.ndarray, magnitudes: float) -> np.ndarray:
    return images * 10 ** (0.4 * magnitudes)


def _redder(images: np.ndarray, magnitudes: float) -> np.ndarray:
    return images * np.array([10 ** (-0.4 * magnitudes), 1.0, 1.0])[:, None, None]


def _larger(images: np.ndarray, factor: float) -> np.ndarray:
    """Return images zoomed around their middle, surface brightness as it was."""
    zoomed = ndimage.zoom(images, (1, 1, factor, factor), order=1, grid_mode=True, mode="nearest")
    start = (zoomed.shape[-1] - images.shape[-1]) // 2
    return zoomed[..., start : start + images.shape[-1], start : start + images.shape[-1]]


CORRUPTIONS: dict[str, Corruption] = {
    "blur": _blurred,
    "noise": _noisy,
    "band swap": _swapped,
    "flux": _brighter,
    "colour": _redder,
    "size": _larger,
}
