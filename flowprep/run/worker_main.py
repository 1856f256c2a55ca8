"""The worker's side of `worker_process.py`: takes jobs until the driver ends."""

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
    """Carries out the jobs that come through the socket, one after the other."""
    os.set_inheritable(descriptor, False)
    # After a crash in native code, this shows the line of Python that called it.
    faulthandler.enable()
    # If memory runs out, Linux should end the worker and not the driver.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    connection = Connection(descriptor)
    tasks: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    connection.send_bytes(pickle.dumps(READY))
    while True:
        flow, device, job = pickle.loads(tasks.get())
        if job is None:
            # If something is wrong, the first job will report it.
            with suppress(Exception):
                prepare(flow, device)
            # The garbage collector was off during the imports. The imported objects stay for good.
            gc.freeze()
            gc.enable()
        else:
            connection.send_bytes(pickle.dumps(run_job(job, device)))


def _receive(connection: Connection, tasks: SimpleQueue[bytes]) -> None:
    """Passes on messages, even while a job runs. Ends the process when its driver ends."""
    while True:
        try:
            tasks.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)
