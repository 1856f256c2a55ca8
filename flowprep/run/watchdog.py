"""Ends a worker that shows no sign of life or takes too much memory, and says why."""

from __future__ import annotations

import faulthandler
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import getLogger
from typing import IO

from flowprep.errors import VideoError
from flowprep.run.job import ExtractJob, WorkerLost
from flowprep.run.worker_memory import MEMORY_MARK, MemoryWatch, memory_watch

__all__ = ["Watch", "time_limit", "watchdog", "why_lost"]

log = getLogger("flowprep.run")

# The shortest time between two resets of the timer. Each reset starts a thread.
_REARM_SECONDS = 0.5
# Its number: Python's own object may be replaced by one without a file.
_STDERR = 2


class Watch:
    """Ends this process if the watch is not called for a while, and looks at its memory if it is.

    A C thread of faulthandler ends the process. So the watch also ends native code that hangs while
    it holds the GIL, as decord does on some damaged files. The traceback in `file` says where the
    process hung.
    """

    def __init__(self, timeout_seconds: float, file: IO[str], memory: MemoryWatch | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._file = file
        self._memory = memory
        self._armed_at = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._armed_at >= min(_REARM_SECONDS, self._timeout_seconds / 4):
            faulthandler.dump_traceback_later(self._timeout_seconds, file=self._file, exit=True)
            self._armed_at = now
            if self._memory is not None:
                self._memory.check()


@contextmanager
def watchdog(job: ExtractJob) -> Iterator[Watch | None]:
    """Gives the watch that a job calls at every step, or None in the user's own process."""
    if job.stall_timeout_seconds is None:
        yield None
        return
    # On a shared file system, the driver reads in this file where the worker hung. On an object
    # store, the place stays unknown.
    if job.storage.is_local:
        path = job.storage.path(job.stall_name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file: IO[str] = _new_file(path)
    else:
        file = tempfile.TemporaryFile("w")  # noqa: SIM115
    try:
        with memory_watch(job) as memory:
            watch = Watch(job.stall_timeout_seconds, file, memory)
            watch()
            yield watch
    finally:
        faulthandler.cancel_dump_traceback_later()
        number = os.fstat(file.fileno()).st_ino
        file.close()
        if job.storage.is_local:
            # A worker of another driver may have removed the file, or have made its own.
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == number:
                    os.unlink(path)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends this process if the block takes longer. On stderr a traceback says where it was.

    The process must be a worker's own, and the block may hang in native code.
    """
    faulthandler.dump_traceback_later(seconds, file=_STDERR, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def why_lost(job: ExtractJob, lost: WorkerLost) -> VideoError:
    """Returns the error that the video of a lost worker would fail with; the driver calls it."""
    if job.storage.exists(job.stall_name):
        trace = job.storage.read_bytes(job.stall_name).decode(errors="replace")
        job.storage.remove(job.stall_name)
        if trace.startswith(MEMORY_MARK):
            return VideoError("out-of-memory", trace.removeprefix(MEMORY_MARK))
        if trace:
            log.warning("%s: stalled\n%s", job.name, trace)
            seconds = job.stall_timeout_seconds or 0
            return VideoError("stalled", f"no progress for {seconds:g} s; the worker was ended")
    return VideoError(lost.reason, lost.message)


def _new_file(path: str) -> IO[str]:
    """Returns a new file, which no worker of another driver has open."""
    while True:
        with suppress(FileNotFoundError):
            os.unlink(path)
        with suppress(FileExistsError):
            return open(path, "x")
