"""The picture of an embedding: its first three principal components as colours, and each by itself."""

from __future__ import annotations

import numpy as np
from odc.geo.geobox import GeoBox

from tasks.earth.pictures import FONT, INK, MUTED, draw_scale_bar
from tasks.earth.plots import draw_bar, draw_plane, new_figure, to_png, write_title
from tasks.earth.product import Picture

PREVIEW = Picture("preview", "First three principal components of the embedding", ("overview", "thumbnail"))

_LEFT, _TOP, _BOTTOM, _GAP, _BAR = 0.4, 0.95, 0.5, 0.25, 1.1  # inches around the maps
_SIDE = 6.6
_SHARES = (0.02, 0.98)
_COLOURS = ("red", "green", "blue")


def draw_components(
    values: np.ndarray, geobox: GeoBox, *, explained: np.ndarray, title: str, words: tuple[str, str]
) -> bytes:
    """Return a PNG: components one to three as red, green and blue, and beside it each as a map of its own.

    Parameters
    ----------
    values : ndarray, shape (3, y, x), float32
        In standard deviations of the first; NaN where there is none.
    geobox : GeoBox
        Grid of the values.
    explained : ndarray, shape (3,)
        Share of the variance.
    title : str
        Heading.
    words : tuple of str
        The line below it, and the small print.
    """
    rows, columns = values.shape[1:]
    width, height = _SIDE * min(1.0, columns / rows), _SIDE * min(1.0, rows / columns)
    small = (width * (height - 2 * _GAP) / 3 / height, (height - 2 * _GAP) / 3)
    size = (max(_LEFT + width + _GAP + small[0] + _BAR, 6.4), _TOP + height + _BOTTOM)
    figure = new_figure(*size)
    axes = figure.add_axes((_LEFT / size[0], _BOTTOM / size[1], width / size[0], height / size[1]))
    draw_plane(axes, stretched(values), geobox)
    draw_scale_bar(axes, geobox)
    limits = [_limits(plane) for plane in values]
    edge = max(abs(bound) for pair in limits for bound in pair)
    for number, plane in enumerate(values):
        bottom = _BOTTOM + height - (number + 1) * small[1] - number * _GAP
        box = ((_LEFT + width + _GAP) / size[0], bottom / size[1], small[0] / size[0], small[1] / size[1])
        panel = figure.add_axes(box)
        image = draw_plane(panel, plane, geobox, colours="cividis", limits=(-edge, edge))
        label = f"component {number + 1} ({_COLOURS[number]}): {100 * explained[number]:.0f} %"
        panel.set_title(label, fontsize=8, color=INK, family=FONT, loc="left", pad=3)
    left = _LEFT + width + _GAP + small[0] + 0.1
    bar = figure.add_axes((left / size[0], _BOTTOM / size[1], 0.14 / size[0], height / size[1]))
    draw_bar(figure, bar, image, label="standard deviations of the first component")
    write_title(figure, f"{title}: principal components", words[0])
    notes = "   ·   %: share of the variance" + ("   ·   grey: no clear look" if np.isnan(values).any() else "")
    figure.text(_LEFT / size[0], 0.2 / size[1], words[1] + notes, fontsize=7, color=MUTED, va="center", family=FONT)
    return to_png(figure)


def stretched(values: np.ndarray) -> np.ndarray:
    """Return components as colours: each between its 2 and 98 % points.

    Parameters
    ----------
    values : ndarray, shape (3, y, x)

    Returns
    -------
    ndarray, shape (y, x, 3), float32
        0 to 1; NaN where there is none.
    """
    planes = []
    for plane in values:
        low, high = _limits(plane)
        planes.append(np.clip((plane - low) / max(high - low, 1e-6), 0.0, 1.0))
    return np.stack(planes, axis=-1).astype(np.float32)


def _limits(plane: np.ndarray) -> tuple[float, float]:
    known = plane[np.isfinite(plane)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.quantile(known, _SHARES)
    return float(low), float(high)
