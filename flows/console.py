"""What the command line says and how it runs a flow: bars, results, exit status; options that many commands share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from flows.runtime import Summary

FAILED, USAGE = 1, 2
_LINE_S = 30.0

Warehouse = Annotated[str, typer.Option(help="Warehouse: a folder, s3://bucket/prefix, gs:// or az://.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
Dask = Annotated[str | None, typer.Option(help="Dask scheduler address, or local:N; by default threads.")]


def stated(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the user stated, or that have a value by themselves."""
    return {name: value for name, value in given.items() if value is not None}


def follow(flow: Callable[..., Any], *settings: Any, as_json: bool) -> NoReturn:
    """Run a flow with bars, print what it did, and end with its exit status."""
    with bars():
        summary: Summary = run_flow(flow, *settings)
    if as_json:
        say(json.dumps(asdict(summary), default=str))
    else:
        say(_in_words(summary))
    raise typer.Exit(summary.exit_status)


def run_flow(flow: Callable[..., Any], *settings: Any) -> Any:
    """Run a flow, and return what it gives."""
    from flows.runtime import keep_tracebacks_off_the_console, start_embedded_server

    keep_tracebacks_off_the_console()
    start_embedded_server()
    return flow(*settings, return_state=True).result(raise_on_failure=True)


def _in_words(summary: Summary) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items())
    lines = [f"{summary.run}: {counts or 'nothing to do'}"]
    lines += [f"  cube     {cube}" for cube in summary.cubes]
    lines += [f"  {name:<8} {value}" for name, value in summary.details.items() if value]
    lines += [f"  note     {note}" for note in summary.notes]
    shown = summary.failures[:20]
    lines += [f"  failed   {failure}" for failure in shown]
    if len(summary.failures) > len(shown):
        lines.append(f"  ... and {len(summary.failures) - len(shown)} more, in the run's regions.parquet")
    if summary.failures and summary.retry:
        lines.append(f"  retry what failed with: {summary.retry}")
    return "\n".join(lines)


def print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say(json.dumps({name: value for name, value in plan.items() if name != "lines"}, default=str))
    else:
        say("\n".join(plan["lines"]))


@contextmanager
def bars() -> Iterator[Callable[..., None]]:
    """Show how far everything that reports has come: bars on a terminal, a line for each finished part elsewhere."""
    from tasks.progress import listening

    if not sys.stderr.isatty():
        lines = _Lines()
        with listening(lines):
            yield lines
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        rows: dict[str, Any] = {}

        def show(name: str, part: str, done: int, total: int, words: str = "") -> None:
            label = f"{name} {part}".strip()
            if label not in rows:
                rows[label] = progress.add_task(label, total=total)
            described = f"{label}: {words}" if words else label
            progress.update(rows[label], completed=done, total=total, description=described)

        with listening(show):
            yield show


class _Lines:
    """Writes a line for each finished part, and twice a minute how long work goes."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, name: str, part: str, done: int, total: int, words: str = "") -> None:
        now = time.monotonic()
        if done == total:
            typer.echo(f"{name} {part}: {words or f'{total} done'}", err=True)
        elif words and now - self._last > _LINE_S:
            self._last = now
            typer.echo(f"{name} {part}: {words}", err=True)


def say(text: str) -> None:
    typer.echo(text)


def stop(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)
