"""True profiles of generated galaxies, and the radii at which profiles are compared with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tasks.sky.generator.render import Galaxies

RADII = 40
LEAST_SIGNAL = 3.0
_ANGLES = 128


def true_profile(galaxies: Galaxies, radii_arcsec: Tensor) -> Tensor:
    """Return mean brightness on ellipses of the generator's reference ellipse, of the galaxy alone and without noise.

    Parameters
    ----------
    galaxies : Galaxies
    radii_arcsec : Tensor, shape (galaxy, band, radius)
        Semi-major axes; NaN where there is none.

    Returns
    -------
    Tensor, shape (galaxy, band, radius)
        Nanomaggies per arcsec^2, through the point spread function and the pixel; NaN where the radius is, or where less than
        half of the ellipse lies on the image. Where more does, the mean is that of the part on the image.
    """
    truth, scale = galaxies.truth, galaxies.pixel_scale_arcsec
    turn = 2 * math.pi * (torch.arange(_ANGLES, device=radii_arcsec.device) + 0.5) / _ANGLES
    # equal steps of the eccentric anomaly: equal areas of a thin elliptical annulus
    semi_major = radii_arcsec[..., None] / scale
    along = semi_major * turn.cos()
    across = semi_major * turn.sin() * truth.axis_ratio[:, None, None, None]
    angle = truth.position_angle_deg.deg2rad()[:, None, None, None]
    x = truth.centre_x[:, None, None, None] - along * angle.sin() - across * angle.cos()
    y = truth.centre_y[:, None, None, None] + along * angle.cos() - across * angle.sin()
    pixels = galaxies.clean.shape[-1]
    inside = (x >= 0) & (x <= pixels - 1) & (y >= 0) & (y <= pixels - 1)
    place = torch.stack([2 * x / (pixels - 1) - 1, 2 * y / (pixels - 1) - 1], dim=-1).nan_to_num(0.0).flatten(0, 1)
    flat = galaxies.clean.flatten(0, 1)[:, None]
    seen = torch.nn.functional.grid_sample(flat, place, mode="bicubic", align_corners=True, padding_mode="border")
    seen = seen[:, 0].unflatten(0, radii_arcsec.shape[:2])
    share = inside.float().mean(dim=-1)
    mean = (seen * inside).sum(dim=-1) / inside.sum(dim=-1).clamp(min=1) / scale**2
    return torch.where((share >= 0.5) & radii_arcsec.isfinite(), mean, torch.nan)


def signal_to_noise(galaxies: Galaxies, radii_arcsec: Tensor) -> Tensor:
    """Return the true signal in an annulus one pixel wide over its noise, that of the sky alone, taken as independent."""
    scale = galaxies.pixel_scale_arcsec
    count = 2 * math.pi * radii_arcsec / scale * galaxies.truth.axis_ratio[:, None, None]
    return true_profile(galaxies, radii_arcsec) * scale**2 * count.sqrt() / galaxies.truth.sigma[:, :, None]


def evaluation_radii(galaxies: Galaxies) -> Tensor:
    """Return the radii at which profiles are compared: 40, log-spaced, from 1 pixel to the last of signal to noise 3.

    Returns
    -------
    Tensor, shape (galaxy, band, 40)
        Arcsec. The last lies where a one-pixel annulus falls to `LEAST_SIGNAL` for the first time, or where the reference ellipse
        touches the nearest edge of the image; NaN for what is not 3 times its noise at 1 pixel or lies on an edge.
    """
    scale = galaxies.pixel_scale_arcsec
    most = _reach_pixels(galaxies)
    step = torch.arange(0, max(float(most.max()) - 1, 0.5), 0.5, device=most.device)
    tried = (1 + step).expand(len(galaxies), len(galaxies.bands), -1)
    seen = (signal_to_noise(galaxies, tried * scale) >= LEAST_SIGNAL) & (tried <= most[:, None, None])
    last = seen.int().cumprod(dim=-1).sum(dim=-1) - 1
    outer = torch.where(last >= 1, 1 + 0.5 * last, torch.nan)
    power = torch.linspace(0, 1, RADII, device=most.device)
    radii = scale * outer[..., None] ** power
    # a power of 0 would make 1 of no radius
    return torch.where(outer[..., None].isfinite(), radii, torch.nan)


def _reach_pixels(galaxies: Galaxies) -> Tensor:
    """Return the semi-major axis of the largest reference ellipse inside each image, pixels."""
    truth, pixels = galaxies.truth, galaxies.clean.shape[-1]
    sine, cosine = truth.position_angle_deg.deg2rad().sin(), truth.position_angle_deg.deg2rad().cos()
    minor = truth.axis_ratio
    width = (sine.square() + (minor * cosine).square()).sqrt()
    height = (cosine.square() + (minor * sine).square()).sqrt()
    room_x = torch.minimum(truth.centre_x, pixels - 1 - truth.centre_x)
    room_y = torch.minimum(truth.centre_y, pixels - 1 - truth.centre_y)
    return torch.minimum(room_x / width, room_y / height)
