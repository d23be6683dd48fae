"""The one-page report of generated galaxies beside real ones: pictures on one stretch, distributions, and the metrics' table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.earth.pictures import FONT, INK, MUTED
from tasks.earth.plots import new_figure, style_panel, to_png, write_title
from tasks.sky.gallery import PAPER
from tasks.sky.generation_colours import colour_images
from tasks.sky.generation_measures import Measured, noise_of
from tasks.sky.generation_scores import Scored, closing_lines
from tasks.sky.generation_sets import GalaxySet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, MADE = "#2f4b9b", "#d1742b"
_WIDTH, _MARGIN, _GAP = 12.0, 0.35, 0.3
_COLUMNS, _ROWS = 6, 5
_PAIRS = 10
_PANELS = 5
_PANEL_HEIGHT = 2.1
_LINE = 0.185
_POINTS = 1500
_BINS = 40


def draw_evaluation(scored: Scored) -> bytes:
    """Return a PNG of one page; the same scores give the same bytes."""
    found = scored.report
    has_pairs = scored.nearest is not None and scored.train is not None
    grid = (_WIDTH - 2 * _MARGIN - _GAP) / 2 / _COLUMNS * _ROWS
    pair = (_WIDTH - 2 * _MARGIN) / _PAIRS
    table = _LINE * (len(found["metrics"]) + 4.5 + len(closing_lines(found)))
    height = 0.95 + grid + 2 * (_PANEL_HEIGHT + 0.55) + (2 * pair + 0.5 if has_pairs else 0) + table + 0.2
    figure = new_figure(_WIDTH, height)
    write_title(
        figure,
        "Generated galaxies beside real ones",
        f"{found['generated']} against {found['real']}: {found['n']:,} of each, {found['pixels']} pixels of "
        f"{found['pixel_scale_arcsec']:g} arcsec, {', '.join(found['bands'])}",
    )
    noise = noise_of(scored.real)
    top = height - 0.95
    half = (_WIDTH - 2 * _MARGIN - _GAP) / 2
    for left, galaxies, name, colour in (
        (_MARGIN, scored.real, "real", REAL),
        (_MARGIN + half + _GAP, scored.generated, "generated", MADE),
    ):
        images = colour_images(galaxies[: _COLUMNS * _ROWS], noise)
        _show(figure, _mosaic(images, _COLUMNS), (left, top - grid, half, grid), name, colour)
    top -= grid + 0.15
    top = _draw_distributions(figure, scored, top)
    if scored.nearest is not None and scored.train is not None:
        made = colour_images(scored.generated[:_PAIRS], noise)
        rows = scored.nearest[:_PAIRS]
        nearest = colour_images(
            GalaxySet(scored.train.images[rows], scored.train.bands, scored.train.pixel_scale_arcsec), noise
        )
        box = (_MARGIN, top - 2 * pair - 0.3, pair * len(made), 2 * pair)
        words = "generated, and below each the training galaxy that is nearest to it in any orientation"
        _show(figure, _mosaic(np.concatenate([made, nearest]), len(made)), box, words, INK)
        top -= 2 * pair + 0.5
    _draw_table(figure, found, top - 0.2)
    return to_png(figure)


def write_page(found: Mapping[str, Any], picture: str) -> str:
    """Return the report in Markdown, with the picture in it."""
    lines = [
        "# Generated galaxies beside real ones",
        "",
        f"{found['generated']} against {found['real']}: {found['n']:,} galaxies each, {found['pixels']} pixels of "
        f"{found['pixel_scale_arcsec']:g} arcsec, {', '.join(found['bands'])}; "
        f"seed {found['seed']}; features: {found['features'] or 'none'}.",
        "",
        f"![real and generated galaxies, distributions, metrics]({picture})",
        "",
        "| metric | unit | value | 95 % | floor: real against real | x floor | dropped |",
        "| --- | --- | ---: | --- | --- | ---: | ---: |",
    ]
    lines += [f"| {' | '.join(_row(entry))} |" for entry in found["metrics"].values()]
    lines += ["", "| term of the distance | value | floor |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {part['value']:.4f} | {part['floor']:.4f} |" for name, part in found["parts"].items()]
    return "\n".join([*lines, "", *(f"- {line}" for line in closing_lines(found)), ""])


def _row(entry: Mapping[str, Any]) -> list[str]:
    ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
    return [
        entry["label"],
        entry["unit"],
        f"{entry['value']:.4g}",
        f"{entry['low']:.4g} to {entry['high']:.4g}",
        f"{entry['floor']:.4g} ({entry['floor_low']:.4g} to {entry['floor_high']:.4g})",
        ratio,
        f"{entry['dropped']:.2%}",
    ]


def _show(figure: Figure, image: NDArray[np.uint8], box: tuple[float, ...], title: str, colour: str) -> None:
    """Draw an image into a box of inches: left, bottom, width, height."""
    axes = _axes(figure, box)
    axes.imshow(image, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, color=colour, family=FONT, loc="left", pad=4)


def _mosaic(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Return images side by side with a pixel between them, upright for matplotlib."""
    count, side = len(images), images.shape[1]
    rows = math.ceil(count / columns)
    paper = [int(PAPER[place : place + 2], 16) for place in (1, 3, 5)]
    canvas = np.empty((rows * (side + 1), columns * (side + 1), 3), dtype=np.uint8)
    canvas[:] = paper
    for index, image in enumerate(images):
        row, column = (place * (side + 1) for place in divmod(index, columns))
        canvas[row : row + side, column : column + side] = image[::-1]
    return canvas


def _axes(figure: Figure, box: tuple[float, ...]) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, wide, high = box
    return figure.add_axes((left / width, bottom / height, wide / width, high / height))


def _draw_distributions(figure: Figure, scored: Scored, top: float) -> float:
    """Draw two rows of panels below `top`, and return where they end."""
    real, made = scored.measured_real, scored.measured
    bands, middle = real.bands, len(real.bands) // 2
    panels: list[tuple[str, Any]] = [
        (f"{bands[middle]}, AB mag within 1.57 arcsec", lambda m: m.published[:, middle]),
        (f"{bands[0]} - {bands[1]}, mag", lambda m: m.published[:, len(bands) + 1]),
        (f"published radius in {bands[0]}, arcsec", lambda m: m.published[:, len(bands)]),
        (f"half-light radius in {bands[0]}, arcsec", lambda m: m.half_light[:, len(bands)]),
        (f"noise in {bands[middle]}, log10 nmgy", lambda m: m.noise[:, middle]),
        ("concentration", lambda m: m.shapes.concentration),
        ("asymmetry", lambda m: m.shapes.asymmetry),
        ("ellipticity", lambda m: m.shapes.ellipticity),
    ]
    wide = (_WIDTH - 2 * _MARGIN - (_PANELS - 1) * _GAP) / _PANELS
    for index in range(2 * _PANELS):
        row, column = divmod(index, _PANELS)
        bottom = top - 0.3 - _PANEL_HEIGHT - row * (_PANEL_HEIGHT + 0.55)
        axes = _axes(figure, (_MARGIN + column * (wide + _GAP), bottom, wide, _PANEL_HEIGHT))
        if index < len(panels):
            title, pick = panels[index]
            _draw_histogram(axes, pick(real), pick(made))
        elif index == len(panels):
            title = f"power in {bands[middle]}, by waves per arcsec"
            _draw_spectra(axes, real, made, middle)
        else:
            title = f"{bands[0]} - {bands[1]} against {bands[middle]}"
            for measured, colour in ((real, REAL), (made, MADE)):
                magnitude, colour_index = measured.plane[:_POINTS].T
                axes.scatter(magnitude, colour_index, s=3, color=colour, alpha=0.35, linewidths=0)
            _limit(axes, np.concatenate([real.plane, made.plane]))
        style_panel(axes, title=title)
        axes.title.set_fontsize(7.5)
        axes.tick_params(labelsize=6.5)
    return top - 2 * (_PANEL_HEIGHT + 0.55) - 0.05


def _draw_histogram(axes: Axes, real: NDArray[np.float64], made: NDArray[np.float64]) -> None:
    both = np.concatenate([real, made])
    low, high = np.nanpercentile(both, [0.3, 99.7])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, colour in ((real, REAL), (made, MADE)):
        axes.hist(
            values[np.isfinite(values)].clip(low, high),
            bins=list(edges),
            density=True,
            histtype="step",
            color=colour,
            linewidth=1.2,
        )
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)


def _draw_spectra(axes: Axes, real: Measured, made: Measured, band: int) -> None:
    bins = len(real.waves)
    columns = slice(band * bins, (band + 1) * bins)
    for measured, colour in ((real, REAL), (made, MADE)):
        low, middle, high = np.nanpercentile(measured.spectrum[:, columns], [16, 50, 84], axis=0)
        axes.plot(measured.waves, middle, color=colour, linewidth=1.4)
        axes.fill_between(measured.waves, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    axes.set_xticks([tick for tick in ticks if real.waves[0] <= tick <= real.waves[-1]])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _limit(axes: Axes, plane: NDArray[np.float64]) -> None:
    low, high = np.nanpercentile(plane, [0.3, 99.7], axis=0)
    room = np.maximum(0.05 * (high - low), 1e-6)
    axes.set_xlim(low[0] - room[0], high[0] + room[0])
    axes.set_ylim(low[1] - room[1], high[1] + room[1])


def _draw_table(figure: Figure, found: Mapping[str, Any], top: float) -> None:
    width, height = figure.get_size_inches()
    places = (0.0, 2.6, 3.9, 4.9, 6.9, 9.7, 10.7)
    heads = ("metric", "unit", "value", "95 %", "floor: real against real", "x floor", "dropped")
    rows = [heads, *(_row(entry) for entry in found["metrics"].values())]
    for number, row in enumerate(rows):
        y = (top - _LINE * number) / height
        for place, words in zip(places, row, strict=True):
            figure.text(
                (_MARGIN + place) / width,
                y,
                words,
                fontsize=8,
                family=FONT,
                color=MUTED if number == 0 else INK,
                va="top",
            )
    for number, line in enumerate(closing_lines(found), start=len(rows) + 1):
        figure.text(
            _MARGIN / width, (top - _LINE * number) / height, line, fontsize=7.5, family=FONT, color=MUTED, va="top"
        )
