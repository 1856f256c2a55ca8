"""What a network must say of each training video: one class, or several, of one label set or more.

    data sets      -> head_groups     which of them are label sets of the same videos
    label sets     -> choose_losses   `cross-entropy` for one class a video, `bce` for several
    a part's rows  -> ClipTargets.of  a tensor for each head

Every head of a network belongs to one label set. Data sets that share their location but not the
name of their labels are label sets of the same videos, such as EPIC-Kitchens' verbs and nouns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.errors import DatasetError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.select import select_labelled, select_videos
from flowprep.learn.config import TrainConfig
from flowprep.learn.training_specs import LossName

__all__ = [
    "ClipTargets",
    "choose_losses",
    "class_names_of",
    "has_usable_label",
    "head_groups",
    "multi_hot",
]

NO_TARGET = -1
"""The target of a sample for the heads of other data sets."""


def class_names_of(dataset: FlowDataset) -> tuple[str, ...]:
    """Returns a name for each class; numbers if the data set names none."""
    if dataset.class_names:
        return dataset.class_names
    highest = max((label for video in dataset.videos for label in video.labels), default=-1)
    return tuple(str(label) for label in range(highest + 1))


def head_groups(datasets: Sequence[FlowDataset]) -> list[tuple[int, ...]]:
    """Returns the indices of the data sets, those of the same videos together.

    Raises DatasetError if the videos of one location are not the same in two of them.
    """
    groups: list[list[int]] = []
    for number, dataset in enumerate(datasets):
        for group in groups:
            first = datasets[group[0]]
            names = {datasets[other].labels_name for other in group}
            if dataset.location == first.location and dataset.labels_name not in names:
                if len(dataset.videos) != len(first.videos):
                    raise DatasetError(
                        f"{dataset.location} got other videos while it was opened; "
                        "run the same command again"
                    )
                group.append(number)
                break
        else:
            groups.append([number])
    return [tuple(group) for group in groups]


def choose_losses(
    datasets: Sequence[FlowDataset], split: str, wanted: LossName | None = None
) -> list[LossName]:
    """Returns the wanted loss for each data set; by default `bce` if a video has several labels.

    Only the videos of the split count, which is that of the first label set of the same videos.
    """
    losses: list[LossName] = [wanted or "cross-entropy"] * len(datasets)
    for group in head_groups(datasets) if wanted is None else ():
        places = select_videos(datasets[group[0]], split).tolist()
        for head in group:
            if any(len(datasets[head].videos[place].labels) > 1 for place in places):
                losses[head] = "bce"
    return losses


def has_usable_label(labels: Sequence[int], loss: LossName) -> bool:
    """Whether a video with these labels can be trained on, and measured."""
    return len(labels) == 1 or (loss == "bce" and len(labels) > 1)


def multi_hot(labels: Iterable[Sequence[int]], num_classes: int) -> NDArray[np.bool_]:
    """Returns (N, K) bool: which classes each video has. Raises DatasetError for a label >= K."""
    rows = list(labels)
    targets = np.zeros((len(rows), num_classes), np.bool_)
    for row, own in zip(targets, rows, strict=True):
        if own and max(own) >= num_classes:
            raise DatasetError(
                f"labels must be < {num_classes}, the number of classes of the network, got "
                f"{max(own)}"
            )
        row[list(own)] = True
    return targets


class ClipTargets:
    """The targets of training videos for every head of a network."""

    def __init__(self, datasets: Sequence[FlowDataset], losses: Sequence[LossName]) -> None:
        """Takes a loss for each of the data sets."""
        self.datasets = tuple(datasets)
        self.losses = tuple(losses)
        self.groups = head_groups(datasets)
        self.is_plain = len(self.groups) == len(datasets) and "bce" not in losses
        """Whether every video has one label, for one head. Then `label` and `task` are enough."""
        self._group_of = {group[0]: group for group in self.groups}
        self._num_classes = [
            len(class_names_of(dataset)) if loss == "bce" else 0
            for dataset, loss in zip(datasets, losses, strict=True)
        ]

    def select(
        self, config: TrainConfig, inputs: Sequence[ClipInput]
    ) -> tuple[list[tuple[int, int, int]], int]:
        """Returns (head, position in `videos`, label) of each video, and the number left out.

        The head is the first of the video's heads, whose label set decides the split. Its label is
        -1 for a video of several. A video needs a label in every label set of its data set.
        """
        rows: list[tuple[int, int, int]] = []
        num_skipped = 0
        for first, *others in self.groups:
            several = self.losses[first] == "bce"
            labels, num_unlabelled = select_labelled(
                self.datasets[first], config, inputs, several=several
            )
            kept = [
                (first, position, label)
                for position, label in labels.items()
                if all(self._is_usable(other, position) for other in others)
            ]
            if not kept:
                names = " and ".join(str(self.datasets[n].labels_name) for n in (first, *others))
                raise DatasetError(
                    f"{self.datasets[first]!r}: no video of split {config.train_split!r} has a "
                    f"label in {names}; label the same videos in each of them"
                )
            rows += kept
            num_skipped += num_unlabelled + len(labels) - len(kept)
        return rows, num_skipped

    def _is_usable(self, head: int, position: int) -> bool:
        return has_usable_label(self.datasets[head].videos[position].labels, self.losses[head])

    def heads_of(self, first: int) -> tuple[int, ...]:
        """Returns the heads of the videos whose first head this is."""
        return self._group_of[first]

    def pairs(self, rows: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
        """Returns (head, label) of the videos in `rows`, for each of their heads and labels."""
        return [
            (head, label)
            for first, position, _ in rows
            for head in self._group_of[first]
            for label in self.datasets[head].videos[position].labels
        ]

    def of(self, rows: Iterable[Sequence[int]]) -> list[torch.Tensor]:
        """Returns the targets of n samples for each head, -1 for heads of other data sets.

        They are (n,) int64 for a head of the loss cross-entropy, (n, K) float32 of zeros and ones
        for a head of the loss bce.
        """
        rows = list(rows)
        targets = [
            torch.full((len(rows), num_classes), float(NO_TARGET))
            if loss == "bce"
            else torch.full((len(rows),), NO_TARGET)
            for loss, num_classes in zip(self.losses, self._num_classes, strict=True)
        ]
        for number, (first, position, _) in enumerate(rows):
            for head in self._group_of[int(first)]:
                labels = self.datasets[head].videos[int(position)].labels
                if self.losses[head] == "bce":
                    targets[head][number] = torch.from_numpy(
                        multi_hot([labels], self._num_classes[head])[0].astype(np.float32)
                    )
                else:
                    targets[head][number] = labels[0]
        return targets
