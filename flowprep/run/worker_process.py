"""The driver's side of a worker process, which carries out one job after the other.

    driver   WorkerProcess   <- socket ->   worker_main.main   worker

This module imports hardly more than the standard library, so that the worker can start its own
imports before the driver does. The worker is a new Python process and not a fork, because other
threads may hold a fork's locks forever. Unlike a process of multiprocessing, it never imports the
user's script. The worker ends whenever the driver ends, even by a crash, because the driver's end
of the socket is then closed.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from flowprep.machine import resident_bytes

if TYPE_CHECKING:
    from flowprep.config import FlowSpec
    from flowprep.run.job import Job

__all__ = ["READY", "WorkerEndedError", "WorkerProcess", "how_it_ended", "num_oom_kills"]

READY: Literal["ready"] = "ready"
"""A worker's first message, after its imports. All other messages are outcomes of jobs."""

# Imported objects stay. Looking for garbage among them again and again takes a tenth of the time.
_CODE = (
    "import gc, sys; gc.disable(); descriptor, *sys.path = sys.argv[1:]; "
    "from flowprep.run.worker_main import main; main(int(descriptor))"
)

_MAX_WORDS = 4000
"""Number of characters of a worker's last output that go to the log."""

_MAX_END_SECONDS = 10.0
"""Longest time between the end of a worker's socket and that of its process."""


class WorkerEndedError(Exception):
    """A worker has ended. The message says how."""

    def __init__(self, how: str, *, words: str, ran_out_of_memory: bool, held_bytes: int) -> None:
        super().__init__(how)
        self.words = words
        """The last output of the worker on stderr."""
        self.ran_out_of_memory = ran_out_of_memory
        """Whether the system ended it for that."""
        self.held_bytes = held_bytes
        """The most memory that it ever held, 0 where this is not known."""


class WorkerProcess:
    """A worker process that starts at once and is ended at the end of a `with` block."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._num_oom_kills = num_oom_kills()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(theirs.fileno()), *sys.path],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                # Ctrl-C in a terminal should reach only the driver, which then ends its worker.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The process ID of the worker."""
        return self._process.pid

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def send(self, flow: FlowSpec, device: str, job: Job | None = None) -> None:
        """Gives the worker a job, or lets it get ready for the first job if `job` is None.

        If the worker has ended, only `receive` says so.
        """
        # The worker shares this file and its position, so it continues at the start of the file.
        self._words.seek(0)
        self._words.truncate()
        with suppress(OSError):
            self._connection.send_bytes(pickle.dumps((flow, device, job)))

    def receive(self, timeout_seconds: float) -> Any:
        """Returns the worker's next message; raises TimeoutError, or WorkerEndedError."""
        try:
            if not self._connection.poll(timeout_seconds):
                raise TimeoutError
            content = self._connection.recv_bytes()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        return pickle.loads(content)

    def memory_bytes(self) -> int:
        """Returns the memory that it holds, 0 where this is not known."""
        return resident_bytes(self.pid)

    def end(self) -> None:
        """Ends the worker at once."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._words.close()

    def _ended(self) -> WorkerEndedError:
        code, held_bytes = self._wait()
        size = self._words.seek(0, 2)
        self._words.seek(max(0, size - _MAX_WORDS))
        words = self._words.read().decode(errors="replace").strip()
        return WorkerEndedError(
            how_it_ended(code),
            words=words,
            ran_out_of_memory=code == -signal.SIGKILL and num_oom_kills() > self._num_oom_kills,
            held_bytes=held_bytes,
        )

    def _wait(self) -> tuple[int, int]:
        """Waits for its end; returns its exit code, and the most memory that it ever held."""
        began = time.monotonic()
        # It may have closed the socket a moment before it ends, or hang there.
        while not (found := os.wait4(self.pid, os.WNOHANG))[0]:
            if time.monotonic() - began > _MAX_END_SECONDS:
                self._process.kill()
            time.sleep(0.01)
        _, status, usage = found
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def how_it_ended(code: int) -> str:
    """Returns a process's exit code in words; one below 0 is the signal that ended it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def num_oom_kills() -> int:
    """Returns how many processes Linux has ended for want of memory since the machine started."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
