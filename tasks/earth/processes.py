"""The processes that train together: one alone, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from tasks.errors import ConfigurationError

_PATIENCE = timedelta(hours=2)
"""How long the others wait while one packs series or writes."""
T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """One process among those that train together.

    Parameters
    ----------
    rank, size : int
        Which one this is, of how many; rank 0 writes.
    device : torch.device
        That this one trains on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Return whether this is the process that writes."""
        return self.rank == 0

    def shared(self, value: T) -> T:
        """Return what the leading process has; the others wait for it."""
        if self.size == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, src=0)
        return held[0]

    def total(self, value: float) -> float:
        """Return the sum over all processes."""
        if self.size == 1:
            return value
        held = torch.tensor([value], device=self.device, dtype=torch.float64)
        torch.distributed.all_reduce(held)
        return float(held)


@contextmanager
def team(parallel: str, device: str | None) -> Iterator[Team]:
    """Join the processes that train together, and leave them at the end.

    Parameters
    ----------
    parallel : str
        ``none``, ``ddp`` or ``fsdp``.
    device : str or None
        ``cpu`` or ``cuda``; None for a GPU where there is one.

    Raises
    ------
    ConfigurationError
        Where torchrun and `parallel` do not go together, or there is no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    started = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    if parallel == "none" and started and size > 1:
        raise ConfigurationError(f"torchrun started {size} processes: say --parallel ddp or --parallel fsdp")
    if parallel != "none" and not started:
        raise ConfigurationError(
            f"--parallel {parallel} wants several processes: "
            f"torchrun --nproc-per-node 2 -m flows.cli train earthpt ... --parallel {parallel}"
        )
    found = choose_device(device, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    if parallel == "none":
        yield Team(0, 1, found)
        return
    torch.distributed.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Team(torch.distributed.get_rank(), torch.distributed.get_world_size(), found)
    finally:
        torch.distributed.destroy_process_group()


def choose_device(name: str | None = None, *, local_rank: int = 0) -> torch.device:
    """Return a device by name: ``cpu``, ``cuda``, or None for a GPU where there is one.

    Raises
    ------
    ConfigurationError
        Where there is no such device.
    """
    if name == "cpu" or (name is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigurationError(f"--device {name}: torch sees no GPU here; leave the option out, or say --device cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
