"""The parts that plots share: figures without global state, panels, legends, date axes, all in one style."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from tasks.earth.pictures import FONT, INK, MUTED, PAPER, PIXELS_PER_INCH

BLANK = "#e4e4e0"
"""Where a map has no value."""

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def date_span(first: np.datetime64, last: np.datetime64) -> tuple[float, float]:
    """Return limits of an axis of dates."""
    from matplotlib.dates import date2num

    return float(date2num(first)), float(date2num(last))


def year_ticks() -> Any:
    """Return a tick at the start of every year."""
    from matplotlib.dates import YearLocator

    return YearLocator()


def month_ticks() -> Any:
    """Return some ticks at round dates."""
    from matplotlib.dates import AutoDateLocator

    return AutoDateLocator(minticks=3, maxticks=7)


def date_format(pattern: str) -> Any:
    """Return labels of dates, as strftime spells them."""
    from matplotlib.dates import DateFormatter

    return DateFormatter(pattern)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # no pyplot: its global state is shared between threads
    figure = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def style_panel(panel: Axes, *, title: str) -> None:
    """Give a panel its title, grid and colours."""
    panel.set_title(title, fontsize=9.5, color=INK, family=FONT, loc="left")
    panel.set_facecolor("#ffffff")
    panel.grid(color="#e4e6df", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, labelcolor=MUTED, color=MUTED)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def legend_above(figure: Figure, panel: Axes, *, columns: int = 6) -> None:
    """Draw the legend of one panel below the figure's title, and fit the panels under it."""
    handles, labels = panel.get_legend_handles_labels()
    rows = -(-len(labels) // columns)
    height = figure.get_figheight()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.01, 1 - 0.62 / height),
        ncols=columns,
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.68 + 0.24 * rows) / height))


def write_title(figure: Figure, title: str, what: str) -> None:
    """Write a title and a line below it."""
    height = figure.get_figheight()
    figure.text(0.015, 1 - 0.3 / height, title, fontsize=13, color=INK, family=FONT, weight="bold")
    figure.text(0.015, 1 - 0.52 / height, what, fontsize=9, color=MUTED, family=FONT)


def to_png(figure: Figure) -> bytes:
    """Return a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def draw_plane(
    axes: Axes,
    values: np.ndarray,
    geobox: GeoBox,
    *,
    colours: str | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Any:
    """Draw one map in the coordinates of its grid, grey where there is nothing, and return matplotlib's image.

    Parameters
    ----------
    axes : Axes
        Empty.
    values : ndarray, shape (y, x), or (y, x, 3) for red, green, blue
        NaN where there is nothing.
    geobox : GeoBox
        Grid of the values.
    colours : str, optional
        Name of a colour map, for a plain map.
    limits : tuple of float
        What the colour map's ends stand for.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    left, bottom, right, top = (float(edge) for edge in geobox.boundingbox)
    shown: dict[str, Any] = {"extent": (left, right, bottom, top), "interpolation": "nearest", "aspect": "equal"}
    if colours is None:
        image = axes.imshow(np.where(np.isnan(values), to_rgb(BLANK), values), **shown)
    else:
        table = colormaps[colours].with_extremes(bad=BLANK)
        image = axes.imshow(np.ma.masked_invalid(values), cmap=table, vmin=limits[0], vmax=limits[1], **shown)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.6)
    return image


def draw_bar(figure: Figure, axes: Axes, image: Any, *, label: str) -> None:
    """Draw the colour bar of a map."""
    bar = figure.colorbar(image, cax=axes, extend="both")
    bar.set_label(label, fontsize=8.5, color=MUTED, family=FONT)
    bar.ax.tick_params(labelsize=8, labelcolor=MUTED, color=MUTED)
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]
