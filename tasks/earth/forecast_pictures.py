"""Pictures of a forecast product: maps of some dates with the width of the interval, and single pixels with their past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from odc.geo.geobox import GeoBox
from odc.geo.geom import point

from models.floors import FLOORS, MIN_LOOKS
from models.indices import compute
from storage.cube import SeriesBlock
from tasks.earth.forecast_plots import COLOURS, DASHES, TITLES, draw_past
from tasks.earth.forecast_protocol import MODEL
from tasks.earth.forecast_request import Forecasting
from tasks.earth.forecasting import HIGH, LOW, MEDIAN, Forecaster, quantile_index
from tasks.earth.layers import CLEAR_COUNT, NO_COUNT, VALUE_SCALE, from_stored
from tasks.earth.mapping import MapPlan, looks_at
from tasks.earth.pictures import FONT, INK, MUTED, draw_scale_bar, finest_overview
from tasks.earth.plots import (
    date_format,
    date_span,
    draw_bar,
    draw_plane,
    legend_above,
    month_ticks,
    new_figure,
    style_panel,
    to_png,
    write_title,
)
from tasks.earth.product import Picture, RasterProduct

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MAPS = Picture("preview", "Median and width of the 80 % interval on some dates", ("overview", "thumbnail"))
PIXELS = Picture("pixels", "Past and forecast of some pixels")
MOST_MAPS = 4
STEP_DAYS = 3
SHOWN_PAST_DAYS = 60
SHOWN_FLOORS = ("phase_folded", "window_median")
RANKS = (0.05, 0.35, 0.65, 0.95)
"""Where the drawn pixels stand among all, by the median of the forecast."""

_VEGETATION = ("ndvi", "evi2")
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP, _ROW_GAP = 0.5, 1.0, 1.12, 0.5, 0.12, 0.2  # inches around maps


@dataclass(frozen=True)
class IndexMaps:
    """Maps of an index on some dates.

    Parameters
    ----------
    index : str
        Name.
    days : ndarray, shape (date,), datetime64[D]
    median, width : ndarray, shape (date, y, x), float32
        Of the forecast, and of its 80 % interval; NaN where there is none.
    geobox : GeoBox
        Their grid.
    """

    index: str
    days: np.ndarray
    median: np.ndarray
    width: np.ndarray
    geobox: GeoBox


@dataclass(frozen=True)
class PixelForecast:
    """One pixel's past, and its forecast day by day.

    Parameters
    ----------
    index : str
        Which index.
    place : tuple of float
        x and y of its centre, metres.
    origin : datetime64[D]
        Of the forecast.
    dates, looks : ndarray, shape (time,)
        Valid looks before the origin.
    days : ndarray, shape (day,), datetime64[D]
        Of the forecast.
    quantiles : ndarray, shape (quantile, day)
        Of the forecast.
    floors : mapping of str to ndarray, shape (day,)
        By name.
    """

    index: str
    place: tuple[float, float]
    origin: np.datetime64
    dates: np.ndarray
    looks: np.ndarray
    days: np.ndarray
    quantiles: np.ndarray
    floors: Mapping[str, np.ndarray]


def draw_forecast(
    folder: Path, plan: MapPlan, product: RasterProduct, asked: Forecasting, *, forecaster: Forecaster
) -> tuple[Picture, ...]:
    """Draw the pictures of a forecast beside its Zarr group, and return which ones.

    Parameters
    ----------
    folder : Path
        Holds the Zarr group.
    plan : MapPlan
        The cubes, for the past of single pixels.
    product : RasterProduct
        What the pictures say of themselves.
    asked : Forecasting
        What is forecast.
    forecaster : Forecaster
        Forecasts the single pixels day by day.
    """
    index = asked.out_index[0]
    maps, counts = _read_maps(folder / product.zarr, asked, index)
    words = (
        f"{product.place}; {asked.targets[0]} to {asked.targets[-1]}, model {asked.model}, looks before {asked.origin}",
        f"{product.key.item_id}   ·   {product.resolution:g} m pixels   ·   {product.made_by}",
    )
    (folder / f"{MAPS.name}.png").write_bytes(
        draw_maps(maps, origin=asked.origin, title=f"{product.title}: {TITLES[index]}", words=words)
    )
    places = choose_places(maps, counts, pixel=product.resolution)
    pixels = [found for place in places if (found := _follow(plan, asked, forecaster, place)) is not None]
    if not pixels:
        return (MAPS,)
    (folder / f"{PIXELS.name}.png").write_bytes(
        draw_pixels(
            pixels, levels=asked.quantiles, title=f"{product.title}: {TITLES[index]} of single pixels", what=words[0]
        )
    )
    return (MAPS, PIXELS)


def draw_maps(maps: IndexMaps, *, origin: np.datetime64, title: str, words: tuple[str, str]) -> bytes:
    """Return a PNG: the median on each date, and below it the width of the 80 % interval.

    Parameters
    ----------
    maps : IndexMaps
        At most `MOST_MAPS` dates.
    origin : datetime64[D]
        From which the days ahead are counted.
    title : str
        Heading.
    words : tuple of str
        The line below it, and the small print.
    """
    rows, columns = maps.median.shape[1:]
    number = len(maps.days)
    width = 2.75 if number > 1 else 3.6
    height = min(max(width * rows / columns, 1.2), 4.2)
    size = (_LEFT + number * (width + _GAP) + _RIGHT, _TOP + 2 * height + _ROW_GAP + _BOTTOM)
    size = (max(size[0], 6.4), size[1])
    figure = new_figure(*size)
    name = TITLES[maps.index]
    for row, (values, label, colours) in enumerate(
        (
            (maps.median, f"Median {name}", "YlGn" if maps.index in _VEGETATION else "cividis"),
            (maps.width, "80 % interval, width", "BuPu"),
        )
    ):
        limits = _limits(values, widths=row == 1)
        bottom = size[1] - _TOP - (row + 1) * height - row * _ROW_GAP
        for column, plane in enumerate(values):
            left = _LEFT + column * (width + _GAP)
            box = (left / size[0], bottom / size[1], width / size[0], height / size[1])
            axes = figure.add_axes(box)
            image = draw_plane(axes, plane, maps.geobox, colours=colours, limits=limits)
            if row == 0:
                _head_column(axes, maps.days[column], origin)
            if column == 0:
                axes.set_ylabel(label, fontsize=9.5, color=INK, family=FONT)
            if (row, column) == (0, 0):
                draw_scale_bar(axes, maps.geobox, magnify=1.7)
        left = _LEFT + number * (width + _GAP) + 0.05
        bar = figure.add_axes((left / size[0], bottom / size[1], 0.14 / size[0], height / size[1]))
        draw_bar(figure, bar, image, label=f"{name}, no unit")
    write_title(figure, title, words[0])
    grey = "   ·   grey: no clear look" if np.isnan(maps.median).any() else ""
    figure.text(_LEFT / size[0], 0.2 / size[1], words[1] + grey, fontsize=7, color=MUTED, va="center", family=FONT)
    return to_png(figure)


def draw_pixels(pixels: Sequence[PixelForecast], *, levels: tuple[float, ...], title: str, what: str) -> bytes:
    """Return a PNG: for each pixel its looks, and the forecast's quantiles beside the floors.

    Parameters
    ----------
    pixels : sequence of PixelForecast
        Not empty.
    levels : tuple of float
        Of their quantiles.
    title, what : str
        Heading and the line below it.
    """
    figure = new_figure(12.0, 2.35 * len(pixels) + 1.5)
    panels = figure.subplots(
        len(pixels), 2, squeeze=False, sharey="row", sharex="col", gridspec_kw={"width_ratios": (1, 1.5)}
    )
    for (left, right), pixel in zip(panels, pixels, strict=True):
        draw_past(left, pixel)
        _draw_fan(right, pixel, levels)
    legend_above(figure, panels[0][1], columns=8)
    write_title(figure, title, what)
    return to_png(figure)


def choose_places(maps: IndexMaps, counts: np.ndarray, *, pixel: float) -> list[tuple[float, float]]:
    """Return the centres of some pixels from low to high forecast, those with a long past first.

    Parameters
    ----------
    maps : IndexMaps
        Full resolution or an overview.
    counts : ndarray, shape (y, x)
        Clear looks.
    pixel : float
        Side of a pixel at full resolution, metres.
    """
    known = np.isfinite(maps.median).all(axis=0)
    usable = known & (counts >= MIN_LOOKS)
    row, column = np.nonzero(usable if usable.any() else known)
    if not row.size:
        return []
    order = np.argsort(maps.median[:, row, column].mean(axis=0), kind="stable")
    chosen = sorted({round(rank * (row.size - 1)) for rank in RANKS})
    affine = maps.geobox.affine
    # of an overview's pixel the upper left one
    return [
        (float(affine.c + affine.a * column[number] + pixel / 2), float(affine.f + affine.e * row[number] - pixel / 2))
        for number in order[chosen]
    ]


def _read_maps(group: Path, asked: Forecasting, index: str) -> tuple[IndexMaps, np.ndarray]:
    """Return maps of some dates at a resolution that a picture can show, and how often each pixel was seen."""
    level, grid = finest_overview(group, most=700)
    last = len(asked.targets) - 1
    shown = sorted({round(number) for number in np.linspace(0, last, min(MOST_MAPS, last + 1))})

    def plane(of: float) -> np.ndarray:
        number = quantile_index(asked.quantiles, of)
        stored = [np.asarray(level[index][day : day + 1, number : number + 1])[0, 0] for day in shown]
        return from_stored(np.stack(stored), VALUE_SCALE)

    counts = np.asarray(level[CLEAR_COUNT][:])
    maps = IndexMaps(index, asked.days[shown], plane(MEDIAN), plane(HIGH) - plane(LOW), grid)
    return maps, np.where(counts == NO_COUNT, 0, counts)


def _follow(
    plan: MapPlan, asked: Forecasting, forecaster: Forecaster, place: tuple[float, float]
) -> PixelForecast | None:
    """Return a pixel's past and its forecast every few days; None where it has no look of its own."""
    block = _looks_of(plan, place)
    if block is None:
        return None
    index = asked.out_index[0]
    (looks,) = looks_at(block, at_once=1, bands=[plan.bands.index(band) for band in asked.bands])
    step = np.timedelta64(STEP_DAYS, "D")
    days = np.unique(np.append(np.arange(asked.origin, asked.targets[-1], step), asked.targets[-1]))
    found = forecaster.forecast(looks.reflectance, looks.valid, looks.dates, days, bands=asked.bands)
    numbers = [quantile_index(tuple(forecaster.quantiles), level) for level in asked.quantiles]
    values = compute(index, dict(zip(asked.bands, looks.reflectance.swapaxes(0, 1), strict=True)))  # (time, pixel)
    valid = looks.valid[:, 0]
    return PixelForecast(
        index,
        place,
        asked.origin,
        looks.dates[valid],
        values[valid, 0],
        days,
        found.indices[index][:, numbers, 0].T,
        {name: FLOORS[name](values, looks.valid, looks.dates, days)[:, 0] for name in SHOWN_FLOORS},
    )


def _looks_of(plan: MapPlan, place: tuple[float, float]) -> SeriesBlock | None:
    """Return the looks at a place from the cube that the product took them from."""
    for cube in plan.cubes:
        tile = cube.tile.geobox
        there = point(*place, str(plan.staging.crs)).to_crs(str(tile.crs))
        column, row = (int(np.floor(number)) for number in ~tile.affine * there.coords[0])
        if not (0 <= row < tile.shape[0] and 0 <= column < tile.shape[1]):
            continue
        block = plan.read(cube, {"y": slice(row, row + 1), "x": slice(column, column + 1)})
        if block.valid.any():
            return block
    return None


def _head_column(axes: Axes, day: np.datetime64, origin: np.datetime64) -> None:
    ahead = int((day - origin).astype(int))
    axes.set_title(f"{day}\n{ahead} days ahead", fontsize=9.5, color=INK, family=FONT, loc="left", linespacing=1.3)


def _limits(values: np.ndarray, *, widths: bool) -> tuple[float, float]:
    """Return round limits that hold nearly all values; widths start at 0."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(number) for number in np.quantile(known, (0.01, 0.99)))
    step = 0.05
    first = 0.0 if widths else np.floor(low / step) * step
    return first, max(float(np.ceil(high / step) * step), first + step)


def _draw_fan(panel: Axes, pixel: PixelForecast, levels: tuple[float, ...]) -> None:
    colour = COLOURS[MODEL]
    pairs = len(levels) // 2
    for number in range(pairs):
        low, high = levels[number], levels[-1 - number]
        shade = _paler(colour, 0.18 + 0.32 * number / max(pairs - 1, 1))
        label = f"{100 * (high - low):.0f} % interval"
        panel.fill_between(
            pixel.days, pixel.quantiles[number], pixel.quantiles[-1 - number], label=label, color=shade, linewidth=0
        )
    for name in SHOWN_FLOORS:
        line = panel.plot(pixel.days, pixel.floors[name], color=COLOURS[name], linewidth=1.2)[0]
        line.set_dashes(DASHES[name])
        line.set_label(name.replace("_", " "))
    panel.plot(pixel.days, pixel.quantiles[quantile_index(levels, MEDIAN)], color=colour, linewidth=2.2, label="median")
    start = pixel.origin - np.timedelta64(SHOWN_PAST_DAYS, "D")
    recent = pixel.dates >= start
    panel.plot(pixel.dates[recent], pixel.looks[recent], "o", color=MUTED, markersize=4.0, label="looks")
    panel.axvline(date_span(pixel.origin, pixel.origin)[0], color=INK, linewidth=0.8)
    style_panel(panel, title=f"from {pixel.origin} on")
    panel.set_xlim(*date_span(start, pixel.days[-1] + np.timedelta64(4, "D")))
    panel.xaxis.set_major_locator(month_ticks())
    panel.xaxis.set_major_formatter(date_format("%-d %b %Y"))


def _paler(colour: str, share: float) -> tuple[float, ...]:
    """Return a colour mixed with white, so that shades in the legend are those of the plot."""
    from matplotlib.colors import to_rgb

    return tuple(1 - share * (1 - part) for part in to_rgb(colour))
