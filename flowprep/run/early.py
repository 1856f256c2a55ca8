"""A worker that starts its imports while the driver still lists videos and makes the plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flowprep.config import FlowSpec, RunOptions
from flowprep.flow.estimators import resolve_device
from flowprep.inputs.tree import VIDEO_EXTENSIONS, extension_of
from flowprep.run.options import chosen_executor
from flowprep.run.worker_process import WorkerProcess

__all__ = ["early_worker"]


@contextmanager
def early_worker(
    options: RunOptions, flow: FlowSpec, videos: Sequence[str | os.PathLike[str]]
) -> Iterator[WorkerProcess | None]:
    """Starts the worker of a run that certainly needs only one, for a `with` block.

    `videos` are the names that the user gave. Gives None if there are none, or if the run may need
    Ray, for example because the names may stand for more than one video. Raises ConfigError for a
    device that does not exist.
    """
    names = [os.fspath(name) for name in videos]
    is_one = len(names) == 1 and extension_of(names[0]) in VIDEO_EXTENSIONS
    num_videos = 1 if is_one and os.path.isfile(names[0]) else 2
    if not names or chosen_executor(options, flow.algorithm, num_videos) != "process":
        yield None
        return
    device = resolve_device(options.device.removesuffix("+cpu"), flow.algorithm)
    with WorkerProcess() as worker:
        worker.send(flow, str(device))
        yield worker
