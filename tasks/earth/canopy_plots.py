"""Pictures of a canopy evaluation: precision by recall beside the floors, reliability, recall by width and area."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.classes import NO_CANOPY
from tasks.earth.canopy_floors import FOREST, NDVI
from tasks.earth.pictures import FONT, INK, MUTED
from tasks.earth.plots import legend_above, new_figure, style_panel, to_png, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL = "model"
COLOURS = {MODEL: "#0b5d3b", FOREST: "#d1742b", NDVI: "#7a4fa3"}
TITLES = {FOREST: "forest on temporal statistics", NDVI: "mean NDVI"}


def draw_pictures(report: Mapping[str, Any]) -> dict[str, bytes]:
    """Return PNGs by file name, from a report of `evaluate_canopy`."""
    pictures = {
        "precision_recall.png": draw_precision_recall(report),
        "reliability.png": draw_reliability(report),
    }
    if report["sizes"]:
        pictures["sizes.png"] = draw_sizes(report)
    return pictures


def draw_precision_recall(report: Mapping[str, Any]) -> bytes:
    """Return a PNG: precision at each recall of canopy and of every class, model and floors, and the prevalence."""
    names = _panels(report)
    figure = new_figure(3.6 * len(names) + 0.4, 4.9)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(axes, names, strict=True):
        own = report["canopy"] if name == "canopy" else report["classes"][name]
        panel.axhline(own["prevalence"], color=MUTED, linewidth=0.9, linestyle=":", label="prevalence")
        for method, found in _methods(report).items():
            curve = found.get("precision_recall", {}).get(name)
            if curve and curve["recall"]:
                panel.plot(curve["recall"], curve["precision"], **_line(report, method))
        style_panel(panel, title=f"{name}: prevalence {own['prevalence']:.3f}")
        panel.set(xlim=(0, 1.005), ylim=(0, 1.01))
        panel.set_xlabel("recall", fontsize=9, color=MUTED)
        _write_areas(panel, report, name)
    axes[0].set_ylabel("precision", fontsize=9, color=MUTED)
    legend_above(figure, axes[0])
    write_title(figure, "Precision by recall", _what(report))
    return to_png(figure)


def draw_reliability(report: Mapping[str, Any]) -> bytes:
    """Return a PNG: observed share by mean probability, and how many pixels have such a probability."""
    names = _panels(report)
    figure = new_figure(3.6 * len(names) + 0.4, 5.9)
    axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False, height_ratios=(2.6, 1))
    for (upper, lower), name in zip(axes.T, names, strict=True):
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
        for method, found in _methods(report).items():
            parts = found.get("reliability", {}).get(name)
            if parts:
                style = _line(report, method)
                upper.plot(parts["predicted"], parts["observed"], marker="o", markersize=4, **style)
                lower.plot(parts["predicted"], parts["share"], marker="o", markersize=3, **style)
        errors = [f"{method} {_error(found, name)}" for method, found in _methods(report).items() if method != NDVI]
        style_panel(upper, title=name)
        style_panel(lower, title="")
        upper.text(0.03, 0.94, "calibration error\n" + "\n".join(errors), va="top", fontsize=8, color=INK, family=FONT)
        upper.set(xlim=(0, 1), ylim=(0, 1))
        lower.set_yscale("log")
        lower.set_xlabel("mean probability", fontsize=9, color=MUTED)
    axes[0][0].set_ylabel("observed share", fontsize=9, color=MUTED)
    axes[1][0].set_ylabel("share of pixels", fontsize=9, color=MUTED)
    legend_above(figure, axes[0][0])
    write_title(figure, "How far probabilities can be believed", _what(report))
    return to_png(figure)


def draw_sizes(report: Mapping[str, Any]) -> bytes:
    """Return a PNG: recall at the map's class and PR-AUC of canopy by its width and area, model and forest."""
    figure = new_figure(9.6, 6.4)
    axes = figure.subplots(2, 2, sharex="col", sharey=True)
    kinds = (("width_pixels", "width, pixels"), ("area_hectares", "area of the wood, ha"))
    for column, (kind, title) in enumerate(kinds):
        sizes = report["sizes"][kind]
        for row, (measure, word) in enumerate((("recall", "recall at the map's class"), ("pr_auc", "PR-AUC"))):
            panel = axes[row][column]
            for k, method in enumerate((MODEL, FOREST)):
                _draw_bars(panel, sizes, method, measure, shift=0.38 * k - 0.19, label=_title(report, method))
            style_panel(panel, title=word if column == 0 else "")
            panel.set_ylim(0, 1.12)
            panel.set_xticks(range(len(sizes)), [f"{name}\n{found['pixels']:,} px" for name, found in sizes.items()])
        axes[1][column].set_xlabel(title, fontsize=9, color=MUTED)
    legend_above(figure, axes[0][0])
    write_title(figure, "Canopy by its size", _what(report))
    return to_png(figure)


def _panels(report: Mapping[str, Any]) -> list[str]:
    return (["canopy"] if "canopy" in report else []) + [name for name in report["classes"] if name != NO_CANOPY]


def _methods(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {MODEL: report, **report["floors"]}


def _title(report: Mapping[str, Any], method: str) -> str:
    return str(report["model"]) if method == MODEL else TITLES[method]


def _line(report: Mapping[str, Any], method: str) -> dict[str, Any]:
    width = 2.3 if method == MODEL else 1.4
    return {"color": COLOURS[method], "linewidth": width, "label": _title(report, method)}


def _write_areas(panel: Axes, report: Mapping[str, Any], name: str) -> None:
    lines = []
    for method, found in _methods(report).items():
        own = found.get("canopy") if name == "canopy" else found["classes"].get(name)
        if own and own["pr_auc"] is not None:
            lines.append(f"{'mean NDVI' if method == NDVI else method} {own['pr_auc']:.3f}")
    plate = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.9, "pad": 2}
    words = "PR-AUC\n" + "\n".join(lines)
    panel.text(0.04, 0.04, words, fontsize=8.5, color=INK, family=FONT, va="bottom", bbox=plate)


def _error(found: Mapping[str, Any], name: str) -> str:
    own = found.get("canopy") if name == "canopy" else found["classes"].get(name)
    return f"{own['expected_calibration_error']:.3f}" if own else "-"


def _draw_bars(panel: Axes, sizes: Mapping[str, Any], method: str, measure: str, *, shift: float, label: str) -> None:
    values = [found[method][measure] for found in sizes.values()]
    heights = [np.nan if value is None else value for value in values]
    places = np.arange(len(values)) + shift
    panel.bar(places, heights, 0.36, color=COLOURS[method], label=label)
    for x, value in zip(places, values, strict=True):
        if value is not None:
            panel.text(x, value + 0.015, f"{value:.2f}", ha="center", fontsize=7.5, color=INK, family=FONT)


def _what(report: Mapping[str, Any]) -> str:
    kind = "cells" if report["cell"] > 1 else "pixels"
    of_date = f", looks up to {report['date']}" if report["date"] else ""
    return f"model {report['model']}{of_date}; {report['pixels']:,} {kind} with labels"
