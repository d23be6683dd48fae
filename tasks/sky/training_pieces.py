"""A training of the sky's models that may be done in pieces of some minutes: checkpoints, log, cost, loss curve.

The schedule follows updates alone, so that a training in pieces ends with the same weights as one that was not interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint, CheckpointError, Subject, load_checkpoint, save_checkpoint
from models.training import Batches, NotLearning, StepReport, TrainConfig, TrainState, fit
from storage.manifest import Run
from tasks.earth.energy import Cost, Meter
from tasks.earth.model_folders import ModelReference
from tasks.earth.processes import Team
from tasks.earth.training_report import draw_loss
from tasks.earth.training_run import CHECKPOINTS, CURVE, SUMMARY, MetricsLog, Sums, in_words
from tasks.errors import ConfigurationError

Progress = Callable[[str, int, int, str], None]
"""Called with what is worked on, parts done, parts in all, and a few words on how it goes."""


@dataclass(frozen=True)
class Piece:
    """What one call is to do of a training.

    Parameters
    ----------
    name : str
        Of the model.
    train : TrainConfig
        The whole of it; `checkpoint_every` is also how often the clock is looked at.
    minutes : float or None
        Of this piece; None to the end.
    unit : str
        What a token of the loop is.
    """

    name: str
    train: TrainConfig
    minutes: float | None
    unit: str = "galaxies"


class TrainingInPieces:
    """One training while it runs.

    Parameters
    ----------
    piece : Piece
    crew : Team
    run : Run
        Held by the caller.
    subject : Subject
        What is trained, on what.
    judge : callable
        From weights to the loss on held-out galaxies.
    on_progress : Progress, optional
    """

    def __init__(
        self,
        piece: Piece,
        crew: Team,
        run: Run,
        subject: Subject,
        *,
        judge: Callable[[Mapping[str, Tensor]], float],
        on_progress: Progress | None = None,
    ) -> None:
        self.piece, self.crew, self.run, self.subject, self.judge = piece, crew, run, subject, judge
        self.on_progress = on_progress
        self.sums = Sums()
        self.losses: list[tuple[int, float]] = []
        self.notes: list[str] = []
        self._spent: Cost | None = None
        self._meter = Meter(gpus=int(crew.device.type == "cuda"))

    def go(self, model: nn.Module, batches: Batches) -> TrainState:
        """Train to the end of the piece, from the last checkpoint on; return where it stands.

        Raises
        ------
        ConfigurationError
            Where the loss does not stay finite, or a checkpoint is of other settings.
        """
        train, found = self.piece.train, self._found()
        state = found.state if found is not None else None
        self._log = MetricsLog.resumed(self.run.location, train.log_every, state.step if state else -1)
        self._spent_before_s, self._begun = (state.elapsed_s if state else 0.0), time.perf_counter()
        if found is not None:
            self._recall(found)
        try:
            # every update is heard of, so that sums are exact; the log thins them out
            end = fit(model, batches, replace(train, log_every=1), state, self._on_step, checkpoint=self._on_checkpoint)
        except NotLearning as error:
            raise ConfigurationError(f"run {self.run.id}: {error}") from error
        if not self.losses or self.losses[-1][0] < end.step:
            self._on_checkpoint(end)
        self._state = end
        return end

    def close(self, reference: ModelReference) -> str:
        """Draw the loss curve of a saved model, end the run where the training is at its end, and return the curve's URL."""
        self._log.flush()
        curve = draw_loss(self._log.lines, title=f"{reference.name}, version {reference.version}", loss="loss")
        self.run.location.write_bytes(CURVE, curve)
        steps, done = self.piece.train.steps, self._state.step
        if done >= steps:
            summary = {**self.summary(), "reference": asdict(reference)}
            self.run.location.write_bytes(SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
        else:
            self.notes.append(f"at update {done:,} of {steps:,}: the same command goes on from here")
        return str(self.run.location / CURVE)

    def summary(self) -> dict[str, Any]:
        """Return what is told of the training, JSON types."""
        sums, device = self.sums, self.crew.device
        is_gpu = device.type == "cuda"
        return {
            "run": self.run.id,
            "train": asdict(self.piece.train),
            "steps": self._state.step,
            self.piece.unit: sums.tokens,
            "minutes": round(self._state.elapsed_s / 60, 3),
            "device": torch.cuda.get_device_name(device) if is_gpu else f"cpu, {torch.get_num_threads()} thread(s)",
            "loop": {
                f"{self.piece.unit}_per_second": round(sums.tokens_per_second, 1),
                "wait_share": round(sums.wait_share, 4),
            },
            "cost": self._cost().to_json(),
            "software": {"canopus": version("canopus"), "torch": torch.__version__},
        }

    def _found(self) -> Checkpoint | None:
        try:
            found = load_checkpoint(self.run.location / CHECKPOINTS, self.subject)
        except CheckpointError as error:
            raise in_words(error, self.run) from error
        if found is not None:
            self.notes += [f"passed over: {word}" for word in found.passed_over]
        return found

    def _recall(self, found: Checkpoint) -> None:
        notes = found.notes
        self.sums, self._spent = Sums(**notes["sums"]), Cost(**notes["cost"])
        self.losses = [(step, loss) for step, loss in notes["losses"]]
        self.notes.append(f"went on from update {found.state.step:,} of run {self.run.id}")

    @property
    def _elapsed_s(self) -> float:
        return self._spent_before_s + time.perf_counter() - self._begun

    def _on_step(self, report: StepReport) -> None:
        self.sums.add(report)
        if (line := self._log.add(report, self._elapsed_s)) is not None:
            self._meter.read()
            self._tell(line)

    def _on_checkpoint(self, state: TrainState) -> bool:
        loss = self.judge(state.weights)
        self.losses.append((state.step, loss))
        self._log.write({"step": state.step, "held_out": loss})
        notes = {"sums": asdict(self.sums), "cost": asdict(self._cost()), "losses": self.losses}
        save_checkpoint(self.run.location / CHECKPOINTS, Checkpoint(state, {}, notes), self.subject)
        self._log.flush()
        minutes = self.piece.minutes
        return minutes is not None and time.perf_counter() - self._begun >= 60 * minutes

    def _cost(self) -> Cost:
        own = self._meter.read()
        return own if self._spent is None else self._spent + own

    def _tell(self, line: Mapping[str, Any]) -> None:
        if self.on_progress is None:
            return
        loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
        words = f"update {line['step']:,}, loss {loss}, {line['tokens_per_second']:,.1f} {self.piece.unit}/s"
        self.on_progress(self.piece.name, line["step"], self.piece.train.steps, words)
