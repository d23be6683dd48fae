"""What is told of a canopy training: its curve, and the model's card."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from storage.classes import LandClass
from tasks.earth.pictures import FONT, INK, MUTED, PAPER, PIXELS_PER_INCH

_LOSS, _SCORE = "#9aa093", "#0b5d3b"


def draw_training(lines: Sequence[Mapping[str, Any]], *, title: str) -> bytes:
    """Return a PNG of the loss, and of PR-AUC on validation tiles, by update.

    Parameters
    ----------
    lines : sequence of mapping
        With ``step``, and ``loss`` or ``pr_auc``.
    title : str
        Heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), dpi=PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    panel = figure.add_axes((0.09, 0.13, 0.82, 0.74))
    panel.set_facecolor("#ffffff")
    panel.plot(*_column(lines, "loss"), color=_LOSS, linewidth=0.9)
    panel.set_xlabel("updates", fontsize=9, color=MUTED)
    panel.set_ylabel("loss", fontsize=9, color=MUTED)
    score = panel.twinx()
    score.plot(*_column(lines, "pr_auc"), "o-", color=_SCORE, markersize=4, linewidth=1.6)
    score.set_ylabel("PR-AUC on validation tiles, mean of canopy and classes", fontsize=9, color=_SCORE)
    for axes in (panel, score):
        axes.tick_params(labelsize=8, labelcolor=MUTED, color=MUTED)
        axes.spines[:].set_visible(False)
    panel.grid(color="#e4e6df", linewidth=0.6)
    panel.set_title(title, fontsize=11, color=INK, family=FONT, loc="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def canopy_card(
    classes: Sequence[LandClass],
    *,
    backbone: Mapping[str, Any],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
) -> str:
    """Return the card: what the model is, what it was made from, how well it does and what it cannot do."""
    names = ", ".join(known.name for known in classes)
    scored = {**metrics["classes"], **({"canopy": metrics["canopy"]} if "canopy" in metrics else {})}
    rows = [
        f"| {name} | {_number(found['pr_auc'])} | {_number(found['roc_auc'])} | {_number(found['f1'])} "
        f"| {_number(found['prevalence'])} |"
        for name, found in scored.items()
    ]
    return "\n".join(
        [
            f"A canopy head on {backbone['name']}, after Dargana (arXiv 2504.17321); classes {names}.",
            "",
            "## Scores",
            "",
            metrics["evaluation"],
            "",
            "| class | PR-AUC | ROC-AUC | F1 | prevalence |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "## Training",
            "",
            *(f"- {fact}" for fact in _facts(training)),
            "",
            "## Limits",
            "",
            "No real label that tells conifer from broadleaved was at hand: what it knows of the two comes from generated "
            "places, unless it was trained on labels of your own. Scores hold for ground and years like those it was scored "
            "on; areas need a probability sample (`canopus sample`).",
            "",
        ]
    )


def _facts(training: Mapping[str, Any]) -> list[str]:
    pixels = ", ".join(f"{count:,} {name}" for name, count in training["pixels"].items())
    facts = [
        f"{training['tuning']}; {training['updates']:,} updates, the weights after {training['kept']:,} kept",
        f"labelled pixels: {pixels}; {training['doubted']:,} outside of polygons left to the head",
        f"{training['looks']:,} looks, {training['flops']:.3g} operations",
    ]
    if training["head_from"]:
        facts.insert(0, f"began with the head of {training['head_from']}")
    if "labels" in training:
        facts.append(f"labels: {training['labels']['file']}")
    if training["places"]:
        facts.append(f"{training['places']} generated places of 1.6 x 1.6 km (seeds 0 to {training['places'] - 1})")
    if share := training.get("share_of_pretraining"):
        facts.append(
            f"{share['looks']:.1%} of the looks and {share['operations']:.1%} of the operations of the pre-training of "
            f"{training['backbone']['name']}"
        )
    return facts


def _column(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(line["step"], line[name]) for line in lines if name in line]
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
