"""Galaxies with structure: bulge and disc, bars, rings, spiral arms with knots, dust, colours that change with radius.

The numbers were written by hand from what the Legacy Surveys show of nearby galaxies; no catalogue was fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.sky.generator.draws import Draws
from tasks.sky.generator.light import Ellipse, Grid, Sersic, add_points, sersic_share
from tasks.sky.generator.prior import PETROSIAN_HALF_LIGHT_ARCSEC, GalaxyPrior, StructurePrior

ELLIPTICAL, LENTICULAR, SPIRAL, IRREGULAR = range(4)
KINDS = ("elliptical", "lenticular", "spiral", "irregular")

# g - r and r - z of old and of young light, and the scatter of both
_OLD, _YOUNG, _COLOUR_SCATTER = (0.78, 0.70), (0.42, 0.38), (0.05, 0.06)
# what g, r, z take of dust (Cardelli's law, relative to r), how strongly arms stand out, how much larger a disc is than in r
_DUST, _CONTRAST, _WIDENING = (1.35, 1.0, 0.62), (1.2, 0.95, 0.62), (0.05, 0.0, -0.04)
_KNOT_COLOUR = (1.15, 1.0, 0.7)
_TEXTURE = (48, 96)
_KNOTS = 40


@dataclass(frozen=True)
class Target:
    """The galaxies' light and what is known of it.

    Parameters
    ----------
    cells : Tensor, shape (galaxy, band, y, x)
        Flux per cell before the point spread function, nanomaggies.
    flux : Tensor, shape (galaxy, band)
        Total, also of what lies outside the cells.
    ellipse : Ellipse
        Of the outer disc, or of the only component: the reference.
    radius_arcsec : Tensor, shape (galaxy,)
        Semi-major axis of the reference ellipse that holds half of the light in r before arms and dust.
    index : Tensor, shape (galaxy,)
        Sersic index: of the only component, or of the bulge.
    kind : Tensor, shape (galaxy,), int64
        Place in `KINDS`; -1 = a single Sersic law.
    bulge_share : Tensor, shape (galaxy,)
        Of the light in r; 1 where there is one component.
    """

    cells: Tensor
    flux: Tensor
    ellipse: Ellipse
    radius_arcsec: Tensor
    index: Tensor
    kind: Tensor
    bulge_share: Tensor


def magnitude_to_flux(magnitude: Tensor) -> Tensor:
    """Return nanomaggies of AB magnitudes."""
    return 10 ** (0.4 * (22.5 - magnitude))


def draw_single(prior: GalaxyPrior, draws: Draws, *, grid: Grid, pixel_scale_arcsec: float) -> Target:
    """Return galaxies of one Sersic law, of one brightness in all bands."""
    ellipse = _ellipse(prior, draws, pixel_scale_arcsec)
    index = draws.among("index", torch.tensor(prior.sersic_index, device=draws.seeds.device))
    low, high = prior.effective_radius_arcsec
    radius = draws.uniform("radius", low=low, high=high)
    low, high = prior.magnitude
    flux = magnitude_to_flux(draws.uniform("magnitude", low=low, high=high))[:, None].repeat(1, len(prior.bands))
    cells = Sersic(index, radius[:, None], ellipse).cells(grid) * flux[:, :, None, None]
    return Target(cells, flux, ellipse, radius, index, torch.full_like(draws.seeds, -1), torch.ones_like(index))


def draw_structured(
    prior: GalaxyPrior, structure: StructurePrior, draws: Draws, *, grid: Grid, pixel_scale_arcsec: float
) -> Target:
    """Return galaxies of all kinds."""
    kind = torch.bucketize(
        draws.uniform("kind"), torch.tensor(structure.kinds, device=draws.seeds.device).cumsum(0)[:-1]
    )
    petrosian = draws.quantile("size", torch.tensor(PETROSIAN_HALF_LIGHT_ARCSEC, device=draws.seeds.device))
    mean, scatter = structure.surface_brightness
    brightness = mean + scatter * draws.normal("surface-brightness")
    magnitude = brightness - 2.5 * torch.log10(2 * math.pi * petrosian.square())
    red = magnitude_to_flux(magnitude.clamp(max=structure.faintest))
    ellipse = _shape(_ellipse(prior, draws, pixel_scale_arcsec), kind, draws)
    parts = _Parts.drawn(kind, draws, structure)
    # what a circle holds is what Petrosian radii are of: the ellipse that holds it is longer
    radius = petrosian * _petrosian_factor(parts) / ellipse.axis_ratio.sqrt()
    target = Target(
        torch.empty((len(kind), 3, grid.cells, grid.cells), device=kind.device),
        torch.empty((len(kind), 3), device=kind.device),
        *(ellipse, radius, parts.index, kind, parts.bulge_share),
    )
    for rows, paint in ((kind == ELLIPTICAL, _spheroids), (kind != ELLIPTICAL, _discs)):
        if rows.any():
            cells, flux = paint(
                _Canvas(draws[rows], parts[rows], ellipse[rows], radius[rows], red[rows], grid), kind[rows]
            )
            target.cells[rows], target.flux[rows] = cells, flux
    return target


def _ellipse(prior: GalaxyPrior, draws: Draws, pixel_scale_arcsec: float) -> Ellipse:
    centre = draws.uniform("centre", 2, low=-1, high=1) * prior.centre_scatter_pixels * pixel_scale_arcsec
    low, high = prior.axis_ratio
    angle = draws.uniform("angle", high=math.pi)
    return Ellipse(centre[:, 0], centre[:, 1], draws.uniform("axis-ratio", low=low, high=high), angle)


def _shape(ellipse: Ellipse, kind: Tensor, draws: Draws) -> Ellipse:
    """Give ellipticals a middling axis ratio and discs that of a thick disc seen under a random angle."""
    round_ = 1 - 0.55 * draws.uniform("roundness") ** 1.3
    cosine = draws.uniform("inclination")
    # irregulars are thick
    thickness = draws.uniform("thickness", low=0.12, high=0.24) * torch.where(kind == IRREGULAR, 2.5, 1.0)
    disc = (cosine.square() + (1 - cosine.square()) * thickness.square()).sqrt().clamp(max=0.99)
    return Ellipse(ellipse.x, ellipse.y, torch.where(kind == ELLIPTICAL, round_, disc), ellipse.angle)


@dataclass(frozen=True)
class _Parts:
    """Shares and sizes of the components, each shape (galaxy,); lengths in units of the disc's effective radius."""

    index: Tensor
    bulge_share: Tensor
    bulge_radius: Tensor
    bar_share: Tensor
    bar_length: Tensor
    ring: Tensor

    @classmethod
    def drawn(cls, kind: Tensor, draws: Draws, structure: StructurePrior) -> _Parts:
        """Draw them as fits the kind: lenticulars have large bulges, irregulars none."""
        chosen = [kind == k for k in range(4)]
        share = draws.uniform("bulge") ** 1.6
        bulge = torch.where(chosen[LENTICULAR], 0.15 + 0.5 * share, 0.01 + 0.38 * share)
        bulge = torch.where(chosen[IRREGULAR], 0.01 * share, torch.where(chosen[ELLIPTICAL], 1.0, bulge))
        index = draws.uniform("index", low=0.9, high=1.4) + 2.6 * bulge.clamp(max=0.65)
        index = torch.where(chosen[ELLIPTICAL], draws.uniform("index-elliptical", low=2.6, high=5.2), index)
        size = draws.log_uniform("bulge-radius", low=0.10, high=0.22) * (1 + 0.9 * bulge)
        barred = draws.chance("barred", share=structure.barred) & ~chosen[ELLIPTICAL]
        bar = torch.where(barred, draws.uniform("bar", low=0.06, high=0.22), 0.0)
        ringed = draws.chance("ringed", share=structure.ringed) & (chosen[LENTICULAR] | chosen[SPIRAL])
        ring = torch.where(ringed, draws.uniform("ring", low=0.2, high=1.2), 0.0)
        return cls(index, bulge, size, bar, draws.log_uniform("bar-length", low=0.4, high=0.95), ring)

    def __getitem__(self, rows: Tensor) -> _Parts:
        """Return those of some galaxies."""
        return _Parts(
            self.index[rows],
            self.bulge_share[rows],
            self.bulge_radius[rows],
            self.bar_share[rows],
            self.bar_length[rows],
            self.ring[rows],
        )

    @property
    def half_light(self) -> Tensor:
        """Return the radius that holds half of bulge and disc, by bisection."""
        low, high = torch.full_like(self.index, 0.02), torch.full_like(self.index, 2.0)
        one = torch.ones_like(low)
        size = torch.where(self.bulge_share == 1, one, self.bulge_radius)
        for _ in range(16):
            middle = (low + high) / 2
            inside = self.bulge_share * sersic_share(self.index, middle / size)
            inside = inside + (1 - self.bulge_share) * sersic_share(one, middle)
            low, high = torch.where(inside < 0.5, middle, low), torch.where(inside < 0.5, high, middle)
        return (low + high) / 2


def _petrosian_factor(parts: _Parts) -> Tensor:
    """Return half-light radius over Petrosian half-light radius: 1 for a disc, 1.4 for a law of n = 4."""
    return 1 + 0.4 * parts.bulge_share * ((parts.index - 1) / 3).clamp(0, 1.3)


@dataclass(frozen=True)
class _Canvas:
    """What a component is painted with."""

    draws: Draws
    parts: _Parts
    ellipse: Ellipse
    radius: Tensor
    red: Tensor
    grid: Grid

    def fluxes(self, colour: Tensor) -> Tensor:
        """Return nanomaggies in g, r, z of 1 in r with (g - r, r - z), shape (galaxy, 3)."""
        return torch.stack([10 ** (-0.4 * colour[:, 0]), torch.ones_like(self.red), 10 ** (0.4 * colour[:, 1])], dim=1)

    def colours(self, share_young: Tensor, name: str) -> Tensor:
        """Return (g - r, r - z) between old and young, with scatter, shape (galaxy, 2)."""
        old, young, scatter = (torch.tensor(pair, device=self.red.device) for pair in (_OLD, _YOUNG, _COLOUR_SCATTER))
        return torch.lerp(old, young, share_young[:, None]) + scatter * self.draws.normal(name, 2)


def _spheroids(canvas: _Canvas, kind: Tensor) -> tuple[Tensor, Tensor]:
    """Return cells and total flux of ellipticals: a Sersic law in each band, larger in the blue."""
    widening = 1 + torch.tensor([0.06, 0.0, -0.05], device=kind.device)
    fluxes = canvas.fluxes(canvas.colours(torch.zeros_like(canvas.red), "colour")) * canvas.red[:, None]
    law = Sersic(canvas.parts.index, canvas.radius[:, None] * widening, canvas.ellipse)
    return law.cells(canvas.grid) * fluxes[:, :, None, None], fluxes


@dataclass(frozen=True)
class _Plane:
    """The discs seen from above: lengths in effective radii of the disc, each shape (galaxy, y, x)."""

    major: Tensor
    minor: Tensor
    radius: Tensor
    log_radius: Tensor
    angle: Tensor


def _discs(canvas: _Canvas, kind: Tensor) -> tuple[Tensor, Tensor]:
    """Return cells and total flux of discs with all that lies in them."""
    draws, parts, grid = canvas.draws, canvas.parts, canvas.grid
    length = canvas.radius / parts.half_light
    plane = _plane(canvas, length)
    face_on = ((canvas.ellipse.axis_ratio - 0.2) / 0.25).clamp(0, 1)
    late = torch.where(kind == SPIRAL, draws.uniform("late"), torch.where(kind == IRREGULAR, 1.0, 0.0))
    lenticular = kind == LENTICULAR
    texture = _textures(draws)
    winding = _Winding.drawn(draws, parts, kind)
    grain = _looked_up(texture, plane, winding.twist, kind == IRREGULAR)
    arms = _arms(draws, plane, winding, grain[:, 0])
    log_light, arm_strength = _modulation(
        draws, plane, arms=arms, grain=grain[:, 1], kind=kind, face_on=face_on, late=late, ring_height=parts.ring
    )
    depth = _dust(
        draws, plane, arms=arms, grain=grain[:, 0], lenticular=lenticular, axis_ratio=canvas.ellipse.axis_ratio
    )

    colour = canvas.colours(torch.where(lenticular, 0.1, 0.35 + 0.6 * late), "colour-disc")
    disc = canvas.fluxes(colour) * (canvas.red * (1 - parts.bulge_share - parts.bar_share))[:, None]
    old = canvas.fluxes(canvas.colours(torch.where(lenticular, 0.0, 0.15 * late), "colour-bulge"))
    area = length.square() * canvas.ellipse.axis_ratio

    bands = (_DUST, _CONTRAST, _WIDENING)
    dust, contrast, widening = (torch.tensor(values, device=kind.device)[:, None, None] for values in bands)
    edge = _Break.drawn(draws)
    # exp(-1.678 R) holds half of its light within R = 1
    rate = 1.678 / (1 + widening * (0.5 + late)[:, None, None, None])
    smooth = torch.addcmul(edge.log_change(plane.radius)[:, None], -rate, plane.radius[:, None])
    scale = (grid.step_arcsec**2 / area)[:, None, None, None] * rate.square() / (2 * math.pi)
    cells = torch.addcmul(smooth, contrast, log_light[:, None]).addcmul_(-dust, depth[:, None])
    cells = cells.exp_().mul_(scale * disc[:, :, None, None])
    plain = smooth.exp_().sum(dim=(-1, -2)) * scale[..., 0, 0] * disc

    bar = _bar(draws, plane, length=parts.bar_length, angle=winding.bar_angle)
    bar = bar / bar.sum(dim=(-1, -2), keepdim=True).clamp(min=1e-9) * (canvas.red * parts.bar_share)[:, None, None]
    bulge_ratio = 1 - (1 - canvas.ellipse.axis_ratio) * draws.uniform("bulge-roundness", low=0.25, high=0.7)
    bulge_ellipse = Ellipse(canvas.ellipse.x, canvas.ellipse.y, bulge_ratio, canvas.ellipse.angle)
    bulge = Sersic(parts.index, (parts.bulge_radius * length)[:, None], bulge_ellipse).cells(grid)
    bulge = bulge * (canvas.red * parts.bulge_share)[:, None, None, None]
    # the near half of the disc lies in front of bulge and bar
    veil = depth * torch.sigmoid(plane.minor / 0.1)
    middle = bulge.add_(bar[:, None]) * old[:, :, None, None]
    cells.addcmul_(middle, ((-0.7 * dust) * veil[:, None]).exp_())
    before = plain + middle.sum(dim=(-1, -2))
    total = disc * edge.share(rate[..., 0, 0]) + old * (canvas.red * (parts.bulge_share + parts.bar_share))[:, None]
    knots = _knots(canvas, kind, length=length, winding=winding, light=disc, strength=arm_strength)
    flux = cells.sum(dim=(-1, -2)) + (total - before).clamp(min=0)
    galaxy = torch.arange(len(kind), device=kind.device)[:, None].expand(-1, _KNOTS).flatten()
    held = cells.sum(dim=(-1, -2))
    add_points(
        cells, galaxy, knots[2].flatten(0, 1), x=grid.index_of(knots[0]).flatten(), y=grid.index_of(knots[1]).flatten()
    )
    return cells, flux + cells.sum(dim=(-1, -2)) - held


def _plane(canvas: _Canvas, length: Tensor) -> _Plane:
    axis = canvas.grid.axis(length.device)
    major, minor = canvas.ellipse.along(axis[None, None, :], axis[None, :, None])
    scale = 1 / length[:, None, None]
    major, minor = major * scale, minor * (scale / canvas.ellipse.axis_ratio[:, None, None])
    # a disc is never quite round: it leans to one side and is a little oval
    draws = canvas.draws
    angle = torch.atan2(minor, major)
    squared = major.square() + minor.square()
    oval, lean = 0.05 * draws.normal("oval", 1, 1), 0.06 * draws.normal("lean", 1, 1)
    turn = draws.uniform("oval-angle", 2, 1, 1, high=2 * math.pi)
    lopsided = 1 + oval * (2 * angle + turn[:, 0]).cos() + lean * (angle + turn[:, 1]).cos() * squared / (squared + 1)
    radius = squared.add(1e-4).sqrt() * lopsided.clamp(0.7, 1.4)
    return _Plane(major, minor, radius, radius.log(), angle)


@dataclass(frozen=True)
class _Winding:
    """How arms wind, each shape (galaxy,): where radius grows e-fold they turn by `twist`, the first from angle `start` at 1.

    Where there is a bar, two arms leave its ends.
    """

    number: Tensor
    start: Tensor
    twist: Tensor
    first: Tensor
    bar_angle: Tensor

    @classmethod
    def drawn(cls, draws: Draws, parts: _Parts, kind: Tensor) -> _Winding:
        """Draw them; irregulars hardly wind."""
        barred = parts.bar_share > 0
        pitch = draws.uniform("pitch", low=10.0, high=30.0).deg2rad()
        sense = torch.where(draws.chance("sense", share=0.5), 1.0, -1.0)
        twist = torch.where(kind == IRREGULAR, 0.3, 1 / pitch.tan()) * sense
        number = draws.among("arms", torch.tensor([2.0, 2.0, 2.0, 2.0, 3.0, 4.0], device=kind.device))
        bar_angle = draws.uniform("bar-angle", high=math.pi)
        start = torch.where(
            barred, bar_angle - twist * parts.bar_length.log(), draws.uniform("arm-angle", high=2 * math.pi)
        )
        first = torch.where(barred, 0.9 * parts.bar_length, draws.uniform("arms-from", low=0.25, high=0.6))
        return cls(torch.where(barred, 2.0, number), start, twist, first, bar_angle)


def _textures(draws: Draws) -> Tensor:
    """Return two fields of unit variance over (log radius, angle along the arms), shape (galaxy, 2, rows, columns + 1).

    The first is long along the arms, the second also has detail.
    """
    rows, columns = _TEXTURE
    white = draws.normal("texture", 2, rows, columns)
    along = torch.fft.fftfreq(rows, d=1 / rows, device=white.device)[:, None]
    across = torch.arange(columns // 2 + 1, device=white.device)[None, :]
    size = (along.square() + (across / 2).square()).sqrt()
    spectrum = torch.stack(
        [
            (-((along / 5) ** 2) - (across / 9) ** 2).exp() * (across > 0),
            (size + 2) ** -0.9 * (-((size / 16) ** 2)).exp() * (size > 2),
        ]
    )
    field = torch.fft.irfft2(torch.fft.rfft2(white) * spectrum, s=(rows, columns))
    field = field / field.std(dim=(-1, -2), keepdim=True)
    return torch.cat([field, field[..., :1]], dim=-1)


def _looked_up(texture: Tensor, plane: _Plane, twist: Tensor, loose: Tensor) -> Tensor:
    """Return the textures at each place, wound up like the arms or, where `loose`, as they lie; shape (galaxy, 2, y, x)."""
    wound = (plane.angle - twist[:, None, None] * plane.log_radius) / (2 * math.pi)
    column = torch.where(loose[:, None, None], 0.24 * plane.major, 2 * (wound - wound.floor()) - 1)
    row = torch.where(loose[:, None, None], 0.24 * plane.minor, (plane.log_radius + 1.2) / 2.6)
    place = torch.stack([column, row], dim=-1)
    grain = torch.nn.functional.grid_sample(texture, place, align_corners=True, padding_mode="reflection")
    # what is long along arms has no place where there are none
    grain[:, 0] = torch.where(loose[:, None, None], grain[:, 1], grain[:, 0])
    return grain


def _arms(draws: Draws, plane: _Plane, winding: _Winding, waver: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the arms' brightness of mean 1 along circles, the cosine of their phase a little inside, and where they reign."""
    sharp = draws.log_uniform("arm-sharpness", low=0.8, high=4.0)
    wander = draws.uniform("arm-wander", low=0.2, high=1.0)
    phase = plane.angle - winding.twist[:, None, None] * plane.log_radius - winding.start[:, None, None]
    phase = winding.number[:, None, None] * phase + wander[:, None, None] * waver
    ridge = (sharp[:, None, None] * (phase.cos() - 1)).exp_() / torch.special.i0e(sharp)[:, None, None]
    last = draws.uniform("arms-to", low=1.6, high=3.0)
    # arms are brighter here and fainter there
    ridge = ridge * (0.4 * waver - 0.08).exp_()
    reign = torch.sigmoid((plane.radius - winding.first[:, None, None]) / 0.1) * torch.sigmoid(
        (last[:, None, None] - plane.radius) / 0.3
    )
    return ridge, (phase + winding.twist.sign()[:, None, None] * 0.8).cos(), reign


def _modulation(
    draws: Draws,
    plane: _Plane,
    *,
    arms: tuple[Tensor, Tensor, Tensor],
    grain: Tensor,
    kind: Tensor,
    face_on: Tensor,
    late: Tensor,
    ring_height: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the logarithm of how arms, rings and patches change a disc's light, and how strong the arms are."""
    spiral, irregular = kind == SPIRAL, kind == IRREGULAR
    strength = draws.uniform("arm-strength", low=0.25, high=0.95)
    strength = torch.where(spiral, strength, torch.where(irregular, 0.15, 0.04)) * (0.25 + 0.75 * face_on)
    patches = torch.where(spiral, 0.12 + 0.45 * late * draws.uniform("patches"), torch.where(irregular, 0.42, 0.02))
    patches = (patches * (0.4 + 0.6 * face_on))[:, None, None]
    ridge, _, reign = arms
    clumps = (patches * grain - patches.square() / 2).exp_()
    light = 1 + strength[:, None, None] * reign * (ridge * clumps - 1) + (1 - strength)[:, None, None] * (clumps - 1)
    at, width = draws.uniform("ring-radius", low=0.6, high=2.2), draws.uniform("ring-width", low=0.08, high=0.3)
    ring = (-0.5 * ((plane.radius - at[:, None, None]) / width[:, None, None]).square()).exp_()
    gap = (-0.5 * ((plane.radius - 0.62 * at[:, None, None]) / (1.6 * width[:, None, None])).square()).exp_()
    light = light + (ring_height[:, None, None] * clumps) * (ring - 0.45 * gap)
    return light.clamp(min=0.08).log(), strength


def _dust(
    draws: Draws,
    plane: _Plane,
    *,
    arms: tuple[Tensor, Tensor, Tensor],
    grain: Tensor,
    lenticular: Tensor,
    axis_ratio: Tensor,
) -> Tensor:
    """Return the optical depth in r at each place: lanes inside the arms, feathers, and the lane of a disc seen edge-on."""
    _, inside, reign = arms
    amount = draws.log_uniform("dust", low=0.03, high=0.4) * torch.where(lenticular, 0.15, 1.0)
    lanes = (1 + 2.2 * reign * (3.0 * (inside - 1)).exp_()) * (0.55 * grain - 0.15).exp_()
    depth = amount[:, None, None] * lanes * (-0.9 * plane.radius).exp_() / axis_ratio.sqrt()[:, None, None]
    edge_on = ((0.36 - axis_ratio) / 0.12).clamp(0, 1) * draws.uniform("edge-dust", low=0.0, high=1.6)
    edge_on = edge_on * torch.where(lenticular, 0.3, 1.0)
    height = plane.minor * axis_ratio[:, None, None]
    off = draws.uniform("lane-offset", low=0.0, high=0.06)[:, None, None]
    thick = draws.uniform("lane-thickness", low=0.035, high=0.07)[:, None, None]
    lane = (-0.5 * ((height - off + 0.02 * grain) / thick).square() - 0.5 * (plane.major / 1.3).square()).exp_()
    return depth + edge_on[:, None, None] * lane


@dataclass(frozen=True)
class _Break:
    """Where a disc falls off faster, or more slowly, than further in; each shape (galaxy,)."""

    radius: Tensor
    steeper: Tensor

    @classmethod
    def drawn(cls, draws: Draws) -> _Break:
        """Draw them: most discs break."""
        steeper = draws.uniform("steeper", low=-0.5, high=1.8)
        return cls(
            draws.uniform("break", low=1.6, high=3.2), torch.where(draws.chance("broken", share=0.6), steeper, 0.0)
        )

    def log_change(self, radius: Tensor) -> Tensor:
        """Return the logarithm of what the break does to brightness at radii (galaxy, ...)."""
        spread = (-1, *[1] * (radius.ndim - 1))
        beyond = torch.nn.functional.softplus((radius - self.radius.view(spread)) * 6) / 6
        return -self.steeper.view(spread) * beyond

    def share(self, rate: Tensor) -> Tensor:
        """Return the light of a disc exp(-rate R) with the break over that without it, shape of `rate` (galaxy, band)."""
        radius = torch.linspace(0, 24, 241, device=rate.device).expand(len(rate), -1)
        light = (self.log_change(radius)[:, None] - rate[:, :, None] * radius[:, None]).exp() * radius[:, None]
        return torch.trapezoid(light, dx=0.1) * rate.square()


def _bar(draws: Draws, plane: _Plane, *, length: Tensor, angle: Tensor) -> Tensor:
    """Return a bar with boxy ends, in no unit."""
    turn = angle[:, None, None]
    along, across = (
        plane.major * turn.cos() + plane.minor * turn.sin(),
        plane.minor * turn.cos() - plane.major * turn.sin(),
    )
    width = length * draws.uniform("bar-width", low=0.16, high=0.34)
    x, y = (along / length[:, None, None]).square(), (across / width[:, None, None]).square()
    return (-1.2 * x - 2.0 * x * x * x - 1.2 * y).exp_()


def _knots(
    canvas: _Canvas, kind: Tensor, *, length: Tensor, winding: _Winding, light: Tensor, strength: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return young knots along the arms: x, y in arcsec, shape (galaxy, knot), flux (galaxy, knot, band)."""
    draws = canvas.draws
    share = torch.where(kind == SPIRAL, 0.06 * strength, torch.where(kind == IRREGULAR, 0.07, 0.0))
    share = share * draws.uniform("knot-share") ** 1.5
    radius = 0.5 + 2.2 * draws.uniform("knot-radius", _KNOTS) ** 1.4
    arm = (draws.uniform("knot-arm", _KNOTS) * winding.number[:, None]).floor() * (2 * math.pi / winding.number)[
        :, None
    ]
    loose = torch.where(kind == IRREGULAR, 3.0, 0.16)[:, None] * draws.normal("knot-off", _KNOTS)
    angle = winding.twist[:, None] * radius.log() + winding.start[:, None] + arm + loose
    # a power law of luminosities, cut where one knot would outshine the arm
    bright = draws.uniform("knot-flux", _KNOTS).clamp(min=0.03) ** -0.8 * (-0.6 * radius).exp()
    bright = bright / bright.sum(dim=1, keepdim=True)
    colour = torch.tensor(_KNOT_COLOUR, device=kind.device)
    flux = bright[:, :, None] * (share[:, None] * light[:, 1:2] * colour)[:, None, :]
    major = radius * angle.cos() * length[:, None]
    minor = radius * angle.sin() * (length * canvas.ellipse.axis_ratio)[:, None]
    sine, cosine = canvas.ellipse.angle.sin()[:, None], canvas.ellipse.angle.cos()[:, None]
    x = canvas.ellipse.x[:, None] - major * sine - minor * cosine
    y = canvas.ellipse.y[:, None] + major * cosine - minor * sine
    return x, y, flux
