"""The figures of networks with recurrent layers, and of the I3D paper's other networks."""

from __future__ import annotations

from tests.learn.models.figure_row import Row

__all__ = ["RECURRENT"]

VGG16_TRUNK = 138_357_544 - (4096 * 1000 + 1000)
"""torchvision's VGG-16 without its last layer."""

GRU_RCN_GATES = [27 * 192 * 64, 27 * 384 * 128, 27 * 768 * 256, 27 * 768 * 256, 3 * 4608 * 512]
"""Three gates of 3 x 3 over what is below and before, or dense ones: .33, 1.33, 5.31, 5.31 and 7.08
million."""

BOTTOM_UP = 2 * 9 * (64 * 128 + 128 * 256 + 256 * 256) + 2 * 256 * 512


def recurrent_cnn(in_channels: int, num_gates: int) -> int:
    """Each gate's windows and, in a layer, a batch norm and a bias; a classifier of 101."""
    below = 7 * 7 * in_channels * 32 + 9 * (32 * 64 + 64 * 128 + 128 * 256)
    before = 9 * (32**2 + 64**2 + 128**2 + 256**2)
    return num_gates * (below + before + 3 * (32 + 64 + 128 + 256)) + 256 * 101 + 101


RECURRENT = [
    *(
        Row(
            "recurrent-cnn",
            stream,
            101,
            112,
            parameters=recurrent_cnn(channels, num_gates),
            tensors=(4 * 8 + 2, 4 * 7 + 2),
            shapes={"levels.0.below.weight": (32 * num_gates, channels, 7, 7)},
            options={} if cell == "plain" else {"cell": cell},
        )
        for stream, channels, cell, num_gates in (
            ("flow", 2, "plain", 1),
            ("rgb", 3, "gru", 3),
            ("rgb", 3, "lstm", 4),
        )
    ),
    # Ballas et al. 2016, section 5.1.1: VGG-16, five GRUs, five classifiers.
    Row(
        "gru-rcn",
        "rgb",
        101,
        parameters=VGG16_TRUNK + sum(GRU_RCN_GATES) + 1216 * 101 + 5 * 101,
        tensors=(30 + 2 * 5 + 2 * 5,) * 2,
        shapes={
            "features.0.weight": (64, 3, 3, 3),
            "grus.0.0.below.weight": (3 * 64, 128, 3, 3),
            "grus.0.0.before.weight": (3 * 64, 64, 3, 3),
            "grus.0.2.below.weight": (3 * 256, 512, 3, 3),
            "grus.0.3.before.weight": (3 * 256, 256, 3, 3),
            "grus.0.4.below.weight": (3 * 512, 4096, 1, 1),
            "heads.4.weight": (101, 512),
        },
    ),
    Row(
        "gru-rcn",
        "rgb",
        101,
        parameters=VGG16_TRUNK + sum(GRU_RCN_GATES) + BOTTOM_UP + 1216 * 101 + 5 * 101,
        shapes={"bottom_up.0.3.weight": (2 * 512, 256, 1, 1)},
        options={"stacked": True},
    ),
    Row(
        "gru-rcn",
        "rgb",
        101,
        parameters=VGG16_TRUNK + 2 * sum(GRU_RCN_GATES) + 2 * 1216 * 101 + 5 * 101,
        options={"bidirectional": True},
    ),
    Row(
        "gru-rcn",
        "flow",
        101,
        parameters=VGG16_TRUNK + 64 * 17 * 9 + sum(GRU_RCN_GATES) + 1216 * 101 + 5 * 101,
        shapes={"features.0.weight": (64, 20, 3, 3)},
    ),
    # Carreira and Zisserman 2017, table 1: 12 M for both streams, 9 M with an LSTM, and 39 M fused,
    # where ours has 39.6 M below the classifier.
    Row("inception-v1", "rgb", 400, millions=6, digits=0, tensors=(344, 287)),
    Row("inception-v1", "flow", 400, millions=6, digits=0, tensors=(344, 287)),
    Row(
        "i3d-lstm",
        "rgb",
        400,
        millions=9,
        digits=0,
        shapes={
            "lstm.weight_ih": (4 * 512, 1024),
            "lstm.weight_hh": (4 * 512, 512),
            "lstm.norm_c.running_var": (25, 512),
            "fc.weight": (400, 512),
        },
    ),
    Row(
        "i3d-fused",
        "both",
        400,
        millions=39.8,
        digits=1,
        shapes={
            "flow.Conv3d_1a_7x7.conv3d.weight": (64, 20, 1, 7, 7),
            "rgb.Conv3d_1a_7x7.conv3d.weight": (64, 3, 1, 7, 7),
            "fusion.conv3d.weight": (512, 2048, 3, 3, 3),
        },
    ),
]
