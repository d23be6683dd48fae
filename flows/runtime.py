"""How flows run: Prefect's settings for one machine, which task runner, how a run ends."""

from __future__ import annotations

import logging
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.errors import LocationFailed
from storage.location import resolve
from tasks.errors import ConfigurationError

FAILED_NAME = "CompletedWithFailures"
NO_NEWS_NAME = "NoNewData"
_ANSWER_S = 60.0
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
_GUARDS: dict[int, subprocess.Popen[bytes]] = {}
"""Shells that end another process with this one, by its number; held, since each one's pipe must stay open."""


@dataclass(frozen=True)
class Summary:
    """How a run ended: what the command line prints, and ``--json`` gives.

    Parameters
    ----------
    run : str
        Run id.
    counts : dict of str to int
        Scenes, regions or objects per state.
    cubes, products : tuple of str
        URLs of what was written.
    failures : tuple of str
        One line each.
    notes : tuple of str
        What the user should know.
    details : dict
        More, by kind of run.
    retry : str
        What takes up again what failed.
    """

    run: str
    counts: Mapping[str, int] = field(default_factory=dict)
    cubes: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    retry: str = ""

    @property
    def exit_status(self) -> int:
        """Return 0 where all is done, 3 where some failed."""
        return 3 if self.failures else 0


def configure_prefect(warehouse: str) -> None:
    """Point Prefect at its own embedded server under the warehouse, unless a server is named by CANOPUS_PREFECT_API.

    What the user's shell holds of Prefect's settings is not leant on: a stale PREFECT_API_URL would send the run to a
    server that is not there. Call it before prefect is imported.

    Raises
    ------
    ConfigurationError
        Where nothing answers at CANOPUS_PREFECT_API.
    LocationFailed
        Where the warehouse cannot be written.
    """
    api = os.environ.get("CANOPUS_PREFECT_API")
    running_inside_prefect = "PREFECT__FLOW_RUN_ID" in os.environ
    if running_inside_prefect:
        return
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.pop("PREFECT_PROFILE", None)
    if api:
        _require_answer(api)
        os.environ["PREFECT_API_URL"] = api
    local = resolve(warehouse).local_path
    home = (local or Path.home() / ".cache" / "canopus") / ".prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocationFailed(f"--warehouse {warehouse} cannot be written: {error.strerror}") from error
    os.environ["PREFECT_HOME"] = str(home)
    os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "180"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")


def start_embedded_server() -> None:
    """Start Prefect's embedded server, unless another is named, so that it ends with this process however that ends.

    Prefect starts it by itself at the first request, and stops it when Python exits; a command that is killed with -9 would leave it.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    server.start()
    if server.server_process is not None:
        end_with_this_process(server.server_process.pid)


def end_with_this_process(pid: int) -> None:
    """See that another process is ended once this one is gone: a shell waits at a pipe whose other end is ours, and kills it then."""
    if pid not in _GUARDS and os.name == "posix":
        _GUARDS[pid] = subprocess.Popen(
            ["/bin/sh", "-c", 'cat; kill "$0"', str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _require_answer(api: str) -> None:
    try:
        urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=_ANSWER_S).close()
    except urllib.error.HTTPError:
        return  # it may want a login, which Prefect has
    except (OSError, ValueError) as error:  # a refused connection, and what is no address
        raise ConfigurationError(
            f"CANOPUS_PREFECT_API={api}: no server answers there ({error}); start it with `canopus up`, "
            "or unset it to run without one"
        ) from error


def keep_tracebacks_off_the_console() -> None:
    """Let a run's exception be shown once, by the command line that raises it again, and not by each task and flow.

    Call it after prefect is imported, which sets up the logging. Prefect's own server keeps the records.
    """
    from prefect.logging.handlers import PrefectConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(_is_no_failed_run)


def _is_no_failed_run(record: logging.LogRecord) -> bool:
    return not (record.name.startswith(_RUN_LOGGERS) and record.levelno >= logging.ERROR)


def task_runner(dask: str | None, *, threads: int | None = None) -> Any:
    """Return the task runner: threads, or Dask distributed at an address or on N local processes (``local:N``).

    Parameters
    ----------
    dask : str or None
        Address, ``local:N``, or None for threads.
    threads : int, optional
        By default one for each core, at least two.
    """
    from prefect.task_runners import ThreadPoolTaskRunner

    if dask is None:
        return ThreadPoolTaskRunner(max_workers=threads or max(2, os.cpu_count() or 2))
    from prefect_dask import DaskTaskRunner

    if dask.startswith("local:"):
        count = int(dask.removeprefix("local:"))
        options = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
        return DaskTaskRunner(cluster_kwargs=options)
    return DaskTaskRunner(address=dask)
