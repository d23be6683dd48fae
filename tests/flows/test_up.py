"""The service on loopback: everything comes up, a run completes, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from affine import Affine
from factories import Archive
from odc.geo.geobox import GeoBox

from flows.cli import main
from flows.up import Service, deployments, serve
from tasks.errors import ConfigurationError

GRID = GeoBox((64, 64), Affine(10, 0, 614_400, 0, -10, 5_703_680), "EPSG:32630")
START_S, RUN_S, STOP_S = 400, 300, 120
SQLALCHEMY = tuple(int(part) for part in version("sqlalchemy").split(".")[:2])


def free_pair() -> int:
    """Return a port that is free, and so is the next."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def wait_until(claim: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(1)


@dataclass
class Up:
    """A running `canopus up`."""

    process: subprocess.Popen[str]
    port: int
    warehouse: Path
    output: Path

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{path}", data=data, headers={"Content-Type": "application/json"}
        )
        # while SQLite's one writer is busy the answer is 503: again, as Prefect's own clients do
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(1)
        raise AssertionError(f"{path}: 503 twenty times")

    def run(self, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Trigger a deployment and return its run when it has ended."""
        found = self.call(f"/deployments/name/{deployment}")
        made = self.call(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        look = partial(self.call, f"/flow_runs/{made['id']}")
        wait_until(lambda: look()["state"]["type"] in ended, RUN_S, f"{deployment} ends; {self.logs()}")
        return dict(look())

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in (self.warehouse / ".prefect-server/logs").glob("*.log"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    port, warehouse, output = free_pair(), folder / "warehouse", folder / "output"
    # what a user's shell may hold must not matter
    stale = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "PREFECT_HOME": str(folder / "elsewhere")}
    code = "from flows.cli import main; main()"
    command = [sys.executable, "-c", code, "up", "--warehouse", str(warehouse), "--port", str(port)]
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | stale, text=True)
    running = Up(process, port, warehouse, output)
    try:
        wait_until(lambda: "Ctrl-C" in output.read_text() or process.poll() is not None, START_S, "everything is up")
        assert process.poll() is None, output.read_text()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Two dates of two bands."""
    archive = Archive(tmp_path_factory.mktemp("archive") / "archive")
    for day in ("2021-05-01", "2021-05-06"):
        scl = np.full((64, 64), 4, dtype=np.uint8)
        bands = {"B04": (np.full((64, 64), 400, np.uint16), GRID), "B08": (np.full((64, 64), 3000, np.uint16), GRID)}
        archive.add(f"S2A_30UXC_{day.replace('-', '')}_0_L2A", f"{day}T11:00:00Z", {**bands, "SCL": (scl, GRID)})
    return archive


def ingest_settings(archive: Archive, warehouse: Path) -> dict[str, Any]:
    west, south, east, north = GRID[16:48, 16:48].geographic_extent.boundingbox.bbox
    return {
        "catalog": str(archive.catalog),
        "aoi": f"{west},{south},{east},{north}",
        "start": "2021-01-01",
        "end": "2021-12-31",
        "warehouse": str(warehouse),
        "bands": ["B04", "B08"],
    }


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(900)
class TestUp:
    def test_it_says_where_everything_is(self, up: Up) -> None:
        words = up.output.read_text()
        assert f"http://127.0.0.1:{up.port}" in words
        assert "deployment run" in words
        assert up.call("/health") is True

    def test_prefect_keeps_its_database_in_the_warehouse(self, up: Up) -> None:
        assert (up.warehouse / ".prefect-server" / "prefect.db").exists()
        assert not (up.warehouse.parent / "elsewhere").exists()

    def test_all_deployments_are_there_on_this_warehouse(self, up: Up) -> None:
        found = {entry["name"]: entry for entry in up.call("/deployments/filter", {})}
        assert set(found) == {entry["name"] for entry in deployments()["deployments"]}
        for entry in found.values():
            assert str(up.warehouse) in json.dumps(entry["parameters"])
            assert entry["pull_steps"] == [
                {"prefect.deployments.steps.set_working_directory": {"directory": str(Path(__file__).parents[2])}}
            ]
            assert entry["parameter_openapi_schema"]["properties"]["config"]

    def test_the_update_has_its_schedule_and_is_never_run_twice_at_once(self, up: Up) -> None:
        update = up.call("/deployments/name/update-canopy-map/update-canopy-map")
        assert [(entry["schedule"]["cron"], entry["active"]) for entry in update["schedules"]] == [("0 5 * * 1", True)]
        assert update["global_concurrency_limit"]["limit"] == 1
        assert update["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"

    @pytest.mark.xfail(SQLALCHEMY >= (2, 1), reason="Prefect 3.8.8 plans no run with SQLAlchemy 2.1", strict=True)
    def test_the_update_is_planned(self, up: Up) -> None:
        update = up.call("/deployments/name/update-canopy-map/update-canopy-map")
        asked = {
            "deployments": {"id": {"any_": [update["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        wait_until(lambda: len(up.call("/flow_runs/filter", asked)) > 0, 30, "a run is planned")

    def test_a_triggered_run_completes_and_shows_its_scenes(self, up: Up, archive: Archive) -> None:
        run = up.run("ingest-earth/ingest-earth", {"config": ingest_settings(archive, up.warehouse)})
        assert run["state"]["name"] == "Completed", up.logs()
        assert list((up.warehouse / "earth").rglob("x*_y*"))
        shown = up.call("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        assert "scenes" in {artifact["key"] for artifact in shown}

    def test_parameters_that_do_not_fit_are_refused_before_a_run(self, up: Up) -> None:
        found = up.call("/deployments/name/ingest-earth/ingest-earth")
        with pytest.raises(urllib.error.HTTPError) as refused:
            up.call(f"/deployments/{found['id']}/create_flow_run", {"parameters": {"config": {"catalogue": "x"}}})
        assert refused.value.code == 409

    def test_products_are_served_for_reading(self, up: Up) -> None:
        (up.warehouse / "products" / "note.txt").write_text("a map")
        address = f"http://127.0.0.1:{up.port + 1}/note.txt"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.read() == b"a map"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(address, data=b"x", method="PUT"), timeout=30)

    def test_reports_of_runs_are_served_and_nothing_else_beside_the_products(self, up: Up) -> None:
        (up.warehouse / "runs" / "map-1").mkdir(parents=True)
        (up.warehouse / "runs" / "map-1" / "report.md").write_text("a report")
        address = f"http://127.0.0.1:{up.port + 1}"
        with urllib.request.urlopen(f"{address}/runs/map-1/report.md", timeout=30) as answer:
            assert answer.read() == b"a report"
        for hidden in ("/runs/../earth/", "/earth/", "/runs/%2e%2e/earth/"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"{address}{hidden}", timeout=30)

    def test_a_second_one_is_refused_in_one_line(self, up: Up) -> None:
        with pytest.raises(ConfigurationError, match=f"port {up.port} cannot be had"):
            serve(str(up.warehouse), up.port, say=print)
        with pytest.raises(ConfigurationError, match="served already"):
            serve(str(up.warehouse), free_pair(), say=print)

    def test_stopping_it_leaves_no_process_behind(self, up: Up) -> None:
        family = [psutil.Process(up.process.pid), *psutil.Process(up.process.pid).children(recursive=True)]
        assert len(family) >= 3
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(STOP_S) == 0, up.output.read_text()
        assert not psutil.wait_procs(family, timeout=10)[1]
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", up.port)) != 0


def test_a_taken_port_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["canopus", "up", "--warehouse", str(tmp_path / "w"), "--port", str(port)])
        with pytest.raises(SystemExit) as stopped:
            main()
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 1
    assert said.startswith(f"canopus: port {port} cannot be had")
    assert "\n" not in said
    assert not (tmp_path / "w").exists()


def test_the_processes_see_nothing_of_the_users_prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PROFILE", "production")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    seen = Service(str(tmp_path), tmp_path / "home", 4300).environment
    assert "PREFECT_PROFILE" not in seen
    assert seen["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert seen["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    # otherwise an update that a killed server had let in would keep the next ones out for good
    assert seen["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("lease_storage.filesystem")
