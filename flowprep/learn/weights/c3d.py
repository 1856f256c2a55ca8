"""Weights of C3D: facebookarchive/C3D's in Caffe, and those of projects that took them over.

Caffe's layers have our names (examples/c3d_feature_extraction/prototxt). DavideA/c3d-pytorch
(C3D_model.py) and jfzhang95/pytorch-video-recognition (network/C3D_model.py) call the first two
conv1 and conv2. open-mmlab/mmaction2 (models/backbones/c3d.py) has mmcv's ConvModule around each
convolution; its file of Sports-1M is a backbone alone.

Caffe rounds its poolings up. The others pad pool5 in front (`models.c3d.Pool5`). All kernels see
frames in the order of the file's project, which the recipe's normalization has: none is turned.
"""

from __future__ import annotations

from flowprep.learn.weights.caffe_rules import CAFFE_MATRIX, caffe_layer
from flowprep.learn.weights.foreign import VIDEO_KERNEL, ForeignFormat, Hint, Mark, Rule

__all__ = ["C3D"]

_FC6 = (None, None)

C3D = {
    "c3d-caffe": ForeignFormat(
        "facebookarchive/C3D",
        "C3D, trained on Sports-1M and UCF101",
        (Mark(r"conv1a\[0\]", VIDEO_KERNEL), Mark(r"conv5b\[0\]", VIDEO_KERNEL)),
        (
            *caffe_layer(r"(conv\d[ab])", r"\1"),
            *caffe_layer(r"(fc[67])", r"\1", CAFFE_MATRIX),
            *caffe_layer(r"fc8(?:[-_]\w+)?", "fc8", CAFFE_MATRIX),
        ),
        ("c3d",),
        recipes=("c3d",),
        hints=(
            Hint(
                Mark(r"conv1a\[0\]"),
                "Its pools round up (Caffe's way), as this network's do. Its mean is a file of its "
                "own: give it with --mean-file.",
            ),
        ),
    ),
    "c3d-pytorch": ForeignFormat(
        "DavideA/c3d-pytorch, jfzhang95/pytorch-video-recognition",
        "C3D, converted from Caffe's weights of Sports-1M, or trained from them",
        (
            Mark(r"conv1\.weight", (None, None, 3, 3, 3)),
            Mark(r"conv5b\.weight", VIDEO_KERNEL),
            Mark(r"fc6\.weight", _FC6),
        ),
        (
            Rule(r"conv([12])\.(\w+)", r"conv\1a.\2"),
            Rule(r"(conv[345][ab]|fc[678])\.(\w+)", r"\1.\2"),
        ),
        ("c3d",),
        recipes=("c3d",),
        hints=(
            Hint(
                Mark(r"conv1\.weight"),
                "Its project pads pool5 in front, and Caffe, where the weights come from, rounds "
                "up, which is the default here. For the project's own scores make the network with "
                "--pool5 padded.",
            ),
        ),
    ),
    "mmaction2-c3d": ForeignFormat(
        "open-mmlab/mmaction2",
        "C3D, trained on Sports-1M and UCF101, of versions 0 and 1",
        (
            Mark(r"(?:backbone\.)?conv1a\.conv\.weight", VIDEO_KERNEL),
            Mark(r"(?:backbone\.)?conv5b\.conv\.weight", VIDEO_KERNEL),
        ),
        (
            Rule(r"(?:backbone\.)?(conv\d[ab])\.conv\.(\w+)", r"\1.\2"),
            Rule(r"(?:backbone\.)?(fc[67])\.(\w+)", r"\1.\2"),
            Rule(r"cls_head\.fc_cls\.(\w+)", r"fc8.\1"),
            Rule(r"data_preprocessor\..+", None),
        ),
        ("c3d",),
        recipes=("mmaction2-c3d",),
        hints=(
            Hint(
                Mark(r"(?:backbone\.)?conv1a\.conv\.weight"),
                "Its project pads pool5 in front: make the network with --pool5 padded.",
                {"pool5": "padded"},
            ),
        ),
    ),
}
"""The formats by name."""
