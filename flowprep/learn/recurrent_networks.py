"""The entries of networks that pool over frames, that have recurrent layers, or that are the I3D
paper's other ones."""

from __future__ import annotations

from flowprep.learn import network_builders as builders
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.network_entry import Network, frames_and_fields, stacks, volumes
from flowprep.learn.network_options import (
    CNNLSTMOptions,
    FramePoolingOptions,
    GRURCNOptions,
    RecurrentCNNOptions,
)

__all__ = ["RECURRENT_NETWORKS"]

_QUO_VADIS = "Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017)"

RECURRENT_NETWORKS: dict[str, Network] = {
    "recurrent-cnn": Network(
        builders.recurrent_cnn,
        volumes(16),
        "The lecture notes",
        "Four convolutional layers. Each sees the layer below at the same time, and itself at the "
        "time before.",
        crop_px=112,
        options=RecurrentCNNOptions,
    ),
    "gru-rcn": Network(
        builders.gru_rcn,
        {
            # VGG-16 sees ten fields at each step, as in two-stream networks (section 5.1.2). The
            # paper does not say how far the steps are apart.
            "flow": (ClipInput("flow", "flow", "volume", 10, stack_length=10),),
            "rgb": (ClipInput("rgb", "rgb", "volume", 10),),
        },
        "Ballas et al., Delving Deeper into Convolutional Networks (ICLR 2016)",
        "`vgg16` over each frame. GRUs go over time at five of its layers, four of them "
        "convolutional.",
        normalization="tsn-rgb",
        recipe="gru-rcn",
        options=GRURCNOptions,
    ),
    "frame-pooling": Network(
        builders.frame_pooling,
        volumes(30),
        "Ng et al., Beyond Short Snippets (CVPR 2015)",
        "A 2D network over each frame, up to 120 of them. What it finds is pooled over time.",
        "UCF101: both 88.6, RGB 82.6; Sports-1M: both 73.1 (the best networks of the paper)",
        options=FramePoolingOptions,
    ),
    "cnn-lstm": Network(
        builders.cnn_lstm,
        volumes(30),
        "Ng et al., Beyond Short Snippets (CVPR 2015)",
        "A 2D network over each frame, up to 120 of them, and five layers of LSTM. Every step has "
        "a loss.",
        "UCF101: both 88.6, RGB 82.6; Sports-1M: both 73.1 (the best networks of the paper)",
        options=CNNLSTMOptions,
    ),
    "lrcn": Network(
        builders.lrcn,
        volumes(16, has_magnitude=True),
        "Donahue et al., Long-term Recurrent Convolutional Networks (CVPR 2015)",
        "Five convolutions and a fully connected layer over each frame, and one layer of LSTM. "
        "Flow has its magnitude as a third channel.",
        crop_px=227,
        normalization="lrcn",
        recipe="lrcn",
        has_one_size=True,
    ),
    "inception-v1": Network(
        builders.inception_v1,
        stacks(),
        _QUO_VADIS,
        "Inception-V1 with batch norm over an image or a stack, as in the paper's two-stream "
        "networks.",
        "UCF101 split 1: flow 85.6, RGB 83.6, both 91.2; Kinetics-400: 52.4, 62.2, 65.6 (the "
        "paper)",
        recipe="i3d",
    ),
    "i3d-lstm": Network(
        builders.i3d_lstm,
        volumes(25, 5),
        _QUO_VADIS,
        "`inception-v1` over each frame, and an LSTM with batch norm over its features. The loss "
        "is that of all steps, the answer is that of the last.",
        "Kinetics-400: RGB 63.3; UCF101 split 1: RGB 81.0; HMDB51 split 1: RGB 36.0 (the paper)",
        recipe="i3d-lstm",
    ),
    "i3d-fused": Network(
        builders.i3d_fused,
        frames_and_fields(),
        _QUO_VADIS,
        "`inception-v1` over frames, another over the flow around them, and a 3D convolution over "
        "the maps of both.",
        "Kinetics-400: both 67.2; UCF101 split 1: both 89.3; HMDB51 split 1: both 56.8 (the paper)",
        recipe="i3d-fused",
    ),
}
"""The entries by name."""
