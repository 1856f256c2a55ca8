"""CPU time and memory of a process and all its descendants, from /proc."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from flowprep.machine import cpu_model, cpu_vectors, usable_cores

__all__ = ["Usage", "descendants", "machine", "watch"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """The CPU time and the memory that a command used."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU seconds of all processes that were seen."""
    busy_share: float = 1.0
    """CPU seconds per second of a worker in its jobs. Below 1 if others use the cores too."""
    peak_worker_mb: float = 0.0
    """Largest resident memory of one worker."""


def watch(command: list[str], *, interval_seconds: float = 0.5) -> Usage:
    """Runs a command to its end and adds up its process tree. Raises CalledProcessError.

    Reads /proc twice per second. At 50 times per second this would take a sixth of a core from the
    command.
    """
    usage = Usage()
    cpu: dict[int, float] = {}
    # The time at which each worker was last seen in a job, and its CPU seconds at that time.
    in_job: dict[int, tuple[float, float]] = {}
    job_seconds = job_cpu_seconds = 0.0
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            before = in_job.pop(pid, None)
            with contextlib.suppress(OSError, ValueError):
                now, cpu[pid] = time.monotonic(), _cpu_seconds(pid)
                if not _has_a_job(pid):
                    continue
                in_job[pid] = now, cpu[pid]
                if before is not None:
                    job_seconds += now - before[0]
                    job_cpu_seconds += cpu[pid] - before[1]
                usage.peak_worker_mb = max(usage.peak_worker_mb, _peak_mb(pid))
        time.sleep(interval_seconds)
    usage.wall_seconds = time.monotonic() - began
    usage.cpu_seconds = sum(cpu.values())
    if job_seconds:
        usage.busy_share = job_cpu_seconds / job_seconds
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage


def machine() -> str:
    """Returns a line that names this machine."""
    return f"{cpu_model()}, {cpu_vectors()}, {usable_cores()} of {os.cpu_count()} cores"


def descendants(pid: int) -> list[int]:
    """Returns the processes under `pid`, nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in parents.get(parent, [])]
        found += level
    return found


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat after the name. The name may contain any character."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    # A process that has ended, but was not waited for, has no memory any more.
    return next((int(line.split()[1]) for line in text.splitlines() if "VmHWM" in line), 0) / 1000


def _has_a_job(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return command.startswith(b"ray::run_job") or b"flowprep.run.worker_main" in command
