"""The picture of a change evaluation: found against true dates, and how often a change of some confidence is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.earth.change_product import KINDS
from tasks.earth.change_scores import FoundChange, TrueChange
from tasks.earth.pictures import FONT, INK
from tasks.earth.plots import new_figure, style_panel, to_png, write_title

_COLOURS = {"loss": "#c43e24", "gain": "#2166ac"}


def draw_scores(found: FoundChange, truth: TrueChange, methods: Mapping[str, Any], *, title: str) -> bytes:
    """Return a PNG of the first method's dates and confidences, and of all methods' recall and precision."""
    figure = new_figure(12.0, 4.6)
    dates, bins, bars = figure.subplots(1, 3)
    for value, name in KINDS.items():
        hit = (found.kind == value) & (truth.kind == value)
        colour = _COLOURS[name]
        true, made = (days[hit].astype("datetime64[D]") for days in (truth.day, found.day))
        dates.plot(true, made, ".", markersize=3, alpha=0.25, color=colour, label=name)
        rows = [row for row in methods["canopus"][name]["confidence"] if row["n"]]
        middle = [(row["from"] + row["to"]) / 2 for row in rows]
        bins.plot(middle, [row["precision_next_to"] for row in rows], "o-", color=colour, label=f"{name}, or beside it")
        bins.plot(middle, [row["precision"] for row in rows], "o--", color=colour, alpha=0.5, label=name)
    style_panel(dates, title="date found against true date, each pixel")
    low, high = (
        (getattr(truth.day[truth.kind > 0], end)() for end in ("min", "max")) if (truth.kind > 0).any() else (0, 1)
    )
    line = np.array([low, high]).astype("datetime64[D]")
    dates.plot(line, line, color=INK, linewidth=0.7)
    dates.tick_params(axis="x", rotation=45)
    style_panel(bins, title="share that is right, by confidence")
    bins.set_xlim(0, 1)
    bins.set_ylim(0, 1.03)
    _draw_bars(bars, methods)
    for panel in (dates, bins, bars):
        panel.legend(fontsize=7.5, frameon=False)
    write_title(figure, "Change found against the truth", title)
    figure.tight_layout(rect=(0, 0, 1, 0.87))
    return to_png(figure)


def _draw_bars(panel: Any, methods: Mapping[str, Any]) -> None:
    names = list(methods)
    columns = [(kind, score) for kind in KINDS.values() for score in ("recall", "precision")]
    for number, (kind, score) in enumerate(columns):
        heights = [methods[name][kind]["pixels"][score] or 0.0 for name in names]
        places = np.arange(len(names)) + 0.2 * (number - 1.5)
        alpha = 1.0 if score == "recall" else 0.5
        panel.bar(places, heights, width=0.18, color=_COLOURS[kind], alpha=alpha, label=f"{kind}: {score}")
    style_panel(panel, title="pixels")
    panel.set_xticks(range(len(names)), [name.replace(" ", "\n", 2) for name in names], fontfamily=FONT)
    panel.set_ylim(0, 1.03)
