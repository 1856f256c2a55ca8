"""Testing: a network scores several views of each video, and the scores are averaged.

    checkpoint, data set -> evaluate -> Scores -> flowprep.learn.scores.write_scores -> files
    network, views       -> score_videos -> Scores
    network, views       -> score_heads  -> Scores of each of several heads, in one pass

A view is one crop of one clip. Published tests average 25 clips x 10 crops or 10 x 3. For a network
that joins segments, a view is the same crop of several clips together, as in training.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.checkpoint import (
    Checkpoint,
    Task,
    average_note,
    check_data,
    describe_task,
    library_versions,
    restore_model,
)
from flowprep.learn.clips.targets import multi_hot
from flowprep.learn.clips.testing import TestViews, test_loader
from flowprep.learn.config import ViewSpec
from flowprep.learn.forward import arrange_clips, forward_clips, group_size
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.placement import (
    autocast,
    default_loaders,
    place_model,
    resolve_device,
)
from flowprep.learn.recipes import VIEWS
from flowprep.learn.run_folder import BEST_FILE, LAST_FILE
from flowprep.learn.scores import Scores
from flowprep.learn.training_specs import LossName, PrecisionName
from flowprep.printable import bar_stream
from flowprep.words import format_count

__all__ = [
    "Head",
    "checkpoint_file",
    "checkpoint_notes",
    "clips_notes",
    "default_folder",
    "evaluate",
    "evaluate_heads",
    "score_heads",
    "score_videos",
    "task_place",
]

_CHUNK_VALUES = 2**24
"""Input values per pass, 64 MB: 16 stacks of 20 x 224 x 224, or 2 volumes of 64 fields."""


Chunks = Iterable[tuple[list[torch.Tensor], torch.Tensor]]
"""Views (N, S, C, ...) of each input, and the indices of their videos (N,)."""


@dataclass(frozen=True)
class Head:
    """A head of a network, and the labels to measure it with."""

    task: int = 0
    """Its index among the network's heads."""
    loss: LossName = "cross-entropy"
    """What it was trained with: bce has a sigmoid for each class, cross-entropy a softmax."""
    dataset: FlowDataset | None = None
    """Its label set, opened from the data set under test. None takes the views' own labels."""


def score_videos(
    model: ClipModel | MultiTask,
    views: TestViews,
    *,
    device: str | torch.device,
    precision: PrecisionName = "fp32",
    num_loaders: int = 0,
    task: int = 0,
    loss: LossName = "cross-entropy",
    rank: int = 0,
    world_size: int = 1,
    chunk_size: int | None = None,
    progress: bool | None = False,
    on_chunk: Callable[[], None] = lambda: None,
) -> Scores:
    """Returns the scores that `score_heads` gives for the head `task` alone."""
    (scores,) = score_heads(
        model,
        views,
        [Head(task, loss)],
        device=device,
        precision=precision,
        num_loaders=num_loaders,
        rank=rank,
        world_size=world_size,
        chunk_size=chunk_size,
        progress=progress,
        on_chunk=on_chunk,
    )
    return scores


def score_heads(
    model: ClipModel | MultiTask,
    views: TestViews,
    heads: Sequence[Head],
    *,
    device: str | torch.device,
    precision: PrecisionName = "fp32",
    num_loaders: int = 0,
    rank: int = 0,
    world_size: int = 1,
    chunk_size: int | None = None,
    progress: bool | None = False,
    on_chunk: Callable[[], None] = lambda: None,
) -> list[Scores]:
    """Scores each video of `views` with each head: the mean over its views, summed in float64.

    The model must be on `device`. It is put into eval mode, and afterwards back into its own mode.
    For a network that joins segments, a view is a group of clips in one crop, and
    `views.group_size` must be the result of `group_size(model)`. Logits and probabilities are
    averaged separately. Process `rank` of
    `world_size` scores the videos rank, rank + world_size, ...; `Scores.interleave` joins the
    results. `chunk_size` views go through the network at once. The default is as many views as fit
    into 64 MB of input. The chunk size changes the scores only by rounding. `progress`
    draws a bar on stderr; None draws it only on a terminal. `on_chunk` is called after each pass
    through the network.
    """
    if views.group_size != group_size(model):
        raise ValueError(f"group_size must be {group_size(model)}, got {views.group_size}")
    device = torch.device(device)
    num_videos = len(range(rank, views.num_videos, world_size))
    sums: list[torch.Tensor] = []
    was_training = model.training
    model.eval()
    bar = tqdm(
        total=num_videos * views.num_clips,
        unit="clip",
        dynamic_ncols=True,
        file=bar_stream(),
        disable=None if progress is None else not progress,
    )
    loader = test_loader(views, num_loaders=num_loaders, rank=rank, world_size=world_size)
    names = [one.name for one in model.inputs]
    chunks = _chunks(_groups(loader, bar, names, views.group_size or 1), chunk_size)
    network = _Network(model, device, precision, [head.task for head in heads])
    scored = network.score_apart(chunks)
    if views.group_size is None:
        scored = network.score_joined(chunks, views.num_clips, views.views.num_crops)
    try:
        with torch.inference_mode(), bar:
            for outputs, owners in scored:
                for number, (head, logits) in enumerate(zip(heads, outputs, strict=True)):
                    shares = logits.sigmoid() if head.loss == "bce" else logits.softmax(dim=1)
                    if number == len(sums):
                        shape = (2, views.num_videos, logits.shape[1])
                        sums.append(torch.zeros(shape, dtype=torch.float64))
                    sums[number].index_add_(1, owners, torch.stack((logits, shares)))
                on_chunk()
    finally:
        model.train(was_training)
    if not sums:
        counts = [len((head.dataset or views.dataset).class_names) for head in heads]
        sums = [torch.zeros((2, views.num_videos, k), dtype=torch.float64) for k in counts]
    own = slice(rank, None, world_size)
    num_views = views.num_groups * views.views.num_crops
    return [
        _scores_of(head, views, sum_.numpy()[:, own] / num_views, own)
        for head, sum_ in zip(heads, sums, strict=True)
    ]


def _scores_of(head: Head, views: TestViews, means: NDArray[np.float64], own: slice) -> Scores:
    """Returns the scores of a head from the means of logits and probabilities, (2, N, K)."""
    dataset = head.dataset or views.dataset
    labels, targets = views.labels, None
    if head.dataset is not None or head.loss == "bce":
        sets = views.label_sets(dataset)
        labels = np.array([one[0] if len(one) == 1 else -1 for one in sets], np.int64)
        if head.loss == "bce":
            targets = multi_hot(sets, means.shape[2])[own]
    return Scores(
        keys=tuple(views.keys[own]),
        labels=labels[own],
        logits=means[0],
        probabilities=means[1],
        class_names=dataset.class_names,
        stream=views.clip.stream,
        targets=targets,
    )


@dataclass(frozen=True)
class _Network:
    """A network on its device, and the indices of the heads to use."""

    model: ClipModel | MultiTask
    device: torch.device
    precision: PrecisionName
    tasks: Sequence[int]

    def score_apart(self, chunks: Chunks) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Yields (N, K) logits of views for each head, and the indices of their videos."""
        for clips, owners in chunks:
            with autocast(self.device, self.precision):
                logits = forward_clips(self.model, self.model, self._placed(clips))
            yield self._own(logits), owners

    def score_joined(
        self, chunks: Chunks, num_clips: int, num_crops: int
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Yields (num_crops, K) logits of a video for each head, and its index. All its clips are
        joined.

        Clips go through the network chunk by chunk. Only their features are kept.
        """
        waiting: list[torch.Tensor] = []
        owners: list[int] = []
        size = num_clips * num_crops
        for clips, places in chunks:
            with autocast(self.device, self.precision):
                features = self.model.extract_features(
                    *arrange_clips(self.model, self._placed(clips))
                )  # (N, 1, ...)
            waiting.append(features.squeeze(1))
            owners += places.tolist()
            while len(owners) >= size:
                rows = torch.cat(waiting)
                own = rows[:size].view(num_clips, num_crops, *rows.shape[1:]).transpose(0, 1)
                with autocast(self.device, self.precision):
                    logits = self.model.classify(own)
                joined = logits if isinstance(logits, tuple) else (logits,)
                yield self._own(joined), torch.tensor(owners[:num_crops])
                waiting, owners = [rows[size:]], owners[size:]

    def _placed(self, clips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.to(self.device, non_blocking=True) for tensor in clips]

    def _own(self, logits: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the logits of the heads, as float64 on the CPU."""
        return [logits[task].float().cpu().double() for task in self.tasks]


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
    """Scores the videos of a split with a checkpoint. Returns the scores, and notes for the user.

    `split` is `train`, `test`, ..., or `all`. If the checkpoint was trained on several data sets,
    `task` names the one whose classes to use. `num_loaders` processes read clips. The default is
    the number of cores minus one. `origin` is recorded in `Scores.source` as the path of the
    checkpoint. Raises ConfigError for a task or device that does not exist, DatasetError for a
    split without videos, and ConfigMismatchError if the data set differs from the training data
    (but not with `force`).
    """
    (scores,), notes = evaluate_heads(
        [dataset],
        checkpoint,
        views,
        split=split,
        places=[task_place(checkpoint, task)],
        device=device,
        precision=precision,
        num_loaders=num_loaders,
        force=force,
        progress=progress,
        origin=origin,
    )
    return scores, notes


def evaluate_heads(
    datasets: Sequence[FlowDataset],
    checkpoint: Checkpoint,
    views: ViewSpec,
    *,
    places: Sequence[int],
    split: str = "test",
    device: str = "auto",
    precision: PrecisionName = "fp32",
    num_loaders: int | None = None,
    force: bool = False,
    progress: bool | None = None,
    origin: str | None = None,
) -> tuple[list[Scores], list[str]]:
    """Scores the videos of a split with several heads of a checkpoint, in one pass.

    `places` are the indices of the heads, such as `heads_of` returns, and `datasets` the data set
    opened with the labels of each. The split is that of the first. The rest is as in `evaluate`.
    """
    clip = checkpoint.config.clip
    dataset = datasets[0]
    tasks = [checkpoint.tasks[place] for place in places]
    notes: list[str] = []
    for chosen, labelled in zip(tasks, datasets, strict=True):
        notes += [*labelled.notes, *_labels_notes(chosen, labelled)]
        notes += check_data(chosen, labelled, stream=clip.stream, force=force)
    notes = list(dict.fromkeys([*notes, *average_note(checkpoint)]))
    if views.num_crops == 10 and not checkpoint.config.augment.flip:
        notes.append(
            "the network never saw a mirrored clip in its training, and half of these views are "
            "mirrored; give --crops 5 to leave them out"
        )
    where = resolve_device(device)
    model = restore_model(checkpoint)
    tested = TestViews(
        dataset, clip, model.inputs, views, split=split, group_size=group_size(model)
    )
    notes += clips_notes(tested)
    place_model(model, where)
    found = score_heads(
        model,
        tested,
        [
            Head(place, checkpoint.tasks[place].loss, own)
            for place, own in zip(places, datasets, strict=True)
        ],
        device=where,
        precision=precision,
        num_loaders=default_loaders() if num_loaders is None else num_loaders,
        progress=progress,
    )
    source = {
        "checkpoint": origin,
        "step": checkpoint.step,
        "model": checkpoint.config.model.model,
        "data": dataset.location,
        "split": split,
        "views": dataclasses.asdict(views),
        "precision": precision,
        "versions": library_versions(),
    }
    return [
        dataclasses.replace(
            scores,
            class_names=chosen.class_names,
            source={**source, "task": chosen.name, "labels": labelled.labels_name},
        )
        for scores, chosen, labelled in zip(found, tasks, datasets, strict=True)
    ], notes


def clips_notes(tested: TestViews) -> list[str]:
    """Returns notes for a test that uses another number of clips than the user asked for."""
    wanted, taken = tested.views.num_clips, tested.num_clips
    if taken == wanted:
        return []
    together = tested.group_size or taken
    return [
        f"the network joins clips of a video, {together} at once; so the test takes "
        f"{format_count(taken, 'clip')} of each video, and not {wanted}"
    ]


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """Returns the checkpoint that a user means: the file itself, or one of a run's folder.

    From a folder, best.pt is taken, or last.pt if there is no best.pt (`checkpoint_notes` says so).
    Raises WeightsError for a folder without either.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in (BEST_FILE, LAST_FILE):
        if (path / name).exists():
            return path / name
    raise WeightsError(
        f"{path} holds neither {BEST_FILE} nor {LAST_FILE}; give the folder of a training that has "
        "written a checkpoint, or a checkpoint file"
    )


def checkpoint_notes(path: str | os.PathLike[str]) -> list[str]:
    """Returns a note if `checkpoint_file` takes the last checkpoint of a folder, not the best."""
    path = Path(path)
    if not path.is_dir() or checkpoint_file(path).name == BEST_FILE:
        return []
    return [
        f"{path} has no {BEST_FILE}, because its training has tested nothing, so {LAST_FILE} is "
        "taken"
    ]


def _labels_notes(task: Task, dataset: FlowDataset) -> list[str]:
    """Returns a note if the tested split may hold videos that the network was trained on."""
    own = describe_task(dataset)
    data = task.data or task.name
    if task.labels == own.labels or data not in (own.name, dataset.location):
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
    labels: Sequence[str] | None = None,
) -> Path:
    """Returns the default folder for scores, such as `RUN/test-250`."""
    name = next((name for name, spec in VIEWS.items() if spec == views), None)
    parts = [
        *([] if checkpoint.name == BEST_FILE else [checkpoint.stem]),
        *([] if task is None else [task]),
        *(labels or ()),
        split,
        name or f"{views.num_clips}x{views.num_crops}",
    ]
    return checkpoint.parent / "-".join(parts)


def task_place(checkpoint: Checkpoint, name: str | None) -> int:
    """Returns the index of a task in the checkpoint. If there is only one, `name` may be None."""
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


def _groups(
    loader: Iterable[Mapping[str, Any]], bar: tqdm[Any], names: Sequence[str], size: int
) -> Iterator[tuple[list[torch.Tensor], int]]:
    """Yields `size` clips that belong together, (num_crops, size, C, ...), and their video."""
    waiting: list[Mapping[str, torch.Tensor]] = []
    for item in loader:
        waiting.append(item["views"])
        if len(waiting) == size:
            # A single clip needs no copy.
            yield (
                [
                    waiting[0][name].unsqueeze(1)
                    if size == 1
                    else torch.stack([views[name] for views in waiting], 1)
                    for name in names
                ],
                int(item["video"]),
            )
            waiting = []
        bar.update()


def _chunks(
    groups: Iterable[tuple[list[torch.Tensor], int]], size: int | None
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Yields views and the indices of their videos, `size` at a time; the last chunk is smaller."""
    waiting: list[list[torch.Tensor]] = []
    owners: list[int] = []
    for views, video in groups:
        size = size or max(1, _CHUNK_VALUES // sum(tensor[0].numel() for tensor in views))
        waiting.append(views)
        owners += [video] * len(views[0])
        while len(owners) >= size:
            clips = [torch.cat(parts) for parts in zip(*waiting, strict=True)]
            yield [tensor[:size] for tensor in clips], torch.tensor(owners[:size])
            waiting, owners = [[tensor[size:] for tensor in clips]], owners[size:]
    if owners:
        yield [torch.cat(parts) for parts in zip(*waiting, strict=True)], torch.tensor(owners)
