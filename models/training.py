"""The one training loop: ``fit`` knows nothing of what it trains.

Batches are a pure function of their position, and every draw inside a step comes from a generator that is seeded from
(seed, rank, position). A state is therefore its tensors and one number; a run that was stopped and goes on gives the
same bits on a CPU as one that was not. The order of things follows Karras et al. 2024 (EDM2): progress is what was
seen, not what was stored.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_AHEAD = 2
_LAST_STRAW = 10
"""Updates in a row without a finite loss after which training stops."""


class Batches(Protocol):
    """What training draws from."""

    def at(self, position: int) -> Any:
        """Return the batch at a position, in the host's memory; the same one whenever it is asked for."""
        ...

    def tokens(self, batch: Any) -> int:
        """Return how many tokens a batch holds; asked before it goes to a GPU."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Parameters
    ----------
    steps : int
        Updates.
    learning_rate : float
        At its highest.
    final_share : float
        Learning rate at the end over the highest; between them a cosine.
    warmup_steps : int
        Updates over which the learning rate rises.
    betas, weight_decay : tuple of float, float
        Of AdamW; only tensors of two dimensions and more decay.
    clip : float
        Largest norm of all gradients together.
    ema_decay : float
        Of the average of weights, 0 for none; it rises to this value as (1 + n) / (10 + n).
    accumulation : int
        Batches of one update.
    precision : str
        ``bf16`` runs the forward pass under autocast.
    compile : bool
        Whether torch.compile makes the loss faster; pays after some minutes.
    parallel : str
        ``ddp`` or ``fsdp`` under torchrun.
    checkpoint_every, log_every : int
        Updates between two calls of `checkpoint` and of `on_step`; 0 for never.
    minutes : float, optional
        Wall clock that may be spent; the cosine then follows whichever is further, steps or minutes. How many steps fit
        depends on the machine, so such a run is not reproducible bit by bit.
    seed : int
        Of every draw inside a step.
    """

    steps: int
    learning_rate: float = 1e-3
    final_share: float = 0.1
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    ema_decay: float = 0.0
    accumulation: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = False
    parallel: Literal["none", "ddp", "fsdp"] = "none"
    checkpoint_every: int = 0
    log_every: int = 10
    minutes: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainState:
    """Where training stands.

    Parameters
    ----------
    model, ema : dict of str to Tensor
        Weights, and their average (empty where there is none).
    optimiser : dict
        As `torch.optim.Optimizer.state_dict` gives it.
    step, position : int
        Updates done, batches drawn by each process.
    elapsed_s : float
        Wall clock spent.
    """

    model: dict[str, Tensor]
    ema: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    position: int = 0
    elapsed_s: float = 0.0

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return what to use: the average where there is one."""
        return self.ema or self.model


@dataclass(frozen=True)
class StepReport:
    """One update.

    Parameters
    ----------
    step, position, tokens : int
        Updates done, batches drawn, tokens in this update.
    loss, learning_rate, gradient_norm : float
        Before the update; the norm is before clipping.
    seconds, wait_seconds : float
        Of this update, and of them waiting for data.
    eta_seconds : float
        Until the end at this pace.
    """

    step: int
    position: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    wait_seconds: float
    eta_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Return the pace of this update."""
        return self.tokens / max(self.seconds, 1e-9)


class NotLearning(RuntimeError):
    """The loss was not a finite number several times in a row."""


OnStep = Callable[[StepReport], None]


def fit(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    state: TrainState | None = None,
    on_step: OnStep | None = None,
    *,
    checkpoint: Callable[[TrainState], bool | None] | None = None,
) -> TrainState:
    """Train a model, from where `state` stands.

    Parameters
    ----------
    model : nn.Module
        With ``loss(batch, *, generator) -> Tensor``; changed in place. It stands on the device to train on.
    batches : Batches
        Each process of several draws positions of its own.
    config : TrainConfig
        How.
    state : TrainState, optional
        From an earlier call with the same config.
    on_step : callable, optional
        Hears of every `log_every`-th update and of the last by steps or minutes, before `checkpoint` does.
    checkpoint : callable, optional
        Gets the state every `checkpoint_every` updates; where it returns True, in any process, training ends there.

    Raises
    ------
    NotLearning
        Where the loss stays infinite or NaN.
    """
    loop = _Loop(model, batches, config, state)
    with _tensor_cores(loop.device), loop.feed() as feed:
        while not loop.done:
            report = loop.update(feed)
            if on_step and config.log_every and (report.step % config.log_every == 0 or loop.done):
                on_step(report)
            if checkpoint and config.checkpoint_every and report.step % config.checkpoint_every == 0:
                loop.end_where(bool(checkpoint(loop.state())))
    return loop.state()


def learning_rate_at(config: TrainConfig, step: int, elapsed_s: float = 0.0) -> float:
    """Return the learning rate of an update: linear warm-up, then a cosine down to `final_share`.

    Examples
    --------
    >>> config = TrainConfig(steps=100, learning_rate=1.0, final_share=0.1, warmup_steps=10)
    >>> [round(learning_rate_at(config, step), 3) for step in (0, 9, 99)]
    [0.1, 1.0, 0.1]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps + 1) / max(1, config.steps - config.warmup_steps)
    if config.minutes:
        done = max(done, elapsed_s / 60 / config.minutes)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * cosine)


class _Loop:
    """What one call of `fit` holds."""

    def __init__(self, model: nn.Module, batches: Batches, config: TrainConfig, state: TrainState | None) -> None:
        self.config, self.batches = config, batches
        self.rank, self.world = _ranks()
        self.device = next(model.parameters()).device
        if state is not None:
            model.load_state_dict(state.model)
        self.model = model
        self.trained = _spread_over_processes(model, config.parallel)
        self.loss: Callable[..., Tensor] = torch.compile(self.trained) if config.compile else self.trained
        self.optimiser = _optimiser(model, config)
        self.ema = _start_of_average(model, state) if config.ema_decay else {}
        self.step = self.position = 0
        self.spent, self.begun, self.failures = 0.0, time.perf_counter(), 0
        if state is not None:
            self._resume(state)
        self.done = self._is_over()

    @property
    def elapsed_s(self) -> float:
        return self.spent + time.perf_counter() - self.begun

    def end_where(self, claim: bool) -> None:
        """End training where one process says so."""
        self.done = self.done or _any_process(claim, self.world, self.device)

    def update(self, feed: Iterator[Any]) -> StepReport:
        """Draw batches, and change the weights once."""
        begun, waited, tokens = time.perf_counter(), 0.0, 0
        rate = learning_rate_at(self.config, self.step, self.elapsed_s)
        self.optimiser.zero_grad(set_to_none=True)
        losses = []
        for number in range(self.config.accumulation):
            asked = time.perf_counter()
            held, batch = next(feed)
            waited += time.perf_counter() - asked
            tokens += held
            with self._exchange(last=number == self.config.accumulation - 1):
                losses.append(self._backward(batch))
        # a GPU is waited for once an update, not once a batch
        total = sum(torch.stack(losses).tolist())
        norm = float(_full(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)))
        self._apply(rate, finite=not _any_process(not math.isfinite(total + norm), self.world, self.device))
        self.done = self._is_over()
        seconds = time.perf_counter() - begun
        return StepReport(
            self.step, self.position, tokens * self.world, total, rate, norm, seconds, waited, self._left(seconds)
        )

    def state(self) -> TrainState:
        """Return a copy of where training stands."""
        return TrainState(
            _whole(self.model.state_dict()),
            _whole(self.ema),
            _whole(self.optimiser.state_dict()),
            self.step,
            self.position,
            self.elapsed_s,
        )

    @contextmanager
    def feed(self) -> Iterator[Iterator[Any]]:
        """Yield batches, each with its number of tokens, that a thread prepares while the step before runs."""
        ready: queue.Queue[Any] = queue.Queue(_AHEAD)
        stopped = threading.Event()
        worker = threading.Thread(target=self._prepare, args=(ready, stopped), daemon=True)
        worker.start()
        try:
            yield iter(lambda: _taken(ready), None)
        finally:
            stopped.set()
            while worker.is_alive():
                _drain(ready)
                worker.join(0.05)

    def _prepare(self, ready: queue.Queue[Any], stopped: threading.Event) -> None:
        position = self.position
        if self.device.type == "cuda":  # a new thread stands on the first GPU, whichever this process trains on
            torch.cuda.set_device(self.device)
        while not stopped.is_set():
            try:
                batch = self.batches.at(position * self.world + self.rank)
                ready.put((self.batches.tokens(batch), _moved(batch, self.device)))
            except Exception as error:
                ready.put(error)
                return
            position += 1

    def _exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Return where a batch's gradients are made: processes exchange them after the last batch of an update."""
        trained = self.trained
        if last or not isinstance(trained, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], trained.no_sync())

    def _backward(self, batch: Any) -> Tensor:
        generator = torch.Generator(device=self.device)
        generator.manual_seed(hash((self.config.seed, self.rank, self.position)) & (2**63 - 1))
        autocast = (
            torch.autocast(self.device.type, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()
        )
        with _seeded(self.device, generator.initial_seed()), autocast:
            loss = self.loss(batch, generator=generator) / self.config.accumulation
        loss.backward()
        self.position += 1
        return loss.detach()

    def _apply(self, rate: float, *, finite: bool) -> None:
        self.step += 1
        self.failures = 0 if finite else self.failures + 1
        if self.failures >= _LAST_STRAW:
            raise NotLearning(
                f"the loss was not a finite number for {_LAST_STRAW} updates in a row, the last at step {self.step}; "
                "look at the data for infinite values, or lower the learning rate"
            )
        if not finite:
            return
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        averaged = [(self.ema[name], one) for name, one in self.model.named_parameters() if name in self.ema]
        if averaged:
            get_ema_multi_avg_fn(decay)(*zip(*averaged, strict=True), None)

    def _is_over(self) -> bool:
        if self.step >= self.config.steps:
            return True
        minutes = self.config.minutes
        return minutes is not None and _any_process(self.elapsed_s >= 60 * minutes, self.world, self.device)

    def _left(self, seconds: float) -> float:
        by_steps = (self.config.steps - self.step) * seconds
        if self.config.minutes is None:
            return by_steps
        return max(0.0, min(by_steps, 60 * self.config.minutes - self.elapsed_s))

    def _resume(self, state: TrainState) -> None:
        if state.optimiser:
            # a state of another kind of device names another kernel
            groups = [{**group, "fused": self.optimiser.defaults["fused"]} for group in state.optimiser["param_groups"]]
            self.optimiser.load_state_dict({"state": _whole(state.optimiser["state"]), "param_groups": groups})
            for parameter, moments in self.optimiser.state.items():
                moments.update({name: _laid_out(value, parameter) for name, value in moments.items()})
        self.step, self.position, self.spent = state.step, state.position, state.elapsed_s


def _optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = True if all(parameter.is_cuda for parameter in trained) else None
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)


def _start_of_average(model: nn.Module, state: TrainState | None) -> dict[str, Tensor]:
    """Return what the average begins with; buffers are kept as they are, so that it is a whole state."""
    present = model.state_dict()
    if state is not None and state.ema:
        return {
            name: _laid_out(tensor.clone().to(present[name].device), present[name])
            for name, tensor in state.ema.items()
        }
    return {name: tensor.detach().clone() for name, tensor in present.items()}


def _whole(content: Any) -> Any:
    """Return a copy in the host's memory, with every tensor whole and detached: a GPU may have no room for another."""
    if isinstance(content, Tensor):
        return _full(content).detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {name: _whole(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_whole(value) for value in content]
    return content


def _full(tensor: Tensor) -> Tensor:
    """Return a tensor that FSDP spread over processes as one; all of them have to ask."""
    return cast(Tensor, tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor spread over processes as FSDP spread another of its shape."""
    if not hasattr(like, "full_tensor") or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements)


class _LossOf(nn.Module):
    """Makes ``loss`` the forward pass, which is what DDP and FSDP hook into."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, *, generator: torch.Generator) -> Tensor:
        loss: Any = self.model.loss
        return loss(batch, generator=generator)


def _spread_over_processes(model: nn.Module, parallel: str) -> nn.Module:
    wrapped = _LossOf(model)
    if parallel == "ddp":
        return nn.parallel.DistributedDataParallel(wrapped)
    if parallel == "fsdp":
        from torch.distributed.fsdp import fully_shard

        # one block is whole at a time: what a ModuleList holds is called one after the other
        for layers in [part for part in model.modules() if isinstance(part, nn.ModuleList)]:
            for layer in layers:
                fully_shard(layer)
        return cast(nn.Module, fully_shard(wrapped))
    return wrapped


def _ranks() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _any_process(claim: bool, world: int, device: torch.device) -> bool:
    """Return whether one process says so, so that all do the same."""
    if world == 1:
        return claim
    vote = torch.tensor([float(claim)], device=device)
    torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MAX)
    return bool(vote.item())


@contextmanager
def _tensor_cores(device: torch.device) -> Iterator[None]:
    """Let a GPU round the factors of float32 products to TF32 meanwhile; a CPU's products stay as they are."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what is drawn without a generator, as dropout does, and give the caller's random state back."""
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards, device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        for card in cards:
            torch.cuda.default_generators[card.index].manual_seed(seed)
        yield


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, dict):
        return {name: _moved(part, device) for name, part in batch.items()}
    if device.type == "cuda" and hasattr(batch, "pin_memory") and not getattr(batch, "is_cuda", False):
        # copied behind the step that runs, while this thread prepares the next
        return batch.pin_memory().to(device, non_blocking=True)
    if hasattr(batch, "to"):
        return batch.to(device)
    return batch


def _taken(ready: queue.Queue[Any]) -> Any:
    found = ready.get()
    if isinstance(found, Exception):
        raise found
    return found


def _drain(ready: queue.Queue[Any]) -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return


def shortened(config: TrainConfig, share: float) -> TrainConfig:
    """Return a config of a share of the steps and minutes.

    Examples
    --------
    >>> shortened(TrainConfig(steps=100, minutes=10), 0.5).minutes
    5.0
    """
    minutes = config.minutes and config.minutes * share
    return replace(config, steps=max(1, round(config.steps * share)), minutes=minutes)
