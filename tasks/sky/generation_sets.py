"""Sets of galaxies to be compared: images of one size, from arrays, a sky store, the generator or a model that is sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.errors import NotFound
from storage.location import Location, resolve
from storage.sky import open_sky
from tasks.errors import ConfigurationError, UsageError
from tasks.progress import report

GENERATED = "generated:"
"""Of ``generated:PRIOR`` and ``generated:PRIOR:SEED``: galaxies of the generator."""
SMALLEST = 32
THUMBNAIL = 16
_MOST_INVALID = 0.01
_SAME_SCALE = 0.01


@dataclass(frozen=True)
class GalaxySet:
    """Images of galaxies.

    Parameters
    ----------
    images : ndarray, shape (n, band, y, x), float32
        Nanomaggies per pixel; y goes up.
    bands : tuple of str
        By wavelength.
    pixel_scale_arcsec : float
        Side of a pixel.
    origin : str
        What they are.
    left_out : int
        Objects of the source that are of another size or have pixels without data.
    """

    images: NDArray[np.float32]
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    origin: str = "arrays"
    left_out: int = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.images)

    def __getitem__(self, rows: slice) -> GalaxySet:
        """Return some of them."""
        return replace(self, images=self.images[rows])


@dataclass(frozen=True)
class Grid:
    """What images are wanted of.

    Parameters
    ----------
    pixels : int
        Side of the image.
    pixel_scale_arcsec : float
        Side of a pixel.
    """

    pixels: int = 64
    pixel_scale_arcsec: float = 0.524


Sampled = Callable[[Location, str, int, int], GalaxySet]
"""Draws from a model: warehouse, name, count, seed."""


def require_galaxies(galaxies: GalaxySet, *, fewest: int = 2) -> None:
    """Check that images can be measured.

    Raises
    ------
    ConfigurationError
        Where they are not (n, band, y, x) and square, have another number of bands than names, are fewer than asked for, smaller than
        32 pixels, or not all finite.
    """
    images, name = galaxies.images, galaxies.origin
    if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
        raise ConfigurationError(f"{name}: images of shape {images.shape}; expected (n, band, y, x), y equal to x")
    if images.shape[1] != len(galaxies.bands):
        raise ConfigurationError(
            f"{name}: images of {images.shape[1]} bands, named {', '.join(galaxies.bands)}: one name for each"
        )
    if images.shape[-1] < SMALLEST:
        raise ConfigurationError(f"{name}: images of {images.shape[-1]} pixels a side; {SMALLEST} and more can be told")
    if len(images) < fewest:
        raise ConfigurationError(f"{name}: {len(images)} galaxies; at least {fewest} are needed")
    broken = ~np.isfinite(images).all(axis=(1, 2, 3))
    if broken.any():
        raise ConfigurationError(
            f"{name}: {broken.sum()} of {len(images)} images have pixels that are no finite number, the first is image "
            f"{int(np.argmax(broken))}; leave them out"
        )


def onto_one_grid(*sets: GalaxySet) -> tuple[GalaxySet, ...]:
    """Return sets on the coarsest of their pixels and the smallest of their sides: pixels summed, the middle kept.

    Raises
    ------
    ConfigurationError
        Where bands differ, or a pixel is no whole number of another's.
    """
    bands = sets[0].bands
    for one in sets[1:]:
        if one.bands != bands:
            raise ConfigurationError(
                f"{one.origin} has bands {', '.join(one.bands)} and {sets[0].origin} {', '.join(bands)}: compare like with like"
            )
    scale = max(one.pixel_scale_arcsec for one in sets)
    binned = [_binned(one, scale) for one in sets]
    side = min(one.images.shape[-1] for one in binned)
    return tuple(replace(one, images=_middle(one.images, side)) for one in binned)


def thumbnails(galaxies: GalaxySet, softening: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return small images in which galaxies are compared pixel by pixel: at most 16 pixels a side, asinh of flux over a softening.

    Parameters
    ----------
    galaxies : GalaxySet
        Square images.
    softening : ndarray, shape (band,)
        Nanomaggies per pixel of the images, e.g. the noise of the real ones.

    Returns
    -------
    ndarray, shape (n, band, side, side), float32
    """
    step = max(1, galaxies.images.shape[-1] // THUMBNAIL)
    blocks = _in_blocks(galaxies.images, step) / step**2
    return np.arcsinh(blocks / softening.astype(np.float32)[:, None, None]).astype(np.float32)


def open_galaxies(
    name: str,
    warehouse: Location,
    *,
    count: int,
    seed: int,
    sample: Sampled,
    grid: Grid | None = None,
    bands: tuple[str, ...] = (),
) -> GalaxySet:
    """Return up to `count` galaxies of a source by name.

    Parameters
    ----------
    name : str
        ``generated:PRIOR[:SEED]``, a sky store (its folder or URL, or its name in the warehouse), or a model.
    warehouse : Location
        Root of the warehouse; galaxies of the generator are kept there.
    count : int
        How many at most.
    seed : int
        Of the choice from a store, of the generator where the name has none, and of a model's noise.
    sample : callable
        Draws from a model.
    grid : Grid, optional
        Of the generator's images; by default 64 pixels of 0.524 arcsec.
    bands : tuple of str
        To take from a store, by wavelength; by default all.

    Raises
    ------
    ConfigurationError, NotFound
        Where there is no such source, or it has no such galaxies.
    """
    if name.startswith(GENERATED):
        return _drawn(name, warehouse, count, seed, grid or Grid())
    for location in _stores(name, warehouse):
        try:
            return read_store(location, count=count, seed=seed, bands=bands)
        except NotFound:
            continue
    return sample(warehouse, name, count, seed)


def read_store(location: Location, *, count: int, seed: int, bands: tuple[str, ...] = ()) -> GalaxySet:
    """Return galaxies of a sky store: of the size and pixel scale that most have, whole, chosen by seed.

    Raises
    ------
    NotFound
        Where there is no store.
    ConfigurationError
        Where it has no galaxies in nanomaggies and such bands.
    """
    groups = {path: data for path, data in open_sky(location).items() if path.endswith("/nanomaggies")}
    fitting = {path: data for path, data in groups.items() if set(bands) <= set(map(str, data["band"].values))}
    if not fitting:
        wanted = f" in bands {', '.join(bands)}" if bands else ""
        raise ConfigurationError(
            f"{location}: no galaxies in nanomaggies{wanted}; it has {', '.join(groups) or 'none'}"
        )
    data = max(fitting.values(), key=lambda group: group.sizes["object"])
    if bands:
        data = data.sel(band=list(bands))
    held = int(data.sizes["object"])
    shapes, scales = data["shape"].values, data["pixel_scale_arcsec"].values
    sizes, numbers = np.unique(shapes[shapes[:, 0] == shapes[:, 1], 0], return_counts=True)
    if not sizes.size:
        raise ConfigurationError(f"{location}: no square images")
    side, scale = int(sizes[numbers.argmax()]), float(np.median(scales))
    alike = (shapes == side).all(axis=1) & (np.abs(scales / scale - 1) < _SAME_SCALE)
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(alike))
    kept: list[NDArray[np.float32]] = []
    unfit = held - len(rows)
    for row in rows:
        if len(kept) == count:
            break
        one = data.isel(object=int(row))
        valid = one["valid"].values[:, :side, :side]
        if (~valid).mean() > _MOST_INVALID:
            unfit += 1
            continue
        kept.append(np.where(valid, one["flux"].values[:, :side, :side], 0).astype(np.float32))
        report("galaxies", str(location), len(kept), min(count, len(rows)))
    if not kept:
        raise ConfigurationError(f"{location}: every image has pixels without data")
    names = tuple(map(str, data["band"].values))
    return GalaxySet(np.stack(kept), names, scale, str(location), unfit)


def _drawn(name: str, warehouse: Location, count: int, seed: int, grid: Grid) -> GalaxySet:
    from tasks.sky.galaxy_pool import PoolChoice, open_pool

    prior, _, said = name.removeprefix(GENERATED).partition(":")
    try:
        own = int(said) if said else seed
    except ValueError as error:
        raise UsageError(f"{name}: the seed {said!r} is no whole number; say generated:bench_full:7") from error
    choice = PoolChoice(
        galaxies=count, prior=prior, pixels=grid.pixels, pixel_scale_arcsec=grid.pixel_scale_arcsec, seed=own
    )
    pool = open_pool(warehouse, choice, report_drawn)
    images = pool.flux.astype(np.float32)
    return GalaxySet(images, pool.bands, pool.pixel_scale_arcsec, f"{GENERATED}{prior}:{own}")


def report_drawn(name: str, done: int, total: int, words: str) -> None:
    """Say how many galaxies of the generator are drawn."""
    report("galaxies", name, done, total, words)


def _stores(name: str, warehouse: Location) -> list[Location]:
    found = [resolve(name)] if "://" in name or Path(name).is_dir() else []
    return [*found, warehouse / "sky" / name] if "://" not in name else found


def _binned(galaxies: GalaxySet, scale: float) -> GalaxySet:
    ratio = scale / galaxies.pixel_scale_arcsec
    step = round(ratio)
    if abs(ratio / step - 1) > _SAME_SCALE:
        raise ConfigurationError(
            f"{galaxies.origin} has pixels of {galaxies.pixel_scale_arcsec:g} arcsec, and {scale:g} is no whole number of them: "
            "resample one of the sets"
        )
    if step == 1:
        return replace(galaxies, pixel_scale_arcsec=scale)
    return replace(galaxies, images=_in_blocks(galaxies.images, step), pixel_scale_arcsec=scale)


def _in_blocks(images: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Return sums of blocks; what is left over at the edges is cut off on both sides."""
    side = images.shape[-1] // step * step
    cut = _middle(images, side)
    shape = (*images.shape[:2], side // step, step, side // step, step)
    blocks: NDArray[np.float32] = cut.reshape(shape).sum(axis=(3, 5))
    return blocks


def _middle(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    start = (images.shape[-1] - side) // 2
    return images[..., start : start + side, start : start + side]
