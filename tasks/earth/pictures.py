"""A picture of a class map: map, legend, title, scale bar, north arrow, coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS, LandClass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"
INK, MUTED, PAPER, BLANK = "#23291f", "#6b7266", "#fbfaf6", "#ffffff"
PIXELS_PER_INCH = 130
MAP_INCHES = 7.0
PREVIEW_PIXELS = 1400


@dataclass(frozen=True)
class Caption:
    """The words on a map.

    Parameters
    ----------
    title : str
        Heading.
    period : str
        What the map is of, in time.
    footer : str
        Small print: where it comes from.
    areas_ha : mapping of str to float
        Mapped area per class name in hectares, printed in the legend.
    """

    title: str
    period: str
    footer: str = ""
    areas_ha: Mapping[str, float] = field(default_factory=dict)


def draw_class_map(
    path: Path, values: np.ndarray, geobox: GeoBox, *, classes: tuple[LandClass, ...], caption: Caption
) -> None:
    """Write a PNG of a class map; the same input gives the same bytes.

    Parameters
    ----------
    path : Path
        Local `.png`.
    values : ndarray, shape (y, x), uint8
        Class values, `NO_CLASS` where there is none; at most some 1,500 pixels a side are of use.
    geobox : GeoBox
        Grid of `values`, in a projected CRS.
    classes : tuple of LandClass
        Colours and titles.
    caption : Caption
        Words and areas.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = values.shape
    width, height = _map_inches(rows, columns)
    # no pyplot: its global state is shared between threads
    figure = Figure(figsize=(width + 3.75, height + 1.75), dpi=PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    size = (width + 3.75, height + 1.75)
    axes = figure.add_axes((0.85 / size[0], 0.8 / size[1], width / size[0], height / size[1]))
    left, bottom, right, top = (float(edge) for edge in geobox.boundingbox)
    axes.imshow(colour(values, classes), extent=(left, right, bottom, top), interpolation="nearest", aspect="equal")
    _draw_frame(axes, geobox)
    draw_scale_bar(axes, geobox)
    _draw_words(figure, caption, size)
    blank = bool((values == NO_CLASS).any())
    panel = figure.add_axes(((width + 1.1) / size[0], 0.8 / size[1], 2.5 / size[0], height / size[1]))
    _draw_legend(panel, classes, caption.areas_ha, height=height, blank=blank)
    figure.savefig(path, format="png", facecolor=PAPER, metadata={"Software": None, "Title": caption.title})


def finest_overview(group: Path, *, most: int = PREVIEW_PIXELS) -> tuple[Any, GeoBox]:
    """Return the finest level of a product's Zarr group that a picture can show, and its grid.

    Parameters
    ----------
    group : Path
        Local Zarr group with a `multiscales` layout.
    most : int
        Pixels along the longer side.
    """
    import zarr

    from storage.geozarr import geobox_from_attributes

    root = zarr.open_group(group, mode="r")
    layout: Any = root.attrs["multiscales"]
    fitting = [level["asset"] for level in layout["layout"] if max(level["spatial:shape"]) <= most]
    level: Any = root[fitting[0] if fitting else layout["layout"][-1]["asset"]]
    return level, geobox_from_attributes(level.attrs)


def colour(values: np.ndarray, classes: tuple[LandClass, ...]) -> np.ndarray:
    """Return class values as colours.

    Returns
    -------
    ndarray, shape (y, x, 3), uint8
        Red, green, blue; values that are no class are white.
    """
    table = np.full((256, 3), 255, dtype=np.uint8)
    for land_class in classes:
        table[land_class.value] = land_class.rgb
    coloured: np.ndarray = table[values]
    return coloured


def round_length(longest: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above `longest`.

    Examples
    --------
    >>> round_length(2600.0)
    2000.0
    """
    power: float = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= longest)


def _map_inches(rows: int, columns: int) -> tuple[float, float]:
    """Return width and height of the map; very long shapes are kept readable."""
    width = MAP_INCHES * min(1.0, columns / rows)
    height = MAP_INCHES * min(1.0, rows / columns)
    return max(width, 3.5), max(height, 3.2)


def _draw_frame(axes: Axes, geobox: GeoBox) -> None:
    """Label the edges with grid coordinates in kilometres."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda metres, _: f"{metres / 1000:,.10g}"))
    axes.tick_params(labelsize=8, labelcolor=MUTED, color=MUTED, direction="out", length=3)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontfamily(FONT)
    axes.set_xlabel(f"Easting, km ({geobox.crs})", fontsize=8, color=MUTED, family=FONT)
    axes.set_ylabel("Northing, km", fontsize=8, color=MUTED, family=FONT)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.8)


def draw_scale_bar(axes: Axes, geobox: GeoBox, *, magnify: float = 1.0) -> None:
    """Draw a bar of a round length, at most a quarter of the width, and an arrow to grid north.

    Parameters
    ----------
    axes : Axes
        Shows a map in the coordinates of the grid.
    geobox : GeoBox
        Its grid.
    magnify : float
        How much more room the symbols take, for maps smaller than `MAP_INCHES`.
    """
    left, bottom, right, top = (float(edge) for edge in geobox.boundingbox)
    width, height = right - left, top - bottom
    length = round_length(width / 4)
    wide, high = width * magnify, height * magnify
    x, y = left + 0.035 * width, bottom + 0.04 * high
    _draw_plate(axes, (x - 0.015 * width, y - 0.02 * high), length + 0.03 * width, 0.075 * high)
    axes.plot([x, x + length], [y, y], color=INK, linewidth=3.0, solid_capstyle="butt", zorder=5)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    words: dict[str, Any] = {"ha": "center", "color": INK, "family": FONT, "zorder": 5}
    axes.text(x + length / 2, y + 0.012 * high, label, va="bottom", fontsize=9 if magnify == 1 else 7.5, **words)
    north = right - 0.05 * wide
    _draw_plate(axes, (north - 0.025 * wide, top - 0.12 * high), 0.05 * wide, 0.1 * high)
    axes.text(
        north, top - 0.098 * high, "N", va="center", fontsize=11 if magnify == 1 else 9, fontweight="bold", **words
    )
    axes.annotate(
        "",
        xy=(north, top - 0.027 * high),
        xytext=(north, top - 0.085 * high),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.6},
        zorder=5,
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _draw_plate(axes: Axes, corner: tuple[float, float], width: float, height: float) -> None:
    """Lay a pale plate under a symbol, so that it reads on any class."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(corner, width, height, facecolor=PAPER, edgecolor="none", alpha=0.88, zorder=4))


def _draw_words(figure: Figure, caption: Caption, size: tuple[float, float]) -> None:
    left = 0.85 / size[0]
    fits = min(16.0, 16.0 * 9.0 * size[0] / max(len(caption.title) * 1.15, 1.0))
    figure.text(
        left, 1 - 0.38 / size[1], caption.title, fontsize=fits, fontweight="bold", color=INK, va="center", family=FONT
    )
    figure.text(left, 1 - 0.7 / size[1], caption.period, fontsize=10, color=MUTED, va="center", family=FONT)
    figure.text(left, 0.16 / size[1], caption.footer, fontsize=7, color=MUTED, va="center", family=FONT)


def _draw_legend(
    panel: Axes, classes: tuple[LandClass, ...], areas_ha: Mapping[str, float], *, height: float, blank: bool
) -> None:
    """Draw one row per class: colour, title, mapped area and share."""
    panel.set_xlim(0, 2.5)
    panel.set_ylim(height, 0)
    panel.axis("off")
    total = sum(areas_ha.values())
    rows: list[tuple[str, str, str]] = []
    for land_class in reversed(classes):
        area = areas_ha.get(land_class.name)
        note = "" if area is None or not total else f"{area:,.0f} ha  ·  {area / total:.1%}"
        rows.append((land_class.colour, land_class.title, note))
    rows += [(BLANK, "No data", "")] if blank else []
    for index, row in enumerate(rows):
        _draw_legend_row(panel, 0.1 + index * 0.62, *row)
    if total:
        y = 0.1 + len(rows) * 0.62 + 0.1
        panel.text(
            0, y, "Mapped areas: counted pixels,\nnot area estimates", fontsize=7.5, color=MUTED, va="top", family=FONT
        )


def _draw_legend_row(panel: Axes, y: float, fill: str, title: str, note: str) -> None:
    from matplotlib.patches import Rectangle

    panel.add_patch(Rectangle((0, y), 0.36, 0.36, facecolor=fill, edgecolor=INK, linewidth=0.6))
    words: dict[str, Any] = {"ha": "left", "va": "center", "family": FONT}
    panel.text(0.5, y + (0.09 if note else 0.18), title, fontsize=10.5, color=INK, **words)
    panel.text(0.5, y + 0.31, note, fontsize=8.5, color=MUTED, **words)
