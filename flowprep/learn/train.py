"""Training: one loop, read from top to bottom, the same for one process and for many.

    data sets -> TrainingClips -> batches -> network -> loss -> step of the optimizer
                                                           at intervals: a line of metrics.csv,
                                                           a test, a checkpoint

The configuration, the data and the number of a step decide what the step computes: samples come
from (seed, position), dropout from (seed, step, rank), the learning rate from the step. A killed
run continues from its checkpoint. On CPUs with the same number of threads and processes, it ends
with bit for bit the weights of an uninterrupted run. On GPUs, some cuDNN kernels sum in an
unspecified order, so two runs agree only up to rounding.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from flowprep.dataset.read import FlowDataset
from flowprep.errors import TrainingError
from flowprep.learn.checkpoint import Checkpoint, build_model, load_model, save_checkpoint
from flowprep.learn.class_weights import class_weights
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.config import TrainConfig, TrainOptions
from flowprep.learn.distributed import Process, gradients_kept, join_processes
from flowprep.learn.evaluate import Head, score_heads
from flowprep.learn.forward import answer_weights, forward_clips, join_answers
from flowprep.learn.freezing import freeze_part
from flowprep.learn.losses import BatchTargets, count_right
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.optimization import count_steps, make_optimizer, set_learning_rate
from flowprep.learn.placement import autocast, place_model
from flowprep.learn.run_folder import BEST_FILE, LAST_FILE, MetricsRow, RunFolder
from flowprep.learn.scores import Scores
from flowprep.learn.signals import Signals, watched_signals
from flowprep.learn.train_measures import Measured, measure, measure_name, quality
from flowprep.learn.train_report import TrainReport
from flowprep.learn.train_setup import (
    check_losses,
    check_parts,
    check_step,
    count_loaders,
    data_notes,
    digest_videos,
    long_step_note,
    make_tests,
    name_tasks,
    set_drop_path,
)
from flowprep.learn.train_state import TrainState, restore_optimizer
from flowprep.learn.weight_average import WeightAverage
from flowprep.learn.weights.towers import start_from
from flowprep.printable import bar_stream

__all__ = ["train"]

# Separates the seeds of dropout from the seeds of samples.
_DROPOUT = 2


def train(
    datasets: Sequence[FlowDataset],
    run: str | os.PathLike[str],
    config: TrainConfig,
    options: TrainOptions | None = None,
    *,
    is_stop_asked: Callable[[], bool] = lambda: False,
    on_note: Callable[[str], None] = lambda note: None,
    on_interrupt: Callable[[int], None] = lambda count: None,
) -> TrainReport:
    """Trains a network on data sets into the folder `run`, and continues an interrupted run.

    With several data sets, the network has a head for each, and their losses are summed. Data sets
    of one location with labels of different names are label sets of the same videos: each clip is
    seen once, by all their heads. Under
    torchrun, or in an existing torch.distributed group, this process does its part of the training.
    `options.num_workers` is ignored here (`ray_train.train_on_ray` starts the workers).
    `is_stop_asked` is called after every step, and during tests. `on_note` gets the notes for the
    user before the first step or right after it; the report holds the same notes.

    Ctrl-C and SIGTERM end the training after the current step: it writes a checkpoint and raises
    KeyboardInterrupt. A second Ctrl-C raises it at once. `watched_signals` describes
    `on_interrupt`. Raises ConfigError for options that are impossible, ConfigMismatchError if `run`
    was trained with another configuration or on other data, DatasetError for data that is damaged
    or has no labels, WeightsError for a checkpoint that cannot be read, TrainingError if the loss
    is no longer a finite number, and StorageError if a file cannot be written.
    """
    options = options or TrainOptions()
    folder = RunFolder(run)
    with join_processes(options.device) as process:
        lock = folder.locked() if process.is_main else nullcontext()
        with lock, watched_signals(on_interrupt) as signals:
            training = _Training(
                datasets, folder, config, options, process, signals, is_stop_asked, on_note
            )
            with signals.kept():
                return training.run()


class _StopAskedError(Exception):
    """Ends a test early, to stop the training."""


class _Training:
    """One process's part of a training: its components, its state, and the loop."""

    def __init__(
        self,
        datasets: Sequence[FlowDataset],
        folder: RunFolder,
        config: TrainConfig,
        options: TrainOptions,
        process: Process,
        signals: Signals,
        is_stop_asked: Callable[[], bool],
        on_note: Callable[[str], None],
    ) -> None:
        self.began = time.monotonic()
        self.folder = folder
        self.config = config
        self.options = options
        self.process = process
        self.signals = signals
        self.is_stop_asked = is_stop_asked
        self.on_note = on_note if process.is_main else lambda note: None
        self.num_loaders = count_loaders(options)

        # ---- the state of the training
        checkpoint = process.share(folder.last(config) if process.is_main else None)
        self.tasks = name_tasks(datasets, config, checkpoint)
        torch.manual_seed(config.seed)
        self.network = build_model(config, [len(task.class_names) for task in self.tasks])
        check_losses(config, self.tasks, self.network)
        set_drop_path(self.network, config.optimization.drop_path)
        losses = [task.loss for task in self.tasks]
        self.clips = TrainingClips(datasets, config, self.network.inputs, losses=losses)
        self.groups = [[self.tasks[n] for n in heads] for heads in self.clips.targets.groups]
        self.tests = make_tests(datasets, config, self.network, self.tasks)
        self.class_weights = class_weights(
            config.optimization.class_weights, self.tasks, self.clips.all_classes, process.device
        )
        digest = digest_videos(datasets, config, self.class_weights)
        self.num_steps = count_steps(config.optimization, self.clips.num_videos)
        check_parts(config, process, self.network)
        self.notes = data_notes(
            self.clips, checkpoint, self.tasks, datasets, config, digest, options
        )
        if checkpoint is None and config.model.weights is not None:
            trunk = self.network.model if isinstance(self.network, MultiTask) else self.network
            order = config.clip.channel_order
            loaded = start_from(trunk, config.model.weights, channel_order=order)
            self.notes = (*self.notes, loaded.summary())
        for note in self.notes:
            self.on_note(note)
        self.step = 0  # number of steps done
        self.state = TrainState(digest)
        if checkpoint is not None:
            assert checkpoint.training is not None
            check_step(checkpoint, self.num_steps)
            self.step = checkpoint.step
            self.state = dataclasses.replace(checkpoint.training, videos=digest)
            if not process.is_main:
                self.state.totals = torch.zeros_like(self.state.totals)
            load_model(self.network, checkpoint)
        self.state.totals = self.state.totals.to(process.device)
        self.first_step = self.step
        self._place()

    def _place(self) -> None:
        """Moves the network to its device, and makes the optimizer and the gradient scaler."""
        config, options, device, state = self.config, self.options, self.process.device, self.state
        if options.channels_last:
            place_model(self.network, device)
        self.network.to(device).train()
        self.average: WeightAverage | None = None
        if config.optimization.ema_decay is not None:
            # Of a training that goes on, the network has the average now.
            self.average = WeightAverage(self.network, config.optimization.ema_decay)
        if state.raw is not None:
            load_model(self.network, Checkpoint(config, self.tasks, self.step, state.raw))
            state.raw = None
        self.optimizer = make_optimizer(config.optimization, self.network)
        is_scaled = config.optimization.precision == "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)
        if state.optimizer:
            restore_optimizer(self.optimizer, self.scaler, state)
            # The optimizer and the scaler hold these now. A second copy would double the memory.
            state.optimizer, state.scaler = {}, {}
        self.frozen = freeze_part(self.network, config.optimization, self.step, self.num_steps)
        self._wrap()

    def _wrap(self) -> None:
        """Makes what runs the network: the processes add up the gradients of what learns now."""
        self.distributed = self.process.joined(self.network)
        self.runner: Any = self.network if self.distributed is None else self.distributed
        if self.options.compile:
            self.runner = torch.compile(self.runner)

    # ---- the loop

    def run(self) -> TrainReport:
        """Trains to the last step; raises KeyboardInterrupt if it is asked to stop earlier."""
        state, options, process = self.state, self.options, self.process
        if self.step == state.tested_step == self.num_steps:
            return self._report()
        if process.is_main:
            self.folder.begin(self.config, self.tasks, self.step, tensorboard=options.tensorboard)
        batches = self._batches()
        self.saved_at = self.logged_at = time.monotonic()
        self.logged_step = self.step
        with self._bar() as self.bar:
            while True:
                if state.tested_step < self.step and self._is_test_due():
                    self._test_and_save()
                if self.step == self.num_steps:
                    return self._report()
                began = time.monotonic()
                rate = self._take_step(batches)
                now = time.monotonic()
                # The first step of a compiled network compiles it.
                if self.step == self.first_step + 1 + options.compile:
                    self._note_long_step(now - began)

                # A request from one process stops all processes after the same step.
                is_save_due = process.is_main and now - self.saved_at >= options.checkpoint_seconds
                wishes = torch.tensor([self._is_stopped(), is_save_due]).int()
                stops, saves = process.sum(wishes).tolist() if process.world_size > 1 else wishes
                is_log_due = self.step % options.log_every == 0 or self._is_test_due()
                if not (stops or saves or is_log_due):
                    continue
                joined = self._join_totals()
                if is_log_due:
                    self._log(joined, rate, now)
                if stops or saves:
                    if process.is_main:
                        self._save()
                    self.saved_at = time.monotonic()
                if stops:
                    raise KeyboardInterrupt

    def _note_long_step(self, seconds: float) -> None:
        note = long_step_note(seconds)
        if note is not None:
            self.notes = (*self.notes, note)
            self.on_note(note)

    def _batches(self) -> Iterator[dict[str, Any]]:
        spec = self.config.optimization
        loader = training_loader(
            self.clips,
            # Part by part: memory never holds more of a large batch than the network takes.
            batch_size=spec.batch_size // spec.accumulate,
            first_step=self.step * spec.accumulate,
            num_steps=self.num_steps * spec.accumulate,
            rank=self.process.rank,
            world_size=self.process.world_size,
            num_loaders=self.num_loaders,
        )
        return iter(loader)

    def _bar(self) -> tqdm[Any]:
        progress = self.options.progress
        return tqdm(
            total=self.num_steps,
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            file=bar_stream(),
            # None tells tqdm to be quiet if stderr is not a terminal.
            disable=(None if progress is None else not progress) if self.process.is_main else True,
        )

    # ---- one step

    def _take_step(self, batches: Iterator[dict[str, Any]]) -> float:
        """Changes the weights once; returns the learning rate."""
        config, state, process = self.config, self.state, self.process
        spec = config.optimization
        if self.frozen is not None and self.frozen.is_due(self.step, self.num_steps):
            self.frozen.release()
            self.frozen = None
            self._wrap()
        rate = set_learning_rate(self.optimizer, spec, self.step, self.num_steps)
        torch.manual_seed(_dropout_seed(config.seed, self.step, process.rank))
        counts = self.clips.count_tasks(self.step * spec.batch_size, spec.batch_size)
        for part in range(spec.accumulate):
            self._take_part(next(batches), counts, is_last=part + 1 == spec.accumulate)
        state.totals[3] += 1 / process.world_size
        if spec.clip_gradient_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), spec.clip_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.add(self.step)
        self.step += 1
        self.bar.update()
        return rate

    def _take_part(self, batch: dict[str, Any], counts: list[int], *, is_last: bool) -> None:
        """Adds the gradients of one part of a step's batch."""
        spec, device, totals = self.config.optimization, self.process.device, self.state.totals
        clips = [
            batch["clips"][one.name].to(device, non_blocking=True)  # (n, S, C, ...)
            for one in self.network.inputs
        ]
        targets = BatchTargets.of(batch, len(self.tasks), device)
        with gradients_kept(self.distributed, is_last), autocast(device, spec.precision):
            logits = forward_clips(
                self.runner, self.network, clips, channels_last=self.options.channels_last
            )
            loss = targets.loss(
                *(logits, counts),
                label_smoothing=spec.label_smoothing,
                weights=self.class_weights,
                answer_weights=answer_weights(self.network, logits),
            )
        # DistributedDataParallel averages over processes, but the parts must be summed.
        self.scaler.scale(loss * self.process.world_size).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            totals[0] += loss.double()
            joined = join_answers(self.network, logits)
            for place, count in enumerate(count_right(joined, targets.largest), start=1):
                totals[place] += count

    # ---- at intervals

    def _join_totals(self) -> torch.Tensor:
        """Returns the summed totals of all processes. The main process keeps the sums.

        Raises TrainingError if the loss is not a finite number.
        """
        state, process = self.state, self.process
        joined = process.sum(state.totals)
        kept = joined if process.is_main else torch.zeros_like(joined)
        state.totals = kept.to(process.device)
        mean_loss = float(joined[0] / joined[3])
        if not math.isfinite(mean_loss):
            raise TrainingError(
                f"the loss is {mean_loss} after step {self.step}; take a lower --learning-rate, "
                f"--warmup or --clip-gradient. {self.folder.path / LAST_FILE} has the last good "
                "step"
            )
        return joined

    def _log(self, joined: torch.Tensor, rate: float, now: float) -> None:
        """Writes a line of metrics.csv: the means since the last line."""
        state, config = self.state, self.config
        state.loss = float(joined[0] / joined[3])
        top1 = float(joined[1] / joined[2]) if joined[2] else None
        num_videos = (self.step - self.logged_step) * config.optimization.batch_size
        num_clips = num_videos * config.clip.num_segments
        row = MetricsRow(
            self.step,
            self._epoch(),
            "train",
            "+".join(task.name for task in self.tasks),
            state.loss,
            top1,
            rate,
            num_clips / max(1e-9, now - self.logged_at),
            state.seconds + now - self.began,
        )
        if self.process.is_main:
            self.folder.add(row)
        shown = {} if top1 is None else {"top1": f"{top1:.3f}"}
        self.bar.set_postfix({"loss": f"{state.loss:.3f}", **shown})
        state.totals.zero_()
        self.logged_at, self.logged_step = now, self.step

    def _is_test_due(self) -> bool:
        step, spec = self.step, self.config.optimization
        epochs = self.options.test_every_epochs
        steps_per_test = max(1, round(epochs * self.clips.num_videos / spec.batch_size))
        return step == self.num_steps or (bool(self.tests) and step % steps_per_test == 0)

    def _test_and_save(self) -> None:
        """Tests on the test splits, and writes the checkpoints."""
        state, is_main = self.state, self.process.is_main
        with nullcontext() if self.average is None else self.average.in_use():
            measured = self._test()
        if measured is None:
            # The same command will begin with this test.
            if is_main:
                self._save()
            raise KeyboardInterrupt
        state.tested_step = self.step
        if is_main:
            split = self.config.test_split
            for one in itertools.chain.from_iterable(measured):
                row = MetricsRow(self.step, self._epoch(), split, one.name, one.loss, one.top1)
                row = dataclasses.replace(row, mean_average_precision=one.mean_average_precision)
                self.folder.add(row)
        if measured:
            state.top1 = sum(map(quality, self.groups, measured)) / len(measured)
            shown = {measure_name(self.groups): f"{state.top1:.3f}"}
            self.bar.set_postfix({"loss": f"{state.loss:.3f}", **shown})
            if state.best is None or state.top1 > state.best[0]:
                state.best = (state.top1, self.step)
                if is_main:
                    self._save(BEST_FILE, is_whole=False)
        if is_main:
            self._save()
        self.saved_at = self.logged_at = time.monotonic()
        self.logged_step = self.step

    def _test(self) -> list[list[Measured]] | None:
        """Returns the measures of each data set's test split, from the center of each video.

        Returns None if a process is asked to stop during the test.
        """
        process = self.process
        process.share_buffers(self.network)
        measured = []
        for views, heads in zip(self.tests, self.clips.targets.groups, strict=False):
            tasks = [self.tasks[head] for head in heads]
            own: list[Scores] | None = None
            with suppress(_StopAskedError):
                own = score_heads(
                    self.network,
                    views,
                    self._heads(heads),
                    device=process.device,
                    precision=self.config.optimization.precision,
                    num_loaders=self.num_loaders,
                    rank=process.rank,
                    world_size=process.world_size,
                    on_chunk=self._raise_if_stopped,
                )
            # All processes agree on it before they wait for each other's scores.
            if process.sum(torch.tensor(own is None).int()).item():
                return None
            assert own is not None
            parts = zip(*process.gather(own), strict=True)
            measured.append(measure(tasks, [Scores.interleave(part) for part in parts]))
        return measured

    def _heads(self, places: Sequence[int]) -> list[Head]:
        return [Head(n, self.tasks[n].loss, self.clips.datasets[n]) for n in places]

    def _is_stopped(self) -> bool:
        return self.signals.is_raised or self.is_stop_asked()

    def _raise_if_stopped(self) -> None:
        if self._is_stopped():
            raise _StopAskedError

    def _save(self, name: str = LAST_FILE, *, is_whole: bool = True) -> None:
        """Writes a checkpoint: one to continue from, or only the weights."""
        state, network = self.state, self.network
        whole = dataclasses.replace(
            state,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            seconds=state.seconds + time.monotonic() - self.began,
        )
        weights = network.state_dict()
        if self.average is not None:
            whole.raw, weights = weights, self.average.state
        checkpoint = Checkpoint(
            self.config, self.tasks, self.step, weights, whole if is_whole else None
        )
        save_checkpoint(self.folder.path / name, checkpoint)

    def _epoch(self) -> float:
        return self.step * self.config.optimization.batch_size / self.clips.num_videos

    def _report(self) -> TrainReport:
        state = self.state
        return TrainReport(
            run=str(self.folder.path),
            num_steps=self.num_steps,
            num_new_steps=self.step - self.first_step,
            num_videos=self.clips.num_videos,
            seconds=time.monotonic() - self.began,
            loss=state.loss,
            score=state.top1,
            best_score=state.best[0] if state.best else None,
            best_step=state.best[1] if state.best else None,
            measure=measure_name(self.groups),
            notes=self.notes,
        )


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, _DROPOUT, step, rank)).generate_state(1)[0])
