"""Weights of open-mmlab/mmaction2, of its versions 0 and 1.

A network is `backbone` and `cls_head`. A convolution, its batch norm and the ReLU are one module
(mmcv's ConvModule), so that a kernel is `conv1.conv.weight` and its norm `conv1.bn.weight`. A
temporal shift adds `net` (models/backbones/resnet_tsm.py). Version 1 may add what its
data_preprocessor holds.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import (
    IMAGE_KERNEL,
    VIDEO_KERNEL,
    ForeignFormat,
    Hint,
    Mark,
    Rule,
    Supplied,
)

__all__ = ["MMACTION2"]

_PREPROCESSOR = Rule(r"data_preprocessor\..+", None)

_NON_LOCAL = {
    r"g(?:\.0)?\.conv": "g",
    r"phi(?:\.0)?\.conv": "phi",
    r"theta\.conv": "theta",
    r"conv_out\.conv": "out",
    r"conv_out\.bn": "bn",
}
"""The parts of mmcv's NonLocal3d -> ours."""

_RULES = (
    Rule(r"backbone\.conv1\.conv\.(\w+)", r"conv1.\1"),
    Rule(r"backbone\.conv1\.bn\.(\w+)", r"bn1.\1"),
    *(
        Rule(
            rf"backbone\.(layer\d)\.(?:net\.)?(\d+)\.non_local_block\.{theirs}\.(\w+)",
            rf"\1.\2.non_local.{ours}.\3",
        )
        for theirs, ours in _NON_LOCAL.items()
    ),
    Rule(
        r"backbone\.(layer\d)\.(?:net\.)?(\d+)\.(?:block\.)?(?:net\.)?"
        r"conv(\d)\.conv\.(?:net\.)?(\w+)",
        r"\1.\2.conv\3.\4",
    ),
    Rule(
        r"backbone\.(layer\d)\.(?:net\.)?(\d+)\.(?:block\.)?(?:net\.)?conv(\d)\.bn\.(\w+)",
        r"\1.\2.bn\3.\4",
    ),
    Rule(
        r"backbone\.(layer\d)\.(?:net\.)?(\d+)\.(?:block\.)?(?:net\.)?downsample\.conv\.(\w+)",
        r"\1.\2.downsample.0.\3",
    ),
    Rule(
        r"backbone\.(layer\d)\.(?:net\.)?(\d+)\.(?:block\.)?(?:net\.)?downsample\.bn\.(\w+)",
        r"\1.\2.downsample.1.\3",
    ),
    Rule(r"cls_head\.fc_cls\.(\w+)", r"fc.\1"),
    _PREPROCESSOR,
)

_PROJECT = "open-mmlab/mmaction2"
_FIRST = r"backbone\.conv1\.conv\.weight"
_SHIFTED = Mark(r"backbone\.layer1\..+\.net\.weight")


def _non_local_hint(style: str) -> Hint:
    return Hint(
        Mark(r"backbone\.layer\d\..+\.non_local_block\..+"),
        f"It has non-local blocks: make the network with --non-local --non-local-style {style}.",
        {"non_local": True, "non_local_style": style},
    )


_WITHOUT_BIAS = Supplied(
    r"(.+\.non_local)\.out\.weight",
    r"\1.out.bias",
    0,
    "0: the file's last convolution of a non-local block has no bias",
)

MMACTION2 = {
    "mmaction2-tsn": ForeignFormat(
        _PROJECT,
        "segment networks over a ResNet (TSN), of versions 0 and 1",
        (Mark(_FIRST, IMAGE_KERNEL),),
        _RULES,
        ("tsn-resnet50", "tsn-resnet18", "tsn-resnet34", "resnet101", "resnet152"),
        ("mmaction2-tsn",),
        absent=(_SHIFTED,),
    ),
    "mmaction2-tsm": ForeignFormat(
        _PROJECT,
        "shift networks over a ResNet (TSM), of versions 0 and 1",
        (Mark(_FIRST, IMAGE_KERNEL), _SHIFTED),
        _RULES,
        ("tsm-resnet50", "tsm-resnet18"),
        hints=(
            Hint(
                Mark(r"backbone\.layer2\.net\..+"),
                "Its time axis is halved before layer2: make the network with --temporal-pool.",
                {"temporal_pool": True},
            ),
            _non_local_hint("tsm"),
        ),
        supplied=(_WITHOUT_BIAS,),
    ),
    "mmaction2-3d": ForeignFormat(
        _PROJECT,
        "3D networks over a ResNet (SlowOnly, I3D), of versions 0 and 1",
        (Mark(_FIRST, VIDEO_KERNEL),),
        _RULES,
        ("slow-4x16", "slow-8x8"),
        ("mmaction2-slow-4x16", "mmaction2-slow-8x8"),
        hints=(
            Hint(
                Mark(_FIRST, (None, None, 5, None, None)),
                "Its I3D halves time in conv1 and in the pool after it, and i3d-resnet50 does not: "
                "begin a training from it, but do not expect its scores.",
            ),
            _non_local_hint("mmaction2"),
        ),
        supplied=(_WITHOUT_BIAS,),
    ),
}
"""The formats of one project, by name."""
