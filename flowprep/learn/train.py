"""Training: one loop, read from top to bottom, the same in one process and in many.

    data sets -> TrainingClips -> batches -> network -> loss -> step of the optimizer
                                                           every so often: a line of metrics.csv,
                                                           a test, a checkpoint

What a step computes follows from the configuration, the data and the number of the step: samples
from (seed, position), dropout from (seed, step, rank), the learning rate from the step. So a run
that was killed goes on from its checkpoint and ends in the same weights, bit for bit, as one that
was not: on CPUs with the same number of threads and processes. On GPUs some kernels of cuDNN sum
in an order of their own, and two runs agree but for rounding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, ConfigMismatchError, TrainingError
from flowprep.learn.checkpoint import (
    Checkpoint,
    Task,
    build_model,
    check_data,
    describe_task,
    save_checkpoint,
)
from flowprep.learn.clips.select import select_videos
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.config import VIEWS, TrainConfig, TrainOptions
from flowprep.learn.distributed import Process, join_processes
from flowprep.learn.evaluate import score_videos
from flowprep.learn.models.base import Layout
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.tsn import TSN
from flowprep.learn.optimization import count_steps, learning_rate, make_optimizer, task_loss
from flowprep.learn.placement import autocast, default_loaders, place_model, with_channels_last
from flowprep.learn.run_folder import BEST_FILE, LAST_FILE, MetricsRow, RunFolder
from flowprep.learn.scores import Scores
from flowprep.learn.weights.load import load_weights_into
from flowprep.words import format_count, format_duration

__all__ = ["TrainReport", "train"]

# Tells the seeds of dropout from those of samples.
_DROPOUT = 2


@dataclass(frozen=True)
class TrainReport:
    """What a training came to."""

    run: str
    """The folder."""
    num_steps: int
    """Of the whole training."""
    num_new_steps: int
    """Of this run; 0 where the training had been finished before."""
    num_videos: int
    """Training videos."""
    seconds: float
    """Of this run."""
    loss: float | None = None
    """The last line's of the training split."""
    top1: float | None = None
    """Of the last test, the mean over data sets; None where there is no test split."""
    best_top1: float | None = None
    best_step: int | None = None
    notes: tuple[str, ...] = ()
    """What the user should know about data and first weights."""

    @property
    def exit_code(self) -> int:
        """0, as an unfinished training raises."""
        return 0

    def summary(self) -> str:
        """Returns the report as lines of text."""
        before = "" if self.num_new_steps else ", before this run"
        lines = [f"trained: {format_count(self.num_steps, 'step')} in {self.run}{before}"]
        lines.append(f"  videos        {self.num_videos}")
        if self.num_new_steps:
            steps = format_count(self.num_new_steps, "step")
            rate = self.num_new_steps / max(1e-9, self.seconds)
            lines.append(
                f"  this run      {steps} in {format_duration(self.seconds)} ({rate:.2f} steps/s)"
            )
        if self.loss is not None:
            lines.append(f"  loss          {self.loss:.4f}")
        if self.top1 is not None:
            lines.append(f"  test top-1    {100 * self.top1:.1f} %")
        if self.best_top1 is not None:
            best = f"{100 * self.best_top1:.1f} % after step {self.best_step}"
            lines.append(f"  best top-1    {best}, in {Path(self.run) / BEST_FILE}")
        lines.append(f"  last weights  {Path(self.run) / LAST_FILE}")
        return "\n".join(lines)


def train(
    datasets: Sequence[FlowDataset],
    run: str | os.PathLike[str],
    config: TrainConfig,
    options: TrainOptions | None = None,
    *,
    is_stop_asked: Callable[[], bool] = lambda: False,
    on_note: Callable[[str], None] = lambda note: None,
) -> TrainReport:
    """Trains a network on data sets into the folder `run`, and goes on where a run left off.

    With several data sets the network has a head for each, and their losses are summed. Under
    torchrun, or with a torch.distributed group that exists already, this process takes its part of
    the training; `options.num_workers` does not count here (`ray_train.train_on_ray` starts them).
    `is_stop_asked` is asked after every step; `on_note` is told, before the first one, what the
    user should know of data and weights, which the report has too.

    Ctrl-C and SIGTERM end the training after the step at hand: a checkpoint is written and
    KeyboardInterrupt raised. Raises ConfigError for options that cannot be, ConfigMismatchError
    where `run` was trained with another configuration or on other data, DatasetError for data that
    is damaged or has no labels, WeightsError for a checkpoint that cannot be read, TrainingError
    where the loss is no number any more.
    """
    options = options or TrainOptions()
    folder = RunFolder(run)
    with join_processes(options.device) as process:
        lock = folder.locked() if process.is_main else nullcontext()
        with lock, _signals() as signals:
            return _train(
                datasets, folder, config, options, process, signals, is_stop_asked, on_note
            )


def _train(
    datasets: Sequence[FlowDataset],
    folder: RunFolder,
    config: TrainConfig,
    options: TrainOptions,
    process: Process,
    signals: _Signals,
    is_stop_asked: Callable[[], bool],
    on_note: Callable[[str], None],
) -> TrainReport:
    began = time.monotonic()
    spec, device = config.optimization, process.device
    num_loaders = _num_loaders(options)

    # ---- where the training stands
    checkpoint = process.share(folder.last(config) if process.is_main else None)
    tasks = _name_tasks(datasets)
    torch.manual_seed(config.seed)
    network = build_model(config, [len(task.class_names) for task in tasks])
    clips = TrainingClips(datasets, config, network.layout)
    tests = _test_views(datasets, config, network)
    digest = _digest(datasets, config)
    num_steps = count_steps(spec, clips.num_videos)
    _check_parts(config, process, network.layout)
    notes = _notes(clips, checkpoint, tasks, datasets, config, digest, options)
    if checkpoint is None and config.model.weights is not None:
        trunk = network.model if isinstance(network, MultiTask) else network
        notes = (*notes, load_weights_into(trunk, config.model.weights).summary())
    if process.is_main:
        for note in notes:
            on_note(note)

    step, tested_step = 0, 0
    best: tuple[float, int] | None = None
    last_loss: float | None = None
    last_top1: float | None = None
    seconds_before = 0.0
    totals = torch.zeros(4, dtype=torch.float64)  # loss, right samples, samples, steps
    if checkpoint is not None:
        assert checkpoint.training is not None
        state = checkpoint.training
        step, tested_step, best = checkpoint.step, state["tested_step"], state["best"]
        last_loss, last_top1 = state["loss"], state["top1"]
        seconds_before = state["seconds"]
        if process.is_main:
            totals = state["totals"]
        network.load_state_dict(checkpoint.model)
    totals = totals.to(device)

    # ---- network and optimizer
    if options.channels_last:
        place_model(network, device)
    network.to(device).train()
    optimizer = make_optimizer(spec, network)
    scaler = torch.amp.GradScaler(device.type, enabled=spec.precision == "fp16")
    if checkpoint is not None:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    first_step, checkpoint = step, None

    runner: Any = network
    distributed: DistributedDataParallel | None = None
    if process.world_size > 1:
        ids = [device.index] if device.type == "cuda" else None
        runner = distributed = DistributedDataParallel(network, device_ids=ids)
    if options.compile:
        runner = torch.compile(runner)

    def save(name: str = LAST_FILE, *, is_whole: bool = True) -> None:
        training = {
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "tested_step": tested_step,
            "best": best,
            "loss": last_loss,
            "top1": last_top1,
            "totals": totals.cpu(),
            "seconds": seconds_before + time.monotonic() - began,
            "videos": digest,
        }
        save_checkpoint(
            folder.path / name,
            Checkpoint(config, tasks, step, network.state_dict(), training if is_whole else None),
        )

    def report() -> TrainReport:
        return TrainReport(
            run=str(folder.path),
            num_steps=num_steps,
            num_new_steps=step - first_step,
            num_videos=clips.num_videos,
            seconds=time.monotonic() - began,
            loss=last_loss,
            top1=last_top1,
            best_top1=best[0] if best else None,
            best_step=best[1] if best else None,
            notes=notes,
        )

    if step == num_steps and tested_step == num_steps:
        return report()
    if process.is_main:
        folder.begin(config, tasks, step, tensorboard=options.tensorboard)
    steps_per_test = max(1, round(options.test_every_epochs * clips.num_videos / spec.batch_size))

    def is_test_due() -> bool:
        return step == num_steps or (bool(tests) and step % steps_per_test == 0)

    batches = iter(
        training_loader(
            clips,
            # Part by part, so that no more of a large batch is in memory than the network takes.
            batch_size=spec.batch_size // spec.accumulate,
            first_step=step * spec.accumulate,
            num_steps=num_steps * spec.accumulate,
            rank=process.rank,
            world_size=process.world_size,
            num_loaders=num_loaders,
        )
    )
    saved_at = logged_at = time.monotonic()
    logged_step = step
    bar = _bar(step, num_steps, options, process)

    # ---- the loop; `step` counts the steps that are done
    with bar:
        while True:
            if tested_step < step and is_test_due():
                try:
                    with signals.at_once():
                        measured = _test(network, tests, config, process, num_loaders)
                except KeyboardInterrupt:
                    if process.is_main:
                        save()
                    raise
                tested_step = step
                for task, (test_loss, test_top1) in zip(tasks, measured, strict=False):
                    if process.is_main:
                        epoch = step * spec.batch_size / clips.num_videos
                        folder.add(
                            MetricsRow(
                                step, epoch, config.test_split, task.name, test_loss, test_top1
                            )
                        )
                if measured:
                    last_top1 = sum(top1 for _, top1 in measured) / len(measured)
                    bar.set_postfix({"loss": f"{last_loss:.3f}", "top1": f"{last_top1:.3f}"})
                    if best is None or last_top1 > best[0]:
                        best = (last_top1, step)
                        if process.is_main:
                            save(BEST_FILE, is_whole=False)
                if process.is_main:
                    save()
                saved_at = time.monotonic()
                logged_at, logged_step = saved_at, step
            if step == num_steps:
                return report()

            rate = learning_rate(spec, step, num_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(_dropout_seed(config.seed, step, process.rank))
            counts = clips.count_tasks(step * spec.batch_size, spec.batch_size)
            for part in range(spec.accumulate):
                batch = next(batches)
                x = batch["clip"].to(device, non_blocking=True)  # (n, S, C, ...)
                labels = batch["label"].to(device, non_blocking=True)  # (n,)
                owners = batch["task"].to(device, non_blocking=True)  # (n,)
                is_last_part = part + 1 == spec.accumulate
                with _gradients_kept(distributed, is_last_part), autocast(device, spec.precision):
                    logits = _forward(runner, network, x, options.channels_last)
                    loss = task_loss(
                        logits, labels, owners, counts, label_smoothing=spec.label_smoothing
                    )
                # DistributedDataParallel takes the mean over processes; the parts are to be summed.
                scaler.scale(loss * process.world_size).backward()  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    right = sum(
                        ((scores.argmax(1) == labels) & (owners == task)).sum()
                        for task, scores in enumerate(logits)
                    )
                    totals[0] += loss.double()
                    totals[1] += right
                    totals[2] += len(labels)
            totals[3] += 1 / process.world_size
            if spec.clip_gradient_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), spec.clip_gradient_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            bar.update()

            # What one process wants, all do, after the same step.
            now = time.monotonic()
            is_save_due = process.is_main and now - saved_at >= options.checkpoint_seconds
            wishes = torch.tensor([signals.is_raised or is_stop_asked(), is_save_due]).int()
            stops, saves = process.sum(wishes).tolist() if process.world_size > 1 else wishes
            is_log_due = step % options.log_every == 0 or is_test_due()
            if not (stops or saves or is_log_due):
                continue
            joined = process.sum(totals)
            totals = (joined if process.is_main else torch.zeros_like(joined)).to(device)
            mean_loss = float(joined[0] / joined[3])
            if not math.isfinite(mean_loss):
                raise TrainingError(
                    f"the loss is {mean_loss} after step {step}; take a lower --learning-rate, "
                    f"--warmup or --clip-gradient. {folder.path / LAST_FILE} has the last good step"
                )
            if is_log_due:
                last_loss, top1 = mean_loss, float(joined[1] / joined[2])
                num_clips = (step - logged_step) * spec.batch_size * config.clip.num_segments
                row = MetricsRow(
                    step,
                    step * spec.batch_size / clips.num_videos,
                    "train",
                    "+".join(task.name for task in tasks),
                    mean_loss,
                    top1,
                    rate,
                    num_clips / max(1e-9, now - logged_at),
                    seconds_before + now - began,
                )
                if process.is_main:
                    folder.add(row)
                bar.set_postfix({"loss": f"{mean_loss:.3f}", "top1": f"{top1:.3f}"})
                totals.zero_()
                logged_at, logged_step = now, step
            if stops or saves:
                if process.is_main:
                    save()
                saved_at = time.monotonic()
            if stops:
                raise KeyboardInterrupt


# ---- parts of a step


def _forward(
    runner: Callable[[torch.Tensor], Any], network: nn.Module, x: torch.Tensor, channels_last: bool
) -> tuple[torch.Tensor, ...]:
    """Returns (n, K) logits for each task from clips (n, S, C, ...).

    TSN joins the scores of the S clips of a video itself; of other networks the mean is taken.
    """
    shape = x.shape[:2]
    x = x.flatten(0, 1)  # (n S, C, ...)
    if channels_last:
        x = with_channels_last(x)
    model = network.model if isinstance(network, MultiTask) else network
    joins = isinstance(model, TSN)
    output = runner(x.view(*shape, *x.shape[1:]) if joins else x)
    logits = output if isinstance(output, tuple) else (output,)
    if joins or shape[1] == 1:
        return logits
    return tuple(scores.view(*shape, -1).mean(1) for scores in logits)


def _test(
    network: nn.Module,
    tests: Sequence[TestViews],
    config: TrainConfig,
    process: Process,
    num_loaders: int,
) -> list[tuple[float, float]]:
    """Returns (loss, top-1) of each data set's test split, from one view of each video."""
    process.share_buffers(network)
    measured = []
    for number, views in enumerate(tests):
        own = score_videos(
            network,
            views,
            device=process.device,
            precision=config.optimization.precision,
            num_loaders=num_loaders,
            task=number,
            rank=process.rank,
            world_size=process.world_size,
        )
        scores = Scores.interleave(process.gather(own))
        known = np.flatnonzero(scores.is_labelled)
        likelihoods = scores.probabilities[known, scores.labels[known]]
        loss = float(-np.log(np.maximum(likelihoods, 1e-12)).mean())
        measured.append((loss, scores.metrics()["top1"]))
    return measured


def _gradients_kept(
    distributed: DistributedDataParallel | None, is_last_part: bool
) -> AbstractContextManager[Any]:
    """Lets processes add up their gradients after the last part of a batch only."""
    if distributed is None or is_last_part:
        return nullcontext()
    return distributed.no_sync()


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, _DROPOUT, step, rank)).generate_state(1)[0])


# ---- before the loop


def _name_tasks(datasets: Sequence[FlowDataset]) -> tuple[Task, ...]:
    """Describes the data sets; those with the same name are called by their whole location."""
    if not datasets:
        raise ConfigError("datasets must be one or more, got none")
    tasks = [describe_task(dataset) for dataset in datasets]
    names = [task.name for task in tasks]
    return tuple(
        dataclasses.replace(task, name=dataset.location) if names.count(task.name) > 1 else task
        for task, dataset in zip(tasks, datasets, strict=True)
    )


def _test_views(
    datasets: Sequence[FlowDataset], config: TrainConfig, network: Any
) -> list[TestViews]:
    """Returns the centre view of each data set's labelled test videos; none without a split."""
    if config.test_split == "none":
        return []
    tests = []
    for dataset in datasets:
        places = [
            place
            for place in select_videos(dataset, config.test_split).tolist()
            if dataset.videos[place].label is not None
        ]
        if not places:
            raise ConfigError(
                f"test_split must have labelled videos, and of {config.test_split!r} in "
                f"{dataset.location} none has one label; name another split, or none"
            )
        keys = [dataset.videos[place].key for place in places]
        tests.append(TestViews(dataset, config.clip, network.layout, VIEWS["center"], videos=keys))
    return tests


def _digest(datasets: Sequence[FlowDataset], config: TrainConfig) -> str:
    """Returns a checksum of the training videos: their order decides which sample is where."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for place in select_videos(dataset, config.train_split).tolist():
            video = dataset.videos[place]
            digest.update(f"{video.key} {video.labels} {video.num_frames}\n".encode())
    return digest.hexdigest()


def _check_parts(config: TrainConfig, process: Process, layout: Layout) -> None:
    spec = config.optimization
    parts = process.world_size * spec.accumulate
    if spec.batch_size % parts:
        raise ConfigError(
            f"batch_size must be a multiple of {parts}, which is processes times accumulate, got "
            f"{spec.batch_size}"
        )
    if spec.precision == "fp16" and process.device.type != "cuda":
        raise ConfigError(
            f"precision fp16 needs a GPU, and the device is {process.device}; take bf16 or fp32"
        )
    if spec.precision == "bf16" and layout == "volume" and process.device.type == "cpu":
        # oneDNN's gradient for maps of two frames holds memory that nobody wrote (torch 2.13 on
        # AVX512-BF16), and a loss of NaN is the best that can come of it.
        raise ConfigError(
            f"precision of {config.model.model} must be fp32 on a CPU, where PyTorch gets the "
            "gradients of 3D convolutions in bf16 wrong; take fp32, or a GPU"
        )


def _notes(
    clips: TrainingClips,
    checkpoint: Checkpoint | None,
    tasks: Sequence[Task],
    datasets: Sequence[FlowDataset],
    config: TrainConfig,
    digest: str,
    options: TrainOptions,
) -> tuple[str, ...]:
    """Returns what the user should know; raises where the data is not that of the checkpoint."""
    notes = []
    if clips.num_skipped:
        skipped = format_count(clips.num_skipped, "video")
        notes.append(
            f"left out {skipped} of the training split without a label or with several; give one "
            "label to each with `flowprep label`, and train with --labels"
        )
    for dataset in datasets:
        notes += dataset.labels_notes
    if checkpoint is None:
        return tuple(notes)
    if len(checkpoint.tasks) != len(tasks):
        names = [", ".join(task.name for task in some) for some in (checkpoint.tasks, tasks)]
        raise ConfigMismatchError(
            f"the run was trained on other data sets: {names[0]} so far, {names[1]} now; go on "
            "with the same ones, or choose another --run",
            {"tasks": (names[0], names[1])},
        )
    for task, dataset in zip(checkpoint.tasks, datasets, strict=True):
        if task.labels != dataset.labels_name:
            before, now = (
                f"labels {name}" if name is not None else "the data set's own labels"
                for name in (task.labels, dataset.labels_name)
            )
            raise ConfigMismatchError(
                f"the run was trained with other labels of {dataset.location}: {before} so far, "
                f"{now} now; go on with the same --labels, or choose another --run",
                {"labels": (task.labels, dataset.labels_name)},
            )
        notes += check_data(task, dataset, stream=config.clip.stream, force=options.force)
    assert checkpoint.training is not None
    if checkpoint.training["videos"] != digest and not options.force:
        raise ConfigMismatchError(
            "the training videos are not those that the run began with: some were added, went away "
            "or have other labels. Choose another --run, or add --force to go on with these",
            {"videos": (checkpoint.training["videos"], digest)},
        )
    return tuple(notes)


def _num_loaders(options: TrainOptions) -> int:
    if options.num_loaders is not None:
        return options.num_loaders
    return default_loaders() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _bar(step: int, num_steps: int, options: TrainOptions, process: Process) -> Any:
    return tqdm(
        total=num_steps,
        initial=step,
        unit="step",
        dynamic_ncols=True,
        file=sys.stderr,
        # tqdm's None means: quiet where stderr is no terminal.
        disable=(None if options.progress is None else not options.progress)
        if process.is_main
        else True,
    )


# ---- Ctrl-C


class _Signals:
    """Whether Ctrl-C was pressed or SIGTERM came; the loop looks at it after every step."""

    def __init__(self) -> None:
        self.is_raised = False
        self._raised_at = 0.0
        self._is_at_once = False

    def handle(self, number: int, frame: object) -> None:
        # torchrun sends a second one right behind a terminal's; a user presses again later.
        is_again = self.is_raised and time.monotonic() - self._raised_at > 2
        if not self.is_raised:
            self._raised_at = time.monotonic()
        self.is_raised = True
        if self._is_at_once or is_again:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal raise KeyboardInterrupt in the block, wherever it is."""
        if self.is_raised:
            raise KeyboardInterrupt
        self._is_at_once = True
        try:
            yield
        finally:
            self._is_at_once = False


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    # Whoever handles Ctrl-C otherwise goes on doing so, and only the main thread may ask for it.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield signals
        return
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signals.handle)
    signal.signal(signal.SIGTERM, signals.handle)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)
