"""The command line: help at once, errors in one line, plans without writing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from factories import Archive
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

from flows.cli import app, main

GRID = GeoBox((64, 64), Affine(10, 0, 614_400, 0, -10, 5_703_680), "EPSG:32630")
COMMANDS = (
    "simulate",
    "ingest",
    "redrive",
    "train",
    "map",
    "forecast",
    "run",
    "verify",
    "sample",
    "evaluate",
    "status",
    "up",
)
COMMANDS += ("import-weights", "export")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Two dates of two bands."""
    archive = Archive(tmp_path / "archive")
    for day in ("2021-05-01", "2021-05-06"):
        scl = np.full((64, 64), 4, dtype=np.uint8)
        bands = {"B04": (np.full((64, 64), 400, np.uint16), GRID), "B08": (np.full((64, 64), 3000, np.uint16), GRID)}
        archive.add(f"S2A_30UXC_{day.replace('-', '')}_0_L2A", f"{day}T11:00:00Z", {**bands, "SCL": (scl, GRID)})
    return archive


def area() -> str:
    west, south, east, north = GRID[16:48, 16:48].geographic_extent.boundingbox.bbox
    return f"{west},{south},{east},{north}"


def ingest_arguments(archive: Archive, tmp_path: Path, *more: str) -> list[str]:
    named = {"catalog": archive.catalog, "aoi": area(), "start": "2021-01-01", "end": "2021-12-31"}
    named |= {"warehouse": tmp_path / "warehouse", "bands": "B04,B08"}
    return ["ingest", *(part for name, value in named.items() for part in (f"--{name}", str(value))), *more]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    words = (
        CliRunner().invoke(app, ["train", "floor", "--help"], env={"COLUMNS": "200"}) if command == "train" else result
    )
    assert "Example: canopus" in words.output


def test_help_does_not_load_heavy_packages() -> None:
    code = "import sys, flows.cli; print([m for m in ('prefect', 'torch', 'xarray', 'rasterio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_dry_run_says_what_is_new_and_writes_nothing(archive: Archive, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ingest_arguments(archive, tmp_path, "--dry-run", "--json"))
    assert result.exit_code == 0, result.output
    plan = json.loads(result.output.splitlines()[-1])
    assert [date["action"] for date in plan["tiles"][0]["dates"]] == ["new", "new"]
    assert plan["bytes"] == 2 * (2 * 2 + 1) * 256 * 256
    assert not (tmp_path / "warehouse").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aoi": "1,2,3"}, "--aoi 1,2,3"),
        ({"start": "2022-01-01"}, "lies after"),
        ({"start": "yesterday"}, "start"),
        ({"bands": "B04,B99"}, "B99"),
        ({"catalog": "/nowhere/catalog.json"}, "/nowhere/catalog.json"),
        ({"warehouse": "ftp://somewhere/x"}, "ftp"),
        ({"crs": "EPSG:4326"}, "EPSG:4326"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    arguments = ingest_arguments(archive, tmp_path, "--dry-run")
    for name, value in change.items():
        arguments += [f"--{name}", value]
    monkeypatch.setattr(sys, "argv", ["canopus", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr().err.strip()
    assert stopped.value.code == 1
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 1


def test_status_of_an_empty_warehouse_is_empty(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--warehouse", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output) == {"cubes": [], "models": [], "products": [], "runs": []}


def test_redrive_of_an_unknown_run_lists_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["canopus", "redrive", "ingest-2020", "--warehouse", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "no run named 'ingest-2020'" in capsys.readouterr().err


def test_verify_of_nothing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["canopus", "verify", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        main()
    assert "nothing is published" in capsys.readouterr().err
