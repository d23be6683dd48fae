"""What a piece of work cost: energy of the processor packages where the machine tells it, and hours of CPU and GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RAPL = Path("/sys/class/powercap")
"""Running Average Power Limit: energy counters of whole packages, whoever uses them; often readable by root alone."""


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Parameters
    ----------
    cpu_hours, gpu_hours : float
        Of this process: time on all its cores, and wall clock times its GPUs.
    package_joules : float or None
        Of the processor packages, other programs included; None where the machine does not say.
    """

    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    package_joules: float | None = None

    def __add__(self, other: Cost) -> Cost:
        """Return both together; energy only where both know it."""
        known = self.package_joules is not None and other.package_joules is not None
        joules = (self.package_joules or 0.0) + (other.package_joules or 0.0) if known else None
        return Cost(self.cpu_hours + other.cpu_hours, self.gpu_hours + other.gpu_hours, joules)

    def to_json(self) -> dict[str, float | None]:
        """Return it as JSON types, to four digits."""
        return {name: None if value is None else float(f"{value:.4g}") for name, value in asdict(self).items()}


class Meter:
    """Counts from when it is made.

    Parameters
    ----------
    gpus : int
        That this process uses.
    counters : Path
        Where the packages' counters are.
    """

    def __init__(self, *, gpus: int = 0, counters: Path = RAPL) -> None:
        self._gpus, self._counters = gpus, counters
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._last = _read(counters)
        self._joules = 0.0

    def read(self) -> Cost:
        """Return what was spent so far; ask every few minutes at least, since counters start again at their end."""
        now = _read(self._counters)
        for name, (microjoules, turn) in now.items():
            before = self._last.get(name, (microjoules, turn))[0]
            self._joules += ((microjoules - before) % turn) * 1e-6
        self._last = now
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return Cost(cpu / 3600, self._gpus * wall / 3600, self._joules if now else None)


def _read(counters: Path) -> Mapping[str, tuple[int, int]]:
    """Return the energy in microjoules of each package, and where its counter starts again."""
    found = {}
    for folder in sorted(counters.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:  # parts of a package are counted in it
            continue
        try:
            energy = int((folder / "energy_uj").read_text())
            found[folder.name] = energy, int((folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
    return found
