"""Prefect task: the generated archive."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact
from tasks.earth.simulate import SimulateConfig
from tasks.earth.simulate.whole import make_archive


@task(name="generate archive", cache_policy=NO_CACHE, persist_result=False)
def generate_archive(folder: Path, *, seed: int, size_km: float, years: float) -> list[str]:
    """Make the generated archive, unless it stands already."""
    with ProgressArtifact("simulate", folder.name) as progress:

        def tell(done: int, total: int) -> None:
            progress(folder.name, done, total)

        return make_archive(folder, SimulateConfig(seed=seed, size_km=size_km, years=years), on_progress=tell)
