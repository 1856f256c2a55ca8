"""Weights of LRCN for activity recognition (LisaAnne/lisa-caffe-public).

The names are those of train_test_lstm_RGB.prototxt in examples/LRCN_activity_recognition. An LSTM
layer of that Caffe holds the parameters of the network that it unrolls, in this order: W_xc and b_c
of x_transform, and W_hc (src/caffe/layers/lstm_layer.cpp, recurrent_layer.cpp). Its gates are the
rows i, f, o and g (lstm_unit_layer.cpp); PyTorch's are i, f, g and o, and it adds a second bias.

Both streams see three channels in reverse order (sequence_input_layer.py, set_channel_swap): blue,
green, red, or magnitude, y, x. The first kernel is turned around.
"""

from __future__ import annotations

import torch

from flowprep.learn.weights.caffe_rules import CAFFE_MATRIX, CAFFE_VECTOR, caffe_layer
from flowprep.learn.weights.foreign import (
    BGR_TO_RGB,
    IMAGE_KERNEL,
    Conversion,
    ForeignFormat,
    Hint,
    Mark,
    Rule,
    Supplied,
)

__all__ = ["LRCN"]


def _torch_gates(value: torch.Tensor) -> torch.Tensor | None:
    if len(value) % 4:
        return None
    i, f, o, g = value.chunk(4)
    return torch.cat([i, f, g, o])


_GATES = Conversion("gates i, f, o, g as i, f, g, o", _torch_gates)

LRCN = {
    "lrcn-caffe": ForeignFormat(
        "LisaAnne/lisa-caffe-public",
        "LRCN over frames or flow, trained on UCF101",
        (Mark(r"conv1\[0\]", IMAGE_KERNEL), Mark(r"lstm1\[2\]"), Mark(r"fc6\[0\]")),
        (
            *caffe_layer("conv1", "conv1", BGR_TO_RGB),
            *caffe_layer(r"(conv[2-5])", r"\1"),
            *caffe_layer("fc6", "fc6", CAFFE_MATRIX),
            *caffe_layer("fc8-final", "fc8", CAFFE_MATRIX),
            Rule(r"lstm1\[0\]", "lstm.weight_ih_l0", (CAFFE_MATRIX, _GATES)),
            Rule(r"lstm1\[1\]", "lstm.bias_ih_l0", (CAFFE_VECTOR, _GATES)),
            Rule(r"lstm1\[2\]", "lstm.weight_hh_l0", (CAFFE_MATRIX, _GATES)),
        ),
        ("lrcn",),
        recipes=("lrcn",),
        hints=(
            Hint(
                Mark(r"lstm1\[2\]"),
                "Flow with its magnitude has three channels as frames have. The file does not say "
                "which of them it saw.",
            ),
        ),
        supplied=(
            Supplied(
                r"lstm\.bias_ih_l0", "lstm.bias_hh_l0", 0.0, "zeros, as Caffe's LSTM has one bias"
            ),
        ),
    ),
}
"""The formats of one project, by name."""
