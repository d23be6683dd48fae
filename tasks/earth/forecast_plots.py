"""Pictures of an evaluation: error by horizon beside all floors, reliability of the quantiles, example pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.earth.forecast_examples import Example
from tasks.earth.forecast_protocol import MODEL, WINDOW_QUANTILES
from tasks.earth.pictures import FONT, INK, MUTED
from tasks.earth.plots import (
    date_format,
    date_span,
    legend_above,
    month_ticks,
    new_figure,
    style_panel,
    to_png,
    write_title,
    year_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    MODEL: "#0b5d3b",
    "phase_folded": "#d1742b",
    "window_median": "#7a4fa3",
    "last_year": "#2f7fb8",
    "harmonic": "#b8962e",
    "persistence": "#9aa093",
    WINDOW_QUANTILES: "#7a4fa3",
}
DASHES = {
    "phase_folded": (5, 2),
    "window_median": (2, 1.5),
    "last_year": (6, 1.5, 1.5, 1.5),
    "harmonic": (3, 3),
    "persistence": (1, 2),
}
TITLES = {"ndvi": "NDVI", "evi2": "EVI2", "ndwi": "NDWI", "nbr": "NBR", "bsi": "BSI"}
SHOWN_FLOORS = ("phase_folded", "window_median", "last_year", "harmonic")
"""Floors drawn over example pixels: persistence would be one level line."""


def draw_pictures(report: Mapping[str, Any], examples: Sequence[Example]) -> dict[str, bytes]:
    """Return PNGs by file name, from a report and the pixels that were kept."""
    index = next(iter(report["indices"]))
    pictures = {
        "error_by_horizon.png": draw_error_by_horizon(report, index),
        "reliability.png": draw_reliability(report, index),
    }
    if examples:
        pictures["example_pixels.png"] = draw_examples(examples, model=report.get("model"))
    return pictures


def draw_error_by_horizon(report: Mapping[str, Any], index: str) -> bytes:
    """Return a PNG: mean and median absolute error by horizon, all clear looks and screened ones, model and floors."""
    selections = [("indices", "all clear looks"), ("screened", "looks free of haze")]
    selections = [(key, title) for key, title in selections if index in report[key]]
    figure = new_figure(5.2 * len(selections) + 0.6, 7.2)
    axes = figure.subplots(2, len(selections), sharex=True, sharey="row", squeeze=False)
    for column, (key, title) in enumerate(selections):
        for row, (measure, word) in enumerate((("mae", "mean"), ("median", "median"))):
            panel = axes[row][column]
            _draw_errors(panel, report[key][index], measure)
            number = next(iter(report[key][index].values()))["n"]
            style_panel(panel, title=f"{title} ({number:,})" if row == 0 else "")
            if column == 0:
                panel.set_ylabel(f"{word} absolute error, {TITLES.get(index, index)}", fontsize=9, color=MUTED)
            if row == 1:
                panel.set_xlabel("days from the origin", fontsize=9, color=MUTED)
    for row, measure in zip(axes, ("mae", "median"), strict=True):
        _fit_to_all_but_persistence(row, report, index, measure=measure)
    legend_above(figure, axes[0][0])
    write_title(figure, f"{TITLES.get(index, index)} error by horizon", _what(report))
    return to_png(figure)


def draw_reliability(report: Mapping[str, Any], index: str) -> bytes:
    """Return a PNG: observed against nominal level of every quantile, and the 80 % interval by horizon and season."""
    figure = new_figure(11.0, 4.9)
    first, second, third = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.15, 1, 0.8)})
    found = report["reliability"][index]
    sources = [name for name in (MODEL, WINDOW_QUANTILES) if name in found]
    first.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
    coverage = report["interval_coverage"]
    for source in sources:
        label = "model" if source == MODEL else "looks within 30 days of the season"
        style: Any = {"color": COLOURS[source], "label": label, "marker": "o" if source == MODEL else "s"}
        style |= {"linewidth": 2.0 if source == MODEL else 1.3, "markersize": 5}
        first.plot(found["levels"], found[source], **style)
        _draw_coverage(second, third, coverage["indices" if source == MODEL else source][index], style)
    _finish_reliability(first, second, third, coverage["level"])
    legend_above(figure, first)
    write_title(figure, f"How far {TITLES.get(index, index)} quantiles can be believed", _what(report))
    return to_png(figure)


def draw_examples(examples: Sequence[Example], *, model: str | None) -> bytes:
    """Return a PNG: for each pixel its looks, the forecast with its 80 % band, floors, and the looks held out."""
    figure = new_figure(12.0, 2.35 * len(examples) + 1.5)
    panels = figure.subplots(
        len(examples), 2, squeeze=False, sharey="row", sharex="col", gridspec_kw={"width_ratios": (1, 1.5)}
    )
    for (left, right), example in zip(panels, examples, strict=True):
        draw_past(left, example)
        _draw_future(right, example, model=model)
    legend_above(figure, panels[0][1], columns=9)
    index = TITLES.get(examples[0].index, examples[0].index)
    what = f"forecast of {model}" if model else "no model: median and quantiles of the season's looks"
    write_title(figure, f"{index} of single pixels, from {examples[0].origin} on", f"{what}; band: 80 % interval")
    return to_png(figure)


def _draw_errors(panel: Axes, methods: Mapping[str, Any], measure: str) -> None:
    for name, found in methods.items():
        rows = [row for row in found["by_horizon"] if row["n"]]
        middle = [sum(row["days"]) / 2 for row in rows]
        style: dict[str, Any] = {"linewidth": 2.4, "zorder": 5} if name == MODEL else {"linewidth": 1.4}
        line = panel.plot(
            middle, [row[measure] for row in rows], color=COLOURS[name], marker="o", markersize=4, **style
        )
        line[0].set_label(name.replace("_", " "))
        if name != MODEL:
            line[0].set_dashes(DASHES[name])


def _fit_to_all_but_persistence(row: Sequence[Axes], report: Mapping[str, Any], index: str, *, measure: str) -> None:
    """Scale to what is worth comparing, and say where persistence lies when that is far off."""
    values = {
        name: [part[measure] for key in ("indices", "screened") for part in _parts(report, key, index, name)]
        for name in report["indices"][index]
    }
    top = 1.12 * max(max(found) for name, found in values.items() if name != "persistence")
    for panel in row:
        panel.set_ylim(0, top)
    beyond = [value for value in values["persistence"] if value > top]
    if beyond:
        words = f"persistence beyond the scale: up to {max(beyond):.2f}"
        row[0].text(0.02, 0.03, words, transform=row[0].transAxes, fontsize=8, color=MUTED, family=FONT)


def _parts(report: Mapping[str, Any], key: str, index: str, name: str) -> list[Any]:
    found = report[key].get(index, {}).get(name, {"by_horizon": []})
    return [part for part in found["by_horizon"] if part["n"]]


def _draw_coverage(second: Axes, third: Axes, parts: Mapping[str, Any], style: Mapping[str, Any]) -> None:
    rows = [row for row in parts["by_horizon"] if row["n"]]
    second.plot([sum(row["days"]) / 2 for row in rows], [row["coverage"] for row in rows], **style)
    seasons = {name: row for name, row in parts["by_season"].items() if row["n"]}
    third.plot(list(seasons), [row["coverage"] for row in seasons.values()], **{**style, "linewidth": 0})


def _finish_reliability(first: Axes, second: Axes, third: Axes, level: float) -> None:
    style_panel(first, title="share of looks at or below a quantile")
    style_panel(second, title="inside the 80 % interval, by horizon")
    style_panel(third, title="by season")
    first.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    first.set_xlabel("level of the quantile", fontsize=9, color=MUTED)
    first.set_ylabel("observed", fontsize=9, color=MUTED)
    second.set_xlabel("days from the origin", fontsize=9, color=MUTED)
    second.set_xlim(left=0)
    for panel in (second, third):
        panel.set_ylim(0, 1)
        panel.axhspan(level - 0.05, level + 0.05, color=COLOURS[MODEL], alpha=0.12, linewidth=0)
        panel.axhline(level, color=MUTED, linewidth=0.8)
    third.margins(x=0.2)


class History(Protocol):
    """A pixel's looks before an origin."""

    @property
    def index(self) -> str:
        """Return which index."""
        ...

    @property
    def place(self) -> tuple[float, float]:
        """Return x and y of the pixel's centre, metres."""
        ...

    @property
    def origin(self) -> np.datetime64:
        """Return when the forecast is made."""
        ...

    @property
    def dates(self) -> np.ndarray:
        """Return the days of the looks, (time,)."""
        ...

    @property
    def looks(self) -> np.ndarray:
        """Return their values, (time,)."""
        ...


def draw_past(panel: Axes, example: History) -> None:
    """Draw the looks of at most four years before the origin."""
    panel.plot(example.dates, example.looks, "o", color=MUTED, markersize=2.6)
    place = f"{example.place[0]:,.0f} E, {example.place[1]:,.0f} N"
    style_panel(panel, title=f"{place}: looks before")
    panel.set_ylabel(TITLES.get(example.index, example.index), fontsize=9, color=MUTED)
    start = example.origin.astype("datetime64[D]") - np.timedelta64(4 * 365, "D")
    panel.set_xlim(*date_span(max(start, example.dates[0]) - np.timedelta64(20, "D"), example.origin))
    panel.xaxis.set_major_locator(year_ticks())
    panel.xaxis.set_major_formatter(date_format("%Y"))


def _draw_future(panel: Axes, example: Example, *, model: str | None) -> None:
    low, median, high = example.band
    colour = COLOURS[MODEL if model else WINDOW_QUANTILES]
    panel.fill_between(example.days, low, high, color=colour, alpha=0.2, linewidth=0, label="80 % interval")
    for name in SHOWN_FLOORS:
        if not model and name == "window_median":
            continue
        line = panel.plot(example.days, example.floors[name], color=COLOURS[name], linewidth=1.2)[0]
        line.set_dashes(DASHES[name])
        line.set_label(name.replace("_", " "))
    panel.plot(example.days, median, color=colour, linewidth=2.2, label="median")
    hazy = ~example.screened
    seen: dict[str, Any] = {"color": INK, "markersize": 4.8, "zorder": 6}
    panel.plot(example.held_dates[~hazy], example.held[~hazy], "o", label="held out", **seen)
    seen["markerfacecolor"] = "none"
    panel.plot(example.held_dates[hazy], example.held[hazy], "o", label="held out, hazy", **seen)
    style_panel(panel, title=f"mean error {example.error:.3f}, rank {example.rank} of {example.among} by error")
    values = np.concatenate([example.looks, example.held, low, high])
    panel.set_ylim(max(-0.35, np.nanmin(values) - 0.05), min(1.05, np.nanmax(values) + 0.05))
    panel.set_xlim(*date_span(example.origin - np.timedelta64(2, "D"), example.days[-1] + np.timedelta64(4, "D")))
    panel.xaxis.set_major_locator(month_ticks())
    panel.xaxis.set_major_formatter(date_format("%-d %b %Y"))


def _what(report: Mapping[str, Any]) -> str:
    rule, counts = report["protocol"], report["counts"]
    name = f"model {report['model']}" if report.get("model") else "floors alone"
    return (
        f"{name}; {counts['origins']} origins {rule['origins'][0]} to {rule['origins'][-1]}, "
        f"{counts['pixels']:,} pixels, {counts['targets']:,} looks held out"
    )
