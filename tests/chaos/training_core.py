"""A training to be killed: ``training_core.py WAREHOUSE`` says ``update N`` after each update."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from training_cases import TRAIN, request_of

from tasks.earth.earthpt_training import train_earthpt

STEPS = 40


def say(name: str, done: int, total: int, words: str) -> None:
    """Tell how far it has come."""
    sys.stdout.write(f"update {done}\n")
    sys.stdout.flush()


def main() -> None:
    """Train, or go on."""
    torch.set_num_threads(1)
    train = replace(TRAIN, steps=STEPS, checkpoint_every=7, log_every=1)
    trained = train_earthpt(request_of(Path(sys.argv[1]), train=train), say)
    sys.stdout.write(f"version {trained.reference.version}\n")


if __name__ == "__main__":
    main()
