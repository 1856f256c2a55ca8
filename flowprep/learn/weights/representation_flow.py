"""Weights of piergiaj/representation-flow-cvpr19: a (2+1)D ResNet-50 with representation flow.

A file is the state dict of kinetics_2p1d_model.py. Its classifier is a convolution.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import CONV3D_TO_LINEAR, ForeignFormat, Mark, Rule

__all__ = ["REPRESENTATION_FLOW"]

REPRESENTATION_FLOW = {
    "representation-flow": ForeignFormat(
        "piergiaj/representation-flow-cvpr19",
        "a (2+1)D ResNet-50 with the flow of its features, trained on Kinetics-400",
        (
            Mark(r"(?:module\.)?rep_flow\.img_grad", (None, None, 1, 3)),
            Mark(r"(?:module\.)?res2\.blocks\.0\.layers\.1\.weight", (None, None, 3, 1, 1)),
        ),
        (
            Rule(r"(?:module\.)?classify\.(\w+)", r"fc.\1", (CONV3D_TO_LINEAR,)),
            Rule(r"(?:module\.)?rep_flow\.((?:img_grad|f_grad|div)2?|[tla])", r"rep_flow.flow.\1"),
            Rule(
                r"(?:module\.)?((?:stem|bn1|rep_flow\.\w+|res\d\.blocks\.\d+\.\w+\.\d)\.\w+)",
                r"\1",
            ),
        ),
        ("representation-flow",),
    ),
}
"""The format of one project, by name."""
