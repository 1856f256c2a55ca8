"""Training on a data set: clips, transforms, networks, the training loop, testing and fusion.

Needs the extra `train`. `networks`, `config`, `recipes`, `clips.indices` and `clips.transforms` do
not need PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowprep.lazy import lazy_names

if TYPE_CHECKING:
    from flowprep.learn.clips.streaming import StreamedClips
    from flowprep.learn.clips.transforms import (
        Crop,
        crop_flow,
        crop_frames,
        flip_flow,
        flip_frames,
        normalize_flow,
        normalize_frames,
        subtract_mean_flow,
        to_stack,
        to_volume,
        training_crop,
        trajectory_stack,
    )
    from flowprep.learn.clips.video_clips import VideoClips, collate
    from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
    from flowprep.learn.create import create_model
    from flowprep.learn.training_specs import AugmentSpec
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AugmentSpec": "flowprep.learn.training_specs",
            "ClipSpec": "flowprep.learn.config",
            "Crop": "flowprep.learn.clips.transforms",
            "ModelSpec": "flowprep.learn.config",
            "StreamedClips": "flowprep.learn.clips.streaming",
            "TrainConfig": "flowprep.learn.config",
            "VideoClips": "flowprep.learn.clips.video_clips",
            "collate": "flowprep.learn.clips.video_clips",
            "create_model": "flowprep.learn.create",
            "crop_flow": "flowprep.learn.clips.transforms",
            "crop_frames": "flowprep.learn.clips.transforms",
            "flip_flow": "flowprep.learn.clips.transforms",
            "flip_frames": "flowprep.learn.clips.transforms",
            "normalize_flow": "flowprep.learn.clips.transforms",
            "normalize_frames": "flowprep.learn.clips.transforms",
            "subtract_mean_flow": "flowprep.learn.clips.transforms",
            "to_stack": "flowprep.learn.clips.transforms",
            "to_volume": "flowprep.learn.clips.transforms",
            "training_crop": "flowprep.learn.clips.transforms",
            "trajectory_stack": "flowprep.learn.clips.transforms",
        },
    )

__all__ = [
    "AugmentSpec",
    "ClipSpec",
    "Crop",
    "ModelSpec",
    "StreamedClips",
    "TrainConfig",
    "VideoClips",
    "collate",
    "create_model",
    "crop_flow",
    "crop_frames",
    "flip_flow",
    "flip_frames",
    "normalize_flow",
    "normalize_frames",
    "subtract_mean_flow",
    "to_stack",
    "to_volume",
    "training_crop",
    "trajectory_stack",
]
