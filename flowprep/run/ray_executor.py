"""Runs jobs with Ray, on this machine or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np

from flowprep.config import FlowSpec, RunOptions
from flowprep.errors import ExecutorError
from flowprep.flow.devices import Device
from flowprep.flow.estimators import check_device, has_gpu_version
from flowprep.flow.parameters import is_own
from flowprep.flow.weight_files import read
from flowprep.machine import memory_in_use
from flowprep.run.cluster import job_runtime_env, machines_of
from flowprep.run.counters import RayCounters, Sample
from flowprep.run.executor import MAX_FAILED_STARTS, Executor
from flowprep.run.job import ExtractJob, Job, JobResult, PreparedWorker, WorkerLost
from flowprep.run.options import check_options, weights_of
from flowprep.run.ray_losses import loss_of, memory_threshold, summary
from flowprep.run.ray_start import cluster_address, is_connected, only_gpu, start_ray, stop_ray
from flowprep.run.ray_watch import LOOK_SECONDS, RayWatch
from flowprep.run.run_job import DeviceWorker, run_job
from flowprep.run.versions import environment
from flowprep.run.worker_process import num_oom_kills
from flowprep.run.workers import JobQueue, WorkerKind, WorkerPlan, own_machine, plan_workers

__all__ = ["RayExecutor"]

log = getLogger("flowprep.run")

BACKLOG_PER_GPU = 32
"""Waiting jobs per GPU. They show in time that a run on GPUs and cores comes to its end."""
QUIET_START_SECONDS = 60.0
GET_SECONDS = 60.0
"""Longest time to fetch a result that is there. After it, Ray has failed."""
MIN_PENDING = 8
"""Jobs beyond the number of a small cluster's cores. They tell its autoscaler to add nodes."""
MAX_EMPTY_SECONDS = 900.0
"""Longest time that a cluster may lack the cores or GPUs of a run: a new machine takes minutes."""


@dataclass(eq=False)
class _Task:
    """Work that was given to Ray and has not ended."""

    job: Job | None
    """None while a GPU worker starts."""
    actor: Any
    """The GPU worker. None means a task on a core."""
    began: float

    @property
    def kind(self) -> WorkerKind:
        """The kind of the task's worker."""
        return "cpu" if self.actor is None else "gpu"


class RayExecutor(Executor):
    """Carries out jobs with Ray: in tasks of one core each, and in workers that stay on their GPU.

    Ray's own retries are off (`max_retries=0`). The driver counts the attempts. So a video that
    kills its worker is tried only a limited number of times, and is then named as failed.

    A GPU worker is an actor. A process stays on the GPU on which it first computed, but Ray would
    give a task's process the next task of any GPU. A GPU worker first says whether its GPU works,
    and gets jobs from then on. If a run has workers of both kinds, free workers take jobs from the
    same queue, GPU workers first.

    The nodes of a cluster come and go, and their workers with them. A job is not to blame if its
    node goes away, so this case is told apart from a worker that ends alone.
    """

    def __init__(self, options: RunOptions, flow: FlowSpec) -> None:
        self._flow = flow
        self._options = options
        self._in_flight: dict[Any, _Task] = {}
        self._idle: list[Any] = []
        self._actors: set[Any] = set()
        self._num_failed_starts = 0
        self._num_failed_setups = 0
        self._counters = RayCounters()
        self._notes: set[str] = set()
        self._num_oom_kills = num_oom_kills()
        self._memory_threshold = memory_threshold()
        self._address = cluster_address(options.address)
        # The options are checked before Ray starts, because its start takes seconds.
        check_options(options, flow.algorithm)
        runtime_env = job_runtime_env(options, self._address, flow.algorithm)
        self._is_own = self._address is None and not is_connected()
        self._device: Device | None = None
        if self._is_own:
            machine, device, plan = own_machine(options, flow.algorithm)
            with only_gpu(device):
                self._ray, self._owns_ray = start_ray(
                    None,
                    num_cpus=machine.num_cpus,
                    num_gpus=machine.num_gpus,
                    runtime_env=runtime_env,
                )
            self._watch = RayWatch(self._ray, is_cluster=False)
        else:
            self._ray, self._owns_ray = start_ray(
                self._address, num_cpus=1, runtime_env=runtime_env
            )
            self._watch = RayWatch(self._ray, is_cluster=True)
            try:
                plan = self._plan_cluster(options)
            except BaseException:
                self.close()
                raise
        self._plan = plan
        # If the user did not ask for a GPU by name and it fails, the CPU takes its place.
        self._gpu_is_required = options.device != "auto"
        self.num_workers = plan.num_workers
        self._task: Any = self._ray.remote(num_cpus=1, max_retries=0)(run_job)
        self.window = self._window_of(plan)
        self._num_cpu_free = self._cpu_slots_of(plan)
        self._queue = JobQueue(self.window)
        self._began = time.monotonic()
        self._looked = -LOOK_SECONDS
        self._empty_since: float | None = None
        self._weights = self._put_weights()
        for _ in range(plan.num_gpu_workers):
            self._start_gpu_worker()

    def submit(self, job: Job) -> None:
        if not isinstance(job, ExtractJob):
            # This job only moves bytes, on any machine. It does not wait for a GPU, and takes no
            # core of its own if all cores feed GPUs.
            has_core = self._plan.num_cpu_workers or not self._plan.num_gpu_workers
            task = self._task if has_core else self._task.options(num_cpus=0)
            self._in_flight[task.remote(job)] = _Task(job, None, time.monotonic())
        else:
            self._queue.add(job)

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        self._watch.check()
        self._follow_cluster()
        self._hand_out()
        if not self._in_flight:
            if len(self._queue):
                time.sleep(min(timeout_seconds, 0.2))
            return []
        ready, _ = self._ray.wait(
            list(self._in_flight), num_returns=1, timeout=timeout_seconds, fetch_local=False
        )
        self._say_if_none_starts()
        ended: list[tuple[Job, JobResult | WorkerLost]] = []
        for ref in ready:
            task = self._in_flight.pop(ref)
            outcome = self._outcome(ref, task.began)
            if task.job is None:
                self._after_start(task.actor, outcome)
            else:
                assert not isinstance(outcome, PreparedWorker)
                self._after_job(task, outcome)
                ended.append((task.job, outcome))
        return ended

    def is_short_of_memory(self) -> bool:
        return self._is_own and memory_in_use() >= self._memory_threshold

    def show(self, samples: Sequence[Sample]) -> None:
        self._counters.show(samples)

    def close(self) -> None:
        self._watch.close()
        if self._owns_ray:
            stop_ray(self._ray)
            return
        for ref, task in self._in_flight.items():
            if task.actor is None:
                self._ray.cancel(ref, force=True)
        for actor in self._actors:
            self._ray.kill(actor)
        self._in_flight.clear()

    def _put_weights(self) -> Any:
        """Returns Ray's reference to the estimator's weights, which each node fetches once."""
        weights_id = weights_of(self._flow)
        if weights_id is None:
            return None
        # Workers share an array in a node's memory. Bytes would be copied for each task.
        return self._ray.put(np.frombuffer(read(weights_id), np.uint8))

    def _plan_cluster(self, options: RunOptions) -> WorkerPlan:
        """Plans the workers of a cluster. Its GPUs are tried only when their workers start."""
        machines = machines_of(self._watch.nodes())
        name = options.device.removesuffix("+cpu")
        device = check_device(name, self._flow.algorithm)
        if device is None and has_gpu_version(self._flow.algorithm):
            device = Device("cuda")
        is_gpu = device is not None and device.kind != "cpu"
        if is_gpu and name != "auto" and not any(one.num_gpus for one in machines):
            raise ExecutorError(
                f"device {name!r} needs a GPU, and the Ray cluster has none; add a node with one, "
                "start Ray there with --num-gpus, or take --device cpu"
            )
        self._machines = machines
        self._device = device
        return plan_workers(options, machines, device)

    def _window_of(self, plan: WorkerPlan) -> int:
        if plan.num_gpu_workers:
            num_gpus = max(1, round(plan.num_gpu_workers * plan.gpus_per_worker))
            return plan.num_workers + (BACKLOG_PER_GPU if plan.num_cpu_workers else 1) * num_gpus
        # A second job in hand for each worker hides the driver's latency.
        if self._is_own:
            return 2 * plan.num_workers
        # Only the window limits the workers if the user caps them on a shared cluster.
        return self._options.num_workers or plan.num_workers + max(plan.num_workers, MIN_PENDING)

    def _cpu_slots_of(self, plan: WorkerPlan) -> int:
        """Returns the number of jobs for cores that Ray may have at the same time."""
        return plan.num_cpu_workers if plan.num_gpu_workers else self._window_of(plan)

    def _follow_cluster(self) -> None:
        """Adds the workers of new nodes to the plan, and drops those of nodes that have gone."""
        now = time.monotonic()
        if self._is_own or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        machines = machines_of(self._watch.nodes())
        needs_gpu = self._gpu_is_required and self._plan.num_gpu_workers > 0
        if any(one.num_gpus if needs_gpu else one.num_cpus for one in machines):
            self._empty_since = None
        else:
            self._wait_for_nodes("GPU" if needs_gpu else "CPU", now)
            if needs_gpu:
                # Cores do not take the place of a GPU that the user asked for by name.
                return
        if machines == self._machines:
            return
        before, plan = self._plan, plan_workers(self._options, machines, self._device)
        self._machines, self._plan = machines, plan
        self._num_cpu_free += self._cpu_slots_of(plan) - self._cpu_slots_of(before)
        self.num_workers = plan.num_workers
        self.window = self._queue.window = self._window_of(plan)
        log.info("the cluster has %d nodes now, %d workers", len(machines), plan.num_workers)
        for _ in range(plan.num_gpu_workers - len(self._actors)):
            self._start_gpu_worker()

    def _wait_for_nodes(self, resource: str, now: float) -> None:
        if self._empty_since is None:
            self._empty_since = now
            log.warning("the Ray cluster has no %s at present; waiting for a node", resource)
        elif now - self._empty_since > MAX_EMPTY_SECONDS:
            raise ExecutorError(
                f"the Ray cluster has had no {resource} for {MAX_EMPTY_SECONDS / 60:.0f} minutes; "
                f"add a node, or start Ray with --num-{resource.lower()}s. The same command goes on"
            )

    # ---- GPU workers

    def _start_gpu_worker(self) -> None:
        kind = self._ray.remote(
            num_cpus=self._plan.cpus_per_gpu_worker,
            num_gpus=self._plan.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
        )(DeviceWorker)
        actor = kind.remote(self._flow, self._plan.device, self._weights)
        self._actors.add(actor)
        self._in_flight[actor.prepare.remote()] = _Task(None, actor, time.monotonic())

    def _after_start(self, actor: Any, outcome: PreparedWorker | JobResult | WorkerLost) -> None:
        if isinstance(outcome, PreparedWorker) and outcome.error is None:
            log.info("GPU worker on %s: %s", outcome.node, outcome.estimator)
            for note in outcome.notes:
                self._note(f"{outcome.node}: {note}")
            self._num_failed_starts = 0
            self._idle.append(actor)
            return
        self._end_gpu_worker(actor)
        if isinstance(outcome, PreparedWorker):
            message = f"a GPU worker on {outcome.node} cannot work: {outcome.error}"
        else:
            assert isinstance(outcome, WorkerLost)
            self._num_failed_starts += not outcome.node_died
            if self._num_failed_starts < MAX_FAILED_STARTS:
                log.warning("a GPU worker ended while it started: %s", outcome.message)
                self._start_gpu_worker()
                return
            message = f"GPU workers end while they start: {outcome.message}"
        if self._gpu_is_required:
            raise ExecutorError(
                f"{message}; run `flowprep doctor` there, or go on without it: --device auto"
            )
        self._note(f"{message}; its cores work without it; run `flowprep doctor` there")
        self._num_cpu_free += max(1, int(self._plan.cpus_per_gpu_worker))

    def _end_gpu_worker(self, actor: Any) -> None:
        self._actors.discard(actor)
        with suppress(Exception):
            self._ray.kill(actor)

    def _note(self, message: str) -> None:
        """Logs a message once, even if several workers send it."""
        if message not in self._notes:
            self._notes.add(message)
            log.warning("%s", message)

    def _say_if_none_starts(self) -> None:
        """Says once why nothing happens while others use the cluster's GPUs."""
        if self._began and time.monotonic() - self._began > QUIET_START_SECONDS:
            self._began = 0.0
            if self._actors and all(task.job is None for task in self._in_flight.values()):
                log.warning(
                    "no GPU worker has started yet; where others use the cluster's GPUs, it waits "
                    "until they are free"
                )

    # ---- jobs

    def _hand_out(self) -> None:
        """Gives jobs to the workers that are free."""
        at_work: dict[WorkerKind, int] = {"cpu": 0, "gpu": 0}
        for task in self._in_flight.values():
            if task.job is not None:
                at_work[task.kind] += 1
        free: dict[WorkerKind, int] = {"cpu": self._num_cpu_free, "gpu": len(self._idle)}
        while (chosen := self._queue.take(free, at_work)) is not None:
            kind, job = chosen
            actor = self._idle.pop() if kind == "gpu" else None
            # If we started Ray, its workers have the driver's libraries. But the file of a user's
            # own estimator may have changed since.
            is_same = self._is_own and not is_own(self._flow.algorithm)
            here = None if is_same else environment(job.config)
            if actor is None:
                ref = self._task.remote(job, "cpu", here, self._weights)
            else:
                ref = actor.run_job.remote(job, here)
            self._in_flight[ref] = _Task(job, actor, time.monotonic())
            self._num_cpu_free -= kind == "cpu"
            free[kind] -= 1
            at_work[kind] += 1

    def _after_job(self, task: _Task, outcome: JobResult | WorkerLost) -> None:
        if not isinstance(task.job, ExtractJob):
            return
        if isinstance(outcome, JobResult):
            self._queue.count(task.kind, outcome.record, time.monotonic() - task.began)
        if task.actor is None:
            self._num_cpu_free += 1
        elif isinstance(outcome, JobResult):
            self._idle.append(task.actor)
        else:
            self._end_gpu_worker(task.actor)
            if len(self._actors) < self._plan.num_gpu_workers:
                self._start_gpu_worker()

    def _outcome(self, ref: Any, began: float) -> PreparedWorker | JobResult | WorkerLost:
        errors = self._ray.exceptions
        try:
            result: PreparedWorker | JobResult | WorkerLost = self._ray.get(
                ref, timeout=GET_SECONDS
            )
        except errors.RayTaskError as error:
            # run_job returns every error of a job. So this error comes from the worker, which
            # cannot import flowprep or has another version of it.
            raise ExecutorError(
                [
                    *f"a worker cannot run flowprep: {error}".splitlines(),
                    "Every node needs what flowprep needs, installed there or by --runtime-env",
                ]
            ) from error
        except errors.RuntimeEnvSetupError as error:
            # Only this node may have the problem. The run stops if it happens again and again.
            self._num_failed_setups += 1
            if self._num_failed_setups == MAX_FAILED_STARTS:
                raise ExecutorError(
                    [
                        *f"workers cannot set up their runtime environment: {error}".splitlines(),
                        "Correct what --runtime-env asks for, or leave it out",
                    ]
                ) from error
            return WorkerLost("crashed", summary("no worker could start", error), node_died=True)
        except errors.RayError as error:
            return self._loss(error, began)
        self._num_failed_setups = 0
        return result

    def _loss(self, error: Exception, began: float) -> WorkerLost:
        """Returns what an error of Ray's means; raises ExecutorError where Ray itself has ended."""
        errors = self._ray.exceptions
        if isinstance(error, errors.LocalRayletDiedError):
            raise self._watch.ended("its raylet died") from error
        self._watch.check_after_loss()
        lost = loss_of(
            *(errors, error),
            worker_memory=self._options.worker_memory,
            num_workers=self._plan.num_workers if self._is_own else self._least_cores(),
        )
        if self._is_own:
            if lost.node_died and isinstance(error, errors.NodeDiedError):
                raise self._watch.ended(lost.message) from error
            if num_oom_kills() > self._num_oom_kills and lost.reason == "crashed":
                # What it held is not known, but its own watch would have ended it before.
                self._num_oom_kills = num_oom_kills()
                message = "the system ended the worker because memory ran out"
                return WorkerLost("out-of-memory", message, is_short_of_memory=True, fault="node")
            return lost
        is_alone = not (lost.node_died or lost.is_short_of_memory)
        if is_alone and self._watch.has_lost_node_since(began):
            return WorkerLost(lost.reason, f"a node went away: {lost.message}", node_died=True)
        return lost

    def _least_cores(self) -> int:
        return min((one.num_cpus for one in self._machines if one.num_cpus), default=1)
