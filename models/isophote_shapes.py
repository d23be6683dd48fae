"""Shapes of isophotes at every radius, from the waves of cells along an ellipse: Jedrzejewski's method (1987) for many galaxies at once.

Where cells along an ellipse are brighter at the ends of one axis, the isophote reaches farther there. The second harmonic over
the gradient says by how much; each radius is held to its neighbours, and to the galaxy's one ellipse, as far as its own
data are weak. Plain tensor arithmetic, on a GPU as it stands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.polar import ANGLES, RADII, Ellipses, Polar, Pyramid, nan_median

_ROUNDS = 4
_DAMPING = 0.8
_MOST_AT_ONCE = 0.15
_CLIP = 3.0
_CLIP_FLOOR = 0.1
_DOUBT = 0.05
"""Error of a harmonic at which a radius counts half."""
_ANCHOR = 0.05
_REACH = 0.12
"""Of a radius' say over its neighbours, natural logarithm."""
_MAD_TO_SIGMA = 1.4826


def fit_shapes(pyramid: Pyramid, ellipses: Ellipses) -> tuple[Tensor, Tensor]:
    """Return the shape of the isophote at each radius (B, R, 2), and how far its own data say so (B, R), 0 to 1.

    Parameters
    ----------
    pyramid : Pyramid
        Of one band, or of all of them added up.
    ellipses : Ellipses
        Each galaxy's one ellipse; all isophotes keep its centre.
    """
    shapes, trust = ellipses.shape[:, None].expand(-1, RADII, -1), None
    for _ in range(_ROUNDS):
        polar = pyramid.polar(ellipses, shapes=shapes, parts=2)
        bent, trust = _bent(polar, shapes)
        smooth = _held_to_neighbours(bent, trust, ellipses.shape, polar.radius)
        shapes = shapes + _DAMPING * (smooth - shapes)
    assert trust is not None
    return shapes, trust


def _bent(polar: Polar, shapes: Tensor) -> tuple[Tensor, Tensor]:
    """Return shapes with what the second harmonic of the cells changes about them, and the trust in each."""
    flux = polar.flux[:, 0]
    good = (polar.cover[:, 0] > 0.3).to(flux.dtype)
    middle = nan_median(torch.where(good > 0, flux, torch.nan)).nan_to_num(0.0)[..., None]
    apart = (flux - middle).abs()
    spread = _MAD_TO_SIGMA * nan_median(torch.where(good > 0, apart, torch.nan)).nan_to_num(0.0)[..., None]
    good = good * (apart <= _CLIP * spread + _CLIP_FLOOR * middle.abs())
    count = good.sum(dim=-1).clamp(min=1)
    mean = (good * flux).sum(dim=-1) / count
    step = (polar.radius[:, 1] / polar.radius[:, 0]).log()[:, None]
    fall = -torch.gradient(mean, dim=1)[0] / step
    fall = torch.nn.functional.avg_pool1d(torch.nn.functional.pad(fall[:, None], (1, 1), mode="replicate"), 3, 1)[:, 0]
    turn = 2 * math.pi * (torch.arange(ANGLES, device=flux.device) + 0.5) / ANGLES
    residual = good * (flux - mean[..., None])
    alpha, beta = (2 * (residual * wave).sum(dim=-1) / count for wave in ((2 * turn).cos(), (2 * turn).sin()))
    noise = (residual.square().sum(dim=-1) / count / (count / 2)).sqrt()
    falls = fall > 1e-9
    doubt = torch.where(falls, noise / fall.clamp(min=1e-9), torch.inf)
    alpha, beta = (
        torch.where(falls, wave / fall.clamp(min=1e-9), 0.0).clamp(-_MOST_AT_ONCE, _MOST_AT_ONCE)
        for wave in (alpha, beta)
    )
    trust = 1 / (1 + (doubt / _DOUBT).square()) * (count > ANGLES / 2)
    # the middle of a star's image has no shape of its own
    fwhm = polar.fwhm[:, 0].nan_to_num(4.0)
    trust = trust * (polar.radius > torch.maximum(fwhm / 2, torch.full_like(fwhm, 1.5))[:, None])
    return _stretched(shapes, alpha, beta), trust


def _stretched(shapes: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return shapes of ellipses (..., 2) whose isophotes reach farther by alpha cos 2t + beta sin 2t at eccentric anomaly t."""
    ratio = 1 - shapes.norm(dim=-1)
    first, cross, second = 1 + 2 * alpha, 2 * beta * ratio, (1 - 2 * alpha) * ratio.square()
    mean, half = (first + second) / 2, (first - second) / 2
    length = torch.hypot(half, cross)
    flat = 1 - ((mean - length).clamp(min=1e-4) / (mean + length)).sqrt()
    twice = torch.atan2(shapes[..., 1], shapes[..., 0]) + torch.atan2(cross, half)
    return (flat.clamp(max=0.92))[..., None] * torch.stack([twice.cos(), twice.sin()], dim=-1)


def _held_to_neighbours(shapes: Tensor, trust: Tensor, anchor: Tensor, radius: Tensor) -> Tensor:
    place = radius.log()
    kernel = torch.exp(-0.5 * ((place[:, :, None] - place[:, None, :]) / _REACH).square())
    weight = kernel * trust[:, None, :]
    total = weight.sum(dim=-1, keepdim=True) + _ANCHOR
    return (weight @ shapes + _ANCHOR * anchor[:, None]) / total
