"""The whole service on loopback: Prefect's server, a work pool, the deployments, a worker, and the products' pictures."""

from __future__ import annotations

import contextlib
import functools
import http.server
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from filelock import FileLock, Timeout

from storage.location import resolve
from tasks.errors import ConfigurationError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
DEPLOYMENTS = ROOT / "prefect.yaml"
POOL = "cpu"
HOST = "127.0.0.1"
START_S = 240.0
"""A first start writes the database; on a busy machine with few cores that takes a while."""
STOP_S = 20.0


@dataclass(frozen=True)
class Service:
    """Where everything is.

    Parameters
    ----------
    warehouse : str
        URL.
    home : Path
        Prefect's database and our logs; kept between starts.
    port : int
        Of the dashboard; the pictures are one further on.
    """

    warehouse: str
    home: Path
    port: int

    @property
    def dashboard(self) -> str:
        """Return the address for a browser."""
        return f"http://{HOST}:{self.port}"

    @property
    def products(self) -> str:
        """Return the address under which the warehouse's products are served."""
        return f"http://{HOST}:{self.port + 1}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what the processes see: nothing of Prefect's that the user's shell held."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": f"{self.dashboard}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "DO_NOT_TRACK": "1",
            # on a busy machine SQLite's one writer may be waited for longer than the default 5 and 10 s
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
            # kept in memory, the slot of an update that runs when the server is killed would be taken for good
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "CANOPUS_PRODUCTS_URL": f"{self.products}|{self.warehouse}/products",
            "PYTHONUNBUFFERED": "1",
        }


def serve(warehouse: str, port: int, *, say: Callable[[str], None]) -> None:
    """Start everything, say where it is, and wait until Ctrl-C or SIGTERM; then stop everything.

    Parameters
    ----------
    warehouse : str
        URL that the deployments' runs read and write; Prefect's database lies in it when it is a folder.
    port : int
        Of the dashboard on loopback; the pictures take the next one.
    say : callable
        Takes one line for the user.

    Raises
    ------
    ConfigurationError
        Where a port is taken, the same warehouse is served already, or a part does not come up.
    """
    location = resolve(warehouse)
    local = location.local_path
    home = (local or Path.home() / ".cache" / "canopus") / ".prefect-server"
    service = Service(str(location), home, port)
    _refuse_taken_ports(port)
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with _stop_signal() as stopped, _alone(home), contextlib.ExitStack() as running:
        if local is not None:
            running.enter_context(_serve_folder(local / "products", port + 1))
        say("starting the server: half a minute, a minute the first time")
        server = running.enter_context(
            _process(service, "server", "server", "start", "--host", HOST, "--port", str(port))
        )
        _wait_for_health(service, server, stopped)
        _ensure_pool(service)
        _deploy(service)
        worker = running.enter_context(
            _process(service, "worker", "worker", "start", "--pool", POOL, "--type", "process", "--name", "canopus")
        )
        say(_in_words(service, served=local is not None))
        _wait({"server": server, "worker": worker}, service, stopped)
        say("stopping")


def deployments(path: Path = DEPLOYMENTS, *, warehouse: str | None = None) -> dict[str, Any]:
    """Return what prefect.yaml deploys, with every `warehouse` among the parameters replaced.

    Raises
    ------
    ConfigurationError
        Where there is no such file: the package was installed without its checkout.
    """
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: not found; `canopus up` runs from a checkout, installed with -e") from error
    if warehouse is not None:
        for deployment in content["deployments"]:
            deployment["parameters"] = _with_warehouse(deployment["parameters"], warehouse)
    return content


def _with_warehouse(value: Any, warehouse: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        name: warehouse if name == "warehouse" else _with_warehouse(item, warehouse) for name, item in value.items()
    }


def _in_words(service: Service, *, served: bool) -> str:
    home = f"PREFECT_API_URL={service.dashboard}/api"
    lines = [
        f"dashboard    {service.dashboard}",
        f"products     {service.products if served else service.warehouse + ' (not a folder: not served)'}",
        f"warehouse    {service.warehouse}",
        f"logs         {service.home / 'logs'}",
        f"trigger one  {home} {_prefect()} deployment run 'archive-to-map/archive-to-map' --watch",
        "deployments  " + ", ".join(entry["name"] for entry in deployments()["deployments"]),
        "Ctrl-C stops everything",
    ]
    return "\n".join(lines)


def _prefect() -> str:
    beside = Path(sys.executable).with_name("prefect")
    with contextlib.suppress(ValueError):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)


def _refuse_taken_ports(port: int) -> None:
    for number in (port, port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, number))
            except (OSError, OverflowError) as error:
                raise ConfigurationError(
                    f"port {number} cannot be had ({error}): name another with --port (it and the next are needed)"
                ) from error


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two servers on one database would hand out every run twice."""
    try:
        with FileLock(home / "up.lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigurationError(f"{home.parent}: served already by another `canopus up`; stop that first") from error


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Set an event on Ctrl-C and SIGTERM, in place of an exception anywhere."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _process(service: Service, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part of Prefect in a session of its own, so that Ctrl-C reaches us alone and we stop the parts in order."""
    with _log(service, name).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            cwd=ROOT,
            env=service.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and all that it started: the innermost first, so that a flow run can still say that it ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        for group in (family, [psutil.Process(process.pid)]):
            _end(group)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=STOP_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=STOP_S)


def _wait_for_health(service: Service, server: subprocess.Popen[bytes], stopped: threading.Event) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(f"{service.dashboard}/api/health"):
        if server.poll() is not None or stopped.is_set():
            raise ConfigurationError(f"the server did not come up; {_last_words(service, 'server')}")
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"the server does not answer after {START_S:.0f} s: start it again when the machine is less busy "
                f"(see {_log(service, 'server')})"
            )
        stopped.wait(0.5)


def _ensure_pool(service: Service) -> None:
    if not _answers(f"{service.dashboard}/api/work_pools/{POOL}"):
        _call(service, "work pool", "work-pool", "create", POOL, "--type", "process")


def _deploy(service: Service) -> None:
    """Deploy what prefect.yaml says, on this warehouse."""
    path = service.home / "deployments.yaml"
    path.write_text(yaml.safe_dump(deployments(warehouse=service.warehouse), sort_keys=False))
    _call(service, "deployments", "--no-prompt", "deploy", "--all", "--prefect-file", str(path))


def _call(service: Service, what: str, *words: str) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=service.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    with _log(service, "set-up").open("a") as log:
        log.write(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    if done.returncode != 0:
        raise ConfigurationError(f"{what}: not made; {_last_words(service, 'set-up')}")


def _wait(parts: Mapping[str, subprocess.Popen[bytes]], service: Service, stopped: threading.Event) -> None:
    while not stopped.wait(1.0):
        for name, process in parts.items():
            if process.poll() is not None:
                raise ConfigurationError(f"the {name} has ended; {_last_words(service, name)}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _log(service: Service, name: str) -> Path:
    return service.home / "logs" / f"{name}.log"


def _last_words(service: Service, name: str) -> str:
    path = _log(service, name)
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it said nothing'} (see {path})"


@contextlib.contextmanager
def _serve_folder(folder: Path, port: int) -> Iterator[None]:
    """Serve a folder for reading on loopback: the dashboard shows pictures by their address only."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(_Products, directory=str(folder))
    with http.server.ThreadingHTTPServer((HOST, port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


class _Products(http.server.SimpleHTTPRequestHandler):
    """Files and listings; GET and HEAD only."""

    def translate_path(self, path: str) -> str:
        """Return the file of an address; reports and pictures of runs lie beside the products."""
        found = Path(super().translate_path(path))  # without "..", below the folder
        inside = found.relative_to(self.directory)
        return str(Path(self.directory).parent / inside if inside.parts[:1] == ("runs",) else found)

    def end_headers(self) -> None:
        # viewers in the browser read COGs and STAC items from another origin
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
