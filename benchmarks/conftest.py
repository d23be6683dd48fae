"""Benchmarks run small and once as tests; `make bench` runs them at full size."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def full_size(request: pytest.FixtureRequest) -> bool:
    """Return whether this is `make bench` and not a test run."""
    return bool(request.config.getoption("benchmark_enable"))
