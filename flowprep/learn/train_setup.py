"""Before the first step: checks the data and options, and whether a run can continue with them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import torch

from flowprep.dataset.read import FlowDataset
from flowprep.differences import mismatch
from flowprep.errors import ConfigError, ConfigMismatchError, WeightsError
from flowprep.learn.checkpoint import (
    Checkpoint,
    Task,
    check_data,
    describe_task,
    library_versions,
)
from flowprep.learn.class_weights import INVERSE
from flowprep.learn.clips.select import select_videos
from flowprep.learn.clips.targets import choose_losses, has_usable_label, head_groups
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.config import TrainConfig, TrainOptions
from flowprep.learn.distributed import Process
from flowprep.learn.forward import group_size
from flowprep.learn.freezing import freeze_note
from flowprep.learn.layers.drop_path import DropPath, spread_rates
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.placement import default_loaders
from flowprep.learn.recipes import VIEWS
from flowprep.words import format_count, format_duration

__all__ = [
    "check_losses",
    "check_parts",
    "check_step",
    "count_loaders",
    "data_notes",
    "digest_videos",
    "long_step_note",
    "make_tests",
    "name_tasks",
    "set_drop_path",
]

# Batch systems send SIGTERM a minute or two before they kill, torchrun 30 s.
_LONG_STEP_SECONDS = 60.0


def name_tasks(
    datasets: Sequence[FlowDataset], config: TrainConfig, checkpoint: Checkpoint | None
) -> tuple[Task, ...]:
    """Describes the data sets. Data sets with the same name get their whole location as name.

    Label sets of the same videos get the names of their labels. A training that goes on keeps the
    losses of its checkpoint.
    """
    if not datasets:
        raise ConfigError("datasets must be one or more, got none")
    wanted = config.optimization.loss
    losses = choose_losses(datasets, config.train_split, wanted)
    if wanted is None and checkpoint is not None and len(checkpoint.tasks) == len(datasets):
        losses = [task.loss for task in checkpoint.tasks]
    tasks = [describe_task(dataset, loss) for dataset, loss in zip(datasets, losses, strict=True)]
    groups = head_groups(datasets)
    names = [tasks[first].name for first, *_ in groups]
    for heads in groups:
        first = tasks[heads[0]].name
        data = datasets[heads[0]].location if names.count(first) > 1 else first
        for head in heads:
            name, own = data, tasks[head].labels or "own"
            if len(heads) > 1:
                name = own if len(groups) == 1 else f"{data}-{own}"
            together = data if len(heads) > 1 else None
            tasks[head] = dataclasses.replace(tasks[head], name=name, data=together)
    return tuple(tasks)


def make_tests(
    datasets: Sequence[FlowDataset],
    config: TrainConfig,
    network: ClipModel | MultiTask,
    tasks: Sequence[Task],
) -> list[TestViews]:
    """Returns the center views of each data set's labeled test videos; none without a split.

    That is one clip per video. A network that joins segments gets as many clips as in training.
    Label sets of the same videos are tested together, on the split of the first.
    """
    if config.test_split == "none":
        return []
    tests = []
    for heads in head_groups(datasets):
        dataset = datasets[heads[0]]
        places = [
            place
            for place in select_videos(dataset, config.test_split).tolist()
            if all(
                has_usable_label(datasets[head].videos[place].labels, tasks[head].loss)
                for head in heads
            )
        ]
        if not places:
            raise ConfigError(
                f"test_split must have labeled videos, and of {config.test_split} in "
                f"{dataset.location} none has {_wanted_label(tasks, heads)}; name another split, "
                "or none"
            )
        keys = [dataset.videos[place].key for place in places]
        tests.append(
            TestViews(
                dataset,
                config.clip,
                network.inputs,
                VIEWS["center"],
                videos=keys,
                group_size=group_size(network),
            )
        )
    return tests


def digest_videos(
    datasets: Sequence[FlowDataset],
    config: TrainConfig,
    weights: Sequence[torch.Tensor] | None = None,
) -> str:
    """Returns a checksum of the training videos: their order decides the sample at a position.

    It covers the weights of their classes too if they come from a file, which may change.
    """
    digest = hashlib.sha256()
    for heads in head_groups(datasets):
        places = select_videos(datasets[heads[0]], config.train_split).tolist()
        for head in heads:
            for place in places:
                video = datasets[head].videos[place]
                digest.update(f"{video.key} {video.labels} {video.num_frames}\n".encode())
    if weights is not None and config.optimization.class_weights != INVERSE:
        digest.update(repr([own.tolist() for own in weights]).encode())
    return digest.hexdigest()


def check_parts(config: TrainConfig, process: Process, network: ClipModel | MultiTask) -> None:
    """Raises ConfigError for a batch that cannot be divided or a precision that is unsupported."""
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
    has_volumes = any(one.form == "volume" for one in network.inputs)
    if spec.precision == "bf16" and has_volumes and process.device.type == "cpu":
        # oneDNN's gradient for maps of two frames reads uninitialized memory (torch 2.13 on
        # AVX512-BF16). A loss of NaN is the best possible outcome.
        raise ConfigError(
            f"precision of {config.model.model} must be fp32 on a CPU, where PyTorch gets the "
            "gradients of 3D convolutions in bf16 wrong; take fp32, or a GPU"
        )


def check_step(checkpoint: Checkpoint, num_steps: int) -> None:
    """Raises WeightsError for a checkpoint from beyond the end of its own training."""
    if checkpoint.step > num_steps:
        raise WeightsError(
            f"the checkpoint says that it was made after step {checkpoint.step}, and the training "
            f"has {num_steps} steps; take another checkpoint, or choose another --run"
        )


def data_notes(
    clips: TrainingClips,
    checkpoint: Checkpoint | None,
    tasks: Sequence[Task],
    datasets: Sequence[FlowDataset],
    config: TrainConfig,
    digest: str,
    options: TrainOptions,
) -> tuple[str, ...]:
    """Returns notes for the user; raises if the data differs from the checkpoint's data."""
    notes = []
    if clips.num_skipped:
        skipped = format_count(clips.num_skipped, "video")
        several = "" if all(task.is_multilabel for task in tasks) else " or with several"
        one = "a label" if not several else "one label"
        notes.append(
            f"left out {skipped} of the training split without a label{several}; give {one} "
            "to each with `flowprep label`, and train with --labels"
        )
    notes += label_notes(clips, tasks, config)
    batch_size = config.optimization.batch_size
    if batch_size > clips.num_videos:
        num_videos = format_count(clips.num_videos, "video")
        notes.append(
            f"a batch of {batch_size:,} is larger than the training set of {num_videos}: one step "
            f"shows each video {batch_size / clips.num_videos:.1f} times; make --batch-size "
            "smaller for more steps"
        )
    notes += dict.fromkeys(said for dataset in datasets for said in dataset.notes)
    if checkpoint is None:
        if (note := freeze_note(config)) is not None:
            notes.append(note)
        return tuple(notes)
    if len(checkpoint.tasks) != len(tasks):
        names = [", ".join(task.name for task in some) for some in (checkpoint.tasks, tasks)]
        raise mismatch(
            "The run was trained on other data sets",
            {"data sets": (names[0], names[1])},
            ("so far", "now"),
            "Go on with the same ones, or choose another --run.",
        )
    for task, dataset in zip(checkpoint.tasks, datasets, strict=True):
        if task.labels != dataset.labels_name:
            before, now = (
                "the data set's own" if name is None else name
                for name in (task.labels, dataset.labels_name)
            )
            raise mismatch(
                f"The run was trained with other labels of {dataset.location}",
                {"labels": (before, now)},
                ("so far", "now"),
                "Go on with the same --labels, or choose another --run.",
            )
        notes += check_data(task, dataset, stream=config.clip.stream, force=options.force)
    if checkpoint is not None:
        notes += _versions_notes(checkpoint)
    assert checkpoint.training is not None
    if checkpoint.training.videos != digest and not options.force:
        raise ConfigMismatchError(
            "the training videos are not those that the run began with: some were added, went away "
            "or have other labels or class weights. Choose another --run, or add --force to go on "
            "with these",
            {"videos": (checkpoint.training.videos, digest)},
        )
    return tuple(notes)


def _versions_notes(checkpoint: Checkpoint) -> list[str]:
    now = library_versions()
    return [
        f"the training goes on with {name} {now[name]}, and was done with {name} {before} so far: "
        "the weights may differ from those of one version in the last digits; to have them equal, "
        f"install {name} {before}"
        for name, before in checkpoint.versions.items()
        if name in now and now[name] != before
    ]


def label_notes(clips: TrainingClips, tasks: Sequence[Task], config: TrainConfig) -> list[str]:
    """Returns notes on labels: several of a video, and label sets of the same videos."""
    notes = []
    multilabel = [task.data or task.name for task in tasks if task.is_multilabel]
    if multilabel and config.optimization.loss is None:
        notes.append(
            f"videos of {' and '.join(dict.fromkeys(multilabel))} have several labels, so each "
            "class is learned by itself (--loss bce) and the measure is mAP; to leave those videos "
            "out, add --loss cross-entropy"
        )
    for heads in clips.targets.groups:
        first, *others = heads
        own = clips.datasets[first]
        for other in others:
            differing = sum(
                None not in (one.split, two.split) and one.split != two.split
                for one, two in zip(own.videos, clips.datasets[other].videos, strict=True)
            )
            if differing:
                notes.append(
                    f"labels {tasks[first].labels} and {tasks[other].labels} put "
                    f"{format_count(differing, 'video')} into different splits; the splits of "
                    f"{tasks[first].labels} are taken, as it comes first"
                )
    return notes


def _wanted_label(tasks: Sequence[Task], heads: Sequence[int]) -> str:
    label = "a label" if all(tasks[head].is_multilabel for head in heads) else "one label"
    return label if len(heads) == 1 else f"{label} in each of its label sets"


def check_losses(
    config: TrainConfig, tasks: Sequence[Task], network: ClipModel | MultiTask
) -> None:
    """Raises ConfigError for options that need one class a video, where it may have several."""
    if not any(task.is_multilabel for task in tasks):
        return
    if (network.model if isinstance(network, MultiTask) else network).excludes_classes:
        raise ConfigError(
            f"model {config.model.model} averages probabilities of classes that exclude each "
            "other, and the loss is bce; choose another model, or add --loss cross-entropy to "
            "leave out videos with several labels"
        )
    for name, value in (
        ("class_weights", config.optimization.class_weights),
        ("balance", config.balance),
    ):
        if value:
            raise ConfigError(
                f"{name} needs one label for each video, and the loss is bce; leave it out, or "
                "add --loss cross-entropy to leave out videos with several labels"
            )


def set_drop_path(network: ClipModel | MultiTask, rate: float | None) -> None:
    """Lets residual blocks be skipped: not at all at the first, up to `rate` at the last.

    The blocks are counted in each tower or path of a network by itself: the names of its stages say
    where they are, such as slow.layer1 and fast.layer1. None keeps the rates that the
    network was built with. Raises ConfigError for a network without residual blocks.
    """
    if rate is None:
        return
    model = network.model if isinstance(network, MultiTask) else network
    parts = [part for stage in model.stages for part in stage]
    towers: dict[str, list[DropPath]] = {}
    for name, module in model.named_modules():
        if isinstance(module, DropPath):
            part = next((one for one in parts if name.startswith(f"{one}.")), "")
            towers.setdefault(part.rpartition(".")[0], []).append(module)
    if not towers:
        raise ConfigError(
            f"drop_path is for networks with residual blocks, got {rate:g} and "
            f"{type(model).__name__}; leave it out, or choose a ResNet, a 3D ResNet, "
            "MobileNetV2 or TimeSformer"
        )
    for blocks in towers.values():
        for block, own in zip(blocks, spread_rates(rate, len(blocks)), strict=True):
            block.rate = own


def long_step_note(seconds: float) -> str | None:
    """Returns a note on the cost of an interruption, or None if a step takes few `seconds`."""
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if seconds <= (_LONG_STEP_SECONDS / 3 if by_torchrun else _LONG_STEP_SECONDS):
        return None
    note = (
        f"one step takes {format_duration(seconds)}. Ctrl-C and SIGTERM write a checkpoint only "
        "after the current step. Give the training this much time before you kill it, or the steps "
        "since the last checkpoint are computed again. A smaller --batch-size makes steps shorter"
    )
    if by_torchrun:
        note += (
            "; torchrun kills its processes 30 s after SIGTERM: set "
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT to more seconds"
        )
    return note


def count_loaders(options: TrainOptions) -> int:
    """Returns how many processes read clips for this process of the training."""
    if options.num_loaders is not None:
        return options.num_loaders
    return default_loaders() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
