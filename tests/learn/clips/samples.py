"""What tests of clips have in common: their configurations, and changed data sets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import VideoList
from flowprep.learn.clip_inputs import ClipForm, ClipInput
from flowprep.learn.clips import indices
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.config import ClipSpec, TrainConfig

FLOW = ClipSpec("flow", 4, crop_px=32, normalization="tsn-resnet")
RGB = ClipSpec("rgb", 2, crop_px=32, normalization="tsn-resnet")
CONFIG = TrainConfig(clip=FLOW, seed=3)
BOTH = (ClipInput("flow", "flow", "stack", 4), ClipInput("rgb", "rgb", "volume", 3, 2))
"""What a network of two inputs takes."""
SLICE, MIRRORED = Crop(9, 4, 32, 32), Crop(9, 4, 32, 32, flip=True)
RESAMPLED = Crop(3.5, 1.25, 44, 40.5, flip=True)


def taken(clip: ClipSpec, form: ClipForm = "stack") -> ClipInput:
    """What a network of one input takes of such clips."""
    return ClipInput(clip.stream, clip.stream, form, clip.num_frames, clip.frame_stride)


def training_indices(
    num_fields: int, clip: ClipSpec, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The clips of a network of one input, of a video of so many fields or frames."""
    num_frames = num_fields + (clip.stream == "flow")
    return indices.training_indices(num_frames, num_fields, [taken(clip)], clip, rng)[0]


def view_indices(num_fields: int, clip: ClipSpec, num_clips: int) -> NDArray[np.int64]:
    """The same of a test."""
    num_frames = num_fields + (clip.stream == "flow")
    return indices.test_indices(num_frames, num_fields, [taken(clip)], clip, num_clips)[0]


def batches(samples: TrainingClips, **options: Any) -> list[dict[str, torch.Tensor]]:
    return list(training_loader(samples, **{"batch_size": 8, "first_step": 0} | options))


def with_videos(dataset: FlowDataset, **changes: Any) -> FlowDataset:
    """The data set with its first 3 videos changed."""
    videos = list(dataset.videos)
    videos[:3] = [dataclasses.replace(video, **changes) for video in videos[:3]]
    dataset.videos = VideoList(videos)
    return dataset
