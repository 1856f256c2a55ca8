"""The executors by name, and the choice of the executor for a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from logging import getLogger

from flowprep.config import ExecutorName, FlowSpec, RunOptions
from flowprep.machine import usable_cores
from flowprep.run.counters import Sample
from flowprep.run.executor import Executor, InlineExecutor
from flowprep.run.job import ExtractJob, Job, JobResult, WorkerLost
from flowprep.run.options import chosen_executor
from flowprep.run.process_executor import ProcessExecutor
from flowprep.run.ray_executor import RayExecutor
from flowprep.run.worker_process import WorkerProcess

__all__ = ["EXECUTORS", "start_executor"]

log = getLogger("flowprep.run")

EXECUTORS: dict[ExecutorName, Callable[[RunOptions, FlowSpec], Executor]] = {
    "ray": RayExecutor,
    "process": ProcessExecutor,
    "inline": InlineExecutor,
}
"""The executor class for each name. `auto` means one of them, see `start_executor`."""


def start_executor(
    options: RunOptions, flow: FlowSpec, num_jobs: int, worker: WorkerProcess | None = None
) -> Executor:
    """Starts the executor of a run that begins with `num_jobs` jobs; uses `worker` if it can.

    Raises what the executor's class raises: ConfigError for a device, ExecutorError if there are no
    workers.
    """
    name = chosen_executor(options, flow.algorithm, num_jobs)
    if options.executor == "auto":
        log.info("executor auto is %s: %d jobs at first", name, num_jobs)
    if name != "process":
        return EXECUTORS[name](options, flow)
    if options.executor == "process" or (options.num_workers or usable_cores()) == 1:
        return ProcessExecutor(options, flow, worker)
    return AutoExecutor(options, flow, worker)


class AutoExecutor(Executor):
    """One process for a run of one video, and Ray as soon as the video is cut into segments."""

    def __init__(
        self, options: RunOptions, flow: FlowSpec, worker: WorkerProcess | None = None
    ) -> None:
        self._options = options
        self._flow = flow
        self._has_grown = False
        self._work_by(ProcessExecutor(options, flow, worker))

    def submit(self, job: Job) -> None:
        # The first segment comes once the worker has said how to cut the only video.
        if isinstance(job, ExtractJob) and job.segment is not None and not self._has_grown:
            log.info("the video is long: several workers share its segments, by Ray")
            self._executor.close()
            self._has_grown = True
            self._work_by(EXECUTORS["ray"](self._options, self._flow))
        self._executor.submit(job)

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        return self._executor.wait(timeout_seconds)

    def is_short_of_memory(self) -> bool:
        return self._executor.is_short_of_memory()

    def show(self, samples: Sequence[Sample]) -> None:
        self._executor.show(samples)

    def close(self) -> None:
        self._executor.close()

    def _work_by(self, executor: Executor) -> None:
        self._executor = executor
        self.num_workers, self.window = executor.num_workers, executor.window
