"""Batches of generated galaxies as a survey would see them, with what is true of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tasks.errors import ConfigurationError
from tasks.sky.generator.draws import Draws, draw_seeds
from tasks.sky.generator.light import Grid
from tasks.sky.generator.prior import GalaxyPrior
from tasks.sky.generator.psf import REACH_ARCSEC, Optics, PsfImages, draw_psf
from tasks.sky.generator.structure import Target, draw_single, draw_structured
from tasks.sky.generator.surroundings import (
    draw_damage,
    draw_depth,
    draw_neighbours,
    draw_noise,
    draw_sky,
    draw_trails,
)

PSF_SIDE = 63
_COARSEST_CELL = 0.27
_PIECE_CELLS = {"cpu": 2**19, "cuda": 2**25}
"""How many cells are painted at once: what a core's cache, or a GPU's memory, holds of them."""


@dataclass(frozen=True)
class Truth:
    """What is true of the galaxies of a batch, each shape (galaxy,) unless said.

    Parameters
    ----------
    seed : Tensor, int64
        Gives the same galaxy again: see `draw_galaxies`.
    centre_x, centre_y : Tensor
        Pixels, from 0 at the middle of the lowest left one.
    axis_ratio, position_angle_deg : Tensor
        Of the reference ellipse, which is the outer disc's; from upwards to the left (north to east).
    radius_arcsec : Tensor
        Semi-major axis of the reference ellipse that holds half of the light in r, without point spread function, arms and
        dust.
    sersic_index : Tensor
        Of the only component, or of the bulge.
    kind : Tensor, int64
        Place in `structure.KINDS`; -1 = a single Sersic law.
    bulge_share : Tensor
        Of the light in r.
    flux : Tensor, shape (galaxy, band)
        Total, nanomaggies.
    psf_fwhm_arcsec, sigma : Tensor, shape (galaxy, band)
        Width of the point spread function; noise of the sky in a pixel, nanomaggies.
    """

    seed: Tensor
    centre_x: Tensor
    centre_y: Tensor
    axis_ratio: Tensor
    position_angle_deg: Tensor
    radius_arcsec: Tensor
    sersic_index: Tensor
    kind: Tensor
    bulge_share: Tensor
    flux: Tensor
    psf_fwhm_arcsec: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Galaxies:
    """A batch of images; y goes up.

    Parameters
    ----------
    flux : Tensor, shape (galaxy, band, y, x)
        Nanomaggies per pixel with all that is in the image; 0 where it is not valid.
    clean : Tensor, shape (galaxy, band, y, x)
        The galaxy alone through the point spread function, without noise.
    ivar : Tensor, shape (galaxy, band, y, x)
        Inverse variance as a survey gives it: of the sky's noise; 0 where the pixel is not valid.
    valid : Tensor, shape (galaxy, band, y, x), bool
    maskbits : Tensor, shape (galaxy, band, y, x), int32
        Bits of the Legacy Surveys' DR9.
    psf : Tensor, shape (galaxy, band, side, side)
        Point spread functions on the pixels, the pixel included; sum 1.
    truth : Truth
    bands : tuple of str
    pixel_scale_arcsec : float
    prior : str
        Name of what they were drawn from.
    """

    flux: Tensor
    clean: Tensor
    ivar: Tensor
    valid: Tensor
    maskbits: Tensor
    psf: Tensor
    truth: Truth
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    prior: str

    def __len__(self) -> int:
        """Return how many galaxies there are."""
        return len(self.flux)


def draw(
    batch: int,
    prior: GalaxyPrior,
    *,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    pixels: int | None = None,
    pixel_scale_arcsec: float | None = None,
    psf_images: PsfImages | None = None,
) -> Galaxies:
    """Return the next galaxies of a generator.

    Each galaxy has a seed of its own and all its numbers come from it. With `pixels` and `pixel_scale_arcsec` given, or only one of
    each in the prior, a generator therefore gives the same galaxies however they are split into batches, to rounding;
    otherwise one of each is drawn for the batch.

    Parameters
    ----------
    batch : int
        How many.
    prior : GalaxyPrior
    generator : torch.Generator
        On the CPU, whatever the device.
    device : torch.device or str
        Where they are rendered.
    pixels, pixel_scale_arcsec : int, float
        Side of the images and of a pixel.
    psf_images : PsfImages
        Images of real point spread functions to be among those drawn.

    Raises
    ------
    ConfigurationError
        Where the image has no pixels or a pixel no size, or the images of point spread functions have other bands.
    """
    if pixels is None:
        pixels = prior.pixels[int(torch.randint(len(prior.pixels), (1,), generator=generator))]
    if pixel_scale_arcsec is None:
        low, high = prior.pixel_scale_arcsec
        place = float(torch.rand(1, generator=generator)) if high > low else 0.0
        pixel_scale_arcsec = low * (high / low) ** place
    seeds = draw_seeds(batch, generator)
    return draw_galaxies(
        seeds.to(device), prior, pixels=pixels, pixel_scale_arcsec=pixel_scale_arcsec, psf_images=psf_images
    )


def draw_galaxies(
    seeds: Tensor, prior: GalaxyPrior, *, pixels: int, pixel_scale_arcsec: float, psf_images: PsfImages | None = None
) -> Galaxies:
    """Return the galaxies of some seeds (int64), on the seeds' device.

    Raises
    ------
    ConfigurationError
        As `draw`.
    """
    if pixels < 8 or not 0.02 <= pixel_scale_arcsec <= 5:
        raise ConfigurationError(
            f"an image of {pixels} pixels of {pixel_scale_arcsec} arcsec: take 8 pixels or more, of 0.02 to 5 arcsec"
        )
    if psf_images is not None and psf_images.images.shape[1] != len(prior.bands):
        raise ConfigurationError(
            f"the point spread functions are of {psf_images.images.shape[1]} bands, the galaxies of {len(prior.bands)}"
        )
    factor, grid = _cells_for(pixels, pixel_scale_arcsec)
    pieces = [
        _Frame(prior, grid, factor, pixels, pixel_scale_arcsec).rendered(Draws(part), psf_images)
        for part in _pieces(seeds, grid)
    ]
    return _joined(pieces)


def _cells_for(pixels: int, pixel_scale_arcsec: float) -> tuple[int, Grid]:
    """Return how many cells make a pixel's side, and the cells of the image with a margin from which light is carried in."""
    factor = math.ceil(pixel_scale_arcsec / _COARSEST_CELL)
    margin = math.ceil(REACH_ARCSEC / pixel_scale_arcsec)
    while not _is_smooth(factor * (pixels + 2 * margin)):
        margin += 1
    return factor, Grid(factor * (pixels + 2 * margin), pixel_scale_arcsec / factor)


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5, 7, 11):
        while number % prime == 0:
            number //= prime
    return number == 1


def _pieces(seeds: Tensor, grid: Grid) -> Iterator[Tensor]:
    size = max(1, _PIECE_CELLS[seeds.device.type] // grid.cells**2)
    yield from seeds.split(size)


@dataclass(frozen=True)
class _Frame:
    """One size of image."""

    prior: GalaxyPrior
    grid: Grid
    factor: int
    pixels: int
    pixel_scale_arcsec: float

    def rendered(self, draws: Draws, psf_images: PsfImages | None) -> Galaxies:
        """Return galaxies, drawn, seen and with noise."""
        prior, grid, scale = self.prior, self.grid, self.pixel_scale_arcsec
        target = self._target(draws)
        psf = draw_psf(
            prior.psf, draws, bands=len(prior.bands), cells=grid.cells, step_arcsec=grid.step_arcsec, images=psf_images
        )
        optics = Optics.of(psf, factor=self.factor, pixels=self.pixels)
        around = prior.surroundings
        others = torch.zeros_like(target.cells) if around is None else draw_neighbours(around, draws, grid=grid)
        clean, beside = optics.images(target.cells, others)
        sigma = draw_depth(prior.noise, draws, pixel_scale_arcsec=scale)
        light = clean + beside
        flux = light + draw_noise(prior.noise, draws, sigma=sigma, light=light, pixel_scale_arcsec=scale)
        valid = torch.ones_like(flux, dtype=torch.bool)
        maskbits = torch.zeros_like(flux, dtype=torch.int32)
        if around is not None:
            fwhm = psf.fwhm_arcsec / scale
            flux += draw_sky(around, draws, sigma=sigma, pixels=self.pixels)
            flux += draw_trails(around, draws, sigma=sigma, fwhm_pixels=fwhm, pixels=self.pixels)
            damage = draw_damage(around, draws, grid=grid, pixels=self.pixels, pixel_scale_arcsec=scale)
            valid, maskbits = damage.valid, damage.maskbits
        return Galaxies(
            flux=flux * valid,
            clean=clean,
            ivar=valid / sigma.square()[:, :, None, None],
            valid=valid,
            maskbits=maskbits,
            psf=optics.psf_images(PSF_SIDE),
            truth=self._truth(draws, target, fwhm_arcsec=psf.fwhm_arcsec, sigma=sigma),
            bands=prior.bands,
            pixel_scale_arcsec=scale,
            prior=prior.name,
        )

    def _target(self, draws: Draws) -> Target:
        scale = self.pixel_scale_arcsec
        if self.prior.structure is None:
            return draw_single(self.prior, draws, grid=self.grid, pixel_scale_arcsec=scale)
        return draw_structured(self.prior, self.prior.structure, draws, grid=self.grid, pixel_scale_arcsec=scale)

    def _truth(self, draws: Draws, target: Target, *, fwhm_arcsec: Tensor, sigma: Tensor) -> Truth:
        middle = (self.pixels - 1) / 2
        return Truth(
            seed=draws.seeds,
            centre_x=target.ellipse.x / self.pixel_scale_arcsec + middle,
            centre_y=target.ellipse.y / self.pixel_scale_arcsec + middle,
            axis_ratio=target.ellipse.axis_ratio,
            position_angle_deg=target.ellipse.angle.rad2deg(),
            radius_arcsec=target.radius_arcsec,
            sersic_index=target.index,
            kind=target.kind,
            bulge_share=target.bulge_share,
            flux=target.flux,
            psf_fwhm_arcsec=fwhm_arcsec,
            sigma=sigma,
        )


def _joined(pieces: Sequence[Galaxies]) -> Galaxies:
    first = pieces[0]
    arrays = {name: torch.cat([getattr(piece, name) for piece in pieces]) for name in _ARRAYS}
    truth = Truth(
        **{each.name: torch.cat([getattr(piece.truth, each.name) for piece in pieces]) for each in fields(Truth)}
    )
    return Galaxies(
        **arrays, truth=truth, bands=first.bands, pixel_scale_arcsec=first.pixel_scale_arcsec, prior=first.prior
    )


_ARRAYS = ("flux", "clean", "ivar", "valid", "maskbits", "psf")
