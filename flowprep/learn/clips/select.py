"""Selects videos by split and label, and checks that clips can be made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS
from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.mean_image import check_mean
from flowprep.learn.clips.transforms import training_crop
from flowprep.learn.config import ClipSpec, TrainConfig, check_stack
from flowprep.words import format_count

__all__ = ["check_clip", "select_labelled", "select_videos"]


def select_videos(dataset: FlowDataset, split: str) -> NDArray[np.int64]:
    """Returns the positions in `dataset.videos` of a split; `all` takes every video.

    Raises DatasetError if the split has no video.
    """
    videos = dataset.videos
    chosen = [n for n, video in enumerate(videos) if split in ("all", video.split)]
    if not chosen:
        raise DatasetError(_missing_split(dataset, split))
    return np.array(chosen, np.int64)


def _missing_split(dataset: FlowDataset, split: str) -> str:
    known = Counter(video.split for video in dataset.videos)
    place = _shown(dataset)
    if not known:
        return f"{place} holds no video yet; wait for its extraction, or run it again"
    if set(known) == {None}:
        return (
            f"{place} holds no video of split {split}, because its videos have no splits; take "
            "split all, or give them splits by `flowprep label`, then name these by --labels"
        )
    held = ", ".join(f"{count:,} of {name or 'no split'}" for name, count in known.items())
    return (
        f"{place} holds no video of split {split}, it holds {held}; choose another split, or `all`"
    )


def _shown(dataset: FlowDataset) -> str:
    """Names a data set in a message, with the labels under which it was opened."""
    labels = "" if dataset.labels_name is None else f" with labels {dataset.labels_name}"
    return f"{dataset.location}{labels}"


def select_labelled(
    dataset: FlowDataset,
    config: TrainConfig,
    inputs: Sequence[ClipInput],
    *,
    several: bool = False,
) -> tuple[dict[int, int], int]:
    """Returns the videos to train on (position in `dataset.videos` -> label), and the number of
    skipped videos of the split, which have no label or several.

    With `several`, videos with several labels are taken too, and -1 stands for their label.

    Raises DatasetError if no video is left, and ConfigError if the data set lacks the streams that
    clips need or if frames are too small for the crops.
    """
    check_clip(dataset, config.clip, inputs)
    positions = select_videos(dataset, config.train_split)
    labels: dict[int, int] = {}
    sizes: set[tuple[int, int]] = set()
    for position in positions.tolist():
        video = dataset.videos[position]
        if video.label is not None or (several and video.labels):
            labels[position] = -1 if video.label is None else video.label
            sizes.add((video.width, video.height))
    if not labels:
        raise DatasetError(
            f"{_shown(dataset)}: none of the {format_count(len(positions), 'video')} of split "
            f"{config.train_split} has {'a' if several else 'exactly one'} label; give them labels "
            "by `flowprep label`, then name these by --labels, or choose another split"
        )
    for width, height in sorted(sizes):
        training_crop(width, height, config.clip, config.augment, np.random.default_rng(0))
    return labels, len(positions) - len(labels)


def check_clip(dataset: FlowDataset, clip: ClipSpec, inputs: Sequence[ClipInput]) -> None:
    """Raises ConfigError if a data set lacks a stream that one of the inputs needs.

    It also raises if a stack cannot be made of an input's fields, and for a file of means that is
    not for an input.
    """
    encode = dataset.config.encode
    for one in inputs:
        check_mean(clip, one)
        if one.stream != "flow":
            if not encode.keep_rgb:
                raise ConfigError(
                    f"{_shown(dataset)} holds no RGB frames, which stream {clip.stream} needs; "
                    "use --stream flow, or extract with --rgb"
                )
            continue
        if one.stack_length > 1 and clip.stack != "plain":
            raise ConfigError(
                f"stack must be plain for stacks along time, got {clip.stack}; take another model"
            )
        check_stack(clip.stack, one.num_frames, one.frame_stride)
        wanted = set(DIRECTIONS) if clip.stack == "bidirectional" else {"forward"}
        if missing := sorted(wanted - set(encode.directions)):
            raise ConfigError(
                f"{_shown(dataset)} holds no {missing[0]} flow, which stack {clip.stack} needs; "
                f"it has {', '.join(encode.directions)}"
            )
