"""Profiles by the network: many cutouts at once, on a CPU or a GPU, with a doubt that says when to measure otherwise."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.isophote_shapes import fit_shapes
from models.polar import RADII, Ellipses, Images, Polar, Pyramid, find_centres, measure_sky, sky_block
from models.profile_network import ProfileNet
from storage.cutouts import Cutout
from storage.errors import SchemaMismatch
from storage.sky_schema import check_cutout
from tasks.errors import SourceRejected
from tasks.sky import ellipses as isophotes
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.measured_profile import Measurement, to_profile
from tasks.sky.neighbours import search_radius
from tasks.sky.network_pool import search_reach
from tasks.sky.prepare import expected_place, width_of_points
from tasks.sky.profile import ObjectFlag, Profile
from tasks.sky.profile_models import load_reader

KIND = "profile-net"
LARGEST = 512
"""Pixels of a side that are read as they are."""
_SIZE_STEP = 32
_TOGETHER = 16
"""Galaxies: so many that each call's own cost is spread, so few that arrays of three bands of 256 pixels are kept, not given back."""
PASSES = 3
"""How often the ellipse is corrected, from a circle on."""
_LEAST_SIGNAL = 5.0
"""S/N that an annulus has to reach for there to be an object."""
_MOST_DOUBT_MAG = 0.2
_TRUSTED_SIGNAL = 10.0
_UNSETTLED = 0.12
"""Change of shape in the last pass from which on the ellipse is not found."""
_NEIGHBOUR_SHARE = 0.85
_SKY_SIGNAL = 1.0
_RADII_OF_SKY = 4
_JITTER_PIXELS, _JITTER_SHAPE = 0.3, 0.02


@dataclass(frozen=True)
class NetworkMethod:
    """Reads profiles with a network of kind `KIND`.

    Parameters
    ----------
    warehouse : str
        URL.
    model : str
        Best as ``name/version``: each process reads it by itself.
    fixed_geometry : bool
        One ellipse at all radii, instead of each isophote's own.
    members : int
        Passes about slightly different ellipses that are put together: 1 for one; more cost as many times the time.
    fallback : IsophoteMethod or None
        What measures an object that the network is unsure of; None to keep its answer, flagged.
    together : int
        Cutouts at once, of different sizes as they come: those of one size go through the network together.
    """

    warehouse: str
    model: str
    fixed_geometry: bool = False
    members: int = 1
    fallback: IsophoteMethod | None = None
    name: str = "network"
    together: int = 32

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return one profile per band; those of `fallback` where the network is unsure and that gives some.

        Raises
        ------
        SourceRejected
            With reason ``no-object`` where nothing stands out of the noise.
        """
        begun = time.monotonic()
        (found,) = self.measure_many([cutout])
        if isinstance(found, SourceRejected):
            raise found
        other = self.second_method(found)
        if other is None:
            return found
        try:
            return other.measure(cutout, time_limit_s=time_limit_s - (time.monotonic() - begun))
        except SourceRejected:
            return found

    def measure_many(self, cutouts: Sequence[Cutout]) -> list[tuple[Profile, ...] | SourceRejected]:
        """Return for each cutout one profile per band, or why there is none; `fallback` is not asked."""
        return read_profiles(
            load_profile_net(self.warehouse, self.model),
            cutouts,
            fixed_geometry=self.fixed_geometry,
            members=self.members,
        )

    def second_method(self, found: tuple[Profile, ...]) -> IsophoteMethod | None:
        """Return `fallback` where the network is unsure, else None."""
        return self.fallback if any(profile.object_flags & ObjectFlag.UNSURE for profile in found) else None


def load_profile_net(warehouse: str, name: str) -> ProfileNet:
    """Return a model of the warehouse, or a shipped one: see `load_reader`."""
    return load_reader(warehouse, name, ProfileNet, method="network", kind=KIND)


def open_network(
    warehouse: str,
    name: str,
    *,
    fixed_geometry: bool = False,
    members: int = 1,
    fallback: IsophoteMethod | None = None,
) -> NetworkMethod:
    """Return the method with a model, its kind looked at.

    Raises
    ------
    NotFound, ConfigurationError
        As `load_reader`.
    """
    load_profile_net(warehouse, name)
    return NetworkMethod(warehouse, name, fixed_geometry, members, fallback)


@dataclass(frozen=True)
class Found:
    """What the network says of a batch.

    Parameters
    ----------
    ellipses : Ellipses
        The outer disc's.
    shapes, trust : Tensor, shape (B, R, 2) and (B, R)
        Of the isophotes that were read along, and how far the data of their own radius say so; 0 where it is one ellipse.
    polar : Polar
        About them.
    intensity : Tensor, shape (B, K, R, 3)
        Flux per pixel in units of a pixel's noise, at the network's quantiles.
    measured, own, error : Tensor, shape (B, K, R)
        See `models.profile_network.Reading`.
    inside : Tensor, shape (B, R)
        Share of each ellipse that lies on the image.
    unsettled : Tensor, shape (B,)
        Change of shape in the last pass.
    features : Tensor, shape (B, K, D)
        See `models.profile_network.Reading`.
    strange : Tensor, shape (B, K), bool
        Unlike anything in the training.
    level, level_error : Tensor, shape (B, K)
        The sky that was taken off, units of a pixel's noise.
    """

    ellipses: Ellipses
    shapes: Tensor
    trust: Tensor
    polar: Polar
    intensity: Tensor
    measured: Tensor
    own: Tensor
    error: Tensor
    inside: Tensor
    unsettled: Tensor
    features: Tensor
    strange: Tensor
    level: Tensor
    level_error: Tensor


def find_profiles(
    model: ProfileNet,
    images: Images,
    expected: Tensor,
    *,
    pixel_scale_arcsec: float,
    fixed_geometry: bool = True,
    members: int = 1,
) -> Found:
    """Return what the network says of a batch of images; all that a GPU has to do.

    Parameters
    ----------
    model : ProfileNet
        In eval mode, on the images' device.
    images : Images
    expected : Tensor, shape (B, 2)
        Where each object should be, pixels, x before y.
    pixel_scale_arcsec : float
    fixed_geometry, members : bool, int
        See `NetworkMethod`.
    """
    with torch.inference_mode():
        sky = measure_sky(images)
        pyramid = Pyramid(images, sky)
        whole = Pyramid(images.summed(sky), sky.summed(images)) if images.flux.shape[1] > 1 else pyramid
        alone = torch.ones(len(images.flux), 1, dtype=torch.bool, device=images.flux.device)
        batch, bands = images.sigma.shape
        use = images.there
        centre = find_centres(images, sky, expected, reach=search_reach(images.shape, pixel_scale_arcsec))
        ellipses = Ellipses(centre, torch.zeros_like(centre))
        before = ellipses
        for _ in range(PASSES):
            before, ellipses = ellipses, _moved(ellipses, *model.correct(whole.polar(ellipses, parts=2), alone))
        shapes, trust = ellipses.shape[:, None].expand(-1, RADII, -1), torch.zeros(batch, RADII, device=use.device)
        if not fixed_geometry:
            shapes, trust = fit_shapes(whole, ellipses)
        polar = pyramid.polar(ellipses, shapes=shapes)
        reading = model.read_bands(polar, use)
        intensity = reading.intensity
        if members > 1:
            others = (pyramid.polar(near, shapes=shapes + bend) for near, bend in _about(ellipses, members - 1))
            more = [model.read_bands(other, use).intensity for other in others]
            intensity = pooled([intensity, *more])
        strange = model.strangeness(reading.features) > model.strange_from
        split = (batch, bands)
        return Found(
            ellipses,
            shapes,
            trust,
            polar,
            intensity.unflatten(0, split),
            reading.measured.unflatten(0, split),
            (reading.own * reading.seen).unflatten(0, split),
            reading.error.unflatten(0, split),
            pyramid.inside(ellipses.centre, shapes, polar.radius),
            (ellipses.shape - before.shape).norm(dim=-1),
            reading.features.unflatten(0, split),
            strange.unflatten(0, split),
            sky.level,
            sky.error,
        )


def _moved(ellipses: Ellipses, shift: Tensor, bend: Tensor) -> Ellipses:
    """Return corrected ellipses; an image of nothing, which gives no numbers, keeps its own: it must not cost a whole batch."""
    sound = (shift.isfinite() & bend.isfinite()).all(dim=-1, keepdim=True)
    return ellipses.moved(torch.where(sound, shift, 0.0), torch.where(sound, bend, 0.0))


def _about(ellipses: Ellipses, count: int) -> list[tuple[Ellipses, Tensor]]:
    """Return ellipses with another centre, each off in another direction, and changes of shape; the same ones each time."""
    found = []
    for number in range(count):
        turn = torch.tensor(2 * math.pi * (number + 0.5) / count)
        step = torch.stack([turn.cos(), turn.sin()]).to(ellipses.centre)
        found.append((Ellipses(ellipses.centre + _JITTER_PIXELS * step, ellipses.shape), _JITTER_SHAPE * step.flip(0)))
    return found


def pooled(members: Sequence[Tensor]) -> Tensor:
    """Return intensities at quantiles (..., 3) of several passes as one: their mean, and its width.

    A pass' width holds what passes differ by; of that the mean of n keeps an n-th part, in squares, and no less where they differ
    by more than they say.
    """
    stacked = torch.stack(list(members))
    count, mean, between = len(stacked), stacked.mean(dim=0), stacked[..., 1].var(dim=0)
    low, high = (
        ((width.square() - between).clamp(min=0) + between / count).sqrt()
        for width in (mean[..., 1] - mean[..., 0], mean[..., 2] - mean[..., 1])
    )
    return torch.stack([mean[..., 1] - low, mean[..., 1], mean[..., 1] + high], dim=-1)


def read_profiles(
    model: ProfileNet,
    cutouts: Sequence[Cutout],
    *,
    fixed_geometry: bool = False,
    members: int = 1,
    device: torch.device | str = "cpu",
) -> list[tuple[Profile, ...] | SourceRejected]:
    """Return for each cutout one profile per band, or why there is none.

    Those with as many bands, the same pixel scale and about the same size are read together.

    Parameters
    ----------
    model : ProfileNet
        In eval mode, on `device`.
    cutouts : sequence of Cutout
    fixed_geometry, members : bool, int
        See `NetworkMethod`.
    device : torch.device or str
    """
    groups: dict[_Kind, list[int]] = {}
    made: dict[int, tuple[Profile, ...] | SourceRejected] = {}
    for number, cutout in enumerate(cutouts):
        try:
            check_cutout(cutout)
        except SchemaMismatch as error:
            made[number] = SourceRejected(str(error))
            continue
        groups.setdefault(_Kind.of(cutout), []).append(number)
    for group in groups.values():
        # where bands share their mask it is read once, if those beside them do so too
        group.sort(key=lambda number: _has_band_masks(cutouts[number]))
    together = _TOGETHER if torch.device(device).type == "cpu" else len(cutouts)
    pieces = [
        (kind.factor, group[at : at + together])
        for kind, group in groups.items()
        for at in range(0, len(group), together)
    ]
    for factor, numbers in pieces:
        some = [cutouts[number] for number in numbers]
        begun = time.monotonic()
        places = [expected_place(cutout) for cutout in some]
        expected = (torch.tensor(places, dtype=torch.float32, device=device) + 0.5) / factor - 0.5
        images = images_of_cutouts(some).to(device).binned(factor)
        found = find_profiles(
            model,
            images,
            expected,
            pixel_scale_arcsec=factor * some[0].pixel_scale_arcsec,
            fixed_geometry=fixed_geometry,
            members=members,
        )
        # on the pixels of the cutout again: places, radii, and flux per pixel
        sigma, host = images.sigma.cpu().numpy() / factor**2, _to_host(found)
        host["radius"], host["centre"] = host["radius"] * factor, (host["centre"] + 0.5) * factor - 0.5
        profiles = [_profiles(cutout, host, row, sigma[row], places[row]) for row, cutout in enumerate(some)]
        seconds = (time.monotonic() - begun) / len(some) / len(some[0].bands)
        for number, one in zip(numbers, profiles, strict=True):
            timed = one if isinstance(one, SourceRejected) else tuple(replace(each, seconds=seconds) for each in one)
            made[number] = timed
    return [made[number] for number in range(len(cutouts))]


@dataclass(frozen=True)
class _Kind:
    """What cutouts have in common that are read together: they are padded to one size, and nothing else changes for that.

    Parameters
    ----------
    bands : int
    pixel_scale_arcsec : float
    factor : int
        See `binning_of`.
    block : int
        See `sky_block`.
    rows, columns : int
        Size, in steps of `_SIZE_STEP`.
    """

    bands: int
    pixel_scale_arcsec: float
    factor: int
    block: int
    rows: int
    columns: int

    @classmethod
    def of(cls, cutout: Cutout) -> _Kind:
        factor = binning_of(cutout.shape)
        smallest = -(-min(cutout.shape) // factor)
        rows, columns = (-(-side // _SIZE_STEP) for side in cutout.shape)
        scale = round(cutout.pixel_scale_arcsec, 6)
        return cls(len(cutout.bands), scale, factor, sky_block(smallest), rows, columns)


def _has_band_masks(cutout: Cutout) -> bool:
    """Return whether bands differ in where they have data."""
    known = cutout.valid & (cutout.ivar > 0)
    return bool((known[1:] != known[:1]).any())


def binning_of(shape: tuple[int, ...]) -> int:
    """Return by what an image is made coarser before it is read: galaxies that fill thousands of pixels were never learned from.

    Examples
    --------
    >>> binning_of((512, 300)), binning_of((2000, 2000))
    (1, 4)
    """
    factor = 1
    while max(shape) > factor * LARGEST:
        factor *= 2
    return factor


def images_of_cutouts(cutouts: Sequence[Cutout]) -> Images:
    """Return cutouts of as many bands as the network's images, padded to one size; a usual star's width where none is known."""
    size = tuple(max(cutout.shape[axis] for cutout in cutouts) for axis in (0, 1))
    flux, ivar, valid = (
        torch.from_numpy(np.stack([_padded(getattr(cutout, name), size) for cutout in cutouts]))
        for name in ("flux", "ivar", "valid")
    )
    fwhm = []
    for cutout in cutouts:
        usual = width_of_points(cutout)
        widths = (band.psf_fwhm_arcsec / cutout.pixel_scale_arcsec for band in cutout.bands)
        fwhm.append([width if math.isfinite(width) else usual for width in widths])
    shape = torch.tensor([cutout.shape for cutout in cutouts])
    return Images.of(flux.float(), ivar.float(), valid, shape=shape, fwhm=torch.tensor(fwhm, dtype=torch.float32))


def _padded(planes: NDArray[np.generic], size: tuple[int, ...]) -> NDArray[np.generic]:
    """Return planes (band, y, x) with zeros above and to the right of them."""
    rows, columns = (whole - side for whole, side in zip(size, planes.shape[-2:], strict=True))
    return np.pad(planes, ((0, 0), (0, rows), (0, columns))) if rows or columns else planes


def _to_host(found: Found) -> dict[str, NDArray[np.float64]]:
    """Return what profiles are made of, as arrays."""
    tensors = {name: value for name, value in vars(found).items() if isinstance(value, Tensor)}
    tensors |= {"radius": found.polar.radius, "centre": found.ellipses.centre}
    return {name: value.detach().cpu().double().numpy() for name, value in tensors.items()}


def _profiles(
    cutout: Cutout,
    found: dict[str, NDArray[np.float64]],
    row: int,
    sigma: NDArray[np.float64],
    place: tuple[float, float],
) -> tuple[Profile, ...] | SourceRejected:
    signal = found["intensity"][row, :, :, 1] / found["error"][row]
    if not (signal.max(initial=0.0) > _LEAST_SIGNAL):
        return SourceRejected(f"{cutout.object_id}: nothing stands out of the noise at its place", reason="no-object")
    radius = found["radius"][row]
    ellipses = isophotes.Ellipses(
        float(found["centre"][row, 0]),
        float(found["centre"][row, 1]),
        np.zeros((radius.size, 2)),
        radius,
        found["shapes"][row],
        found["trust"][row],
    )
    apart = math.hypot(place[0] - ellipses.x, place[1] - ellipses.y)
    lost = apart > search_radius(cutout.shape, cutout.pixel_scale_arcsec)
    flags = ObjectFlag.OFF_CENTRE if lost else ObjectFlag(0)
    if _is_unsure(found, row, signal):
        flags |= ObjectFlag.UNSURE
    return tuple(
        _profile(cutout, index, ellipses, {name: values[row] for name, values in found.items()}, sigma[index], flags)
        for index in range(len(cutout.bands))
    )


def _is_unsure(found: dict[str, NDArray[np.float64]], row: int, signal: NDArray[np.float64]) -> bool:
    """Return whether another method should look: strange to the network, its ellipse not settled, or its own errors large."""
    low, middle, high = np.moveaxis(found["intensity"][row], -1, 0)
    doubt = 0.5 * (high - low) / np.maximum(middle, 1e-12)
    bright = signal > _TRUSTED_SIGNAL
    doubtful = bright.any() and float(np.median(doubt[bright])) > _MOST_DOUBT_MAG * math.log(10) / 2.5
    return bool(doubtful or found["unsettled"][row] > _UNSETTLED or found["strange"][row].all())


def _profile(
    cutout: Cutout,
    index: int,
    ellipses: isophotes.Ellipses,
    found: dict[str, NDArray[np.float64]],
    sigma: float,
    flags: ObjectFlag,
) -> Profile:
    unit = float(sigma) * cutout.nanomaggies_per_unit(index) / cutout.pixel_scale_arcsec**2
    low, intensity, high = np.moveaxis(found["intensity"][index], -1, 0)
    error, own = 0.5 * (high - low), found["own"][index]
    inside, noise = found["inside"], found["error"][index]
    drowned = (np.abs(intensity) < _SKY_SIGNAL * noise) & (inside > 0.3) & (own > 0.1)
    drowned &= np.arange(drowned.size) >= drowned.size // 2
    excess, spread = 0.0, float(found["level_error"][index])
    if drowned.sum() >= _RADII_OF_SKY:
        # what is left under the network's profile where the galaxy has drowned is sky
        weight = drowned / noise**2
        excess = float((weight * (found["measured"][index] - intensity)).sum() / weight.sum())
    else:
        flags |= ObjectFlag.NO_SKY
    bright = intensity > _TRUSTED_SIGNAL * noise
    if bright.any() and float((own / np.maximum(inside, 1e-9))[bright].min()) < _NEIGHBOUR_SHARE:
        flags |= ObjectFlag.NEIGHBOURS
    measurement = Measurement(
        intensity * unit,
        error * unit,
        np.minimum(noise, error) * unit,
        own,
        inside,
        (float(found["level"][index]) + excess) * unit,
        spread * unit,
    )
    within = np.zeros(intensity.size, dtype=bool)
    return to_profile(cutout, index, measurement, ellipses, within=within, method="network", object_flags=flags)
