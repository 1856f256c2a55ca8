"""Where jobs are carried out: in this process, or by Ray on one machine or a cluster."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from flowprep.config import ExecutorName, RunOptions
from flowprep.errors import ExecutorError
from flowprep.run.job import Job, JobResult, run_job

__all__ = [
    "EXECUTORS",
    "Executor",
    "InlineExecutor",
    "RayExecutor",
    "WorkerLost",
    "cluster_address",
    "start_ray",
]


@dataclass(frozen=True)
class WorkerLost:
    """A worker went away with its job."""

    reason: Literal["crashed", "out-of-memory"]
    message: str


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

    @abstractmethod
    def close(self) -> None:
        """Ends the workers; jobs in flight are dropped."""


class InlineExecutor(Executor):
    """Carries every job out at once in this process, where a debugger reaches it."""

    num_workers = 1
    window = 1

    def __init__(self, options: RunOptions) -> None:
        self._ended: list[tuple[Job, JobResult | WorkerLost]] = []

    def submit(self, job: Job) -> None:
        self._ended.append((job, run_job(job)))

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        self._ended.clear()


class RayExecutor(Executor):
    """Carries jobs out as Ray tasks of one core each.

    Ray's own retries are off (`max_retries=0`): attempts are counted by the driver, so that a video
    which kills its worker is tried a bounded number of times and then named.
    """

    def __init__(self, options: RunOptions) -> None:
        self._address = cluster_address(options.address)
        num_workers = options.num_workers or os.cpu_count() or 1
        self._ray, self._owns_ray = start_ray(self._address, num_cpus=num_workers)
        ray = self._ray
        num_cpus = int(ray.cluster_resources().get("CPU", 0))
        if num_cpus < 1:
            self.close()
            raise ExecutorError(
                "the Ray cluster has no CPU to work on; add a node, or start Ray with --num-cpus"
            )
        self.num_workers = min(options.num_workers or num_cpus, num_cpus)
        # A second job in hand for each worker hides the driver's latency. Where the user caps the
        # workers of a shared cluster, only the window does so.
        own_machine = self._owns_ray and self._address is None
        self.window = self.num_workers * (2 if own_machine or not options.num_workers else 1)
        self._task: Any = ray.remote(num_cpus=1, max_retries=0)(run_job)
        self._in_flight: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        self._in_flight[self._task.remote(job)] = job

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        if not self._in_flight:
            return []
        ready, _ = self._ray.wait(
            list(self._in_flight), num_returns=1, timeout=timeout_seconds, fetch_local=False
        )
        return [(self._in_flight.pop(ref), self._outcome(ref)) for ref in ready]

    def close(self) -> None:
        if self._owns_ray:
            self._ray.shutdown()
            return
        for ref in self._in_flight:
            self._ray.cancel(ref, force=True)
        self._in_flight.clear()

    def _outcome(self, ref: Any) -> JobResult | WorkerLost:
        errors = self._ray.exceptions
        try:
            result: JobResult = self._ray.get(ref)
        except errors.OutOfMemoryError:
            return WorkerLost("out-of-memory", "Ray ended the worker because memory ran out")
        except errors.RayTaskError as error:
            # run_job returns every error of a job, so this is the worker's own: it cannot import
            # flowprep, or has another version of it.
            raise ExecutorError(f"a worker cannot run flowprep: {error}") from error
        except errors.RayError as error:
            summary = str(error).strip().splitlines()[0] if str(error).strip() else ""
            return WorkerLost(
                "crashed", f"the worker process ended ({type(error).__name__}: {summary})"
            )
        return result


EXECUTORS: dict[ExecutorName, type[InlineExecutor] | type[RayExecutor]] = {
    "ray": RayExecutor,
    "inline": InlineExecutor,
}
"""The executor class of each name."""


def cluster_address(address: str | None) -> str | None:
    """Returns the cluster to work on; None where Ray is to start on this machine."""
    # `ray job submit` names the cluster in the environment.
    return address or os.environ.get("RAY_ADDRESS")


def start_ray(address: str | None, *, num_cpus: int, num_gpus: int = 0) -> tuple[Any, bool]:
    """Returns the module `ray`, connected, and whether the caller is to shut it down.

    Ray is taken as it is where this process is connected already; otherwise it joins the cluster at
    `address`, or starts on this machine with so many CPUs and GPUs. Raises ExecutorError where it
    is not installed, does not start or cannot be reached.
    """
    ray = _import_ray(starts_here=address is None)
    if ray.is_initialized():
        return ray, False
    try:
        if address is not None:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level="error")
            return ray, True
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            # Results are a few hundred bytes: the frames never pass through Ray.
            object_store_memory=100 << 20,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = address or "this machine"
        raise ExecutorError(f"cannot reach or start Ray on {where}: {error}") from error
    return ray, True


def _check_reachable(address: str) -> None:
    """Raises ConnectionError where nothing listens at HOST:PORT; Ray would try for a minute."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass


def _import_ray(*, starts_here: bool) -> Any:
    # Read by Ray when it is imported or started; what the user has set stays.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Without a bound a task that runs out of memory is retried for ever.
        "RAY_task_oom_retries": "0",
        # The driver says itself which video lost its worker; this line would go to stdout.
        "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|workers? .*killed due to memory",
        # 2.60 announces a change that does not concern CPU tasks.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    if starts_here and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray's ports listen on all interfaces; a token made for this process shuts them to others.
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ExecutorError(
            f"Ray cannot be imported ({error}); install it with `pip install ray`, "
            "or use --executor inline"
        ) from error
    return ray
