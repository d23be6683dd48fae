"""Train EarthPT: on the prior, on real series, or taught by a larger one; calibrate it, score it and save it.

The training is a run of the warehouse. The same request finds its unfinished run and goes on from the last checkpoint,
with the same bits on a CPU as if it had never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint, CheckpointError, Subject, load_checkpoint, save_checkpoint
from models.distillation import Distillation
from models.earthpt import QUANTILES, EarthPT, EarthPTConfig, config_of
from models.tokens import to_dates
from models.training import NotLearning, StepReport, TrainConfig, TrainState, fit
from storage.location import Location, resolve
from storage.locks import hold
from storage.manifest import Run
from tasks.earth.earthpt_forecasters import EarthPTForecaster
from tasks.earth.energy import Cost, Meter
from tasks.earth.forecast_protocol import asking
from tasks.earth.held_out import score
from tasks.earth.model_files import LoadedNetwork, load_network, save_network
from tasks.earth.model_folders import ModelReference, require_name
from tasks.earth.processes import Team, team
from tasks.earth.training_data import AREA, DataChoice, Progress, TrainingData, gather
from tasks.earth.training_report import draw_loss, write_card
from tasks.earth.training_run import (
    CHECKPOINTS,
    CURVE,
    SUMMARY,
    MetricsLog,
    Sums,
    Trained,
    as_it_was,
    find_or_start,
    finished,
    in_words,
)
from tasks.errors import ConfigurationError

KIND = "earthpt"
BLENDS = (0.25, 0.5, 0.75)
"""Shares of the way from the first weights to the last at which held-out looks are asked once more."""
_STUDENT = "student."
_BUSY_S = 5.0
"""How long another process may still hold the run."""


@dataclass(frozen=True)
class EarthPTRequest:
    """What is trained, on what, and how.

    Parameters
    ----------
    warehouse : str
        URL.
    name : str
        Of the model.
    train : TrainConfig
        How.
    data : DataChoice
        On what.
    model : EarthPTConfig or None
        Size; None for that of the model it starts from.
    start : str or None
        Model whose weights it begins with; None to draw them.
    teacher : str or None
        Model that it learns from, beside the looks.
    truth_share : float
        Weight of the looks where there is a teacher.
    patience : int
        Checkpoints in a row without a lower loss on held-out real looks after which training ends; 0 for never.
    device : str or None
        ``cpu`` or ``cuda``; None for a GPU where there is one.
    fresh : bool
        Whether to begin anew where the same training was done or begun before.
    """

    warehouse: str
    name: str
    train: TrainConfig
    data: DataChoice
    model: EarthPTConfig | None = None
    start: str | None = None
    teacher: str | None = None
    truth_share: float = 0.3
    patience: int = 5
    device: str | None = None
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, for the run's manifest."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


def train_earthpt(request: EarthPTRequest, on_progress: Progress | None = None) -> Trained:
    """Train EarthPT, or go on where an interrupted training of the same request stopped; save and return it.

    Raises
    ------
    ConfigurationError
        Where what is asked does not go together, data are too few, or the loss does not stay finite.
    NotFound
        Where there is no model to start from.
    """
    require_name(request.name)
    with team(request.train.parallel, request.device) as crew:
        return _train(request, crew, on_progress)


def _train(request: EarthPTRequest, crew: Team, on_progress: Progress | None) -> Trained:
    root = resolve(request.warehouse)
    start, teacher = (_opened(root, name) for name in (request.start, request.teacher))
    config = _config(request, start)
    say = on_progress if crew.leads else None
    data = gather(request.warehouse, request.data, crew, horizon_days=config.horizon_days, on_progress=say)
    subject = Subject(request.train, KIND, asdict(config), _decisive(request, crew, data, start, teacher))
    done = None if request.fresh else crew.shared(finished(root, request.name, subject) if crew.leads else None)
    if done is not None:
        return as_it_was(root, request.name, *done)
    run = crew.shared(
        find_or_start(root, request.name, subject, request.to_json(), fresh=request.fresh) if crew.leads else None
    )
    assert run is not None
    with hold(run.location, _BUSY_S) if crew.leads else nullcontext():
        training = _Training(request, crew, data, run, subject, say)
        training.go(_first(config, start, request.train.seed).to(crew.device), teacher)
        found = crew.shared(training.finish(root, start, teacher) if crew.leads else None)
    assert found is not None
    return found


def _opened(root: Location, name: str | None) -> LoadedNetwork | None:
    if name is None:
        return None
    found = load_network(root, name)
    if not isinstance(found.model, EarthPT):
        raise ConfigurationError(f"model {name} is a {found.kind}; EarthPT is trained from, or taught by, a {KIND}")
    return found


def _config(request: EarthPTRequest, start: LoadedNetwork | None) -> EarthPTConfig:
    if start is None:
        return request.model or EarthPTConfig()
    if request.model is not None:
        raise ConfigurationError(
            f"what starts from {request.start} keeps its size: leave out `model`, or start from none (--start-from none)"
        )
    return config_of(start.config)


def _first(config: EarthPTConfig, start: LoadedNetwork | None, seed: int) -> EarthPT:
    model = EarthPT(config, generator=torch.Generator().manual_seed(seed))
    if start is not None:
        model.load_state_dict(start.model.state_dict())
    return model


def _decisive(
    request: EarthPTRequest,
    crew: Team,
    data: TrainingData,
    start: LoadedNetwork | None,
    teacher: LoadedNetwork | None,
) -> dict[str, Any]:
    """Return what decides about the weights beside settings and size."""
    return {
        **data.description,
        "start": start and start.reference.weights_sha256,
        "teacher": teacher and [teacher.reference.weights_sha256, request.truth_share],
        "patience": request.patience,
        "processes": crew.size,
    }


@dataclass
class _Selection:
    """Which weights held-out looks liked most.

    Parameters
    ----------
    losses : list of (int, float)
        Update and loss, of every judgement.
    weights : dict of str to Tensor
        The best.
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def add(self, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Take in a judgement; keep the weights where none before was better."""
        if not self.losses or loss < self.best[1]:
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        self.losses.append((step, loss))

    @property
    def best(self) -> tuple[int, float]:
        """Return update and loss of the best; the first of several."""
        return min(self.losses, key=lambda found: found[1])

    @property
    def worse(self) -> int:
        """Return how many judgements came since the best."""
        return len(self.losses) - 1 - self.losses.index(self.best)


class _Training:
    """One training while it runs: what it adds up to, what it chose, where it writes."""

    def __init__(
        self,
        request: EarthPTRequest,
        crew: Team,
        data: TrainingData,
        run: Run,
        subject: Subject,
        on_progress: Progress | None,
    ) -> None:
        self.request, self.crew, self.data, self.run, self.subject = request, crew, data, run, subject
        self.on_progress = on_progress
        self.config = config_of(subject.config)
        self.held = data.held_out[0] if data.held_out else None
        self.chooses = self.held is not None and self.held.name == AREA
        self.sums, self.selection = Sums(), _Selection()
        self.notes: list[str] = []
        self.blend: tuple[float, float] | None = None
        self.spent: Cost | None = None
        self.meter = Meter(gpus=int(crew.device.type == "cuda"))
        self.over = False

    def go(self, model: EarthPT, teacher: LoadedNetwork | None) -> None:
        """Train up to the end."""
        found = self._found()
        state = found.state if found is not None else None
        self.log = MetricsLog.resumed(self.run.location, self.request.train.log_every, state.step if state else -1)
        if found is not None:
            self._recall(found)
        else:
            self._judge(0, model.state_dict())
        trained: nn.Module = model
        if teacher is not None:
            assert isinstance(teacher.model, EarthPT)
            trained = Distillation(model, teacher.model, truth_share=self.request.truth_share)
        self.spent_before = state.elapsed_s if state else 0.0
        self.begun = time.perf_counter()
        if state is None or not self.over:
            state = self._fit(trained, state)
        self.state, self.cost = state, self._cost()

    def _fit(self, model: nn.Module, state: TrainState | None) -> TrainState:
        # every update is heard of, so that sums are exact; the log thins them out
        config = replace(self.request.train, log_every=1)
        try:
            end = fit(model, self.data.batches, config, state, self._on_step, checkpoint=self._on_checkpoint)
        except NotLearning as error:
            raise ConfigurationError(f"run {self.run.id}: {error}") from error
        if not self.selection.losses or self.selection.losses[-1][0] < end.step:
            self._judge(end.step, _student(end.weights))
        self.over = True
        self._save(end)
        return end

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
        self.sums, self.spent = Sums(**notes["sums"]), Cost(**notes["cost"])
        self.selection = _Selection([(step, loss) for step, loss in notes["losses"]], dict(found.best))
        self.over = notes["over"]
        self.notes.append(f"went on from update {found.state.step:,} of run {self.run.id}")

    def _on_step(self, report: StepReport) -> None:
        self.sums.add(report)
        if self.crew.leads and (line := self.log.add(report, self._elapsed_s)) is not None:
            self.meter.read()
            self._tell(line)

    def _on_checkpoint(self, state: TrainState) -> bool:
        loss = self._judge(state.step, _student(state.weights))
        if self.crew.leads:
            self.log.write({"step": state.step, "held_out": loss})
        patience = self.request.patience
        self.over = self.chooses and 0 < patience <= self.selection.worse
        self._save(state)
        return self.over

    def _judge(self, step: int, weights: Mapping[str, Tensor]) -> float | None:
        """Return the loss on held-out looks, and keep the weights where it is the lowest."""
        if self.held is None:
            return None
        loss = self.held.loss(self._model_of(weights))
        self.selection.add(step, loss, weights if self.chooses else {})
        return loss

    def _model_of(self, weights: Mapping[str, Tensor]) -> EarthPT:
        model = EarthPT(self.config).to(self.crew.device)
        model.load_state_dict(weights)
        return model

    def _save(self, state: TrainState) -> None:
        cost = self._cost()
        if not self.crew.leads:
            return
        notes = {"sums": asdict(self.sums), "cost": asdict(cost), "losses": self.selection.losses, "over": self.over}
        checkpoint = Checkpoint(state, self.selection.weights, notes)
        save_checkpoint(self.run.location / CHECKPOINTS, checkpoint, self.subject)
        self.log.flush()

    def _cost(self) -> Cost:
        """Return what was spent, by all processes, before and after an interruption."""
        own = self.meter.read()
        together = replace(own, cpu_hours=self.crew.total(own.cpu_hours), gpu_hours=self.crew.total(own.gpu_hours))
        return together if self.spent is None else self.spent + together

    @property
    def _elapsed_s(self) -> float:
        return self.spent_before + time.perf_counter() - self.begun

    def _tell(self, line: Mapping[str, Any]) -> None:
        if self.on_progress is None:
            return
        train = self.request.train
        done, total = line["step"], train.steps
        if train.minutes is not None:
            share = max(line["elapsed_s"] / (60 * train.minutes), done / total)
            done, total = round(60 * train.minutes * min(share, 1.0)), round(60 * train.minutes)
        loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
        words = (
            f"update {line['step']:,}, loss {loss}, {line['tokens_per_second']:,.0f} looks/s, "
            f"{_in_words(line['eta_s'])} left"
        )
        self.on_progress(self.request.name, done, total, words)

    def finish(self, root: Location, start: LoadedNetwork | None, teacher: LoadedNetwork | None) -> Trained:
        """Choose the weights, calibrate, score and save them; close the run."""
        model = self._model_of(self._weights(start)).to("cpu").eval()
        for held in reversed(self.data.held_out):
            held.calibrate(model)
        metrics = {"held_out": self._scores(model), "held_out_loss": [list(found) for found in self.selection.losses]}
        training = self._summary(start, teacher)
        card = write_card(what=self._what(), data=self.data.facts, training=training, metrics=metrics)
        reference = save_network(
            root,
            self.request.name,
            model,
            kind=KIND,
            config=asdict(self.config),
            metrics=metrics,
            training=training,
            card=card,
        )
        self.log.flush()
        title = f"{reference.name}, version {reference.version}"
        self.run.location.write_bytes(CURVE, draw_loss(self.log.lines, title=title))
        summary = {**training, "reference": asdict(reference)}
        self.run.location.write_bytes(SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
        return Trained(
            reference, self.run.id, metrics, training, str(self.run.location / CURVE), (*self.notes, self._chosen())
        )

    def _weights(self, start: LoadedNetwork | None) -> Mapping[str, Tensor]:
        """Return the weights to save: those that held-out looks like most, or those on the way to the last ones.

        Between the weights it began with and the last ones often lie better ones than either, for the place and for
        others (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
        """
        last = _student(self.state.weights)
        if not self.chooses:
            return last
        assert self.held is not None
        weights, lowest = self.selection.weights, self.selection.best[1]
        if start is None:
            return weights
        for share in BLENDS:
            between = blended(start.model.state_dict(), last, share)
            loss = self.held.loss(self._model_of(between))
            if loss < lowest:
                weights, lowest, self.blend = between, loss, (share, loss)
        return weights

    def _scores(self, model: EarthPT) -> dict[str, Any]:
        forecaster = EarthPTForecaster(model, ModelReference(self.request.name, "", "", ""))
        found = {
            held.name: score(held, asking(forecaster), QUANTILES, pixels=self.request.data.scored)
            for held in self.data.held_out
        }
        return {name: scores for name, scores in found.items() if scores is not None}

    def _summary(self, start: LoadedNetwork | None, teacher: LoadedNetwork | None) -> dict[str, Any]:
        sums = self.sums
        return {
            "run": self.run.id,
            "start": start and f"{start.reference.name}/{start.reference.version}",
            "teacher": teacher and f"{teacher.reference.name}/{teacher.reference.version}",
            "data": self.data.description,
            "facts": list(self.data.facts),
            "train": asdict(self.request.train),
            "steps": self.state.step,
            "minutes": round(self.state.elapsed_s / 60, 3),
            "processes": self.crew.size,
            "device": self._device(),
            "loop": {
                "tokens": sums.tokens,
                "tokens_per_second": round(sums.tokens_per_second, 1),
                "wait_share": round(sums.wait_share, 4),
            },
            "cost": self.cost.to_json(),
            "selection": self._chosen(),
            "software": {"canopus": version("canopus"), "torch": torch.__version__},
        }

    def _what(self) -> str:
        size = sum(parameter.numel() for parameter in EarthPT(self.config).parameters())
        return (
            "EarthPT: quantiles of reflectance and indices on any later day, from a pixel's cloud-masked, irregular looks. "
            f"{self.config.layers} layers of width {self.config.width}, {size:,} parameters."
        )

    def _device(self) -> str:
        if self.crew.device.type == "cuda":
            return torch.cuda.get_device_name(self.crew.device)
        return f"cpu, {torch.get_num_threads()} thread(s)"

    def _chosen(self) -> str:
        """Return in words which weights these are."""
        if self.held is None:
            return "weights: the average at the end"
        (step, loss), (_, first), (_, last) = self.selection.best, self.selection.losses[0], self.selection.losses[-1]
        if not self.chooses:
            return f"weights: the average at the end; loss on generated series never seen {last:.4f}, at the start {first:.4f}"
        day = str(to_dates(torch.tensor(self.held.since)))
        if self.blend is not None:
            share, lowest = self.blend
            return (
                f"weights: {share:.0%} of the way from the first to the last, which has the lowest loss on the looks held out "
                f"from {day} on: {lowest:.4f}, at the start {first:.4f}, at the end {last:.4f}"
            )
        if step == 0:
            return (
                f"training did not lower the loss on the looks held out from {day} on ({first:.4f} at the start, {last:.4f} "
                "at the end): the weights are those it began with"
            )
        return (
            f"weights: the average at update {step:,} of {self.state.step:,}, which has the lowest loss on the looks held "
            f"out from {day} on: {loss:.4f}, at the start {first:.4f}, at the end {last:.4f}"
        )


def blended(first: Mapping[str, Tensor], last: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return weights at a share of the way from the first to the last."""
    return {name: torch.lerp(tensor, last[name].to(tensor), share) for name, tensor in first.items()}


def _student(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of what learns, where there is a teacher beside it."""
    return {name.removeprefix(_STUDENT): tensor for name, tensor in weights.items()}


def _in_words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
