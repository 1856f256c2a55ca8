"""Divides cores and GPUs among workers, and chooses the worker for the next job."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flowprep.config import RunOptions
from flowprep.flow.devices import Device, cuda_state
from flowprep.flow.estimators import resolve_device
from flowprep.machine import usable_cores

if TYPE_CHECKING:
    from flowprep.dataset.layout import VideoRecord
    from flowprep.run.job import ExtractJob

__all__ = ["JobQueue", "Machine", "WorkerKind", "WorkerPlan", "own_machine", "plan_workers"]

WorkerKind = Literal["cpu", "gpu"]

MOST_WORKERS_PER_GPU = 8
"""Each worker holds its own CUDA context and batch, and each further worker helps less."""
GPU_BYTES_PER_WORKER = 3 << 30
"""A CUDA context and PyTorch's kernels take about 0.8 GB. A TV-L1 batch takes 1.7 GB
(`base_torch`)."""


@dataclass(frozen=True)
class Machine:
    """The cores and GPUs that a machine has for workers."""

    num_cpus: int
    num_gpus: int = 0


@dataclass(frozen=True)
class WorkerPlan:
    """The number of workers of each kind, and each worker's share of its machine."""

    num_cpu_workers: int
    num_gpu_workers: int = 0
    device: str = "cpu"
    """The device of the GPU workers, as each of them sees it."""
    cpus_per_gpu_worker: float = 0
    gpus_per_worker: float = 0
    """Share of a GPU that Ray gives to each worker."""

    @property
    def num_workers(self) -> int:
        """Number of workers of both kinds."""
        return self.num_cpu_workers + self.num_gpu_workers


def plan_workers(
    options: RunOptions,
    machines: Sequence[Machine],
    device: Device | None,
    *,
    gpu_memory_bytes: int | None = None,
) -> WorkerPlan:
    """Divides cores and GPUs among workers. `device` is the device of the GPU workers, if any.

    Several workers share each GPU, and each has its own video. While the GPU computes the fields of
    one worker, the others decode and encode. All cores of a machine with a GPU do that work,
    because a CPU worker would take cores away from a GPU that is as fast as tens of cores. A
    machine without a GPU gets one CPU worker per core. If the user names a device, only that device
    computes flow. With `+cpu`, CPU workers also get every core that feeds no GPU, at least half of
    the cores.
    """
    num_cpus = sum(one.num_cpus for one in machines)
    num_gpus = sum(one.num_gpus for one in machines)
    if device is None or device.kind == "cpu" or not num_gpus:
        return WorkerPlan(min(options.num_workers or num_cpus, num_cpus))
    is_mixed = options.device.endswith("+cpu")
    with_gpus = [one for one in machines if one.num_gpus]
    per_gpu = options.workers_per_gpu
    if per_gpu is None:
        cores = min(one.num_cpus // one.num_gpus for one in with_gpus)
        per_gpu = min(cores // 2 if is_mixed else cores, MOST_WORKERS_PER_GPU)
        if gpu_memory_bytes is not None:
            per_gpu = min(per_gpu, gpu_memory_bytes // GPU_BYTES_PER_WORKER)
        per_gpu = max(1, per_gpu)
    if options.num_workers is not None:
        # Ray fills one GPU after the other. With smaller shares the last GPUs would stay idle.
        per_gpu = min(per_gpu, math.ceil(options.num_workers / num_gpus))
    num_gpu_workers = min(num_gpus * per_gpu, options.num_workers or num_gpus * per_gpu)
    cpus = min(one.num_cpus / (one.num_gpus * per_gpu) for one in with_gpus)
    # Ray takes whole numbers of CPUs, or fractions of one CPU in steps of 1/10,000.
    cpus = float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * 10000) / 10000
    if is_mixed:
        cpus = min(cpus, 1.0)
    num_cpu_workers = 0
    if is_mixed or options.device == "auto":
        num_cpu_workers = sum(
            int(one.num_cpus - one.num_gpus * per_gpu * cpus + 1e-6) for one in machines
        )
    if options.num_workers is not None:
        num_cpu_workers = min(num_cpu_workers, options.num_workers - num_gpu_workers)
    return WorkerPlan(
        num_cpu_workers=num_cpu_workers,
        num_gpu_workers=num_gpu_workers,
        # Ray shows each worker only its own GPU, which is then the first one.
        device=str(replace(device, index=None)),
        cpus_per_gpu_worker=cpus,
        gpus_per_worker=math.floor(10000 / per_gpu) / 10000,
    )


def own_machine(options: RunOptions, algorithm: str) -> tuple[Machine, Device | None, WorkerPlan]:
    """Returns this machine, the device that its GPU workers would use, and the workers of a run.

    Raises ConfigError for a requested GPU that cannot be used.
    """
    device = resolve_device(options.device.removesuffix("+cpu"), algorithm)
    if device.kind == "cpu":
        # The user may ask for more workers than cores, even if this is strange.
        machine = Machine(options.num_workers or usable_cores())
        return machine, None, plan_workers(options, [machine], None)
    gpus = cuda_state().gpus if device.kind == "cuda" else ()
    if device.index is not None:
        gpus = gpus[device.index : device.index + 1]
    machine = Machine(usable_cores(), max(1, len(gpus)))
    memory = min((gpu.memory_bytes for gpu in gpus), default=None)
    plan = plan_workers(options, [machine], device, gpu_memory_bytes=memory)
    return machine, device, plan


class JobQueue:
    """The waiting jobs, and the choice of the kind of worker for the next job."""

    def __init__(self, window: int) -> None:
        self.window = window
        """Number of jobs that are waiting or at work as long as more jobs are to come."""
        self._jobs: deque[ExtractJob] = deque()
        self._seconds: dict[WorkerKind, float] = {"cpu": 0.0, "gpu": 0.0}
        self._num_pixels: dict[WorkerKind, int] = {"cpu": 0, "gpu": 0}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: ExtractJob) -> None:
        """Takes a job."""
        self._jobs.append(job)

    def count(self, kind: WorkerKind, record: VideoRecord | None, seconds: float) -> None:
        """Counts the work that a worker did in `seconds`, to measure the speed of its kind."""
        if record is not None:
            self._seconds[kind] += seconds
            self._num_pixels[kind] += record.num_flows * record.width * record.height

    def take(
        self, free: Mapping[WorkerKind, int], at_work: Mapping[WorkerKind, int]
    ) -> tuple[WorkerKind, ExtractJob] | None:
        """Returns the next job and the kind of worker for it, or None if the job must wait.

        `free` and `at_work` count the workers of each kind.
        """
        if not self._jobs:
            return None
        # A job that failed on a GPU, perhaps because memory ran out, may succeed on a core.
        if free["cpu"] > 0 and self._jobs[0].attempt > 1:
            return "cpu", self._jobs.popleft()
        if free["gpu"] > 0:
            return "gpu", self._jobs.popleft()
        if free["cpu"] > 0 and not self._gpus_end_first(at_work):
            return "cpu", self._jobs.popleft()
        return None

    def _gpus_end_first(self, at_work: Mapping[WorkerKind, int]) -> bool:
        """Whether GPU workers will finish all remaining jobs before a CPU worker finishes one.

        In that case, a job on a CPU worker would only delay the end of the run.
        """
        if not at_work["gpu"] or sum(at_work.values()) + len(self._jobs) >= self.window:
            return False  # more are to come
        if not (self._num_pixels["cpu"] and self._num_pixels["gpu"]):
            return False
        pace = {kind: self._seconds[kind] / self._num_pixels[kind] for kind in self._seconds}
        return len(self._jobs) / at_work["gpu"] < pace["cpu"] / pace["gpu"]
