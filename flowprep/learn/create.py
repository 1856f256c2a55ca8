"""Makes a network: `create_model("i3d", stream="flow", num_classes=101, weights="i3d.pt")`."""

from __future__ import annotations

import os
from typing import Any

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ChannelOrder, NormalizationName, StreamName
from flowprep.learn.models.base import ClipModel
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.networks import clip_inputs, find_network, make_options
from flowprep.learn.weights.towers import start_from

__all__ = ["create_model"]


def create_model(
    name: str,
    *,
    stream: StreamName,
    num_classes: int,
    weights: str | os.PathLike[str] | None = None,
    num_frames: int | None = None,
    frame_stride: int | None = None,
    width: float = 1.0,
    dropout: float | None = None,
    crop_px: int | None = None,
    num_segments: int | None = None,
    channel_order: ChannelOrder = "interleaved",
    motion: MotionSpec | None = None,
    normalization: NormalizationName | None = None,
    **options: Any,
) -> ClipModel:
    """Creates the network called `name`, with new weights or with `weights` from a file.

    A network of two towers may start from a file for each, with a comma between them.

    `num_frames` and `frame_stride` set the length of a clip (`networks.clip_inputs`).
    `num_segments` is the number of clips that a network over segments joins. `dropout` is the
    probability that a feature is dropped before the classifier. `crop_px` matters only for networks
    that are built for one crop size. The defaults of these five are the published values. `width`
    multiplies the channels of every layer. `channel_order` is that of the stacks of flow which the
    network will get: weights for the other order are refused. `options` are the network's own
    options; its entry in `flowprep.learn.networks` names their type.

    Raises ConfigError for an unknown name, for a value that breaks a rule, and for an option that
    the network does not have, unless the value is that option's default.
    """
    own = make_options(name, options)
    network = find_network(name).with_options(own)
    for key, value in (
        ("num_classes", num_classes),
        ("crop_px", crop_px),
        ("num_frames", num_frames),
        ("frame_stride", frame_stride),
        ("num_segments", num_segments),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{key} must be at least 1, got {value}")
    if not width > 0:
        raise ConfigError(f"width must be above 0, got {width}")
    if dropout is not None and not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}")
    if network.sees == "clip" and num_segments not in (None, 1):
        raise ConfigError(
            f"num_segments does not apply to {name}, got {num_segments}; leave it out, or choose a "
            "network that joins segments"
        )
    crop_px = network.crop_px if crop_px is None else crop_px
    model = network.make(
        clip_inputs(name, stream, num_frames, frame_stride, own),
        num_classes,
        width=width,
        dropout=dropout,
        crop_px=crop_px,
        num_segments=num_segments,
        options=own,
        motion=motion,
        normalization=normalization,
    )
    # Also of the networks that it is made of.
    least = max(part.min_side_px for part in model.modules() if isinstance(part, ClipModel))
    if crop_px < least:
        raise ConfigError(f"crop_px must be at least {least} for {name}, got {crop_px}")
    if weights is not None:
        start_from(model, weights, channel_order=channel_order)
    return model
