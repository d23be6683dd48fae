"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from servers.object_store import object_store, s3_warehouse

__all__ = ["object_store", "s3_warehouse"]

# a busy machine is no failure, and a change fails by itself and not by what was drawn: HYPOTHESIS_PROFILE=wander draws anew
settings.register_profile("canopus", deadline=None, derandomize=True)
settings.register_profile("wander", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "canopus"))

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real recorded data, beside the checkout or where $CANOPUS_SHARED says."""
    folder = Path(os.environ.get("CANOPUS_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set CANOPUS_SHARED to the folder that holds it")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks in tests are tiny: one thread each, or they spend their time waiting for each other."""
    torch.set_num_threads(1)
