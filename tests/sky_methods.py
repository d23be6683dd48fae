"""Methods that behave badly on some objects: real work on the others, in processes that import this file."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from storage.cutouts import Cutout
from tasks.errors import SourceRejected
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.profile import Profile


def import_methods() -> None:
    """Do nothing: a process that calls it has imported this file."""


@dataclass(frozen=True)
class BadlyBehaved:
    """Isophotes, but for named objects: one hangs, one crashes, one raises, one refuses.

    Parameters
    ----------
    behaviour : dict of str to str
        ``hang``, ``crash``, ``raise`` or ``refuse`` by object id.
    """

    behaviour: dict[str, str] = field(default_factory=dict)
    name: str = "isophote"

    def measure(self, cutout: Cutout, *, time_limit_s: float) -> tuple[Profile, ...]:
        """Return isophotes, or behave badly."""
        kind = self.behaviour.get(cutout.object_id)
        if kind == "hang":
            time.sleep(600)
        if kind == "crash":
            ctypes.string_at(0)
        if kind == "raise":
            raise ZeroDivisionError("a bug of ours")
        if kind == "refuse":
            raise SourceRejected("nothing here", reason="no-object")
        return IsophoteMethod().measure(cutout, time_limit_s=time_limit_s)


@dataclass(frozen=True)
class BadlyBehavedTogether(BadlyBehaved):
    """The same for many at once, which takes as long and ends as badly as the worst of them.

    Parameters
    ----------
    unsure : tuple of str
        Objects that `other` is to look at.
    other : BadlyBehaved
    """

    unsure: tuple[str, ...] = ()
    other: BadlyBehaved = field(default_factory=BadlyBehaved)
    together: int = 8

    def measure_many(self, cutouts: Sequence[Cutout]) -> list[tuple[Profile, ...] | SourceRejected]:
        """Return isophotes of each, or behave badly."""
        found: list[tuple[Profile, ...] | SourceRejected] = []
        for cutout in cutouts:
            try:
                profiles = self.measure(cutout, time_limit_s=60)
                found.append(tuple(replace(profile, method="together") for profile in profiles))
            except SourceRejected as error:
                found.append(error)
        return found

    def second_method(self, found: tuple[Profile, ...]) -> BadlyBehaved | None:
        """Return `other` for the objects that are named."""
        return self.other if found[0].object_id in self.unsure else None
