"""Runs the same training in several processes, started by Ray Train on a machine or cluster.

Each process runs `train`. Ray Train places the processes, makes the torch.distributed group and
notices processes that die. The state of the training is in the run's folder, so a new attempt
simply starts again and continues from last.pt. On a cluster, every machine must be able to read
that folder and the data sets.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
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
from flowprep.learn.signals import Signals, watched_signals
from flowprep.learn.train import train
from flowprep.learn.train_report import TrainReport
from flowprep.locks import locked_file
from flowprep.run.ray_start import cluster_address, start_ray, stop_ray
from flowprep.storage import Storage
from flowprep.storage_errors import translated_errors
from flowprep.urls import absolute, as_path, is_url, redacted

__all__ = ["train_on_ray"]

_MAX_ATTEMPTS = 3
# The driver that holds the lock owns the folder, and makes it anew in each run of the command.
_LOCK_FILE = ".ray-lock"
_RAY_FOLDER = ".ray"
_STARTED_FILE = "started"
_STOP_FILE = "stop"
_NOTES_FILE = "notes.jsonl"


def train_on_ray(
    datasets: Sequence[FlowDataset],
    run: str | os.PathLike[str],
    config: TrainConfig,
    options: TrainOptions,
    *,
    on_note: Callable[[str], None] = lambda note: None,
    on_interrupt: Callable[[int], None] = lambda count: None,
) -> TrainReport:
    """Trains as `train` does, in `options.num_workers` processes on Ray.

    Each process takes a core. If there are enough GPUs and `options.device` is not cpu, it takes a
    GPU instead. A process that dies is replaced, at most three times. Ctrl-C and SIGTERM to this
    process end the training after the current step: this process waits for the checkpoint of the
    others and raises KeyboardInterrupt. `on_note` and `on_interrupt` are those of `train`. Raises
    what `train` raises, and ExecutorError if Ray cannot be started or lacks the cores.
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
    storage = Storage(run)
    storage.make_folder()
    taken = f"another training is writing to {run}"
    with (
        locked_file(run / _LOCK_FILE, taken, "wait for it, end it, or choose another --run"),
        _Bar(run, options.progress) as bar,
    ):
        # A killed driver may have left its request to stop.
        storage.remove(_RAY_FOLDER)
        storage.make_folder(_RAY_FOLDER)
        driver = _Driver(run / _RAY_FOLDER, bar, on_note)
        ray, owns_ray = start_ray(address, num_cpus=num_workers, num_gpus=num_gpus)
        try:
            use_gpu = _check_resources(ray, num_workers, options.device)
            job = {
                "datasets": [
                    (absolute(as_path(dataset.location)), dataset.labels_name)
                    for dataset in datasets
                ],
                "run": str(run),
                "config": config,
                "options": dataclasses.replace(options, progress=False),
            }
            # After the start of Ray, which sets its own handler of SIGTERM.
            with watched_signals(on_interrupt) as driver.signals:
                return _attempt(job, num_workers, use_gpu, driver)
        finally:
            shutil.rmtree(run / _RAY_FOLDER, ignore_errors=True)
            if owns_ray:
                stop_ray(ray)


def _check_resources(ray: Any, num_workers: int, device: str) -> bool:
    """Returns whether each process gets a GPU; raises ExecutorError if there are too few."""
    resources = ray.cluster_resources()
    use_gpu = device != "cpu" and resources.get("GPU", 0) >= num_workers
    if not use_gpu and device.startswith("cuda"):
        raise ExecutorError(
            f"{num_workers} workers need as many GPUs, and Ray has "
            f"{resources.get('GPU', 0):g}; take fewer --workers or --device cpu"
        )
    if resources.get("CPU", 0) < num_workers:
        raise ExecutorError(
            f"{num_workers} workers need as many cores, and Ray has "
            f"{resources.get('CPU', 0):g}; take fewer --workers"
        )
    return bool(use_gpu)


def _attempt(job: dict[str, Any], num_workers: int, use_gpu: bool, driver: _Driver) -> TrainReport:
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        trainer = _make_trainer(job, num_workers, use_gpu, driver.folder)
        outcome = driver.fit(trainer)
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
        if driver.signals.is_raised:
            raise KeyboardInterrupt from outcome
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
    folder = Path(job["run"]) / _RAY_FOLDER
    with translated_errors("write", str(folder)):
        (folder / _STARTED_FILE).touch()

    def tell(note: str) -> None:
        with translated_errors("write", str(folder)), open(folder / _NOTES_FILE, "a") as file:
            file.write(json.dumps(note) + "\n")

    try:
        return train(
            [open_dataset(location, labels=labels) for location, labels in job["datasets"]],
            job["run"],
            job["config"],
            dataclasses.replace(options, device=device),
            is_stop_asked=(folder / _STOP_FILE).exists,
            on_note=tell,
        )
    except KeyboardInterrupt:
        return None


class _Driver:
    """The process of the command: it follows and stops the processes that train."""

    signals: Signals

    def __init__(self, folder: Path, bar: _Bar, on_note: Callable[[str], None]) -> None:
        self.folder = folder
        self._bar = bar
        self._on_note = on_note
        self._notes: list[str] = []

    def fit(self, trainer: Any) -> TrainReport | BaseException:
        """Runs Ray Train in a thread, because its own handling of Ctrl-C loses the last steps."""
        outcome: list[TrainReport | BaseException] = []
        # Not `join`: after Ctrl-C, Python 3.11 believes that the thread has ended.
        has_ended = threading.Event()

        def run() -> None:
            try:
                report = trainer.fit().return_value
                outcome.append(KeyboardInterrupt() if report is None else report)
            except BaseException as error:
                outcome.append(error)
            finally:
                has_ended.set()

        with self.signals.kept():
            threading.Thread(target=run, name="ray-train", daemon=True).start()
            while not has_ended.wait(0.2):
                self._bar.show()
                self._tell()
                if self.signals.is_raised:
                    self._ask_to_stop()
        self._tell()
        return outcome[0]

    def _ask_to_stop(self) -> None:
        """Asks the processes to write a checkpoint after their current step, and to end.

        Raises KeyboardInterrupt if no process has started yet.
        """
        if not (self.folder / _STARTED_FILE).exists():
            raise KeyboardInterrupt
        stop = self.folder / _STOP_FILE
        if not stop.exists():
            with translated_errors("write", str(stop)):
                stop.touch()

    def _tell(self) -> None:
        """Passes new notes on. A second attempt repeats most notes of the first one."""
        path = self.folder / _NOTES_FILE
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        for note in map(json.loads, lines):
            if note not in self._notes:
                self._notes.append(note)
                self._on_note(note)


class _Bar:
    """A progress bar that follows metrics.csv, which another process writes."""

    def __init__(self, run: Path, enabled: bool | None) -> None:
        self._path = run / METRICS_FILE
        self._size = 0
        # None tells tqdm to be quiet if stderr is not a terminal.
        disable = None if enabled is None else not enabled
        self._bar = tqdm(unit="step", dynamic_ncols=True, file=sys.stderr, disable=disable)

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
