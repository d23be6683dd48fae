"""A Sentinel-2 L2A archive with known truth: COGs and a static STAC catalogue, from a seed.

Examples
--------
>>> from tasks.earth.simulate import SimulateConfig, simulate_archive
>>> summary = simulate_archive("archive", SimulateConfig(size_km=1.0, years=1.0))  # doctest: +SKIP
>>> summary.cases["corner-only"]  # doctest: +SKIP
('S2A_30UXC_20210412_0_L2A', 'S2B_30UXC_20210814_0_L2A')
"""

from __future__ import annotations

from tasks.earth.simulate.archive import ArchiveSummary, simulate_archive
from tasks.earth.simulate.config import COLLECTION_ID, SimulateConfig
from tasks.earth.simulate.scene import SimulatedDate, World, simulate_date

__all__ = [
    "COLLECTION_ID",
    "ArchiveSummary",
    "SimulateConfig",
    "SimulatedDate",
    "World",
    "simulate_archive",
    "simulate_date",
]
