"""A server that a command started ends with the command, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import subprocess, sys, time
from flows.runtime import end_with_this_process
other = subprocess.Popen(["sleep", "600"])
if sys.argv[1] == "guarded":
    end_with_this_process(other.pid)
print(other.pid, flush=True)
time.sleep(600)
"""


def ended(pid: int, within_s: float) -> bool:
    """Return whether a process is gone, or only waits to be noticed as such."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("guarded", [True, False])
def test_a_process_is_ended_once_the_one_that_started_it_is_killed(guarded: bool) -> None:
    arguments = [sys.executable, "-c", COMMAND, "guarded" if guarded else "left"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        other = int(command.stdout.readline())
        assert not ended(other, 0.2)
        command.kill()
    try:
        assert ended(other, 20.0 if guarded else 0.5) is guarded
    finally:
        if not guarded:
            os.kill(other, signal.SIGKILL)
