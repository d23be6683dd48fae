"""What a trained profile network is told of itself: how wide its errors really are, and what it has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.profile_network import SIGNAL_EDGES, ProfileNet, rings
from tasks.sky.generator import BENCH_FULL, BENCH_SIMPLE, NATIVE_SCALE, GalaxyPrior, draw, true_profile
from tasks.sky.network_pool import images_of_galaxies
from tasks.sky.network_profiles import find_profiles

_AT_ONCE = 32
_HELD = 0.68
_WIDEST, _NARROWEST = 3.0, 0.3
_FEWEST = 50
_SHRINKAGE = 0.1
_USUAL_SHARE = 0.995
_BEYOND = 1.2
_STEPS, _RATE = 400, 0.03
_RIDGE = 1e-2
"""Of the leaning, in units of the features' own scatter."""
_FACTORS = (1e-3, 30.0)
_HALVINGS = 20
_RANGES = len(SIGNAL_EDGES) + 1


@dataclass(frozen=True)
class _Apart:
    """How far profiles are off.

    Parameters
    ----------
    range : Tensor of int64, shape (N,)
        Of S/N, at each radius.
    ratio : Tensor, shape (N,)
        Factor on the network's own widths at which the error that a profile states is the distance from the truth.
    row : Tensor of int64, shape (N,)
        Whose features.
    features : Tensor, shape (M, D)
        Of each band of each galaxy.
    """

    range: Tensor
    ratio: Tensor
    row: Tensor
    features: Tensor


@torch.inference_mode()
def calibrate(model: ProfileNet, galaxies: int, *, seed: int) -> dict[str, Any]:
    """Set a network's error scale, and what it takes for strange, on generated galaxies found as real ones are.

    The scale is a factor by S/N, times one that the features of the whole profile give there, so that intervals hold as often for
    plain galaxies as for those with arms and neighbours; both kinds count alike.

    Parameters
    ----------
    model : ProfileNet
        On the CPU, in eval mode; its buffers are changed.
    galaxies : int
        How many are drawn of either kind together: half set the scale, the other half tell how often the intervals then hold.
    seed : int

    Returns
    -------
    dict
        JSON types: ``calibration`` by range of S/N, with the factor and the share held, of plain galaxies too; ``strange_from``.
    """
    model.calibration.fill_(1.0)
    model.leaning.zero_()
    generator = torch.Generator().manual_seed(seed)
    batches = max(2, galaxies // (2 * _AT_ONCE))
    full, plain = (
        [_apart(model, prior, min(_AT_ONCE, galaxies), generator) for _ in range(batches)]
        for prior in (BENCH_FULL, BENCH_SIMPLE)
    )
    _know(model, torch.cat([part.features for part in full]))
    half = batches // 2
    fitted = [_joined(parts[:half]) for parts in (full, plain)]
    model.leaning.copy_(_lean(model.usual_mean, fitted))
    _set_factors(model, fitted)
    held = [_held(model, _joined(parts[half:])) for parts in (full, plain)]
    told = {
        name: {"factor": float(model.calibration[number]), "held": held[0][number], "held_plain": held[1][number]}
        for number, name in enumerate(_names())
    }
    return {"calibration": told, "strange_from": float(model.strange_from)}


def _names() -> list[str]:
    return [f"{low:g}-{high:g}" for low, high in zip((0.0, *SIGNAL_EDGES), SIGNAL_EDGES, strict=False)] + [
        f">{SIGNAL_EDGES[-1]:g}"
    ]


def _apart(model: ProfileNet, prior: GalaxyPrior, count: int, generator: torch.Generator) -> _Apart:
    """Return how far the profiles of some galaxies are off."""
    galaxies = draw(count, prior, generator=generator, pixels=256, pixel_scale_arcsec=NATIVE_SCALE)
    images = images_of_galaxies(galaxies)
    expected = torch.stack([galaxies.truth.centre_x, galaxies.truth.centre_y], dim=-1)
    found = find_profiles(model, images, expected, pixel_scale_arcsec=NATIVE_SCALE)
    radii = (found.polar.radius * NATIVE_SCALE)[:, None].expand(-1, len(galaxies.bands), -1)
    truth = true_profile(galaxies, radii) * NATIVE_SCALE**2 / images.sigma[..., None]
    units = found.intensity / (2 * found.error[..., None])
    needed = _needed(torch.asinh(units), (truth / (2 * found.error) - units[..., 1]).abs())
    known = truth.isfinite()
    signal = (found.intensity[..., 1] * rings(found.polar.radius, found.polar.flattening)[:, None]).abs()
    features = found.features.flatten(0, 1)
    row = torch.arange(len(features)).reshape(known.shape[:2])[..., None].expand_as(known)
    return _Apart(
        torch.bucketize(signal[known], torch.tensor(SIGNAL_EDGES)),
        needed[known],
        row[known],
        features,
    )


def _needed(z: Tensor, apart: Tensor) -> Tensor:
    """Return the factor on the widths of quantiles z (..., 3) at which the error that a profile states is `apart`.

    That is half of the interval's length in intensity, sinh z; the length grows with the factor, so halving steps find it.
    """
    low, middle, high = z.unbind(-1)
    least, most = (torch.full_like(apart, math.log(edge)) for edge in _FACTORS)
    for _ in range(_HALVINGS):
        factor = ((least + most) / 2).exp()
        length = torch.sinh(middle + factor * (high - middle)) - torch.sinh(middle - factor * (middle - low))
        short = length < 2 * apart
        least, most = torch.where(short, (least + most) / 2, least), torch.where(short, most, (least + most) / 2)
    return ((least + most) / 2).exp()


def _joined(parts: list[_Apart]) -> _Apart:
    first, rows = 0, []
    for part in parts:
        rows.append(part.row + first)
        first += len(part.features)
    ranges, ratio, features = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("range", "ratio", "features")
    )
    return _Apart(ranges, ratio, torch.cat(rows), features)


def _shares(part: _Apart) -> Tensor:
    """Return weights by which each range of S/N counts alike, sum 1."""
    count = torch.bincount(part.range, minlength=_RANGES)
    return 1 / count[part.range] / (count > 0).sum()


@torch.inference_mode(mode=False)
def _lean(usual: Tensor, parts: list[_Apart]) -> Tensor:
    """Return how the logarithm of the widening leans on features less the usual ones, shape (ranges, D): linear quantile regressions.

    Koenker and Bassett 1978: of all lines, that which 68 % of the ratios lie below has the least sum of distances, those above it
    weighed by 0.68 and those below by 0.32.
    """
    apart = torch.cat([part.features for part in parts]).clone() - usual.clone()
    unit = apart.std(dim=0) + 1e-3
    ranges, weight, ratio = _together(parts)
    starts = [sum(len(part.features) for part in parts[:number]) for number in range(len(parts))]
    row = torch.cat([part.row + start for part, start in zip(parts, starts, strict=True)])
    leaning = torch.zeros(_RANGES, len(unit))
    for number in range(_RANGES):
        inside = ranges == number
        if inside.sum() > _FEWEST:
            wanted = ratio[inside].clone().log()
            leaning[number] = _line((apart / unit)[row[inside]], wanted, weight[inside].clone()) / unit
    return leaning


def _line(features: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the slopes of one quantile regression, held to zero a little."""
    level, lean = torch.zeros(1, requires_grad=True), torch.zeros(features.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([level, lean], lr=_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
    for _ in range(_STEPS):
        above = wanted - level - features @ lean
        pinball = torch.maximum(_HELD * above, (_HELD - 1) * above)
        loss = (weight * pinball).sum() / weight.sum() + _RIDGE * lean.square().sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        decay.step()
    return lean.detach()


def _together(parts: list[_Apart]) -> tuple[Tensor, Tensor, Tensor]:
    """Return range, weight and ratio of the radii of all kinds, which count alike in each range."""
    columns = zip(*((part.range, _shares(part), part.ratio) for part in parts), strict=True)
    ranges, weight, ratio = (torch.cat(column) for column in columns)
    return ranges, weight, ratio


def _widths(model: ProfileNet, part: _Apart) -> Tensor:
    """Return by how much each radius' interval is widened by its profile's features."""
    return model.widening(part.features)[part.row, part.range]


def _set_factors(model: ProfileNet, parts: list[_Apart]) -> None:
    """Set the factor of each range of S/N to what holds 68 % of the radii of all kinds, which count alike."""
    ranges, weight, ratio = _together(parts)
    ratio = ratio / torch.cat([_widths(model, part) for part in parts])
    for number in range(_RANGES):
        inside = ranges == number
        order = ratio[inside].argsort()
        share = weight[inside][order].cumsum(0)
        place = int((share < _HELD * share[-1:]).sum())
        factor = ratio[inside][order][place].clamp(_NARROWEST, _WIDEST) if len(order) > _FEWEST else 1.0
        model.calibration[number] = factor


def _held(model: ProfileNet, part: _Apart) -> list[float]:
    """Return the share of radii whose interval holds the truth, by range of S/N."""
    width = model.calibration[part.range] * _widths(model, part)
    inside = (part.ratio <= width).float()
    return [float(inside[part.range == number].mean().nan_to_num(0.0)) for number in range(_RANGES)]


def _know(model: ProfileNet, features: Tensor) -> None:
    mean = features.mean(dim=0)
    covariance = torch.cov(features.T)
    width = len(mean)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * covariance.trace() / width * torch.eye(width)
    model.usual_mean.copy_(mean)
    model.usual_precision.copy_(torch.linalg.inv(covariance))
    model.strange_from.fill_(_BEYOND * float(model.strangeness(features).quantile(_USUAL_SHARE)))
