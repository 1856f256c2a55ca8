"""The worker's side of `worker_process.py`: takes jobs from the driver until that is gone."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from flowprep.run.run_job import prepare, run_job
from flowprep.run.worker_process import READY

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Carries out what comes through the socket, one job after the other."""
    os.set_inheritable(descriptor, False)
    # A crash in native code says in which line of Python it was called.
    faulthandler.enable()
    # Where memory runs out, Linux is to end the worker and not the driver.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    connection = Connection(descriptor)
    tasks: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    connection.send_bytes(pickle.dumps(READY))
    while True:
        flow, device, job = pickle.loads(tasks.get())
        if job is None:
            # Whatever is wrong, the first job says it.
            with suppress(Exception):
                prepare(flow, device)
            # It was off while all this was imported, which stays as it is.
            gc.freeze()
            gc.enable()
        else:
            connection.send_bytes(pickle.dumps(run_job(job, device)))


def _receive(connection: Connection, tasks: SimpleQueue[bytes]) -> None:
    """Passes on what comes, also while a job is at work; ends the process with its driver."""
    while True:
        try:
            tasks.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)
