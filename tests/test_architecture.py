"""Imports point one way: flows -> tasks -> {models, storage}; Prefect stays above the science; no torch in storage."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {"flows": {"flows", "tasks", "models", "storage"}, "tasks": {"tasks", "models", "storage"}}
LAYERS |= {"models": {"models"}, "storage": {"storage"}}
PACKAGES = tuple(LAYERS)


def imports_of(source: str) -> Iterator[str]:
    """Yield every module that a source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def violations(path: str, source: str) -> list[str]:
    """Return what a file at `path` imports and must not."""
    package = path.split("/")[0]
    found = []
    for module in imports_of(source):
        top = module.split(".")[0]
        if top in PACKAGES and top not in LAYERS[package]:
            found.append(f"{path} imports {module}: arrows go flows -> tasks -> models, storage")
        below_tasks = package in ("models", "storage") or path.startswith(("tasks/earth/", "tasks/sky/"))
        if top in ("prefect", "prefect_dask") and below_tasks:
            found.append(f"{path} imports {module}: Prefect stays in flows and the files of tasks")
        if top == "torch" and package == "storage":
            found.append(f"{path} imports {module}: storage knows no torch")
    return found


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_there_are_sources_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(PACKAGES)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path.relative_to(ROOT).as_posix(), path.read_text()) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("storage/cube.py", "from tasks.earth import plan"),
        ("models/forest.py", "import storage.cube"),
        ("storage/cube.py", "import torch"),
        ("tasks/earth/plan.py", "from prefect import task"),
        ("storage/cube.py", "def f():\n    import prefect"),
        ("tasks/ingest.py", "import flows.ingest"),
    ],
)
def test_a_wrong_arrow_is_found(path: str, line: str) -> None:
    assert len(violations(path, line)) == 1


def test_top_level_packages_are_exactly_four() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == set(PACKAGES)
