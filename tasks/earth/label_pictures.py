"""A picture of labels: classes, what is unknown and why, and the outlines of validation and test tiles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import LandClass
from tasks.earth.label_rules import Reason
from tasks.earth.label_splits import PARTS
from tasks.earth.pictures import FONT, INK, MUTED, PREVIEW_PIXELS, colour, draw_scale_bar
from tasks.earth.plots import draw_plane, new_figure, to_png, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OFFSET = 100
UNKNOWN = (
    LandClass(_OFFSET + Reason.OUTSIDE, "outside", "No label", "#ffffff"),
    LandClass(_OFFSET + Reason.IGNORED_VALUE, "ignored", "Class that is ignored", "#c9c9d6"),
    LandClass(_OFFSET + Reason.DATE, "date", "Newer or too old", "#9fb8d8"),
    LandClass(_OFFSET + Reason.BELOW_UNIT, "below", "Below the mapping unit", "#f2b04c"),
    LandClass(_OFFSET + Reason.OVERLAP, "overlap", "Overlap of classes", "#d0342c"),
    LandClass(_OFFSET + Reason.MARGIN, "margin", "Margin of a boundary", "#b9b2a0"),
    LandClass(_OFFSET + Reason.IGNORE_AREA, "area", "Ignore area", "#8c7aa9"),
)
OUTLINES = {"validation": "#2358a6", "test": "#b3126b"}


@dataclass(frozen=True)
class LabelPicture:
    """What is drawn.

    Parameters
    ----------
    classes : ndarray, shape (y, x), uint8
        Class values.
    reason : ndarray, shape (y, x), uint8
        `Reason`.
    parts : ndarray, shape (y, x), int8
        Train, validation or test, without gaps.
    geobox : GeoBox
        Grid of all three.
    of_map : tuple of LandClass
        Classes.
    """

    classes: np.ndarray
    reason: np.ndarray
    parts: np.ndarray
    geobox: GeoBox
    of_map: tuple[LandClass, ...]


def draw_labels(picture: LabelPicture, *, title: str, what: str) -> bytes:
    """Return a PNG of labels; the same labels give the same bytes."""
    rows, columns = picture.classes.shape
    width, height = 7.4 * min(1.0, columns / rows), 7.4 * min(1.0, rows / columns)
    size = (max(width, 3.5) + 3.1, max(height, 3.6) + 1.0)
    figure = new_figure(*size)
    axes = figure.add_axes((0.2 / size[0], 0.2 / size[1], width / size[0], height / size[1]))
    step = -(-max(rows, columns) // PREVIEW_PIXELS)
    values = np.where(picture.reason == Reason.KNOWN, picture.classes, _OFFSET + picture.reason).astype(np.uint8)
    every = (*picture.of_map, *UNKNOWN)
    draw_plane(axes, colour(values[::step, ::step], every) / 255.0, picture.geobox)
    _draw_outlines(axes, picture)
    draw_scale_bar(axes, picture.geobox)
    shown = [known for known in every if (values == known.value).any()]
    _draw_legend(figure, shown, left=(width + 0.45) / size[0], top=(height + 0.2) / size[1])
    write_title(figure, title, what)
    return to_png(figure)


def _draw_outlines(axes: Axes, picture: LabelPicture) -> None:
    """Tint validation and test tiles, and draw their edges."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    affine = picture.geobox.affine
    left, bottom, right, top = (float(edge) for edge in picture.geobox.boundingbox)
    for number, name in enumerate(PARTS):
        if name in OUTLINES:
            own = np.pad(picture.parts == number, 1)
            tint = np.zeros((*picture.parts.shape, 4))
            tint[picture.parts == number] = to_rgba(OUTLINES[name], 0.13)
            axes.imshow(tint, extent=(left, right, bottom, top), interpolation="nearest", zorder=2)
            lines = [[affine * corner for corner in edge] for edge in _edges(own)]
            axes.add_collection(LineCollection(lines, colors=OUTLINES[name], linewidths=1.1, zorder=3))


def _edges(own: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return straight runs of edges between what is and is not a part, as corners (column, row) without the padding."""
    runs = []
    for across in (False, True):
        plane = own.T if across else own
        change = plane[1:] != plane[:-1]
        for line in np.flatnonzero(change.any(axis=1)):
            # an edge goes on only while the part lies on the same side of it
            side = np.where(change[line], np.where(plane[line], 1, 2), 0)
            turns = np.flatnonzero(np.diff(np.concatenate([[0], side, [0]])))
            for start, stop in pairwise(turns):
                if side[start]:
                    ends = (int(start) - 1, int(line)), (int(stop) - 1, int(line))
                    runs.append((ends[0][::-1], ends[1][::-1]) if across else ends)
    return runs


def _draw_legend(figure: Figure, shown: list[LandClass], *, left: float, top: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=known.colour, edgecolor=INK, linewidth=0.5, label=known.title) for known in shown
    ]
    handles += [Line2D([], [], color=line, linewidth=1.6, label=f"{name} tiles") for name, line in OUTLINES.items()]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left, top),
        frameon=False,
        labelcolor=INK,
        prop={"family": FONT, "size": 9},
        edgecolor=MUTED,
    )
