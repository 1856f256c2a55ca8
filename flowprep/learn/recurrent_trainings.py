"""Published trainings of recurrent networks and of the I3D paper's other networks."""

from __future__ import annotations

from collections.abc import Mapping

from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec

__all__ = ["RECURRENT_TRAININGS"]


def _quo_vadis(
    model: str, stream: StreamName, num_frames: int, frame_stride: int
) -> Mapping[StreamName, TrainConfig]:
    """Returns a training of Carreira and Zisserman 2017, section 2.5.

    SGD .9, 110k steps on Kinetics, short side 256, random crops of 224, mirrored. Rate, decay and
    batch are those of recipe i3d.
    """
    config = TrainConfig(
        ModelSpec(model),
        ClipSpec(stream, num_frames, frame_stride, normalization="unit", resize_short_px=256),
        AugmentSpec("random"),
        OptimizationSpec(
            40,
            accumulate=5,
            num_steps=110000,
            learning_rate=0.1,
            weight_decay=1e-7,
            schedule="step",
            milestones=(0.5, 0.8),
        ),
    )
    return {stream: config}


def _gru_rcn(stream: StreamName) -> TrainConfig:
    """Returns the training of Ballas et al. 2016, section 5.1.2.

    Batches of 64 clips of 10 frames, crops of 256, 224, 192 or 168 px that become 224. VGG-16 keeps
    its weights.
    """
    return TrainConfig(
        ModelSpec("gru-rcn"),
        ClipSpec(stream, 10, normalization="tsn-rgb", resize_short_px=256),
        AugmentSpec("random", (1.0, 0.875, 0.75, 0.66)),
        OptimizationSpec(
            64,
            accumulate=8,
            optimizer="adamw",
            learning_rate=1e-4,
            weight_decay=0.0,
            freeze="7",
        ),
    )


RECURRENT_TRAININGS: dict[RecipeName, Mapping[StreamName, TrainConfig]] = {
    "i3d-lstm": _quo_vadis("i3d-lstm", "rgb", 25, 5),
    "i3d-fused": _quo_vadis("i3d-fused", "both", 5, 10),
    "gru-rcn": {"flow": _gru_rcn("flow"), "rgb": _gru_rcn("rgb")},
}
"""The trainings by recipe and stream."""
