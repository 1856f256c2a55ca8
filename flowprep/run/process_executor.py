"""Runs jobs one after the other in one process, which may crash or hang without ending the run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from logging import getLogger

from flowprep.config import FlowSpec, RunOptions
from flowprep.errors import ExecutorError
from flowprep.flow.estimators import resolve_device
from flowprep.machine import memory_in_use, usable_memory_bytes
from flowprep.run.counters import Sample
from flowprep.run.executor import MAX_FAILED_STARTS, Executor
from flowprep.run.job import Job, JobResult, WorkerLost
from flowprep.run.worker_memory import blamed_bytes
from flowprep.run.worker_process import READY, WorkerEndedError, WorkerProcess
from flowprep.words import format_bytes

__all__ = ["ProcessExecutor"]

log = getLogger("flowprep.run")

LOOK_SECONDS = 0.25
"""Time between two looks at the memory in use. Ray's monitor uses the same time."""
MAX_MEMORY_SHARE = 0.95
"""Share of the memory of the machine or container. Above it, the worker is ended, as Ray does."""
MIN_WORKER_SHARE = 0.1
"""A worker that holds a smaller share is not to blame, and ending it would free too little."""


class ProcessExecutor(Executor):
    """Carries out jobs in a separate process. If that process is lost, a new one replaces it."""

    num_workers = 1
    window = 2

    def __init__(
        self, options: RunOptions, flow: FlowSpec, worker: WorkerProcess | None = None
    ) -> None:
        """`worker` is a process that has already been started. The executor uses and ends it."""
        name = options.device.removesuffix("+cpu")
        self._flow = flow
        self._worker_memory = options.worker_memory
        self._device = str(resolve_device(name, flow.algorithm))
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._is_ready = False
        self._num_failed_starts = 0
        self._worker: WorkerProcess | None = None
        self._start(worker)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._hand_out()

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        deadline = time.monotonic() + timeout_seconds
        while self._current is not None:
            left = deadline - time.monotonic()
            outcome = self._outcome(min(max(0.0, left), LOOK_SECONDS))
            if outcome is not None:
                job, self._current = self._current, None
                self._hand_out()
                return [(job, outcome)]
            if left <= 0:
                break
        return []

    def is_short_of_memory(self) -> bool:
        return memory_in_use() >= MAX_MEMORY_SHARE

    def show(self, samples: Sequence[Sample]) -> None:
        pass

    def close(self) -> None:
        self._end_worker()
        self._waiting.clear()
        self._current = None

    def _start(self, worker: WorkerProcess | None = None) -> WorkerProcess:
        self._worker = worker or WorkerProcess()
        self._is_ready = False
        self._worker.send(self._flow, self._device)
        return self._worker

    def _hand_out(self) -> None:
        if self._current is None and self._waiting:
            self._current = self._waiting.popleft()
            self._send(self._current)

    def _send(self, job: Job) -> None:
        worker = self._worker or self._start()
        worker.send(self._flow, self._device, job)

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _outcome(self, timeout_seconds: float) -> JobResult | WorkerLost | None:
        """Returns the outcome of the current job, or None if it is still at work."""
        assert self._worker is not None
        assert self._current is not None
        try:
            message = self._worker.receive(timeout_seconds)
        except TimeoutError:
            return self._without_memory()
        except WorkerEndedError as end:
            self._end_worker()
            if end.words:
                log.warning("a worker process wrote before it ended:\n%s", end.words)
            if end.ran_out_of_memory:
                return self._out_of_memory(
                    "the system ended the worker because memory ran out", end.held_bytes
                )
            if not self._is_ready:
                self._start_again(self._current, end)
                return None
            return WorkerLost("crashed", f"the worker process ended ({end})")
        if message == READY:
            self._is_ready = True
            self._num_failed_starts = 0
            return None
        assert isinstance(message, JobResult | WorkerLost)
        if isinstance(message, WorkerLost):
            # Its GPU cannot compute any more, and a process stays on its GPU.
            self._end_worker()
        return message

    def _start_again(self, job: Job, end: WorkerEndedError) -> None:
        """Gives a job to a new worker, because the job did not cause the end of the last one."""
        self._num_failed_starts += 1
        if self._num_failed_starts == MAX_FAILED_STARTS:
            last = end.words.rpartition("\n")[2]
            raise ExecutorError(
                f"worker processes end while they start ({end}): {last or 'they say nothing'}; "
                "run `flowprep doctor`, or take --executor inline"
            )
        self._send(job)

    def _without_memory(self) -> WorkerLost | None:
        """Ends a worker that takes the last memory, before the system ends any other process."""
        worker, total = self._worker, usable_memory_bytes()
        if worker is None or total is None or not self.is_short_of_memory():
            return None
        held = worker.memory_bytes()
        if held < MIN_WORKER_SHARE * total:
            return None
        self._end_worker()
        return self._out_of_memory("the worker was ended because memory ran out", held)

    def _out_of_memory(self, what: str, held_bytes: int) -> WorkerLost:
        total = usable_memory_bytes() or 0
        message = f"{what}; it held {format_bytes(held_bytes)} of {format_bytes(total)}"
        if held_bytes > blamed_bytes(self._worker_memory, total, self.num_workers):
            return WorkerLost("out-of-memory", message)
        return WorkerLost("out-of-memory", message, is_short_of_memory=True, fault="node")
