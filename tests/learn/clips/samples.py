"""What tests of clips have in common: their configurations, and changed data sets."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import VideoList
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.config import (
    ClipSpec,
    TrainConfig,
)

FLOW = ClipSpec("flow", 4, crop_px=32, normalization="tsn-resnet")
RGB = ClipSpec("rgb", 2, crop_px=32, normalization="tsn-resnet")
CONFIG = TrainConfig(clip=FLOW, seed=3)
SLICE, MIRRORED = Crop(9, 4, 32, 32), Crop(9, 4, 32, 32, flip=True)
RESAMPLED = Crop(3.5, 1.25, 44, 40.5, flip=True)


def batches(samples: TrainingClips, **options: Any) -> list[dict[str, torch.Tensor]]:
    return list(training_loader(samples, **{"batch_size": 8, "first_step": 0} | options))


def with_videos(dataset: FlowDataset, **changes: Any) -> FlowDataset:
    """The data set with its first 3 videos changed."""
    videos = list(dataset.videos)
    videos[:3] = [dataclasses.replace(video, **changes) for video in videos[:3]]
    dataset.videos = VideoList(videos)
    return dataset
