"""A worker that begins to import what it needs while the driver still plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flowprep.config import FlowSpec, RunOptions
from flowprep.flow.devices import resolve_device
from flowprep.run.options import chosen_executor
from flowprep.run.worker_process import WorkerProcess

__all__ = ["early_worker"]


@contextmanager
def early_worker(
    options: RunOptions, flow: FlowSpec, num_videos: int
) -> Iterator[WorkerProcess | None]:
    """Starts the worker of a run of so many videos where it will be one process; else gives None.

    Raises ConfigError for a device that is not there.
    """
    if chosen_executor(options, flow.algorithm, num_videos) != "process":
        yield None
        return
    device = resolve_device(options.device.removesuffix("+cpu"), flow.algorithm)
    with WorkerProcess() as worker:
        worker.send(flow, str(device))
        yield worker
