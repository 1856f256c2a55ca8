"""The executors by name, and which one a run gets."""

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
"""The executor class of each name; `auto` is one of them, see `start_executor`."""


def start_executor(
    options: RunOptions, flow: FlowSpec, num_jobs: int, worker: WorkerProcess | None = None
) -> Executor:
    """Starts the executor of a run that begins with so many jobs, on `worker` where it needs one.

    Raises what its class raises: ConfigError for a device, ExecutorError where there are no
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
    """One process for the one video of a run, and Ray as soon as that is cut into segments."""

    def __init__(
        self, options: RunOptions, flow: FlowSpec, worker: WorkerProcess | None = None
    ) -> None:
        self._options = options
        self._flow = flow
        self._has_grown = False
        self._work_by(ProcessExecutor(options, flow, worker))

    def submit(self, job: Job) -> None:
        # The first of them comes when the only video has said how it is to be cut.
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
