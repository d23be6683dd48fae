"""One training in the warehouse: ``runs/train-.../`` with what was asked, ``metrics.jsonl``, checkpoints and a summary.

An interrupted training is found again by the hash of what it was asked, and goes on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.checkpoint import CheckpointError, Subject
from models.training import StepReport
from storage.errors import NotFound
from storage.location import Location
from storage.manifest import Run, content_hash, start_run
from tasks.earth.model_files import load_network
from tasks.earth.model_folders import ModelReference
from tasks.errors import ConfigurationError

KIND = "train"
METRICS, SUMMARY, CURVE, CHECKPOINTS = "metrics.jsonl", "training.json", "loss.png", "checkpoints"
_FLUSH_S = 15.0


@dataclass(frozen=True)
class Trained:
    """A saved model, and how it came to be.

    Parameters
    ----------
    reference : ModelReference
        Which one it is.
    run : str
        Id of the training's run.
    metrics, training : dict
        As they stand beside the weights.
    curve : str
        URL of the loss curve.
    notes : tuple of str
        What the user should know.
    """

    reference: ModelReference
    run: str
    metrics: dict[str, Any]
    training: dict[str, Any]
    curve: str
    notes: tuple[str, ...] = ()


@dataclass
class Sums:
    """What the updates of a training add up to.

    Parameters
    ----------
    updates, tokens : int
        How many.
    seconds, wait_seconds : float
        Of the updates, and of them waiting for data.
    loss : float
        Sum of the losses that are finite numbers.
    finite : int
        How many of those there are.
    """

    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    loss: float = 0.0
    finite: int = 0

    def add(self, report: StepReport) -> None:
        """Add one update."""
        self.updates += 1
        self.tokens += report.tokens
        self.seconds += report.seconds
        self.wait_seconds += report.wait_seconds
        if math.isfinite(report.loss):
            self.loss += report.loss
            self.finite += 1

    @property
    def mean_loss(self) -> float | None:
        """Return the mean loss; None where no update had a finite one."""
        return self.loss / self.finite if self.finite else None

    @property
    def wait_share(self) -> float:
        """Return the share of time that the loop waited for data."""
        return self.wait_seconds / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Return the pace."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass
class MetricsLog:
    """``metrics.jsonl``: one JSON object for every `every` updates, means over them.

    Parameters
    ----------
    location : Location
        Of the run.
    every : int
        Updates of one line.
    lines : list of dict
        Written so far.
    """

    location: Location
    every: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    _some: Sums = field(default_factory=Sums)
    _flushed: float = 0.0

    @classmethod
    def resumed(cls, location: Location, every: int, step: int) -> MetricsLog:
        """Return the log as it was at a step: what came after is done again."""
        try:
            text = location.read_bytes(METRICS).decode()
        except NotFound:
            text = ""
        lines = [json.loads(line) for line in text.splitlines()]
        return cls(location, every, [line for line in lines if line["step"] <= step])

    def add(self, report: StepReport, elapsed_s: float) -> dict[str, Any] | None:
        """Take in one update; return the line that it completes."""
        self._some.add(report)
        if report.step % self.every and report.eta_seconds > 0:
            return None
        some, self._some = self._some, Sums()
        line = {
            "step": report.step,
            "position": report.position,
            "loss": _finite(some.mean_loss),
            "learning_rate": report.learning_rate,
            "gradient_norm": _finite(report.gradient_norm),
            "tokens": some.tokens,
            "tokens_per_second": round(some.tokens_per_second, 1),
            "wait_share": round(some.wait_share, 4),
            "elapsed_s": round(elapsed_s, 3),
            "eta_s": round(report.eta_seconds, 1),
        }
        self.write(line)
        return line

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; the file is written every few seconds."""
        self.lines.append(line)
        if time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the file."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self.location.write_bytes(METRICS, text.encode())
        self._flushed = time.monotonic()


def find_or_start(root: Location, name: str, subject: Subject, request: Mapping[str, Any], *, fresh: bool) -> Run:
    """Return the run of this training: the newest that was asked the same and has not ended, or a new one.

    Parameters
    ----------
    root : Location
        Warehouse.
    name : str
        Of the model.
    subject : Subject
        What is trained.
    request : mapping
        JSON types, for the manifest.
    fresh : bool
        Whether to begin a new one in any case.
    """
    if not fresh:
        for run in _asked_the_same(root, name, subject):
            if not run.location.exists(SUMMARY):
                return run
    content = {"request": dict(request), "subject": subject.to_json(), "config_hash": _digest(name, subject)}
    return start_run(root, KIND, content)


def finished(root: Location, name: str, subject: Subject) -> tuple[Run, dict[str, Any]] | None:
    """Return the newest run that was asked the same and has ended, with its summary; None where there is none."""
    for run in _asked_the_same(root, name, subject):
        if run.location.exists(SUMMARY):
            return run, json.loads(run.location.read_bytes(SUMMARY))
    return None


def as_it_was(root: Location, name: str, run: Run, summary: Mapping[str, Any]) -> Trained:
    """Return what a training gave that has ended, from what `finished` found."""
    reference = ModelReference(**summary["reference"])
    found = load_network(root, name, reference.version)
    note = f"run {run.id} was asked the same and is done; --fresh trains anew"
    return Trained(reference, run.id, found.metrics, found.training, str(run.location / CURVE), (note,))


def _asked_the_same(root: Location, name: str, subject: Subject) -> Iterator[Run]:
    digest = _digest(name, subject)
    for folder in sorted((root / "runs").list_folders(), reverse=True):
        run = Run(root / "runs" / folder, folder)
        if folder.startswith(f"{KIND}-") and _asked(run) == digest:
            yield run


def _digest(name: str, subject: Subject) -> str:
    return content_hash({"name": name, **subject.to_json()})


def in_words(error: CheckpointError, run: Run) -> ConfigurationError:
    """Return why a run cannot go on, as the user reads it."""
    return ConfigurationError(f"run {run.id}: {error} (--fresh)")


def _asked(run: Run) -> str:
    try:
        return str(run.read_manifest().get("config_hash"))
    except (NotFound, json.JSONDecodeError):
        return ""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
