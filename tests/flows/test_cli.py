"""The command line: help at once, errors in one line, plans without writing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from factories import Archive
from ingest_cases import ingest, request_of
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

from flows.cli import app, main
from tasks.earth.grid import read_area

GRID = GeoBox((64, 64), Affine(10, 0, 614_400, 0, -10, 5_703_680), "EPSG:32630")
COMMANDS = (
    "simulate",
    "ingest",
    "redrive",
    "train",
    "map",
    "backfill",
    "change",
    "forecast",
    "embed",
    "run",
    "verify",
    "labels",
    "sample",
    "evaluate",
    "status",
    "plan",
    "gc",
    "up",
)
COMMANDS += ("import-weights", "export", "profiles", "generate", "inpaint", "transfer", "interpolate")


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
    ("change", "message", "code"),
    [
        ({"aoi": "1,2,3"}, "--aoi 1,2,3", 2),
        ({"start": "2022-01-01"}, "lies after", 2),
        ({"start": "yesterday"}, "start", 2),
        ({"bands": "B04,B99"}, "B99", 2),
        ({"dask": "somewhere"}, "neither local:N nor an address", 2),
        ({"crs": "EPSG:4326"}, "EPSG:4326", 2),
        ({"catalog": "/nowhere/catalog.json"}, "/nowhere/catalog.json", 1),
        ({"warehouse": "ftp://somewhere/x"}, "ftp", 1),
        ({"warehouse": ""}, "no name", 1),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
    code: int,
) -> None:
    arguments = ingest_arguments(archive, tmp_path, "--dry-run")
    for name, value in change.items():
        arguments += [f"--{name}", value]
    monkeypatch.setattr(sys, "argv", ["canopus", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr().err.strip()
    assert stopped.value.code == code
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 1


def test_bands_are_taken_in_any_case_and_with_spaces(archive: Archive, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*ingest_arguments(archive, tmp_path, "--dry-run"), "--bands", "b04, b08"])
    assert result.exit_code == 0, result.output
    assert "2 new" in result.output


def test_a_plan_counts_only_the_dates_that_were_asked_for(archive: Archive, tmp_path: Path) -> None:
    ingest(request_of(archive.catalog, tmp_path / "warehouse", area=read_area(area()), bands=("B04", "B08")))
    arguments = [*ingest_arguments(archive, tmp_path, "--dry-run"), "--start", "2021-05-04"]
    result = CliRunner().invoke(app, arguments)
    assert "0 new, 1 skip, 0 recompute dates, 0.0 MB" in result.output


def test_a_catalogue_without_an_answer_says_so(archive: Archive, tmp_path: Path) -> None:
    arguments = [*ingest_arguments(archive, tmp_path, "--dry-run"), "--start", "2021-08-01"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "lists no item of sentinel-2-l2a here from 2021-08-01 to 2021-12-31" in result.output


def test_a_warehouse_that_is_a_file_is_one_line(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*ingest_arguments(archive, tmp_path), "--warehouse", str(archive.catalog)]
    monkeypatch.setattr(sys, "argv", ["canopus", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert (
        capsys.readouterr().err.strip() == f"canopus: --warehouse {archive.catalog} cannot be written: Not a directory"
    )


def test_a_server_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANOPUS_PREFECT_API", "http://127.0.0.1:9/api")
    monkeypatch.setattr(sys, "argv", ["canopus", "map", "--aoi", area(), "--warehouse", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("canopus: CANOPUS_PREFECT_API=http://127.0.0.1:9/api: no server answers there")


@pytest.mark.slow
def test_an_error_inside_a_run_is_one_line_too(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "canopus"
    arguments = ("map", "--aoi", area(), "--warehouse", str(tmp_path / "warehouse"))
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "no cube of a UTM zone holds any of the area" in line


def test_the_plan_of_the_main_job_names_each_step_and_writes_nothing(archive: Archive, tmp_path: Path) -> None:
    place = {"aoi": area(), "warehouse": str(tmp_path / "warehouse")}
    chain = {
        "ingest": {"catalog": str(archive.catalog), "start": "2021-01-01", "bands": ["B04", "B08"], **place},
        "train": {"labels": {"path": "woods.gpkg"}, **place},
        "map": place,
    }
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(chain))
    shown = CliRunner().invoke(app, ["plan", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "2 new, 0 skip, 0 recompute" in shown.output
    assert "floor on woods.gpkg" in shown.output
    assert "products/canopy" in shown.output
    assert CliRunner().invoke(app, ["run", str(config), "--dry-run"]).output == shown.output
    plan = json.loads(CliRunner().invoke(app, ["plan", str(config), "--json"]).output)
    assert plan["ingest"]["tiles"][0]["actions"] == {"new": 2}
    assert not (tmp_path / "warehouse").exists()


def test_gc_shows_and_deletes_only_when_told(archive: Archive, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    ingest(request_of(archive.catalog, warehouse, area=read_area(area()), bands=("B04", "B08")))
    left = warehouse / "staging" / "canopy-20210506-0123456789ab"
    left.mkdir(parents=True)
    (left / "zarr.json").write_text("{}")
    arguments = ["gc", "--warehouse", str(warehouse), "--older-than", "0", "--json"]
    shown = json.loads(CliRunner().invoke(app, arguments).output)
    assert left.exists()
    assert shown["folders"] == ["staging/canopy-20210506-0123456789ab"]
    assert shown["cubes"][0]["states"] == 2
    done = json.loads(CliRunner().invoke(app, [*arguments, "--delete"]).output)
    assert done["cubes"][0]["states"] == 2
    assert done["cubes"][0]["bytes"] > 0
    assert not left.exists()
    assert json.loads(CliRunner().invoke(app, arguments).output)["cubes"][0]["states"] == 0


def test_gc_of_an_object_store_leaves_a_day_to_writers(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["canopus", "gc", "--warehouse", "s3://bucket/x", "--older-than", "0"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "at least 1 day" in capsys.readouterr().err


def test_status_of_an_empty_warehouse_is_empty(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--warehouse", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output) == {key: [] for key in ("cubes", "sky", "models", "products", "profiles", "runs")}


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
