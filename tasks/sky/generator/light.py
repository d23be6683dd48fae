"""Light on a grid of cells: Sersic laws with the cells at the centre integrated, and sources far smaller than a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_CORE = 7
"""Cells on each side of the centre's whose light is integrated."""
_LEVELS = 4
"""How often a ninth of the core is divided anew: the last pieces are 81 times smaller than a cell."""


@dataclass(frozen=True)
class Grid:
    """Square cells of one size; x to the right and y upwards, 0 in the middle.

    Parameters
    ----------
    cells : int
        On a side.
    step_arcsec : float
        Side of a cell.
    """

    cells: int
    step_arcsec: float

    def axis(self, device: torch.device) -> Tensor:
        """Return the cells' centres along x or y, arcsec, shape (cells,)."""
        return (torch.arange(self.cells, device=device) - (self.cells - 1) / 2) * self.step_arcsec

    def index_of(self, arcsec: Tensor) -> Tensor:
        """Return places as fractions of cell numbers."""
        return arcsec / self.step_arcsec + (self.cells - 1) / 2


@dataclass(frozen=True)
class Ellipse:
    """Where ellipses lie, each shape (galaxy,): centre in arcsec from the middle, axis ratio, angle.

    The angle of the major axis counts from upwards (north) to the left (east), radians.
    """

    x: Tensor
    y: Tensor
    axis_ratio: Tensor
    angle: Tensor

    def along(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far along the major and the minor axis places (galaxy, ..., y, x) lie, arcsec."""
        spread = (-1, *[1] * (max(x.ndim, y.ndim) - 1))
        x, y = x - self.x.view(spread), y - self.y.view(spread)
        sine, cosine = self.angle.sin().view(spread), self.angle.cos().view(spread)
        return y * cosine - x * sine, -x * cosine - y * sine

    def squared(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the squared semi-major axis of the ellipse through each place, arcsec^2."""
        major, minor = self.along(x, y)
        return major.square() + (minor / self.axis_ratio.view(-1, *[1] * (minor.ndim - 1))).square()

    def __getitem__(self, rows: Tensor) -> Ellipse:
        """Return some of the ellipses."""
        return Ellipse(self.x[rows], self.y[rows], self.axis_ratio[rows], self.angle[rows])


def sersic_b(index: Tensor) -> Tensor:
    """Return b of a Sersic law, so that its effective radius holds half of the light.

    References
    ----------
    Ciotti and Bertin (1999), equation 18.
    """
    return 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2) + 131 / (1148175 * index**3)


def sersic_share(index: Tensor, radius: Tensor) -> Tensor:
    """Return the share of the light of a Sersic law within so many effective radii."""
    return torch.special.gammainc(2 * index, sersic_b(index) * radius ** (1 / index))


@dataclass(frozen=True)
class Sersic:
    """Sersic laws of total flux 1, each tensor of shape (galaxy,), `radius` (galaxy, band): the law runs to infinity.

    Parameters
    ----------
    index : Tensor
        Sersic index n.
    radius : Tensor, shape (galaxy, band)
        Semi-major axis that holds half of the light, arcsec.
    ellipse : Ellipse
    """

    index: Tensor
    radius: Tensor
    ellipse: Ellipse

    def brightness(self, squared: Tensor) -> Tensor:
        """Return flux per arcsec^2, shape (galaxy, band, y, x), at squared semi-major axes (galaxy, y, x)."""
        n, b = self.index, sersic_b(self.index)
        log_total = (
            math.log(2 * math.pi) + n.log() - 2 * n * b.log() + torch.lgamma(2 * n) + self.ellipse.axis_ratio.log()
        )
        peak = (-log_total[:, None] - 2 * self.radius.log())[:, :, None, None]
        slope = (-b[:, None] * self.radius ** (-1 / n)[:, None])[:, :, None, None]
        powered = squared ** (0.5 / n)[:, None, None]
        return torch.addcmul(peak, slope, powered[:, None]).exp_()

    def cells(self, grid: Grid) -> Tensor:
        """Return the flux in each cell, shape (galaxy, band, y, x).

        Cells take the brightness at their middle; the 15 x 15 around the centre are divided by 3 x 3, the 9 x 9 of these
        around the centre again, and so on: the cusp of a law of n = 4 keeps its light.
        """
        axis = grid.axis(self.index.device)
        smallest = 0.3 * grid.step_arcsec * 3.0**-_LEVELS
        image = self.brightness(self.ellipse.squared(axis[None, None, :], axis[None, :, None]).clamp(min=smallest**2))
        middle = [grid.index_of(place).round() for place in (self.ellipse.x, self.ellipse.y)]
        corner = [(place - (grid.cells - 1) / 2) * grid.step_arcsec for place in middle]
        core = self._core(*corner, step=grid.step_arcsec, half=_CORE, level=1, smallest=smallest)
        _replace(image, core, middle[0].long() - _CORE, middle[1].long() - _CORE)
        return image * grid.step_arcsec**2

    def _core(self, x: Tensor, y: Tensor, *, step: float, half: int, level: int, smallest: float) -> Tensor:
        """Return mean brightness of the cells around one whose middle is (x, y), shape (galaxy, band, side, side)."""
        third, sides = step / 3, 3 * (2 * half + 1)
        offset = (torch.arange(sides, device=x.device) - (sides - 1) / 2) * third
        squared = self.ellipse.squared((x[:, None] + offset)[:, None, :], (y[:, None] + offset)[:, :, None])
        pieces = self.brightness(squared.clamp(min=smallest**2))
        if level < _LEVELS:
            shift = [((centre - place) / third).round() for centre, place in ((self.ellipse.x, x), (self.ellipse.y, y))]
            inner = self._core(
                x + shift[0] * third, y + shift[1] * third, step=third, half=4, level=level + 1, smallest=smallest
            )
            first = (sides - 1) // 2 - 4
            _replace(pieces, inner, shift[0].long() + first, shift[1].long() + first)
        return torch.nn.functional.avg_pool2d(pieces, 3)


def _replace(image: Tensor, patch: Tensor, left: Tensor, low: Tensor) -> None:
    """Put patches (galaxy, band, side, side) into images with their first pixel at (left, low) of each galaxy."""
    index = torch.arange(patch.shape[-1], device=image.device)
    rows, columns = low[:, None] + index, left[:, None] + index
    flat = (rows[:, :, None] * image.shape[-1] + columns[:, None, :]).flatten(1)[:, None].expand(-1, image.shape[1], -1)
    image.flatten(2).scatter_(2, flat, patch.flatten(2))


def add_points(image: Tensor, galaxy: Tensor, flux: Tensor, *, x: Tensor, y: Tensor) -> None:
    """Add sources without extent to images (galaxy, band, y, x), by cubic weights over 4 x 4 cells.

    Parameters
    ----------
    galaxy : Tensor, shape (source,), int64
        Which image.
    flux : Tensor, shape (source, band)
    x, y : Tensor, shape (source,)
        Fractions of cell numbers; what reaches beyond the image is dropped.
    """
    size = image.shape[-1]
    inside = (x > 1) & (x < size - 3) & (y > 1) & (y < size - 3)
    galaxy, flux, x, y = galaxy[inside], flux[inside], x[inside], y[inside]
    index = torch.arange(-1, 3, device=image.device)
    weight = _cubic(y - y.floor())[:, :, None] * _cubic(x - x.floor())[:, None, :]
    place = (y.long()[:, None] + index)[:, :, None] * size + (x.long()[:, None] + index)[:, None, :]
    add_patches(image, galaxy, place, flux[:, :, None, None] * weight[:, None])


def add_patches(image: Tensor, galaxy: Tensor, place: Tensor, patch: Tensor) -> None:
    """Add patches (source, band, y, x) to images at pixels `place` (source, y, x), row times width plus column."""
    bands, pixels = image.shape[1], image.shape[-1] * image.shape[-2]
    band = torch.arange(bands, device=image.device)[:, None, None]
    target = (galaxy[:, None, None, None] * bands + band) * pixels + place[:, None]
    image.view(-1).index_add_(0, target.flatten(), patch.flatten())


def _cubic(fraction: Tensor) -> Tensor:
    """Return Catmull and Rom's weights of the four cells around a place, shape (source, 4)."""
    t = fraction
    return torch.stack(
        [
            ((2 - t) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((4 - 3 * t) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        ],
        dim=1,
    )
