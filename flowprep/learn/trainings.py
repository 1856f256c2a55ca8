"""Published trainings. `flowprep.learn.recipes` has the rest of each recipe."""

from __future__ import annotations

from collections.abc import Mapping

from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.config import (
    AugmentSpec,
    ClipSpec,
    ModelSpec,
    OptimizationSpec,
    TrainConfig,
)
from flowprep.learn.network_options import TSNOptions

__all__ = ["TRAININGS"]

_TSN_SCALES = (1.0, 0.875, 0.75, 0.66)


# The number of parts per batch, here and below, is our choice for GPUs of 24 GB.
_TWO_STREAM = OptimizationSpec(
    256,
    accumulate=4,
    num_steps=80000,
    learning_rate=0.01,
    schedule="step",
    milestones=(50 / 80, 70 / 80),
)


_TWO_STREAM_STREAMS: dict[StreamName, TrainConfig] = {
    # Simonyan and Zisserman 2014, sections 3 and 5: batch 256, rate .01 to 1e-3 at 50k and 1e-4 at
    # 70k of 80k steps, dropout .9; crops of 224 from short side 256.
    "flow": TrainConfig(
        ModelSpec("cnn-m-2048"),
        ClipSpec("flow", 10, subtract_mean_flow=True, normalization="tsn", resize_short_px=256),
        AugmentSpec("random"),
        _TWO_STREAM,
    ),
    "rgb": TrainConfig(
        ModelSpec("cnn-m-2048"),
        ClipSpec("rgb", 1, normalization="tsn", resize_short_px=256),
        AugmentSpec("random"),
        _TWO_STREAM,
    ),
}


# Wang et al. 2016, section 4: SGD .9, batch 256; flow: rate .005 to 5e-4 at 12k and 5e-5 at 18k
# of 20k steps, dropout .7; RGB: .001, a tenth every 2k of 4.5k steps, dropout .8. Gradient 20
# and clips of 5 fields from yjxiong/tsn-pytorch's README.
_TSN: dict[StreamName, TrainConfig] = {
    "flow": TrainConfig(
        ModelSpec("tsn-resnet50", options=TSNOptions(partial_bn=True)),
        ClipSpec("flow", 5, num_segments=3, normalization="tsn-resnet", resize_short_px=256),
        AugmentSpec("corners-13", _TSN_SCALES[:3]),
        OptimizationSpec(
            256,
            accumulate=16,
            num_steps=20000,
            learning_rate=0.005,
            schedule="step",
            milestones=(12 / 20, 18 / 20),
            clip_gradient_norm=20,
        ),
    ),
    "rgb": TrainConfig(
        ModelSpec("tsn-resnet50", options=TSNOptions(partial_bn=True)),
        ClipSpec("rgb", 1, num_segments=3, normalization="tsn-resnet", resize_short_px=256),
        AugmentSpec("corners-13", _TSN_SCALES),
        OptimizationSpec(
            256,
            accumulate=16,
            num_steps=4500,
            learning_rate=0.001,
            schedule="step",
            milestones=(2000 / 4500, 4000 / 4500),
            clip_gradient_norm=20,
        ),
    ),
    # RGB-diff as in yjxiong/tsn-pytorch's README: 7 segments of 5 differences, batch 128, rate
    # .001, a tenth after 80 and 160 of 180 epochs, gradient 40, dropout .8.
    "rgb-difference": TrainConfig(
        ModelSpec("tsn-resnet50", options=TSNOptions(partial_bn=True)),
        ClipSpec(
            "rgb-difference",
            5,
            num_segments=7,
            normalization="tsn-resnet",
            resize_short_px=256,
        ),
        AugmentSpec("corners-13", _TSN_SCALES[:3]),
        OptimizationSpec(
            128,
            accumulate=16,
            num_epochs=180,
            learning_rate=0.001,
            schedule="step",
            milestones=(80 / 180, 160 / 180),
            clip_gradient_norm=40,
        ),
    ),
}


_FLOW_AND_RGB: tuple[StreamName, ...] = ("flow", "rgb")


# Carreira and Zisserman 2017, section 3: SGD .9, clips of 64 frames at 25 fps, short side 256,
# random crop 224, mirrored; a tenth of the rate at plateaus, here at fixed shares. Rate, decay
# and batch from piergiaj/pytorch-i3d train_i3d.py.
_I3D: dict[StreamName, TrainConfig] = {
    stream: TrainConfig(
        ModelSpec("i3d"),
        ClipSpec(stream, 64, normalization="unit", resize_short_px=256),
        AugmentSpec("random"),
        OptimizationSpec(
            40,
            accumulate=5,
            num_epochs=40,
            learning_rate=0.1,
            weight_decay=1e-7,
            schedule="step",
            milestones=(0.5, 0.8),
        ),
    )
    for stream in _FLOW_AND_RGB
}


TRAININGS: dict[RecipeName, Mapping[StreamName, TrainConfig]] = {
    "two-stream": _TWO_STREAM_STREAMS,
    "tsn": _TSN,
    "i3d": _I3D,
}
"""The published trainings by recipe and stream."""
