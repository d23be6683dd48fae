"""What a trained profile network is told of itself: how wide its errors really are, and what it has seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.profile_network import SIGNAL_EDGES, ProfileNet, rings
from tasks.sky.generator import BENCH_FULL, NATIVE_SCALE, draw, true_profile
from tasks.sky.network_pool import images_of_galaxies
from tasks.sky.network_profiles import find_profiles

_AT_ONCE = 32
_HELD = 0.68
_WIDEST, _NARROWEST = 3.0, 0.3
_SHRINKAGE = 0.1
_USUAL_SHARE = 0.995
_BEYOND = 1.2


@torch.inference_mode()
def calibrate(model: ProfileNet, galaxies: int, *, seed: int) -> dict[str, Any]:
    """Set a network's error scale by S/N, and what it takes for strange, on generated galaxies found as real ones are.

    Parameters
    ----------
    model : ProfileNet
        On the CPU, in eval mode; its buffers are changed.
    galaxies : int
        How many are drawn: half set the scale, the other half tell how often the intervals then hold.
    seed : int

    Returns
    -------
    dict
        JSON types: ``calibration`` by range of S/N, with the factor and the share held; ``strange_from``.
    """
    model.calibration.fill_(1.0)
    generator = torch.Generator().manual_seed(seed)
    parts = [_apart(model, min(_AT_ONCE, galaxies), generator) for _ in range(max(2, galaxies // _AT_ONCE))]
    half = len(parts) // 2
    signal, apart, features = (torch.cat([part[column] for part in parts]) for column in range(3))
    first = sum(len(part[0]) for part in parts[:half])
    edges = torch.tensor(SIGNAL_EDGES)
    place = torch.bucketize(signal, edges)
    told = {}
    for number in range(len(SIGNAL_EDGES) + 1):
        inside = apart[:first][place[:first] == number]
        factor = float(inside.quantile(_HELD).clamp(_NARROWEST, _WIDEST)) if len(inside) > 50 else 1.0
        model.calibration[number] = factor
        rest = apart[first:][place[first:] == number]
        low, high = ((0.0, *SIGNAL_EDGES)[number], (*SIGNAL_EDGES, None)[number])
        name = f"{low:g}-{high:g}" if high is not None else f">{low:g}"
        told[name] = {"factor": factor, "held": float((rest <= factor).float().mean()) if len(rest) else 0.0}
    _know(model, features)
    return {"calibration": told, "strange_from": float(model.strange_from)}


def _apart(model: ProfileNet, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return S/N, distance from the truth in half widths of the interval on that side, and features, of some galaxies."""
    galaxies = draw(count, BENCH_FULL, generator=generator, pixels=256, pixel_scale_arcsec=NATIVE_SCALE)
    images = images_of_galaxies(galaxies)
    expected = torch.stack([galaxies.truth.centre_x, galaxies.truth.centre_y], dim=-1)
    found = find_profiles(model, images, expected, pixel_scale_arcsec=NATIVE_SCALE)
    radii = (found.polar.radius * NATIVE_SCALE)[:, None].expand(-1, len(galaxies.bands), -1)
    truth = true_profile(galaxies, radii) * NATIVE_SCALE**2 / images.sigma[..., None]
    z = torch.asinh(found.intensity / (2 * found.error[..., None]))
    off = torch.asinh(truth / (2 * found.error)) - z[..., 1]
    width = torch.where(off > 0, z[..., 2] - z[..., 1], z[..., 1] - z[..., 0])
    known = truth.isfinite()
    ring = rings(found.polar.radius, found.polar.flattening)
    signal = (found.intensity[..., 1] * ring[:, None]).abs()
    return signal[known], (off.abs() / width.clamp(min=1e-6))[known], found.features.flatten(0, 1)


def _know(model: ProfileNet, features: Tensor) -> None:
    mean = features.mean(dim=0)
    covariance = torch.cov(features.T)
    width = len(mean)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * covariance.trace() / width * torch.eye(width)
    model.usual_mean.copy_(mean)
    model.usual_precision.copy_(torch.linalg.inv(covariance))
    model.strange_from.fill_(_BEYOND * float(model.strangeness(features).quantile(_USUAL_SHARE)))
