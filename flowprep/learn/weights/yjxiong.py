"""Weights of Caffe's people at CUHK: TSN on BN-Inception, two-stream VGG-16, and tsn-pytorch.

yjxiong/temporal-segment-networks (models/ucf101/*_deploy.prototxt) and yjxiong/caffe
(models/action_recognition) publish .caffemodel files; a blob is named by its layer and its number.
yjxiong/tsn-pytorch holds `state_dict` with `base_model` and, outside it, the classifier `new_fc`
(models.py). Its networks come from yjxiong/tensorflow-model-zoo.torch, whose parse_caffe.py made
`_` of `/` and `-`, and kept the rows (1, C) of Caffe's batch norms.

All see frames as OpenCV reads them: blue, green, red (pyActionRecog/utils/io.py; Stack(roll=True)
in tsn-pytorch's test_models.py). As ours are red, green, blue, the first kernel is turned around.

A batch norm has slope, bias, mean and variance (src/caffe/layers/bn_layer.cpp in yjxiong/caffe).
Its epsilon is 1e-5. Before 27 April 2016 the fourth blob was the inverse of the standard deviation
(CHANGELOG.md, python/bn_convert_style.py); TSN's files are younger.
"""

from __future__ import annotations

from flowprep.learn.weights.caffe_rules import CAFFE_MATRIX, CAFFE_VECTOR, caffe_layer
from flowprep.learn.weights.foreign import (
    BGR_TO_RGB,
    IMAGE_KERNEL,
    SQUEEZED,
    ForeignFormat,
    Hint,
    Mark,
    Rule,
)

__all__ = ["YJXIONG", "bn_inception_rules"]

# ---- BN-Inception

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")

_BN_INCEPTION_BLOBS = (
    *caffe_layer("conv1/7x7_s2", "conv1_7x7_s2", BGR_TO_RGB),
    *(
        Rule(rf"(conv\d|inception_\d\w)/(\w+_bn)\[{number}\]", rf"\1_\2.{part}", (CAFFE_VECTOR,))
        for number, part in enumerate(_NORM_PARTS)
    ),
    *caffe_layer(r"(conv\d|inception_\d\w)/(\w+)", r"\1_\2"),
    *caffe_layer("fc(?:[-_]action)?", "fc", CAFFE_MATRIX),
)


def bn_inception_rules(prefix: str, classifier: str) -> tuple[Rule, ...]:
    """Returns the rules for PyTorch's names. `prefix` and `classifier` are regular expressions."""
    return (
        Rule(rf"{prefix}conv1_7x7_s2\.weight", "conv1_7x7_s2.weight", (BGR_TO_RGB,)),
        Rule(rf"{prefix}((?:conv\d|inception_\d\w)_\w+_bn\.\w+)", r"\1", (SQUEEZED,)),
        Rule(rf"{prefix}((?:conv\d|inception_\d\w)_\w+\.\w+)", r"\1"),
        Rule(rf"(?:{classifier})\.(\w+)", r"fc.\1"),
    )


_POOLS_UP = "Its pools round up (Caffe's way), as this network's do."

# ---- VGG-16

_VGG_CONVS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}
"""Caffe's names -> torchvision's numbers, which count ReLUs and pools too."""

_VGG_LAYERS = {"fc6": 0, "fc7": 3, "fc8(?:[-_].+)?": 6}

_VGG_BLOBS = (
    *(
        rule
        for theirs, number in _VGG_CONVS.items()
        for rule in caffe_layer(
            theirs, f"features.{number}", *((BGR_TO_RGB,) if number == 0 else ())
        )
    ),
    *(
        rule
        for theirs, number in _VGG_LAYERS.items()
        for rule in caffe_layer(theirs, f"classifier.{number}", CAFFE_MATRIX)
    ),
)

YJXIONG = {
    "tsn-caffe": ForeignFormat(
        "yjxiong/temporal-segment-networks",
        "segment networks over BN-Inception (TSN), trained on UCF101 and HMDB51",
        (
            Mark(r"conv1/7x7_s2\[0\]", IMAGE_KERNEL),
            Mark(r"inception_5b/pool_proj_bn\[3\]"),
        ),
        _BN_INCEPTION_BLOBS,
        ("tsn-bn-inception", "bn-inception"),
        recipes=("yjxiong-tsn",),
        norm_eps=1e-5,
        hints=(
            Hint(Mark(r"conv1/7x7_s2\[0\]"), _POOLS_UP),
            Hint(
                Mark(r"conv1/7x7_s2_bn\[3\]"),
                "The fourth value of a batch norm is taken as the variance, as yjxiong's Caffe "
                "writes since 27 April 2016. Older files have 1 / standard deviation; its "
                "python/bn_convert_style.py converts them.",
            ),
        ),
    ),
    "tsn-pytorch-bn-inception": ForeignFormat(
        "yjxiong/tsn-pytorch, mit-han-lab/temporal-shift-module",
        "segment networks over BN-Inception (TSN, TSM), trained on UCF101, HMDB51 and Kinetics",
        (Mark(r"base_model\.conv1_7x7_s2\.weight", IMAGE_KERNEL),),
        bn_inception_rules(r"base_model\.", r"new_fc|base_model\.fc"),
        ("tsn-bn-inception", "bn-inception", "tsm-bn-inception", "gsm-bn-inception"),
        recipes=("tsn-pytorch",),
        norm_eps=1e-5,
        hints=(Hint(Mark(r"base_model\.conv1_7x7_s2\.weight"), _POOLS_UP),),
    ),
    "tsn-pytorch-bn-inception-init": ForeignFormat(
        "yjxiong/tensorflow-model-zoo.torch, Cadene/pretrained-models.pytorch",
        "BN-Inception, trained on ImageNet or Kinetics-400, from which TSN starts",
        (Mark(r"conv1_7x7_s2\.weight", IMAGE_KERNEL),),
        bn_inception_rules("", r"fc|fc_action|last_linear"),
        ("bn-inception", "tsn-bn-inception", "tsm-bn-inception", "gsm-bn-inception"),
        recipes=("tsn-pytorch",),
        norm_eps=1e-5,
        hints=(Hint(Mark(r"conv1_7x7_s2\.weight"), _POOLS_UP),),
        # PyTorch counts batches since 0.4.1, which is younger than these files: ours do.
        absent=(Mark(r"conv1_7x7_s2_bn\.num_batches_tracked"),),
    ),
    "two-stream-vgg16-caffe": ForeignFormat(
        "yjxiong/caffe, wanglimin",
        "the two streams of very deep two-stream networks (VGG-16), trained on UCF101",
        (Mark(r"conv1_1\[0\]", (None, None, 3, 3)), Mark(r"conv5_3\[0\]"), Mark(r"fc7\[0\]")),
        _VGG_BLOBS,
        ("vgg16", "gru-rcn"),
        recipes=("yjxiong-two-stream",),
        hints=(
            Hint(
                Mark(r"conv1_1\[0\]"),
                "Its pools round up (Caffe's way), this network's down: the same at 224 px, and at "
                "every size that 32 divides.",
            ),
        ),
    ),
}
"""The formats of one group, by name."""
