"""Testing: a network looks at several views of each video, and its scores are averaged.

    checkpoint, data set -> evaluate -> Scores -> flowprep.learn.scores.write_scores -> files
    network, views       -> score_videos -> Scores

A view is one crop of one clip; published tests average 25 clips x 10 crops or 10 x 3.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import (
    Checkpoint,
    Task,
    check_data,
    describe_task,
    library_versions,
    restore_model,
)
from flowprep.learn.clips.testing import TestViews, test_loader
from flowprep.learn.config import PrecisionName, ViewSpec
from flowprep.learn.placement import (
    autocast,
    default_loaders,
    place_model,
    resolve_device,
    with_channels_last,
)
from flowprep.learn.recipes import VIEWS
from flowprep.learn.scores import Scores

__all__ = [
    "checkpoint_file",
    "default_folder",
    "evaluate",
    "score_videos",
    "task_place",
]

_CHUNK_VALUES = 2**24
"""Input numbers of one pass, 64 MB: 16 stacks of 20 x 224 x 224, or 2 volumes of 64 fields."""


def score_videos(
    model: nn.Module,
    views: TestViews,
    *,
    device: str | torch.device,
    precision: PrecisionName = "fp32",
    num_loaders: int = 0,
    task: int = 0,
    rank: int = 0,
    world_size: int = 1,
    chunk_size: int | None = None,
    progress: bool | None = False,
) -> Scores:
    """Scores the videos of `views`, each by the mean over its views, summed in float64.

    The model must be on `device`; it is put into eval mode and back into its own. Logits and their
    softmax are averaged apart. A model of several tasks is asked for the head `task`. Process
    `rank` of `world_size` scores videos rank, rank + world_size, ...; `Scores.interleave` joins
    them. `chunk_size` views go through the network at once, where it is not given as many as 64 MB
    of input hold; the scores do not depend on it but for rounding. `progress` draws a bar on
    stderr; None does so on a terminal only.
    """
    device = torch.device(device)
    num_videos = len(range(rank, views.num_videos, world_size))
    sums: torch.Tensor | None = None
    was_training = model.training
    model.eval()
    bar = tqdm(
        total=num_videos * views.num_clips,
        unit="clip",
        dynamic_ncols=True,
        file=sys.stderr,
        disable=None if progress is None else not progress,
    )
    loader = test_loader(views, num_loaders=num_loaders, rank=rank, world_size=world_size)
    try:
        with torch.inference_mode(), bar:
            for clips, owners in _chunks(loader, bar, chunk_size):
                logits = _forward(model, clips, device, precision, task)
                scores = torch.stack((logits, logits.softmax(dim=1)))
                if sums is None:
                    sums = torch.zeros((2, views.num_videos, logits.shape[1]), dtype=torch.float64)
                sums.index_add_(1, owners, scores)
    finally:
        model.train(was_training)
    names = views.dataset.class_names
    if sums is None:
        sums = torch.zeros((2, views.num_videos, len(names)), dtype=torch.float64)
    own = slice(rank, None, world_size)
    means = sums.numpy()[:, own] / (views.num_clips * views.views.num_crops)
    return Scores(
        keys=tuple(views.keys[own]),
        labels=views.labels[own],
        logits=means[0],
        probabilities=means[1],
        class_names=names,
        stream=views.clip.stream,
    )


def evaluate(
    dataset: FlowDataset,
    checkpoint: Checkpoint,
    views: ViewSpec,
    *,
    split: str = "test",
    task: str | None = None,
    device: str = "auto",
    precision: PrecisionName = "fp32",
    num_loaders: int | None = None,
    force: bool = False,
    progress: bool | None = None,
    origin: str | None = None,
) -> tuple[Scores, list[str]]:
    """Scores the videos of a split by a checkpoint; returns the scores, and notes for the user.

    `split` is `train`, `test`, ..., or `all`; `task` names the data set whose classes are meant,
    where the checkpoint was trained on several; `num_loaders` processes read clips, as many as
    there are cores but one where it is not given. `origin` is noted in `Scores.source` as the
    checkpoint's path. Raises ConfigError for a task or device that is not there, DatasetError for a
    split without videos, ConfigMismatchError where the data set is not like the training data (but
    not with `force`).
    """
    place = task_place(checkpoint, task)
    chosen = checkpoint.tasks[place]
    clip = checkpoint.config.clip
    notes = [*dataset.labels_notes, *_labels_notes(chosen, dataset)]
    notes += check_data(chosen, dataset, stream=clip.stream, force=force)
    if views.num_crops == 10 and not checkpoint.config.augment.flip:
        notes.append(
            "the network never saw a mirrored clip in its training, and half of these views are "
            "mirrored; give --crops 5 to leave them out"
        )
    where = resolve_device(device)
    model = restore_model(checkpoint)
    scores = score_videos(
        place_model(model, where),
        TestViews(dataset, clip, model.layout, views, split=split),
        device=where,
        precision=precision,
        num_loaders=default_loaders() if num_loaders is None else num_loaders,
        task=place,
        progress=progress,
    )
    source = {
        "checkpoint": origin,
        "step": checkpoint.step,
        "model": checkpoint.config.model.model,
        "task": chosen.name,
        "data": dataset.location,
        "labels": dataset.labels_name,
        "split": split,
        "views": dataclasses.asdict(views),
        "precision": precision,
        "versions": library_versions(),
    }
    return dataclasses.replace(scores, class_names=chosen.class_names, source=source), notes


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """Returns the checkpoint that a user means: a file, or the best.pt of a run's folder."""
    path = Path(path)
    return path / "best.pt" if path.is_dir() else path


def _labels_notes(task: Task, dataset: FlowDataset) -> list[str]:
    """Says that the split under test may hold videos that the network was trained on."""
    own = describe_task(dataset)
    if task.labels == own.labels or task.name not in (own.name, dataset.location):
        return []
    trained, tested = (
        f"labels {name}" if name is not None else "the data set's own labels"
        for name in (task.labels, own.labels)
    )
    remedy = "leave out --labels" if task.labels is None else f"add --labels {task.labels}"
    return [
        f"the network was trained with {trained} of {dataset.location}, and this test takes "
        f"{tested}: videos under test may be among those of its training; {remedy} for the same"
    ]


def default_folder(
    checkpoint: Path,
    views: ViewSpec,
    split: str,
    task: str | None = None,
    labels: str | None = None,
) -> Path:
    """Returns where scores are written unless the user says so: `RUN/test-250` and the like."""
    name = next((name for name, spec in VIEWS.items() if spec == views), None)
    parts = [
        *([] if checkpoint.name == "best.pt" else [checkpoint.stem]),
        *([] if task is None else [task]),
        *([] if labels is None else [labels]),
        split,
        name or f"{views.num_clips}x{views.num_crops}",
    ]
    return checkpoint.parent / "-".join(parts)


def task_place(checkpoint: Checkpoint, name: str | None) -> int:
    """Returns the place of a task among the checkpoint's; the only one needs no name."""
    names = [task.name for task in checkpoint.tasks]
    if name is None and len(names) == 1:
        return 0
    if name is None:
        raise ConfigError(
            f"task must be named for a checkpoint of several data sets: one of {', '.join(names)}"
        )
    if names.count(name) != 1:
        raise ConfigError(f"task must be one of {', '.join(names)}, got {name!r}")
    return names.index(name)


def _chunks(
    loader: Iterable[Mapping[str, Any]], bar: tqdm[Any], size: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields views and the places of their videos, `size` at a time and the rest at last."""
    waiting: list[torch.Tensor] = []
    owners: list[int] = []
    for item in loader:
        crops = item["views"]  # (num_crops, C, ...)
        size = size or max(1, _CHUNK_VALUES // crops[0].numel())
        waiting.append(crops)
        owners += [int(item["video"])] * len(crops)
        while len(owners) >= size:
            clips = torch.cat(waiting)
            yield clips[:size], torch.tensor(owners[:size])
            waiting, owners = [clips[size:]], owners[size:]
        bar.update()
    if owners:
        yield torch.cat(waiting), torch.tensor(owners)


def _forward(
    model: nn.Module,
    clips: torch.Tensor,
    device: torch.device,
    precision: PrecisionName,
    task: int,
) -> torch.Tensor:
    """Returns (N, K) logits, float64 on the CPU."""
    clips = with_channels_last(clips.to(device, non_blocking=True))
    with autocast(device, precision):
        logits = model(clips)
    own: torch.Tensor = logits[task] if isinstance(logits, tuple) else logits
    return own.float().cpu().double()
