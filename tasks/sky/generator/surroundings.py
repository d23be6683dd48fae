"""What is in an image beside its galaxy: other galaxies and stars, sky, satellite trails, gaps, and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.sky.generator.draws import Draws
from tasks.sky.generator.light import Ellipse, Grid, Sersic, add_patches, add_points
from tasks.sky.generator.prior import NATIVE_SCALE, NoisePrior, SurroundingsPrior
from tasks.sky.generator.structure import magnitude_to_flux

SATURATED, ALL_MASKED = (0x4, 0x8, 0x10), (0x20, 0x40, 0x80)
"""Bits of the Legacy Surveys' masks (DR9) for g, r, z: saturated, and bad in all exposures."""
SATURATION = 15.3
"""r magnitude of stars whose middle is flagged."""
_PATCH_ARCSEC = 9.0
_LARGEST_PATCH = 90


def draw_neighbours(prior: SurroundingsPrior, draws: Draws, *, grid: Grid) -> Tensor:
    """Return the cells of everything else in g, r, z before the point spread function, shape (galaxy, 3, y, x)."""
    cells = torch.zeros((len(draws.seeds), 3, grid.cells, grid.cells), device=draws.seeds.device)
    _add_galaxies(cells, prior, draws, grid)
    _add_stars(cells, prior, draws, grid)
    _add_companions(cells, prior, draws, grid)
    return cells


def _area_arcmin2(grid: Grid) -> float:
    return (grid.cells * grid.step_arcsec / 60) ** 2


def _present(draws: Draws, name: str, mean: float) -> Tensor:
    """Return which of the possible sources there are, a Poisson number in each image, shape (galaxy, source)."""
    most = int(mean + 5 * math.sqrt(mean) + 5)
    index = torch.arange(most, device=draws.seeds.device)
    log_chance = index * math.log(mean) - mean - torch.lgamma(index + 1.0)
    number = torch.searchsorted(log_chance.exp().cumsum(0), draws.uniform(name))
    return index < number[:, None]


def _places(draws: Draws, name: str, most: int, grid: Grid) -> tuple[Tensor, Tensor]:
    half = grid.cells * grid.step_arcsec / 2
    at = draws.uniform(name, 2, most, low=-half, high=half)
    return at[:, 0], at[:, 1]


def _spectral(
    draws: Draws, name: str, magnitude: Tensor, *, blue: tuple[float, float], red: tuple[float, float]
) -> Tensor:
    """Return nanomaggies in g, r, z with (g - r, r - z) anywhere between two pairs, shape (galaxy, source, 3)."""
    share, extra = (
        draws.uniform(name, *magnitude.shape[1:]),
        0.12 * draws.normal(name + "-scatter", *magnitude.shape[1:]),
    )
    flux = magnitude_to_flux(magnitude)
    g_r = blue[0] + (red[0] - blue[0]) * share + extra
    r_z = blue[1] + (red[1] - blue[1]) * share + extra
    return torch.stack([flux * 10 ** (-0.4 * g_r), flux, flux * 10 ** (0.4 * r_z)], dim=-1)


def _add_galaxies(cells: Tensor, prior: SurroundingsPrior, draws: Draws, grid: Grid) -> None:
    there = _present(draws, "galaxies", prior.galaxies_per_arcmin2 * _area_arcmin2(grid))
    most = there.shape[1]
    # counts rise by a factor of 2.4 for each magnitude
    magnitude = (25.0 + draws.uniform("galaxy-magnitude", most).log() / (0.38 * math.log(10))).clamp(min=16.5)
    flux = _spectral(draws, "galaxy-colour", magnitude, blue=(0.2, 0.15), red=(1.4, 1.0))[there]
    size = (0.45 * 10 ** (0.13 * (23.5 - magnitude)) * (0.35 * draws.normal("galaxy-size", most)).exp()).clamp(
        0.15, 1.6
    )[there]
    x, y = (place[there] for place in _places(draws, "galaxy-place", most, grid))
    galaxy = torch.nonzero(there)[:, 0]
    point = (size < 0.9 * grid.step_arcsec) | (magnitude[there] > 24.3)
    add_points(cells, galaxy[point], flux[point], x=grid.index_of(x[point]), y=grid.index_of(y[point]))
    ratio = draws.uniform("galaxy-ratio", most, low=0.3, high=1.0)[there]
    angle = draws.uniform("galaxy-angle", most, high=math.pi)[there]
    ellipse = Ellipse(x, y, ratio, angle)[~point]
    _add_small(cells, galaxy[~point], flux[~point], size=size[~point], ellipse=ellipse, grid=grid)


def _add_small(cells: Tensor, galaxy: Tensor, flux: Tensor, *, size: Tensor, ellipse: Ellipse, grid: Grid) -> None:
    """Add exponential galaxies on patches of a few arcsec."""
    side = min(_LARGEST_PATCH, int(_PATCH_ARCSEC / grid.step_arcsec) + 1)
    left, low = ((grid.index_of(place) - side / 2).round().long() for place in (ellipse.x, ellipse.y))
    inside = (left >= 0) & (low >= 0) & (left + side <= grid.cells) & (low + side <= grid.cells)
    galaxy, flux, size, ellipse, left, low = (
        galaxy[inside],
        flux[inside],
        size[inside],
        ellipse[inside],
        left[inside],
        low[inside],
    )
    index = torch.arange(side, device=cells.device)
    rows, columns = low[:, None] + index, left[:, None] + index
    x, y = ((place - (grid.cells - 1) / 2) * grid.step_arcsec for place in (columns, rows))
    squared = ellipse.squared(x[:, None, :], y[:, :, None])
    radius = (squared + (0.35 * grid.step_arcsec) ** 2).sqrt_() / size[:, None, None]
    patch = (-1.678 * radius).exp_()
    patch = patch / patch.sum(dim=(-1, -2), keepdim=True)
    add_patches(
        cells, galaxy, rows[:, :, None] * grid.cells + columns[:, None, :], patch[:, None] * flux[:, :, None, None]
    )


def _star_magnitudes(prior: SurroundingsPrior, draws: Draws, grid: Grid) -> tuple[Tensor, Tensor]:
    there = _present(draws, "stars", prior.stars_per_arcmin2 * _area_arcmin2(grid))
    # counts rise by a factor of 1.7 for each magnitude
    magnitude = 22.0 + draws.uniform("star-magnitude", there.shape[1]).log() / (0.23 * math.log(10))
    return there, magnitude.clamp(min=13.5)


def _add_stars(cells: Tensor, prior: SurroundingsPrior, draws: Draws, grid: Grid) -> None:
    there, magnitude = _star_magnitudes(prior, draws, grid)
    flux = _spectral(draws, "star-colour", magnitude, blue=(0.25, 0.05), red=(1.55, 1.7))[there]
    x, y = (place[there] for place in _places(draws, "star-place", there.shape[1], grid))
    galaxy = torch.nonzero(there)[:, 0]
    add_points(cells, galaxy, flux, x=grid.index_of(x), y=grid.index_of(y))


def _add_companions(cells: Tensor, prior: SurroundingsPrior, draws: Draws, grid: Grid) -> None:
    chosen = draws.chance("companion", share=prior.companion)
    if not chosen.any():
        return
    few = draws[chosen]
    half = grid.cells * grid.step_arcsec / 2
    distance = half * few.uniform("companion-distance", low=0.35, high=0.95)
    towards = few.uniform("companion-angle", high=2 * math.pi)
    ellipse = Ellipse(
        distance * towards.cos(),
        distance * towards.sin(),
        few.uniform("companion-ratio", low=0.3, high=1.0),
        few.uniform("companion-turn", high=math.pi),
    )
    index = few.uniform("companion-index", low=1.0, high=3.0)
    size = few.log_uniform("companion-size", 1, low=1.0, high=4.0)
    magnitude = few.uniform("companion-magnitude", 1, low=15.5, high=19.5)
    flux = _spectral(few, "companion-colour", magnitude, blue=(0.35, 0.25), red=(0.95, 0.8))[:, 0]
    law = Sersic(index, size, ellipse)
    axis = grid.axis(cells.device)
    squared = ellipse.squared(axis[None, None, :], axis[None, :, None]) + (0.4 * grid.step_arcsec) ** 2
    cells[chosen] += law.brightness(squared) * grid.step_arcsec**2 * flux[:, :, None, None]


def draw_sky(prior: SurroundingsPrior, draws: Draws, *, sigma: Tensor, pixels: int) -> Tensor:
    """Return what is left of the sky, a plane per band, shape (galaxy, band, y, x)."""
    bands = sigma.shape[1]
    offset = prior.sky_offset * draws.normal("sky-offset", bands) * sigma
    slope = prior.sky_gradient * draws.normal("sky-slope", 2, bands) * sigma[:, None]
    axis = torch.linspace(-0.5, 0.5, pixels, device=sigma.device)
    plane = slope[:, 0, :, None, None] * axis[None, :] + slope[:, 1, :, None, None] * axis[:, None]
    return offset[:, :, None, None] + plane


def draw_trails(prior: SurroundingsPrior, draws: Draws, *, sigma: Tensor, fwhm_pixels: Tensor, pixels: int) -> Tensor:
    """Return the light of satellites' trails, shape (galaxy, band, y, x); most bands have none."""
    bands = sigma.shape[1]
    trails = torch.zeros((*sigma.shape, pixels, pixels), device=sigma.device)
    chosen = draws.chance("trail", bands, share=prior.trail)
    if not chosen.any():
        return trails
    towards = draws.uniform("trail-angle", bands, high=math.pi)[chosen]
    off = draws.uniform("trail-offset", bands, low=-0.45, high=0.45)[chosen] * pixels
    bright = draws.log_uniform("trail-brightness", bands, low=4.0, high=60.0)[chosen] * sigma[chosen]
    width = (fwhm_pixels[chosen] / 2.355 * draws.uniform("trail-width", bands, low=1.0, high=1.8)[chosen])[
        :, None, None
    ]
    axis = torch.arange(pixels, device=sigma.device) - (pixels - 1) / 2
    across = axis[None, None, :] * towards.sin()[:, None, None] - axis[None, :, None] * towards.cos()[:, None, None]
    trails[chosen] = bright[:, None, None] * (-0.5 * ((across - off[:, None, None]) / width).square()).exp()
    return trails


@dataclass(frozen=True)
class Damage:
    """Pixels that hold no data, bool, and the bits that say so, int32; shape (galaxy, band, y, x)."""

    valid: Tensor
    maskbits: Tensor


def draw_damage(
    prior: SurroundingsPrior, draws: Draws, *, grid: Grid, pixels: int, pixel_scale_arcsec: float
) -> Damage:
    """Return bad columns and edges of coverage, and the flagged middles of saturated stars."""
    axis = torch.arange(pixels, device=draws.seeds.device).float()
    at = draws.uniform("gap-at", 1, low=0.0, high=1.0) * pixels
    width = draws.uniform("gap-width", 1, low=1.0, high=3.0)
    column = (axis - at).abs() < width / 2
    edge = axis < 0.3 * pixels * draws.uniform("edge", 1)
    edge = torch.where(draws.chance("edge-high", 1, share=0.5), edge.flip(-1), edge)
    line = torch.where(draws.chance("gap-column", 1, share=0.6), column, edge)
    band = (
        draws.chance("gap-band", 3, share=0.5)[:, :, None, None]
        & draws.chance("gap", share=prior.gap)[:, None, None, None]
    )
    upright = draws.chance("gap-upright", 1, 1, share=0.5)
    lost = torch.where(upright, line[:, None, :], line[:, :, None])[:, None] & band
    bits = torch.tensor(ALL_MASKED, device=axis.device, dtype=torch.int32)[:, None, None]
    saturated = _saturated(prior, draws, grid=grid, pixels=pixels, pixel_scale_arcsec=pixel_scale_arcsec)
    return Damage(~lost, torch.where(lost, bits, 0) | saturated)


def _saturated(prior: SurroundingsPrior, draws: Draws, *, grid: Grid, pixels: int, pixel_scale_arcsec: float) -> Tensor:
    there, magnitude = _star_magnitudes(prior, draws, grid)
    bits = torch.zeros((len(there), 3, pixels, pixels), dtype=torch.int32, device=there.device)
    found = torch.nonzero(there & (magnitude < SATURATION))
    if not len(found):
        return bits
    x, y = (place[found[:, 0], found[:, 1]] for place in _places(draws, "star-place", there.shape[1], grid))
    # flagged out to twice the width of the image of a star of that magnitude
    reach = 1.5 * 10 ** (0.1 * (SATURATION - magnitude[found[:, 0], found[:, 1]]))
    axis = (torch.arange(pixels, device=x.device) - (pixels - 1) / 2) * pixel_scale_arcsec
    near = (axis - x[:, None])[:, None, :].square() + (axis - y[:, None])[:, :, None].square() < reach[
        :, None, None
    ].square()
    flags = torch.tensor(SATURATED, dtype=torch.int32, device=x.device)[:, None, None]
    for star, image in enumerate(found[:, 0].tolist()):
        bits[image] |= torch.where(near[star], flags, 0)
    return bits


def draw_depth(prior: NoisePrior, draws: Draws, *, pixel_scale_arcsec: float) -> Tensor:
    """Return the sky's noise per pixel, shape (galaxy, band), nanomaggies."""
    sigma = torch.tensor(prior.sigma, device=draws.seeds.device) * (pixel_scale_arcsec / NATIVE_SCALE)
    return sigma * (prior.depth_scatter * draws.normal("depth", len(prior.sigma))).exp()


def draw_noise(prior: NoisePrior, draws: Draws, *, sigma: Tensor, light: Tensor, pixel_scale_arcsec: float) -> Tensor:
    """Return noise of sky and light, shape of `light`, nanomaggies.

    Finer pixels than the native ones share their noise, as in images that a cutout service resampled: the correlation falls
    in a straight line over one native pixel.
    """
    pixels = light.shape[-1]
    margin = 8
    white = draws.normal("noise", light.shape[1], pixels + margin, pixels + margin)
    if prior.correlation > 0:
        white = _correlated(white, prior.correlation, pixel_scale_arcsec)
    white = white[..., :pixels, :pixels]
    gain = torch.tensor(prior.gain, device=light.device)[:, None, None]
    return white * (sigma[:, :, None, None].square() + light.clamp(min=0) / gain).sqrt()


def _correlated(white: Tensor, correlation: float, pixel_scale_arcsec: float) -> Tensor:
    """Return noise of unit variance whose correlation is the native pixels', spread over finer pixels."""
    size = white.shape[-1]
    native = max(NATIVE_SCALE / pixel_scale_arcsec, 1.0)
    lag = torch.fft.fftfreq(size, d=1 / size, device=white.device)
    # coarser pixels gather native ones, and little of what neighbours share is left
    shared = correlation * min(1.0, NATIVE_SCALE / pixel_scale_arcsec) ** 2
    line = sum(
        weight * (1 - (lag - shift * native).abs() / native).clamp(min=0)
        for weight, shift in ((1.0, 0), (shared, 1), (shared, -1))
    )
    power = torch.fft.fft(torch.as_tensor(line)).real.clamp(min=0)
    power = power / power.mean()
    shape = (power[:, None] * power[None, : size // 2 + 1]).sqrt()
    return torch.fft.irfft2(torch.fft.rfft2(white) * shape, s=(size, size))
