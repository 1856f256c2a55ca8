"""Finding and killing the processes of a run, for the tests that do so."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "descendants",
    "kill",
    "kill_job_holding",
    "ray_process",
    "start_extract",
    "wait_until",
    "workers_of",
]


def start_extract(videos: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Starts `flowprep extract` as a user would, in a process of its own."""
    command = [sys.executable, "-m", "flowprep", "extract", str(videos), str(out), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )


def descendants(pid: int) -> list[int]:
    """Returns the living children of a process and theirs, at any depth."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # "PID (NAME) STATE PPID ..."; NAME may hold anything.
                stat = Path("/proc", entry, "stat").read_text(errors="replace")
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def workers_of(pid: int) -> list[int]:
    """Returns the processes under `pid` in which Ray is carrying a job out."""
    found = []
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            if Path("/proc", str(child), "cmdline").read_bytes().startswith(b"ray::run_job"):
                found.append(child)
    return found


def ray_process(driver: int, name: str) -> int | None:
    """Returns the `raylet` or the `gcs_server` that a driver started; None where there is none."""
    for child in descendants(driver):
        with contextlib.suppress(OSError):
            program = Path("/proc", str(child), "cmdline").read_bytes().partition(b"\0")[0]
            if os.path.basename(program) == name.encode():
                return child
    return None


def kill_job_holding(path: Path, driver: int) -> bool:
    """Kills the process under `driver` that has `path` open; returns whether there was one."""
    for child in descendants(driver):
        folder = Path("/proc", str(child), "fd")
        with contextlib.suppress(OSError):
            for descriptor in folder.iterdir():
                if os.readlink(descriptor) == str(path):
                    kill([child])
                    return True
    return False


def kill(pids: list[int]) -> None:
    """Sends SIGKILL to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Waits until `condition` holds, however busy the machine; pytest ends what hangs.

    With `process` it fails where that ends before.
    """
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"exit code {process.returncode}: {process.communicate()}")
        time.sleep(0.01)
