"""The picture of a change product: loss and gain by year over the canopy of the newest map, hectares beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from storage.classes import NO_CLASS
from tasks.earth.change import GAIN, LOSS
from tasks.earth.layers import NO_PROBABILITY, PROBABILITY_SCALE
from tasks.earth.pictures import FONT, INK, MUTED, draw_scale_bar
from tasks.earth.plots import draw_plane, new_figure, style_panel, to_png, write_title
from tasks.earth.product import Picture

PREVIEW = Picture("preview", "Loss and gain of woodland by year", ("overview", "thumbnail"))

_SCALES = {LOSS: "YlOrRd", GAIN: "PuBu"}
_TITLES = {LOSS: ("loss", "Woodland lost"), GAIN: ("gain", "Woodland gained")}
_MAP, _SIDE = 7.0, 3.4


def draw_change(
    layers: Mapping[str, np.ndarray],
    geobox: GeoBox,
    *,
    areas: Mapping[str, Mapping[str, float]],
    title: str,
    words: tuple[str, str],
) -> bytes:
    """Return a PNG; the same input gives the same bytes.

    Parameters
    ----------
    layers : mapping of str to ndarray, shape (y, x)
        Stored values of ``change_kind``, ``change_date`` and ``canopy``.
    geobox : GeoBox
        Their grid, in a projected CRS.
    areas : mapping
        As `changed_areas` gives them.
    title : str
        Heading.
    words : tuple of str
        What it is of, and where it comes from.
    """
    rows, columns = layers["change_kind"].shape
    width, height = _MAP * min(1.0, columns / rows), _MAP * min(1.0, rows / columns)
    height = max(height, 3.6)
    size = (width + _SIDE + 0.9, height + 1.3)
    years = sorted({key for found in areas.values() for key in found if key.isdigit()})
    colours = {kind: _by_year(name, years) for kind, name in _SCALES.items()}
    figure = new_figure(*size)
    axes = figure.add_axes((0.2 / size[0], 0.4 / size[1], width / size[0], height / size[1]))
    draw_plane(axes, _painted(layers, colours), geobox)
    draw_scale_bar(axes, geobox)
    part = (height - 0.9) / 2
    for place, kind in enumerate((LOSS, GAIN)):
        bottom = 0.75 + (1 - place) * (part + 0.75)
        box = ((width + 0.95) / size[0], bottom / size[1], (_SIDE - 0.4) / size[0], (part - 0.25) / size[1])
        name, heading = _TITLES[kind]
        _draw_bars(figure.add_axes(box), areas[name], years, colours[kind], heading)
    write_title(figure, title, words[0])
    note = "grey green: canopy of the newest map   ·   areas: counted pixels, not estimates"
    figure.text(0.2 / size[0], 0.2 / size[1], f"{words[1]}   ·   {note}", fontsize=7, color=MUTED, family=FONT)
    return to_png(figure)


def _by_year(name: str, years: list[str]) -> dict[str, tuple[float, float, float]]:
    """Return a colour of a year, the later the darker."""
    from matplotlib import colormaps

    places = np.linspace(0.45, 1.0, len(years)) if len(years) > 1 else np.array([0.8])
    return {year: colormaps[name](float(place))[:3] for year, place in zip(years, places, strict=True)}


def _painted(layers: Mapping[str, np.ndarray], colours: Mapping[int, Mapping[str, Any]]) -> np.ndarray:
    """Return the map as red, green, blue, NaN where there is no look: (y, x, 3)."""
    kind, canopy = layers["change_kind"], layers["canopy"]
    share = np.where(canopy == NO_PROBABILITY, 0, canopy * PROBABILITY_SCALE)[..., None]
    painted = np.array([0.965, 0.96, 0.93]) * (1 - share) + np.array([0.66, 0.74, 0.66]) * share
    year = layers["change_date"].astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    for value, table in colours.items():
        for name, colour in table.items():
            painted[(kind == value) & (year == int(name))] = colour
    painted[kind == NO_CLASS] = np.nan
    return np.asarray(painted, dtype=np.float32)


def _draw_bars(
    panel: Any, areas: Mapping[str, float], years: list[str], colours: Mapping[str, Any], heading: str
) -> None:
    """Draw hectares by quarter, in the colour of the year."""
    quarters = [f"{year}-Q{number}" for year in years for number in (1, 2, 3, 4)]
    heights = [areas.get(quarter, 0.0) for quarter in quarters]
    panel.bar(range(len(quarters)), heights, width=0.85, color=[colours[quarter[:4]] for quarter in quarters])
    style_panel(panel, title=f"{heading}: {areas['total']:,.1f} ha")
    panel.set_xticks([4 * place + 1.5 for place in range(len(years))], years)
    panel.tick_params(axis="x", length=0)
    panel.set_ylabel("hectares in a quarter", fontsize=8, color=INK, family=FONT)
    panel.grid(visible=False, axis="x")
