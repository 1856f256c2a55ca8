"""Ends a worker that gives no sign of life, or takes too much memory, and says so."""

from __future__ import annotations

import faulthandler
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from flowprep.run.job import ExtractJob
from flowprep.run.worker_memory import MemoryWatch, memory_watch

__all__ = ["Watch", "watchdog"]

# Set anew at most so often; setting it starts a thread.
_REARM_SECONDS = 0.5


class Watch:
    """Ends this process when it is not called for a while; looks at its memory when it is.

    The thread that does so is faulthandler's own, in C: it also ends native code that hangs with
    the GIL held, as decord does on some damaged files. Its traceback, in a file, says where it
    hung.
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
    """Gives what a job calls at every step forward; None where this process is the user's own."""
    if job.stall_timeout_seconds is None:
        yield None
        return
    # On shared storage the driver reads there why the worker went; elsewhere it stays unknown.
    if job.storage.is_local:
        path = job.storage.path(job.stall_name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file: IO[str] = open(path, "w")  # noqa: SIM115
    else:
        file = tempfile.TemporaryFile("w")  # noqa: SIM115
    try:
        with memory_watch(job) as memory:
            watch = Watch(job.stall_timeout_seconds, file, memory)
            watch()
            yield watch
    finally:
        faulthandler.cancel_dump_traceback_later()
        file.close()
        if job.storage.is_local:
            # A worker of a driver that was killed may have ended the same video a moment ago.
            with suppress(FileNotFoundError):
                os.unlink(path)
