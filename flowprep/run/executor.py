"""Where jobs are carried out: the interface of all executors, and the one without any worker."""

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
"""Workers that end while they start, one after the other, before it counts as a failure."""


class Executor(ABC):
    """Takes jobs and gives their results back in the order in which they end."""

    num_workers: int
    """Jobs that run at the same time."""
    window: int
    """Jobs to have in hand, so that no worker waits for the driver."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job."""

    @abstractmethod
    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        """Returns jobs that have ended, after at most `timeout_seconds` if there are none."""

    def is_short_of_memory(self) -> bool:
        """Whether workers on this machine would be ended now, for others hold its memory."""
        return False

    @abstractmethod
    def show(self, samples: Sequence[Sample]) -> None:
        """Shows a run's numbers, if there is a place for it."""

    @abstractmethod
    def close(self) -> None:
        """Ends the workers; jobs in flight are dropped."""


class InlineExecutor(Executor):
    """Carries every job out at once in this process, where a debugger reaches it."""

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
