"""What is told of a training: the loss curve, the model's card."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.earth.pictures import FONT, INK, MUTED, PAPER, PIXELS_PER_INCH

_COLOURS = {"loss": "#9aa093", "smooth": "#0b5d3b", "held out": "#d1742b", "beside": "#2f7fb8"}
_FIRST_SHARE = 0.02
"""Of the updates; the fall at the very beginning would set the scale."""


def draw_loss(
    lines: Sequence[Mapping[str, Any]],
    *,
    title: str,
    loss: str = "pinball loss",
    beside: tuple[str, str] = ("learning_rate", "learning rate"),
) -> bytes:
    """Return a PNG of the loss, and of a number beside it, by update.

    Parameters
    ----------
    lines : sequence of mapping
        With ``step``, and ``loss``, ``held_out`` or the number beside, as ``metrics.jsonl`` has them.
    title : str
        Heading.
    loss : str
        What the left axis says.
    beside : tuple of str
        Name of the number in the lines, and what the right axis says.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), dpi=PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    panel = figure.add_axes((0.09, 0.13, 0.82, 0.74))
    panel.set_facecolor("#ffffff")
    steps, losses = _column(lines, "loss")
    panel.plot(steps, losses, color=_COLOURS["loss"], linewidth=0.7, label="loss")
    panel.plot(steps, _smooth(losses), color=_COLOURS["smooth"], linewidth=1.6, label="loss, smoothed")
    held_steps, held = _column(lines, "held_out")
    if held.size:
        panel.plot(held_steps, held, "o-", color=_COLOURS["held out"], markersize=3, label="loss on held-out looks")
    shown = np.concatenate([losses[steps >= _FIRST_SHARE * steps.max(initial=0)], held])
    if shown.size:
        margin = 0.05 * max(float(np.ptp(shown)), 1e-3)
        panel.set_ylim(shown.min() - margin, shown.max() + margin)
    right = panel.twinx()
    name, said = beside
    right.plot(*_column(lines, name), color=_COLOURS["beside"], linewidth=0.9, linestyle=":")
    right.set_ylabel(said, fontsize=9, color=_COLOURS["beside"])
    panel.set_xlabel("updates", fontsize=9, color=MUTED)
    panel.set_ylabel(loss, fontsize=9, color=MUTED)
    for axes in (panel, right):
        axes.tick_params(labelsize=8, labelcolor=MUTED, color=MUTED)
        axes.spines[:].set_visible(False)
    panel.grid(color="#e4e6df", linewidth=0.6)
    panel.legend(fontsize=8, frameon=False, labelcolor=INK)
    panel.set_title(title, fontsize=11, color=INK, family=FONT, loc="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def write_card(*, what: str, data: Sequence[str], training: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the card of a trained EarthPT, in Markdown.

    Parameters
    ----------
    what : str
        What the model is, a sentence or two.
    data : sequence of str
        What it was trained on, a line each.
    training : mapping
        As it stands in ``training.json``.
    metrics : mapping
        Scores by what was held out: ``prior``, ``area``.
    """
    parts = [what, "", "## Trained on", "", *(f"- {line}" for line in data), "", "## Training", ""]
    parts += [f"- {line}" for line in _training_lines(training)]
    for name, scores in metrics.get("held_out", {}).items():
        parts += ["", *_score_lines(_HEADINGS[name], scores)]
    return "\n".join([*parts, "", "## Limits", "", _LIMITS, ""])


_HEADINGS = {
    "prior": "Scores on generated series of another seed",
    "area": "Scores on real looks held out in time, inside the training period",
}
_LIMITS = (
    "Each pixel is forecast alone, from its own clear looks; a change that has not begun at the origin cannot be foreseen. "
    "Scores hold for places, bands and years like those above; score your own with `canopus evaluate forecast`."
)


def _training_lines(training: Mapping[str, Any]) -> list[str]:
    cost, loop = training["cost"], training["loop"]
    energy = cost["package_joules"]
    return [
        f"begun from {training['start'] or 'no weights'}"
        + (f", taught by {training['teacher']}" if training["teacher"] else ""),
        f"{training['steps']:,} updates, {loop['tokens']:,} looks, {training['minutes']:.1f} minutes "
        f"on {training['processes']} process(es), {training['device']}",
        f"{loop['tokens_per_second']:,.0f} looks/s; the loop waited for data {100 * loop['wait_share']:.1f} % of its time",
        f"{cost['cpu_hours']:.3g} CPU-hours, {cost['gpu_hours']:.3g} GPU-hours"
        + (f", {energy / 3.6e6:.3g} kWh of the processor packages" if energy is not None else ""),
        training["selection"],
    ]


def _score_lines(heading: str, scores: Mapping[str, Any]) -> list[str]:
    index = next(iter(scores["indices"]))
    lines = [
        f"## {heading}",
        "",
        f"{scores['pixels']:,} series. Absolute errors, mean / median:",
        "",
        f"| method | {' | '.join(scores['indices'])} | {index}, free of haze |",
        f"| --- |{' --- |' * (len(scores['indices']) + 1)}",
    ]
    for method in scores["indices"][index]:
        cells = [_pair(scores["indices"][name][method]) for name in scores["indices"]]
        lines.append(f"| {method} | {' | '.join([*cells, _pair(scores['screened'].get(index, {}).get(method))])} |")
    inside = ", ".join(f"{name} {100 * share:.0f} %" for name, share in scores["interval_coverage"].items() if share)
    loss = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores["pinball"][index].items())
    return [*lines, "", f"80 % intervals hold: {inside}. Pinball loss of {index}: {loss}."]


def _pair(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mae"] is None:
        return "-"
    return f"{found['mae']:.4f} / {found['median']:.4f}"


def _column(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps, float), np.array(values, float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return a running mean over a thirtieth of all, shorter at the ends."""
    half = len(values) // 60
    total = np.concatenate([[0.0], np.cumsum(values)])
    number = np.arange(len(values))
    first, last = np.maximum(number - half, 0), np.minimum(number + half + 1, len(values))
    return np.asarray((total[last] - total[first]) / np.maximum(last - first, 1))
