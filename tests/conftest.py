"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from servers.object_store import object_store, s3_warehouse

__all__ = ["object_store", "s3_warehouse"]

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real recorded data, beside the checkout or where $CANOPUS_SHARED says."""
    folder = Path(os.environ.get("CANOPUS_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set CANOPUS_SHARED to the folder that holds it")
    return folder
