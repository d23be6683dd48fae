"""What is told of a canopy training: the model's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.classes import LandClass


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
    if (members := training.get("settings", {}).get("members") or 1) > 1:
        facts.insert(0, f"a head of {members} networks, whose logits are averaged")
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
