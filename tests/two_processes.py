"""What `test_training_distributed` starts under torchrun: ``two_processes.py FOLDER`` trains small models in several ways.

Each process writes its states to ``FOLDER/<way>-<rank>``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from series_cases import SMALL, series
from torch import Tensor, nn

from models.checkpoint import Checkpoint, Subject, save_checkpoint
from models.earthpt import EarthPT
from models.tokens import Tokens
from models.training import Batches, TrainConfig, TrainState, fit
from storage.location import resolve

LINE = TrainConfig(steps=12, learning_rate=0.05, warmup_steps=3, ema_decay=0.9, seed=5)
SERIES = TrainConfig(steps=6, learning_rate=2e-3, warmup_steps=2, ema_decay=0.9, seed=5, checkpoint_every=4)


class Line(nn.Module):
    """Predicts the next value of a series from this one, without drawing anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def loss(self, batch: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the mean square error."""
        return (self.layer(batch[:, :1]) - batch[:, 1:]).square().mean()


@dataclass(frozen=True)
class Pairs:
    """Neighbours in a series; `together` positions are one batch."""

    together: int = 1

    def at(self, position: int) -> Tensor:
        """Return (together x 16, 2)."""
        return torch.cat([self._part(self.together * position + part) for part in range(self.together)])

    def tokens(self, batch: Tensor) -> int:
        """Return how many values there are."""
        return batch.numel()

    def _part(self, number: int) -> Tensor:
        draw = torch.Generator().manual_seed(number)
        first = torch.randn((16, 1), generator=draw)
        return torch.cat([first, 0.8 * first + torch.randn((16, 1), generator=draw)], dim=1)


@dataclass(frozen=True)
class MadeUp:
    """Made-up pixel series."""

    def at(self, position: int) -> Tokens:
        """Return four of them."""
        return series(count=4, seed=position)

    def tokens(self, batch: Tokens) -> int:
        """Return how many looks there are."""
        return int(batch.valid.sum())


def keep(folder: Path, way: str, state: TrainState, config: TrainConfig) -> None:
    """Write what this process has."""
    place = resolve(folder / f"{way}-{torch.distributed.get_rank()}")
    save_checkpoint(place, Checkpoint(state), Subject(config, "test", {}, {}))


def train(folder: Path, way: str, model: nn.Module, batches: Batches, config: TrainConfig) -> None:
    """Train at one go, and where it can be stopped, once more from where it stood before its end."""
    kept: list[TrainState] = []
    keep(folder, way, fit(model, batches, config, checkpoint=lambda state: kept.append(state)), config)
    if kept:
        again = fit(EarthPT(SMALL), batches, config, kept[0])
        keep(folder, f"{way}-resumed", again, config)


def main() -> None:
    """Train in all ways."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    folder = Path(sys.argv[1])
    train(folder, "line-ddp", Line(), Pairs(), replace(LINE, parallel="ddp"))
    train(folder, "line-accumulated", Line(), Pairs(), replace(LINE, parallel="ddp", accumulation=3))
    for parallel in ("ddp", "fsdp"):
        train(folder, f"series-{parallel}", EarthPT(SMALL), MadeUp(), replace(SERIES, parallel=parallel))
    # one process alone has had enough: all end at the same step
    rank = torch.distributed.get_rank()
    config = replace(LINE, parallel="ddp", checkpoint_every=5)
    keep(folder, "line-ended", fit(Line(), Pairs(), config, checkpoint=lambda _: rank == 1), config)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
