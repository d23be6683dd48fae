"""Pure functions worked out by several processes side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from joblib import Parallel, delayed, parallel_config

S = TypeVar("S")
T = TypeVar("T")


def side_by_side(function: Callable[[S], T], items: Iterable[S], *, processes: int | None = None) -> Iterator[T]:
    """Yield what a function gives for each item, whichever is ready first.

    Parameters
    ----------
    function : callable
        Of a module, so that other processes can import it; with one item, or one process, it is called here.
    items : iterable
        Its arguments.
    processes : int, optional
        As many at most, of one thread each; by default one for each CPU.
    """
    asked = list(items)
    count = min(len(asked), processes or os.cpu_count() or 1)
    if count < 2:
        yield from map(function, asked)
        return
    with parallel_config("loky", n_jobs=count, inner_max_num_threads=1):
        yield from Parallel(return_as="generator_unordered")(delayed(function)(item) for item in asked)
