"""Cutouts through a method, in processes that may be killed: many at once where the method can, one by one where that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from storage.cutouts import Cutout
from tasks.errors import SourceError, SourceRejected
from tasks.sky.profile import ManyAtOnce, Profile, ProfileMethod
from tasks.sky.workers import WorkerFailed, WorkerPool

SOFT = 0.8
"""Share of an object's time after which a method is asked to end by itself."""
PIECE_BYTES = 64 * 2**20
"""Most bytes of the cutouts that go to a process at once."""
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What came of a cutout.

    Parameters
    ----------
    profiles : tuple of Profile
        One per band; empty where an error stopped it.
    error : SourceError or WorkerFailed, optional
        What stopped it.
    seconds : float
        Of work: of cutouts that were measured at once, each one's share.
    """

    profiles: tuple[Profile, ...] = ()
    error: SourceError | WorkerFailed | None = None
    seconds: float = 0.0


def pieces_of(sizes: Iterable[int], method: ProfileMethod, *, workers: int) -> Iterator[slice]:
    """Yield runs of cutouts that go to a process at once: as many as the method takes, and work for every process.

    Parameters
    ----------
    sizes : iterable of int
        Bytes of each cutout.
    method : ProfileMethod
    workers : int
        Processes.
    """
    held = list(sizes)
    most = min(method.together, max(1, len(held) // workers)) if isinstance(method, ManyAtOnce) else 1
    first, size = 0, 0
    for number, one in enumerate(held):
        if number > first and (number - first == most or size + one > PIECE_BYTES):
            yield slice(first, number)
            first, size = number, 0
        size += one
    if held:
        yield slice(first, len(held))


def measure_cutouts(
    pool: WorkerPool, method: ProfileMethod, cutouts: Sequence[Cutout], *, limits_s: Sequence[float]
) -> list[Outcome]:
    """Return what came of each cutout.

    Measured at once, all have the time of one; where that is not enough, or anything goes wrong, each is measured alone with
    its own time, so that one costs no other. What a method is unsure of and another one should look at is measured alone, too.

    Parameters
    ----------
    pool : WorkerPool
        Whose processes have called `warm_up`.
    method : ProfileMethod
    cutouts : sequence of Cutout
    limits_s : sequence of float
        Time of each.
    """
    if len(cutouts) > 1 and isinstance(method, ManyAtOnce):
        try:
            found, seconds = pool.call(timed, _measure_many, method, cutouts, limit_s=min(limits_s))
        except (SourceError, WorkerFailed):
            pass
        else:
            each = [_outcome(one, seconds / len(cutouts)) for one in found]
            looks = zip(each, cutouts, limits_s, strict=True)
            return [_second_look(pool, method, *look) for look in looks]
    return [_alone(pool, method, cutout, limit_s) for cutout, limit_s in zip(cutouts, limits_s, strict=True)]


def _alone(pool: WorkerPool, method: ProfileMethod, cutout: Cutout, limit_s: float) -> Outcome:
    try:
        profiles, seconds = pool.call(timed, measure, method, cutout, SOFT * limit_s, limit_s=limit_s)
    except (SourceError, WorkerFailed) as error:
        return Outcome(error=error)
    return Outcome(profiles, seconds=seconds)


def _outcome(found: tuple[Profile, ...] | SourceRejected, seconds: float) -> Outcome:
    return Outcome(error=found, seconds=seconds) if isinstance(found, SourceRejected) else Outcome(found, None, seconds)


def _second_look(pool: WorkerPool, method: ManyAtOnce, first: Outcome, cutout: Cutout, limit_s: float) -> Outcome:
    """Return what another method says of what a method is unsure of; its own answer where the other has none."""
    other = None if first.error is not None else method.second_method(first.profiles)
    if other is None:
        return first
    again = _alone(pool, other, cutout, max(1.0, limit_s - first.seconds))
    if isinstance(again.error, SourceRejected):
        again = Outcome(first.profiles)
    return Outcome(again.profiles, again.error, first.seconds + again.seconds)


def measure(method: ProfileMethod, cutout: Cutout, time_limit_s: float) -> tuple[Profile, ...]:
    """Return what a method gives: in a process, which has to import what it calls."""
    return method.measure(cutout, time_limit_s=time_limit_s)


def _measure_many(method: ManyAtOnce, cutouts: Sequence[Cutout]) -> list[tuple[Profile, ...] | SourceRejected]:
    return method.measure_many(cutouts)


def timed(function: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Return what a function gives, and the seconds that it took."""
    begun = time.perf_counter()
    return function(*arguments), time.perf_counter() - begun


def warm_up() -> None:
    """Import what measuring needs: once in each process, before the clock runs."""
    import tasks.sky.gallery
    import tasks.sky.isophotes
    import tasks.sky.network_profiles
    import tasks.sky.prepare
    import tasks.sky.qa_plots  # noqa: F401
