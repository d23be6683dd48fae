"""Run rivals by turns in one process, so that what else the machine does hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def by_turns(rivals: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Return wall seconds of each rival in each round; each runs once before, unmeasured."""
    for run in rivals.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {name: np.array(found) for name, found in seconds.items()}


def ratio(slow: np.ndarray, fast: np.ndarray) -> float:
    """Return how much faster `fast` is: the median of the rounds' ratios."""
    return float(np.median(slow / fast))
