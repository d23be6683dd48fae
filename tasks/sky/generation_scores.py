"""The scores of generated galaxies, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.sky.generation_measures import Measured
from tasks.sky.generation_sets import GalaxySet


@dataclass(frozen=True)
class Scored:
    """Scores, and what a picture of them is drawn from.

    Parameters
    ----------
    report : dict
        JSON types: `metrics` by name, `parts` of the Synthetic Galaxy Distance, `memorisation`, counts and notes.
    generated, real : GalaxySet
        Equal numbers, on one grid.
    measured, measured_real : Measured
        Of them.
    measured_other : Measured
        Of the real galaxies that the floor is from.
    nearest : ndarray of int, or None
        Rows of `train` that lie nearest to the generated galaxies.
    train : GalaxySet or None
        On the same grid.
    """

    report: dict[str, Any]
    generated: GalaxySet
    real: GalaxySet
    measured: Measured
    measured_real: Measured
    measured_other: Measured
    nearest: NDArray[np.int64] | None = None
    train: GalaxySet | None = None


def describe_generation(found: Mapping[str, Any]) -> str:
    """Return the scores as a table of text."""
    lines = [
        f"{found['generated']} against {found['real']}: {found['n']:,} galaxies each, {found['pixels']} pixels of "
        f"{found['pixel_scale_arcsec']:g} arcsec, {', '.join(found['bands'])}",
        f"  {'metric':<34} {'value':>10} {'95 %':>21} {'floor':>10} {'x floor':>8} {'dropped':>8}",
    ]
    for entry in found["metrics"].values():
        span = f"{_number(entry['low'])} to {_number(entry['high'])}" if entry["low"] is not None else "-"
        ratio = "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        label = f"{entry['label']}{', ' + entry['unit'] if entry['unit'] else ''}"
        lines.append(
            f"  {label:<34} {_number(entry['value']):>10} {span:>21} {_number(entry['floor']):>10} {ratio:>8} {entry['dropped']:>8.2%}"
        )
    lines.append(
        "  Synthetic Galaxy Distance, by quantity: "
        + ", ".join(_part(name, part) for name, part in found["parts"].items())
    )
    return "\n".join([*lines, *(f"  note     {line}" for line in closing_lines(found))])


def closing_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what is to be known beside the table, a sentence each."""
    lines = []
    fid = found["metrics"].get("fid")
    if fid is not None:
        limit, floor = (_number(fid[name]) for name in ("extrapolated", "floor_extrapolated"))
        known = fid["extrapolated"] is not None
        said = f"{limit} (real against real {floor})" if known else "not known, too few for a line"
        lines.append(f"FID of infinitely many images: {said}; features of {found['features']}")
    memory = found.get("memorisation")
    if memory is not None:
        share = f"{memory['share']:.3f} ({memory['low']:.3f} to {memory['high']:.3f})"
        lines.append(
            f"nearer to train than to {memory['n']:,} held-out galaxies: {share}, real ones {memory['floor']:.3f}; "
            f"as near as one held-out galaxy in 100: {memory['close']:.3f}, real ones {memory['close_floor']:.3f}"
        )
        lines.append(memory["verdict"])
    return [*lines, *_rule_lines(found.get("rules")), *found["notes"]]


def _rule_lines(rules: Mapping[str, Any] | None) -> list[str]:
    if rules is None:
        return []
    pace = rules["images_per_second"]
    lines = [
        f"{rules['one']} beside {rules['other']}, {rules['n']:,} galaxies from the same noise: {pace[0]:.2f} and {pace[1]:.2f} images/s, "
        f"{pace[0] / pace[1]:.0f} times as fast"
    ]
    for name in ("sgd", "kid"):
        if name in rules:
            found = {key: _number(value) for key, value in rules[name].items()}
            lines.append(
                f"{name.upper()} of the first minus that of the second: {found['value']} ({found['low']} to {found['high']}); "
                f"floor of as many {found['floor']}"
            )
    return lines


def _part(name: str, part: Mapping[str, float]) -> str:
    return f"{name} {part['value']:.3f} (floor {part['floor']:.3f})"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2e}" if value != 0 and abs(value) < 1e-3 else f"{value:.4g}"
