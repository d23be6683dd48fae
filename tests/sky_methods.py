"""Methods that behave badly on some objects: real work on the others, in processes that import this file."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field

from storage.cutouts import Cutout
from tasks.errors import SourceRejected
from tasks.sky.isophotes import IsophoteMethod
from tasks.sky.profile import Profile


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
