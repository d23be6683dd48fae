"""A canopy evaluation in words: classes and canopy beside the floors, sizes, areas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.earth.canopy_floors import FOREST
from tasks.earth.canopy_plots import MODEL

_MEASURES = (("roc_auc", "ROC-AUC"), ("pr_auc", "PR-AUC"), ("f1", "F1"))


def describe_canopy(report: Mapping[str, Any]) -> str:
    """Return what a person reads: scores beside floors, reliability, recall by size, accuracy from a sample, places."""
    kind = "cells" if report["cell"] > 1 else "pixels"
    lines = [
        f"{report['model']}: {report['pixels']:,} {kind} with labels of {report['labels']}"
        + (f", looks up to {report['date']}" if report["date"] else "")
    ]
    lines += _score_lines(report)
    lines += _size_lines(report)
    if "accuracy" in report:
        lines += _accuracy_lines(report["accuracy"])
    trained = report["floor_trained_on"]
    lines.append(f"forest trained on {trained['labels']}: {trained['where']}")
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"note: {found['note']}" for found in report["floors"].values() if "note" in found]
    places = [("report", report["report"])] + [("picture", place) for place in report["pictures"]]
    return "\n".join([*lines, *(f"  {name:<8} {place}" for name, place in places)])


def score_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each class and method: ROC-AUC, PR-AUC, F1, prevalence."""
    rows = []
    for name in (["canopy"] if "canopy" in report else []) + list(report["classes"]):
        for method, found in {MODEL: report, **report["floors"]}.items():
            own = found.get("canopy") if name == "canopy" else found["classes"].get(name)
            if own:
                numbers = {key: own[key] and round(own[key], 4) for key, _ in (*_MEASURES, ("prevalence", ""))}
                rows.append({"class": name, "method": method, **numbers})
    return rows


def _score_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'class':<14}{'method':<12}" + "".join(f"{title:>10}" for _, title in _MEASURES) + "  prevalence  1-PR/floor"
    ]
    last = ""
    for row in score_rows(report):
        against = report["error_against_floor"].get(row["method"], {}).get(row["class"])
        numbers = "".join(f"{_number(row[key]):>10}" for key, _ in _MEASURES)
        shown = row["class"] if row["class"] != last else ""
        ratio = "" if against is None else f"{against:>12.2f}"
        lines.append(f"{shown:<14}{row['method']:<12}{numbers}{_number(row['prevalence']):>12}{ratio}")
        last = row["class"]
    errors = {name: found["expected_calibration_error"] for name, found in report["classes"].items()}
    if "canopy" in report:
        errors = {"canopy": report["canopy"]["expected_calibration_error"]} | errors
    lines.append("calibration error: " + ", ".join(f"{name} {value:.4f}" for name, value in errors.items()))
    return lines


def _size_lines(report: Mapping[str, Any]) -> list[str]:
    if not report["sizes"]:
        return []
    lines = [f"{'canopy by size':<26}{'pixels':>9}{'recall':>9}{'forest':>9}{'PR-AUC':>9}{'forest':>9}"]
    for kind, word in (("width_pixels", "wide, pixels"), ("area_hectares", "large, ha")):
        for name, found in report["sizes"][kind].items():
            numbers = "".join(
                f"{_number(found[method][key], 3):>9}" for key in ("recall", "pr_auc") for method in (MODEL, FOREST)
            )
            lines.append(f"{name:>12} {word:<13}{found['pixels']:>9,}{numbers}")
    return lines


def _accuracy_lines(accuracy: Mapping[str, Any]) -> list[str]:
    lines = [
        f"sample {accuracy['sample']} ({accuracy['method']}): overall accuracy {_interval(accuracy['overall_accuracy'])}"
    ]
    for name, found in accuracy["classes"].items():
        lines.append(
            f"  {name:<14} user's {_interval(found['users_accuracy'])}, producer's {_interval(found['producers_accuracy'])}, "
            f"area {_interval(found['area_hectares'], 1)} ha"
        )
    return [*lines, *(f"  {note}" for note in accuracy["notes"])]


def _interval(found: Mapping[str, Any], digits: int = 3) -> str:
    low, high = _number(found["low"], digits), _number(found["high"], digits)
    return f"{_number(found['value'], digits)} ({low} to {high})"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
