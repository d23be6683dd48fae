"""What the profile network learns from: generated galaxies, read off along ellipses that are more or less off.

Galaxies are drawn in shards, each a pure function of a seed and its number, and kept in a folder, so that a training that goes on,
or a second one, draws none twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.polar import Ellipses, Images, Polar, Pyramid, Sky, find_centres, measure_sky
from models.profile_network import ProfileExample
from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, NATIVE_SCALE, Galaxies, GalaxyPrior, draw, true_profile

GALAXIES = 256
"""Of a shard, as it is shipped with; a multiple of what is drawn at once."""
BANDS = 3
STARTS = 3
"""Ellipses about each galaxy: a circle about its brightest place, one rather off, one nearly right."""
_DRAWN_AT_ONCE = 32
_OFF_CENTRE = (0.15, 0.02)
_OFF_CENTRE_PIXELS = (0.3, 0.1)
_OFF_SHAPE = (0.15, 0.03)
_POSITION_ARCSEC = 0.5
_SIMPLE_SHARE = 0.125
_SHARES_OF_STARTS = (0.3, 0.3, 0.4)
_ALONE, _USED = 0.25, 0.8
"""How often a band is read without others beside it, and how often each other one is there."""
_PSF_UNKNOWN = 0.25
"""How often no width of the point spread function is told."""
_VIEWS: tuple[tuple[int, float], ...] = (
    *((256, NATIVE_SCALE),) * 6,
    *((256, 0.396), (192, 0.30), (256, 0.18), (128, 0.45), (128, NATIVE_SCALE), (96, 0.7), (64, 0.524), (64, 1.0)),
)
"""Sides in pixels and arcsec per pixel of what is drawn; those of the Legacy Surveys most often."""


@dataclass(frozen=True)
class Shard:
    """Some galaxies' cells and truth.

    Parameters
    ----------
    flux : Tensor, shape (N, STARTS, K, R, A), float16
    cover : Tensor, shape (N, STARTS, K, R, A), uint8
        Share of a cell that has data, of 255.
    truth : Tensor, shape (N, STARTS, K, R)
        Along the true ellipse, units of a pixel's noise; NaN where there is none.
    radius, pixels : Tensor, shape (N, STARTS, R)
    flattening : Tensor, shape (N, STARTS)
    fwhm, inflation : Tensor, shape (N, K)
    there : Tensor of bool, shape (N, K)
        Which bands were drawn.
    shift, bend : Tensor, shape (N, STARTS, 2)
        To the true ellipse.
    """

    flux: Tensor
    cover: Tensor
    truth: Tensor
    radius: Tensor
    pixels: Tensor
    flattening: Tensor
    fwhm: Tensor
    inflation: Tensor
    there: Tensor
    shift: Tensor
    bend: Tensor

    def __len__(self) -> int:
        """Return how many galaxies there are."""
        return len(self.flux)


def draw_shard(seed: int, number: int, galaxies: int = GALAXIES) -> Shard:
    """Return a shard: galaxies of `BENCH_FULL`, and some of `BENCH_SIMPLE`, in views of several sizes and scales."""
    rng = np.random.default_rng([seed, number])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    parts = []
    for _ in range(galaxies // _DRAWN_AT_ONCE):
        simple = rng.random() < _SIMPLE_SHARE
        pixels, scale = (256, NATIVE_SCALE) if simple else _VIEWS[rng.integers(len(_VIEWS))]
        prior = BENCH_SIMPLE if simple else BENCH_FULL
        parts.append(_read_off(prior, pixels, scale, generator))
    return join_shards(parts)


def join_shards(parts: Sequence[Shard]) -> Shard:
    """Return several as one."""
    return Shard(*(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))


def _read_off(prior: GalaxyPrior, pixels: int, scale: float, generator: torch.Generator) -> Shard:
    galaxies = draw(_DRAWN_AT_ONCE, prior, generator=generator, pixels=pixels, pixel_scale_arcsec=scale)
    images = images_of_galaxies(galaxies)
    sky = measure_sky(images)
    pyramid, true = Pyramid(images, sky), true_ellipses(galaxies)
    expected = true.centre + _POSITION_ARCSEC / scale * torch.randn(len(galaxies), 2, generator=generator)
    centre = find_centres(images, sky, expected, reach=search_reach(images.shape, scale))
    starts = starts_about(true, galaxies.truth.radius_arcsec / scale, centre=centre, generator=generator)
    read = [(ellipses, pyramid.polar(ellipses)) for ellipses in starts]
    return shard_of(images, sky, true, read, [_truth(galaxies, images, polar) for _, polar in read])


def shard_of(
    images: Images, sky: Sky, true: Ellipses, read: Sequence[tuple[Ellipses, Polar]], truths: Sequence[Tensor]
) -> Shard:
    """Return galaxies as a shard.

    Parameters
    ----------
    images : Images
    sky : Sky
        That was taken off.
    true : Ellipses
    read : sequence of (Ellipses, Polar)
        `STARTS` ellipses of each, and the cells about them.
    truths : sequence of Tensor, shape (B, K, R)
        At the radii of those cells.
    """
    changes = [ellipses.towards(true) for ellipses, _ in read]
    polars = [polar for _, polar in read]
    count, bands = images.sigma.shape
    return Shard(
        flux=_widened(torch.stack([polar.flux for polar in polars], dim=1), 2).clamp(-6e4, 6e4).half(),
        cover=(255 * _widened(torch.stack([polar.cover for polar in polars], dim=1), 2)).round().to(torch.uint8),
        truth=_widened(torch.stack(list(truths), dim=1), 2),
        radius=torch.stack([polar.radius for polar in polars], dim=1),
        pixels=torch.stack([polar.pixels for polar in polars], dim=1),
        flattening=torch.stack([polar.flattening for polar in polars], dim=1),
        fwhm=_widened(images.fwhm, 1),
        inflation=_widened(sky.inflation, 1).clamp(min=1.0),
        there=torch.arange(BANDS).expand(count, -1) < bands,
        shift=torch.stack([shift for shift, _ in changes], dim=1),
        bend=torch.stack([bend for _, bend in changes], dim=1),
    )


def images_of_galaxies(galaxies: Galaxies) -> Images:
    """Return generated galaxies as the network's images."""
    rows, columns = galaxies.flux.shape[-2:]
    shape = torch.tensor([rows, columns], device=galaxies.flux.device).expand(len(galaxies), -1)
    fwhm = galaxies.truth.psf_fwhm_arcsec / galaxies.pixel_scale_arcsec
    return Images.of(galaxies.flux, galaxies.ivar, galaxies.valid, shape=shape, fwhm=fwhm)


def true_ellipses(galaxies: Galaxies) -> Ellipses:
    """Return the reference ellipses of generated galaxies."""
    truth = galaxies.truth
    twice = 2 * (truth.position_angle_deg + 90).deg2rad()
    flat = 1 - truth.axis_ratio
    return Ellipses(
        torch.stack([truth.centre_x, truth.centre_y], dim=-1),
        flat[:, None] * torch.stack([twice.cos(), twice.sin()], dim=-1),
    )


def starts_about(true: Ellipses, half_light: Tensor, *, centre: Tensor, generator: torch.Generator) -> list[Ellipses]:
    """Return `STARTS` ellipses of each galaxy to learn from.

    Parameters
    ----------
    true : Ellipses
    half_light : Tensor, shape (B,)
        Semi-major axis of half of the light, pixels.
    centre : Tensor, shape (B, 2)
        Of the circle.
    generator : torch.Generator
    """

    def noise() -> Tensor:
        return torch.randn(len(true.centre), 2, generator=generator)

    starts = [Ellipses(centre, torch.zeros_like(true.shape))]
    for share, least, bend in zip(_OFF_CENTRE, _OFF_CENTRE_PIXELS, _OFF_SHAPE, strict=True):
        moved = Ellipses(true.centre + (share * half_light[:, None] + least) * noise(), true.shape)
        starts.append(replace(moved, shape=moved.within(bend * noise())))
    return starts


def search_reach(shape: Tensor, pixel_scale_arcsec: float) -> Tensor:
    """Return how far from its place a galaxy is looked for, pixels, shape (B,); see `tasks.sky.neighbours.search_radius`."""
    return torch.minimum(torch.tensor(3.0 / pixel_scale_arcsec), 0.1 * shape.amax(dim=-1)).clamp(min=3.0)


def _truth(galaxies: Galaxies, images: Images, polar: Polar) -> Tensor:
    scale = galaxies.pixel_scale_arcsec
    radii = (polar.radius * scale)[:, None].expand(-1, len(galaxies.bands), -1)
    return true_profile(galaxies, radii) * scale**2 / images.sigma[..., None]


def _widened(values: Tensor, axis: int) -> Tensor:
    """Return values with bands that are not there as zeros."""
    missing = BANDS - values.shape[axis]
    if not missing:
        return values
    shape = [*values.shape]
    shape[axis] = missing
    return torch.cat([values, values.new_zeros(shape)], dim=axis)


@dataclass(frozen=True)
class Pool:
    """Shards in a folder; what is not there is drawn when it is asked for, and kept.

    Parameters
    ----------
    folder : Path
    seed : int
        Shards of another seed have other names.
    galaxies : int
        Of a shard, a multiple of 32.
    """

    folder: Path
    seed: int
    galaxies: int = GALAXIES

    def shard(self, number: int) -> Shard:
        """Return a shard."""
        path = self.folder / f"{self.seed}-{self.galaxies}-{number:05d}.safetensors"
        if path.exists():
            return Shard(**load_file(path))
        shard = draw_shard(self.seed, number, self.galaxies)
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{torch.randint(2**31, (1,)).item()}.tmp")
        save_file({name: value.contiguous() for name, value in vars(shard).items()}, unfinished)
        unfinished.replace(path)
        return shard


class PooledProfiles:
    """Batches of examples: a pure function of their position.

    More shards come in as training goes on, so that it begins with the first.

    Parameters
    ----------
    pool : Pool
    batch : int
        Examples at once.
    shards : int
        How many there are in the end.
    seed : int
        Of the choice of examples.
    positions_per_shard : int
        After so many batches there is one shard more to draw from.
    real : Shard, optional
        Real galaxies.
    real_share : float
        Of the examples, where there are real ones.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        batch: int,
        shards: int,
        seed: int,
        positions_per_shard: int,
        real: Shard | None = None,
        real_share: float = 0.0,
    ) -> None:
        self.pool, self.batch, self.shards, self.seed = pool, batch, shards, seed
        self.positions_per_shard = positions_per_shard
        self.real, self.real_share = real, real_share if real is not None else 0.0
        self._held: list[Shard] = []

    def at(self, position: int) -> ProfileExample:
        """Return the batch at a position."""
        there = min(1 + position // self.positions_per_shard, self.shards)
        while len(self._held) < there:
            self._held.append(self.pool.shard(len(self._held)))
        rng = np.random.default_rng([self.seed, position])
        places = np.column_stack(
            [rng.integers(there, size=self.batch), rng.integers(self.pool.galaxies, size=self.batch)]
        )
        if self.real is None:
            return gather(self._held[:there], places, rng)
        is_real = rng.random(self.batch) < self.real_share
        places[is_real] = np.column_stack(
            [np.full(is_real.sum(), there), rng.integers(len(self.real), size=is_real.sum())]
        )
        return gather([*self._held[:there], self.real], places, rng)

    def tokens(self, batch: ProfileExample) -> int:
        """Return how many radii are asked."""
        return int((batch.truth.isfinite() & batch.profile_counts[:, None]).sum())


def gather(shards: Sequence[Shard], places: NDArray[np.int64], rng: np.random.Generator) -> ProfileExample:
    """Return examples of galaxies: of each a start, a band and the bands to look at, turned or mirrored.

    Parameters
    ----------
    shards : sequence of Shard
    places : ndarray, shape (B, 2)
        Shard, and row in it.
    rng : numpy.random.Generator
    """
    count = len(places)
    starts = rng.choice(STARTS, size=count, p=_SHARES_OF_STARTS)
    picked = [
        {name: value[row] if name in _OF_GALAXY else value[row, start] for name, value in vars(shards[shard]).items()}
        for (shard, row), start in zip(places.tolist(), starts, strict=True)
    ]
    rows = {name: torch.stack([one[name] for one in picked]) for name in picked[0]}
    there = rows["there"].numpy()
    band = np.array([rng.choice(np.flatnonzero(row)) for row in there])
    alone = rng.random(count) < _ALONE
    use = there & ((rng.random(there.shape) < _USED) & ~alone[:, None])
    use[np.arange(count), band] = True
    asked = torch.from_numpy(band)
    polar = Polar(
        rows["flux"].float(),
        rows["cover"].float() / 255,
        rows["radius"],
        rows["pixels"],
        rows["flattening"],
        torch.where(torch.from_numpy(rng.random((count, 1)) < _PSF_UNKNOWN), torch.nan, rows["fwhm"]),
        rows["inflation"],
    )
    truth = rows["truth"][torch.arange(count), asked]
    counts = torch.from_numpy(starts > 0)
    example = ProfileExample(polar, torch.from_numpy(use), asked, truth, rows["shift"], rows["bend"], counts)
    half, mirror = (torch.from_numpy(rng.random(count) < 0.5) for _ in range(2))
    return turn_about(example, half, mirror)


_OF_GALAXY = frozenset({"fwhm", "inflation", "there"})


def turn_about(example: ProfileExample, half: Tensor, mirror: Tensor) -> ProfileExample:
    """Return examples of which some, shape (B,), are turned by half a turn, and some mirrored at the major axis."""
    polar = example.polar
    angles = polar.flux.shape[-1]

    def change(cells: Tensor) -> Tensor:
        cells = torch.where(half[:, None, None, None], cells.roll(angles // 2, dims=-1), cells)
        return torch.where(mirror[:, None, None, None], cells.flip(-1), cells)

    sign = torch.where(half, -1.0, 1.0)[:, None]
    side = torch.stack([torch.ones_like(mirror, dtype=torch.float32), torch.where(mirror, -1.0, 1.0)], dim=-1)
    return replace(
        example,
        polar=replace(polar, flux=change(polar.flux), cover=change(polar.cover)),
        shift=example.shift * sign * side,
        bend=example.bend * side,
    )
