"""Weights of MobileNetV2 with the names of tonylins/pytorch-mobilenet-v2.

Each block is one flat sequence there (`features.2.conv.3`), and one of pairs in torchvision, whose
names are ours (`features.2.conv.1.0`). The classifier is `classifier`; torchvision's is
`classifier.1`.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import ForeignFormat, Mark, Rule

__all__ = ["MOBILENET", "tonylins_rules"]

_FIRST_BLOCK = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
"""Positions in the first block, which has no 1x1 convolution before the depthwise one."""
_BLOCK = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}


def tonylins_rules(before: str = "", wrapper: str = "") -> tuple[Rule, ...]:
    """Returns the rules for the features. `before` and `wrapper` are regular expressions for what
    stands before each name, and before the last part of a name, without a group."""
    return (
        Rule(rf"{before}(features\.(?:0|18)\.[01]\.\w+)", r"\1"),
        *(
            Rule(rf"{before}features\.1\.conv\.{theirs}\.(\w+)", rf"features.1.conv.{ours}.\1")
            for theirs, ours in _FIRST_BLOCK.items()
        ),
        *(
            Rule(
                rf"{before}features\.(\d+)\.conv\.{theirs}\.{wrapper}(\w+)",
                rf"features.\1.conv.{ours}.\2",
            )
            for theirs, ours in _BLOCK.items()
        ),
    )


MOBILENET = {
    "mobilenet-v2-flat": ForeignFormat(
        "tonylins/pytorch-mobilenet-v2",
        "MobileNetV2 over frames, trained on ImageNet",
        (Mark(r"features\.2\.conv\.3\.weight"), Mark(r"features\.2\.conv\.6\.weight")),
        (*tonylins_rules(), Rule(r"classifier\.(?:1\.)?(\w+)", r"classifier.1.\1")),
        ("mobilenet-v2", "tsn-mobilenet-v2", "tsm-mobilenet-v2"),
    ),
}
"""The format of one project, by name."""
