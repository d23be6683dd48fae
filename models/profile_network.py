"""Pix2Prof by default: surface-brightness profiles from cells about a galaxy, with their uncertainty.

One network does three things to the cells of `models.polar`. It says where the galaxy's ellipse is (a few passes from a
circle on); it weighs the cells of each annulus, so that stars and neighbours drop out; and a transformer along radius
(the shared core, seeing all radii) corrects the weighted mean and tells how far it may be off. A band is read beside the sum of all
bands, so that any set of bands will do, and all lengths are in pixels, in widths of the point spread function or in units of the
grid, so that any pixel scale and image size will.

Brightness is ``z = asinh(I / 2e)``, with e the error that the sky's noise gives to the annulus' mean: a logarithm where the galaxy
is bright, linear where it drowns (Lupton, Gunn and Szalay 1999), so that one loss serves all radii.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.polar import ANGLES, RADII, Polar, nan_median
from models.transformer import Transformer, TransformerConfig, initialise

QUANTILES = (0.16, 0.5, 0.84)
_PLANES = 8
_ROWS = 13
_USUAL_FWHM = 4.0
"""Pixels, of a point spread function that is not known."""
_UNIT_OF_SHIFT = 0.25
"""Of the half-light radius: what a shift of 1 means to the network."""
_BRIGHTEST = 12.0
_AT_ONCE = 16
"""Rows of cells whose features a core's cache holds."""
SIGNAL_EDGES = (3.0, 10.0, 30.0, 100.0)
"""S/N of a ring one pixel wide, noise of the sky alone, at which the calibration changes."""
_LEAST_WIDENING, _MOST_WIDENING = 0.4, 3.0


@dataclass(frozen=True)
class ProfileNetConfig:
    """Size of the network.

    Parameters
    ----------
    channels : int
        Of the convolutions over cells.
    depth : int
        Blocks of two convolutions.
    width, layers, heads : int
        Of the transformer along radius.
    """

    channels: int = 32
    depth: int = 2
    width: int = 96
    layers: int = 3
    heads: int = 4


@dataclass(frozen=True)
class Reading:
    """What the network says of one band, or of several in the rows of a batch.

    Parameters
    ----------
    intensity : Tensor, shape (B, R, 3)
        Mean flux per pixel in each annulus, in units of a pixel's noise, at `QUANTILES`.
    measured : Tensor, shape (B, R)
        The weighted mean of the cells, before it is corrected.
    own : Tensor, shape (B, R)
        Share of the annulus that was taken for the galaxy's own: the cells' weights over the largest.
    seen : Tensor, shape (B, R)
        Share of the annulus that has data.
    error : Tensor, shape (B, R)
        What the noise of the sky alone gives to a mean.
    features : Tensor, shape (B, D)
        Of the whole profile, for telling strange ones.
    """

    intensity: Tensor
    measured: Tensor
    own: Tensor
    seen: Tensor
    error: Tensor
    features: Tensor


@dataclass(frozen=True)
class ProfileExample:
    """A batch to learn from.

    Parameters
    ----------
    polar : Polar
        Several bands, about ellipses that are more or less off.
    use : Tensor of bool, shape (B, K)
        The bands that there are.
    band : Tensor of int64, shape (B,)
        The band whose profile is asked.
    truth : Tensor, shape (B, R)
        Of that band, flux per pixel in units of a pixel's noise, along the true ellipse; NaN where there is none.
    shift, bend : Tensor, shape (B, 2)
        To the true ellipse: see `Ellipses.towards`.
    profile_counts : Tensor of bool, shape (B,)
        Whether the ellipse is near enough for the profile to be asked.
    """

    polar: Polar
    use: Tensor
    band: Tensor
    truth: Tensor
    shift: Tensor
    bend: Tensor
    profile_counts: Tensor

    def to(self, device: torch.device | str) -> ProfileExample:
        """Return it on a device."""
        return ProfileExample(**{name: value.to(device) for name, value in vars(self).items()})


class _MirrorConv(nn.Conv2d):
    """A convolution over radius and angle that is the same read the other way round: a mirrored galaxy gives mirrored features.

    Cells on both sides of one count alike, so they are added up first and take one product instead of two.
    """

    def forward(self, planes: Tensor) -> Tensor:
        kernel = torch.cat([self.weight[..., 1:2], 0.5 * (self.weight[..., :1] + self.weight[..., 2:])], dim=1)
        ringed = _ringed(planes)
        beside = ringed[..., :-2] + ringed[..., 2:]
        return self._conv_forward(torch.cat([planes, beside], dim=1), _channels_last(kernel), self.bias)


class _HalvingConv(nn.Conv2d):
    """A convolution of four cells of angle at each second one, the same read the other way round."""

    def forward(self, planes: Tensor) -> Tensor:
        kernel = 0.5 * (self.weight + self.weight.flip(-1))
        kernel = torch.cat([kernel[..., 1:2], kernel[..., :1]], dim=1)
        ringed = _ringed(planes)
        inner = planes[..., ::2] + planes[..., 1::2]
        both = torch.cat([inner, ringed[..., :-2:2] + ringed[..., 3::2]], dim=1)
        return F.conv2d(both, _channels_last(kernel), self.bias, padding=self.padding)  # type: ignore[arg-type]


class _Block(nn.Module):
    """Two convolutions over cells, added to what came in; the first reaches `reach` radii far."""

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        self.first = _MirrorConv(channels, channels, 3, dilation=(reach, 1), padding=(reach, 0))
        self.second = _MirrorConv(channels, channels, 3, padding=(1, 0))

    def forward(self, planes: Tensor) -> Tensor:
        return planes + self.second(F.relu(self.first(planes)))


class _Compass(nn.Module):
    """From the waves of features around each radius to one vector.

    Parts along and across the major axis come from cosine and sine alone, with the same weights where the ellipse is a circle: what
    it gives turns with the galaxy. A flat ellipse tells its axes apart, by as much as it is flat.

    Parameters
    ----------
    channels, rows : int
        Of the features, and of the numbers per radius.
    even : bool
        Whether the mean around a radius may say something along the axis: of a shape it may, of a shift it may not.
    """

    def __init__(self, channels: int, rows: int, *, even: bool) -> None:
        super().__init__()
        self.attention = nn.Linear(channels + rows, 1)
        self.scale = nn.Linear(channels + rows, channels)
        self.round = nn.Linear(channels, 1, bias=False)
        self.along = nn.Linear(channels, 1, bias=False)
        self.across = nn.Linear(channels, 1, bias=False)
        self.mean = nn.Linear(channels + rows, 1) if even else None

    def forward(self, told: Tensor, cosine: Tensor, sine: Tensor, flattening: Tensor) -> Tensor:
        """Return vectors (B, 2).

        Parameters
        ----------
        told : Tensor, shape (B, R, C + rows)
            Means around each radius, and its numbers.
        cosine, sine : Tensor, shape (B, R, C)
        flattening : Tensor, shape (B,)
        """
        share = self.attention(told).softmax(dim=1)
        scale, flat = self.scale(told) * share, flattening[:, None, None]
        cosine, sine = cosine * scale, sine * scale
        along = self.round(cosine) + flat * self.along(cosine)
        across = self.round(sine) + flat * self.across(sine)
        if self.mean is not None:
            along = along + flat * share * self.mean(told)
        return torch.cat([along, across], dim=-1).sum(dim=1)


class ProfileNet(nn.Module):
    """See the module.

    Parameters
    ----------
    config : ProfileNetConfig
    generator : torch.Generator, optional
        Draws the first weights.
    """

    calibration: Tensor
    leaning: Tensor
    usual_mean: Tensor
    usual_precision: Tensor
    strange_from: Tensor

    def __init__(self, config: ProfileNetConfig | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        config = config or ProfileNetConfig()
        self.config = config
        channels, width = config.channels, config.width
        self.cells = _MirrorConv(_PLANES, channels // 2, 3, padding=(1, 0))
        self.halved = _HalvingConv(channels // 2, channels, (3, 4), stride=(1, 2), padding=(1, 0))
        self.blocks = nn.ModuleList(_Block(channels, 2**index) for index in range(config.depth))
        self.weigh_near = nn.Conv2d(channels // 2, 1, 1)
        self.weigh_far = nn.Conv2d(channels, 1, 1)
        self.shift = _Compass(channels, _ROWS, even=False)
        self.bend = _Compass(channels, _ROWS, even=True)
        self.embed = nn.Linear(2 * channels + _ROWS + 2, width)
        self.positions = nn.Embedding(RADII, width)
        core = TransformerConfig(config.layers, config.heads, width)
        self.core = Transformer(core)
        self.head = nn.Linear(width, 3)
        self.register_buffer("calibration", torch.ones(len(SIGNAL_EDGES) + 1))
        self.register_buffer("leaning", torch.zeros(len(SIGNAL_EDGES) + 1, width))
        self.register_buffer("usual_mean", torch.zeros(width))
        self.register_buffer("usual_precision", torch.eye(width))
        self.register_buffer("strange_from", torch.tensor(math.inf))
        self._draw_first(generator or torch.Generator().manual_seed(0))
        # cells lie channels last: on a CPU its convolutions are twice as fast
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _draw_first(self, generator: torch.Generator) -> None:
        plain: tuple[nn.Module, ...] = (self.core, self.embed, self.positions, self.head, self.shift, self.bend)
        for part in plain:
            initialise(part, layers=self.config.layers, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_in), generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for block in self.blocks:
            nn.init.zeros_(block.second.weight)  # type: ignore[arg-type, union-attr]
        for compass in (self.shift, self.bend):
            nn.init.ones_(compass.scale.bias)
            for way in (compass.round, compass.along, compass.across):
                nn.init.zeros_(way.weight)
        for last in (self.head, self.weigh_near, self.weigh_far):
            nn.init.zeros_(last.weight)

    def correct(self, polar: Polar, use: Tensor) -> tuple[Tensor, Tensor]:
        """Return `shift`, pixels, and `bend` that bring ellipses nearer to the galaxy: see `Ellipses.moved`; each (B, 2).

        Parameters
        ----------
        polar : Polar
        use : Tensor of bool, shape (B, K)
            Bands to add up.
        """
        whole = _Cells.of(_summed(polar, use), None)
        return self._geometry(whole, half_light(polar, whole))

    def read(self, polar: Polar, use: Tensor, band: Tensor) -> Reading:
        """Return the profile of one band of each object, in units of that band's noise.

        Parameters
        ----------
        polar : Polar
        use : Tensor of bool, shape (B, K)
            Bands to look at.
        band : Tensor of int64, shape (B,)
            Which one is read.
        """
        return self._read(_Cells.of(_picked(polar, band), _summed(polar, use)))

    def read_bands(self, polar: Polar, use: Tensor) -> Reading:
        """Return the profiles of all bands as rows (B K, ...), each in units of its band's noise.

        Parameters
        ----------
        polar : Polar
        use : Tensor of bool, shape (B, K)
            Bands to look at.
        """
        return self._read(_Cells.of(_split(polar), _summed(polar, use)))

    def loss(self, batch: ProfileExample, *, generator: torch.Generator) -> Tensor:
        """Return the pinball loss of the profile in z, plus that of the ellipse; nothing is drawn from `generator`."""
        whole = _Cells.of(_summed(batch.polar, batch.use), None)
        half = half_light(batch.polar, whole)
        shift, bend = self._geometry(whole, half)
        unit = (_UNIT_OF_SHIFT * half)[:, None]
        ellipse = F.smooth_l1_loss(shift / unit, batch.shift / unit, beta=0.1) + 3 * F.smooth_l1_loss(
            bend, batch.bend, beta=0.05
        )
        reading, z, error = self._z(_Cells.of(_picked(batch.polar, batch.band), _summed(batch.polar, batch.use)))
        del reading
        asked = batch.truth.isfinite() & batch.profile_counts[:, None]
        wanted = torch.asinh(batch.truth.nan_to_num(0.0) / (2 * error)).clamp(-3.0, _BRIGHTEST)
        apart = wanted[..., None] - z
        levels = torch.tensor(QUANTILES, device=z.device)
        pinball = torch.maximum(levels * apart, (levels - 1) * apart).sum(dim=-1)
        share = asked.sum().clamp(min=1)
        return (pinball * asked).sum() / share + 0.3 * ellipse

    def strangeness(self, features: Tensor) -> Tensor:
        """Return the Mahalanobis distance of features (B, D) from those of the training (Lee et al. 2018), shape (B,)."""
        apart = features - self.usual_mean
        return ((apart @ self.usual_precision) * apart).sum(dim=-1).clamp(min=0).sqrt()

    def widening(self, features: Tensor) -> Tensor:
        """Return by how much wider than others' the errors of a profile are, by its features (B, D), shape (B, ranges of S/N).

        What is off in a galaxy, its ellipse or a companion, is off at many radii; a smooth one in a quiet field errs less.
        """
        leaning = (features - self.usual_mean) @ self.leaning.T
        return leaning.clamp(math.log(_LEAST_WIDENING), math.log(_MOST_WIDENING)).exp()

    def _read(self, cells: _Cells) -> Reading:
        (measured, own, seen, features), z, error = self._z(cells)
        middle = z[..., 1:2]
        signal = torch.sinh(z[..., 1].clamp(-3, 14)) * 2 * error * cells.ring
        place = torch.bucketize(signal.abs(), torch.tensor(SIGNAL_EDGES, device=z.device))
        factor = self.calibration[place] * self.widening(features).gather(1, place)
        z = middle + (z - middle) * factor[..., None]
        intensity = torch.sinh(z.clamp(-14, 14)) * 2 * error[..., None]
        return Reading(intensity, measured, own, seen, error, features)

    def _z(self, cells: _Cells) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Return what was measured, z at the quantiles (B, R, 3), and the error (B, R)."""
        logits, around = _in_parts(self._looked_at, cells.planes)
        weight = torch.sigmoid(logits + 2.0) * cells.cover  # (B, R, A)
        total = weight.sum(dim=-1)
        measured = (weight * cells.flux).sum(dim=-1) / total.clamp(min=1e-3)
        seen = cells.cover.mean(dim=-1)
        own = total / cells.cover.sum(dim=-1).clamp(min=1e-3)
        whole = torch.where(cells.cover > 0.3, weight / cells.cover.clamp(min=0.3), 0.0).amax(dim=-1).clamp(min=1e-3)
        base = torch.asinh(measured / (2 * cells.error))
        rows = torch.cat(
            [
                around,
                cells.rows.transpose(1, 2),
                torch.stack([base - cells.z, own], dim=2),
            ],
            dim=2,
        )
        x = self.embed(rows) + self.positions.weight
        steps = x.shape[1]
        every = torch.ones(steps, steps, dtype=torch.bool, device=x.device)
        x = self.core(x, attend=every)
        made = self.head(x)
        middle = base + made[..., 0]
        low, high = (F.softplus(made[..., place] - 3.0) for place in (1, 2))
        z = torch.stack([middle - low, middle, middle + high], dim=-1)
        return (measured, (own / whole).clamp(max=1.0), seen, x.mean(dim=1)), z, cells.error

    def _looked_at(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the cells' weights (B, R, A), and means and maxima of features around each radius (B, R, 2C)."""
        near, far = self._convolved(planes)
        logits = self.weigh_near(near) + self.weigh_far(far).repeat_interleave(2, dim=-1)
        pairs = far.permute(0, 2, 3, 1)  # as they lie in memory: (B, R, A/2, C)
        return logits[:, 0], torch.cat([pairs.mean(dim=2), pairs.amax(dim=2)], dim=-1)

    def _waved(self, planes: Tensor) -> tuple[Tensor]:
        """Return mean, cosine and sine, and those of twice the angle, of features around each radius (B, 5, R, C)."""
        pairs = self._convolved(planes)[1].permute(0, 2, 3, 1)
        angles = pairs.shape[2]
        # a pair of cells is read about the border between the two
        turn = 2 * math.pi * (torch.arange(angles, device=pairs.device) * 2 + 1) / ANGLES
        waves = torch.stack([torch.ones_like(turn), turn.cos(), turn.sin(), (2 * turn).cos(), (2 * turn).sin()])
        return (torch.einsum("brac,ma->bmrc", pairs, waves / angles),)

    def _convolved(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of cells (B, C/2, R, A) and of pairs of cells (B, C, R, A/2)."""
        near = F.relu(self.cells(planes.contiguous(memory_format=torch.channels_last)))
        far = F.relu(self.halved(near))
        for block in self.blocks:
            far = block(far)
        return near, far

    def _geometry(self, cells: _Cells, half: Tensor) -> tuple[Tensor, Tensor]:
        mean, cosine, sine, cosine_twice, sine_twice = _in_parts(self._waved, cells.planes)[0].unbind(1)
        told = torch.cat([mean, cells.rows.transpose(1, 2)], dim=-1)
        shift = self.shift(told, cosine, sine, cells.flattening)
        bend = self.bend(told, cosine_twice, sine_twice, cells.flattening)
        return shift * _UNIT_OF_SHIFT * half[:, None], bend


@dataclass(frozen=True)
class _Cells:
    """What the network sees: planes over cells, numbers per radius, and what they were made of.

    Parameters
    ----------
    planes : Tensor, shape (B, C, R, A)
    rows : Tensor, shape (B, C, R)
    flux, cover : Tensor, shape (B, R, A)
    z, error : Tensor, shape (B, R)
        Of the median of each annulus.
    ring : Tensor, shape (B, R)
        Root of the pixels of a ring one pixel wide.
    flattening : Tensor, shape (B,)
    """

    planes: Tensor
    rows: Tensor
    flux: Tensor
    cover: Tensor
    z: Tensor
    error: Tensor
    ring: Tensor
    flattening: Tensor

    @classmethod
    def of(cls, polar: Polar, whole: Polar | None) -> _Cells:
        """Return cells of one band beside those of all; rows of `whole` may each stand for several that follow each other."""
        own = _scaled(polar)
        times = 1 if whole is None else len(polar.flux) // len(whole.flux)
        other = own if whole is None else tuple(part.repeat_interleave(times, dim=0) for part in _scaled(whole))
        z, spread, error, cells = own
        radius = polar.radius
        fwhm = polar.fwhm.nan_to_num(_USUAL_FWHM).clamp(min=0.5)
        growth = (radius[:, 1] / radius[:, 0]).log()[:, None].expand_as(radius)
        rows = torch.stack(
            [
                0.3 * z,
                0.3 * other[0],
                spread,
                other[1],
                polar.cover[:, 0].mean(dim=-1),
                0.3 * radius.log(),
                0.5 * (radius / fwhm).log(),
                0.3 * error.log(),
                polar.inflation[:, :1].log().expand_as(radius),
                polar.flattening[:, None].expand_as(radius),
                10 * (growth - 0.09),
                polar.fwhm.isfinite().to(radius.dtype).expand_as(radius),
                torch.full_like(radius, 0.0 if whole is None else 1.0),
            ],
            dim=1,
        )
        flat = rows[:, [0, 1, 5, 6], :, None].expand(-1, -1, -1, polar.flux.shape[-1])
        covers = polar.cover[:, 0] if whole is None else whole.cover[:, 0].repeat_interleave(times, dim=0)
        planes = torch.cat([torch.stack([cells, other[3], polar.cover[:, 0], covers], dim=1), flat], dim=1)
        ring = rings(radius, polar.flattening)
        return cls(planes, rows, polar.flux[:, 0], polar.cover[:, 0], z, error, ring, polar.flattening)


def rings(radius: Tensor, flattening: Tensor) -> Tensor:
    """Return the root of the pixels of rings one pixel wide, shape (B, R): S/N of one over that of a pixel."""
    return (2 * math.pi * radius * (1 - flattening[:, None])).sqrt()


def _scaled(polar: Polar) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return z of each annulus' median (B, R), how far its cells scatter, the error, and cells less the median in z (B, R, A)."""
    flux, cover = polar.flux[:, 0], polar.cover[:, 0]
    known = cover > 0.3
    error = polar.inflation[:, :1] / (polar.pixels * cover.mean(dim=-1).clamp(min=0.02)).sqrt()
    middle = nan_median(torch.where(known, flux, torch.nan)).nan_to_num(0.0)
    z = torch.asinh(middle / (2 * error)).clamp(-3.0, _BRIGHTEST)
    cells = torch.where(known, torch.asinh(flux / (2 * error)[..., None]).clamp(-4.0, 14.0) - z[..., None], 0.0)
    return z, cells.abs().mean(dim=-1), error, cells.clamp(-4.0, 6.0)


def _summed(polar: Polar, use: Tensor) -> Polar:
    """Return the bands in use as one: added up, in units of the sum's noise."""
    share = use.to(polar.flux.dtype)
    count = share.sum(dim=1).clamp(min=1)
    weight = polar.cover * share[..., None, None]
    cover = weight.sum(dim=1) / count[:, None, None]
    flux = (weight * polar.flux).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-3) * count.sqrt()[:, None, None]
    mean = ((polar.inflation * share).sum(dim=1) / count).clamp(min=1.0)
    fwhm = torch.where(use, polar.fwhm, torch.nan).nanmean(dim=1)
    return Polar(
        flux[:, None], cover[:, None], polar.radius, polar.pixels, polar.flattening, fwhm[:, None], mean[:, None]
    )


def _picked(polar: Polar, band: Tensor) -> Polar:
    """Return one band of each object."""
    batch = torch.arange(len(band), device=band.device)
    return Polar(
        polar.flux[batch, band][:, None],
        polar.cover[batch, band][:, None],
        polar.radius,
        polar.pixels,
        polar.flattening,
        polar.fwhm[batch, band][:, None],
        polar.inflation[batch, band][:, None],
    )


def _split(polar: Polar) -> Polar:
    """Return every band of each object as an object of one band."""
    bands = polar.flux.shape[1]
    radius, pixels, flattening = (
        part.repeat_interleave(bands, dim=0) for part in (polar.radius, polar.pixels, polar.flattening)
    )
    flux, cover, fwhm, inflation = (
        part.flatten(0, 1)[:, None] for part in (polar.flux, polar.cover, polar.fwhm, polar.inflation)
    )
    return Polar(flux, cover, radius, pixels, flattening, fwhm, inflation)


def half_light(polar: Polar, cells: _Cells) -> Tensor:
    """Return about the semi-major axis of half of the light, pixels, shape (B,): of medians, to where they drown."""
    light = torch.sinh(cells.z.clamp(max=_BRIGHTEST)) * cells.error
    seen = (cells.z > 0.5).to(light.dtype).cumprod(dim=1)
    curve = (light.clamp(min=0) * polar.pixels * seen).cumsum(dim=1)
    share = curve / curve[:, -1:].clamp(min=1e-12)
    place = (share < 0.5).sum(dim=1).clamp(max=polar.radius.shape[1] - 1)
    return polar.radius.gather(1, place[:, None])[:, 0].clamp(min=1.0)


def _in_parts(look: Callable[[Tensor], tuple[Tensor, ...]], planes: Tensor) -> tuple[Tensor, ...]:
    """Return what is made of planes (B, ...): on a CPU of so many rows at a time that its cache holds them on their way."""
    if planes.device.type != "cpu":
        return look(planes)
    return tuple(torch.cat(parts) for parts in zip(*map(look, planes.split(_AT_ONCE)), strict=True))


def _ringed(planes: Tensor) -> Tensor:
    """Return planes (B, C, R, A) with a cell more on each side: angles go round."""
    return torch.cat([planes[..., -1:], planes, planes[..., :1]], dim=-1)


def _channels_last(kernel: Tensor) -> Tensor:
    return kernel.contiguous(memory_format=torch.channels_last)
