"""How much memory a worker may hold, and the watch that ends one that takes more."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flowprep.config import parse_memory
from flowprep.machine import resident_bytes, usable_cores, usable_memory_bytes
from flowprep.run.job import ExtractJob
from flowprep.words import format_bytes

__all__ = ["MEMORY_MARK", "MemoryWatch", "blamed_bytes", "may_hold_bytes", "memory_watch"]

MEMORY_MARK = "out-of-memory: "
"""Start of the file in which a worker says that it held too much."""
USED_SHARE = 0.9
"""Share of a machine's memory that is for its workers. The rest is for the system."""
LEAST_SHARE = 0.25
"""Share of a machine's memory that any worker may hold: few videos are large at the same time."""
LOOK_SECONDS = 0.25
"""Time between two looks at the memory. Ray's own monitor takes as long."""


def blamed_bytes(worker_memory: str, total_bytes: int, num_workers: int) -> int:
    """Returns the memory above which a worker's video is to blame for a machine without any."""
    limit = may_hold_bytes(worker_memory, total_bytes, num_workers)
    return limit or may_hold_bytes("auto", total_bytes, num_workers) or total_bytes


def may_hold_bytes(worker_memory: str, total_bytes: int, num_workers: int) -> int | None:
    """Returns the memory that each worker of a machine may hold, or None for no limit.

    `worker_memory` is the option of this name. `auto` divides the machine's memory among its
    workers, but gives none of them less than a quarter.
    """
    if worker_memory == "auto":
        return int(total_bytes * max(USED_SHARE / max(1, num_workers), LEAST_SHARE))
    return parse_memory(worker_memory)


class MemoryWatch:
    """Ends this process if it holds more than it may, and leaves a file that says so.

    A thread looks at the memory. It cannot run while native code holds the GIL. So each step of the
    job calls `check` as well, which looks as soon as such code is through.
    """

    def __init__(self, job: ExtractJob, limit_bytes: int) -> None:
        self._job = job
        self._limit_bytes = limit_bytes
        self._is_over = threading.Event()
        self._checked = 0.0
        self._thread = threading.Thread(target=self._look, name="memory-watch", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Looks, unless that was a moment ago."""
        now = time.monotonic()
        if now - self._checked >= LOOK_SECONDS:
            self._checked = now
            if (held := resident_bytes()) > self._limit_bytes:
                self._end(held)

    def close(self) -> None:
        """Ends the watch."""
        self._is_over.set()

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            self.check()

    def _end(self, held_bytes: int) -> None:
        words = (
            f"the video needs more memory than a worker may hold: it held "
            f"{format_bytes(held_bytes)} of {format_bytes(self._limit_bytes)}; give more with "
            "--worker-memory, or leave the video out"
        )
        # The driver reads this file from any machine. Without it the worker counts as crashed.
        with suppress(Exception):
            content = f"{MEMORY_MARK}{words}".encode()
            self._job.storage.write_bytes(self._job.stall_name, content)
        os._exit(1)


@contextmanager
def memory_watch(job: ExtractJob) -> Iterator[MemoryWatch | None]:
    """Watches the memory of a job. Yields None without a limit, or in the user's own process."""
    total = usable_memory_bytes()
    limit = None
    if total is not None and job.stall_timeout_seconds is not None:
        cores = usable_cores()
        num_workers = min(job.num_workers or cores, cores)
        limit = may_hold_bytes(job.worker_memory, total, num_workers)
    if limit is None:
        yield None
        return
    watch = MemoryWatch(job, limit)
    try:
        yield watch
    finally:
        watch.close()
