"""Images about a galaxy, read off along ellipses: brightness in cells of semi-major axis and angle, for many at once.

A cell far out covers many pixels. It is read from an image that was halved until a pixel is about as large as a part
of the cell (a pyramid, Williams 1983), so that all pixels count and none is visited twice; near the middle, where light is
steep, a cubic reads between the pixels. All of it is plain tensor arithmetic and runs on a GPU as it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RADII = 64
ANGLES = 32
FIRST_PIXELS = 0.5
"""Semi-major axis of the innermost radius."""
_PARTS = 4
"""Parts of a cell along the ellipse; across it there are two."""
_CUBIC_WITHIN = 8.0
_CUBIC_ANGLES = 64
_LEVELS = 6
_THIN = 4
"""Of so many pixels one is looked at for the noise of all."""
_MOST_FLATTENED = 0.92
_SKY_BLOCKS = 600
_SKY_CLIP = 2.5
_SKY_FROM = 0.7
"""Of the way from the middle to the nearest edge."""
_SKY_ROUNDS = 5
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Images:
    """Images of a batch, padded to one size.

    Parameters
    ----------
    flux : Tensor, shape (B, K, Y, X)
        Flux per pixel in units of the noise of a pixel of that band; 0 where there is no data.
    weight : Tensor, shape (B, K, Y, X)
        1 where there is data.
    sigma : Tensor, shape (B, K)
        The noise of a pixel, in the unit of the survey.
    shape : Tensor, shape (B, 2)
        Rows and columns without the padding.
    fwhm : Tensor, shape (B, K)
        Of the point spread function, pixels; NaN where it is not known.
    """

    flux: Tensor
    weight: Tensor
    sigma: Tensor
    shape: Tensor
    fwhm: Tensor

    @classmethod
    def of(cls, flux: Tensor, ivar: Tensor, valid: Tensor, *, shape: Tensor, fwhm: Tensor) -> Images:
        """Return images from flux, inverse variance (0 where it is not known) and validity, each (B, K, Y, X)."""
        # numbers of 0 and 1 instead of truths where there are many: several times as fast on a CPU
        good = valid.view(torch.uint8).to(flux.dtype)
        finite = bool(flux.sum().isfinite())
        if not finite:
            good = good * flux.isfinite()
        thin_ivar, thin_good = (part[..., ::_THIN, ::_THIN].flatten(2) for part in (ivar, good))
        thin_known = (thin_good > 0) & (thin_ivar > 0)
        has_ivar = thin_known.sum(dim=-1) > 0.02 * thin_good.sum(dim=-1)
        # a pixel without inverse variance is a bad one, unless none has any
        known = torch.gt(ivar, 0, out=torch.empty_like(good))
        good.mul_(known if has_ivar.all() else known.maximum((~has_ivar[..., None, None]).to(good.dtype)))
        sigma = nan_median(torch.where(thin_known, thin_ivar, torch.nan)).rsqrt()
        if not has_ivar.all():
            sigma = torch.where(has_ivar, sigma, _pixel_noise(flux, good > 0))
        sigma = sigma.nan_to_num(1.0).clamp(min=1e-30)
        masks = good[:, :1] if _all_alike(good) else good
        scaled = (flux if finite else torch.where(good > 0, flux, 0.0)) * (masks / sigma[..., None, None])
        return cls(scaled, masks.expand_as(flux), sigma, shape, fwhm)

    @cached_property
    def there(self) -> Tensor:
        """Return which bands have data, shape (B, K)."""
        return (self.masks.flatten(2).amax(dim=-1) > 0).expand_as(self.sigma)

    @cached_property
    def masks(self) -> Tensor:
        """Return `weight` of each band, or the one that all share, shape (B, K or 1, Y, X)."""
        shared = self.weight.stride(1) == 0 or _all_alike(self.weight)
        return self.weight[:, :1] if shared else self.weight

    @cached_property
    def levels(self) -> list[Tensor]:
        """Return flux and `masks` (B, K + masks, ., .) of larger pixels: means of two by two, again and again."""
        planes = [torch.cat([_halved(_padded(part)) for part in (self.flux, self.masks)], dim=1)]
        for _ in range(_LEVELS - 2):
            planes.append(_halved(planes[-1]))
        return planes

    def binned(self, factor: int) -> Images:
        """Return images of pixels `factor` times as wide, each with the light of those that it covers; half of them must be known."""
        if factor == 1:
            return self
        rows, columns = self.flux.shape[-2:]
        pad = (0, -columns % factor, 0, -rows % factor)
        share = F.avg_pool2d(F.pad(self.weight, pad), factor)
        mean = F.avg_pool2d(F.pad(self.flux, pad), factor) / share.clamp(min=1e-6)
        known = share >= 0.5
        # the noise of a sum of n pixels is the root of n times that of one
        flux = torch.where(known, mean * factor, 0.0)
        shape = torch.div(self.shape + factor - 1, factor, rounding_mode="floor")
        return Images(flux, known.to(flux.dtype), self.sigma * factor, shape, self.fwhm / factor)

    def summed(self, sky: Sky) -> Images:
        """Return the bands added up as one, K = 1, sky taken off, in units of the sum's noise."""
        count = self.there.sum(dim=1).clamp(min=1).to(self.flux.dtype)[:, None, None]
        level = sky.level.unflatten(1, (self.masks.shape[1], -1))  # of the bands that each mask is for
        weight = self.masks.sum(dim=1) * level.shape[2]
        excess = self.flux.sum(dim=1).sub_(torch.einsum("bm,bmyx->byx", level.sum(dim=2), self.masks))
        flux = excess.div_(weight.clamp(min=1e-6)).mul_(count.sqrt())
        fwhm = torch.where(self.there, self.fwhm, torch.nan).nanmean(dim=1, keepdim=True)
        one = torch.ones_like(self.sigma[:, :1])
        return Images(flux[:, None], (weight / count)[:, None], one, self.shape, fwhm)

    def to(self, device: torch.device | str) -> Images:
        """Return them on a device."""
        moved = (part.to(device) for part in (self.flux, self.weight, self.sigma, self.shape, self.fwhm))
        return Images(*moved)


def _all_alike(masks: Tensor) -> bool:
    """Return whether bands (B, K, Y, X) have the same masks."""
    return not bool((masks[:, 1:] - masks[:, :1]).abs_().sum())


def nan_median(values: Tensor) -> Tensor:
    """Return the lower median of the numbers along the last axis, NaN where there are none; of no gradient.

    On a CPU numpy sorts short rows several times as fast as torch looks for their middle.
    """
    if values.device.type != "cpu":
        return values.nanmedian(dim=-1).values
    ordered = np.sort(values.numpy(), axis=-1)  # NaN comes last
    count = np.count_nonzero(ordered == ordered, axis=-1)
    return torch.from_numpy(np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)[..., 0])


def _pixel_noise(flux: Tensor, good: Tensor) -> Tensor:
    """Return the scatter of differences of pixels two apart, shape (B, K)."""
    apart = torch.where(good[..., 2:] & good[..., :-2], flux[..., 2:] - flux[..., :-2], torch.nan)[..., ::2, ::2]
    return _MAD_TO_SIGMA / math.sqrt(2) * nan_median(apart.abs().flatten(2))


@dataclass(frozen=True)
class Sky:
    """The sky of each band, units of the noise of a pixel, each shape (B, K).

    Parameters
    ----------
    level, error : Tensor
        Flux per pixel.
    inflation : Tensor
        By what the error of a mean over many pixels exceeds that of as many independent ones.
    """

    level: Tensor
    error: Tensor
    inflation: Tensor

    def summed(self, images: Images) -> Sky:
        """Return the sky of `Images.summed`: none is left, and its noise is as correlated as that of the bands on average."""
        there = images.there.to(self.level.dtype)
        mean = (self.inflation * there).sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
        nothing = torch.zeros_like(mean)
        return Sky(nothing, nothing + self.error.amin(dim=1, keepdim=True), mean.clamp(min=1.0))


def sky_block(side: int) -> int:
    """Return the side of the blocks whose means are the sky, for images of so many pixels a side, at least.

    Examples
    --------
    >>> sky_block(64), sky_block(256)
    (2, 8)
    """
    level = 0
    while side >= 2 ** (level + 1) * math.sqrt(_SKY_BLOCKS) and level < 3:
        level += 1
    return 2**level


def measure_sky(images: Images) -> Sky:
    """Return the sky from means of blocks of pixels in the outer part of each image, clipped of both sides."""
    side, bands = sky_block(int(images.shape.amin())), images.flux.shape[1]
    weight, means = images.masks, images.flux
    if side > 1:
        means, weight = images.levels[side.bit_length() - 2].split([bands, images.masks.shape[1]], dim=1)
        means = means / weight.clamp(min=1e-6)
    y, x = (torch.arange(length, device=means.device) * side + (side - 1) / 2 for length in means.shape[-2:])
    middle = (images.shape.to(means.dtype) - 1) / 2
    far = torch.maximum(
        (y[None, :, None] - middle[:, 0, None, None]).abs() / middle[:, 0, None, None],
        (x[None, None, :] - middle[:, 1, None, None]).abs() / middle[:, 1, None, None],
    )
    free = (weight > 0.99) & (far > _SKY_FROM)[:, None]
    found = torch.where(free, means, torch.nan)
    values = found.flatten(2)[..., free.flatten(2).any(dim=1).any(dim=0)]
    kept, centre, scatter = values, values[..., 0], values[..., 0]
    for _ in range(_SKY_ROUNDS):
        centre = nan_median(kept)
        scatter = _MAD_TO_SIGMA * nan_median((kept - centre[..., None]).abs())
        kept = torch.where((values - centre[..., None]).abs() <= _SKY_CLIP * scatter[..., None], values, torch.nan)
    count = kept.isfinite().sum(dim=-1).clamp(min=1)
    mean = kept.nan_to_num(0.0).sum(dim=-1) / count
    # differences of blocks side by side: a galaxy's own slope would pass for noise
    apart = nan_median(found.diff(dim=-1).abs().flatten(2))
    inflation = (apart * _MAD_TO_SIGMA / math.sqrt(2) * side).nan_to_num(1.0).clamp(min=1.0)
    return Sky(mean, inflation / side / count.sqrt(), inflation)


@dataclass(frozen=True)
class Ellipses:
    """One ellipse's centre and shape per object; every radius shares them.

    Parameters
    ----------
    centre : Tensor, shape (B, 2)
        Pixels, x before y, from the centre of the lower-left one.
    shape : Tensor, shape (B, 2)
        Flattening 1 - b/a times cosine and sine of twice the major axis' angle, anticlockwise from x.
    """

    centre: Tensor
    shape: Tensor

    @property
    def ratio(self) -> Tensor:
        """Return b/a, shape (B,)."""
        return _ratio(self.shape)

    @property
    def angle(self) -> Tensor:
        """Return the angle of the major axis, radians from x, shape (B,)."""
        return _angle(self.shape)

    def moved(self, shift: Tensor, bend: Tensor) -> Ellipses:
        """Return ellipses moved by `shift` (B, 2), pixels, and changed in shape by `bend` (B, 2), both along their own axes."""
        return Ellipses(self.centre + turned(shift, self.angle), self.within(turned(bend, 2 * self.angle)))

    def towards(self, other: Ellipses) -> tuple[Tensor, Tensor]:
        """Return `shift` and `bend` that make these ellipses the others, each (B, 2)."""
        shift = turned(other.centre - self.centre, -self.angle)
        return shift, turned(other.shape - self.shape, -2 * self.angle)

    def within(self, bend: Tensor) -> Tensor:
        """Return the shape changed by `bend`, not flatter than can be read off."""
        shape = self.shape + bend
        size = shape.norm(dim=-1, keepdim=True)
        return shape * (_MOST_FLATTENED / size.clamp(min=_MOST_FLATTENED))


def turned(vector: Tensor, angle: Tensor) -> Tensor:
    """Return vectors (B, 2) turned anticlockwise by angles (B,)."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack(
        [cosine * vector[:, 0] - sine * vector[:, 1], sine * vector[:, 0] + cosine * vector[:, 1]], dim=-1
    )


@dataclass(frozen=True)
class Polar:
    """Cells about each object.

    Parameters
    ----------
    flux : Tensor, shape (B, K, R, A)
        Mean flux per pixel, units of a pixel's noise, sky taken off; 0 where nothing is known.
    cover : Tensor, shape (B, K, R, A)
        Share of the cell that has data, 0 to 1.
    radius : Tensor, shape (B, R)
        Semi-major axes, pixels, log-spaced.
    pixels : Tensor, shape (B, R)
        Area of the whole annulus, pixels.
    flattening : Tensor, shape (B,)
        1 - b/a of the ellipses.
    fwhm, inflation : Tensor, shape (B, K)
        As of `Images` and `Sky`.
    """

    flux: Tensor
    cover: Tensor
    radius: Tensor
    pixels: Tensor
    flattening: Tensor
    fwhm: Tensor
    inflation: Tensor

    def band(self, index: int) -> Polar:
        """Return one band, K = 1."""
        keep = slice(index, index + 1)
        return replace(
            self,
            flux=self.flux[:, keep],
            cover=self.cover[:, keep],
            fwhm=self.fwhm[:, keep],
            inflation=self.inflation[:, keep],
        )

    def to(self, device: torch.device | str) -> Polar:
        """Return it on a device."""
        return Polar(**{name: value.to(device) for name, value in vars(self).items()})


class Pyramid:
    """Images halved again and again, in one row of memory, and the sky that is taken off what is read from them."""

    def __init__(self, images: Images, sky: Sky) -> None:
        self.images, self.sky = images, sky
        self.bands = images.flux.shape[1]
        planes = [(images.flux, images.masks), *((level,) for level in images.levels)]
        sides = [level[0].shape[-2:] for level in planes]
        # nothing lies about each level: a column before it, a row before it and two after
        counts = [(rows + 3) * (columns + 1) for rows, columns in sides]
        starts = [sum(counts[:level]) for level in range(_LEVELS)]
        self.pixels = sum(counts)
        self.table = torch.tensor(
            [(*side, start + side[1] + 2) for side, start in zip(sides, starts, strict=True)],
            device=images.flux.device,
            dtype=images.flux.dtype,
        )
        """Rows, columns and the place of the first pixel, by level."""
        # (B x all pixels of all levels, K and masks): what is read of one place lies together
        batch, width = images.levels[0].shape[:2]
        self.values = images.flux.new_empty(batch * self.pixels + 2, width)
        self.values[-2:] = 0.0
        rows_of = self.values[:-2].view(batch, self.pixels, width)
        for start, count, (rows, columns), parts in zip(starts, counts, sides, planes, strict=True):
            padded = rows_of[:, start : start + count].view(batch, rows + 3, columns + 1, width)
            inside = padded[:, 1 : rows + 1, 1:].split([part.shape[1] for part in parts], dim=-1)
            for place, part in zip(inside, parts, strict=True):
                place.copy_(part.permute(0, 2, 3, 1))
            padded[:, 0], padded[:, rows + 1 :], padded[:, :, 0] = 0.0, 0.0, 0.0

    def read(self, x: Tensor, y: Tensor, level: Tensor) -> Tensor:
        """Return flux times weight, and weight, straight between pixels: means over the places of the last axis.

        Parameters
        ----------
        x, y : Tensor, shape (B, ..., A, places)
            Pixels of the first level.
        level : Tensor of int64, shape (B, ...)
            By how many halvings.

        Returns
        -------
        Tensor, shape (B, K + 1 or 2K, ..., A)
            All bands' flux; then their weights, or the one that they share.
        """
        places, step = x.shape[-1], torch.exp2(level.to(x.dtype))[..., None, None]
        rows, columns, start = self.table[level][..., None, None, :].unbind(-1)
        whole = torch.int32 if len(self.values) < 2**31 else torch.int64
        first = torch.arange(len(x), device=x.device, dtype=whole).view(-1, *(1,) * (x.dim() - 1)) * self.pixels
        (left, right_share), (low, high_share) = _between(x, step, columns), _between(y, step, rows)
        wide = columns + 1
        # pixels of one image are few enough for a float to count them
        corner = (low * wide).add_(left).add_(start).to(whole).add_(first)
        above = corner + wide.to(whole)
        left_share, low_share = 1 - right_share, 1 - high_share
        found = None
        for index, share in (
            (corner, low_share * left_share),
            (corner + 1, low_share.mul_(right_share)),
            (above, left_share.mul_(high_share)),
            (above + 1, right_share.mul_(high_share)),
        ):
            # a bag is the weighted sum of some rows: the fastest way to read them
            part = F.embedding_bag(
                index.view(-1, places), self.values, mode="sum", per_sample_weights=share.view(-1, places)
            )
            found = part if found is None else found.add_(part)
        assert found is not None
        return found.div_(places).view(*x.shape[:-1], -1).movedim(-1, 1)

    def polar(self, ellipses: Ellipses, *, shapes: Tensor | None = None, parts: int = _PARTS) -> Polar:
        """Return cells along ellipses, at `RADII` radii from `FIRST_PIXELS` to the farthest corner.

        Parameters
        ----------
        ellipses : Ellipses
        shapes : Tensor, shape (B, R, 2), optional
            Of each radius, where they are not all that of `ellipses`.
        parts : int
            Parts of a cell along the ellipse that are read; half as many, at least one, across it.
        """
        radius, growth = radii_of(self.images.shape, ellipses.centre)
        shapes = ellipses.shape[:, None].expand(-1, RADII, -1) if shapes is None else shapes
        ratio = _ratio(shapes)
        across = max(parts // 2, 1)
        inner = (torch.arange(across, device=radius.device) + 0.5) / across - 0.5
        at = radius[:, :, None] * growth[:, None, None] ** inner  # (B, R, parts across)
        fine = ANGLES * parts
        turn = 2 * math.pi * (torch.arange(fine, device=radius.device) + 0.5) / fine
        x, y = _places(ellipses.centre, shapes, at[..., None], turn)
        level = (at * growth.log()[:, None, None] * ratio[..., None] / across).clamp(min=1).log2().floor()
        level = level.clamp(max=_LEVELS - 1).long()
        cells = (ANGLES, parts)
        read = self.read(x.unflatten(-1, cells), y.unflatten(-1, cells), level).mean(dim=3)  # (B, K + masks, R, A)
        cover = read[:, self.bands :].expand(-1, self.bands, -1, -1)
        flux = read[:, : self.bands] / cover.clamp(min=1e-6)
        flux = self._with_cubic(flux, cover, ellipses.centre, shapes, radius)
        area = math.pi * radius.square() * (growth - 1 / growth)[:, None] * ratio
        flux = torch.where(cover > 1e-3, flux - self.sky.level[..., None, None], 0.0)
        return Polar(flux, cover, radius, area, 1 - ellipses.ratio, self.images.fwhm, self.sky.inflation)

    def inside(self, centre: Tensor, shapes: Tensor, radius: Tensor) -> Tensor:
        """Return the share of ellipses of shapes (B, R, 2) and semi-major axes (B, R) that lies on the image, shape (B, R)."""
        turn = 2 * math.pi * (torch.arange(ANGLES, device=radius.device) + 0.5) / ANGLES
        x, y = _places(centre, shapes, radius[..., None], turn)
        rows, columns = (self.images.shape[:, axis, None, None] for axis in (0, 1))
        return ((x >= -0.5) & (y >= -0.5) & (x < columns - 0.5) & (y < rows - 0.5)).to(radius.dtype).mean(dim=-1)

    def _with_cubic(self, flux: Tensor, cover: Tensor, centre: Tensor, shapes: Tensor, radius: Tensor) -> Tensor:
        """Return cells with those near the middle read off by a cubic, where nothing is missing."""
        near = int((radius < _CUBIC_WITHIN).sum(dim=1).max())
        turn = 2 * math.pi * (torch.arange(_CUBIC_ANGLES, device=radius.device) + 0.5) / _CUBIC_ANGLES
        x, y = _places(centre, shapes[:, :near], radius[:, :near, None], turn)
        rows, columns = self.images.flux.shape[-2:]
        place = torch.stack([2 * x / (columns - 1) - 1, 2 * y / (rows - 1) - 1], dim=-1)
        seen = F.grid_sample(self.images.flux, place, mode="bicubic", align_corners=True, padding_mode="border")
        seen = seen.unflatten(-1, (ANGLES, _CUBIC_ANGLES // ANGLES)).mean(dim=-1)  # (B, K, near, A)
        whole = (cover[:, :, :near] > 0.999) & (radius[:, None, :near, None] < _CUBIC_WITHIN)
        return torch.cat([torch.where(whole, seen, flux[:, :, :near]), flux[:, :, near:]], dim=2)


def radii_of(shape: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return semi-major axes (B, R), pixels, out to the farthest corner, and the ratio (B,) of neighbouring ones."""
    far = torch.maximum(centre, shape.flip(-1) - 1 - centre).norm(dim=-1).clamp(min=4.0)
    growth = (far / FIRST_PIXELS) ** (1 / (RADII - 1))
    return FIRST_PIXELS * growth[:, None] ** torch.arange(RADII, device=centre.device), growth


def _places(centre: Tensor, shapes: Tensor, semi_major: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y at eccentric anomalies `turn`, the last axis; of `semi_major` (B, R, ..., 1) and shapes (B, R, 2)."""
    spread = (*shapes.shape[:2], *(1,) * (semi_major.dim() - 2))
    angle, ratio = _angle(shapes).view(spread), _ratio(shapes).view(spread)
    along, up = semi_major, semi_major * ratio
    cosine, sine = turn.cos(), turn.sin()
    middle = centre.view(-1, 2, *(1,) * (semi_major.dim() - 1))
    x = middle[:, 0] + (along * angle.cos()) * cosine - (up * angle.sin()) * sine
    y = middle[:, 1] + (along * angle.sin()) * cosine + (up * angle.cos()) * sine
    return x, y


def _ratio(shape: Tensor) -> Tensor:
    return 1 - shape.norm(dim=-1).clamp(max=_MOST_FLATTENED)


def _angle(shape: Tensor) -> Tensor:
    return torch.atan2(shape[..., 1], shape[..., 0]) / 2


def _padded(plane: Tensor) -> Tensor:
    side = 2 ** (_LEVELS - 1)
    rows, columns = plane.shape[-2:]
    beyond = (0, -columns % side, 0, -rows % side)
    return F.pad(plane, beyond) if any(beyond) else plane


def _halved(planes: Tensor) -> Tensor:
    """Return means of two by two pixels; several times as fast as pooling, where nothing overlaps."""
    rows = planes[..., ::2, :] + planes[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


def _between(place: Tensor, step: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower of the two pixels about each place on one axis of `most` pixels of so many steps, and the other's share.

    What lies off the axis is between two places that hold nothing.
    """
    low = ((place + 0.5) / step).sub_(0.5).clamp_(min=-1.0).minimum(most)
    share = low.frac()
    return low.floor_(), torch.where(share < 0, share + 1, share)


def find_centres(images: Images, sky: Sky, expected: Tensor, *, reach: Tensor) -> Tensor:
    """Return the brightest place near where each object should be, shape (B, 2), pixels: bright counts, and near counts.

    Parameters
    ----------
    images : Images
    sky : Sky
    expected : Tensor, shape (B, 2)
        Pixels, x before y.
    reach : Tensor, shape (B,)
        Pixels; a place so far off needs e^2 times the light.
    """
    half = int((3 * reach).max().ceil().clamp(min=4)) + 12
    corner = (expected - half).round()
    light = _windows(images, sky, corner, 2 * half + 1)
    width = images.fwhm.nanmean(dim=1).nan_to_num(4.0).clamp(1.5, 12.0) / 2.355
    smooth = _blurred(light, width)
    steps = torch.arange(2 * half + 1, device=light.device)
    x, y = (corner[:, axis, None] + steps - expected[:, axis, None] for axis in (0, 1))
    apart = (x[:, None, :].square() + y[:, :, None].square()) / reach[:, None, None].square()
    tops = smooth == _highest(smooth)
    score = torch.where(tops & (apart < 9.0) & (smooth > 0), smooth.clamp(min=1e-12).log() - 2.0 * apart, -torch.inf)
    best = score.flatten(1).argmax(dim=1)
    row, column = best // len(steps), best % len(steps)
    found = corner + torch.stack([_vertex(smooth, row, column, 1), _vertex(smooth, row, column, 0)], dim=-1)
    nothing = score.flatten(1).amax(dim=1) == -torch.inf
    return torch.where(nothing[:, None], expected, found)


def _windows(images: Images, sky: Sky, corner: Tensor, side: int) -> Tensor:
    """Return the light of all bands in a square of each image, shape (B, side, side); 0 beyond it."""
    steps = torch.arange(side, device=corner.device)
    columns, rows = (corner[:, axis, None].long() + steps for axis in (0, 1))
    height, width = images.flux.shape[-2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = index.flatten(1)[:, None].expand(-1, images.flux.shape[1], -1)
    flux = torch.gather(images.flux.flatten(2), 2, index) - sky.level[..., None]
    light = (flux * torch.gather(images.weight.flatten(2), 2, index)).sum(dim=1)
    return light.unflatten(1, (side, side)) * inside


def _blurred(planes: Tensor, width: Tensor) -> Tensor:
    """Return planes (B, Y, X), each smoothed by a Gaussian of its own width (B,)."""
    half = max(math.ceil(3 * float(width.max())), 1)
    apart = torch.arange(-half, half + 1, device=planes.device) / width[:, None]
    kernel = torch.where(apart.abs() <= 3.0, torch.exp(-0.5 * apart.square()), 0.0)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, None, None]
    wide = F.conv2d(planes[None], kernel, padding=(0, half), groups=len(planes))
    return F.conv2d(wide, kernel.transpose(2, 3), padding=(half, 0), groups=len(planes))[0]


def _highest(planes: Tensor) -> Tensor:
    """Return the highest of five by five pixels about each one; several times as fast as pooling."""
    padded = F.pad(planes, (2, 2, 2, 2), value=-math.inf)
    for axis in (-1, -2):
        length = padded.shape[axis]
        pairs = torch.maximum(padded.narrow(axis, 0, length - 1), padded.narrow(axis, 1, length - 1))
        fours = torch.maximum(pairs.narrow(axis, 0, length - 4), pairs.narrow(axis, 2, length - 4))
        padded = torch.maximum(fours, padded.narrow(axis, 4, length - 4))
    return padded


def _vertex(plane: Tensor, row: Tensor, column: Tensor, axis: int) -> Tensor:
    """Return where a parabola through the pixel and its two neighbours along an axis (0 up, 1 across) is highest."""
    batch = torch.arange(len(plane), device=plane.device)
    at, length = (column, plane.shape[2]) if axis else (row, plane.shape[1])
    centre = at.clamp(1, length - 2)
    low, middle, high = (
        plane[batch, row, centre + step] if axis else plane[batch, centre + step, column] for step in (-1, 0, 1)
    )
    curve = low - 2 * middle + high
    shift = torch.where(curve < 0, 0.5 * (low - high) / curve, 0.0).clamp(-0.5, 0.5)
    return torch.where(at == centre, centre + shift, at.to(plane.dtype))
