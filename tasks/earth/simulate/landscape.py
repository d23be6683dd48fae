"""A plausible European landscape with known truth: woods, hedges, fields, water, villages.

It is drawn on a grid of 2.5 m and then summed up: a 10 m pixel knows the units it is made of and their shares, so
edges, hedges and single trees are mixed pixels, as a sensor sees them. Rows go down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import ndtri

from tasks.earth.simulate.config import SimulateConfig
from tasks.earth.simulate.noise import fractal_field, generator, smooth_field
from tasks.earth.simulate.phenology import CROPS, Units, cover_table

FINE = 4
"""Fine cells along a 10 m pixel."""
FINE_M = 10.0 / FINE
SHARES = 4
"""Units kept per pixel; what is left out is spread over them."""

CHANGE_NONE, CHANGE_FELLED, CHANGE_PLANTED = 0, 1, 2
CANOPY_COVER_PERCENT = 50.0
"""A pixel is canopy where trees cover at least this much of it."""

_BROADLEAVED = ("oak", "beech", "birch")
_CONIFER = ("spruce", "pine", "larch")
_THICKET = ("thicket_birch", "thicket_thorn", "thicket_conifer")
"""Young growth below 5 m: looks like canopy, is none."""


@dataclass(frozen=True)
class Landscape:
    """The ground, on the 10 m grid.

    Parameters
    ----------
    unit : ndarray, shape (4, y, x), int32
        Units of each pixel, largest share first.
    share : ndarray, shape (4, y, x), float32
        Share of the pixel each covers; they add up to 1.
    units : Units
        History of each unit.
    texture : ndarray, shape (3, y, x), float32
        Logarithm of the fixed brightness of each pixel in the visible, near infrared and shortwave infrared.
    roughness : ndarray, shape (y, x), float32
        Share of the pixel under trees or young growth at the start: how much its crowns shade each other.
    slope : ndarray, shape (2, y, x), float32
        Rise per metre to the east and to the north.
    fine_unit : ndarray, shape (4 y, 4 x), int32
        The units on the fine grid, for truth and labels.
    stand : ndarray, shape (unit,), bool
        Units that are part of a wood, not a hedge, a garden or a single tree.
    first_year : int
        Calendar year of the first row of ``units.cover``.
    """

    unit: np.ndarray
    share: np.ndarray
    units: Units
    texture: np.ndarray
    roughness: np.ndarray
    slope: np.ndarray
    fine_unit: np.ndarray
    stand: np.ndarray
    first_year: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns."""
        return self.unit.shape[1], self.unit.shape[2]


def make_landscape(config: SimulateConfig) -> Landscape:
    """Draw a landscape.

    Parameters
    ----------
    config : SimulateConfig
        Its seed, size, dates and wanted canopy share are used.

    Returns
    -------
    Landscape
    """
    canvas = _Canvas.blank(config)
    relief = _draw_relief(config)
    _paint_fields(canvas, config)
    _paint_open_land(canvas, config, relief)
    _paint_villages(canvas, config)
    _paint_trees(canvas, config, relief)
    _paint_water(canvas, config)
    units = canvas.units(config)
    fine = canvas.fine
    unit, share = _sum_up(fine)
    table = cover_table()
    tree_unit = table.tree_class[table.kin[units.cover[0]]] > 0
    roughness = (tree_unit[unit] * share).sum(axis=0).astype(np.float32)
    return Landscape(
        unit=unit,
        share=share,
        units=units,
        texture=_texture(config, roughness),
        roughness=roughness,
        slope=relief.slope,
        fine_unit=fine,
        stand=np.array(canvas.stand),
        first_year=config.start.year,
    )


class _Canvas:
    """The fine grid while it is painted, and the list of units so far."""

    def __init__(self, fine: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        self.fine = fine
        self.x, self.y = x, y
        self.cover: list[str] = []
        self.stand: list[bool] = []

    @classmethod
    def blank(cls, config: SimulateConfig) -> _Canvas:
        """Return a canvas whose coordinates (metres) are bent a little, so that nothing drawn on it is straight."""
        size = config.size_px * FINE
        rng = generator(config.seed, 1)
        centres = (np.arange(size, dtype=np.float32) + 0.5) * FINE_M
        bend = [_enlarged(smooth_field(rng, (config.size_px,) * 2, scale=14.0)) * 22.0 for _ in range(2)]
        return cls(np.zeros((size, size), np.int32), centres[None, :] + bend[0], centres[:, None] + bend[1])

    def add(self, covers: list[str], *, stand: bool = False) -> int:
        """Add units and return the number of the first."""
        first = len(self.cover)
        self.cover += covers
        self.stand += [stand] * len(covers)
        return first

    def units(self, config: SimulateConfig) -> Units:
        """Return the history of every unit."""
        rng = generator(config.seed, 9)
        count, table = len(self.cover), cover_table()
        years = (config.end.year - config.start.year) + 1
        cover = np.array([table.index(c) for c in self.cover])
        change_day, after = _changes(rng, np.array(self.cover), np.array(self.stand), config)
        trees = table.tree_class[table.kin[cover]] > 0
        return Units(
            cover=_rotate(rng, cover, years),
            delay=rng.normal(0, np.where(table.managed[cover], 8.0, np.where(trees, 4.0, 6.0))),
            stretch=_stretch(rng, trees, count),
            change_day=change_day,
            cover_after=after,
        )


def _stretch(rng: np.random.Generator, trees: np.ndarray, count: int) -> np.ndarray:
    """Draw how much brighter or darker each unit is than the table says, related between band groups."""
    common = rng.standard_normal(count)
    own = rng.standard_normal((3, count))
    spread = 0.10 * np.where(trees, 1.0, 1.6)
    return np.asarray(spread * (0.75 * common + 0.66 * own))


def _rotate(rng: np.random.Generator, cover: np.ndarray, years: int) -> np.ndarray:
    """Give each crop field another crop each year; short leys stay grass for the whole time."""
    table = cover_table()
    crops = np.array([table.index(c) for c in CROPS if c != "ley"])
    weights = np.array([0.36, 0.17, 0.17, 0.16, 0.08, 0.06])
    rows = [cover]
    for _ in range(years - 1):
        drawn = rng.choice(crops, size=len(cover), p=weights)
        again = rng.choice(crops, size=len(cover), p=weights)
        following = np.where(drawn == rows[-1], again, drawn)
        rows.append(np.where(np.isin(cover, crops), following, cover))
    return np.stack(rows)


def _changes(
    rng: np.random.Generator, cover: np.ndarray, stand: np.ndarray, config: SimulateConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Fell some stands and plant some fields, on days within the archive."""
    table = cover_table()
    length = (config.end - config.start).days
    days = config.start.toordinal() + rng.integers(length // 8, max(length * 7 // 8, length // 8 + 1), len(cover))
    draw = rng.random(len(cover))
    chance = 0.035 * config.years
    felled = stand & (draw < chance)
    field = np.isin(cover, ["pasture", "rough", *CROPS])
    planted = field & (draw < 0.012 * config.years)
    if stand.any() and not felled.any():
        felled[np.flatnonzero(stand)[np.argmin(draw[stand])]] = True
    if field.any() and not planted.any():
        planted[np.flatnonzero(field)[np.argmin(draw[field])]] = True
    saplings = np.where(rng.random(len(cover)) < 0.6, "sapling_broadleaved", "sapling_conifer")
    after = np.where(felled, "clearfell", np.where(planted, saplings, cover))
    return np.where(felled | planted, days, 0), np.array([table.index(str(c)) for c in after])


@dataclass(frozen=True)
class _Relief:
    """Height in metres and its slope."""

    height: np.ndarray
    slope: np.ndarray


def _draw_relief(config: SimulateConfig) -> _Relief:
    """Draw hills of some 150 m."""
    rng = generator(config.seed, 2)
    shape = (config.size_px,) * 2
    height = 38.0 * fractal_field(rng, shape, longest=320.0, slope=2.3)
    north, east = np.gradient(ndimage.gaussian_filter(height, 2.0), -10.0, 10.0)
    return _Relief(height, np.stack([east, north]).astype(np.float32))


def _enlarged(coarse: np.ndarray) -> np.ndarray:
    """Interpolate a field of the 10 m grid onto the fine one."""
    return np.asarray(ndimage.zoom(coarse, FINE, order=1, mode="nearest", grid_mode=True), dtype=np.float32)


def _cells(canvas: _Canvas, rng: np.random.Generator, *, side_m: float, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut the land into rectangle-like cells; return the cell of each fine pixel and metres to the cell's edge."""
    extent = canvas.fine.shape[0] * FINE_M
    angle = rng.uniform(0, np.pi)
    along = (np.cos(angle) * canvas.x + np.sin(angle) * canvas.y) / aspect
    across = -np.sin(angle) * canvas.x + np.cos(angle) * canvas.y
    count = max(int((extent + 4 * side_m) ** 2 / (side_m**2 * aspect)), 9)
    seeds = rng.uniform(-2 * side_m, extent + 2 * side_m, (count, 2))
    seeds = _spread(seeds, rng, side_m)
    points = np.stack(
        [
            (np.cos(angle) * seeds[:, 0] + np.sin(angle) * seeds[:, 1]) / aspect,
            -np.sin(angle) * seeds[:, 0] + np.cos(angle) * seeds[:, 1],
        ],
        axis=1,
    )
    tree = cKDTree(points)
    distance, index = tree.query(np.stack([along.ravel(), across.ravel()], axis=1), k=2, p=np.inf, workers=2)
    shape = canvas.fine.shape
    edge = ((distance[:, 1] - distance[:, 0]) / 2).reshape(shape)
    pair = np.sort(index, axis=1)
    return np.stack([index[:, 0], pair[:, 0] * count + pair[:, 1]]).reshape(2, *shape), edge


def _spread(seeds: np.ndarray, rng: np.random.Generator, side_m: float) -> np.ndarray:
    """Push seeds that are too near to each other apart, so that there are few slivers."""
    for _ in range(3):
        distance, near = cKDTree(seeds).query(seeds, k=2)
        push = (seeds - seeds[near[:, 1]]) * np.clip(0.55 * side_m / np.maximum(distance[:, 1:], 1.0) - 0.5, 0, 0.6)
        seeds = seeds + push
    return np.asarray(seeds + rng.normal(0, 2.0, seeds.shape))


def _paint_fields(canvas: _Canvas, config: SimulateConfig) -> None:
    """Cover everything with fields; hedges and lanes run along some of their edges."""
    rng = generator(config.seed, 3)
    cells, edge = _cells(canvas, rng, side_m=150.0, aspect=1.5)
    count = int(cells[0].max()) + 1
    kinds = ["wheat", "barley", "rape", "maize", "beet", "potato", "ley", "pasture", "meadow", "rough", "orchard_tree"]
    weights = [0.19, 0.09, 0.09, 0.08, 0.03, 0.03, 0.08, 0.22, 0.09, 0.05, 0.05]
    drawn = [str(k) for k in rng.choice(kinds, size=count, p=weights)]
    first = canvas.add(["pasture" if k == "orchard_tree" else k for k in drawn])
    canvas.fine[:] = first + cells[0]
    _paint_orchards(canvas, cells[0], np.array(drawn) == "orchard_tree")
    _paint_edges(canvas, rng, cells[1], edge)


def _paint_orchards(canvas: _Canvas, cell: np.ndarray, orchard: np.ndarray) -> None:
    """Plant rows of fruit trees, which are no canopy: they stay below 5 m."""
    first = canvas.add(["orchard_tree"] * 16)
    rows = orchard[cell] & (np.sin(canvas.x * (2 * np.pi / 9.0) + 0.3 * canvas.y) > -0.5)
    canvas.fine[rows] = first + cell[rows] % 16


def _paint_edges(canvas: _Canvas, rng: np.random.Generator, pair: np.ndarray, edge: np.ndarray) -> None:
    """Draw hedgerows, 1 to 3 pixels wide with gaps, and lanes along edges between fields."""
    known, code = np.unique(pair, return_inverse=True)
    code = code.reshape(pair.shape)
    draw = rng.random(len(known))
    width = rng.gamma(5.0, 1.5, len(known)).clip(2.0, 15.0)
    gaps = _enlarged(fractal_field(rng, (canvas.fine.shape[0] // FINE,) * 2, longest=25.0, slope=1.0))
    lane = canvas.add(["road"] * 8)
    hedge = canvas.add(["hedge"] * 48)
    is_lane = (draw > 0.95)[code] & (edge < 3.0)
    is_hedge = (draw < 0.34)[code] & (edge < (width[code] * (1 + 0.18 * gaps))) & (gaps < 1.25)
    canvas.fine[is_lane] = lane + code[is_lane] % 8
    canvas.fine[is_hedge] = hedge + code[is_hedge] % 48


def _paint_open_land(canvas: _Canvas, config: SimulateConfig, relief: _Relief) -> None:
    """Put heath with scrub and bracken on the poorest ground."""
    rng = generator(config.seed, 4)
    shape = relief.height.shape
    poor = relief.height / 38.0 * 0.5 + fractal_field(rng, shape, longest=180.0, slope=1.6)
    mottle = _enlarged(fractal_field(rng, shape, longest=14.0, slope=1.1))
    heath = _enlarged(poor) > np.quantile(poor, 0.945)
    first = canvas.add(["heath"] * 6 + ["scrub"] * 2 + ["thicket_thorn"] * 2 + ["thicket_birch"] * 2 + ["bracken"] * 4)
    patch = (_enlarged(fractal_field(rng, shape, longest=50.0, slope=1.5)) * 3).astype(int) % 4
    canvas.fine[heath] = first + patch[heath]
    canvas.fine[heath & (mottle > 0.6)] = first + 6 + patch[heath & (mottle > 0.6)]
    canvas.fine[heath & (mottle < -0.9)] = first + 12 + patch[heath & (mottle < -0.9)]
    wild = _enlarged(fractal_field(rng, shape, longest=60.0, slope=1.4))
    scrub = (wild > 1.7) & ~heath
    canvas.fine[scrub] = first + 6 + (wild[scrub] * 13).astype(int) % 6


def _paint_villages(canvas: _Canvas, config: SimulateConfig) -> None:
    """Build a few villages: roofs, streets, gardens and garden trees."""
    rng = generator(config.seed, 5)
    extent = canvas.fine.shape[0] * FINE_M
    shape = (config.size_px,) * 2
    count = max(1, round((extent / 1000) ** 2 / 9))
    ragged = _enlarged(fractal_field(rng, shape, longest=40.0, slope=1.3))
    inside = np.zeros(canvas.fine.shape, bool)
    for _ in range(count):
        cx, cy = rng.uniform(0.08, 0.92, 2) * extent
        radius = rng.uniform(110, 330) * min(1.0, extent / 3000)
        inside |= np.hypot(canvas.x - cx, canvas.y - cy) < radius * (1 + 0.3 * ragged)
    plots = smooth_field(rng, canvas.fine.shape, scale=2.2)
    streets = np.minimum(np.abs(canvas.x % 90 - 45), np.abs((canvas.y + 0.3 * canvas.x) % 120 - 60)) < 3.2
    first = canvas.add(["roof"] * 6 + ["road"] * 2 + ["pasture"] * 6 + ["hedge"] * 6)
    block = (canvas.x // 90 + canvas.y // 120).astype(int) % 6
    canvas.fine[inside] = first + 8 + block[inside]
    roof = inside & (plots > 0.45)
    canvas.fine[roof] = first + block[roof]
    garden_tree = inside & (plots < -1.05)
    canvas.fine[garden_tree] = first + 14 + block[garden_tree]
    canvas.fine[inside & streets] = first + 6


def _paint_trees(canvas: _Canvas, config: SimulateConfig, relief: _Relief) -> None:
    """Grow copses, single trees and woods, as much as the wanted share of canopy asks for."""
    rng = generator(config.seed, 6)
    _paint_single_trees(canvas, rng)
    covers = np.array([cover_table().index(c) for c in canvas.cover])
    tree = cover_table().tree_class[covers][canvas.fine] > 0
    copse = _copses(canvas, rng)
    suitability = _enlarged(_suitability(config, relief))
    wood = _reach_share(tree, copse, suitability, wanted=config.canopy_share)
    _paint_stands(canvas, rng, wood)


def _paint_single_trees(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Scatter trees with crowns of 6 to 14 m over the open land, clustered as in parkland."""
    size = canvas.fine.shape[0]
    parkland = _enlarged(fractal_field(rng, (size // FINE,) * 2, longest=90.0, slope=1.5))
    crown = smooth_field(rng, canvas.fine.shape, scale=1.6)
    first = canvas.add(["oak"] * 6 + ["birch"] * 4 + ["hedge"] * 6)
    # from a tree here and there to wood pasture that is all but a wood
    tree = crown > np.interp(parkland, [1.1, 1.7, 2.6], [3.0, 1.5, 0.0])
    which = (np.abs(parkland) * 37).astype(int) % 16
    canvas.fine[tree] = first + which[tree]


def _copses(canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return where small woods of 0.05 to 6 ha stand."""
    extent = canvas.fine.shape[0] * FINE_M
    count = max(2, round((extent / 1000) ** 2 * 3.2))
    copse = np.zeros(canvas.fine.shape, bool)
    for hectares in np.exp(rng.normal(-0.7, 1.2, count)).clip(0.05, 6.0):
        cx, cy = rng.uniform(0, extent, 2)
        radius, stretch, angle = np.sqrt(hectares * 1e4 / np.pi), rng.uniform(1.0, 2.6), rng.uniform(0, np.pi)
        reach = radius * 3 + 60
        rows = slice(max(int((cy - reach) / FINE_M), 0), max(int((cy + reach) / FINE_M), 0))
        cols = slice(max(int((cx - reach) / FINE_M), 0), max(int((cx + reach) / FINE_M), 0))
        dx, dy = canvas.x[rows, cols] - cx, canvas.y[rows, cols] - cy
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
        copse[rows, cols] |= (u / stretch) ** 2 + (v * stretch) ** 2 / stretch < radius**2 / stretch
    return copse


def _suitability(config: SimulateConfig, relief: _Relief) -> np.ndarray:
    """Return where woods would stand first: steep and high ground, in patches of every size."""
    rng = generator(config.seed, 7)
    patches = fractal_field(rng, relief.height.shape, longest=170.0, slope=1.75)
    return np.asarray(patches + 0.35 * relief.height / 38.0 + 1.5 * np.hypot(*relief.slope))


def _reach_share(tree: np.ndarray, copse: np.ndarray, suitability: np.ndarray, *, wanted: float) -> np.ndarray:
    """Return the woods whose extent, with the trees that stand already, gives the wanted share of canopy pixels."""
    # a fifth of what is painted so ends as no canopy: young growth, open stands, felled compartments
    low, high = float(suitability.min()), float(suitability.max())
    for _ in range(14):
        middle = (low + high) / 2
        wood = copse | (suitability > middle)
        pixel = (tree | wood).reshape(tree.shape[0] // FINE, FINE, -1, FINE).mean(axis=(1, 3)) >= 0.55
        low, high = (low, middle) if pixel.mean() * 0.79 < wanted else (middle, high)
    return wood


def _paint_stands(canvas: _Canvas, rng: np.random.Generator, wood: np.ndarray) -> None:
    """Divide the woods into stands of one species each, with gaps in the canopy."""
    cells, _ = _cells(canvas, rng, side_m=115.0, aspect=1.3)
    count = int(cells[0].max()) + 1
    size = canvas.fine.shape[0] // FINE
    leaning = fractal_field(rng, (size, size), longest=160.0, slope=1.8)
    lean = _mean_by_label(_enlarged(leaning), cells[0], count)
    conifer = lean + rng.normal(0, 0.8, count) > 0.15
    species = np.where(
        conifer,
        rng.choice(_CONIFER, size=count, p=[0.45, 0.37, 0.18]),
        rng.choice(_BROADLEAVED, size=count, p=[0.46, 0.30, 0.24]),
    )
    # restocked compartments: young growth that is not canopy yet
    young = np.where(conifer, _THICKET[2], rng.choice(_THICKET[:2], count))
    species = np.where(rng.random(count) < 0.21, young, species)
    first = canvas.add([str(s) for s in species], stand=True)
    floor = canvas.add(["rough"] * 4 + ["bracken"] * 4 + ["scrub"] * 4)
    closed = np.where(rng.random(count) < 0.2, rng.uniform(0.3, 0.85, count), rng.beta(18.0, 1.2, count))
    crowns = smooth_field(rng, canvas.fine.shape, scale=1.3)
    gap = wood & (crowns > _normal_quantile(closed)[cells[0]])
    canvas.fine[wood] = first + cells[0][wood]
    canvas.fine[gap] = floor + cells[0][gap] % 12
    mixed = wood & ~gap & (smooth_field(rng, canvas.fine.shape, scale=3.0) > 1.5)
    canvas.fine[mixed] = first + (cells[0][mixed] + 1) % count


def _mean_by_label(field: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of a field over each label, 0 for labels that do not occur."""
    total = np.bincount(label.ravel(), weights=field.ravel(), minlength=count)
    return np.asarray(total / np.maximum(np.bincount(label.ravel(), minlength=count), 1))


def _normal_quantile(share: np.ndarray) -> np.ndarray:
    """Return the level that a standard normal field stays below on that share of its area."""
    return np.asarray(ndtri(np.clip(share, 0.02, 0.98)))


def _paint_water(canvas: _Canvas, config: SimulateConfig) -> None:
    """Let a river wind through, with trees on its banks, and dig a lake and ponds."""
    rng = generator(config.seed, 8)
    extent = canvas.fine.shape[0] * FINE_M
    phase, amplitude = rng.uniform(0, 2 * np.pi, 3), extent * np.array([0.10, 0.035, 0.012])
    along = canvas.x * (2 * np.pi / extent)
    wave = sum(a * np.sin(along * f + p) for a, f, p in zip(amplitude, (1, 3, 8), phase, strict=True))
    offset = np.abs(canvas.y - (rng.uniform(0.3, 0.7) * extent + wave))
    lake = canvas.add(["lake"] * 3)
    river = canvas.add(["river"])
    bank = canvas.add(["hedge"] * 4)
    broken = _enlarged(fractal_field(rng, (config.size_px,) * 2, longest=30.0, slope=1.2))
    canvas.fine[(offset < 22) & (broken > 0.5)] = bank
    canvas.fine[offset < 7] = river
    for number, radius in enumerate([min(180.0, extent * 0.045), min(60.0, extent * 0.02), 35.0]):
        cx, cy = rng.uniform(0.15, 0.85, 2) * extent
        shore = np.hypot((canvas.x - cx) / 1.4, canvas.y - cy) < radius * (1 + 0.08 * broken)
        canvas.fine[shore] = lake + number


def _sum_up(fine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest units of each 10 m pixel and their shares."""
    rows, columns = fine.shape[0] // FINE, fine.shape[1] // FINE
    inside = fine.reshape(rows, FINE, columns, FINE).transpose(0, 2, 1, 3).reshape(rows, columns, FINE * FINE)
    inside = np.sort(inside, axis=-1)
    first = np.ones(inside.shape, bool)
    first[..., 1:] = inside[..., 1:] != inside[..., :-1]
    count = np.zeros(inside.shape, np.int8)
    for k in range(FINE * FINE):
        count[..., k] = (inside == inside[..., k : k + 1]).sum(axis=-1) * first[..., k]
    order = np.argsort(-count, axis=-1, kind="stable")[..., :SHARES]
    unit = np.take_along_axis(inside, order, axis=-1)
    share = np.take_along_axis(count, order, axis=-1).astype(np.float32)
    share /= share.sum(axis=-1, keepdims=True)
    return np.moveaxis(unit, -1, 0).copy(), np.moveaxis(share, -1, 0).copy()


def _texture(config: SimulateConfig, roughness: np.ndarray) -> np.ndarray:
    """Draw the fixed unevenness of each pixel; canopies are rougher than fields."""
    rng = generator(config.seed, 10)
    shape = roughness.shape
    rough = 0.6 + 0.6 * roughness
    common = fractal_field(rng, shape, longest=30.0, slope=0.9)
    own = np.stack([fractal_field(rng, shape, longest=20.0, slope=0.7) for _ in range(3)])
    # most of it is light and shade, which all bands share
    return np.asarray(rough * (0.095 * common + 0.028 * own), dtype=np.float32)
