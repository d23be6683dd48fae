"""`canopus profiles`: plans without writing, errors in one line; the whole command, again, and redriven."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.testing.utilities import prefect_test_harness
from sky_folder_cases import GalaxyFolder, make_folder
from typer.testing import CliRunner

from flows.cli import app, main
from flows.config import make_config
from flows.config_sky import ProfilesConfig
from flows.profiles import to_request, workers_of
from tasks.errors import ConfigurationError, UsageError
from tasks.limits import HttpLimits
from tasks.sky.methods import require_sky_extra
from tasks.sky.target_columns import ColumnNames


def command(made: GalaxyFolder, warehouse: Path, *more: str) -> list[str]:
    named = {"targets": made.targets, "source": f"folder:{made.folder}", "bands": "g,r", "warehouse": warehouse}
    return ["profiles", *(part for name, value in named.items() for part in (f"--{name}", str(value))), *more]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 5)
    arguments = command(made, tmp_path / "warehouse", "--batch-size", "2", "--dry-run")
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.output.splitlines()[-1])
    assert (plan["targets"], plan["rows"], plan["merged"], plan["batches"], plan["run"]) == (5, 6, 1, 3, None)
    assert "5 targets of 6 rows, in 3 batches" in CliRunner().invoke(app, arguments).output
    assert not (tmp_path / "warehouse").exists()


@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        (("--method", "network", "--model", "mine"), "no model 'mine'", 1),
        (("--method", "isophote", "--members", "3"), "--method isophote takes no --members", 2),
        (("--method", "published"), "--method published: name its weights with --model", 1),
        (("--method", "published", "--model", "mine"), "no model 'mine'", 1),
        (("--method", "isophote", "--model", "mine"), "--method isophote takes no --model", 2),
        (("--method", "guess"), "method", 2),
        (("--time-limit", "0"), "time_limit_s", 2),
        (("--size-arcsec", "30"), "--pixel-scale", 2),
        (("--source", "hubble"), "names no source", 1),
        (("--targets", "/nowhere.csv"), "/nowhere.csv", 1),
        (("--dask", "somewhere"), "neither local:N nor an address", 2),
        (("--geometry", "round"), "geometry", 2),
        (("--zero-point", "r=bright"), "zero_point.r", 2),
        (("--zero-point", "bright"), "name=value is expected", 2),
        (("--zero-point", "z=22.5"), "z is none of the bands g, r", 2),
        (("--columns", "right=RA"), "columns.right: there is no such setting", 2),
        (("--columns", "ra=RA"), "named together", 1),
        (("--max-empty-share", "2"), "max_empty_share", 2),
        (("--viewer-url", "here"), "viewer_url", 2),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
    code: int,
) -> None:
    arguments = command(make_folder(tmp_path, 2), tmp_path / "warehouse", "--dry-run", *more)
    monkeypatch.setattr(sys, "argv", ["canopus", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == code, said
    assert len(said) == 1
    assert message in said[0]


def test_settings_reach_the_request() -> None:
    given: dict[str, Any] = {
        "targets": "t.csv",
        "source": "sdss",
        "bands": "u, g",
        "size_pixels": 64,
        "time_limit_s": 9,
    }
    request = to_request(make_config(ProfilesConfig, {**given, "http": {"attempts": 2}, "workers": 3}))
    assert (request.bands, request.side_pixels, request.time_limit_s, request.workers) == (("u", "g"), 64, 9.0, 3)
    assert request.limits == HttpLimits(attempts=2, concurrent=4, requests_per_s=4.0)
    with pytest.raises(UsageError, match="pixels: there is no such setting"):
        make_config(ProfilesConfig, {**given, "pixels": 64})


def test_options_of_source_and_method_reach_the_request() -> None:
    given: dict[str, Any] = {
        "zero_point": "r=22.5, g=22.4",
        "columns": "ra=RAJ2000,dec=DEJ2000,id=Name",
        "geometry": "fixed",
        "max_empty_share": 0.9,
        "psf": False,
        "viewer_url": "http://localhost/viewer",
        "cache": "/somewhere",
    }
    request = to_request(make_config(ProfilesConfig, given))
    assert request.zero_points == {"r": 22.5, "g": 22.4}
    assert request.columns == ColumnNames(ra="RAJ2000", dec="DEJ2000", identifier="Name")
    assert (request.geometry, request.max_empty_share, request.psf) == ("fixed", 0.9, False)
    assert (request.viewer_url, request.cache) == ("http://localhost/viewer", "/somewhere")
    for every in ("25.1", 25.1):
        assert to_request(make_config(ProfilesConfig, {"zero_point": every})).zero_points == {"*": 25.1}


def test_one_process_measures_for_each_core_or_beside_each_worker_of_dask() -> None:
    assert workers_of(None, None) == os.cpu_count()
    assert workers_of(None, "local:4") == 1
    assert workers_of(3, "local:4") == 3


WITHOUT_SKY = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("astropy", "astroquery", "photutils", "hats", "lsdb"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import flows.profiles
print(flows.profiles.extract_profiles.name)
"""


def test_the_flow_can_be_deployed_without_the_extra_of_the_sky(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_SKY], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "extract-profiles", done.stderr


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "photutils" else object())
    with pytest.raises(ConfigurationError, match=r"photutils not installed: pip install 'canopus\[sky\]'"):
        require_sky_extra()


@pytest.fixture(scope="module")
def _prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_prefect")
@pytest.mark.parametrize("more", [(), ("--dask", "local:2")], ids=["threads", "dask"])
def test_the_command_ends_with_a_product_and_again_with_the_same(tmp_path: Path, more: tuple[str, ...]) -> None:
    made = make_folder(tmp_path, 6, kinds=("truncated", "no-object"))
    arguments = command(made, tmp_path / "warehouse", "--batch-size", "3", "--json", *more)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3, result.output
    summary = json.loads(result.output.splitlines()[-1])
    assert summary["counts"] == {"measured": 4, "outside": 0, "rejected": 2, "failed": 0}
    assert len(summary["failures"]) == 2
    assert summary["retry"] == ""
    assert Path(summary["details"]["product"]).is_file()
    assert Path(summary["details"]["pages"]).is_file()
    again = json.loads(CliRunner().invoke(app, arguments).output.splitlines()[-1])
    assert (again["run"], again["products"]) == (summary["run"], summary["products"])


@pytest.mark.slow
@pytest.mark.usefixtures("_prefect")
def test_what_failed_is_redriven(tmp_path: Path) -> None:
    made = make_folder(tmp_path, 3)
    warehouse = tmp_path / "warehouse"
    short = command(made, warehouse, "--time-limit", "0.001", "--no-pages", "--json")
    result = CliRunner().invoke(app, short)
    assert result.exit_code == 3, result.output
    summary = json.loads(result.output.splitlines()[-1])
    assert summary["counts"]["failed"] == 3
    assert all("[time-limit]" in line for line in summary["failures"])
    assert summary["retry"] == f"canopus redrive {summary['run']}"
    manifest = warehouse / "runs" / summary["run"] / "manifest.json"
    content = json.loads(manifest.read_text())
    content["request"]["time_limit_s"] = 60.0
    manifest.write_text(json.dumps(content))
    redriven = CliRunner().invoke(app, ["redrive", "latest", "--warehouse", str(warehouse), "--json"])
    assert redriven.exit_code == 0, redriven.output
    assert json.loads(redriven.output.splitlines()[-1])["counts"]["measured"] == 3
