"""Weights of open-mmlab/mmaction, which came before mmaction2.

A network is `backbone` and `cls_head`. The backbones are BN-Inception with the names of
yjxiong/tsn-pytorch (models/tenons/backbones/bninception.py), torchvision's ResNets (resnet.py,
resnet_i3d.py), and Inception-V1 of I3D with names of its own (inception_v1_i3d.py).
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import (
    BGR_TO_RGB,
    IMAGE_KERNEL,
    LINEAR_TO_CONV3D,
    SQUEEZED,
    VIDEO_KERNEL,
    ForeignFormat,
    Hint,
    Mark,
    Rule,
)

__all__ = ["MMACTION1"]

_PROJECT = "open-mmlab/mmaction"

_CLASSIFIER = Rule(r"cls_head\.fc_cls\.(\w+)", r"fc.\1")

_RESNET = (
    Rule(r"backbone\.((?:conv1|bn1)\.\w+)", r"\1"),
    Rule(r"backbone\.(layer\d\.\d+\.(?:conv\d|bn\d|downsample\.\d)\.\w+)", r"\1"),
    _CLASSIFIER,
)

_BN_INCEPTION = (
    # Frames are blue, green, red: to_rgb=False in test_configs/TSN/ucf101/tsn_rgb_bninception.py.
    Rule(r"backbone\.(conv1_7x7_s2\.weight)", r"\1", (BGR_TO_RGB,)),
    Rule(r"backbone\.((?:conv\d|inception_\d\w)_\w+_bn\.\w+)", r"\1", (SQUEEZED,)),
    Rule(r"backbone\.((?:conv\d|inception_\d\w)_\w+\.\w+)", r"\1"),
    _CLASSIFIER,
)

_I3D_STEM = {
    "conv1_7x7_s2": "Conv3d_1a_7x7",
    "conv2_3x3_reduce": "Conv3d_2b_1x1",
    "conv2_3x3": "Conv3d_2c_3x3",
}
_I3D_BRANCHES = {
    "1x1": "b0",
    "branch1_3x3_reduce": "b1a",
    "branch1_3x3": "b1b",
    "branch2_3x3_reduce": "b2a",
    "branch2_3x3": "b2b",
    "pool_proj": "b3b",
}

_I3D_MODULES = {
    module: f"Mixed_{module[0]}{following}"
    for module, following in zip(
        ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"), "bcbcdefbc", strict=True
    )
}
"""GoogLeNet's letters -> DeepMind's, which begin each stage with its pool."""

_I3D_UNITS = {
    **_I3D_STEM,
    **{
        f"inception_{module}_{theirs}": f"{mixed}.{ours}"
        for module, mixed in _I3D_MODULES.items()
        for theirs, ours in _I3D_BRANCHES.items()
    },
}

_I3D = (
    *(
        Rule(rf"backbone\.{theirs}{suffix}\.(\w+)", rf"{ours}.{part}.\1")
        for theirs, ours in _I3D_UNITS.items()
        for suffix, part in (("", "conv3d"), ("_bn", "bn"))
    ),
    Rule(r"cls_head\.fc_cls\.weight", "logits.conv3d.weight", (LINEAR_TO_CONV3D,)),
    Rule(r"cls_head\.fc_cls\.bias", "logits.conv3d.bias"),
)

_INCEPTION = Mark(r"backbone\.conv1_7x7_s2\.weight", VIDEO_KERNEL)

MMACTION1 = {
    "mmaction1-bn-inception": ForeignFormat(
        _PROJECT,
        "segment networks over BN-Inception (TSN), trained on UCF101 and HMDB51",
        (Mark(r"backbone\.conv1_7x7_s2\.weight", IMAGE_KERNEL),),
        _BN_INCEPTION,
        ("tsn-bn-inception", "bn-inception"),
        ("mmaction-tsn",),
        norm_eps=1e-5,
    ),
    "mmaction1-i3d": ForeignFormat(
        _PROJECT,
        "I3D over Inception-V1, trained on Kinetics-400, UCF101 and HMDB51",
        (_INCEPTION,),
        _I3D,
        ("i3d",),
        ("mmaction-i3d", "i3d"),
        norm_eps=1e-5,
        hints=(
            Hint(
                _INCEPTION,
                "Its scores come from the average of all times; here they come from pairs of "
                "times, as in DeepMind's release, so that the first and the last count less.",
            ),
        ),
    ),
    "mmaction1-resnet": ForeignFormat(
        _PROJECT,
        "segment networks over a ResNet (TSN), trained on Kinetics-400",
        (Mark(r"backbone\.conv1\.weight", IMAGE_KERNEL),),
        _RESNET,
        ("tsn-resnet50", "tsn-resnet18", "tsn-resnet34", "resnet101", "resnet152"),
    ),
    "mmaction1-slow": ForeignFormat(
        _PROJECT,
        "3D networks over a ResNet (SlowOnly, I3D), trained on Kinetics-400",
        (Mark(r"backbone\.conv1\.weight", VIDEO_KERNEL),),
        _RESNET,
        ("slow-4x16", "slow-8x8"),
    ),
}
"""The formats of one project, by name."""
