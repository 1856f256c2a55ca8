"""Jobs whose worker went away, and when they are tried again.

    the worker ended     its video may be the cause, so the number of attempts is bounded
    its node went away   the job goes elsewhere; after many nodes its video counts as the cause
    memory is short      other programs hold it; for minutes, jobs wait until some is free

Each loss is followed by a pause. So a node that goes down within seconds does not use up all the
attempts of a video.
"""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Callable
from logging import getLogger

from flowprep.errors import ExecutorError
from flowprep.run.job import ExtractJob, Job, WorkerLost

__all__ = ["MAX_LOST_NODES", "MAX_SHORT_SECONDS", "Retries"]

log = getLogger("flowprep.run")

MAX_LOST_NODES = 10
"""A video that has lost this many machines is taken for the cause and recorded as failed."""
FIRST_PAUSE_SECONDS = 1.0
"""Pause after a job's first loss. Each further pause is twice as long."""
FIRST_SHORT_SECONDS = 5.0
"""First pause if memory is short. Each further pause in a row is twice as long."""
MAX_PAUSE_SECONDS = 60.0
MAX_SHORT_SECONDS = 300.0
"""Longest time for which a job is tried again while its machine is short of memory."""
LOOK_SECONDS = 2.0
"""Time between two looks at a machine that is short of memory."""


class Retries:
    """The jobs that are to be tried again, each when its time has come."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._paused: list[tuple[float, int, Job]] = []
        self._num_paused = 0
        self._short_since: float | None = None
        """Since when nothing has ended well because memory is short."""
        self._num_short_pauses = 0
        self._held_until = float("-inf")

    def __len__(self) -> int:
        return len(self._paused)

    def goes_again(self, job: Job, lost: WorkerLost, *, others_wait: bool = False) -> bool:
        """Takes a job that lost its worker. Returns False if that has happened too often.

        Raises ExecutorError if no job has ended well for minutes because memory is short, and
        others wait that would fare no better.
        """
        now = time.monotonic()
        if lost.is_short_of_memory:
            since = now if job.short_since is None else job.short_since
            if now - since >= MAX_SHORT_SECONDS:
                if others_wait:
                    self._check_others(now, lost)
                return False
            self._hold(now)
            self._pause(dataclasses.replace(job, short_since=since), self._held_until)
            return True
        if lost.node_died:
            # A machine that is taken away says nothing about its videos.
            num_losses = job.num_lost_nodes + 1
            if num_losses >= MAX_LOST_NODES:
                return False
            job = dataclasses.replace(job, num_lost_nodes=num_losses)
        else:
            num_losses = job.attempt
            if num_losses >= self._max_attempts:
                return False
            job = dataclasses.replace(job, attempt=job.attempt + 1)
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (num_losses - 1), MAX_PAUSE_SECONDS)
        self._pause(job, now + pause)
        return True

    def due(self) -> list[Job]:
        """Returns the jobs whose pause is over, and lets go of them."""
        jobs = []
        while self._paused and self._paused[0][0] <= time.monotonic():
            jobs.append(heapq.heappop(self._paused)[2])
        return jobs

    def drop(self, index: int) -> None:
        """Lets go of the jobs for one line of the manifest."""
        self._paused = [
            one
            for one in self._paused
            if not (isinstance(one[2], ExtractJob) and one[2].index == index)
        ]
        heapq.heapify(self._paused)

    def note_success(self) -> None:
        """Notes that a job ended well, so that there is memory somewhere."""
        self._short_since = None
        self._num_short_pauses = 0
        self._held_until = float("-inf")

    def holds(self, is_short: Callable[[], bool]) -> bool:
        """Returns whether all jobs must wait. `is_short` says if this machine lacks memory."""
        if self._short_since is None:
            return False
        now = time.monotonic()
        is_patient = now - self._short_since < MAX_SHORT_SECONDS
        if now >= self._held_until and is_patient and is_short():
            self._held_until = now + LOOK_SECONDS
        return now < self._held_until

    def _hold(self, now: float) -> None:
        if self._short_since is None:
            self._short_since = now
        if now < self._held_until:
            return  # This worker was at work when the pause began.
        pause = min(FIRST_SHORT_SECONDS * 2**self._num_short_pauses, MAX_PAUSE_SECONDS)
        self._num_short_pauses += 1
        self._held_until = now + pause
        log.warning("memory is short, and other programs hold it; waiting for %g s", pause)

    def _pause(self, job: Job, until: float) -> None:
        self._num_paused += 1
        heapq.heappush(self._paused, (until, self._num_paused, job))

    def _check_others(self, now: float, lost: WorkerLost) -> None:
        if self._short_since is not None and now - self._short_since >= MAX_SHORT_SECONDS:
            raise ExecutorError(
                f"memory has been short for {(now - self._short_since) / 60:.0f} minutes, though "
                f"the workers hold little of it: {lost.message}. Free memory, or give fewer "
                "--workers. Finished videos are kept. Run the same command to go on"
            )
