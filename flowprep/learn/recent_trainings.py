"""Published trainings of recent networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from flowprep.learn.clip_inputs import NormalizationName, RecipeName, StreamName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.network_options import TimeSformerOptions, TimeSformerSize
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec

__all__ = ["RECENT_TRAININGS"]


def _timesformer(
    size: TimeSformerSize,
    num_frames: int,
    frame_stride: int,
    normalization: NormalizationName = "slowfast",
) -> TrainConfig:
    """Returns facebookresearch/TimeSformer's training on Kinetics-400 (configs/Kinetics).

    SGD, 15 epochs, rate .005, a tenth after 11 and 14, decay 1e-4. The batch of all GPUs is 8 (its
    TRAIN.BATCH_SIZE is divided among them). The short side is drawn from 256 to 320 for crops of
    224, and from 448 to 512 for crops of 448: shares of .875 to .7, and of 1 to .875.
    """
    is_high = size == "hr"
    return TrainConfig(
        ModelSpec("timesformer", options=TimeSformerOptions(size=size)),
        ClipSpec(
            "rgb",
            num_frames,
            frame_stride,
            normalization=normalization,
            resize_short_px=512 if is_high else 256,
            crop_px=448 if is_high else 224,
        ),
        AugmentSpec("random", (1.0, 0.9375, 0.875) if is_high else (0.875, 0.8, 0.75, 0.7)),
        OptimizationSpec(
            8,
            num_epochs=15,
            learning_rate=0.005,
            weight_decay=1e-4,
            schedule="step",
            milestones=(11 / 15, 14 / 15),
        ),
    )


def _something(size: TimeSformerSize, num_frames: int) -> TrainConfig:
    """Returns the release's training on Something-Something V2 (configs/SSv2).

    Each frame is of its own part of the video, and no clip is mirrored: left and right matter.
    """
    config = _timesformer(size, num_frames, 1, "timesformer-ssv2")
    return dataclasses.replace(
        config,
        clip=dataclasses.replace(config.clip, sampling="spread"),
        augment=dataclasses.replace(config.augment, flip=False),
    )


def _mmaction2() -> TrainConfig:
    """Returns mmaction2's training on Kinetics-400 (configs/recognition/timesformer).

    8 GPUs with 8 clips each, Nesterov's momentum, a tenth after 5 and 10 epochs, gradient 40. Its
    embeddings do not decay; here all weights do.
    """
    config = _timesformer("base", 8, 32, "unit")
    return dataclasses.replace(
        config,
        optimization=dataclasses.replace(
            config.optimization,
            batch_size=64,
            accumulate=8,
            nesterov=True,
            milestones=(5 / 15, 10 / 15),
            clip_gradient_norm=40,
        ),
    )


RECENT_TRAININGS: dict[RecipeName, Mapping[StreamName, TrainConfig]] = {
    "timesformer": {"rgb": _timesformer("base", 8, 32)},
    "timesformer-hr": {"rgb": _timesformer("hr", 16, 16)},
    "timesformer-long": {"rgb": _timesformer("long", 96, 4)},
    "timesformer-ssv2": {"rgb": _something("base", 8)},
    "timesformer-ssv2-hr": {"rgb": _something("hr", 16)},
    "timesformer-ssv2-long": {"rgb": _something("base", 64)},
    "mmaction2-timesformer": {"rgb": _mmaction2()},
}
"""The trainings by recipe and stream."""
