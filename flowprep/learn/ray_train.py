"""Runs the same training in several processes, started by Ray Train on a machine or cluster.

Each process runs `train`. Ray Train places the processes, makes the torch.distributed group and
notices processes that die. The state of the training is in the run's folder, so a new attempt
simply starts again and continues from last.pt. On a cluster, every machine must be able to read
that folder and the data sets.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import (
    ConfigError,
    ExecutorError,
    FlowprepError,
    MissingExtraError,
    TrainingError,
)
from flowprep.extras import missing_extra
from flowprep.learn.config import TrainConfig, TrainOptions
from flowprep.learn.run_folder import METRICS_FILE
from flowprep.learn.train import train
from flowprep.learn.train_report import TrainReport
from flowprep.printable import bar_stream
from flowprep.run.ray_start import cluster_address, start_ray, stop_ray
from flowprep.urls import absolute, as_path, is_url, redacted

__all__ = ["train_on_ray"]

_MAX_ATTEMPTS = 3
_RAY_FOLDER = ".ray"
_STOP_FILE = ".ray/stop"
# A step ends within this time. A test of the whole split is not waited for.
_STOP_SECONDS = 60.0


def train_on_ray(
    datasets: Sequence[FlowDataset],
    run: str | os.PathLike[str],
    config: TrainConfig,
    options: TrainOptions,
) -> TrainReport:
    """Trains as `train` does, in `options.num_workers` processes on Ray.

    Each process takes a core. If there are enough GPUs and `options.device` is not cpu, it takes a
    GPU instead. A process that dies is replaced, at most three times. Ctrl-C ends the training
    after the current step and raises KeyboardInterrupt. Raises what `train` raises, and
    ExecutorError if Ray cannot be started or lacks the cores.
    """
    import torch

    num_workers = options.num_workers or 1
    if config.optimization.batch_size % (num_workers * config.optimization.accumulate):
        raise ConfigError(
            f"batch_size must be a multiple of workers times accumulate, got "
            f"{config.optimization.batch_size}, {num_workers} and {config.optimization.accumulate}"
        )
    if is_url(os.fspath(run)):
        raise ConfigError(
            f"run must be a folder that all machines see, got {redacted(os.fspath(run))}"
        )
    run = Path(as_path(os.fspath(run))).resolve()
    address = cluster_address(options.address)
    num_gpus = 0 if options.device == "cpu" else torch.cuda.device_count()
    # Ray Train reads this variable on import, here and in its processes. It keeps relative paths
    # valid.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    ray, owns_ray = start_ray(address, num_cpus=num_workers, num_gpus=num_gpus)
    folder = run / _RAY_FOLDER
    try:
        resources = ray.cluster_resources()
        use_gpu = options.device != "cpu" and resources.get("GPU", 0) >= num_workers
        if not use_gpu and options.device.startswith("cuda"):
            raise ExecutorError(
                f"{num_workers} workers need as many GPUs, and Ray has "
                f"{resources.get('GPU', 0):g}; take fewer --workers or --device cpu"
            )
        if resources.get("CPU", 0) < num_workers:
            raise ExecutorError(
                f"{num_workers} workers need as many cores, and Ray has "
                f"{resources.get('CPU', 0):g}; take fewer --workers"
            )
        folder.mkdir(parents=True, exist_ok=True)
        job = {
            "datasets": [
                (absolute(as_path(dataset.location)), dataset.labels_name) for dataset in datasets
            ],
            "run": str(run),
            "config": config,
            "options": dataclasses.replace(options, progress=False),
        }
        with _Bar(run, options.progress) as bar:
            return _attempt(job, num_workers, use_gpu, folder, bar)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if owns_ray:
            stop_ray(ray)


def _attempt(
    job: dict[str, Any], num_workers: int, use_gpu: bool, folder: Path, bar: _Bar
) -> TrainReport:
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        trainer = _make_trainer(job, num_workers, use_gpu, folder)
        outcome = _fit(trainer, folder, bar)
        if isinstance(outcome, TrainReport):
            return outcome
        if isinstance(outcome, KeyboardInterrupt):
            raise outcome
        # An error in one process appears in the other processes as a lost connection.
        failures = getattr(outcome, "worker_failures", {}).values()
        for failure in failures:
            cause = _origin(failure)
            if isinstance(cause, FlowprepError):
                raise cause
        if attempt == _MAX_ATTEMPTS or not isinstance(outcome, Exception):
            raise TrainingError(
                f"the processes of the training ended {attempt} times: {_last_line(outcome)}. "
                "Run the same command to go on from the last checkpoint"
            ) from outcome
    raise AssertionError


def _make_trainer(job: dict[str, Any], num_workers: int, use_gpu: bool, folder: Path) -> Any:
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        words = missing_extra(
            "--workers", f"Ray Train ({_last_line(error)})", "train", otherwise="train without it"
        )
        raise MissingExtraError(words) from error
    loop: Callable[..., Any] = _work
    return TorchTrainer(
        loop,
        train_loop_config=job,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=RunConfig(name="train", storage_path=str(folder)),
    )


def _work(job: dict[str, Any]) -> TrainReport | None:
    """Runs in each process. Returns None if the training was asked to stop."""
    import ray.train.torch

    options: TrainOptions = job["options"]
    device = str(ray.train.torch.get_device())
    stop = Path(job["run"]) / _STOP_FILE
    try:
        return train(
            [open_dataset(location, labels=labels) for location, labels in job["datasets"]],
            job["run"],
            job["config"],
            dataclasses.replace(options, device=device),
            is_stop_asked=stop.exists,
        )
    except KeyboardInterrupt:
        return None


def _fit(trainer: Any, folder: Path, bar: _Bar) -> TrainReport | BaseException:
    """Runs Ray Train in a thread, because its own handling of Ctrl-C loses the last steps."""
    outcome: list[TrainReport | BaseException] = []
    # Not `join`: after Ctrl-C, Python 3.11 believes that the thread has ended.
    has_ended = threading.Event()

    def fit() -> None:
        try:
            report = trainer.fit().return_value
            outcome.append(KeyboardInterrupt() if report is None else report)
        except BaseException as error:
            outcome.append(error)
        finally:
            has_ended.set()

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    try:
        while not has_ended.wait(0.2):
            bar.show()
    except KeyboardInterrupt:
        (folder.parent / _STOP_FILE).touch()
        has_ended.wait(_STOP_SECONDS)
        raise
    return outcome[0]


class _Bar:
    """A progress bar that follows metrics.csv, which another process writes."""

    def __init__(self, run: Path, enabled: bool | None) -> None:
        self._path = run / METRICS_FILE
        self._size = 0
        # None tells tqdm to be quiet if stderr is not a terminal.
        disable = None if enabled is None else not enabled
        self._bar = tqdm(unit="step", dynamic_ncols=True, file=bar_stream(), disable=disable)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self) -> None:
        """Moves to the step of the last complete line."""
        if self._bar.disable or not self._path.exists():
            return
        if (size := self._path.stat().st_size) == self._size:
            return
        self._size = size
        row = self._path.read_text(encoding="utf-8").rpartition("\n")[0].rpartition("\n")[2]
        step, _, split, _, loss, top1, *_ = row.split(",")
        if step.isdigit():
            self._bar.n = int(step)
            self._bar.set_postfix({f"{split} loss": loss, "top1": top1})


def _origin(error: BaseException) -> BaseException:
    """Returns the error that a worker raised, without the errors that Ray wraps around it."""
    while True:
        inner = getattr(error, "cause", None) or getattr(error, "_base_exc", None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
