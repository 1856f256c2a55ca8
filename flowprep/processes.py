"""Runs jobs in several processes of this machine, for work that needs no Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import current_process, get_context
from typing import Any, TypeVar

from flowprep.errors import ExecutorError
from flowprep.machine import usable_cores

__all__ = ["GUARD_REMEDY", "check_guard", "in_processes"]

GUARD_REMEDY = (
    "each process that is started imports the script anew; put what the script does under `if "
    '__name__ == "__main__":`, in a file'
)
"""What to do if processes end while they start."""

State = TypeVar("State")
J = TypeVar("J")
R = TypeVar("R")

# Submitted jobs per process. This is enough so that no process waits for the caller. All jobs at
# once would need a future for each of a million videos.
_JOBS_PER_PROCESS = 4

_state: Any = None
"""In a worker process: the state that it was started with."""


def check_guard() -> None:
    """Raises ExecutorError in a process that imports the script, and comes to start processes.

    multiprocessing would say it in a traceback of many lines.
    """
    if getattr(current_process(), "_inheriting", False):
        raise ExecutorError(
            f"a process cannot start processes while it is starting: {GUARD_REMEDY}"
        )


def in_processes(
    work: Callable[[State, J], R], state: State, jobs: Sequence[J], num_workers: int | None
) -> Iterator[tuple[J, R]]:
    """Yields each job with the result of `work(state, job)`, in order.

    The processes import `work` by its name, and each gets `state` once. `num_workers` is the number
    of processes (None: one per usable core). If it is 1, the jobs run in this process. An error in
    `work` ends the jobs and is raised here. Raises ExecutorError if a process was ended from
    outside.
    """
    count = min(num_workers or usable_cores(), len(jobs))
    if count <= 1:
        for job in jobs:
            yield job, work(state, job)
        return
    check_guard()
    context = get_context("spawn")
    has_begun = context.Value("b", 0, lock=False)
    # Forked processes would inherit the locks of threads. Spawned processes start without them.
    with ProcessPoolExecutor(
        count, context, initializer=_begin, initargs=(state, has_begun)
    ) as pool:
        try:
            pending: deque[tuple[J, Future[R]]] = deque()
            for job in jobs:
                pending.append((job, pool.submit(_carry_out, work, job)))
                if len(pending) == _JOBS_PER_PROCESS * count:
                    first, result = pending.popleft()
                    yield first, result.result()
            for first, result in pending:
                yield first, result.result()
        except BrokenProcessPool as error:
            if not has_begun.value:
                raise ExecutorError(
                    f"the worker processes ended while they were starting: {GUARD_REMEDY}"
                ) from error
            raise ExecutorError(
                "a worker process was ended from outside, maybe because memory ran out; run the "
                "same command again with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(state: Any, has_begun: Any) -> None:
    has_begun.value = 1
    import cv2

    global _state
    _state = state
    cv2.setNumThreads(1)


def _carry_out(work: Callable[[Any, J], R], job: J) -> R:
    return work(_state, job)
