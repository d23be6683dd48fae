"""An evaluation's report in words: the model beside all floors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.earth.forecast_protocol import MODEL, WINDOW_QUANTILES

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 110


def describe_report(report: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Return what a person reads: errors by index and method, skill, errors by horizon, intervals, where it all lies."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width)
    console.print(_heading(report), highlight=False, markup=False)
    console.print(_error_table(report))
    console.print(_horizon_table(report, next(iter(report["indices"]))))
    console.print("\n".join(_interval_lines(report)), highlight=False, markup=False)
    console.print("\n".join(_places(report)), highlight=False, markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _heading(report: Mapping[str, Any]) -> str:
    counts, rule = report["counts"], report["protocol"]
    name = f"model {report['model']}" if report.get("model") else "floors alone"
    lines = [
        f"{name}: {counts['origins']} origins {rule['origins'][0]} to {rule['origins'][-1]}, {rule['horizon_days']} days "
        f"ahead, {counts['pixels']:,} pixels, {counts['targets']:,} looks held out, "
        f"{counts['screened_targets']:,} of them free of haze; context mask: {rule['context']}"
    ]
    if counts["unanswered"]:
        lines.append(f"{counts['unanswered']:,} targets left out: the model gave no number for them")
    return "\n".join(lines)


def _error_table(report: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="absolute error: mean / median; skill: 1 - error / error of the floor")
    table.add_column("index")
    table.add_column("method")
    for title in ("all clear looks", "skill", "free of haze", "skill"):
        table.add_column(title, justify="right")
    for index, methods in report["indices"].items():
        for method, found in methods.items():
            screened = report["screened"].get(index, {}).get(method)
            cells = [_pair(found), _skill(report["skill"], index, method)]
            cells += [_pair(screened), _skill(report["screened_skill"], index, method)]
            table.add_row(index if method == next(iter(methods)) else "", method, *cells)
        table.add_section()
    return table


def _horizon_table(report: Mapping[str, Any], index: str) -> Table:
    from rich import box
    from rich.table import Table

    methods = report["indices"][index]
    table = Table(box=box.SIMPLE_HEAD, title=f"{index}: mean / median absolute error by days from the origin")
    table.add_column("method")
    for part in next(iter(methods.values()))["by_horizon"]:
        table.add_column(f"{part['days'][0]}-{part['days'][1]}", justify="right")
    for method, found in methods.items():
        table.add_row(method, *(_pair(part) for part in found["by_horizon"]))
    return table


def _interval_lines(report: Mapping[str, Any]) -> list[str]:
    coverage, lines = report["interval_coverage"], []
    if coverage["of"] == MODEL:
        parts = coverage["indices"][coverage["index"]]
        lines.append(f"inside the model's 80 % interval, {coverage['index']}: {_share(parts['overall'])}")
        rows = [f"{row['days'][0]}-{row['days'][1]} days {_share(row['coverage'])}" for row in parts["by_horizon"]]
        rows += [f"{name} {_share(row['coverage'])}" for name, row in parts["by_season"].items() if row["n"]]
        lines.append("  " + ", ".join(rows))
    for index, found in report["pinball"].items():
        words = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in found.items())
        inside = coverage[WINDOW_QUANTILES][index]["overall"]
        lines.append(f"pinball loss, {index}: {words}; inside the window's 80 %: {_share(inside)}")
    return lines


def _places(report: Mapping[str, Any]) -> list[str]:
    return [f"  {name:<8} {place}" for name, place in _listed(report)]


def _listed(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [("report", report["report"])] if "report" in report else []
    return found + [("picture", place) for place in report.get("pictures", ())]


def _pair(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{_number(found['mae'])} / {_number(found['median'])}"


def _skill(skills: Mapping[str, Any], index: str, method: str) -> str:
    found = skills.get(index, {}).get(method)
    return "" if found is None else " / ".join(_percent(value) for value in found.values())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:+.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
