"""The Makefile: one-line errors, an environment that is installed once, and nothing of the user's shell in a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return what make looks at, without an environment."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=checkout,
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def install(checkout: Path) -> None:
    """Put in place what the recipes leave behind; programs that tell how they were called stand for the real ones."""
    for name in ("python", "canopus"):
        program(checkout / ".venv/bin" / name, f'echo "{name} $*"', "env")
    time.sleep(0.05)
    for stamp in (".for-run", ".for-test"):
        (checkout / ".venv" / stamp).touch()


def own_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what make's recipe said; make adds the line with the target itself."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1, done.stderr
    return said[0]


def test_an_unsupported_python_is_one_line_that_says_what_to_do(checkout: Path) -> None:
    old = program(checkout / "old/python3", 'case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac')
    done = make(checkout, "run", f"PYTHON={old}")
    assert done.returncode != 0
    assert "Python 3.9.2" in own_line(done)
    assert "make PYTHON=" in own_line(done)


def test_a_missing_venv_is_one_line_that_says_what_to_do(checkout: Path) -> None:
    bare = program(checkout / "bare/python3", 'case "$*" in *ensurepip*) echo no >&2; exit 1;; esac')
    done = make(checkout, "test", f"PYTHON={bare}")
    assert done.returncode != 0
    assert "apt install python3-venv" in own_line(done)
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_one_line(checkout: Path) -> None:
    done = make(checkout, "run", f"PYTHON={checkout}/nowhere/python3")
    assert done.returncode != 0
    assert "install Python 3.11 or newer" in own_line(done)


def test_a_second_call_installs_nothing(checkout: Path) -> None:
    install(checkout)
    done = make(checkout, "run")
    assert done.returncode == 0, done.stderr
    assert "canopus run" in done.stdout
    assert "pip install" not in done.stdout


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements.lock"])
def test_a_change_of_the_dependencies_installs_again(checkout: Path, changed: str) -> None:
    install(checkout)
    later = time.time() + 5
    os.utime(checkout / changed, (later, later))
    done = make(checkout, "run")
    assert done.returncode == 0, done.stderr
    assert "python -m pip install" in done.stdout
    assert "-e . -c requirements.lock" in done.stdout


def test_the_tests_come_with_their_extras_and_need_no_second_install_for_runs(checkout: Path) -> None:
    install(checkout)
    for stamp in (".for-run", ".for-test"):
        (checkout / ".venv" / stamp).unlink()
    done = make(checkout, "test")
    assert "-e .[sky,test] -c requirements.lock" in done.stdout
    assert (checkout / ".venv/.for-run").exists()


def test_a_run_sees_nothing_of_the_users_prefect_and_python(checkout: Path) -> None:
    install(checkout)
    stale = {
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "PREFECT_PROFILE": "p",
        "PREFECT_HOME": "/h",
        "PYTHONPATH": "/p",
    }
    done = make(checkout, "run", **stale, CANOPUS_ARCHIVE_S3_ANONYMOUS="1")
    seen = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert not seen & set(stale)
    assert "CANOPUS_ARCHIVE_S3_ANONYMOUS" in seen


def test_quick_tests_and_slow_ones_are_disjoint_and_the_kill_tests_apart(checkout: Path) -> None:
    install(checkout)
    selections = {target: make(checkout, target).stdout.splitlines()[0] for target in ("test", "slow", "chaos")}
    assert "-m not slow and not chaos" in selections["test"]
    assert "-m slow and not chaos" in selections["slow"]
    assert "-m chaos" in selections["chaos"]


def test_cleaning_keeps_what_runs_made(checkout: Path) -> None:
    install(checkout)
    for name in ("warehouse/earth", "archive", "build", "flows/__pycache__"):
        (checkout / name).mkdir(parents=True)
    make(checkout, "clean")
    assert (checkout / "warehouse/earth").exists()
    assert (checkout / "archive").exists()
    assert (checkout / ".venv").exists()
    assert not (checkout / "build").exists()
    assert not (checkout / "flows/__pycache__").exists()


def test_ci_calls_what_people_call() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert [line for line in script.splitlines() if line.startswith("stage make")] == [
        "stage make lint",
        "stage make test",
        "stage make slow",
    ]
