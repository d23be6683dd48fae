"""Prefect task: pack the series of an area into a token store."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifact
from tasks.earth.tokens import PackReport, PackRequest, pack


@task(name="pack tokens", cache_policy=NO_CACHE, persist_result=False)
def pack_tokens(request: PackRequest) -> PackReport:
    """Bring a token store up to date with the cubes of an area."""
    with ProgressArtifact("tokenise", request.name) as progress:
        return pack(request, progress)
