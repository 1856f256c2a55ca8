"""Executors carry out jobs: their common interface, and the executor without a worker process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from flowprep.config import FlowSpec, RunOptions
from flowprep.errors import ExecutorError
from flowprep.flow.estimators import resolve_device
from flowprep.run.counters import Sample
from flowprep.run.job import Job, JobResult, WorkerLost
from flowprep.run.run_job import run_job

__all__ = ["MAX_FAILED_STARTS", "Executor", "InlineExecutor"]

MAX_FAILED_STARTS = 3
"""The run fails after this many workers in a row have ended while they started."""


class Executor(ABC):
    """Takes jobs and returns their results in the order in which the jobs end."""

    num_workers: int
    """Number of jobs that run at the same time."""
    window: int
    """Number of jobs that the driver should have submitted, so that no worker waits for it."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job."""

    @abstractmethod
    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        """Returns the jobs that have ended. Waits for the first at most `timeout_seconds`."""

    def is_short_of_memory(self) -> bool:
        """Returns whether this machine is so short of memory that its workers would be ended."""
        return False

    @abstractmethod
    def show(self, samples: Sequence[Sample]) -> None:
        """Shows a run's numbers if the executor has a place to show them."""

    @abstractmethod
    def close(self) -> None:
        """Ends the workers. Jobs in flight are dropped."""


class InlineExecutor(Executor):
    """Carries out every job immediately in this process, so that a debugger can reach it."""

    num_workers = 1
    window = 1

    def __init__(self, options: RunOptions, flow: FlowSpec) -> None:
        name = options.device.removesuffix("+cpu")
        self._device = str(resolve_device(name, flow.algorithm))
        self._ended: list[tuple[Job, JobResult | WorkerLost]] = []

    def submit(self, job: Job) -> None:
        outcome = run_job(job, self._device)
        if isinstance(outcome, WorkerLost) and outcome.reason == "crashed":
            raise ExecutorError(
                f"the GPU failed: {outcome.message}; take --device cpu to work without it"
            )
        self._ended.append((job, outcome))

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        ended, self._ended = self._ended, []
        return ended

    def show(self, samples: Sequence[Sample]) -> None:
        pass

    def close(self) -> None:
        self._ended.clear()
