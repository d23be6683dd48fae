"""Canopy training from a request: which ground is read, what is taught, which weights are kept; saved as a model. No Prefect.

A model begins with an EarthPT, and with the canopy head that belongs to it where one is shipped or saved, and learns from labels,
from generated places (`tasks.earth.prior.places`), or from both. Polygons of an inventory leave out what lies below its mapping
unit: outside of them the starting head is followed, but where it sees a wood that any inventory would have drawn. Where every label
can be believed, a new head is trained too, and the one that is better on validation tiles is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from models.canopy import LEFT, UNKNOWN, CanopyConfig, CanopyNet, CoverLevels, Head
from models.earthpt import EarthPT
from models.flops import canopy_head_flops, canopy_reading_flops, earthpt_flops
from models.lora import add_lora, merge_lora
from models.training import StepReport, TrainConfig, TrainState, fit
from storage.classes import NO_CANOPY, LandClass
from storage.location import Location, resolve
from tasks.earth.canopy_cells import (
    TRAIN,
    VALIDATION,
    Cell,
    GridBatches,
    Progress,
    SeriesBatches,
    cells_of,
    read_cells,
    reread,
)
from tasks.earth.canopy_places import place_cells
from tasks.earth.canopy_report import canopy_card
from tasks.earth.energy import Meter
from tasks.earth.label_polygons import PolygonLabels
from tasks.earth.label_report import TileSplit, explain_area, split_area
from tasks.earth.labels import LabelRules, Labels, open_labels, require_two_classes
from tasks.earth.mapping import MapPlan, plan_map, windowed
from tasks.earth.model_files import LoadedNetwork, load_network, save_network
from tasks.earth.model_folders import ModelReference, list_models, list_shipped, read_parts, require_name
from tasks.earth.processes import team
from tasks.earth.scores import class_scores
from tasks.earth.series_batches import device_of
from tasks.earth.training_report import draw_loss
from tasks.errors import ConfigurationError

KIND = "canopy"
CURVE = "training.png"
"""Beside the model's other files."""
_SCORE = "PR-AUC on validation tiles, mean of canopy and classes"
Tuning = Literal["frozen", "lora", "full"]
_PLACES_HELD_OUT = 8
_PATCH = 32
"""Pixels on a side of the labels of a patch."""
_RATE, _GENTLE_RATE = 2e-3, 3e-4
_WOOD_WIDTH, _WOOD_PIXELS = 5, 100
"""Side and pixels of a wood that no inventory leaves out: 50 m and 1 ha at 10 m."""
_SERIES_LOOKS = 84
"""Looks of a series in pre-training, in the mean, by which its operations are counted."""
_JUDGED = 12
"""Times that a training is judged."""


@dataclass(frozen=True)
class LabelledArea:
    """Where labels lie, and how they are read.

    Parameters
    ----------
    area : dict
        GeoJSON geometry, EPSG:4326.
    labels : str
        File of polygons, or raster.
    rules : LabelRules
        How it is read.
    crs : str or None
        CRS of the grid; None for the UTM zone.
    resolution : float
        Metres.
    until : str or None
        Last day of the series.
    window_days : int or None
        Only looks of so many days up to then.
    allow_unmasked : bool
        Whether looks without a mask count.
    pixels : int
        Labelled pixels that are read, about.
    split : TileSplit
        Train, validation and test tiles; the last are not looked at.
    """

    area: dict[str, Any]
    labels: str
    rules: LabelRules
    crs: str | None = None
    resolution: float = 10.0
    until: str | None = None
    window_days: int | None = None
    allow_unmasked: bool = False
    pixels: int = 250_000
    split: TileSplit = field(default_factory=TileSplit)


@dataclass(frozen=True)
class HeadChoice:
    """What is trained, and how.

    Parameters
    ----------
    tuning : str
        ``frozen`` trains the head alone; ``lora`` and ``full`` also how EarthPT reads the looks.
    fresh_head : bool
        Whether to begin with a new head where there is a trained one.
    head : str or None
        A canopy model whose head to begin with, whatever EarthPT it was trained on: all give reflectance of months.
    months, hidden, reach, dropout, turns : int, int, int, float, int
        Of a new head; see `CanopyConfig`.
    members : int or None
        Of a new head, None for one; of a trained head the first so many, None for all.
    rank : int
        Of ``lora``.
    steps : int
        Updates at most.
    batch : int
        Patches of 32 x 32 pixels in an update; looks are tuned on one of 16 x 16.
    learning_rate : float, optional
        At its highest; by default 2e-3, and 3e-4 where a trained head is followed outside of polygons, since what an inventory calls
        wood holds gaps and young growth too.
    focus : float
        Exponent of the focal loss, 0 for cross-entropy.
    balanced : bool
        Whether classes weigh alike, whatever their share.
    doubt : float
        Probability from which the starting head sees canopy: see `_doubted`; 1 believes that all outside of polygons is none.
    patience : int
        Judgements without gain after which training ends.
    """

    tuning: Tuning = "frozen"
    fresh_head: bool = False
    head: str | None = None
    months: int = 12
    hidden: int = 64
    reach: int = 5
    dropout: float = 0.4
    turns: int = 1
    members: int | None = None
    rank: int = 4
    steps: int = 600
    batch: int = 8
    learning_rate: float | None = None
    focus: float = 0.0
    balanced: bool = False
    doubt: float = 0.5
    patience: int = 6


@dataclass(frozen=True)
class CanopyRequest:
    """What a canopy model is trained on.

    Parameters
    ----------
    warehouse : str
        URL.
    name : str
        Of the model.
    backbone : str
        Name of an EarthPT or of a canopy model.
    classes : tuple of LandClass
        Of the map to come.
    labelled : LabelledArea or None
        Ground with labels.
    places : int
        Generated places that are learned from too.
    head : HeadChoice
        What is trained.
    seed : int
        Of every draw.
    device : str or None
        That looks are read and the model is trained on: ``cpu`` or ``cuda``; None for a GPU where there is one.
    workers : int or None
        Processes that draw places; None for one for each CPU.
    """

    warehouse: str
    name: str
    backbone: str
    classes: tuple[LandClass, ...]
    labelled: LabelledArea | None = None
    places: int = 0
    head: HeadChoice = field(default_factory=HeadChoice)
    seed: int = 0
    device: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class TrainedCanopy:
    """A saved model, its scores on validation tiles, and what it was made from."""

    reference: ModelReference
    metrics: dict[str, Any]
    training: dict[str, Any]
    curve: bytes


def train_canopy(request: CanopyRequest, on_progress: Progress | None = None) -> TrainedCanopy:
    """Train a canopy model, choose its weights on validation tiles, calibrate, and save it.

    Raises
    ------
    ConfigurationError
        Where no cube holds the area, the labels do not fit it, or there is nothing to learn from.
    NotFound
        Where there is no such backbone.
    """
    require_name(request.name)
    if request.labelled is None and not request.places:
        raise ConfigurationError("nothing to learn from: name --labels and --aoi, or a number of generated --places")
    if request.labelled is None and request.head.tuning != "frozen":
        raise ConfigurationError(f"--tuning {request.head.tuning} learns from cubes: name --labels and --aoi")
    with team("none", request.device) as alone:
        return _train(request, alone.device, on_progress)


def _train(request: CanopyRequest, device: torch.device, on_progress: Progress | None) -> TrainedCanopy:
    root, meter = resolve(request.warehouse), Meter(gpus=int(device.type == "cuda"))
    started = load_network(root, request.backbone)
    start = _start_of(root, started, request.head)
    model = first_model(start, request)
    if request.head.head:
        _take_backbone(model, started)
    model.to(device)
    ground = _Ground.of(request)
    data = _gather(root, request, model, ground, on_progress)
    has_head = isinstance(start.model, CanopyNet) and not request.head.fresh_head
    doubting = has_head and ground is not None and request.head.doubt < 1 and ground.leaves_out
    cells, doubted = _doubted(data, model, request) if doubting else ([*data.area, *data.places], 0)
    _require_classes(cells, request.classes)
    if not has_head:
        model.head.measure(_sample(cells))
    rate = request.head.learning_rate or (_GENTLE_RATE if doubting else _RATE)
    choice = replace(request.head, learning_rate=rate)
    # whether what was learned elsewhere holds here is for the labels to say, where they can be believed
    rivals = [model, _anew(model, cells, request)] if has_head and ground and not doubting else [model]
    courses = [
        fit_head(one, cells, choice, classes=request.classes, seed=request.seed, on_progress=on_progress)
        for one in rivals
    ]
    course = max(courses, key=lambda one: one.best[0])
    model = course.model
    metrics = _metrics(model, course.validation, request)
    begun = start if has_head and course is courses[0] else None
    training = _training(request, begun, started, course, data=data, doubted=doubted) | {
        "judged": [one.best[0] for one in courses],
        "cost": meter.read().to_json(),
    }
    card = canopy_card(request.classes, backbone=training["backbone"], metrics=metrics, training=training)
    reference = save_network(
        root,
        request.name,
        model,
        kind=KIND,
        config=asdict(model.config),
        metrics=metrics,
        training=training,
        card=card,
        legend=request.classes,
    )
    curve = draw_loss(course.lines, title=request.name, loss="cross-entropy", beside=("pr_auc", _SCORE))
    resolve(reference.url).write_bytes(CURVE, curve)
    return TrainedCanopy(reference, metrics, training, curve)


def first_model(start: LoadedNetwork, request: CanopyRequest) -> CanopyNet:
    """Return the model that training begins with: a trained head as far as it fits the classes, or a new one.

    Raises
    ------
    ConfigurationError
        Where the network is neither an EarthPT nor a canopy model.
    """
    values = tuple(known.value for known in request.classes)
    if isinstance(start.model, CanopyNet) and not request.head.fresh_head:
        members = request.head.members or start.model.config.members
        model = CanopyNet(replace(start.model.config, classes=values, members=members))
        state = _first_members(start, members)
        for name in [one for one in state if one.startswith("head.") and ".last." in one]:
            state[name] = _reclassed(state[name], start.legend, request.classes)
        model.load_state_dict(state)
        return model
    backbone = _earthpt_of(start)
    chosen = {name: getattr(request.head, name) for name in ("months", "hidden", "reach", "dropout", "turns")}
    model = CanopyNet(
        CanopyConfig(classes=values, members=request.head.members or 1, **asdict(backbone.config), **chosen),
        generator=torch.Generator().manual_seed(request.seed),
    )
    model.backbone.load_state_dict(backbone.state_dict())
    return model


def _first_members(start: LoadedNetwork, wanted: int) -> dict[str, Tensor]:
    """Return the weights of a canopy model with the first members of its head."""
    assert isinstance(start.model, CanopyNet)
    held, state = start.model.config.members, dict(start.model.state_dict())
    if wanted == held:
        return state
    if wanted > held:
        raise ConfigurationError(f"--members {wanted}: the head of {start.reference.name} has {held}")
    own = [f"head.members.{number}." for number in range(wanted)]
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("head.members.")}
    kept |= {name: tensor for name, tensor in state.items() if name.startswith(tuple(own))}
    if wanted > 1:
        return kept
    kept = {name.replace(own[0], "head."): tensor for name, tensor in kept.items()}
    return kept | {"head.sharpness": state["head.sharpness"] * state[f"{own[0]}sharpness"]}


def _start_of(root: Location, started: LoadedNetwork, choice: HeadChoice) -> LoadedNetwork:
    """Return what training begins with: the model whose head was asked for, the one shipped for this EarthPT, or itself."""
    if choice.head is None:
        return _head_of(root, started) or started
    if choice.fresh_head:
        raise ConfigurationError(f"--fresh-head and --head {choice.head} exclude each other")
    found = load_network(root, choice.head)
    if not isinstance(found.model, CanopyNet) or not found.model.config.months:
        raise ConfigurationError(f"--head {choice.head}: wanted is a canopy model that reads months")
    return found


def _earthpt_of(network: LoadedNetwork) -> EarthPT:
    """Return the EarthPT that a network is, or reads through."""
    found = network.model.backbone if isinstance(network.model, CanopyNet) else network.model
    if not isinstance(found, EarthPT):
        raise ConfigurationError(
            f"model {network.reference.name} is of kind {network.kind}; a canopy map is made with earthpt or canopy"
        )
    return found


def _take_backbone(model: CanopyNet, started: LoadedNetwork) -> None:
    """Put another EarthPT under the head of a model."""
    own = _earthpt_of(started)
    model.config = replace(model.config, **asdict(own.config))
    model.backbone = deepcopy(own)


def _head_of(root: Location, started: LoadedNetwork) -> LoadedNetwork | None:
    """Return the canopy model that was made from an EarthPT and is shipped, where there is one."""
    if not isinstance(started.model, EarthPT):
        return None
    for name in sorted(set(list_shipped()) - set(list_models(root))):
        _, parts = read_parts(root, name)
        own = parts.training.get("backbone", {}).get("sha256")
        if parts.config.get("kind") == KIND and own == started.reference.weights_sha256:
            return load_network(root, name)
    return None


def _anew(model: CanopyNet, cells: Sequence[Cell], request: CanopyRequest) -> CanopyNet:
    """Return a model that reads looks alike, with a new head of the same size."""
    other = CanopyNet(model.config, generator=torch.Generator().manual_seed(request.seed))
    other.backbone = deepcopy(model.backbone)
    other.head.measure(_sample(cells))
    return other.to(device_of(model))


def _reclassed(rows: Tensor, held: Sequence[LandClass], wanted: Sequence[LandClass]) -> Tensor:
    """Return the last layer's rows for other classes: by name; one that is new is the mean of all canopy."""
    names = [known.name for known in held]
    canopy = torch.stack([rows[number] for number, name in enumerate(names) if name != NO_CANOPY]).mean(dim=0)
    return torch.stack([rows[names.index(one.name)] if one.name in names else canopy for one in wanted])


@dataclass(frozen=True)
class _Ground:
    """The labelled area: grid, labels and split."""

    plan: MapPlan
    known: np.ndarray
    part: np.ndarray
    labels: Labels

    @property
    def leaves_out(self) -> bool:
        """Return whether "none" is what lies outside of polygons, below whose mapping unit there may be canopy."""
        return isinstance(self.labels.source, PolygonLabels) and self.labels.rules.outside == NO_CANOPY

    @classmethod
    def of(cls, request: CanopyRequest) -> _Ground | None:
        asked = request.labelled
        if asked is None:
            return None
        plan = plan_map(
            request.warehouse,
            asked.area,
            crs=asked.crs,
            resolution=asked.resolution,
            until=np.datetime64(asked.until, "D") if asked.until else None,
            allow_unmasked=asked.allow_unmasked,
        )
        plan = windowed(plan, asked.window_days)
        labels = open_labels(asked.labels, request.classes, asked.rules)
        labels.require_overlap([plan.product])
        known, _ = explain_area(plan, labels)
        require_two_classes(np.unique(known.classes).tolist(), request.classes)
        return cls(plan, known.classes, split_area(known.classes, asked.split), labels)


@dataclass(frozen=True)
class _Data:
    """Cells of the area and of generated places."""

    area: list[Cell]
    places: list[Cell]


def _gather(
    root: Location,
    request: CanopyRequest,
    model: CanopyNet,
    ground: _Ground | None,
    on_progress: Progress | None,
) -> _Data:
    model.eval()
    area: list[Cell] = []
    if ground is not None and request.labelled is not None:
        regions = cells_of(
            ground.plan,
            ground.known,
            ground.part,
            classes=request.classes,
            pixels=request.labelled.pixels,
            seed=request.seed,
        )
        area = read_cells(
            ground.plan,
            regions,
            ground.known,
            ground.part,
            model=model,
            classes=request.classes,
            keep_series=request.head.tuning != "frozen",
            on_progress=on_progress,
        )
    places = place_cells(
        root,
        model,
        places=request.places,
        # places judge only where no labels do
        held_out=_PLACES_HELD_OUT if ground is None else 0,
        classes=request.classes,
        processes=request.workers,
        on_progress=on_progress,
    )
    return _Data(area, places)


def _doubted(data: _Data, opinion: CanopyNet, request: CanopyRequest) -> tuple[list[Cell], int]:
    """Return cells whose labels "none" are believed where an inventory can be, and how many pixels are left to the head.

    What lies outside of polygons is none where the starting head sees a wood that an inventory would have drawn; elsewhere the
    head's own opinion is learned, so that hedges are not unlearned. Validation leaves out what the head takes for canopy.
    """
    none, cells, count = [known.name for known in request.classes].index(NO_CANOPY), [], 0
    for cell in data.area:
        canopy = 1 - _probability(opinion, cell)[none] >= request.head.doubt
        outside = cell.labels == none
        left = outside & ~_drawn_woods(canopy & outside) & (cell.part == TRAIN)
        unknown = outside & canopy & (cell.part == VALIDATION)
        count += int(left.sum())
        labels = np.where(unknown, np.int8(UNKNOWN), np.where(left, np.int8(LEFT), cell.labels))
        cells.append(replace(cell, labels=labels))
    return [*cells, *data.places], count


def _drawn_woods(canopy: np.ndarray) -> np.ndarray:
    """Return the parts of canopy that are wide and large enough for any inventory: (y, x) bool."""
    wide = ndimage.binary_opening(canopy, np.ones((_WOOD_WIDTH, _WOOD_WIDTH)))
    label, _ = ndimage.label(wide)
    return np.asarray((np.bincount(label.ravel()) >= _WOOD_PIXELS)[label] & wide)


def _probability(model: CanopyNet, cell: Cell) -> np.ndarray:
    """Return the probabilities of a cell's pixels: (K, y, x)."""
    return np.asarray(_logits(model, cell).softmax(dim=0).numpy())


def _logits(model: CanopyNet, cell: Cell) -> Tensor:
    """Return the logits of a cell's pixels, without gradient, on the CPU: (K, y, x)."""
    with torch.inference_mode():
        return model.logits(torch.from_numpy(cell.features)[None].to(device_of(model)).float())[0].cpu()


def _sample(cells: Sequence[Cell], *, each: int = 2000) -> Tensor:
    """Return the features of some pixels of every cell: (N, features)."""
    drawn = []
    for cell in cells:
        flat = cell.features.reshape(len(cell.features), -1)
        drawn.append(flat[:, :: max(flat.shape[1] // each, 1)].T.astype(np.float32))
    return torch.from_numpy(np.concatenate(drawn))


class _Objective(nn.Module):
    """What `fit` trains: the head, or the whole model, under the loss that was chosen; and what reads cover beside it."""

    def __init__(
        self,
        model: CanopyNet,
        *,
        weights: Sequence[float] | None,
        focus: float,
        anchor: Head | None,
        levels: CoverLevels | None,
    ) -> None:
        super().__init__()
        self.model, self.weights, self.focus, self.levels = model, weights, focus, levels
        self.anchor = [anchor]  # in a list, so that it is no part of what is trained and averaged

    def loss(self, batch: Any, *, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch."""
        return self.model.loss(
            batch,
            generator=generator,
            weights=self.weights,
            focus=self.focus,
            anchor=self.anchor[0],
            levels=self.levels,
        )


def fit_head(
    model: CanopyNet,
    cells: Sequence[Cell],
    choice: HeadChoice,
    *,
    classes: Sequence[LandClass],
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Course:
    """Train a model on cells, give it the weights that were best on their validation pixels, and calibrate it.

    Parameters
    ----------
    model : CanopyNet
        Changed in place; its head has been measured.
    cells : sequence of Cell
        Those for training and those for validation; one may be both.
    choice : HeadChoice
        How.
    classes : sequence of LandClass
        In the order of the labels' positions.
    seed : int
        Of every draw.
    on_progress : callable, optional

    Returns
    -------
    Course
        What happened.
    """
    course = Course(model, cells, choice, classes=classes, seed=seed, on_progress=on_progress)
    course.go()
    _calibrate(model, course.validation)
    return course


class Course:
    """One training: cells in, the weights that were best on validation pixels out.

    Attributes
    ----------
    lines : list of dict
        Losses and scores by update.
    best : tuple of (float, int)
        Mean PR-AUC of the weights that were kept, and their update.
    steps : int
        Updates made.
    """

    def __init__(
        self,
        model: CanopyNet,
        cells: Sequence[Cell],
        choice: HeadChoice,
        *,
        classes: Sequence[LandClass],
        seed: int,
        on_progress: Progress | None = None,
    ) -> None:
        self.model, self.choice, self.classes, self.seed, self.say = model, choice, classes, seed, on_progress
        self.train = tuple(cell for cell in cells if (cell.of(TRAIN) != UNKNOWN).any())
        followed = any((cell.of(TRAIN) == LEFT).any() for cell in self.train)
        self.anchor = deepcopy(model.head).eval().requires_grad_(False) if followed else None
        self.validation = [cell for cell in cells if (cell.of(VALIDATION) >= 0).any()]
        self.lines: list[dict[str, Any]] = []
        self.best: tuple[float, int] = (-1.0, 0)
        self.kept: dict[str, Tensor] = {}
        self.steps = self.failed = 0
        self.tuning = False

    def go(self) -> None:
        """Train the head, then how looks are read where that was asked, and load the weights that were best."""
        choice, seed, rate = self.choice, self.seed, self.choice.learning_rate or _RATE
        self._judge(self.model)
        self.model.backbone.requires_grad_(False)
        self._fit(GridBatches(self.train, _PATCH, choice.batch, seed), choice.steps, rate)
        self.model.load_state_dict(self.kept)
        if choice.tuning != "frozen":
            read = tuple(cell for cell in self.train if cell.series is not None)
            self.tuning = True
            if choice.tuning == "lora":
                add_lora(self.model.backbone, rank=choice.rank, generator=torch.Generator().manual_seed(seed))
            else:
                self.model.backbone.requires_grad_(True)
            self._fit(SeriesBatches(read, _PATCH // 2, seed), choice.steps // 4, rate / 10)
            if choice.tuning == "lora":
                merge_lora(self.model.backbone)
        self.model.requires_grad_(True)
        self.model.load_state_dict(self.kept)
        self.model.eval()
        if self.tuning:
            self.validation = [reread(self.model, cell) for cell in self.validation]

    def _fit(self, batches: GridBatches | SeriesBatches, steps: int, rate: float) -> None:
        """Train from the best weights so far, and judge on the way."""
        self.failed, before = 0, self.steps
        config = TrainConfig(
            steps=steps,
            learning_rate=rate,
            warmup_steps=min(50, steps // 4),
            weight_decay=0.03,
            ema_decay=0.98,
            checkpoint_every=max(steps // _JUDGED, 1),
            log_every=5,
            seed=self.seed,
        )
        self.model.train()
        told = any(cell.cover is not None for cell in self.train)
        objective = _Objective(
            self.model,
            weights=self._class_weights(),
            focus=self.choice.focus,
            anchor=self.anchor,
            levels=CoverLevels(self.model.config).to(device_of(self.model)) if told else None,
        )
        fit(objective, batches, config, None, self._on_step(before), checkpoint=self._on_checkpoint)

    def _class_weights(self) -> list[float] | None:
        """Return weights by which classes weigh alike, where that was asked; their mean over the labels is 1."""
        if not self.choice.balanced:
            return None
        labels = np.concatenate([cell.of(TRAIN).ravel() for cell in self.train])
        counts = np.bincount(labels[labels >= 0], minlength=len(self.classes))
        return [float(counts.sum() / (len(counts) * max(count, 1))) for count in counts]

    def _on_step(self, before: int) -> Callable[[StepReport], None]:
        def hear(report: StepReport) -> None:
            self.steps = before + report.step
            self.lines.append({"step": self.steps, "loss": report.loss, "learning_rate": report.learning_rate})
            if self.say is not None:
                self.say("train", self.steps, self._planned)

        return hear

    @property
    def _planned(self) -> int:
        choice = self.choice
        return choice.steps + (0 if choice.tuning == "frozen" else choice.steps // 4)

    def _on_checkpoint(self, state: TrainState) -> bool:
        """Judge the average of weights; end where nothing was gained for long."""
        judged = deepcopy(self.model)
        own = {name: tensor for name, tensor in state.weights.items() if name.startswith("model.")}
        judged.load_state_dict({name.removeprefix("model."): tensor for name, tensor in own.items()})
        if self.tuning:
            merge_lora(judged.backbone)
        self._judge(judged)
        return self.failed >= self.choice.patience

    def _judge(self, model: CanopyNet) -> None:
        """Score on validation tiles by the mean PR-AUC of canopy and classes, and keep weights that are better."""
        model.eval()
        if self.tuning:
            self.validation = [reread(model, cell) for cell in self.validation if cell.series is not None]
        score = _mean_pr_auc(class_scores(*_scored(model, self.validation), classes=self.classes))
        self.lines.append({"step": self.steps, "pr_auc": score})
        if score > self.best[0]:
            self.best, self.failed = (score, self.steps), 0
            self.kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            self.failed += 1


def _scored(model: CanopyNet, cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (N, K) and class values (N,) of all validation pixels."""
    found, truth = [], []
    values = np.array(model.config.classes)
    for cell in cells:
        labels = cell.of(VALIDATION)
        known = labels >= 0
        found.append(_probability(model, cell)[:, known].T)
        truth.append(values[labels[known]])
    return np.concatenate(found), np.concatenate(truth)


def _mean_pr_auc(scores: Mapping[str, Any]) -> float:
    """Return the mean PR-AUC of canopy and of every class but none, as far as they are there."""
    rows = [found for name, found in scores["classes"].items() if name != NO_CANOPY]
    rows += [scores["canopy"]] if "canopy" in scores else []
    return float(np.mean([row["pr_auc"] for row in rows if row["pr_auc"] is not None] or [0.0]))


def _calibrate(model: CanopyNet, cells: Sequence[Cell]) -> None:
    """Set the temperature of the softmax to what makes validation labels likeliest (Guo et al. 2017, arXiv 1706.04599)."""
    logits, labels = [], []
    for cell in cells:
        known = torch.from_numpy(cell.of(VALIDATION).astype(np.int64))
        logits.append(_logits(model, cell)[:, known >= 0].T)
        labels.append(known[known >= 0])
    every, truth = torch.cat(logits), torch.cat(labels)
    factors = torch.logspace(-0.7, 0.7, 57)
    losses = [nn.functional.cross_entropy(every * factor, truth).item() for factor in factors]
    model.head.get_buffer("sharpness").mul_(factors[int(np.argmin(losses))])


def _metrics(model: CanopyNet, cells: Sequence[Cell], request: CanopyRequest) -> dict[str, Any]:
    ground = "validation tiles of the labels" if request.labelled else "generated places that were not trained on"
    probability, truth = _scored(model, cells)
    found = class_scores(probability, truth, classes=request.classes)
    return {"evaluation": f"{ground}; they chose the weights and the temperature, {len(truth):,} pixels", **found}


def _training(
    request: CanopyRequest,
    start: LoadedNetwork | None,
    started: LoadedNetwork,
    course: Course,
    *,
    data: _Data,
    doubted: int,
) -> dict[str, Any]:
    cells = [*data.area, *data.places]
    looks = sum(cell.looks for cell in cells)
    backbone = started.training.get("backbone") if isinstance(started.model, CanopyNet) else None
    origin = backbone or {"name": started.reference.name, "sha256": started.reference.weights_sha256}
    head = asdict(request.head)
    labelled = request.labelled
    told: dict[str, Any] = {
        "backbone": origin,
        "head_from": f"{start.reference.name}/{start.reference.version}" if start is not None else None,
        "tuning": head.pop("tuning"),
        "settings": head,
        "updates": course.steps,
        "kept": course.best[1],
        "pixels": {
            known.name: sum(int((cell.of(TRAIN) == number).sum()) for cell in course.train)
            for number, known in enumerate(request.classes)
        },
        "doubted": doubted,
        "looks": looks,
        "flops": canopy_reading_flops(course.model, looks=looks, pixels=sum(cell.labels.size for cell in cells))
        + 3 * canopy_head_flops(course.model, pixels=course.steps * request.head.batch * _PATCH**2),
        "places": request.places,
        "seed": request.seed,
        "software": {"canopus": version("canopus")},
    }
    if labelled is not None:
        told["labels"] = {
            "file": os.path.basename(labelled.labels),
            "path": labelled.labels,
            "rules": asdict(labelled.rules),
            "warehouse": request.warehouse,
            "area": labelled.area,
            "crs": labelled.crs,
            "until": labelled.until,
            "window_days": labelled.window_days,
            "split": asdict(labelled.split),
        }
    told["loop"] = {"tokens": _pretrained_on(started)}
    if told["loop"]["tokens"]:
        series = told["loop"]["tokens"] / _SERIES_LOOKS
        spent = earthpt_flops(course.model.backbone, series=1, steps=_SERIES_LOOKS) * series
        told["share_of_pretraining"] = {
            "looks": looks / told["loop"]["tokens"],
            "operations": told["flops"] / spent,
        }
    return told


def _pretrained_on(backbone: LoadedNetwork) -> int | None:
    """Return the looks that an EarthPT was trained on, where it says so; a canopy model repeats those of its own EarthPT."""
    tokens = backbone.training.get("loop", {}).get("tokens")
    return None if tokens is None else int(tokens)


def _require_classes(cells: Sequence[Cell], classes: Sequence[LandClass]) -> None:
    """Raise `ConfigurationError` where a class lacks in training, or canopy and the rest are not both in validation."""
    for part, what in ((TRAIN, "training"), (VALIDATION, "validation")):
        found = {int(number) for cell in cells for number in np.unique(cell.of(part))} - {UNKNOWN}
        if LEFT in found:
            found = found - {LEFT} | {number for number, one in enumerate(classes) if one.name == NO_CANOPY}
        missing = [one.name for number, one in enumerate(classes) if number not in found]
        if (part == TRAIN and missing) or len(found) < 2:
            raise ConfigurationError(
                f"{', '.join(missing) or 'two classes'}: no labelled pixel with a clear look in the {what} tiles: take smaller "
                "blocks (--block), more labels, a later --until or another --seed; `canopus labels` shows where they lie"
            )
